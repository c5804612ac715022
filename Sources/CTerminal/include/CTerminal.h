#ifndef CTERMINAL_H
#define CTERMINAL_H

/// Columns of a character on a terminal, by the locale's tables; -1 for what cannot be shown. wcwidth, which glibc shows
/// to _XOPEN_SOURCE only.
int krux_columns(unsigned int scalar);

#endif
