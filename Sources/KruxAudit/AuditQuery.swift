package import KruxCore
package import KruxStore

/// Which rows to read. Everything given must hold.
package struct AuditFilter: Sendable {
    package var since: Timestamp?
    package var until: Timestamp?
    package var agent: String?
    /// A name, `a.*` or `*`.
    package var capability: String?
    package var outcome: AuditOutcome?
    package var tier: Tier?
    package var session: String?
    package var request: String?
    package var phase: AuditPhase?
    /// Rows after this `seq`, for following and paging.
    package var after: Int64?
    /// Rows before this `seq`.
    package var before: Int64?
    /// Who acted: `agent:NAME`, `supervisor:NAME`, `system`.
    package var principal: String?
    /// At most this many; nil for all.
    package var limit: Int64?
    /// With a limit: the oldest that match instead of the newest.
    package var fromOldest = false

    package init() {}
}

/// A row as a reader sees it.
package struct AuditRecord: Sendable {
    package let seq: Int64
    /// Nil once pruned.
    package let body: JSONObject?

    package var time: Timestamp? { body?["time"]?.int.map(Timestamp.init(microseconds:)) }
    package func text(_ key: String) -> String? { body?[key]?.string }
    package var tier: String? { body?["decision"]?["tier"]?.string }

    /// The body with its `seq`.
    package var json: JSONValue {
        var object = body ?? [:]
        object["seq"] = .int(seq)
        return .object(object)
    }
}

package enum AuditQuery {
    /// The matching rows, oldest first.
    package static func rows(_ tx: any ReadTx, _ filter: AuditFilter) throws -> [AuditRecord] {
        var terms: [String] = []
        var arguments: [SQLValue] = []
        func add(_ term: String, _ values: SQLValue...) {
            terms.append(term)
            arguments += values
        }
        if let since = filter.since { add("time >= ?", .int(since.microseconds)) }
        if let until = filter.until { add("time < ?", .int(until.microseconds)) }
        if let agent = filter.agent { add("agent = ?", .text(agent)) }
        if let session = filter.session {
            add("session = ?", .text(session))
            // There is no index on sessions: each has one agent, and rows only from its start on.
            let known = try tx.first(
                "SELECT agent, started_at FROM sessions WHERE id = ?", [.text(session)]
            ) { ($0.text(0), $0.int(1)) }
            if let (agent, start) = known {
                add("agent = ?", .text(agent))
                let first = try tx.first(
                    "SELECT seq FROM audit WHERE time >= ? ORDER BY time LIMIT 1", [.int(start - 60_000_000)]
                ) { $0.int(0) }
                if let first { add("seq >= ?", .int(first)) }
            }
        }
        if let principal = filter.principal { add("principal = ?", .text(principal)) }
        if let request = filter.request { add("request = ?", .text(request)) }
        if let phase = filter.phase {
            add("phase = ?", .text(phase.rawValue))
            // Says to SQLite that the partial index will do.
            if phase == .key || phase == .prune { add("phase IN ('key', 'prune')") }
        }
        if let tier = filter.tier { add("tier = ?", .text(tier.name)) }
        if let after = filter.after { add("seq > ?", .int(after)) }
        if let before = filter.before { add("seq < ?", .int(before)) }
        if let outcome = filter.outcome {
            add("outcome = ?", .text(outcome.rawValue))
            // Says to SQLite that the partial index will do.
            if outcome != .succeeded { add("outcome <> 'succeeded'") }
        }
        if let capability = filter.capability, capability != "*" {
            if capability.hasSuffix(".*") {
                // The names below a prefix are the range from its dot to the next character, `/`.
                let stem = String(capability.dropLast())
                add("capability >= ? AND capability < ?", .text(stem), .text(String(stem.dropLast()) + "/"))
            } else if capability.contains("*") {
                throw AuditError(
                    .invalidFilter, "`\(capability)` is no capability pattern",
                    hint: "write a name, a prefix such as `filesystem.*`, or `*`")
            } else {
                add("capability = ?", .text(capability))
            }
        }
        let condition = terms.isEmpty ? "" : " WHERE " + terms.joined(separator: " AND ")
        let limit = filter.limit.map { " LIMIT \(max(0, $0))" } ?? ""
        let order = filter.fromOldest ? "ASC" : "DESC"
        let found = try tx.rows("SELECT seq, body FROM audit\(condition) ORDER BY seq \(order)\(limit)", arguments) {
            (seq: $0.int(0), body: $0.optionalText(1))
        }
        return try (filter.fromOldest ? found : found.reversed()).map { seq, body in
            guard let body else { return AuditRecord(seq: seq, body: nil) }
            guard let parsed = try? JSONParser.parse(body), let object = parsed.object else {
                throw AuditError(.inconsistent, "row \(seq) holds no JSON object", hint: "run `kruxos audit verify`")
            }
            return AuditRecord(seq: seq, body: object)
        }
    }

    /// All matching rows, oldest first, in pages of a snapshot each, so that no snapshot is held for long.
    package static func forEachPage(
        _ source: some SnapshotSource, _ filter: AuditFilter, _ body: ([AuditRecord]) throws -> Void
    ) throws {
        var filter = filter
        var rest = filter.limit ?? .max
        filter.fromOldest = true
        while rest > 0 {
            filter.limit = min(rest, 2048)
            let page = try source.read { try rows($0, filter) }
            guard let last = page.last else { return }
            try body(page)
            rest -= Int64(page.count)
            filter.after = last.seq
        }
    }
}
