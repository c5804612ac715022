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

    /// How verifying, querying and the file grow with the record: four sizes up to `rows`, and what follows for ten
    /// million, each agent and capability having its share of the rows.
    static func scale(_ report: inout Report, rows: Int) async throws {
        print("audit at four sizes up to \(rows) rows")
        let home = NSTemporaryDirectory() + "kruxos-bench-\(UUID().uuidString)"
        try FileManager.default.createDirectory(atPath: home + "/keys", withIntermediateDirectories: true)
        defer { try? FileManager.default.removeItem(atPath: home) }
        let start = Timestamp(microseconds: Int64(Date().timeIntervalSince1970 * 1e6))
        var points: [(rows: Double, verify: Double, query: Double, bytes: Double)] = []
        for step in 1...4 {
            let size = rows * step / 4
            var opened: AuditLog?
            let store = try Store(home: home, log: Logger(label: "bench") { _ in SwiftLogNoOpLogHandler() }) { tx in
                let audit = try AuditLog(tx, home: home, clock: clock)
                opened = audit
                return [audit]
            }
            guard let audit = opened else { throw BenchmarkError("no record") }
            try audit.begin(store.writer, now: start)
            var number = Int(audit.lastSeq)
            while number < size {
                let first = number
                let last = min(size, number + 500)
                try await store.writer.write { tx in
                    for row in first..<last {
                        var body = body(start.advanced(bySeconds: Int64(row)))
                        body.agent = "agent-\(row % 50)"
                        body.capability = row % 10 == 0 ? "process.run" : "filesystem.read"
                        body.outcome = row % 100 == 0 ? .denied : .succeeded
                        try audit.append(body.canonicalBytes(), tx)
                    }
                }
                number = last
            }
            try store.close()
            let path = home + "/kruxos.db"
            let verifyStart = nanoseconds()
            let verdict = try AuditVerifier.verify({ try ReadOnlyStore(path: path) })
            let verify = Double(nanoseconds() - verifyStart) / 1e9
            guard verdict.isIntact else { throw BenchmarkError(verdict.text) }
            // A page of one agent's rows, of what was denied, of a minute, and of a capability.
            var filters = [AuditFilter](repeating: AuditFilter(), count: 4)
            filters[0].agent = "agent-7"
            filters[1].outcome = .denied
            filters[2].since = start.advanced(bySeconds: Int64(size / 2))
            filters[2].until = start.advanced(bySeconds: Int64(size / 2) + 60)
            filters[3].capability = "process.run"
            var slowest = 0.0
            for var filter in filters {
                filter.limit = 100
                var times: [Double] = []
                for _ in 0..<5 {
                    let queryStart = nanoseconds()
                    let found = try ReadOnlyStore(path: path).read { try AuditQuery.rows($0, filter) }
                    times.append(Double(nanoseconds() - queryStart) / 1e6)
                    guard !found.isEmpty else { throw BenchmarkError("a query found nothing") }
                }
                slowest = max(slowest, times.quantile(0.5) ?? 0)
            }
            let bytes = (try FileManager.default.attributesOfItem(atPath: path)[.size] as? Int) ?? 0
            points.append((Double(verdict.rows), verify, slowest, Double(bytes)))
            report.add(
                "\(verdict.rows) rows",
                "verify \(format(verify, 1)) s, slowest indexed query \(format(slowest)) ms, \(bytes / Int(verdict.rows)) bytes per row"
            )
        }
        // A straight line through the four points.
        func at(_ size: Double, _ value: (Int) -> Double) -> Double {
            let x = points.map(\.rows)
            let meanX = x.reduce(0, +) / 4
            let meanY = (0..<4).map(value).reduce(0, +) / 4
            let slope =
                (0..<4).map { (x[$0] - meanX) * (value($0) - meanY) }.reduce(0, +)
                / x.map { ($0 - meanX) * ($0 - meanX) }.reduce(0, +)
            return meanY + slope * (size - meanX)
        }
        let query = at(1e7) { points[$0].query }
        report.add(
            "10,000,000 rows, extrapolated",
            "verify \(format(at(1e7) { points[$0].verify } / 60, 1)) min, query \(format(query)) ms, \(format(at(1e7) { points[$0].bytes } / 1e9, 1)) GB",
            budget: "query ≤ 20 ms", met: query <= 20)
    }

    private static let clock = WallClock(
        now: { Timestamp(microseconds: Int64(Date().timeIntervalSince1970 * 1e6)) },
        monotonic: { Int64(nanoseconds() / 1000) }, boot: "bench")

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
