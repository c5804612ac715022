#define _XOPEN_SOURCE 700
#include "CTerminal.h"

#include <wchar.h>

int krux_columns(unsigned int scalar) { return wcwidth((wchar_t)scalar); }
