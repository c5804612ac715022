package import KruxCore
package import KruxStore

/// An answer that a supervisor gave in advance: calls of one agent and capability that fit its conditions are told
/// instead of asked.
package struct Grant: Sendable {
    package let number: Int64
    /// `gr_001`.
    package let id: String
    package let agent: String
    package let capability: String
    /// Conditions in the policy's language.
    package let conditions: JSONValue
    /// The only session it is for; nil for all of the agent's.
    package let session: String?
    package let expiresAt: Timestamp?
    /// How often it may answer; nil for as often as asked.
    package let uses: Int64?
    package var used: Int64
    package let lastUsedAt: Timestamp?
    package let createdAt: Timestamp
    package let createdBy: String
    /// Principals that agreed to it.
    package let agreed: [String]
    /// The request it came from.
    package let request: String?
    package let reason: String?
    package let endedAt: Timestamp?
    package let endedBy: String?

    package func isLive(at now: Timestamp) -> Bool {
        endedAt == nil && expiresAt.map { now < $0 } ?? true && uses.map { used < $0 } ?? true
    }
}

/// The grants' table. Every change stands in the caller's transaction beside its row of the record.
package enum GrantTable {
    private static let columns =
        "number, id, agent, capability, conditions, session, expires_at, uses, used, last_used_at, created_at, created_by, agreed, request, reason, ended_at, ended_by"

    private static func grant(_ row: SQLRow) throws -> Grant {
        guard let conditions = try? JSONParser.parse(row.text(4)),
            let agreed = (try? JSONParser.parse(row.text(12)))?.array
        else { throw StoreError(.corrupt, "grant \(row.text(1)) cannot be read") }
        func time(_ index: Int) -> Timestamp? { row.optionalInt(index).map(Timestamp.init(microseconds:)) }
        return Grant(
            number: row.int(0), id: row.text(1), agent: row.text(2), capability: row.text(3), conditions: conditions,
            session: row.optionalText(5), expiresAt: time(6), uses: row.optionalInt(7), used: row.int(8),
            lastUsedAt: time(9), createdAt: Timestamp(microseconds: row.int(10)), createdBy: row.text(11),
            agreed: agreed.compactMap(\.string), request: row.optionalText(13), reason: row.optionalText(14),
            endedAt: time(15), endedBy: row.optionalText(16))
    }

    /// Grants that nobody ended, whether their time or uses are over or not; oldest first.
    package static func notEnded(_ tx: any ReadTx) throws -> [Grant] {
        try tx.rows("SELECT \(columns) FROM grants WHERE ended_at IS NULL ORDER BY number", [], grant)
    }

    package static func all(_ tx: any ReadTx) throws -> [Grant] {
        try tx.rows("SELECT \(columns) FROM grants ORDER BY number", [], grant)
    }

    /// - Throws: `StructuredError` `.notFound`.
    package static func require(_ tx: any ReadTx, _ id: String) throws -> Grant {
        if let found = try tx.first("SELECT \(columns) FROM grants WHERE id = ?", [.text(id)], grant) { return found }
        throw StructuredError(
            .notFound, "there is no grant `\(id.prefix(64))`",
            recovery: ["List grants with `kruxos grants list --all`."])
    }

    package struct New: Sendable {
        package let agent: String, capability: String
        package let conditions: JSONValue
        package let session: String?
        package let expiresAt: Timestamp?
        package let uses: Int64?
        package let now: Timestamp
        package let by: String
        package let agreed: [String]
        package let request: String?, reason: String?

        package init(
            agent: String, capability: String, conditions: JSONValue, session: String?, expiresAt: Timestamp?,
            uses: Int64?, now: Timestamp, by: String, agreed: [String], request: String?, reason: String?
        ) {
            self.agent = agent
            self.capability = capability
            self.conditions = conditions
            self.session = session
            self.expiresAt = expiresAt
            self.uses = uses
            self.now = now
            self.by = by
            self.agreed = agreed
            self.request = request
            self.reason = reason
        }
    }

    package static func insert(_ tx: WriteTx, _ new: New) throws -> Grant {
        let number = try tx.first("SELECT coalesce(max(number), 0) + 1 FROM grants") { $0.int(0) } ?? 1
        let digits = "\(number)"
        let id = "gr_" + String(repeating: "0", count: max(0, 3 - digits.utf8.count)) + digits
        try tx.execute(
            "INSERT INTO grants (number, id, agent, capability, conditions, session, expires_at, uses, created_at, created_by, agreed, request, reason) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            [
                .int(number), .text(id), .text(new.agent), .text(new.capability), .text(new.conditions.canonicalText),
                .optional(new.session), new.expiresAt.map { .int($0.microseconds) } ?? .null,
                new.uses.map { .int($0) } ?? .null, .int(new.now.microseconds), .text(new.by),
                .text(JSONValue.strings(new.agreed).canonicalText), .optional(new.request), .optional(new.reason),
            ])
        return try require(tx, id)
    }

    /// It has answered once more.
    /// - Throws: `StructuredError` `.conflict` when it may not: it was revoked, or used up, since it was asked.
    package static func use(_ tx: WriteTx, _ id: String, now: Timestamp) throws {
        let used = try tx.execute(
            "UPDATE grants SET used = used + 1, last_used_at = ? WHERE id = ? AND ended_at IS NULL AND (uses IS NULL OR used < uses)",
            [.int(now.microseconds), .text(id)])
        guard used == 1 else {
            throw StructuredError(
                .conflict, "the grant \(id), which answered for this call, was revoked or used up meanwhile",
                recovery: ["Call again; it may be asked then."], retryable: true)
        }
    }

    package static func end(_ tx: WriteTx, _ id: String, by principal: String, now: Timestamp) throws {
        try tx.execute(
            "UPDATE grants SET ended_at = ?, ended_by = ? WHERE id = ? AND ended_at IS NULL",
            [.int(now.microseconds), .text(principal), .text(id)])
    }

    /// After a restore no advance answer is believed any more.
    /// - Returns: the ids of those that ended.
    package static func endAll(_ tx: WriteTx, now: Timestamp) throws -> [String] {
        let ids = try tx.rows("SELECT id FROM grants WHERE ended_at IS NULL ORDER BY number") { $0.text(0) }
        for id in ids { try end(tx, id, by: "system", now: now) }
        return ids
    }
}
