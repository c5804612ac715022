import Foundation
package import KruxCore

/// Where a gateway keeps its things.
package struct Home: Sendable {
    package let root: String
    package let policies: String

    /// A system install keeps its state in `/var/lib/kruxos` and its policies in `/etc/kruxos/policies`; any other
    /// home holds both.
    /// - Parameters:
    ///   - explicit: `--home`.
    ///   - environment: `KRUXOS_HOME`, `XDG_DATA_HOME` and `HOME` are read.
    package init(explicit: String?, system: Bool, environment: [String: String]) throws(StructuredError) {
        let chosen = explicit ?? environment["KRUXOS_HOME"].flatMap { $0.isEmpty ? nil : $0 }
        if let chosen {
            let absolute = chosen.hasPrefix("/") ? chosen : FileManager.default.currentDirectoryPath + "/" + chosen
            self.init(root: absolute)
        } else if system || geteuid() == 0 {
            self.init(root: "/var/lib/kruxos", policies: "/etc/kruxos/policies")
        } else {
            guard let user = environment["HOME"], user.hasPrefix("/") else {
                throw StructuredError(
                    .invalidRequest, "there is no home directory", recovery: ["Set KRUXOS_HOME or pass --home."])
            }
            let data = environment["XDG_DATA_HOME"].flatMap { $0.hasPrefix("/") ? $0 : nil } ?? user + "/.local/share"
            self.init(root: data + "/kruxos")
        }
    }

    private init(root: String, policies: String) {
        self.root = root
        self.policies = policies
    }

    package init(root: String) {
        var trimmed = root
        while trimmed.count > 1, trimmed.hasSuffix("/") { trimmed.removeLast() }
        self.init(root: trimmed, policies: trimmed + "/policies")
    }

    package var database: String { root + "/kruxos.db" }
    package var socket: String { root + "/kruxos.sock" }
    /// What is protected in workspaces while processes run there.
    var protected: String { root + "/protected" }
    package var log: String { root + "/gateway.log" }

    /// Makes what is missing, 0700.
    package func create() throws(StructuredError) {
        var folders: [String] = []
        var prefix = ""
        for component in root.split(separator: "/") {
            prefix += "/" + component
            folders.append(prefix)
        }
        for folder in folders + [root + "/keys", root + "/workspaces", policies, policies + "/agents"] {
            if mkdir(folder, 0o700) != 0, errno != EEXIST, errno != EROFS || access(folder, F_OK) != 0 {
                throw StructuredError(
                    .ioFailure, "cannot create `\(folder)`: \(String(cString: strerror(errno)))",
                    recovery: ["Choose another place with --home or KRUXOS_HOME."])
            }
        }
        var status = stat()
        if stat(root, &status) == 0, status.st_mode & 0o077 != 0 {
            // A home that others may read is closed to them, unless it is not ours to change.
            guard status.st_uid == geteuid(), chmod(root, 0o700) == 0 else {
                throw StructuredError(
                    .ioFailure, "`\(root)` can be read by others and is not yours",
                    recovery: ["Choose a home of your own with --home."])
            }
        }
    }

    /// Bytes free for an ordinary user on the home's disk.
    package var freeBytes: Int64 {
        var status = statvfs()
        guard statvfs(root, &status) == 0 else { return 0 }
        return Int64(clamping: UInt64(status.f_bavail) &* UInt64(status.f_frsize))
    }
}
