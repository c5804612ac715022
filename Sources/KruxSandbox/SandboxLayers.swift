import CSandbox

/// What holds a confined process, each by itself. That no program gains privileges by being executed, and that it gets an
/// empty session keyring, always holds.
package struct SandboxLayers: OptionSet, Sendable {
    package let rawValue: UInt32
    package init(rawValue: UInt32) { self.rawValue = rawValue }
    private init(_ layer: krux_layer) { rawValue = layer.rawValue }

    /// User, mount, pid, ipc and uts namespaces, and with them a private root, `/tmp` and `/dev`.
    package static let namespaces = SandboxLayers(KRUX_LAYER_NAMESPACES)
    /// A network namespace.
    package static let network = SandboxLayers(KRUX_LAYER_NETWORK)
    package static let landlock = SandboxLayers(KRUX_LAYER_LANDLOCK)
    package static let seccomp = SandboxLayers(KRUX_LAYER_SECCOMP)
    package static let capabilities = SandboxLayers(KRUX_LAYER_CAPABILITIES)
    package static let limits = SandboxLayers(KRUX_LAYER_LIMITS)
    /// Another user than a root gateway's.
    package static let user = SandboxLayers(KRUX_LAYER_USER)

    /// Limits on all processes of an agent together; only where the machine lets the gateway set them, and never required.
    package static let cgroup = SandboxLayers(KRUX_LAYER_CGROUP)

    /// Each with its name, in the order in which they are applied.
    package static let named: [(name: String, layer: SandboxLayers)] = [
        ("namespaces", .namespaces), ("network", .network), ("user", .user), ("limits", .limits),
        ("landlock", .landlock), ("capabilities", .capabilities), ("seccomp", .seccomp), ("cgroup", .cgroup),
    ]

    package static let all = SandboxLayers(named.map(\.layer))

    package init?(name: String) {
        guard let found = Self.named.first(where: { $0.name == name }) else { return nil }
        self = found.layer
    }

    package var names: [String] { Self.named.filter { contains($0.layer) }.map(\.name) }
}
