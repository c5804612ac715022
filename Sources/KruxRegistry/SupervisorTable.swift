package import KruxCore
import KruxCrypto
package import KruxStore

/// A person who may answer, besides the machine's owner. The owner needs no entry; one under the owner's name gives
/// them a role.
package struct Supervisor: Sendable {
    package let name: String
    package let role: String?
    package let createdAt: Timestamp
    package let revokedAt: Timestamp?

    package var json: JSONObject {
        [
            "name": .string(name), "role": .optional(role), "status": .string(revokedAt == nil ? "active" : "revoked"),
            "created_at": .string(createdAt.rfc3339), "revoked_at": .optional(revokedAt?.rfc3339),
        ]
    }
}

/// The supervisors' table. Each change is made in the caller's transaction, beside its row of the record.
package enum SupervisorTable {
    private static func supervisor(_ row: SQLRow) throws -> Supervisor {
        Supervisor(
            name: row.text(0), role: row.optionalText(1), createdAt: Timestamp(microseconds: row.int(2)),
            revokedAt: row.optionalInt(3).map(Timestamp.init(microseconds:)))
    }

    package static func all(_ tx: any ReadTx) throws -> [Supervisor] {
        try tx.rows("SELECT name, role, created_at, revoked_at FROM supervisors ORDER BY name", [], supervisor)
    }

    package static func find(_ tx: any ReadTx, _ name: String) throws -> Supervisor? {
        try tx.first(
            "SELECT name, role, created_at, revoked_at FROM supervisors WHERE name = ?", [.text(name)], supervisor)
    }

    /// - Throws: `StructuredError` `.notFound`.
    package static func require(_ tx: any ReadTx, _ name: String) throws -> Supervisor {
        if let found = try find(tx, name) { return found }
        throw StructuredError(
            .notFound, "there is no supervisor `\(name.prefix(64))`",
            recovery: ["List them with `kruxos supervisor list`."])
    }

    /// The active supervisor a token belongs to. Its hash is looked up, so that time tells nothing of the token.
    package static func authenticate(_ tx: any ReadTx, _ token: AgentToken) throws -> Supervisor? {
        try tx.first(
            "SELECT name, role, created_at, revoked_at FROM supervisors WHERE token_hash = ? AND revoked_at IS NULL",
            [.blob(token.hash.bytes)], supervisor)
    }

    /// A new one, or one that was revoked before.
    package static func put(_ tx: WriteTx, name: String, role: String?, token: AgentToken, now: Timestamp) throws {
        try tx.execute(
            "INSERT INTO supervisors (name, role, token_hash, created_at) VALUES (?, ?, ?, ?) ON CONFLICT (name) DO UPDATE SET role = excluded.role, token_hash = excluded.token_hash, revoked_at = NULL",
            [.text(name), .optional(role), .blob(token.hash.bytes), .int(now.microseconds)])
    }

    package static func revoke(_ tx: WriteTx, _ name: String, now: Timestamp) throws {
        try tx.execute(
            "UPDATE supervisors SET token_hash = NULL, revoked_at = ? WHERE name = ?",
            [.int(now.microseconds), .text(name)])
    }
}
