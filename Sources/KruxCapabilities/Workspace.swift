import CSandbox
import Foundation
import Glibc
package import KruxCore
import KruxCrypto

/// An agent's files, reached through one directory descriptor.
///
/// A path an agent gives is resolved once, by `canonicalise`, before the call is decided. What runs later opens the
/// canonical path with `openat2(RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS)`: if anything was
/// swapped for a link in between, the kernel refuses, so what was decided is what is opened.
package final class Workspace: Sendable {
    package let agent: AgentName
    /// The agent's name for the root: `/workspace/<agent>`.
    package let root: String
    /// `O_PATH` descriptor of the real directory.
    package let descriptor: Int32
    /// Where deleted things go: outside what the agent's processes see, on the same file system.
    package let trash: Int32

    private static let resolve = UInt64(0x08 | 0x04 | 0x02)

    /// Opens the workspace of `agent` under `home/workspaces`, creating what is missing.
    package init(agent: AgentName, home: String) throws(StructuredError) {
        self.agent = agent
        root = "/workspace/\(agent)"
        let folder = "\(home)/workspaces"
        descriptor = try Self.openFolder("\(folder)/\(agent)")
        try Self.makeFolder("\(folder)/.trash")
        trash = try Self.openFolder("\(folder)/.trash/\(agent)")
    }

    deinit {
        close(descriptor)
        close(trash)
    }

    private static func makeFolder(_ path: String) throws(StructuredError) {
        if mkdir(path, 0o700) != 0, errno != EEXIST { throw FileFailure.error(errno, path) }
    }

    private static func openFolder(_ path: String) throws(StructuredError) -> Int32 {
        try makeFolder(path)
        let descriptor = Glibc.open(path, openPathOnly | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC)
        if descriptor < 0 { throw FileFailure.error(errno, path) }
        return descriptor
    }

    // MARK: Paths

    /// A canonical place in the workspace.
    package struct Path: Sendable, Equatable {
        /// `/workspace/<agent>/a/b`.
        package let absolute: String
        /// `a/b`, or `.` for the root.
        package let relative: String

        var isRoot: Bool { relative == "." }
        /// The name within its folder.
        var name: String { String(relative.split(separator: "/").last ?? ".") }
        var parent: String {
            guard let slash = relative.lastIndex(of: "/") else { return "." }
            return String(relative[..<slash])
        }
    }

    private func path(_ components: [String]) -> Path {
        components.isEmpty
            ? Path(absolute: root, relative: ".")
            : Path(
                absolute: root + "/" + components.joined(separator: "/"), relative: components.joined(separator: "/"))
    }

    /// The place a canonical absolute path names.
    package func place(_ canonical: String) throws(StructuredError) -> Path {
        try path(split(canonical))
    }

    /// The components below the root, `.` gone and `..` still there.
    private func split(_ text: String) throws(StructuredError) -> [String] {
        if text.utf8.contains(0) {
            throw StructuredError(
                .invalidArguments, "the path contains a NUL byte", recovery: ["Send the path without it."])
        }
        var rest = Substring(text)
        if text.hasPrefix("/") {
            guard pathIsBelow(text, root) else { throw FileFailure.outside(text) }
            rest = rest.dropFirst(root.count)
        }
        return rest.split(separator: "/", omittingEmptySubsequences: true).map(String.init).filter { $0 != "." }
    }

    private func pathIsBelow(_ path: String, _ directory: String) -> Bool {
        path.utf8.starts(with: directory.utf8)
            && (path.utf8.count == directory.utf8.count
                || path.utf8.dropFirst(directory.utf8.count).first == UInt8(ascii: "/"))
    }

    /// Resolves what the agent wrote against what is there: `.`, `..` and symbolic links are gone afterwards. What
    /// does not exist yet is resolved as far as it exists.
    /// - Parameter followsLast: whether a link at the end stands for its target.
    package func canonicalise(_ text: String, followsLast: Bool) throws(StructuredError) -> Path {
        let components = try split(text)
        // Without `..` and links the text is canonical already, which one open shows.
        if !components.contains("..") {
            let candidate = path(components)
            let result = krux_openat2(
                descriptor, candidate.relative, UInt64(openPathOnly | O_CLOEXEC), 0, Self.resolve)
            if result >= 0 {
                close(result)
                return candidate
            }
            if result == -ENOENT { return candidate }
            if result != -ELOOP { throw FileFailure.error(-result, candidate.absolute) }
        }
        return try walk(components, text, followsLast: followsLast)
    }

    private func walk(_ components: [String], _ text: String, followsLast: Bool) throws(StructuredError) -> Path {
        var pending = Array(components.reversed())
        var resolved: [String] = []
        var links = 0
        var exists = true
        while let component = pending.popLast() {
            if component == ".." {
                guard resolved.popLast() != nil else { throw FileFailure.outside(text) }
                continue
            }
            resolved.append(component)
            guard exists, !pending.isEmpty || followsLast else { continue }
            let here = path(resolved)
            let result = krux_openat2(
                descriptor, here.relative, UInt64(openPathOnly | O_CLOEXEC | O_NOFOLLOW), 0, Self.resolve)
            if result == -ENOENT || result == -ENOTDIR {
                exists = false
                continue
            }
            guard result >= 0 else { throw FileFailure.error(-result, here.absolute) }
            defer { close(result) }
            guard let target = linkTarget(result) else { continue }
            links += 1
            guard links <= 40 else {
                throw StructuredError(
                    .outsideWorkspace, "`\(text.prefix(200))` runs through more than 40 symbolic links",
                    recovery: ["Name the file itself."])
            }
            if target.hasPrefix("/") { throw FileFailure.outside(text) }
            resolved.removeLast()
            pending += target.split(separator: "/", omittingEmptySubsequences: true).reversed().map(String.init)
                .filter { $0 != "." }
        }
        return path(resolved)
    }

    /// Where a link points, nil for anything else.
    private func linkTarget(_ descriptor: Int32) -> String? {
        var status = stat()
        guard fstat(descriptor, &status) == 0, status.st_mode & S_IFMT == S_IFLNK else { return nil }
        var buffer = [UInt8](repeating: 0, count: 4096)
        let count = buffer.withUnsafeMutableBytes { raw in
            // INVARIANT: the buffer is not empty.
            readlinkat(descriptor, "", raw.bindMemory(to: CChar.self).baseAddress!, raw.count)
        }
        return count > 0 ? String(decoding: buffer[..<count], as: UTF8.self) : nil
    }

    // MARK: Opening

    /// Opens a canonical place. The caller closes the descriptor.
    func open(_ path: Path, _ flags: Int32, mode: UInt64 = 0) throws(StructuredError) -> Int32 {
        let creation = flags & O_CREAT != 0 ? mode : 0
        let result = krux_openat2(
            descriptor, path.relative, UInt64(flags | O_CLOEXEC), creation, Self.resolve)
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
    func folder(of path: Path) throws(StructuredError) -> Path {
        try self.path(split(path.parent))
    }

    /// The folder that holds `path`, as a descriptor.
    func openParent(_ path: Path) throws(StructuredError) -> Int32 {
        if path.isRoot {
            throw StructuredError(
                .invalidArguments, "the workspace itself cannot be replaced, moved or deleted",
                recovery: ["Name something in the workspace."])
        }
        let parent = Path(absolute: root, relative: path.parent)
        return try open(parent, openPathOnly | O_DIRECTORY)
    }

    func status(_ path: Path) throws(StructuredError) -> stat? {
        let result = krux_openat2(
            descriptor, path.relative, UInt64(openPathOnly | O_CLOEXEC | O_NOFOLLOW), 0, Self.resolve)
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
        var current: [String] = []
        for component in path.relative.split(separator: "/").map(String.init) where component != "." {
            let parent = try open(self.path(current), openPathOnly | O_DIRECTORY)
            defer { close(parent) }
            current.append(component)
            if mkdirat(parent, component, 0o755) == 0 {
                made += 1
            } else if errno != EEXIST {
                throw FileFailure.error(errno, self.path(current).absolute)
            }
        }
        let last = try open(path, openPathOnly | O_DIRECTORY)
        close(last)
        return made
    }
}

/// glibc gives it to `_GNU_SOURCE` only.
let openPathOnly: Int32 = 0o10000000

/// A file operation's errno as the agent is told it.
enum FileFailure {
    static func outside(_ text: String) -> StructuredError {
        StructuredError(
            .outsideWorkspace, "`\(text.prefix(400))` leads outside the workspace",
            agent: "The path leaves your workspace. You can reach only files under it.",
            recovery: [
                "Use a path relative to your workspace, such as `notes/todo.md`.",
                "Call agent.whoami to see where your workspace is.",
            ], context: ["path": .string(String(text.prefix(400)))])
    }

    static func error(_ code: Int32, _ path: String) -> StructuredError {
        let context: JSONObject = ["path": .string(String(path.prefix(4096))), "errno": .int(Int64(code))]
        let shown = path.prefix(400)
        switch code {
        case ENOENT:
            return StructuredError(
                .notFound, "there is nothing at `\(shown)`",
                recovery: ["List the folder with filesystem.list.", "Find the file with filesystem.search."],
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
