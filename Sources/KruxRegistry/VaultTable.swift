package import KruxCore
package import KruxCrypto
package import KruxStore

/// What a secret may be used for; nothing else.
package struct SecretScope: Sendable, Equatable {
    /// Nil for every agent whose policy lets it.
    package var agents: [String]?
    /// Names of capabilities, or `a.*`.
    package var capabilities: [String]
    /// Where it may be sent.
    package var hosts: [HostPattern]
    /// Over plain http, too.
    package var allowsPlainHTTP: Bool

    package init(
        agents: [String]? = nil, capabilities: [String], hosts: [HostPattern], allowsPlainHTTP: Bool = false
    ) {
        self.agents = agents
        self.capabilities = capabilities
        self.hosts = hosts
        self.allowsPlainHTTP = allowsPlainHTTP
    }

    /// `{agents?, capabilities, hosts, plain_http?}`.
    package var json: JSONObject {
        var json: JSONObject = [
            "capabilities": .strings(capabilities), "hosts": .strings(hosts.map(\.text)),
        ]
        if let agents { json["agents"] = .strings(agents) }
        if allowsPlainHTTP { json["plain_http"] = true }
        return json
    }

    package init?(json: JSONValue) {
        guard let capabilities = json["capabilities"]?.array?.compactMap(\.string),
            let texts = json["hosts"]?.array?.compactMap(\.string)
        else { return nil }
        let hosts = texts.compactMap { HostPattern($0) }
        guard hosts.count == texts.count else { return nil }
        self.init(
            agents: json["agents"]?.array?.compactMap(\.string), capabilities: capabilities, hosts: hosts,
            allowsPlainHTTP: json["plain_http"]?.bool ?? false)
    }

    package func covers(capability: String) -> Bool {
        capabilities.contains { pattern in
            pattern.hasSuffix(".*") ? capability.hasPrefix(pattern.dropLast()) : pattern.utf8Equals(capability)
        }
    }

    package func covers(agent: String) -> Bool { agents?.contains { $0.utf8Equals(agent) } ?? true }
}

/// A secret as it is kept, without its value.
package struct StoredSecret: Sendable {
    package let name: String
    package let scope: SecretScope
    package let version: Int64
    package let sealed: [UInt8]?
    package let createdAt: Timestamp
    package let changedAt: Timestamp

    /// What it is sealed with besides the key: another name, scope or version does not open it.
    package static func context(_ name: String, _ scope: SecretScope, _ version: Int64) -> [UInt8] {
        JSONValue.object(["name": .string(name), "scope": .object(scope.json), "version": .int(version)])
            .canonicalBytes()
    }

    package var context: [UInt8] { Self.context(name, scope, version) }

    package var json: JSONObject {
        [
            "name": .string(name), "state": sealed == nil ? "revoked" : "active", "version": .int(version),
            "capabilities": .strings(scope.capabilities), "hosts": .strings(scope.hosts.map(\.text)),
            "agents": scope.agents.map { .strings($0) } ?? .null, "plain_http": .bool(scope.allowsPlainHTTP),
            "created_at": .string(createdAt.rfc3339), "changed_at": .string(changedAt.rfc3339),
        ]
    }
}

/// The vault's tables. Each change is made in the caller's transaction, beside its row of the record.
package enum VaultTable {
    package struct Lock: Sendable {
        package let hash: PasswordHash
        package let sealedKey: [UInt8]

        package init(hash: PasswordHash, sealedKey: [UInt8]) {
            self.hash = hash
            self.sealedKey = sealedKey
        }

        package static let context = Array("kruxos/vault/v1".utf8)
    }

    /// Nil before `init`.
    package static func lock(_ tx: any ReadTx) throws -> Lock? {
        try tx.first("SELECT salt, operations, memory, sealed_key FROM vault") {
            Lock(
                hash: PasswordHash(salt: $0.blob(0), operations: $0.int(1), memory: $0.int(2)), sealedKey: $0.blob(3))
        }
    }

    package static func setLock(_ tx: WriteTx, _ lock: Lock, now: Timestamp) throws {
        try tx.execute(
            "INSERT INTO vault (number, salt, operations, memory, sealed_key, created_at) VALUES (1, ?, ?, ?, ?, ?) ON CONFLICT (number) DO UPDATE SET salt = excluded.salt, operations = excluded.operations, memory = excluded.memory, sealed_key = excluded.sealed_key",
            [
                .blob(lock.hash.salt), .int(lock.hash.operations), .int(lock.hash.memory), .blob(lock.sealedKey),
                .int(now.microseconds),
            ])
    }

    private static func secret(_ row: SQLRow) throws -> StoredSecret {
        guard let scope = SecretScope(json: try JSONParser.parse(row.text(1))) else {
            throw StructuredError(
                .internalError, "the scope of the secret `\(row.text(0))` cannot be read",
                recovery: ["Revoke it and add it again."])
        }
        return StoredSecret(
            name: row.text(0), scope: scope, version: row.int(2), sealed: row.optionalBlob(3),
            createdAt: Timestamp(microseconds: row.int(4)), changedAt: Timestamp(microseconds: row.int(5)))
    }

    private static let columns = "name, scope, version, sealed, created_at, changed_at"

    package static func all(_ tx: any ReadTx) throws -> [StoredSecret] {
        try tx.rows("SELECT \(columns) FROM secrets ORDER BY name", [], secret)
    }

    package static func find(_ tx: any ReadTx, _ name: String) throws -> StoredSecret? {
        try tx.first("SELECT \(columns) FROM secrets WHERE name = ?", [.text(name)], secret)
    }

    /// - Throws: `StructuredError` `.notFound`.
    package static func require(_ tx: any ReadTx, _ name: String) throws -> StoredSecret {
        if let found = try find(tx, name) { return found }
        throw StructuredError(
            .notFound, "there is no secret `\(name.prefix(64))`", recovery: ["List them with `kruxos vault list`."])
    }

    package static func put(
        _ tx: WriteTx, name: String, scope: SecretScope, version: Int64, sealed: [UInt8]?, now: Timestamp
    ) throws {
        try tx.execute(
            "INSERT INTO secrets (name, scope, version, sealed, created_at, changed_at) VALUES (?1, ?2, ?3, ?4, ?5, ?5) ON CONFLICT (name) DO UPDATE SET scope = excluded.scope, version = excluded.version, sealed = excluded.sealed, changed_at = excluded.changed_at",
            [
                .text(name), .text(JSONValue.object(scope.json).canonicalText), .int(version),
                sealed.map { .blob($0) } ?? .null, .int(now.microseconds),
            ])
    }
}
