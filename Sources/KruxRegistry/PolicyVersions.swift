package import KruxCore
package import KruxCrypto
package import KruxPolicy
package import KruxStore

/// A stored policy version: the whole bundle, who made it and when.
package struct PolicyVersion: Sendable {
    package let version: Int64
    package let bundle: PolicyBundle
    package let createdAt: Timestamp
    package let createdBy: String
}

package enum PolicyVersions {
    /// The version in force: the newest.
    package static func current(_ tx: any ReadTx) throws -> PolicyVersion? {
        try tx.first(
            "SELECT v.version, v.bundle, v.created_at, v.created_by FROM policy_versions v JOIN meta m ON m.key = 'policy_version' AND m.value = v.version",
            []
        ) { row in
            guard let json = try? JSONParser.parse(row.text(1)), let bundle = PolicyBundle(json: json) else {
                throw StoreError(.corrupt, "policy version \(row.int(0)) cannot be read")
            }
            return PolicyVersion(
                version: row.int(0), bundle: bundle, createdAt: Timestamp(microseconds: row.int(2)),
                createdBy: row.text(3))
        }
    }

    /// Stores the bundle unless the same one is stored, puts it in force, and returns its version.
    package static func activate(
        _ tx: WriteTx, _ bundle: PolicyBundle, digest: Digest, by principal: Principal, now: Timestamp
    ) throws -> Int64 {
        let known = try tx.first("SELECT version FROM policy_versions WHERE digest = ?", [.blob(digest.bytes)]) {
            $0.int(0)
        }
        let version: Int64
        if let known {
            version = known
        } else {
            version = try tx.first("SELECT coalesce(max(version), 0) + 1 FROM policy_versions") { $0.int(0) } ?? 1
            try tx.execute(
                "INSERT INTO policy_versions (version, digest, bundle, created_at, created_by) VALUES (?, ?, ?, ?, ?)",
                [
                    .int(version), .blob(digest.bytes), .text(bundle.json.canonicalText), .int(now.microseconds),
                    .text(principal.text),
                ])
        }
        try tx.execute(
            "INSERT INTO meta (key, value) VALUES ('policy_version', ?) ON CONFLICT (key) DO UPDATE SET value = excluded.value",
            [.text("\(version)")])
        return version
    }
}
