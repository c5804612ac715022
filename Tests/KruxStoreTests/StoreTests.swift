import Foundation
import GRDBSQLite
import KruxStore
import KruxTestSupport
import Logging
import Testing

/// A store on a file of its own.
private func withStore<R>(_ body: (Store, String) async throws -> R) async throws -> R {
    try await withTemporaryFolder { home in
        let store = try Store(home: home, log: Logger(label: "test"))
        let result = try await body(store, home)
        try store.close()
        return result
    }
}

private func execute(_ path: String, _ sql: String) throws {
    var handle: OpaquePointer?
    guard sqlite3_open(path, &handle) == SQLITE_OK, sqlite3_exec(handle, sql, nil, nil, nil) == SQLITE_OK else {
        throw TestFailure(String(cString: sqlite3_errmsg(handle)))
    }
    sqlite3_close(handle)
}

@Suite struct StoreTests {
    @Test func whatAWriteReturnedIsReadByAnotherConnection() async throws {
        try await withStore { store, home in
            try await store.writer.write { try $0.execute("INSERT INTO meta (key, value) VALUES ('a', 'b')") }
            let reader = try ReadOnlyStore(path: home + "/kruxos.db")
            #expect(try reader.read { try $0.first("SELECT value FROM meta WHERE key = 'a'") { $0.text(0) } } == "b")
            #expect(throws: (any Error).self) {
                try reader.read { try $0.forEach("DELETE FROM meta", []) { _ in true } }
            }
        }
    }

    /// A reader's snapshot keeps the log from being folded, for as long as it likes; a write waits for neither.
    @Test func aWriteDoesNotWaitForAReader() async throws {
        try await withStore { store, home in
            try await store.writer.write { try $0.execute("INSERT INTO meta (key, value) VALUES ('a', '0')") }
            var reader: OpaquePointer?
            try #require(sqlite3_open(home + "/kruxos.db", &reader) == SQLITE_OK)
            defer { sqlite3_close(reader) }
            try #require(sqlite3_exec(reader, "BEGIN; SELECT count(*) FROM meta", nil, nil, nil) == SQLITE_OK)
            // Longer than a quiet time, so that folding is tried while others want to write.
            var fastest = Duration.seconds(60)
            for number in 0..<4 {
                try await Task.sleep(for: .milliseconds(600))
                let since = ContinuousClock.now
                try store.writer.writeAndWait {
                    try $0.execute("UPDATE meta SET value = ? WHERE key = 'a'", [.text("\(number)")])
                }
                fastest = min(fastest, ContinuousClock.now - since)
            }
            // A busy machine may make some of them wait, SQLite every one, and for five seconds.
            #expect(fastest < .seconds(4))
            let size = try FileManager.default.attributesOfItem(atPath: home + "/kruxos.db-wal")[.size] as? Int
            #expect(size ?? 0 > 0, "the reader did keep the log")
        }
    }

    @Test func aCallThatThrowsTakesNothingOfItsBatchWithIt() async throws {
        try await withStore { store, _ in
            try await withThrowingTaskGroup(of: Bool.self) { group in
                for number in 0..<200 {
                    group.addTask {
                        do {
                            try await store.writer.write { tx in
                                try tx.execute("INSERT INTO meta (key, value) VALUES (?, 'x')", [.text("k\(number)")])
                                if number % 10 == 0 { throw TestFailure("no") }
                            }
                            return true
                        } catch is TestFailure {
                            return false
                        }
                    }
                }
                var committed = 0
                for try await success in group where success { committed += 1 }
                #expect(committed == 180)
            }
            #expect(try store.read { try $0.first("SELECT count(*) FROM meta") { $0.int(0) } } == 180)
        }
    }

    @Test func theFileAloneIsCompleteAfterAStopAndWhenIdle() async throws {
        try await withTemporaryFolder { home in
            let store = try Store(home: home, log: Logger(label: "test"))
            try await store.writer.write { try $0.execute("INSERT INTO meta (key, value) VALUES ('a', 'b')") }
            let log = home + "/kruxos.db-wal"
            func size() -> Int { (try? FileManager.default.attributesOfItem(atPath: log)[.size] as? Int) ?? 0 }
            let deadline = ContinuousClock.now + .seconds(2)
            while size() > 0, ContinuousClock.now < deadline { try await Task.sleep(for: .milliseconds(20)) }
            #expect(size() == 0, "the log is not folded into the file two seconds after the last write")
            try await store.writer.write { try $0.execute("INSERT INTO meta (key, value) VALUES ('c', 'd')") }
            try store.close()
            #expect(size() == 0)
            let copy = home + "/copy.db"
            try FileManager.default.copyItem(atPath: home + "/kruxos.db", toPath: copy)
            let reader = try ReadOnlyStore(path: copy, immutable: true)
            #expect(try reader.read { try $0.first("SELECT count(*) FROM meta") { $0.int(0) } } == 2)
        }
    }

    @Test func foreignAndNewerFilesAreRefusedUnchanged() async throws {
        try await withTemporaryFolder { home in
            let path = home + "/kruxos.db"
            func refused(_ code: StoreError.Code, _ make: () throws -> Void) throws {
                try? FileManager.default.removeItem(atPath: path)
                try make()
                let before = try Data(contentsOf: URL(fileURLWithPath: path))
                let error = #expect(throws: StoreError.self) { try Store(home: home, log: Logger(label: "test")) }
                #expect(error?.code == code)
                #expect(try Data(contentsOf: URL(fileURLWithPath: path)) == before)
            }
            try refused(.foreignFile) { try execute(path, "CREATE TABLE theirs (x)") }
            try refused(.foreignFile) {
                try write("this is no database at all, but long enough to look at\n", to: path)
            }
            try refused(.newerSchema) {
                try execute(
                    path,
                    "PRAGMA application_id = \(Store.applicationID); PRAGMA user_version = 9999; CREATE TABLE t (x)")
            }
        }
    }

    @Test func aSchemaThatSomebodyChangedIsRefused() async throws {
        try await withTemporaryFolder { home in
            try Store(home: home, log: Logger(label: "test")).close()
            try execute(home + "/kruxos.db", "DROP TRIGGER audit_keeps_rows")
            let error = #expect(throws: StoreError.self) { try Store(home: home, log: Logger(label: "test")) }
            #expect(error?.code == .foreignFile)
        }
    }

    /// A program that is being started holds copies of all descriptors until it executes.
    @Test func theLockGoesWithItsHolderWhoeverHasACopy() async throws {
        try await withTemporaryFolder { home in
            func takeAndCopy() throws -> Int32 {
                let lock = try WriterLock(home: home)
                let copy = (3..<4096).first { number in
                    (try? FileManager.default.destinationOfSymbolicLink(atPath: "/proc/self/fd/\(number)"))
                        == home + "/kruxos.lock"
                }
                defer { withExtendedLifetime(lock) {} }
                return dup(Int32(try #require(copy)))
            }
            let copy = try takeAndCopy()
            defer { close(copy) }
            _ = try WriterLock(home: home)
        }
    }

    @Test func oneProcessWrites() async throws {
        try await withTemporaryFolder { home in
            let first = try WriterLock(home: home)
            do {
                _ = try WriterLock(home: home)
                Issue.record("two locks were given")
            } catch let error as StoreError {
                #expect(error.code == .locked)
            }
            _ = consume first
            _ = try WriterLock(home: home)
        }
    }

    @Test func theRecordIsAppendOnly() async throws {
        try await withStore { store, _ in
            let zero = SQLValue.blob([UInt8](repeating: 0, count: 32))
            try await store.writer.write { tx in
                try tx.execute(
                    "INSERT INTO audit (seq, epoch, key_id, prev, body_hash, sig, body) VALUES (1, 1, ?, ?, ?, ?, '{}')",
                    [zero, zero, zero, .blob([UInt8](repeating: 0, count: 64))])
            }
            for sql in [
                "DELETE FROM audit", "UPDATE audit SET body = '{\"a\":1}'", "UPDATE audit SET body = NULL, epoch = 2",
            ] {
                await #expect(throws: StoreError.self) { try await store.writer.write { try $0.execute(sql) } }
            }
            try await store.writer.write { try $0.execute("UPDATE audit SET body = NULL") }
        }
    }
}
