package import KruxCore
package import KruxCrypto
package import KruxPolicy
package import KruxStore

/// A stored policy version: the whole bundle, its compiled form, who made it and when.
package struct PolicyVersion: Sendable {
    package let version: Int64
    /// What records name the version by: SHA-256 of the compiled form; of the bundle for a version stored without one.
    package let digest: Digest
    package let bundle: PolicyBundle
    /// Nil for a version of a schema that did not keep it.
    package let compiled: [UInt8]?
    package let createdAt: Timestamp
    package let createdBy: String
}

extension PolicyVersion {
    /// The policy as the stored bytes say it; a version without them is compiled from its sources.
    package func policy(_ catalogue: Catalogue) throws -> CompiledPolicy {
        guard let compiled else { return try PolicyCompiler.compile(bundle, catalogue: catalogue) }
        let policy: CompiledPolicy
        do { policy = try CompiledPolicy(form: compiled, catalogue: catalogue) } catch {
            throw StoreError(.corrupt, "policy version \(version): \(error)")
        }
        // The sources are shown, compared and written back; they must be the ones that were compiled.
        guard policy.source == bundle.digest else {
            throw StoreError(
                .corrupt, "the sources of policy version \(version) are not the ones it was compiled from",
                hint: "put a backup in the file's place")
        }
        return policy
    }
}

package enum PolicyVersions {
    private static let columns = "v.version, v.digest, v.bundle, v.compiled, v.created_at, v.created_by"

    private static func version(_ row: SQLRow) throws -> PolicyVersion {
        guard let json = try? JSONParser.parse(row.text(2)), let bundle = PolicyBundle(json: json),
            let digest = Digest(row.blob(1))
        else { throw StoreError(.corrupt, "policy version \(row.int(0)) cannot be read") }
        let compiled = row.optionalBlob(3)
        if let compiled, sha256(compiled) != digest {
            throw StoreError(
                .corrupt, "the compiled form of policy version \(row.int(0)) is not the one that was stored",
                hint: "put a backup in the file's place")
        }
        return PolicyVersion(
            version: row.int(0), digest: digest, bundle: bundle, compiled: compiled,
            createdAt: Timestamp(microseconds: row.int(4)), createdBy: row.text(5))
    }

    /// The version in force.
    package static func current(_ tx: any ReadTx) throws -> PolicyVersion? {
        try tx.first(
            "SELECT \(columns) FROM policy_versions v JOIN meta m ON m.key = 'policy_version' AND m.value = v.version",
            [], version)
    }

    package static func find(_ tx: any ReadTx, _ number: Int64) throws -> PolicyVersion? {
        try tx.first("SELECT \(columns) FROM policy_versions v WHERE v.version = ?", [.int(number)], version)
    }

    package static func find(_ tx: any ReadTx, digest: Digest) throws -> PolicyVersion? {
        try tx.first("SELECT \(columns) FROM policy_versions v WHERE v.digest = ?", [.blob(digest.bytes)], version)
    }

    /// Every version, oldest first, without what it holds.
    package static func list(_ tx: any ReadTx) throws -> [Entry] {
        try tx.rows(
            "SELECT v.version, v.digest, json_extract(v.bundle, '$.active'), v.created_at, v.created_by, m.value IS NOT NULL FROM policy_versions v LEFT JOIN meta m ON m.key = 'policy_version' AND m.value = v.version ORDER BY v.version"
        ) {
            let last = try activation(tx, $0.int(0))
            return Entry(
                version: $0.int(0), digest: $0.blob(1).hex, policy: $0.text(2),
                activatedAt: last?.at ?? Timestamp(microseconds: $0.int(3)), activatedBy: last?.by ?? $0.text(4),
                inForce: $0.int(5) == 1)
        }
    }

    /// When a version was last put in force and by whom, by the record; nil for a row that was pruned.
    package static func activation(_ tx: any ReadTx, _ version: Int64) throws -> (at: Timestamp, by: String)? {
        try tx.first(
            "SELECT time, principal FROM audit WHERE phase = 'policy' AND json_extract(body, '$.detail.action') = 'activated' AND json_extract(body, '$.detail.version') = ? ORDER BY seq DESC LIMIT 1",
            [.int(version)]
        ) { (Timestamp(microseconds: $0.int(0)), $0.text(1)) }
    }

    package struct Entry: Sendable {
        package let version: Int64
        package let digest: String
        /// The active policy's name.
        package let policy: String
        /// Last.
        package let activatedAt: Timestamp
        package let activatedBy: String
        package let inForce: Bool
    }

    /// Stores the bundle unless the same one is stored, puts it in force, and returns its version.
    package static func activate(
        _ tx: WriteTx, _ bundle: PolicyBundle, compiled: [UInt8], by principal: Principal, now: Timestamp
    ) throws -> Int64 {
        let digest = sha256(compiled)
        let known = try tx.first("SELECT version FROM policy_versions WHERE digest = ?", [.blob(digest.bytes)]) {
            $0.int(0)
        }
        let version: Int64
        if let known {
            version = known
        } else {
            version = try tx.first("SELECT coalesce(max(version), 0) + 1 FROM policy_versions") { $0.int(0) } ?? 1
            try tx.execute(
                "INSERT INTO policy_versions (version, digest, bundle, compiled, created_at, created_by) VALUES (?, ?, ?, ?, ?, ?)",
                [
                    .int(version), .blob(digest.bytes), .text(bundle.json.canonicalText), .blob(compiled),
                    .int(now.microseconds),
                    .text(principal.text),
                ])
        }
        try tx.execute(
            "INSERT INTO meta (key, value) VALUES ('policy_version', ?) ON CONFLICT (key) DO UPDATE SET value = excluded.value",
            [.text("\(version)")])
        return version
    }
}
