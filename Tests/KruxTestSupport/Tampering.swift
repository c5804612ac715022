import GRDBSQLite

/// Runs SQL on a database as somebody would who owns the file, past its triggers.
package func tamper(_ path: String, _ sql: String) throws {
    var handle: OpaquePointer?
    guard sqlite3_open(path, &handle) == SQLITE_OK else { throw TestFailure("no file") }
    defer { sqlite3_close(handle) }
    // As somebody would who owns the file: the triggers go, and come back so that the schema is the same.
    var triggers: [String] = []
    var statement: OpaquePointer?
    sqlite3_prepare_v2(handle, "SELECT name, sql FROM sqlite_schema WHERE type = 'trigger'", -1, &statement, nil)
    var names: [String] = []
    while sqlite3_step(statement) == SQLITE_ROW {
        names.append(String(cString: sqlite3_column_text(statement, 0)))
        triggers.append(String(cString: sqlite3_column_text(statement, 1)))
    }
    sqlite3_finalize(statement)
    let script = (names.map { "DROP TRIGGER \($0)" } + [sql] + triggers).joined(separator: ";\n")
    guard sqlite3_exec(handle, script, nil, nil, nil) == SQLITE_OK else {
        throw TestFailure(String(cString: sqlite3_errmsg(handle)))
    }
}
