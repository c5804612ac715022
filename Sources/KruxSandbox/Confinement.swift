import Foundation
package import KruxCore

/// The box a process is put into.
package struct Confinement: Sendable {
    /// A folder of the machine that is shown to the process.
    package struct Mount: Sendable {
        /// Absolute, below `/mnt`.
        package let target: String
        /// An `O_PATH` descriptor; the caller keeps it open until the process has been started.
        package let descriptor: Int32
        package let isReadOnly: Bool

        package init(target: String, descriptor: Int32, isReadOnly: Bool) {
            self.target = target
            self.descriptor = descriptor
            self.isReadOnly = isReadOnly
        }
    }

    package var settings: SandboxSettings
    /// The gate's home, which not even `full-access` shows; empty for none.
    package var home: String
    package var mounts: [Mount]
    /// Places relative to the workspace that are read-only where they are there.
    package var protected: [String]
    /// Layers that are left out, for a supervisor who looks at the others alone.
    package var omitted: SandboxLayers
    /// What it is started in; nil for the gateway's own group.
    package var group: ControlGroup?
    /// Takes each connection that the process makes to the proxy, and owns its descriptor. Nil for no network.
    package var proxy: (@Sendable (Int32) -> Void)?

    package init(
        settings: SandboxSettings = SandboxSettings(), home: String = "", mounts: [Mount] = [],
        protected: [String] = [], omitted: SandboxLayers = [], group: ControlGroup? = nil,
        proxy: (@Sendable (Int32) -> Void)? = nil
    ) {
        self.settings = settings
        self.home = home
        self.mounts = mounts
        self.protected = protected
        self.omitted = omitted
        self.group = group
        self.proxy = proxy
    }

    /// The user and group of agents' processes and files where the gateway is root: a number that Debian, Fedora and
    /// systemd leave unused.
    package static let agentUser: UInt32 = 500_777

    /// `agentUser` where this process is root and may become it, else nil: then processes run as the gateway's own user. In
    /// a container without the machine's root that number may mean nobody.
    package static let processUser: UInt32? = {
        guard geteuid() == 0 else { return nil }
        let isMapped = ["uid_map", "gid_map"].allSatisfy { file in
            // `inside outside count`.
            let text = (try? String(contentsOfFile: "/proc/self/\(file)", encoding: .utf8)) ?? ""
            return text.split(separator: "\n").contains { line in
                let numbers = line.split(separator: " ").compactMap { UInt64($0) }
                return numbers.count == 3 && numbers[0] <= agentUser && UInt64(agentUser) - numbers[0] < numbers[2]
            }
        }
        return isMapped ? agentUser : nil
    }()
}
