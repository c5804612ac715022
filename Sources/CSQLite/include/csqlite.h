/* The variadic part of SQLite's interface, which Swift cannot call. Headers only: the library itself is linked
   once, by GRDBSQLite. */
#ifndef KRUX_CSQLITE_H
#define KRUX_CSQLITE_H
#include <sqlite3.h>

/* sqlite3_db_config for the options that take (int onoff, int *out). Returns SQLite's result code. */
int krux_sqlite_db_config(sqlite3 *db, int option, int value);
#endif
