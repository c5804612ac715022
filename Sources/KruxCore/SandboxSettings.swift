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
    /// Hosts that may be reached through the gate's proxy; nil for no network.
    package var hosts: [HostPattern]?
    /// Addresses that may be reached though they are not public.
    package var addresses: [AddressRange]
    /// A layer that the machine lacks does not keep the process from running.
    package var isBestEffort: Bool

    package init(
        files: Files = .workspaceWrite, hosts: [HostPattern]? = nil, addresses: [AddressRange] = [],
        isBestEffort: Bool = false
    ) {
        self.files = files
        self.hosts = hosts
        self.addresses = addresses
        self.isBestEffort = isBestEffort
    }

    /// Both boxes at once: what either forbids is forbidden.
    package func tightened(by other: SandboxSettings) -> SandboxSettings {
        let both: [HostPattern]?
        if let hosts, let their = other.hosts {
            both =
                hosts.filter { own in their.contains { $0.covers(own) } }
                + their.filter { other in hosts.contains { $0 != other && $0.covers(other) } }
        } else {
            // One that reaches the whole network leaves the other's list as it is.
            both = files == .fullAccess ? other.hosts : other.files == .fullAccess ? hosts : nil
        }
        return SandboxSettings(
            files: min(files, other.files), hosts: both.flatMap { $0.isEmpty ? nil : $0 },
            addresses: addresses.filter { own in other.addresses.contains { $0.contains(own) } }
                + other.addresses.filter { their in addresses.contains { $0 != their && $0.contains(their) } },
            isBestEffort: isBestEffort && other.isBestEffort)
    }

    /// `{files, hosts?, addresses?, best_effort?}`.
    package var json: JSONObject {
        var json: JSONObject = ["files": .string(files.rawValue)]
        if let hosts { json["hosts"] = .strings(hosts.map(\.text)) }
        if !addresses.isEmpty { json["addresses"] = .strings(addresses.map(\.text)) }
        if isBestEffort { json["best_effort"] = true }
        return json
    }

    package init(json: JSONObject) {
        self.init(
            files: json["files"]?.string.flatMap(Files.init(rawValue:)) ?? .readOnly,
            hosts: json["hosts"]?.array?.compactMap(\.string).compactMap { HostPattern($0) },
            addresses: json["addresses"]?.array?.compactMap(\.string).compactMap { AddressRange($0) } ?? [],
            isBestEffort: json["best_effort"]?.bool ?? false)
    }

    /// In words, for people.
    package var text: String {
        switch files {
        case .readOnly: "read-only" + network
        case .workspaceWrite: "confined to the workspace" + network
        case .fullAccess: "with the whole machine and its network, as the user it runs as"
        }
    }

    private var network: String {
        hosts.map { ", reaching \($0.map(\.text).joined(separator: ", "))" } ?? " and without network"
    }
}
