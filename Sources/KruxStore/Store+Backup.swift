import Foundation
import GRDB
import GRDBSQLite
import KruxMigrations

/// Copies of the file. SQLite makes them, page by page from one snapshot, so they are whole whatever is written meanwhile.
extension ReadOnlyStore {
    /// Copies everything that is durable now into `path`, which must not exist, 0600. The log cannot be folded into the
    /// file meanwhile, so it grows with what is written.
    package func copy(to path: String) throws {
        do { try Store.copy(queue, to: path) } catch { throw Writer.translate(error) }
    }

    /// What SQLite says of every page and index; empty when all is well. Slow: it reads everything.
    package func integrityProblems() throws -> [String] {
        try read { try $0.rows("PRAGMA integrity_check(20)") { $0.text(0) } }.filter { $0 != "ok" }
    }

    /// `PRAGMA user_version`.
    package var schemaVersion: Int32 { version }
}

extension Store {
    /// Of the SQLite that is linked.
    package static var libraryVersion: String { String(cString: sqlite3_libversion()) }

    /// SQLite 3.7.0 to 3.51.2 may damage a file when one connection folds the log while another commits.
    package static var hasResetFault: Bool { (3_007_000...3_051_002).contains(sqlite3_libversion_number()) }

    package static let latestSchema = Migrations.latest

    static func copy(_ source: DatabaseQueue, to path: String) throws {
        let descriptor = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0o600)
        guard descriptor >= 0 else {
            throw StoreError(.inputOutput, "cannot write `\(path)`: \(String(cString: strerror(errno)))")
        }
        Foundation.close(descriptor)
        do {
            let target = try DatabaseQueue(path: path)
            try source.backup(to: target)
            try target.close()
            try synchronise(path)
        } catch {
            for suffix in ["", "-wal", "-shm", "-journal"] { unlink(path + suffix) }
            throw error
        }
    }

    /// Waits until a file and its place in the folder are on the disk. Not for a file that SQLite has open.
    package static func synchronise(_ path: String) throws {
        for (name, flags) in [(path, O_RDONLY), ((path as NSString).deletingLastPathComponent, O_RDONLY | O_DIRECTORY)]
        {
            let descriptor = open(name.isEmpty ? "." : name, flags | O_CLOEXEC)
            guard descriptor >= 0 else {
                throw StoreError(.inputOutput, "cannot open `\(name)`: \(String(cString: strerror(errno)))")
            }
            defer { Foundation.close(descriptor) }
            guard fsync(descriptor) == 0 else {
                throw StoreError(.inputOutput, "cannot sync `\(name)`: \(String(cString: strerror(errno)))")
            }
        }
    }

    /// An older file is copied before its schema changes: `backups/before-schema-<new version>.db`.
    static func backUpBeforeMigration(_ queue: DatabaseQueue, home: String) throws {
        let version = try queue.unsafeRead { try Int32.fetchOne($0, sql: "PRAGMA user_version") ?? 0 }
        guard version > 0, version < Migrations.latest else { return }
        let folder = home + "/backups"
        if mkdir(folder, 0o700) != 0, errno != EEXIST {
            throw StoreError(
                .inputOutput,
                "cannot make `\(folder)` for the backup before the upgrade: \(String(cString: strerror(errno)))")
        }
        let base = "\(folder)/before-schema-\(Migrations.latest)"
        var path = base + ".db"
        var number = 2
        while access(path, F_OK) == 0 {
            path = "\(base)-\(number).db"
            number += 1
        }
        try copy(queue, to: path)
    }
}
