import CSandbox
import Foundation
import Glibc
package import KruxCore
import KruxCrypto
package import KruxSandbox
import Synchronization

/// An agent's files: its own folder, and the folders of the machine that are mounted for it. Each is reached through one
/// directory descriptor.
///
/// A path an agent gives is resolved once, by `canonicalise`, before the call is decided. What runs later opens the
/// canonical path with `openat2(RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS)`: if anything was
/// swapped for a link in between, the kernel refuses, so what was decided is what is opened.
package final class Workspace: Sendable {
    package let agent: AgentName
    /// Its own folder, called `/workspace/<agent>`.
    package let root: Root
    private let home: String
    private let mounted = Mutex<[Mounted]>([])
    /// Where deleted things go: outside what the agent's processes see, on the same file system.
    package let trash: Int32
    let meter = QuotaMeter()

    /// Beneath the root, through no link; in a mount, through nothing that is mounted below it, either.
    private static func resolve(_ root: Root) -> UInt64 { 0x08 | 0x04 | 0x02 | (root.mount == nil ? 0 : 0x01) }

    /// Opens the workspace of `agent` under `home/workspaces`, creating what is missing.
    package init(agent: AgentName, home: String) throws(StructuredError) {
        self.agent = agent
        self.home = home
        let folder = "\(home)/workspaces"
        root = Root(path: "/workspace/\(agent)", descriptor: try Self.openFolder("\(folder)/\(agent)"))
        try Self.makeFolder("\(folder)/.trash")
        trash = try Self.openFolder("\(folder)/.trash/\(agent)")
    }

    deinit { close(trash) }

    private static func makeFolder(_ path: String) throws(StructuredError) {
        if mkdir(path, 0o700) != 0, errno != EEXIST { throw FileFailure.error(errno, path) }
    }

    private static func openFolder(_ path: String) throws(StructuredError) -> Int32 {
        try makeFolder(path)
        let descriptor = Glibc.open(path, openPathOnly | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC)
        if descriptor < 0 { throw FileFailure.error(errno, path) }
        return descriptor
    }

    // MARK: Roots

    /// A folder in which paths end: none leads from one to another.
    package final class Root: Sendable {
        /// `/workspace/<agent>` or `/mnt/<label>`.
        package let path: String
        /// `O_PATH` descriptor of the real directory.
        package let descriptor: Int32
        /// Nil for the workspace itself.
        let mount: Mount?

        init(path: String, descriptor: Int32, mount: Mount? = nil) {
            self.path = path
            self.descriptor = descriptor
            self.mount = mount
        }

        deinit { close(descriptor) }

        package var isReadOnly: Bool { mount?.isReadOnly ?? false }

        /// A process may have closed the folder to its own owner.
        func admitOwner() {
            var status = stat()
            guard fstat(descriptor, &status) == 0, status.st_uid == Confinement.processUser ?? geteuid(),
                status.st_mode & 0o500 != 0o500
            else {
                return
            }
            chmod("/proc/self/fd/\(descriptor)", mode_t(status.st_mode & 0o7777) | 0o700)
        }

        /// What tells its folder from others on the same machine, also after a restart.
        var inode: UInt64 {
            var status = stat()
            return fstat(descriptor, &status) == 0 ? UInt64(status.st_ino) : 0
        }
    }

    /// The folder that was a root once, if it is where it was; whether it is mounted still or not.
    func root(_ path: String, source: String?, inode: UInt64) -> Root? {
        guard let source else { return path.utf8Equals(root.path) ? root : nil }
        if let mounted = mounts.first(where: { $0.path.utf8Equals(path) && $0.inode == inode }) { return mounted }
        guard let label = try? Mount.label(path) else { return nil }
        let mount = Mount(label: label, source: source, isReadOnly: false)
        guard let descriptor = try? mount.open(home: home) else { return nil }
        let found = Root(path: path, descriptor: descriptor, mount: mount)
        return found.inode == inode ? found : nil
    }

    private struct Mounted {
        let mount: Mount
        /// Nil until it is used.
        var root: Root?
    }

    /// What else the agent sees from now on.
    package func setMounts(_ mounts: [Mount]) {
        mounted.withLock { mounted in
            mounted = mounts.map { mount in
                mounted.first { $0.mount == mount } ?? Mounted(mount: mount)
            }
        }
    }

    /// The mounts whose folders are there.
    package var mounts: [Root] {
        mounted.withLock { mounted in
            if mounted.isEmpty { return [] }
            let points = MountPoints.own
            return mounted.indices.compactMap { index in
                // What has been mounted below one since would be shown with it.
                points?.below(mounted[index].mount.source).isEmpty == true
                    ? try? Self.open(&mounted[index], home) : nil
            }
        }
    }

    package var mountList: [Mount] { mounted.withLock { $0.map(\.mount) } }

    /// - Throws: `StructuredError` where nothing is mounted there, or what is cannot be opened.
    private func mount(_ label: String, _ text: String) throws(StructuredError) -> Root {
        let result: Result<Root, StructuredError>? = mounted.withLock { mounted in
            guard let index = mounted.firstIndex(where: { $0.mount.label.utf8Equals(label) }) else { return nil }
            do throws(StructuredError) { return .success(try Self.open(&mounted[index], home)) } catch {
                return .failure(error)
            }
        }
        guard let result else { throw FileFailure.outside(text) }
        return try result.get()
    }

    /// The folder that is there now: a person may have put another in its place.
    private static func open(_ mounted: inout Mounted, _ home: String) throws(StructuredError) -> Root {
        if let root = mounted.root, mounted.mount.isStill(root.descriptor) { return root }
        mounted.root = nil
        let descriptor: Int32
        do throws(StructuredError) { descriptor = try mounted.mount.open(home: home) } catch {
            // Where it is on the machine, and what is wrong with it, is the supervisor's to know.
            let target = mounted.mount.target
            throw StructuredError(
                .notFound, "what is mounted at `\(target)` is not there, or cannot be used as it is now",
                recovery: ["Ask your supervisor: `kruxos mount list` says why."],
                context: ["path": .string(target)])
        }
        let root = Root(path: mounted.mount.target, descriptor: descriptor, mount: mounted.mount)
        mounted.root = root
        return root
    }

    // MARK: Paths

    /// A canonical place in one of the roots. Its components are names: no slash, no `.`, no `..`, never empty.
    package struct Path: Sendable, Hashable {
        let root: Root
        let components: [String]
        /// `/workspace/<agent>/a/b`.
        package let absolute: String
        /// `a/b`, or `.` for the root.
        package let relative: String

        init(_ root: Root, _ components: [String]) {
            self.root = root
            self.components = components
            let joined = components.joined(separator: "/")
            absolute = components.isEmpty ? root.path : root.path + "/" + joined
            relative = components.isEmpty ? "." : joined
        }

        var isRoot: Bool { components.isEmpty }
        /// The name within its folder.
        var name: String { components.last ?? "." }

        package static func == (a: Path, b: Path) -> Bool { a.root === b.root && a.absolute.utf8Equals(b.absolute) }
        package func hash(into hasher: inout Hasher) { hasher.combine(absolute) }

        /// As much of it, from the root, as one call of the kernel takes.
        var reachable: Path {
            var length = 0
            let short = components.prefix { component in
                length += component.utf8.count + 1
                return length < 3500
            }
            return Path(root, Array(short))
        }

        /// A working directory as a launch has it: below the workspace without its path.
        var directory: String { root.mount != nil ? absolute : isRoot ? "" : relative }
    }

    /// The place a canonical absolute path names.
    package func place(_ canonical: String) throws(StructuredError) -> Path {
        let (root, components) = try split(canonical)
        guard !components.contains(where: { $0.utf8Equals("..") }) else { throw FileFailure.outside(canonical) }
        return Path(root, components)
    }

    /// The root, and the components below it, `.` gone and `..` still there.
    private func split(_ text: String) throws(StructuredError) -> (Root, [String]) {
        if text.utf8.contains(0) {
            throw StructuredError(
                .invalidArguments, "the path contains a NUL byte", recovery: ["Send the path without it."])
        }
        var components = text.pathComponents.filter { !$0.utf8Equals(".") }
        guard text.isAbsolutePath else { return (root, components) }
        guard components.count >= 2 else { throw FileFailure.outside(text) }
        let (top, name) = (components[0], components[1])
        components.removeFirst(2)
        if top.utf8Equals("workspace"), name.utf8Equals(agent.text) { return (root, components) }
        guard top.utf8Equals("mnt") else { throw FileFailure.outside(text) }
        return (try mount(name, text), components)
    }

    /// Resolves what the agent wrote against what is there: `.`, `..` and symbolic links are gone afterwards. What
    /// does not exist yet is resolved as far as it exists.
    /// - Parameter followsLast: whether a link at the end stands for its target.
    package func canonicalise(_ text: String, followsLast: Bool) throws(StructuredError) -> Path {
        let (root, components) = try split(text)
        // Without `..` and links the text is canonical already, which one open shows.
        if !components.contains(where: { $0.utf8Equals("..") }) {
            let candidate = Path(root, components)
            let result = krux_openat2(
                root.descriptor, candidate.relative, UInt64(openPathOnly | O_CLOEXEC), 0, Self.resolve(root))
            if result >= 0 {
                close(result)
                return candidate
            }
            if result == -ENOENT { return candidate }
            if result != -ELOOP { throw FileFailure.error(-result, candidate.absolute) }
        }
        return try walk(root, components, text, followsLast: followsLast)
    }

    private func walk(
        _ root: Root, _ components: [String], _ text: String, followsLast: Bool
    ) throws(StructuredError) -> Path {
        var pending = Array(components.reversed())
        var resolved: [String] = []
        var links = 0
        while let component = pending.popLast() {
            if component.utf8Equals("..") {
                // `..` of what is not there leads nowhere, as in the kernel.
                guard resolved.isEmpty || exists(Path(root, resolved)) else {
                    throw FileFailure.error(ENOENT, Path(root, resolved).absolute)
                }
                guard resolved.popLast() != nil else { throw FileFailure.outside(text) }
                continue
            }
            resolved.append(component)
            guard !pending.isEmpty || followsLast else { continue }
            let here = Path(root, resolved)
            let result = krux_openat2(
                root.descriptor, here.relative, UInt64(openPathOnly | O_CLOEXEC | O_NOFOLLOW), 0, Self.resolve(root))
            if result == -ENOENT || result == -ENOTDIR { continue }
            guard result >= 0 else { throw FileFailure.error(-result, here.absolute) }
            defer { close(result) }
            guard let target = linkTarget(result) else { continue }
            links += 1
            guard links <= 40 else {
                throw StructuredError(
                    .outsideWorkspace, "`\(text.prefix(200))` runs through more than 40 symbolic links",
                    recovery: ["Name the file itself."])
            }
            if target.isAbsolutePath { throw FileFailure.outside(text) }
            resolved.removeLast()
            pending += target.pathComponents.reversed().filter { !$0.utf8Equals(".") }
        }
        return Path(root, resolved)
    }

    private func exists(_ path: Path) -> Bool {
        let result = krux_openat2(
            path.root.descriptor, path.relative, UInt64(openPathOnly | O_CLOEXEC), 0, Self.resolve(path.root))
        if result >= 0 { close(result) }
        return result >= 0
    }

    /// Where a link points, nil for anything else.
    func linkTarget(_ descriptor: Int32) -> String? {
        var status = stat()
        guard fstat(descriptor, &status) == 0, status.st_mode & S_IFMT == S_IFLNK else { return nil }
        var buffer = [UInt8](repeating: 0, count: 4096)
        let count = buffer.withUnsafeMutableBytes { raw in
            // INVARIANT: the buffer is not empty.
            // swift-format-ignore: NeverForceUnwrap
            readlinkat(descriptor, "", raw.bindMemory(to: CChar.self).baseAddress!, raw.count)
        }
        return count > 0 ? String(decoding: buffer[..<count], as: UTF8.self) : nil
    }

    // MARK: Opening

    /// Opens a canonical place. The caller closes the descriptor.
    func open(_ path: Path, _ flags: Int32, mode: UInt64 = 0) throws(StructuredError) -> Int32 {
        if flags & (O_ACCMODE | O_CREAT) != O_RDONLY { try requireWritable(path) }
        let creation = flags & O_CREAT != 0 ? mode : 0
        let result = krux_openat2(
            path.root.descriptor, path.relative, UInt64(flags | O_CLOEXEC), creation, Self.resolve(path.root))
        if result < 0 { throw FileFailure.error(-result, path.absolute) }
        return result
    }

    /// Opens a regular file that has one name. A second hard link may be a name outside the workspace.
    func openFile(_ path: Path, _ flags: Int32, mode: UInt64 = 0) throws(StructuredError) -> (Int32, stat) {
        // Not to wait for the other end of a named pipe.
        let descriptor = try open(path, flags | O_NONBLOCK | O_NOCTTY, mode: mode)
        var status = stat()
        guard fstat(descriptor, &status) == 0 else {
            let code = errno
            close(descriptor)
            throw FileFailure.error(code, path.absolute)
        }
        do {
            try requireOwnFile(status, path)
        } catch {
            close(descriptor)
            throw error
        }
        return (descriptor, status)
    }

    func requireOwnFile(_ status: stat, _ path: Path) throws(StructuredError) {
        let kind = status.st_mode & S_IFMT
        if kind == S_IFDIR {
            throw StructuredError(
                .wrongType, "`\(path.absolute)` is a directory",
                recovery: ["List it with filesystem.list.", "Name a file in it."],
                context: ["path": .string(path.absolute)])
        }
        guard kind == S_IFREG else {
            throw StructuredError(
                .wrongType, "`\(path.absolute)` is no regular file", recovery: ["Name a regular file."],
                context: ["path": .string(path.absolute)])
        }
        guard status.st_nlink <= 1 else {
            throw StructuredError(
                .outsideWorkspace, "`\(path.absolute)` has \(status.st_nlink) hard links, one of which may lie outside",
                agent: "The file has more than one name, and another may lie outside your workspace.",
                recovery: ["Copy the file with process.run (`cp`) and use the copy."],
                context: ["path": .string(path.absolute)])
        }
    }

    /// The folder that holds `path`.
    func folder(of path: Path) -> Path { Path(path.root, path.components.dropLast()) }

    /// - Throws: `StructuredError` `.blocked` for what lies in a read-only mount.
    func requireWritable(_ path: Path) throws(StructuredError) {
        guard path.root.isReadOnly else { return }
        throw StructuredError(
            .blocked, "`\(path.root.path)` is mounted read-only",
            recovery: ["Write a copy in your workspace.", "Ask your supervisor to mount it without `--read-only`."],
            context: ["path": .string(path.absolute)])
    }

    /// The folder that holds `path`, as a descriptor to change what is in it.
    func openParent(_ path: Path) throws(StructuredError) -> Int32 {
        if path.isRoot {
            throw StructuredError(
                .invalidArguments, "`\(path.absolute)` itself cannot be replaced, moved or deleted",
                recovery: ["Name something in it."])
        }
        try requireWritable(path)
        return try open(folder(of: path), openPathOnly | O_DIRECTORY)
    }

    func status(_ path: Path) throws(StructuredError) -> stat? {
        let result = krux_openat2(
            path.root.descriptor, path.relative, UInt64(openPathOnly | O_CLOEXEC | O_NOFOLLOW), 0,
            Self.resolve(path.root))
        if result == -ENOENT || result == -ENOTDIR { return nil }
        if result < 0 { throw FileFailure.error(-result, path.absolute) }
        defer { close(result) }
        var status = stat()
        guard fstat(result, &status) == 0 else { throw FileFailure.error(errno, path.absolute) }
        return status
    }

    /// Makes `path` and the folders above it; what is there already stays. Returns how many were made.
    @discardableResult
    func makeFolders(_ path: Path) throws(StructuredError) -> Int {
        var made = 0
        for count in path.components.indices {
            let here = Path(path.root, Array(path.components[...count]))
            let parent = try open(folder(of: here), openPathOnly | O_DIRECTORY)
            defer { close(parent) }
            if faccessat(parent, here.name, F_OK, AT_SYMLINK_NOFOLLOW) != 0 {
                try requireWritable(here)
                try charge(here, bytes: 0, files: 1)
            }
            if mkdirat(parent, here.name, 0o755) == 0 {
                made += 1
                try adopt(here, in: parent)
            } else if errno != EEXIST {
                throw FileFailure.error(errno, here.absolute)
            }
        }
        let last = try open(path, openPathOnly | O_DIRECTORY)
        close(last)
        return made
    }
}

extension Confinement.Mount {
    /// - Parameter root: stays alive until the process has been started.
    package init(_ root: Workspace.Root) {
        self.init(target: root.path, descriptor: root.descriptor, isReadOnly: root.isReadOnly)
    }
}

/// glibc gives it to `_GNU_SOURCE` only.
let openPathOnly: Int32 = 0o10000000

/// A file operation's errno as the agent is told it.
enum FileFailure {
    static func outside(_ text: String) -> StructuredError {
        StructuredError(
            .outsideWorkspace, "`\(text.prefix(400))` leads outside the workspace",
            agent:
                "The path leaves your workspace. You can reach only files under it, and under what is mounted for you.",
            recovery: [
                "Use a path relative to your workspace, such as `notes/todo.md`.",
                "Call agent.whoami to see where your workspace is and what is mounted.",
            ], context: ["path": .string(String(text.prefix(400)))])
    }

    static func error(_ code: Int32, _ path: String) -> StructuredError {
        let context: JSONObject = ["path": .string(String(path.prefix(4096))), "errno": .int(Int64(code))]
        let shown = path.prefix(400)
        switch code {
        case ENOENT:
            return StructuredError(
                .notFound, "there is nothing at `\(shown)`",
                recovery: [
                    "List the folder with filesystem.list, or find the file with filesystem.search.",
                    "To write there, make the folder first: filesystem.mkdir, or create_parents of filesystem.write.",
                ],
                context: context)
        case ENOTDIR:
            return StructuredError(
                .notFound, "a part of `\(shown)` is a file where a folder is needed",
                recovery: ["List the folder with filesystem.list."], context: context)
        case EEXIST:
            return StructuredError(
                .alreadyExists, "`\(shown)` exists already",
                recovery: ["Choose another name, or ask to overwrite it."], context: context)
        case EXDEV: return outside(path)
        case ELOOP:
            return StructuredError(
                .pathChanged, "`\(shown)` runs through a symbolic link that was not there when the call was decided",
                agent: "The path changed while your call was decided.", recovery: ["Try the call again."],
                retryable: true, context: context)
        case EISDIR:
            return StructuredError(
                .wrongType, "`\(shown)` is a directory", recovery: ["Name a file in it."], context: context)
        case ENOTEMPTY:
            return StructuredError(
                .conflict, "the folder `\(shown)` is not empty", recovery: ["Pass recursive: true."], context: context)
        case ENAMETOOLONG:
            return StructuredError(
                .invalidArguments, "a part of the path is too long", recovery: ["Use names of at most 255 bytes."],
                context: context)
        case ENOSPC, EDQUOT:
            return StructuredError(
                .storageFull, "no space is left for `\(shown)`",
                recovery: ["Delete what is not needed.", "Ask your supervisor for more space."], retryable: true,
                context: context)
        case ENXIO:
            return StructuredError(
                .wrongType, "`\(shown)` is no regular file", recovery: ["Name a regular file."], context: context)
        default:
            return StructuredError(
                .ioFailure, "`\(shown)`: \(String(cString: strerror(code)))", recovery: ["Try another path."],
                context: context)
        }
    }
}
