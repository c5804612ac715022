/* Starting our own binary as a process of its own, unconfined: the gateway, when a command needs one. */
#ifndef KRUX_CSPAWN_H
#define KRUX_CSPAWN_H

/* Starts `path` in a session of its own with standard input from /dev/null, standard output to `out` and standard
 * error appended to the file `log`; every other descriptor is closed. Returns the pid or a negative errno. */
int krux_spawn_detached(const char *path, const char *const *arguments, int out, const char *log);

#endif
