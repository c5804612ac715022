import Foundation
import KruxAudit
import KruxCore
import KruxCrypto
import KruxStore
import KruxTestSupport
import Logging
import Synchronization

/// A clock that a test sets.
final class TestTime: Sendable {
    private let microseconds = Mutex<Int64>(1_774_794_000_000_000)
    func advance(seconds: Int64) { microseconds.withLock { $0 += seconds * 1_000_000 } }
    var now: Timestamp { Timestamp(microseconds: microseconds.withLock { $0 }) }
    var clock: WallClock {
        WallClock(now: { self.now }, monotonic: { self.now.microseconds }, boot: "test")
    }
}

/// A home with nothing in it but a record.
struct RecordHome {
    let path: String
    let time = TestTime()
    var database: String { path + "/kruxos.db" }

    static func with<R>(_ body: (RecordHome) async throws -> R) async throws -> R {
        try await withTemporaryFolder { folder in
            try FileManager.default.createDirectory(atPath: folder + "/keys", withIntermediateDirectories: true)
            return try await body(RecordHome(path: folder))
        }
    }

    /// Opens the record, runs `body`, and closes it.
    func open<R>(
        rotation: AuditLog.Rotation = .init(), accepting: Bool = false, _ body: (Store, AuditLog) async throws -> R
    ) async throws -> R {
        var opened: AuditLog?
        let store = try Store(home: path, log: Logger(label: "test")) { tx in
            let log = try AuditLog(tx, home: path, clock: time.clock, rotation: rotation, accepting: accepting)
            opened = log
            return [log]
        }
        guard let audit = opened else { throw TestFailure("no record") }
        let result: Result<R, any Error>
        do {
            if accepting {
                try await store.writer.write { [time] tx in
                    try audit.beginEpoch(tx, now: time.now, by: .supervisor("owner"))
                }
            }
            try audit.begin(store.writer, now: time.now)
            result = .success(try await body(store, audit))
        } catch {
            result = .failure(error)
        }
        try store.close()
        return try result.get()
    }

    /// Appends rows, several to a transaction.
    func append(_ count: Int, _ store: Store, _ audit: AuditLog) async throws {
        var left = count
        while left > 0 {
            let part = min(left, 100)
            let bodies = (0..<part).map { number in
                var row = AuditBody(time: time.now, phase: .outcome, principal: .system)
                row.agent = "agent-\(number % 3)"
                row.capability = number % 2 == 0 ? "filesystem.read" : "process.run"
                row.outcome = number % 7 == 0 ? .denied : .succeeded
                row.request = number % 5 == 0 ? "ap_00\(number % 9)" : nil
                row.members = [("arguments", ["path": .string("/workspace/x/\(number)")])]
                return row.canonicalBytes()
            }
            _ = try await store.writer.write { tx in for body in bodies { try audit.append(body, tx) } }
            left -= part
        }
    }

    func verify(_ change: (inout AuditVerifier.Options) throws -> Void = { _ in }) throws -> AuditVerdict {
        var options = AuditVerifier.Options()
        try change(&options)
        let database = database
        return try AuditVerifier.verify({ try ReadOnlyStore(path: database) }, options)
    }

    /// The newest checkpoint, as somebody keeps it elsewhere.
    func anchor() throws -> AnchorFile {
        let note = try ReadOnlyStore(path: database).read {
            try $0.first("SELECT note FROM checkpoints ORDER BY epoch DESC, size DESC LIMIT 1") { $0.text(0) }
        }
        return try AnchorFile(source: "elsewhere", text: note ?? "")
    }

    func query(_ sql: String) throws -> Int64 {
        try ReadOnlyStore(path: database).read { try $0.first(sql) { $0.int(0) } } ?? -1
    }

    var keyFiles: [String] {
        get throws { try FileManager.default.contentsOfDirectory(atPath: path + "/keys").sorted() }
    }
}
