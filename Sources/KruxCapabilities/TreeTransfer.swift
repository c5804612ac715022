import CSandbox
import Foundation
import Glibc
import KruxCore
import KruxCrypto

/// Takes a file or folder to another file system, where no rename leads: all of it is copied and given its name, then what
/// was copied is removed. What came about or changed meanwhile stays where it is; a crash leaves the one, the other, or both
/// whole.
package struct TreeTransfer {
    /// Room that a copy leaves on its disk: the gate writes its record there.
    private static let reserve: Int64 = 256 << 20
    /// glibc gives them to `_GNU_SOURCE` only.
    private static let seekData: Int32 = 3, seekHole: Int32 = 4

    private struct Node {
        let name: [CChar]
        let status: stat
        /// Nil for anything but a folder.
        var children: [Node]?
    }

    private let node: Node
    private let parent: Int32, destination: Int32
    private let place: String

    /// Copies what `parent` calls `name` to `destination`, where nothing is called `newName`; a copy that fails is gone
    /// again. Modes, times, links and names that are no text are kept, and owners where the gateway is root.
    /// - Parameters:
    ///   - parent: stays open until `removeOriginal` has run.
    ///   - destination: stays open until `settle` has.
    ///   - place: what is taken, in words.
    /// - Throws: `StructuredError`, also for sockets, devices and pipes, which are nothing that could be copied.
    init(
        _ name: [CChar], in parent: Int32, to destination: Int32, as newName: String, place: String
    ) throws(StructuredError) {
        self.parent = parent
        do throws(StructuredError) {
            node = try Self.copy(name, parent, Array(newName.utf8CString), destination, place, depth: 0)
        } catch {
            Self.remove(newName, in: destination)
            throw error
        }
        self.destination = destination
        self.place = place
    }

    init(
        _ name: String, in parent: Int32, to destination: Int32, as newName: String, place: String
    ) throws(StructuredError) {
        try self.init(Array(name.utf8CString), in: parent, to: destination, as: newName, place: place)
    }

    private static func copy(
        _ name: [CChar], _ parent: Int32, _ newName: [CChar], _ destination: Int32, _ place: String, depth: Int
    ) throws(StructuredError) -> Node {
        var status = stat()
        guard fstatat(parent, name, &status, AT_SYMLINK_NOFOLLOW) == 0 else { throw FileFailure.error(errno, place) }
        switch status.st_mode & S_IFMT {
        case S_IFREG: return try copyFile(name, parent, newName, destination, place)
        case S_IFLNK:
            var target = [CChar](repeating: 0, count: 4097)
            guard readlinkat(parent, name, &target, 4096) >= 0, symlinkat(target, destination, newName) == 0 else {
                throw FileFailure.error(errno, place)
            }
            try finish(nil, newName, in: destination, status, place)
            return Node(name: name, status: status)
        case S_IFDIR:
            guard depth < Workspace.deepest else {
                throw StructuredError(
                    .tooLarge, "`\(place)` is more than \(Workspace.deepest) levels deep",
                    recovery: ["Name a folder further down."])
            }
            return try copyFolder(name, parent, newName, destination, place, depth: depth)
        default:
            throw StructuredError(
                .wrongType, "`\(place)` is or holds a socket, pipe or device, which no other file system can take",
                recovery: ["Remove it first, with process.run."], context: ["path": .string(place)])
        }
    }

    private static func copyFile(
        _ name: [CChar], _ parent: Int32, _ newName: [CChar], _ destination: Int32, _ place: String
    ) throws(StructuredError) -> Node {
        let mode = try openUp(name, parent, 0o400, place)
        let source = openat(parent, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC)
        guard source >= 0 else { throw FileFailure.error(errno, place) }
        defer { Glibc.close(source) }
        // Before it is read: what is written to it from now on is seen by its time.
        var status = stat()
        guard fstat(source, &status) == 0 else { throw FileFailure.error(errno, place) }
        guard status.st_mode & S_IFMT == S_IFREG else { throw FileFailure.error(ELOOP, place) }
        var isClosed = false
        defer { if !isClosed { Self.close(name, parent, mode, &status) } }
        try requireRoom(Int64(status.st_blocks) * 512, on: destination, place)
        let file = openat(destination, newName, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0o600)
        guard file >= 0 else { throw FileFailure.error(errno, place) }
        defer { Glibc.close(file) }
        // A hole stays one.
        var offset = lseek(source, 0, seekData)
        while offset >= 0 {
            let end = lseek(source, offset, seekHole)
            guard end >= 0, lseek(file, offset, SEEK_SET) >= 0 else { throw FileFailure.error(errno, place) }
            while offset < end {
                let chunk = try Workspace.readAll(
                    source, count: min(1 << 20, Int(end - offset)), at: Int64(offset),
                    place)
                if chunk.isEmpty { break }
                try Workspace.writeAll(file, chunk[...], place)
                offset += off_t(chunk.count)
            }
            offset = lseek(source, end, seekData)
        }
        guard errno == ENXIO, ftruncate(file, status.st_size) == 0 else { throw FileFailure.error(errno, place) }
        let result = krux_copy_attributes(source, file)
        guard result >= 0 else { throw FileFailure.error(-result, place) }
        Self.close(name, parent, mode, &status)
        isClosed = true
        try finish(file, newName, in: destination, status, place)
        return Node(name: name, status: status)
    }

    private static func copyFolder(
        _ name: [CChar], _ parent: Int32, _ newName: [CChar], _ destination: Int32, _ place: String, depth: Int
    ) throws(StructuredError) -> Node {
        let mode = try openUp(name, parent, 0o500, place)
        // What is mounted in it is no part of it.
        let flags = UInt64(O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC)
        let source = krux_openat2(parent, name, flags, 0, 0x08 | 0x04 | 0x02 | 0x01)
        guard source >= 0 else { throw FileFailure.error(-source, place) }
        defer { Glibc.close(source) }
        var status = stat()
        guard fstat(source, &status) == 0 else { throw FileFailure.error(errno, place) }
        defer { Self.close(name, parent, mode, &status) }
        guard mkdirat(destination, newName, 0o700) == 0 else { throw FileFailure.error(errno, place) }
        let folder = openat(destination, newName, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC)
        guard folder >= 0 else { throw FileFailure.error(errno, place) }
        defer { Glibc.close(folder) }
        var children: [Node] = []
        for child in try Workspace.names(in: source, place) {
            children.append(try copy(child, source, child, folder, place, depth: depth + 1))
        }
        let result = krux_copy_attributes(source, folder)
        guard result >= 0 else { throw FileFailure.error(-result, place) }
        if let mode { status.st_mode = mode }
        try finish(folder, newName, in: destination, status, place)
        return Node(name: name, status: status, children: children)
    }

    /// Gives the owner, whom the gateway is, the right to read what is theirs.
    /// - Returns: the mode it had; nil where it had the right.
    private static func openUp(
        _ name: [CChar], _ parent: Int32, _ rights: mode_t, _ place: String
    ) throws(StructuredError) -> mode_t? {
        var status = stat()
        guard fstatat(parent, name, &status, AT_SYMLINK_NOFOLLOW) == 0 else { throw FileFailure.error(errno, place) }
        let mode = mode_t(status.st_mode)
        guard mode & rights != rights, geteuid() != 0, status.st_uid == geteuid(), mode & S_IFMT != S_IFLNK else {
            return nil
        }
        let result = Workspace.setMode(name, in: parent, mode & 0o7777 | rights, of: status)
        guard result == 0 else { throw FileFailure.error(result, place) }
        return mode
    }

    /// Takes the right away again; the time of that change is the file's from then on, unless it was written meanwhile.
    private static func close(_ name: [CChar], _ parent: Int32, _ mode: mode_t?, _ status: inout stat) {
        guard let mode, Workspace.setMode(name, in: parent, mode & 0o7777, of: status) == 0 else { return }
        var now = stat()
        status.st_mode = mode
        guard fstatat(parent, name, &now, AT_SYMLINK_NOFOLLOW) == 0, now.st_ino == status.st_ino,
            now.st_size == status.st_size, same(now.st_mtim, status.st_mtim)
        else { return }
        status.st_ctim = now.st_ctim
    }

    private static func requireRoom(_ bytes: Int64, on folder: Int32, _ place: String) throws(StructuredError) {
        var disk = statvfs()
        guard fstatvfs(folder, &disk) == 0 else { throw FileFailure.error(errno, place) }
        let free = Int64(clamping: disk.f_bavail).multipliedReportingOverflow(by: Int64(clamping: disk.f_frsize))
        // A small disk of its own is filled to its end, as far as the gate goes.
        let whole = Int64(clamping: disk.f_blocks).multipliedReportingOverflow(by: Int64(clamping: disk.f_frsize))
        if !free.overflow, bytes > free.partialValue - min(reserve, whole.partialValue / 16) {
            throw FileFailure.error(ENOSPC, place)
        }
    }

    /// The owner, mode and times of the original.
    /// - Parameter descriptor: nil for a link.
    private static func finish(
        _ descriptor: Int32?, _ name: [CChar], in folder: Int32, _ status: stat, _ place: String
    ) throws(StructuredError) {
        if geteuid() == 0, fchownat(folder, name, status.st_uid, status.st_gid, AT_SYMLINK_NOFOLLOW) != 0 {
            throw FileFailure.error(errno, place)
        }
        if let descriptor, fchmod(descriptor, status.st_mode & 0o7777) != 0 { throw FileFailure.error(errno, place) }
        let times = [status.st_atim, status.st_mtim]
        guard utimensat(folder, name, times, AT_SYMLINK_NOFOLLOW) == 0 else { throw FileFailure.error(errno, place) }
    }

    // MARK: Removing

    /// Waits until the copy is on its disk under the name it was given.
    func settle() throws(StructuredError) {
        let result = krux_sync(destination)
        guard result == 0 else { throw FileFailure.error(-result, place) }
    }

    /// Removes what was copied, and has been settled.
    /// - Returns: how many files, folders and links stay, because they are new or have changed.
    func removeOriginal() -> Int {
        var unlinked: Set<UInt64> = []
        return Self.remove(node, in: parent, &unlinked)
    }

    /// - Parameter unlinked: inodes that have lost a name here, which changes the time of their other names as well.
    private static func remove(_ node: Node, in parent: Int32, _ unlinked: inout Set<UInt64>) -> Int {
        guard let children = node.children else {
            var status = stat()
            guard fstatat(parent, node.name, &status, AT_SYMLINK_NOFOLLOW) == 0 else { return 0 }
            let known = node.status
            let isUntouched = unlinked.contains(UInt64(status.st_ino)) || same(status.st_ctim, known.st_ctim)
            guard status.st_dev == known.st_dev, status.st_ino == known.st_ino, status.st_size == known.st_size,
                same(status.st_mtim, known.st_mtim), isUntouched, unlinkat(parent, node.name, 0) == 0
            else { return 1 }
            if known.st_nlink > 1 { unlinked.insert(UInt64(status.st_ino)) }
            return 0
        }
        // Its owner may take away what is in it, where its mode does not say so.
        if node.status.st_mode & 0o700 != 0o700 {
            _ = Workspace.setMode(node.name, in: parent, mode_t(node.status.st_mode & 0o7777) | 0o700, of: node.status)
        }
        let folder = openat(parent, node.name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC)
        guard folder >= 0 else { return errno == ENOENT ? 0 : 1 }
        defer { Glibc.close(folder) }
        var left = 0
        for child in children { left += remove(child, in: folder, &unlinked) }
        // Not empty: what is new in it stays as well.
        return unlinkat(parent, node.name, AT_REMOVEDIR) == 0 || errno == ENOENT ? left : max(left, 1)
    }

    private static func same(_ a: timespec, _ b: timespec) -> Bool { a.tv_sec == b.tv_sec && a.tv_nsec == b.tv_nsec }

    /// Removes all of something that nobody else knows of, closed to its owner or not.
    /// - Returns: whether it is gone.
    @discardableResult
    package static func remove(_ name: String, in parent: Int32) -> Bool {
        remove(Array(name.utf8CString), in: parent)
    }

    @discardableResult
    private static func remove(_ name: [CChar], in parent: Int32) -> Bool {
        if unlinkat(parent, name, 0) == 0 || errno == ENOENT { return true }
        var status = stat()
        guard fstatat(parent, name, &status, AT_SYMLINK_NOFOLLOW) == 0, status.st_mode & S_IFMT == S_IFDIR else {
            return false
        }
        if status.st_mode & 0o700 != 0o700 {
            _ = Workspace.setMode(name, in: parent, mode_t(status.st_mode & 0o7777) | 0o700, of: status)
        }
        let folder = openat(parent, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC)
        guard folder >= 0 else { return false }
        defer { Glibc.close(folder) }
        for child in (try? Workspace.names(in: folder, "")) ?? [] { remove(child, in: folder) }
        return unlinkat(parent, name, AT_REMOVEDIR) == 0
    }
}

extension Workspace {
    /// Renames `source`, or takes it to another file system.
    /// - Parameter replace: whether a file that is there may be replaced.
    func transfer(_ source: Path, to destination: Path, replace: Bool) throws(StructuredError) {
        let from = try openParent(source)
        defer { close(from) }
        let to = try openParent(destination)
        defer { close(to) }
        if source.root !== destination.root, meter.isLimited {
            let usage = try usage(source)
            try charge(destination, bytes: usage.bytes, files: usage.files)
        }
        defer { if source.root !== destination.root { meter.forget() } }
        let result = Self.rename(
            Array(source.name.utf8CString), in: from, to: to, as: Array(destination.name.utf8CString), replace: replace)
        switch result {
        case 0: return
        case -ENOENT: throw FileFailure.error(ENOENT, source.absolute)
        case -EINVAL:
            throw StructuredError(
                .invalidArguments, "a folder cannot be moved into itself",
                recovery: ["Name a destination outside it."])
        case -EXDEV: break
        default: throw FileFailure.error(-result, destination.absolute)
        }
        if let there = try status(destination) {
            if !replace { throw FileFailure.error(EEXIST, destination.absolute) }
            try requireOwnFile(there, destination)
        }
        let stayed = try copyAcross(
            source.name, in: from, to: to, in: folder(of: destination), as: destination.name, replace: replace,
            place: source.absolute)
        if stayed > 0 {
            throw StructuredError(
                .conflict,
                "`\(destination.absolute)` has what was at `\(source.absolute)`; \(stayed) that changed meanwhile are there still",
                recovery: ["Look at both, and move or delete what is left."],
                context: ["path": .string(source.absolute), "stayed": .int(Int64(stayed))])
        }
    }

    /// - Returns: how much stayed, because it changed meanwhile.
    func copyAcross(
        _ name: String, in parent: Int32, to destination: Int32, in folder: Path, as newName: String, replace: Bool,
        place: String
    ) throws(StructuredError) -> Int {
        let temporary = ".kruxos-\(randomBytes(8).hex).tmp"
        // Only a crash leaves it there, and what it names: whatever it is a copy of is whole then.
        let note = try Trash(workspace: self).note(folder.absolute + "/" + temporary)
        defer { unlinkat(trash, note, 0) }
        let transfer = try TreeTransfer(name, in: parent, to: destination, as: temporary, place: place)
        let result = krux_renameat2(destination, temporary, destination, newName, replace ? 0 : 1)
        if result < 0 {
            TreeTransfer.remove(temporary, in: destination)
            throw FileFailure.error(-result, folder.absolute + "/" + newName)
        }
        try transfer.settle()
        return transfer.removeOriginal()
    }

    /// A rename, also of a folder that its owner, whom the gateway is, may not write: it keeps its mode.
    /// - Returns: 0 or a negative errno.
    static func rename(
        _ name: [CChar], in parent: Int32, to destination: Int32, as newName: [CChar], replace: Bool
    ) -> Int32 {
        func attempt() -> Int32 {
            name.withUnsafeBufferPointer { old in
                newName.withUnsafeBufferPointer {
                    krux_renameat2(parent, old.baseAddress, destination, $0.baseAddress, replace ? 0 : 1)
                }
            }
        }
        let result = attempt()
        var status = stat()
        guard result == -EACCES, geteuid() != 0, fstatat(parent, name, &status, AT_SYMLINK_NOFOLLOW) == 0,
            status.st_mode & S_IFMT == S_IFDIR, status.st_uid == geteuid(), status.st_mode & 0o200 == 0,
            setMode(name, in: parent, mode_t(status.st_mode & 0o7777) | 0o200, of: status) == 0
        else { return result }
        let again = attempt()
        _ = setMode(
            again == 0 ? newName : name, in: again == 0 ? destination : parent, mode_t(status.st_mode & 0o7777),
            of: status)
        return again
    }

    /// Sets the mode of the very file or folder that was looked at: a name may mean another by now, or a link.
    /// - Returns: 0 or an errno.
    static func setMode(_ name: [CChar], in parent: Int32, _ mode: mode_t, of known: stat) -> Int32 {
        let descriptor = openat(parent, name, openPathOnly | O_NOFOLLOW | O_CLOEXEC)
        guard descriptor >= 0 else { return errno }
        defer { close(descriptor) }
        var status = stat()
        guard fstat(descriptor, &status) == 0 else { return errno }
        guard status.st_dev == known.st_dev, status.st_ino == known.st_ino, status.st_mode & S_IFMT != S_IFLNK else {
            return ELOOP
        }
        return chmod("/proc/self/fd/\(descriptor)", mode) == 0 ? 0 : errno
    }

    /// What is made in a mount of a root gateway's belongs to whom the folder belongs to, or what it replaces.
    func adopt(
        _ descriptor: Int32, _ path: Path, in parent: Int32, replacing existing: stat? = nil
    ) throws(StructuredError) {
        guard path.root.mount != nil, geteuid() == 0 else { return }
        var owner = stat()
        if let existing {
            owner = existing
        } else if fstat(parent, &owner) != 0 {
            throw FileFailure.error(errno, path.absolute)
        }
        if fchown(descriptor, owner.st_uid, owner.st_gid) != 0 { throw FileFailure.error(errno, path.absolute) }
    }

    /// The same for a folder that has just been made.
    func adopt(_ path: Path, in parent: Int32) throws(StructuredError) {
        guard path.root.mount != nil, geteuid() == 0 else { return }
        let folder = try open(path, O_RDONLY | O_DIRECTORY)
        defer { close(folder) }
        try adopt(folder, path, in: parent)
    }
}
