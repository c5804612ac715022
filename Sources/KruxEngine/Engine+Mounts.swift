package import KruxCapabilities
package import KruxCore
import KruxPolicy
import KruxRegistry
import KruxStore

/// Folders of the machine that agents see.
extension Engine {
    func mounts(of agent: String) throws -> [Mount] {
        try store.read { try MountTable.all($0, agent: agent) }.map(\.mount)
    }

    func addMount(_ input: OperatorInput, by principal: Principal) throws -> JSONObject {
        let record = try store.read { try AgentTable.require($0, try input.text("agent")) }
        let name = record.name.text
        let mount = Mount(
            label: try Mount.label(try input.text("target")), source: try input.text("source"),
            isReadOnly: try input.flag("read_only"))
        let known = try mounts(of: name)
        try mount.requireMountable(
            for: name, beside: known, home: home.root, ProtectedNames(policy.compiled.protected))
        try mount.requireApart(
            from: try store.read { try MountTable.all($0) }.filter { !$0.agent.utf8Equals(name) }, home: home.root)
        try change("mount added", agent: name, by: principal, now: clock.now(), detail: Self.json(mount, of: name)) {
            try MountTable.insert($0, mount, agent: name)
        }
        try workspace(record.name).setMounts(try mounts(of: name))
        return Self.json(mount, of: name)
    }

    func removeMount(_ input: OperatorInput, by principal: Principal) throws -> JSONObject {
        let record = try store.read { try AgentTable.require($0, try input.text("agent")) }
        let name = record.name.text
        let label = try Mount.label(try input.text("target"))
        guard let mount = try mounts(of: name).first(where: { $0.label.utf8Equals(label) }) else {
            throw StructuredError(
                .notFound, "nothing is mounted at /mnt/\(label) for `\(name)`",
                recovery: ["Look with `kruxos mount list --agent \(name)`."])
        }
        try change("mount removed", agent: name, by: principal, now: clock.now(), detail: Self.json(mount, of: name)) {
            try MountTable.delete($0, label: label, agent: name)
        }
        try workspace(record.name).setMounts(try mounts(of: name))
        return Self.json(mount, of: name)
    }

    /// `{agent, target, source, read_only}`.
    package static func json(_ mount: Mount, of agent: String) -> JSONObject {
        [
            "agent": .string(agent), "target": .string(mount.target), "source": .string(mount.source),
            "read_only": .bool(mount.isReadOnly),
        ]
    }
}
