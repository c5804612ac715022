import Foundation
import GRDB

/// A value bound to or read from SQL. Bound values never appear in an error or a log line.
package enum SQLValue: Sendable, Equatable {
    case null
    case int(Int64)
    case text(String)
    case blob([UInt8])

    package static func optional(_ text: String?) -> SQLValue { text.map(SQLValue.text) ?? .null }
    package static func optional(_ int: Int64?) -> SQLValue { int.map(SQLValue.int) ?? .null }

    fileprivate var databaseValue: DatabaseValue {
        switch self {
        case .null: .null
        case .int(let value): value.databaseValue
        case .text(let value): value.databaseValue
        case .blob(let value): Data(value).databaseValue
        }
    }
}

/// A row under the cursor; valid only inside the closure it is given to. A value of another type than asked for, as only
/// a damaged or foreign file has, reads as empty rather than as an end of the program.
package struct SQLRow {
    let row: Row

    package func int(_ index: Int) -> Int64 { optionalInt(index) ?? 0 }
    package func optionalInt(_ index: Int) -> Int64? { Int64.fromDatabaseValue(row[index]) }
    package func text(_ index: Int) -> String { optionalText(index) ?? "" }
    package func optionalText(_ index: Int) -> String? {
        let value: DatabaseValue = row[index]
        if case .int64(let number) = value.storage { return "\(number)" }
        return String.fromDatabaseValue(value)
    }
    /// A text's bytes, too.
    package func optionalBlob(_ index: Int) -> [UInt8]? { Data.fromDatabaseValue(row[index]).map { [UInt8]($0) } }
    package func blob(_ index: Int) -> [UInt8] { optionalBlob(index) ?? [] }
}

/// Reading one snapshot of the file. Valid only inside the closure it is given to.
package protocol ReadTx {
    /// Calls `body` for each row, in order, until it returns false.
    func forEach(_ sql: String, _ arguments: [SQLValue], _ body: (SQLRow) throws -> Bool) throws
}

extension ReadTx {
    package func rows<T>(_ sql: String, _ arguments: [SQLValue] = [], _ map: (SQLRow) throws -> T) throws -> [T] {
        var result: [T] = []
        try forEach(sql, arguments) { row in
            result.append(try map(row))
            return true
        }
        return result
    }

    package func first<T>(_ sql: String, _ arguments: [SQLValue] = [], _ map: (SQLRow) throws -> T) throws -> T? {
        var result: T?
        try forEach(sql, arguments) { row in
            result = try map(row)
            return false
        }
        return result
    }
}

struct DatabaseReadTx: ReadTx {
    let db: Database

    func forEach(_ sql: String, _ arguments: [SQLValue], _ body: (SQLRow) throws -> Bool) throws {
        let statement = try db.cachedStatement(sql: sql)
        let cursor = try Row.fetchCursor(statement, arguments: StatementArguments(arguments.map(\.databaseValue)))
        while let row = try cursor.next() {
            if try !body(SQLRow(row: row)) { return }
        }
    }
}

/// A write transaction. What it changes is durable once the call that gave it returns, and gone if that call throws.
package struct WriteTx: ReadTx {
    let db: Database

    package func forEach(_ sql: String, _ arguments: [SQLValue], _ body: (SQLRow) throws -> Bool) throws {
        try DatabaseReadTx(db: db).forEach(sql, arguments, body)
    }

    /// Does all of something or nothing: what `work` throws undoes it, and the transaction goes on.
    package func attempt<T>(_ work: () throws -> T) throws -> T {
        var result: T?
        try db.inSavepoint {
            result = try work()
            return .commit
        }
        guard let result else { throw StoreError(.corrupt, "a savepoint ended without its result") }
        return result
    }

    /// Runs a statement and returns the number of rows it changed.
    @discardableResult
    package func execute(_ sql: String, _ arguments: [SQLValue] = []) throws -> Int {
        let statement = try db.cachedStatement(sql: sql)
        statement.setUncheckedArguments(StatementArguments(arguments.map(\.databaseValue)))
        try statement.execute()
        return db.changesCount
    }
}
