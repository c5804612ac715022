import CSandbox
import Foundation
import Glibc
package import KruxCore
import KruxSandbox

/// A folder of the machine that an agent reaches as `/mnt/<label>`, because a supervisor said so.
package struct Mount: Sendable, Equatable {
    package let label: String
    /// Absolute and without links; in no gate's home, and holding none.
    package let source: String
    package let isReadOnly: Bool

    package init(label: String, source: String, isReadOnly: Bool) {
        self.label = label
        self.source = source
        self.isReadOnly = isReadOnly
    }

    package var target: String { "/mnt/\(label)" }

    /// As many as a launch carries.
    package static let most = KRUX_MOST_MOUNTS

    /// The label in `/mnt/<label>`.
    /// - Throws: `StructuredError` `.invalidArguments` for anything else.
    package static func label(_ target: String) throws(StructuredError) -> String {
        let parts = target.split(separator: "/", omittingEmptySubsequences: false)
        guard parts.count == 3, parts[0].isEmpty, parts[1] == "mnt", let first = parts[2].utf8.first,
            parts[2].utf8.count <= 64, first != UInt8(ascii: "."),
            parts[2].utf8.allSatisfy({ byte in
                (48...57).contains(byte) || (65...90).contains(byte) || (97...122).contains(byte)
                    || "._-".utf8.contains(byte)
            })
        else {
            throw StructuredError(
                .invalidArguments, "`\(target.prefix(200))` is no place for a mount",
                recovery: ["Use `/mnt/LABEL`, a label of letters, digits, `.`, `_` and `-`."])
        }
        return String(parts[2])
    }

    /// What is at `source` can be mounted, and no file has two names: each would be decided by rules of its own.
    package func requireMountable(
        for agent: String, beside known: [Mount], home: String, _ names: ProtectedNames
    ) throws(StructuredError) {
        if let other = known.first(where: { $0.label.utf8Equals(label) }) {
            throw StructuredError(
                .alreadyExists, "`\(other.source)` is mounted at \(other.target) for `\(agent)` already",
                recovery: ["Choose another target, or remove it: kruxos mount remove \(agent) \(other.target)"])
        }
        guard known.count < Self.most else {
            throw StructuredError(
                .tooLarge, "`\(agent)` has \(Self.most) mounts, which is all that there can be",
                recovery: ["Mount a folder that holds several of them."])
        }
        try requireCanonical()
        if names.holds(source.pathComponents) {
            throw StructuredError(
                .invalidArguments, "`\(source)` is or leads to what is protected, and would not be below a mount",
                recovery: ["Mount the folder that it lies in."])
        }
        let descriptor = try open(home: home)
        defer { Glibc.close(descriptor) }
        for other in known {
            // One whose folder is gone stands in nobody's way.
            guard let theirs = try? other.open(home: home) else { continue }
            defer { Glibc.close(theirs) }
            guard try !Self.isInside(descriptor, theirs), try !Self.isInside(theirs, descriptor) else {
                throw StructuredError(
                    .conflict, "`\(source)` and `\(other.source)`, mounted at \(other.target), hold the same files",
                    recovery: ["Remove the other first: kruxos mount remove \(agent) \(other.target)"])
            }
        }
    }

    private func requireCanonical() throws(StructuredError) {
        let components = source.pathComponents
        guard source.isAbsolutePath, source.utf8.count <= 4000, !source.utf8.contains(0),
            !components.contains(where: { $0 == "." || $0 == ".." }),
            source.utf8Equals("/" + components.joined(separator: "/"))
        else {
            throw StructuredError(
                .invalidArguments, "`\(source.prefix(400))` is no canonical path",
                recovery: ["Give the folder's absolute path, as `realpath` prints it."])
        }
    }

    /// Another agent that may rename what lies above a folder could put another in its place.
    package func requireApart(from others: [(agent: String, mount: Mount)], home: String) throws(StructuredError) {
        let descriptor = try open(home: home)
        defer { Glibc.close(descriptor) }
        for (agent, other) in others {
            guard let theirs = try? other.open(home: home) else { continue }
            defer { Glibc.close(theirs) }
            let (isInside, holds) = (
                try Self.isInside(descriptor, theirs), try Self.isInside(theirs, descriptor)
            )
            let isBelow = isInside && !holds && !other.isReadOnly
            guard isBelow || holds && !isInside && !isReadOnly else { continue }
            throw StructuredError(
                .conflict,
                "`\(isBelow ? source : other.source)` lies in `\(isBelow ? other.source : source)`, where `\(isBelow ? agent : "the agent")` could put another folder in its place",
                recovery: ["Mount the same folder for both, or the outer one read-only."])
        }
    }

    /// Opens the folder.
    /// - Parameter home: the gate's, which no agent may reach by any way.
    /// - Returns: an `O_PATH` descriptor, the caller's.
    package func open(home: String) throws(StructuredError) -> Int32 {
        try requireCanonical()
        let descriptor = krux_openat2(
            AT_FDCWD, source, UInt64(openPathOnly | O_DIRECTORY | O_CLOEXEC), 0, 0x04 | 0x02 /* no links */)
        guard descriptor >= 0 else {
            throw StructuredError(
                .notFound,
                "`\(source)`, mounted at \(target), cannot be opened: \(String(cString: strerror(-descriptor)))",
                recovery: ["Look whether the folder, and the disk that it is on, are there."])
        }
        do throws(StructuredError) { try check(descriptor, home) } catch {
            close(descriptor)
            throw error
        }
        return descriptor
    }

    /// Whether `descriptor` is the folder that is there now.
    func isStill(_ descriptor: Int32) -> Bool {
        var known = stat()
        var found = stat()
        return fstat(descriptor, &known) == 0 && fstatat(AT_FDCWD, source, &found, AT_SYMLINK_NOFOLLOW) == 0
            && known.st_dev == found.st_dev && known.st_ino == found.st_ino
    }

    private func refusal(_ why: String, _ recovery: String) -> StructuredError {
        StructuredError(.invalidArguments, "`\(source)` cannot be mounted: \(why)", recovery: [recovery])
    }

    private func check(_ descriptor: Int32, _ home: String) throws(StructuredError) {
        let holdsFiles = krux_holds_files(descriptor)
        guard holdsFiles >= 0 else { throw FileFailure.error(-holdsFiles, source) }
        // `/var/run` is a link, and so no canonical path.
        let isMachines = ["", "proc", "sys", "dev", "run"].contains(source.pathComponents.first ?? "")
        guard holdsFiles == 1, !isMachines || source.hasPrefix("/dev/shm/") else {
            throw refusal(
                "it belongs to the machine itself, or holds the sockets of its services", "Name a folder of files.")
        }
        let homeDescriptor = krux_openat2(AT_FDCWD, home, UInt64(openPathOnly | O_DIRECTORY | O_CLOEXEC), 0, 0)
        guard homeDescriptor >= 0 else { throw FileFailure.error(-homeDescriptor, home) }
        defer { close(homeDescriptor) }
        guard let points = MountPoints.own, let home = Self.realPath(homeDescriptor) else {
            throw refusal("what is mounted on this machine cannot be told", "Mount `/proc`.")
        }
        // By every folder above, and by where they are on their file system, whatever else is mounted from there.
        let (here, there) = (points.place(source), points.place(home))
        let isOn = here?.device == there?.device
        if try Self.isInside(homeDescriptor, descriptor)
            || isOn && MountPoints.isInside(there?.path ?? "", here?.path ?? "-")
        {
            throw refusal("the gate's own files are in it", "Name a folder without `\(home)`.")
        }
        if try Self.isInside(descriptor, homeDescriptor)
            || isOn && MountPoints.isInside(here?.path ?? "", there?.path ?? "-")
        {
            throw refusal("it is among the gate's own files", "Name a folder outside `\(home)`.")
        }
        if let other = points.below(source).first {
            throw refusal(
                "`\(other)` in it is mounted from elsewhere",
                "Mount the folders beside it, and what is mounted there by itself.")
        }
    }

    private static func realPath(_ descriptor: Int32) -> String? {
        guard let path = realpath("/proc/self/fd/\(descriptor)", nil) else { return nil }
        defer { free(path) }
        return String(cString: path)
    }

    /// Whether a folder is another, or lies in it at any depth, by whatever name.
    package static func isInside(_ inner: Int32, _ outer: Int32) throws(StructuredError) -> Bool {
        var wanted = stat()
        guard fstat(outer, &wanted) == 0 else { throw FileFailure.error(errno, "..") }
        var here = dup(inner)
        guard here >= 0 else { throw FileFailure.error(errno, "..") }
        defer { close(here) }
        while true {
            var status = stat()
            guard fstat(here, &status) == 0 else { throw FileFailure.error(errno, "..") }
            if status.st_dev == wanted.st_dev, status.st_ino == wanted.st_ino { return true }
            let above = openat(here, "..", openPathOnly | O_DIRECTORY | O_CLOEXEC)
            // Folders above that may not be passed through are none of an agent's either.
            guard above >= 0 else { return false }
            close(here)
            here = above
            var next = stat()
            guard fstat(here, &next) == 0 else { throw FileFailure.error(errno, "..") }
            if next.st_dev == status.st_dev, next.st_ino == status.st_ino { return false }
        }
    }
}
