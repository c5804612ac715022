import KruxCapabilities
import KruxCore
import KruxRegistry
import KruxStore

/// How much agents may keep in their workspaces.
extension Engine {
    func quota(of agent: String) throws -> Quota? {
        try store.read { tx in
            try tx.first("SELECT bytes, files FROM quotas WHERE agent = ?", [.text(agent)]) {
                Quota(bytes: $0.optionalInt(0).map { max(0, $0) }, files: $0.optionalInt(1).map { max(0, $0) })
            }
        }
    }

    /// Sets both limits; one that is absent is none.
    func setQuota(_ input: OperatorInput, by principal: Principal) throws -> JSONObject {
        let record = try store.read { try AgentTable.require($0, try input.text("name")) }
        let quota = Quota(bytes: try input.optionalInt("bytes"), files: try input.optionalInt("files"))
        for limit in [quota.bytes, quota.files].compactMap({ $0 }) where limit < 1 {
            throw StructuredError(
                .invalidArguments, "a quota is at least 1", recovery: ["Leave a limit out for none."])
        }
        let name = record.name.text
        try change(
            "agent quota set", agent: name, by: principal, now: clock.now(),
            detail: ["bytes": .optional(quota.bytes), "files": .optional(quota.files)]
        ) { tx in
            try tx.execute("DELETE FROM quotas WHERE agent = ?", [.text(name)])
            if quota.bytes != nil || quota.files != nil {
                try tx.execute(
                    "INSERT INTO quotas (agent, bytes, files) VALUES (?, ?, ?)",
                    [.text(name), .optional(quota.bytes), .optional(quota.files)])
            }
        }
        try workspace(record.name).setQuota(try self.quota(of: name))
        return ["name": .string(name), "bytes": .optional(quota.bytes), "files": .optional(quota.files)]
    }
}
