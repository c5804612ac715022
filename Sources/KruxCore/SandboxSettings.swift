/// What a process that an agent starts may do to files and reach, as rules say with `sandbox:`. It stands beside the tier:
/// the one says whether a call runs, the other in what box.
package struct SandboxSettings: Sendable, Equatable {
    /// Strictest first.
    package enum Files: String, Sendable, CaseIterable, Comparable {
        /// Nothing may be written but a `/tmp` that is gone afterwards.
        case readOnly = "read-only"
        /// The workspace and its writable mounts.
        case workspaceWrite = "workspace-write"
        /// The machine as the user sees it whom the process runs as, and its network; never the gate's own files.
        case fullAccess = "full-access"

        package static func < (a: Files, b: Files) -> Bool { a.rank < b.rank }
        private var rank: Int { Self.allCases.firstIndex(of: self) ?? 0 }
    }

    package var files: Files
    /// Hosts that may be reached through the gate's proxy, `example.com` or `*.example.com`, each with `:port` or for the
    /// ports of HTTP; nil for no network.
    package var hosts: [String]?
    /// A layer that the machine lacks does not keep the process from running.
    package var isBestEffort: Bool

    package init(files: Files = .workspaceWrite, hosts: [String]? = nil, isBestEffort: Bool = false) {
        self.files = files
        self.hosts = hosts
        self.isBestEffort = isBestEffort
    }

    /// Both boxes at once: what either forbids is forbidden.
    package func tightened(by other: SandboxSettings) -> SandboxSettings {
        let both: [String]?
        if let hosts, let their = other.hosts {
            both = hosts.filter(their.contains)
        } else {
            // One that reaches the whole network leaves the other's list as it is.
            both = files == .fullAccess ? other.hosts : other.files == .fullAccess ? hosts : nil
        }
        return SandboxSettings(
            files: min(files, other.files), hosts: both.flatMap { $0.isEmpty ? nil : $0 },
            isBestEffort: isBestEffort && other.isBestEffort)
    }

    /// `{files, hosts?, best_effort?}`.
    package var json: JSONObject {
        var json: JSONObject = ["files": .string(files.rawValue)]
        if let hosts { json["hosts"] = .strings(hosts) }
        if isBestEffort { json["best_effort"] = true }
        return json
    }

    package init(json: JSONObject) {
        self.init(
            files: json["files"]?.string.flatMap(Files.init(rawValue:)) ?? .readOnly,
            hosts: json["hosts"]?.array?.compactMap(\.string), isBestEffort: json["best_effort"]?.bool ?? false)
    }

    /// In words, for people.
    package var text: String {
        switch files {
        case .readOnly: "read-only" + network
        case .workspaceWrite: "confined to the workspace" + network
        case .fullAccess: "with the whole machine and its network, as the user it runs as"
        }
    }

    private var network: String { hosts.map { ", reaching \($0.joined(separator: ", "))" } ?? " and without network" }
}
