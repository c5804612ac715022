import Foundation
import GRDB
import GRDBSQLite
import Logging
import Synchronization

/// State kept beside the file that must move with its transactions, such as the head of the audit chain.
package protocol TransactionParticipant: AnyObject {
    /// The last word in a transaction: what it adds is durable with the rest. What it throws rolls it back.
    func transactionWillCommit(_ tx: WriteTx) throws
    /// The transaction is durable.
    func transactionCommitted()
    /// The transaction never happened.
    func transactionRolledBack()
    /// Nothing else is to be written now, or ever. Returns whether the participant has something to add in
    /// `transactionWillCommit`.
    func prepareQuietTransaction() -> Bool
    /// Whether something beside the file has to be tried again soon.
    var hasTrouble: Bool { get }
}

/// The one writer of the file: a thread with the one connection that writes and checkpoints.
///
/// Calls that arrive while a commit is on its way to the disk share the next one: a batch is one transaction and one
/// fsync, and nobody is answered before it. When a call throws, the batch is rolled back and its calls run again one
/// by one, so a call must depend on nothing but its transaction.
package final class Writer: @unchecked Sendable {
    // @unchecked: `queue`'s connection is used by `thread` alone; everything mutable is read and written under `lock`.
    private let queue: DatabaseQueue
    private let logPages = LogPages()
    private let log: Logger
    private let lock = NSCondition()
    private var pending: [any Job] = []
    private var stopping = false
    private var stopped = false
    private let participants: [any TransactionParticipant]

    private let failure = Mutex<String?>(nil)
    /// Why the last transaction could not be written, where the file is to blame and not the transaction; nil once one
    /// can. While there is one, the thread tries by itself.
    package var problem: String? { failure.withLock { $0 } }

    private static let largestBatch = 512
    /// Quiet time after which the log is folded into the file.
    private static let idle: TimeInterval = 0.5
    /// Pages of log after which it is folded into the file between two transactions. The log then starts over in the
    /// same place, and a commit that overwrites costs half of one that makes the log longer.
    private static let longLog: Int32 = 1000

    init(queue: DatabaseQueue, participants: [any TransactionParticipant], log: Logger) {
        self.queue = queue
        self.participants = participants
        self.log = log
        let pages = Unmanaged.passUnretained(logPages).toOpaque()
        queue.inDatabase { db in
            // SQLite calls it after each commit, on this connection's thread, with the pages in the log.
            _ = sqlite3_wal_hook(
                db.sqliteConnection,
                { context, _, _, pages in
                    if let context { Unmanaged<LogPages>.fromOpaque(context).takeUnretainedValue().count = pages }
                    return SQLITE_OK
                }, pages)
        }
        let thread = Thread { [self] in run() }
        thread.name = "kruxos.writer"
        thread.stackSize = 2 << 20
        thread.start()
    }

    /// Runs `work` in a write transaction and returns once it is durable.
    @discardableResult
    package func write<T: Sendable>(_ work: @escaping @Sendable (WriteTx) throws -> T) async throws -> T {
        try await withUnsafeThrowingContinuation { continuation in
            enqueue(TypedJob(work: work) { continuation.resume(with: $0) })
        }
    }

    /// `write` for callers that are no task: blocks the calling thread.
    @discardableResult
    package func writeAndWait<T: Sendable>(_ work: @escaping @Sendable (WriteTx) throws -> T) throws -> T {
        let done = DispatchSemaphore(value: 0)
        let box = ResultBox<T>()
        enqueue(
            TypedJob(work: work) {
                box.result = $0
                done.signal()
            })
        done.wait()
        guard let result = box.result else { throw StoreError(.stopped, "the store has stopped") }
        return try result.get()
    }

    /// Finishes what was asked, folds the log into the file and ends the thread.
    func stop() {
        lock.lock()
        stopping = true
        lock.broadcast()
        while !stopped { lock.wait() }
        lock.unlock()
    }

    private func enqueue(_ job: any Job) {
        lock.lock()
        if stopping {
            lock.unlock()
            job.fail(StoreError(.stopped, "the store has stopped"))
            return
        }
        pending.append(job)
        // The thread looks again by itself while there is work, and wakes early for a full batch.
        if pending.count == 1 || pending.count == Self.enoughCompany { lock.signal() }
        lock.unlock()
    }

    /// How long a batch waits for company. Only when the last one had some: a lone caller is never kept waiting, and
    /// under load fewer, larger commits leave the processor to the callers.
    private static let company: TimeInterval = 0.000_8
    private static let enoughCompany = 24

    private func run() {
        var dirty = true
        var lastBatch = 0
        while true {
            lock.lock()
            var wake: Date?
            while pending.isEmpty, !stopping {
                if dirty {
                    let deadline = wake ?? Date(timeIntervalSinceNow: Self.idle)
                    wake = deadline
                    if !lock.wait(until: deadline) { break }
                } else {
                    lock.wait()
                }
            }
            if lastBatch > 1, !stopping, !pending.isEmpty {
                let deadline = Date(timeIntervalSinceNow: Self.company)
                while pending.count < Self.enoughCompany, !stopping, lock.wait(until: deadline) {}
            }
            let batch = Array(pending.prefix(Self.largestBatch))
            pending.removeFirst(batch.count)
            let ending = stopping && batch.isEmpty
            lock.unlock()
            if batch.isEmpty {
                if problem != nil || participants.contains(where: { $0.prepareQuietTransaction() }) {
                    // A write of nothing new, to see whether one is possible.
                    do {
                        try transaction { try $0.execute("UPDATE meta SET value = value WHERE key = 'install_id'") }
                    } catch {
                        log.warning("nothing could be written", metadata: ["error": "\(Self.translate(error))"])
                    }
                }
                dirty =
                    !checkpoint("TRUNCATE") || problem != nil || participants.contains(where: { $0.hasTrouble })
                if ending { break }
                continue
            }
            commit(batch)
            lastBatch = batch.count
            dirty = true
            if logPages.count > Self.longLog { _ = checkpoint("PASSIVE") }
        }
        lock.lock()
        stopped = true
        lock.broadcast()
        lock.unlock()
    }

    /// One transaction for all; on a failure, one for each.
    private func commit(_ batch: [any Job]) {
        do {
            try transaction { tx in
                for job in batch { try job.run(tx) }
            }
            for job in batch { job.complete() }
        } catch {
            if batch.count == 1 {
                batch[0].fail(Self.translate(error))
            } else {
                for job in batch { commit([job]) }
            }
        }
    }

    private func transaction(_ body: (WriteTx) throws -> Void) throws {
        try queue.writeWithoutTransaction { db in
            try db.cachedStatement(sql: "BEGIN IMMEDIATE").execute()
            do {
                let tx = WriteTx(db: db)
                try body(tx)
                for participant in participants { try participant.transactionWillCommit(tx) }
                try db.cachedStatement(sql: "COMMIT").execute()
            } catch {
                // SQLite has rolled back by itself after some errors; asking again would only hide the first one.
                if db.isInsideTransaction { try? db.execute(sql: "ROLLBACK") }
                for participant in participants { participant.transactionRolledBack() }
                if let error = Self.translate(error) as? StoreError,
                    [.storageFull, .inputOutput, .corrupt].contains(error.code)
                {
                    failure.withLock { $0 = error.message }
                }
                throw error
            }
            failure.withLock { $0 = nil }
            for participant in participants { participant.transactionCommitted() }
        }
    }

    /// Folds the log into the file. Returns whether all of it went.
    private func checkpoint(_ mode: String) -> Bool {
        do {
            return try queue.writeWithoutTransaction { db in
                // A reader's snapshot is not waited for: calls would wait, too. It is tried again soon.
                try db.execute(sql: "PRAGMA busy_timeout = 0")
                defer { try? db.execute(sql: "PRAGMA busy_timeout = 5000") }
                let row = try Row.fetchOne(db, sql: "PRAGMA wal_checkpoint(\(mode))")
                return (row?[0] as Int?) == 0
            }
        } catch {
            log.warning("checkpoint failed", metadata: ["error": "\(Self.translate(error))"])
            return false
        }
    }

    /// SQLite's error in the store's words, without bound values.
    static func translate(_ error: any Error) -> any Error {
        guard let error = error as? DatabaseError else { return error }
        let message = error.message ?? "SQLite error \(error.resultCode.rawValue)"
        switch error.resultCode {
        case .SQLITE_FULL, .SQLITE_READONLY:
            // Of another file, as in a backup, SQLite does not tell the reason.
            let reason = message == "not an error" ? "the disk is full or read-only" : message
            return StoreError(.storageFull, "the database cannot be written: \(reason)", hint: "free some disk space")
        case .SQLITE_CORRUPT: return StoreError(.corrupt, "the database is damaged: \(message)")
        case .SQLITE_NOTADB: return StoreError(.foreignFile, "the file is no SQLite database")
        case .SQLITE_CONSTRAINT: return StoreError(.constraint, message)
        case .SQLITE_BUSY, .SQLITE_LOCKED: return StoreError(.locked, "the database is busy: \(message)")
        default: return StoreError(.inputOutput, "\(message) (\(error.extendedResultCode.rawValue))")
        }
    }
}

private final class ResultBox<T>: @unchecked Sendable {
    // @unchecked: written once before the semaphore is signalled, read after it was waited for.
    var result: Result<T, any Error>?
}

/// How long the log is. Written and read on the writer's thread.
private final class LogPages {
    var count: Int32 = 0
}

private protocol Job: AnyObject {
    func run(_ tx: WriteTx) throws
    func complete()
    func fail(_ error: any Error)
}

private final class TypedJob<T: Sendable>: Job {
    private let work: @Sendable (WriteTx) throws -> T
    private let finish: (Result<T, any Error>) -> Void
    private var value: T?

    init(work: @escaping @Sendable (WriteTx) throws -> T, finish: @escaping (Result<T, any Error>) -> Void) {
        self.work = work
        self.finish = finish
    }

    func run(_ tx: WriteTx) throws { value = try work(tx) }

    func complete() {
        if let value { finish(.success(value)) } else { fail(StoreError(.stopped, "the call did not run")) }
    }

    func fail(_ error: any Error) { finish(.failure(error)) }
}
