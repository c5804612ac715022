package import KruxStore

/// Which agents see which folders of the machine.
package enum MountTable {
    /// By agent and label.
    package static func all(_ tx: any ReadTx, agent: String? = nil) throws -> [(agent: String, mount: Mount)] {
        try tx.rows(
            "SELECT agent, label, source, read_only FROM mounts WHERE ?1 IS NULL OR agent = ?1 ORDER BY agent, label",
            [.optional(agent)]
        ) { row -> (agent: String, mount: Mount)? in
            // A label that no command wrote leads elsewhere: the row is no mount.
            guard let label = try? Mount.label("/mnt/" + row.text(1)) else { return nil }
            return (row.text(0), Mount(label: label, source: row.text(2), isReadOnly: row.int(3) != 0))
        }.compactMap { $0 }
    }

    package static func insert(_ tx: WriteTx, _ mount: Mount, agent: String) throws {
        try tx.execute(
            "INSERT INTO mounts (agent, label, source, read_only) VALUES (?, ?, ?, ?)",
            [.text(agent), .text(mount.label), .text(mount.source), .int(mount.isReadOnly ? 1 : 0)])
    }

    package static func delete(_ tx: WriteTx, label: String, agent: String) throws {
        try tx.execute("DELETE FROM mounts WHERE agent = ? AND label = ?", [.text(agent), .text(label)])
    }
}
