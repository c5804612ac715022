import Foundation
import KruxAudit
import KruxCore
import KruxCrypto
import KruxStore
import Logging

/// Rows per second of the signed record, against bare SQLite with the same batches and bare signing.
enum AuditBenchmark {
    static func run(_ report: inout Report) async throws {
        print("audit writer")
        let home = NSTemporaryDirectory() + "kruxos-bench-\(UUID().uuidString)"
        try FileManager.default.createDirectory(atPath: home + "/keys", withIntermediateDirectories: true)
        defer { try? FileManager.default.removeItem(atPath: home) }
        let log = Logger(label: "bench") { _ in SwiftLogNoOpLogHandler() }
        let clock = WallClock(
            now: { Timestamp(microseconds: Int64(Date().timeIntervalSince1970 * 1e6)) },
            monotonic: { Int64(nanoseconds() / 1000) }, boot: "bench")
        var opened: AuditLog?
        let store = try Store(home: home, log: log) { tx in
            let audit = try AuditLog(tx, home: home, clock: clock)
            opened = audit
            return [audit]
        }
        guard let audit = opened else { throw BenchmarkError("no record") }
        let now = Timestamp(microseconds: Int64(Date().timeIntervalSince1970 * 1e6))
        try audit.begin(store.writer, now: now)
        let body = body(now).canonicalBytes()
        let writers = 64
        let each = 400
        let rows = writers * each

        // Bare SQLite: the same statement, thread and batches, without chain and signature.
        try await store.writer.write { tx in
            try tx.execute("CREATE TABLE bare AS SELECT * FROM audit LIMIT 0")
        }
        let text = String(decoding: body, as: UTF8.self)
        let bare = try await rate(rows) {
            try await together(writers, each) {
                _ = try await store.writer.write { tx in
                    try tx.execute(
                        "INSERT INTO bare (seq, epoch, key_id, prev, body_hash, sig, body) VALUES (?, ?, ?, ?, ?, ?, ?)",
                        [.int(1), .int(1), .blob([1]), .blob([1]), .blob([1]), .blob([1]), .text(text)])
                }
            }
        }
        let signed = try await rate(rows) {
            try await together(writers, each) {
                _ = try await store.writer.write { tx in try audit.append(body, tx) }
            }
        }
        guard let key = SigningKey(seed: randomBytes(32)) else { throw BenchmarkError("no key") }
        let message = [UInt8](repeating: 7, count: RowFormat.headLength)
        let start = nanoseconds()
        for _ in 0..<10_000 { _ = key.sign(message) }
        let signing = 10_000 / (Double(nanoseconds() - start) / 1e9)
        report.add("audit rows per second, 64 writers", format(signed, 0))
        report.add("bare SQLite, same batches", "\(format(bare, 0)) rows/s (ratio \(format(signed / bare)))")
        report.add("bare Ed25519 signing", "\(format(signing, 0))/s (ratio \(format(signed / signing)))")

        try await store.writer.write { try $0.execute("DROP TABLE bare") }
        let signature = key.sign(message)
        let publicKey = key.publicKey
        let bareStart = nanoseconds()
        DispatchQueue.concurrentPerform(iterations: 200) { _ in
            for _ in 0..<50 { _ = publicKey.verifies(signature, message) }
        }
        let bareVerifying = 10_000 / (Double(nanoseconds() - bareStart) / 1e9)
        let verifyStart = nanoseconds()
        let verdict = try AuditVerifier.verify({ try ReadOnlyStore(path: home + "/kruxos.db") })
        let verifying = Double(verdict.rows) / (Double(nanoseconds() - verifyStart) / 1e9)
        guard verdict.isIntact else { throw BenchmarkError(verdict.text) }
        report.add(
            "audit verify, \(verdict.rows) rows",
            "\(format(verifying, 0)) rows/s, bare verification \(format(bareVerifying, 0))/s (\(format(bareVerifying / verifying))×)",
            budget: "within 1.3× of bare verification", met: bareVerifying / verifying <= 1.3)
        try store.close()
    }

    private static func body(_ now: Timestamp) -> AuditBody {
        var body = AuditBody(time: now, phase: .outcome, principal: .system)
        body.agent = "bench"
        body.session = "s_0123456789abcdef"
        body.capability = "filesystem.read"
        body.outcome = .succeeded
        body.durationMicroseconds = 250
        body.members = [
            ("arguments", ["path": "/workspace/bench/notes/todo.md", "limit": 1_048_576, "offset": 0]),
            ("arguments_digest", .string(String(repeating: "a", count: 64))),
            (
                "decision",
                ["tier": "autonomous", "layer": "organisation", "rule": "filesystem.*", "source": "x.yaml:12"]
            ),
        ]
        return body
    }

    /// The median of three, in rows per second.
    private static func rate(_ rows: Int, _ work: () async throws -> Void) async throws -> Double {
        var rates: [Double] = []
        for _ in 0..<3 {
            let start = nanoseconds()
            try await work()
            rates.append(Double(rows) / (Double(nanoseconds() - start) / 1e9))
        }
        return rates.quantile(0.5) ?? 0
    }

    private static func together(
        _ writers: Int, _ each: Int, _ work: @escaping @Sendable () async throws -> Void
    ) async throws {
        try await withThrowingTaskGroup(of: Void.self) { group in
            for _ in 0..<writers {
                group.addTask { for _ in 0..<each { try await work() } }
            }
            try await group.waitForAll()
        }
    }
}
