import Foundation
package import Glibc
import Synchronization

/// What all the processes of an agent may use together, by cgroup v2: where a part of the tree is the gateway's own, as in
/// a systemd service with `Delegate=yes`.
///
/// The gateway moves itself into `gateway`, because a group with processes of its own cannot limit groups below it; agents
/// get `<name>/<agent>` beside that. Nothing above is touched, and processes of others are not moved.
package final class ControlGroups: Sendable {
    package struct Limits: Sendable, Equatable {
        /// Memory without swap.
        package var memoryBytes: Int64
        /// Processes and threads.
        package var processes: Int64

        package init(memoryBytes: Int64, processes: Int64) {
            self.memoryBytes = memoryBytes
            self.processes = processes
        }

        /// Half of the machine's memory.
        package static var usual: Limits {
            Limits(memoryBytes: Int64(sysconf(Int32(_SC_PHYS_PAGES))) * Int64(getpagesize()) / 2, processes: 2048)
        }
    }

    /// What the kernel says of a process and its mounts.
    package struct View: Sendable {
        /// `/proc/self/cgroup` and `/proc/self/mountinfo`.
        package var membership: String
        package var mounts: String
        /// Whether a process is the gateway or one that it started.
        package var isOwn: @Sendable (pid_t) -> Bool

        package init(membership: String, mounts: String, isOwn: @escaping @Sendable (pid_t) -> Bool) {
            self.membership = membership
            self.mounts = mounts
            self.isOwn = isOwn
        }

        package static var own: View {
            @Sendable func text(_ path: String) -> String { (try? String(contentsOfFile: path, encoding: .utf8)) ?? "" }
            let own = getpid()
            return View(membership: text("/proc/self/cgroup"), mounts: text("/proc/self/mountinfo")) { pid in
                if pid == own { return true }
                // `pid (name) state parent …`; a name may hold anything.
                let fields = text("/proc/\(pid)/stat").split(separator: ")").last?.split(separator: " ") ?? []
                return fields.count > 1 && pid_t(fields[1]) == own
            }
        }

        /// The folder of the group that this process is in.
        fileprivate func folder() throws(SandboxError) -> String {
            let unified = membership.split(separator: "\n").first { $0.hasPrefix("0::") }?.dropFirst(3)
            guard let unified, let mount = MountPoints(mounts).points.first(where: { $0.type == "cgroup2" }) else {
                throw SandboxError(.unavailable, "this machine has no cgroup v2", hint: "boot with cgroup v2 alone")
            }
            let root = mount.root == "/" ? "" : mount.root
            let path = unified == "/" ? "" : unified
            guard path.isEmpty || path == root || path.hasPrefix(root + "/"), !path.contains("/..") else {
                throw SandboxError(.unavailable, "this process's cgroup is outside of what is mounted here")
            }
            return mount.path + String(path.dropFirst(root.count))
        }
    }

    private let folder: String
    private let limits: Limits
    /// Descriptors of the agents' groups, open as long as this is.
    private let groups = Mutex<[String: ControlGroup]>([:])

    private init(folder: String, limits: Limits) {
        self.folder = folder
        self.limits = limits
    }

    /// - Throws: `SandboxError` that says why there are none.
    package static func claim(
        _ name: String, limits: Limits = .usual, view: View = .own
    ) throws(SandboxError) -> ControlGroups {
        let own = try view.folder()
        let wanted = try controllers(own)
        try delegate(wanted, in: own, view)
        let folder = "\(own)/\(name)"
        try make(folder)
        try put(wanted.map { "+\($0)" }.joined(separator: " "), "\(folder)/cgroup.subtree_control")
        return ControlGroups(folder: folder, limits: limits)
    }

    /// Whether a gateway that is started from here, alone in its group, would get them; nothing is changed.
    /// - Throws: `SandboxError` that says why not.
    package static func probe(view: View = .own) throws(SandboxError) {
        let own = try view.folder()
        _ = try controllers(own)
        guard access(own, W_OK) == 0 else { throw notDelegated(own, errno) }
        try requireAlone(try processes(own), in: own, view)
    }

    private static func notDelegated(_ folder: String, _ code: Int32) -> SandboxError {
        SandboxError(
            .unavailable, "the cgroup `\(folder)` is not the gateway's own: \(String(cString: strerror(code)))",
            hint: "start it as a service with `Delegate=yes`, such as systemd-run --user -p Delegate=yes kruxos serve")
    }

    /// The controllers that limit something and can be had.
    private static func controllers(_ folder: String) throws(SandboxError) -> [String] {
        let text = try get("\(folder)/cgroup.controllers")
        let offered = Set(text.split(whereSeparator: \.isWhitespace).map(String.init))
        let found = ["memory", "pids", "cpu"].filter { offered.contains($0) }
        guard found.contains("memory") || found.contains("pids") else {
            throw SandboxError(
                .unavailable, "cgroup v2 limits neither memory nor processes here",
                hint: "another hierarchy may hold these controllers: boot with cgroup v2 alone, or have them delegated")
        }
        return found
    }

    private static func processes(_ folder: String) throws(SandboxError) -> [pid_t] {
        try get("\(folder)/cgroup.procs").split(separator: "\n").compactMap { pid_t($0) }
    }

    private static func requireAlone(_ pids: [pid_t], in folder: String, _ view: View) throws(SandboxError) {
        // Only the machine's own root may limit what is below it while it has processes.
        guard access("\(folder)/cgroup.type", F_OK) == 0, let stranger = pids.first(where: { !view.isOwn($0) }) else {
            return
        }
        throw SandboxError(
            .unavailable, "process \(stranger) is in the gateway's cgroup, too",
            hint: "start the gateway as a service of its own: systemd-run --user -p Delegate=yes kruxos serve")
    }

    private static func delegate(_ controllers: [String], in own: String, _ view: View) throws(SandboxError) {
        let text = controllers.map { "+\($0)" }.joined(separator: " ")
        let control = "\(own)/cgroup.subtree_control"
        let pids = try processes(own)
        if access("\(own)/cgroup.type", F_OK) == 0, !pids.isEmpty {
            try requireAlone(pids, in: own, view)
            let gateway = "\(own)/gateway"
            try make(gateway)
            for pid in pids { try put("\(pid)", "\(gateway)/cgroup.procs") }
        }
        try put(text, control)
    }

    private static func make(_ folder: String) throws(SandboxError) {
        if mkdir(folder, 0o755) != 0, errno != EEXIST { throw notDelegated(folder, errno) }
    }

    private static func get(_ path: String) throws(SandboxError) -> String {
        guard let text = try? String(contentsOfFile: path, encoding: .utf8) else {
            throw notDelegated((path as NSString).deletingLastPathComponent, errno == 0 ? ENOENT : errno)
        }
        return text
    }

    /// One write: the kernel takes each as a command.
    private static func put(_ text: String, _ path: String) throws(SandboxError) {
        let descriptor = open(path, O_WRONLY | O_CLOEXEC)
        guard descriptor >= 0 else { throw notDelegated((path as NSString).deletingLastPathComponent, errno) }
        defer { close(descriptor) }
        let bytes = Array(text.utf8)
        guard write(descriptor, bytes, bytes.count) == bytes.count else {
            throw notDelegated((path as NSString).deletingLastPathComponent, errno)
        }
    }

    /// The group of an agent, with its limits.
    package func group(_ agent: String) throws(SandboxError) -> ControlGroup {
        let result: Result<ControlGroup, SandboxError> = groups.withLock { groups in
            if let known = groups[agent] { return .success(known) }
            do throws(SandboxError) {
                let made = try make(agent)
                groups[agent] = made
                return .success(made)
            } catch {
                return .failure(error)
            }
        }
        return try result.get()
    }

    private func make(_ agent: String) throws(SandboxError) -> ControlGroup {
        let path = "\(folder)/\(agent)"
        try Self.make(path)
        let wanted: [(String, String)] = [
            ("memory.max", "\(limits.memoryBytes)"), ("memory.swap.max", "0"), ("pids.max", "\(limits.processes)"),
            // What people do comes first.
            ("cpu.weight", "50"),
        ]
        for (file, value) in wanted where access("\(path)/\(file)", F_OK) == 0 {
            try Self.put(value, "\(path)/\(file)")
        }
        let descriptor = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC)
        guard descriptor >= 0 else { throw Self.notDelegated(path, errno) }
        return ControlGroup(descriptor: descriptor)
    }

    /// After everything has ended: takes the groups away.
    package func end() {
        let agents = groups.withLock { groups in
            defer { groups = [:] }
            return Array(groups.keys)
        }
        for agent in agents { rmdir("\(folder)/\(agent)") }
        rmdir(folder)
    }
}

/// A group that processes are started in.
package final class ControlGroup: Sendable {
    let descriptor: Int32

    /// - Parameter descriptor: of its folder in a cgroup2 mount; becomes this one's.
    package init(descriptor: Int32) { self.descriptor = descriptor }

    deinit { close(descriptor) }

    /// How often the kernel has killed a process of it because its memory was used up; zero where it does not say.
    package var outOfMemoryKills: Int64 {
        let file = openat(descriptor, "memory.events", O_RDONLY | O_CLOEXEC)
        guard file >= 0 else { return 0 }
        defer { close(file) }
        var buffer = [UInt8](repeating: 0, count: 1024)
        let count = read(file, &buffer, buffer.count)
        guard count > 0 else { return 0 }
        for line in String(decoding: buffer[..<count], as: UTF8.self).split(separator: "\n") {
            let words = line.split(separator: " ")
            if words.count == 2, words[0] == "oom_kill" { return Int64(words[1]) ?? 0 }
        }
        return 0
    }
}
