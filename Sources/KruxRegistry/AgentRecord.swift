package import KruxCore
package import KruxCrypto
package import KruxPolicy
package import KruxStore

/// An agent as the registry knows it.
package struct AgentRecord: Sendable, Equatable {
    package enum Status: String, Sendable {
        case active, revoked
    }

    package let name: AgentName
    package let purpose: String
    package let status: Status
    package let tokenHash: Digest?
    package let createdAt: Timestamp
    package let tokenCreatedAt: Timestamp?
    package let statusChangedAt: Timestamp
    /// What the agent does, by the words of `Mode.ofRole` and the organisation's `roles`.
    package let role: String?
    /// Set by a supervisor; nil where the agent's policy document or its role speaks.
    package let mode: Mode?
    /// Set when a backup was restored; the agent waits for a supervisor to let it go on.
    package let suspendedAt: Timestamp?

    package var isSuspended: Bool { status == .active && suspendedAt != nil }

    /// Everything but the token's hash.
    package var json: JSONObject {
        [
            "name": .string(name.text), "purpose": .string(purpose), "status": .string(status.rawValue),
            "workspace": .string("/workspace/\(name)"), "created_at": .string(createdAt.rfc3339),
            "token_created_at": .optional(tokenCreatedAt?.rfc3339),
            "status_changed_at": .string(statusChangedAt.rfc3339), "role": .optional(role),
            "mode": .optional(mode?.rawValue), "suspended_at": .optional(suspendedAt?.rfc3339),
        ]
    }
}

/// A token: 32 random bytes in hexadecimal, shown once, kept as SHA-256 of its text.
package struct AgentToken: Sendable {
    package let text: String
    package var hash: Digest { sha256(Array(text.utf8)) }

    package static func make() -> AgentToken { AgentToken(text: randomBytes(32).hex) }
    package init(text: String) { self.text = text }
}

/// The agents' table. Each change is made in the caller's transaction, beside its row of the record.
package enum AgentTable {
    private static let columns =
        "name, purpose, status, token_hash, created_at, token_created_at, status_changed_at, role, mode, suspended_at"

    private static func record(_ row: SQLRow) throws -> AgentRecord {
        guard let name = AgentName(row.text(0)), let status = AgentRecord.Status(rawValue: row.text(2)) else {
            throw StoreError(.corrupt, "the agents' table holds a name or status that is none")
        }
        return AgentRecord(
            name: name, purpose: row.text(1), status: status, tokenHash: Digest(row.blob(3)),
            createdAt: Timestamp(microseconds: row.int(4)),
            tokenCreatedAt: row.optionalInt(5).map(Timestamp.init(microseconds:)),
            statusChangedAt: Timestamp(microseconds: row.int(6)), role: row.optionalText(7),
            mode: row.optionalText(8).flatMap(Mode.init(name:)),
            suspendedAt: row.optionalInt(9).map(Timestamp.init(microseconds:)))
    }

    package static func all(_ tx: any ReadTx) throws -> [AgentRecord] {
        try tx.rows("SELECT \(columns) FROM agents ORDER BY name", [], record)
    }

    package static func find(_ tx: any ReadTx, _ name: String) throws -> AgentRecord? {
        try tx.first("SELECT \(columns) FROM agents WHERE name = ?", [.text(name)], record)
    }

    /// - Throws: `StructuredError` `.notFound` with the nearest name.
    package static func require(_ tx: any ReadTx, _ name: String) throws -> AgentRecord {
        if let record = try find(tx, name) { return record }
        let names = try all(tx).map(\.name.text)
        let hint = nearest(to: name, among: names).map { "Did you mean `\($0)`?" }
        throw StructuredError(
            .notFound, "there is no agent `\(name.prefix(64))`",
            recovery: [hint ?? "List agents with `kruxos agent list`, or create one with `kruxos agent create`."])
    }

    package static func create(
        _ tx: WriteTx, name: AgentName, purpose: String, role: String?, token: AgentToken, now: Timestamp
    ) throws {
        if try find(tx, name.text) != nil {
            throw StructuredError(
                .alreadyExists, "the agent `\(name)` exists already",
                recovery: ["Choose another name, or give it a new token with `kruxos agent rotate \(name)`."])
        }
        try tx.execute(
            "INSERT INTO agents (\(columns)) VALUES (?, ?, 'active', ?, ?, ?, ?, ?, NULL, NULL)",
            [
                .text(name.text), .text(purpose), .blob(token.hash.bytes), .int(now.microseconds),
                .int(now.microseconds), .int(now.microseconds), .optional(role),
            ])
    }

    /// A new token for an active agent, or for a revoked one that comes back.
    package static func setToken(_ tx: WriteTx, _ name: AgentName, token: AgentToken, now: Timestamp) throws {
        try tx.execute(
            "UPDATE agents SET token_hash = ?, token_created_at = ?, status = 'active', status_changed_at = CASE status WHEN 'active' THEN status_changed_at ELSE ? END WHERE name = ?",
            [.blob(token.hash.bytes), .int(now.microseconds), .int(now.microseconds), .text(name.text)])
    }

    /// - Parameter mode: nil gives the word back to the agent's policy document and its role.
    package static func setMode(_ tx: WriteTx, _ name: AgentName, _ mode: Mode?) throws {
        try tx.execute(
            "UPDATE agents SET mode = ? WHERE name = ?", [.optional(mode?.rawValue), .text(name.text)])
    }

    package static func setRole(_ tx: WriteTx, _ name: AgentName, _ role: String?) throws {
        try tx.execute("UPDATE agents SET role = ? WHERE name = ?", [.optional(role), .text(name.text)])
    }

    /// Every active agent, until `resume`.
    package static func suspendAll(_ tx: WriteTx, now: Timestamp) throws {
        try tx.execute(
            "UPDATE agents SET suspended_at = ? WHERE status = 'active' AND suspended_at IS NULL",
            [.int(now.microseconds)])
    }

    package static func resume(_ tx: WriteTx, _ name: AgentName) throws {
        try tx.execute("UPDATE agents SET suspended_at = NULL WHERE name = ?", [.text(name.text)])
    }

    package static func revoke(_ tx: WriteTx, _ name: AgentName, now: Timestamp) throws {
        try tx.execute(
            "UPDATE agents SET token_hash = NULL, token_created_at = NULL, status = 'revoked', status_changed_at = ? WHERE name = ?",
            [.int(now.microseconds), .text(name.text)])
    }
}
