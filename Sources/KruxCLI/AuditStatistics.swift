import KruxAudit
import KruxCore

/// Counts over rows of the record. An intent is no call of its own: its outcome is counted.
struct AuditStatistics {
    private var calls = 0
    private var counts: [String: [String: Int]] = [:]
    private var durations: [Int64] = []
    private var asked: [String: Timestamp] = [:]
    private var waits: [Int64] = []
    private var answers: [String: Int] = [:]

    mutating func add(_ record: AuditRecord) {
        let outcome = record.text("outcome")
        if record.text("phase") == "approval", let request = record.text("request"), let time = record.time {
            if outcome == "pending" {
                asked[request] = time
            } else {
                answers[outcome ?? "-", default: 0] += 1
                if outcome == "approved" || outcome == "rejected", let since = asked[request] {
                    waits.append(max(0, time.microseconds - since.microseconds))
                }
            }
        }
        guard record.text("phase") == "outcome" || outcome == "pending" else { return }
        calls += 1
        for (group, value) in [
            ("agent", record.text("agent")), ("capability", record.text("capability")), ("tier", record.tier),
            ("outcome", outcome),
        ] { counts[group, default: [:]][value ?? "-", default: 0] += 1 }
        if let duration = record.body?["duration_us"]?.int { durations.append(duration) }
    }

    /// The smallest value that at least this share of all are not above.
    private static func percentile(_ sorted: [Int64], _ share: Double) -> Int64? {
        sorted.isEmpty ? nil : sorted[max(0, min(sorted.count, Int((share * Double(sorted.count)).rounded(.up))) - 1)]
    }

    private static let shares: [(String, Double)] = [("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("max", 1)]

    var json: JSONValue {
        func percentiles(_ values: [Int64]) -> JSONValue {
            let sorted = values.sorted()
            return .object(JSONObject(Self.shares.map { ($0.0, JSONValue.optional(Self.percentile(sorted, $0.1))) }))
        }
        var object: JSONObject = ["calls": .int(Int64(calls))]
        for group in ["agent", "capability", "tier", "outcome"] {
            object["by_\(group)"] = .object(
                JSONObject((counts[group] ?? [:]).sorted { $0.key < $1.key }.map { ($0.key, .int(Int64($0.value))) }))
        }
        object["duration_us"] = percentiles(durations)
        object["approvals"] = .object(
            JSONObject(answers.sorted { $0.key < $1.key }.map { ($0.key, .int(Int64($0.value))) }))
        object["approval_wait_us"] = percentiles(waits)
        return .object(object)
    }

    func text(period: String) -> String {
        var lines = ["\(calls) calls (\(period))"]
        for (title, group) in [
            ("Agent", "agent"), ("Capability", "capability"), ("Tier", "tier"), ("Outcome", "outcome"),
        ] {
            let sorted = (counts[group] ?? [:]).sorted { ($1.value, $0.key) < ($0.value, $1.key) }
            guard let most = sorted.first?.value else { continue }
            lines += ["", title]
            let width = sorted.prefix(10).map { Console.visible($0.key).count }.max() ?? 0
            for (name, count) in sorted.prefix(10) {
                let bar = String(repeating: "█", count: max(1, count * 30 / most))
                lines.append("  \(Console.visible(name).padded(to: width + 2))\("\(count)".padded(to: 8))\(bar)")
            }
            if sorted.count > 10 { lines.append("  … and \(sorted.count - 10) more") }
        }
        func row(_ values: [Int64]) -> String {
            let sorted = values.sorted()
            return Self.shares.compactMap { name, share in
                Self.percentile(sorted, share).map { "\(name) \(Self.duration($0))" }
            }.joined(separator: "   ")
        }
        if !durations.isEmpty { lines += ["", "Duration        \(row(durations))"] }
        if !answers.isEmpty {
            lines += [
                "",
                "Approvals       "
                    + answers.sorted { $0.key < $1.key }.map { "\($0.key) \($0.value)" }.joined(separator: "   "),
            ]
        }
        if !waits.isEmpty { lines.append("Waited for you  \(row(waits))") }
        return lines.joined(separator: "\n")
    }

    private static func duration(_ microseconds: Int64) -> String {
        if microseconds < 1000 { return "\(microseconds) µs" }
        if microseconds < 1_000_000 { return "\(microseconds / 1000).\(microseconds % 1000 / 100) ms" }
        return AuditCommand.Replay.duration(microseconds)
    }
}
