import CSQLite
import Foundation
import GRDB
import GRDBSQLite
import KruxMigrations
package import Logging

/// Something that gives snapshots of the file.
package protocol SnapshotSource {
    /// Reads one snapshot. Blocks the calling thread; keep it short, or page.
    func read<T>(_ body: (any ReadTx) throws -> T) throws -> T
}

/// The SQLite file: opened with care, hardened, migrated, written by one thread, read by others. Nothing outside this
/// room sees GRDB or a connection.
package final class Store: SnapshotSource, Sendable {
    /// `KRUX`: every file of ours carries it at byte 68.
    package static let applicationID: Int32 = 0x4B52_5558

    package let path: String
    package let writer: Writer
    private let queue: DatabaseQueue
    private let readers: ReaderPool

    /// Opens `home/kruxos.db` for writing, creating and migrating it as needed. The caller holds the `WriterLock`.
    ///
    /// - Parameters:
    ///   - participants: built from the opened file before the writer starts.
    /// - Throws: `StoreError` `.foreignFile` or `.newerSchema` before anything is written.
    package init(
        home: String, log: Logger, participants: (any ReadTx) throws -> [any TransactionParticipant] = { _ in [] }
    ) throws {
        path = home + "/kruxos.db"
        try Self.checkBeforeWriting(path)
        try Self.createIfMissing(path)
        var configuration = Configuration()
        configuration.busyMode = .timeout(5)
        configuration.label = "kruxos.writer"
        configuration.allowsUnsafeTransactions = true
        configuration.prepareDatabase { db in
            try Self.harden(db)
            try db.execute(
                sql: """
                    PRAGMA journal_mode = WAL;
                    PRAGMA synchronous = FULL;
                    PRAGMA wal_autocheckpoint = 0;
                    PRAGMA foreign_keys = ON;
                    PRAGMA cache_size = -16384;
                    PRAGMA temp_store = MEMORY;
                    """)
        }
        do {
            let mask = umask(0o077)
            defer { umask(mask) }
            queue = try DatabaseQueue(path: path, configuration: configuration)
            try Self.backUpBeforeMigration(queue, home: home)
            try Self.migrate(queue)
            let foreign = try queue.unsafeRead { try Self.schema(DatabaseReadTx(db: $0)) } != Self.expectedSchema()
            if foreign {
                throw StoreError(
                    .foreignFile, "the schema of `\(path)` is not the one this kruxos makes",
                    hint: "something else has changed the file; put a backup in its place")
            }
            let found = try queue.unsafeRead { try participants(DatabaseReadTx(db: $0)) }
            writer = Writer(queue: queue, participants: found, log: log)
            readers = ReaderPool(path: path)
        } catch {
            throw Writer.translate(error)
        }
    }

    package func read<T>(_ body: (any ReadTx) throws -> T) throws -> T { try readers.read(body) }

    /// The statements that make up the schema of the newest version, sorted: what a file of ours must hold.
    /// - Parameter version: of an older file that no writer has brought up to date.
    package static func expectedSchema(through version: Int32 = Migrations.latest) throws -> [String] {
        let memory = try DatabaseQueue()
        try migrate(memory, through: version)
        return try memory.unsafeRead { try schema(DatabaseReadTx(db: $0)) }
    }

    /// The statements that make up a file's schema, sorted.
    package static func schema(_ tx: any ReadTx) throws -> [String] {
        try tx.rows("SELECT sql FROM sqlite_schema WHERE sql IS NOT NULL AND name NOT LIKE 'sqlite_%' ORDER BY sql") {
            $0.text(0)
        }
    }

    /// Stops readers, then the writer with a last checkpoint, so that the file alone is complete.
    package func close() throws {
        readers.close()
        writer.stop()
        do { try queue.close() } catch { throw Writer.translate(error) }
    }

    /// A new file appears whole: it is made beside its place, and a crash leaves none.
    private static func createIfMissing(_ path: String) throws {
        var status = stat()
        guard stat(path, &status) != 0 || status.st_size == 0 else { return }
        let temporary = path + ".new"
        for suffix in ["", "-journal", "-wal", "-shm"] { unlink(temporary + suffix) }
        let mask = umask(0o077)
        defer { umask(mask) }
        do {
            let queue = try DatabaseQueue(path: temporary)
            try migrate(queue)
            try queue.writeWithoutTransaction { try $0.execute(sql: "PRAGMA journal_mode = WAL") }
            try queue.close()
            for suffix in ["-wal", "-shm"] { unlink(temporary + suffix) }
            try synchronise(temporary)
        } catch {
            throw Writer.translate(error)
        }
        // A log without its file would be read into the new one.
        for suffix in ["-wal", "-shm"] { unlink(path + suffix) }
        guard rename(temporary, path) == 0 else {
            throw StoreError(.inputOutput, "cannot make `\(path)`: \(String(cString: strerror(errno)))")
        }
        try synchronise((path as NSString).deletingLastPathComponent)
    }

    /// Refuses a foreign or newer file, reading it only.
    package static func checkBeforeWriting(_ path: String) throws {
        var status = stat()
        guard stat(path, &status) == 0, status.st_size > 0 else { return }
        try ReadOnlyStore(path: path).close()
    }

    /// `trusted_schema` stays on: SQLite 3.40 counts its own JSON functions as unsafe in a schema, and the record's
    /// columns are made of them. Instead a schema that is not exactly ours is refused when the file is opened for
    /// writing, and by `audit verify`.
    static func harden(_ db: Database) throws {
        guard let handle = db.sqliteConnection else { return }
        for (option, value) in [
            (SQLITE_DBCONFIG_DEFENSIVE, 1), (SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1),
        ] {
            let code = krux_sqlite_db_config(handle, option, Int32(value))
            if code != SQLITE_OK { throw StoreError(.inputOutput, "SQLite refuses option \(option) (\(code))") }
        }
    }

    private static func migrate(_ queue: DatabaseQueue, through latest: Int32 = Migrations.latest) throws {
        try queue.writeWithoutTransaction { db in
            let version = try Int32.fetchOne(db, sql: "PRAGMA user_version") ?? 0
            guard version < latest else { return }
            try db.inTransaction(.exclusive) {
                for migration in Migrations.all where migration.version > version && migration.version <= latest {
                    try db.execute(sql: migration.sql)
                }
                try db.execute(sql: "PRAGMA application_id = \(applicationID)")
                try db.execute(sql: "PRAGMA user_version = \(latest)")
                return .commit
            }
        }
    }
}

/// A connection that cannot write: for the commands that only read, and for a file elsewhere.
package final class ReadOnlyStore: SnapshotSource, Sendable {
    let queue: DatabaseQueue
    /// The file's schema.
    let version: Int32

    /// - Parameters:
    ///   - immutable: for a copy of the file that nobody writes; refused when a log with content lies beside it.
    /// - Throws: `StoreError` `.missing`, `.foreignFile`, `.newerSchema`.
    package init(path: String, immutable: Bool = false) throws {
        guard access(path, F_OK) == 0 else {
            throw StoreError(
                .missing, "there is no database at `\(path)`", hint: "run `kruxos quickstart` to create one")
        }
        var status = stat()
        guard stat(path, &status) != 0 || status.st_mode & S_IFMT == S_IFREG else {
            throw StoreError(.foreignFile, "`\(path)` is no regular file", hint: "name the database file itself")
        }
        var name = path
        if immutable {
            if stat(path + "-wal", &status) == 0, status.st_size > 0 {
                throw StoreError(
                    .inputOutput, "`\(path)` has a log beside it, so the file alone is not complete",
                    hint: "copy the file after the gateway has been idle for two seconds, or stop it first")
            }
            let allowed = CharacterSet.urlPathAllowed
            name = "file:" + (path.addingPercentEncoding(withAllowedCharacters: allowed) ?? path) + "?immutable=1"
        }
        var configuration = Configuration()
        configuration.readonly = true
        configuration.busyMode = .timeout(5)
        configuration.label = "kruxos.reader"
        // For `holdSnapshot`.
        configuration.allowsUnsafeTransactions = true
        configuration.prepareDatabase { db in
            try Store.harden(db)
            try db.execute(sql: "PRAGMA query_only = ON; PRAGMA cache_size = -4096")
        }
        do {
            queue = try DatabaseQueue(path: name, configuration: configuration)
            let (application, version) = try queue.unsafeRead { db in
                (
                    try Int32.fetchOne(db, sql: "PRAGMA application_id") ?? 0,
                    try Int32.fetchOne(db, sql: "PRAGMA user_version") ?? 0
                )
            }
            if application != Store.applicationID {
                throw StoreError(
                    .foreignFile, "`\(path)` is not a KruxOS database",
                    hint: "give another home with `--home`, or move the file away")
            }
            if version > Migrations.latest {
                throw StoreError(
                    .newerSchema, "`\(path)` has schema \(version), and this kruxos knows up to \(Migrations.latest)",
                    hint: "use the newer kruxos that wrote it")
            }
            self.version = version
        } catch {
            throw Writer.translate(error)
        }
    }

    package func read<T>(_ body: (any ReadTx) throws -> T) throws -> T {
        do {
            return try queue.unsafeRead { db in
                if db.isInsideTransaction { return try body(DatabaseReadTx(db: db)) }
                // One snapshot for all statements of the body.
                try db.execute(sql: "BEGIN")
                defer { try? db.execute(sql: "COMMIT") }
                return try body(DatabaseReadTx(db: db))
            }
        } catch {
            let translated = Writer.translate(error)
            // What this version reads may not be there yet.
            if version < Migrations.latest, let error = translated as? StoreError, error.code == .inputOutput {
                throw StoreError(
                    .olderSchema, "the file has schema \(version), and this needs \(Migrations.latest)",
                    hint:
                        "start the gateway, or create an agent: the next kruxos that writes brings the file up to date")
            }
            throw translated
        }
    }

    /// Everything that is read from here on is of one snapshot, until this is closed.
    package func holdSnapshot() throws {
        do {
            try queue.unsafeRead { try $0.execute(sql: "BEGIN; SELECT 1 FROM meta") }
        } catch {
            throw Writer.translate(error)
        }
    }

    package func close() { try? queue.close() }
}

/// A few idle read-only connections, so that readers do not wait for each other.
private final class ReaderPool: Sendable {
    private struct State {
        var idle: [ReadOnlyStore] = []
        var closed = false
    }

    private let path: String
    private let state = NSLock()
    // Guarded by `state`.
    private nonisolated(unsafe) var pool = State()

    init(path: String) { self.path = path }

    func read<T>(_ body: (any ReadTx) throws -> T) throws -> T {
        state.lock()
        if pool.closed {
            state.unlock()
            throw StoreError(.stopped, "the store has stopped")
        }
        let idle = pool.idle.popLast()
        state.unlock()
        let reader = try idle ?? ReadOnlyStore(path: path)
        defer {
            state.lock()
            if pool.closed || pool.idle.count >= 4 { reader.close() } else { pool.idle.append(reader) }
            state.unlock()
        }
        return try reader.read(body)
    }

    func close() {
        state.lock()
        pool.closed = true
        for reader in pool.idle { reader.close() }
        pool.idle = []
        state.unlock()
    }
}
