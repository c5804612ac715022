import CSandbox
import Foundation
import Glibc
package import KruxCore
import KruxCrypto
import KruxSandbox
import Synchronization

/// What is protected in a workspace, and in what is mounted beside it, while processes run there. A process can rename
/// what lies above a read-only mount, and make what was not there; so what is protected is looked at before the first and
/// after each, and what has changed is put back as it was, the change itself in the trash.
package final class ProtectedFiles: Sendable {
    /// Something in a protected place.
    struct Item: Equatable {
        enum Kind: Equatable {
            case folder
            case link(String)
            /// Nil content for what is too large to be kept.
            case file(Digest, [UInt8]?)
            case other
        }
        let path: Workspace.Path
        let mode: mode_t
        let kind: Kind
    }

    /// Every protected place with what is in it.
    private struct Look {
        var places: [Workspace.Path: [Item]] = [:]
        /// Folders that could not be looked into, with why.
        var failures: [(path: Workspace.Path, error: StructuredError)] = []
        /// Folders whose name is no text and in which something protected may be: their parent and their name.
        var nameless: [(parent: Workspace.Path, name: [CChar])] = []
        var kept = 0
        /// What was closed to its own owner, and is open until it is closed again, with the mode it had.
        var opened: [Workspace.Opened] = []
    }

    private struct Held {
        var count = 0
        /// Whether several processes ran at once since there were none.
        var isShared = false
        /// By which the baseline was taken; a list that changes meanwhile counts once nothing runs any more.
        var names = ProtectedNames([])
        /// Kept when an end could not be looked at: then nothing new is believed.
        var baseline: [Workspace.Path: [Item]]?
        /// Where was looked: the workspace, and each mount that processes may write.
        var roots: [Workspace.Root] = []
    }

    private let workspace: Workspace
    private let held = Mutex(Held())
    private let ledger: ProtectedLedger?

    /// - Parameter ledger: `protected` in the gate's home, where what is held outlives a crash; nil for nowhere.
    package init(workspace: Workspace, ledger: String? = nil) {
        self.workspace = workspace
        self.ledger = ledger.map { ProtectedLedger(folder: $0, agent: workspace.agent.text) }
    }

    private static let mostBytes = 64 << 20

    /// Before a process starts: what is there now holds, unless another already runs.
    /// - Returns: the mounts it may be shown.
    /// - Throws: `StructuredError` where the workspace or a mount cannot be looked at as a whole.
    package func begin(_ names: ProtectedNames) throws(StructuredError) -> [Workspace.Root] {
        let mounts = workspace.mounts
        let writable = [workspace.root] + mounts.filter { !$0.isReadOnly }
        let failure: StructuredError? = held.withLock { held in
            if held.baseline == nil {
                if let ledger, ledger.isLeft { return ledger.unreadable }
                held.names = names
            }
            // What no process has seen yet is as it should be.
            let new = writable.filter { root in !held.roots.contains { $0 === root } }
            if !new.isEmpty {
                let look = look(held.names, new)
                workspace.shut(look.opened)
                if let failed = look.failures.first { return failed.error }
                if let nameless = look.nameless.first {
                    return StructuredError(
                        .conflict,
                        "a folder in `\(nameless.parent.absolute)` has a name that is no text, and holds what is protected",
                        recovery: ["Ask your supervisor to rename it: what is protected in it could not be held."])
                }
                held.baseline = (held.baseline ?? [:]).merging(look.places) { $1 }
                held.roots += new
            }
            if held.count == 0 || !new.isEmpty, let baseline = held.baseline {
                do throws(StructuredError) { try ledger?.begin(held.names, baseline, held.roots) } catch {
                    return error
                }
            }
            held.count += 1
            held.isShared = held.isShared || held.count > 1
            return nil
        }
        if let failure { throw failure }
        return mounts
    }

    /// After it has ended.
    /// - Parameter repository: where git has just made a repository, whose own settings stay if they are git's usual ones.
    /// - Returns: what had been changed, in words: one line for each place.
    package func end(at time: Timestamp, repository: FreshRepository? = nil) -> [String] {
        workspace.meter.forget()
        return held.withLock { held in
            held.count -= 1
            // What may be another process's is not taken for git's.
            let repository = held.isShared ? nil : repository
            var told: [String] = []
            var look = look(held.names, held.roots)
            var opened = look.opened
            defer { workspace.shut(opened) }
            // What hides from the look goes aside, and is looked behind.
            for _ in 0..<4 where !(look.failures.isEmpty && look.nameless.isEmpty) {
                for failed in look.failures {
                    let why = "cannot be looked into: \(failed.error.description)"
                    told.append(setAside(failed.path.reachable, why, at: time, &opened))
                }
                for hidden in look.nameless {
                    told.append(setAside(hidden.name, in: hidden.parent, at: time, &opened))
                }
                look = self.look(held.names, held.roots)
                opened += look.opened
            }
            var baseline = held.baseline ?? [:]
            for place in Set(look.places.keys).union(baseline.keys).sorted(by: { $0.absolute < $1.absolute }) {
                let before = baseline[place] ?? []
                let after = look.places[place] ?? []
                if before == after { continue }
                if before.isEmpty, let repository,
                    isFreshSettings(after, of: repository) || repository.isCheckedOut(place.absolute)
                {
                    baseline[place] = after
                    continue
                }
                told.append(putBack(place, before, after, at: time, &opened))
            }
            // Nothing that could not be seen is taken for what was there.
            let isSeen = look.failures.isEmpty && look.nameless.isEmpty
            held.baseline = held.count == 0 && isSeen ? nil : baseline
            if held.count == 0 { held.isShared = false }
            if held.baseline == nil {
                held.roots = []
                ledger?.end()
            }
            return told
        }
    }

    /// Agents whose processes' end nobody saw.
    package static func left(in ledger: String) -> [String] {
        let names = (try? FileManager.default.contentsOfDirectory(atPath: ledger)) ?? []
        return names.filter { $0.hasSuffix(".running") }.map { String($0.dropLast(".running".count)) }.sorted()
    }

    /// After a crash of the gate while processes ran: puts back what they changed.
    /// - Returns: what had been changed; nil where none ran.
    package func recover(at time: Timestamp) throws(StructuredError) -> [String]? {
        guard let left = try ledger?.left(workspace) else { return nil }
        held.withLock { held in
            held.names = left.names
            held.baseline = left.places
            held.roots = left.roots
            held.count += 1
        }
        return left.missing.map { "\($0) is not there, so what processes changed in it was not looked at" }
            + end(at: time)
    }

    /// Keeps what moves whole folders from running while the workspace is looked at.
    func undisturbed<R>(_ work: () throws(StructuredError) -> R) throws(StructuredError) -> R {
        let result: Result<R, StructuredError> = held.withLock { _ in
            do throws(StructuredError) { return .success(try work()) } catch { return .failure(error) }
        }
        return try result.get()
    }

    // MARK: Looking

    private func look(_ names: ProtectedNames, _ roots: [Workspace.Root]) -> Look {
        var look = Look()
        for root in roots {
            let top = Workspace.Path(root, [])
            root.admitOwner()
            do throws(StructuredError) {
                try workspace.adopt(top)
                scan(top, names, &look)
            } catch {
                look.failures.append((top, error))
            }
        }
        return look
    }

    /// One folder and all below it. Files of a root gateway's owner become the agents' user's on the way, so that their
    /// processes can work with them.
    private func scan(_ folder: Workspace.Path, _ names: ProtectedNames, _ look: inout Look) {
        do throws(StructuredError) {
            guard folder.components.count < Workspace.deepest else {
                throw StructuredError(.tooLarge, "the tree is more than \(Workspace.deepest) levels deep")
            }
            let (entries, unreadable) = try workspace.entries(folder)
            if unreadable > 0 {
                for name in try workspace.namelessFolders(in: folder, holding: names.firsts) {
                    look.nameless.append((folder, name))
                }
            }
            for entry in entries {
                do throws(StructuredError) {
                    try workspace.adopt(entry)
                    // A process may have closed what its owner, whom the gateway is, passes through otherwise.
                    if entry.kind == "directory" { try workspace.open(entry, 0o500, &look.opened) }
                    try add(entry, names, &look)
                } catch {
                    fail(entry.path, error, &look)
                }
                if entry.kind == "directory" { scan(entry.path, names, &look) }
            }
        } catch {
            fail(folder, error, &look)
        }
    }

    /// What is gone or became something else since it was listed hides nothing: whatever still runs is looked behind at its
    /// own end.
    private func fail(_ path: Workspace.Path, _ error: StructuredError, _ look: inout Look) {
        if error.kind == .notFound || error.kind == .pathChanged { return }
        if path.root.mount != nil {
            // What is mounted there is not shown to processes.
            if error.kind == .outsideWorkspace { return }
            // What is another user's and closed to the gate is closed to its agents' processes.
            let code = error.context["errno"]
            if code == .int(Int64(EACCES)) || code == .int(Int64(EPERM)), let status = try? workspace.status(path),
                status.st_uid != geteuid()
            {
                return
            }
        }
        look.failures.append((path, error))
    }

    private func add(_ entry: Workspace.Entry, _ names: ProtectedNames, _ look: inout Look) throws(StructuredError) {
        let components = entry.path.components
        // What leads to a protected place is a folder: a link or a file there would put another in its stead.
        let isInTheWay = entry.kind != "directory" && names.leads(components)
        guard let length = names.place(components) ?? (isInTheWay ? components.count : nil) else { return }
        let mode = mode_t(entry.status.st_mode & 0o7777)
        let kind: Item.Kind
        switch entry.status.st_mode & S_IFMT {
        case S_IFDIR: kind = .folder
        case S_IFLNK: kind = .link(try workspace.target(ofLink: entry.path))
        case S_IFREG:
            let size = Int(entry.status.st_size)
            let kept = look.kept
            try workspace.open(entry, 0o400, &look.opened)
            let descriptor = try workspace.open(entry.path, O_RDONLY | O_NONBLOCK)
            defer { close(descriptor) }
            if kept + size <= Self.mostBytes {
                let bytes = try Workspace.readAll(descriptor, count: size, at: 0, entry.path.absolute)
                look.kept += bytes.count
                kind = .file(sha256(bytes), bytes)
            } else {
                kind = .file(try Workspace.digest(descriptor, entry.path.absolute), nil)
            }
        default: kind = .other
        }
        let place = Workspace.Path(entry.path.root, Array(components.prefix(length)))
        look.places[place, default: []].append(Item(path: entry.path, mode: mode, kind: kind))
    }

    /// Whether these are the settings that git gives every new repository, and nothing else.
    private func isFreshSettings(_ items: [Item], of repository: FreshRepository) -> Bool {
        let expected = Workspace.Path(repository.path.root, repository.path.components + [".git", "config"])
        guard items.count == 1, let item = items.first, item.path == expected, case .file(_, let bytes?) = item.kind
        else { return false }
        return String(decoding: bytes, as: UTF8.self).split(separator: "\n", omittingEmptySubsequences: false)
            .allSatisfy { repository.isUsual($0.trimmingCharacters(in: .whitespaces)) }
    }

    // MARK: Putting back

    private func setAside(
        _ path: Workspace.Path, _ why: String, at time: Timestamp, _ opened: inout [Workspace.Opened]
    ) -> String {
        do throws(StructuredError) {
            try workspace.openAbove(path, &opened)
            guard !path.isRoot else { return "\(path.absolute) \(why)" }
            let id = try Trash(workspace: workspace).take(path, at: time)
            return "\(path.absolute) \(why); the trash holds it as \(id)"
        } catch {
            return "\(path.absolute) \(why), and could not be set aside: \(error.description)"
        }
    }

    private func setAside(
        _ name: [CChar], in parent: Workspace.Path, at time: Timestamp, _ opened: inout [Workspace.Opened]
    ) -> String {
        do throws(StructuredError) {
            // As something in it, whatever that is called.
            try workspace.openAbove(Workspace.Path(parent.root, parent.components + ["x"]), &opened)
            let id = try Trash(workspace: workspace).take(name, in: parent, at: time)
            return
                "a folder in \(parent.absolute) whose name is no text held what is protected; the trash holds it as \(id)"
        } catch {
            return "a folder in \(parent.absolute) whose name is no text could not be set aside: \(error.description)"
        }
    }

    private func putBack(
        _ path: Workspace.Path, _ before: [Item], _ after: [Item], at time: Timestamp,
        _ opened: inout [Workspace.Opened]
    ) -> String {
        var text = "\(path.absolute) \(before.isEmpty ? "was made" : after.isEmpty ? "was taken away" : "was changed")"
        let trash = Trash(workspace: workspace)
        do throws(StructuredError) {
            try workspace.openAbove(path, &opened)
            if try workspace.isThere(path) { text += "; the trash holds it as \(try trash.take(path, at: time))" }
            if before.isEmpty { return text }
            // What stands where folders above it were goes aside first.
            for count in 1..<max(1, path.components.count) {
                let above = Workspace.Path(path.root, Array(path.components.prefix(count)))
                guard let status = try workspace.status(above) else { break }
                if status.st_mode & S_IFMT != S_IFDIR {
                    text += "; what stood at \(above.absolute) is in the trash as \(try trash.take(above, at: time))"
                    break
                }
            }
            if path.components.count > 1 { try workspace.makeFolders(workspace.folder(of: path)) }
            var isWhole = true
            for item in before {
                switch item.kind {
                case .folder: try workspace.makeFolders(item.path)
                case .link(let target): try workspace.makeLink(item.path, to: target)
                case .file(_, let bytes?):
                    _ = try workspace.writeAtomically(item.path, bytes, replace: false, durable: false)
                    try workspace.setMode(item.path, item.mode)
                case .file, .other: isWhole = false
                }
            }
            // What may be closed to its owner closes last, and from within.
            for item in before.reversed() where item.kind == .folder {
                try workspace.setMode(item.path, item.mode, isFolder: true)
            }
            return text + (isWhole ? "; it is as it was" : "; not all of it could be put back")
        } catch {
            text += " and could not be put back: \(error.description)"
            // Nothing of the owner's is lost: what was held goes into the trash.
            for item in before {
                guard case .file(_, let bytes?) = item.kind else { continue }
                do throws(StructuredError) {
                    text +=
                        "; the trash keeps \(item.path.absolute) as \(try trash.keep(bytes, of: item.path, at: time))"
                } catch {
                    text += "; \(item.path.absolute) is lost: \(error.description)"
                }
            }
            return text
        }
    }
}

extension Workspace {
    /// A root gateway's agents run as a user of their own, to whom their files must belong. A file with several names may
    /// have one outside, and stays whose it is.
    func adopt(_ entry: Entry) throws(StructuredError) {
        guard let user = Confinement.processUser, entry.status.st_uid == 0, entry.path.root.mount == nil else { return }
        if entry.kind != "directory", entry.status.st_nlink > 1 { return }
        let parent = try openParent(entry.path)
        defer { close(parent) }
        // Gone since it was listed: nothing to do.
        if fchownat(parent, entry.path.name, user, user, AT_SYMLINK_NOFOLLOW) != 0, errno != ENOENT {
            throw FileFailure.error(errno, entry.path.absolute)
        }
    }

    func adopt(_ root: Path) throws(StructuredError) {
        guard let user = Confinement.processUser, root.root.mount == nil else { return }
        let folder = try open(root, O_RDONLY | O_DIRECTORY)
        defer { close(folder) }
        if fchown(folder, user, user) != 0 { throw FileFailure.error(errno, root.absolute) }
    }

    /// Whether anything is there, also a link.
    func isThere(_ path: Path) throws(StructuredError) -> Bool {
        do throws(StructuredError) { return try status(path) != nil } catch {
            // A link further up: then nothing is there in this workspace's own sense.
            if error.kind == .pathChanged { return false }
            throw error
        }
    }

    /// What its owner may pass for now, as it was before.
    struct Opened {
        let path: Path
        let status: stat
    }

    /// Gives the owner, whom the gateway is, these rights to something of theirs.
    func open(_ entry: Entry, _ rights: mode_t, _ opened: inout [Opened]) throws(StructuredError) {
        let mode = mode_t(entry.status.st_mode & 0o7777)
        guard mode & rights != rights, geteuid() != 0, entry.status.st_uid == geteuid(), !entry.path.isRoot else {
            return
        }
        let result = try setMode(entry.path, mode | rights, of: entry.status)
        guard result == 0 else { throw FileFailure.error(result, entry.path.absolute) }
        opened.append(Opened(path: entry.path, status: entry.status))
    }

    /// Lets the owner change what lies below, from the root on.
    func openAbove(_ path: Path, _ opened: inout [Opened]) throws(StructuredError) {
        for count in 1..<max(1, path.components.count) {
            let above = Path(path.root, Array(path.components.prefix(count)))
            guard let status = try status(above), status.st_mode & S_IFMT == S_IFDIR else { return }
            try open(Entry(path: above, status: status), 0o700, &opened)
        }
    }

    /// Takes the rights away again, what is further down first; what has been moved meanwhile, or is another, stays as it is.
    func shut(_ opened: [Opened]) {
        for one in opened.reversed() { _ = try? setMode(one.path, mode_t(one.status.st_mode & 0o7777), of: one.status) }
    }

    /// - Returns: 0 or an errno.
    private func setMode(_ path: Path, _ mode: mode_t, of known: stat) throws(StructuredError) -> Int32 {
        let parent = try openParent(path)
        defer { close(parent) }
        return Self.setMode(Array(path.name.utf8CString), in: parent, mode, of: known)
    }

    /// Folders directly in `folder` whose name is no text and in which, at any depth, one of these names occurs.
    func namelessFolders(in folder: Path, holding firsts: Set<String>) throws(StructuredError) -> [[CChar]] {
        let descriptor = try open(folder, O_RDONLY | O_DIRECTORY)
        defer { close(descriptor) }
        let wanted = firsts.map { Array($0.utf8CString) }
        return try Self.names(in: descriptor, folder.absolute).filter { name in
            let bytes = name.dropLast().map { UInt8(bitPattern: $0) }
            return String(validating: bytes, as: UTF8.self) == nil && Self.holds(descriptor, name, wanted, depth: 0)
        }
    }

    /// What is in a folder, names that are no text among it.
    static func names(in descriptor: Int32, _ place: String) throws(StructuredError) -> [[CChar]] {
        let folder = openat(descriptor, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC)
        guard folder >= 0, let stream = fdopendir(folder) else {
            let code = errno
            if folder >= 0 { close(folder) }
            throw FileFailure.error(code, place)
        }
        defer { closedir(stream) }
        var names: [[CChar]] = []
        while true {
            errno = 0
            guard let entry = readdir(stream) else {
                if errno != 0 { throw FileFailure.error(errno, place) }
                break
            }
            let name = withUnsafePointer(to: &entry.pointee.d_name) { pointer in
                pointer.withMemoryRebound(to: CChar.self, capacity: 256) { text in
                    Array(UnsafeBufferPointer(start: text, count: strlen(text) + 1))
                }
            }
            let dot = CChar(UInt8(ascii: "."))
            if name != [dot, 0], name != [dot, dot, 0] { names.append(name) }
        }
        return names
    }

    /// What cannot be looked into may hold anything.
    private static func holds(_ parent: Int32, _ name: [CChar], _ wanted: [[CChar]], depth: Int) -> Bool {
        let folder = openat(parent, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC)
        if folder < 0 { return errno != ENOTDIR && errno != ELOOP && errno != ENOENT }
        defer { close(folder) }
        guard depth <= 200, let names = try? names(in: folder, "") else { return true }
        return names.contains { wanted.contains($0) || holds(folder, $0, wanted, depth: depth + 1) }
    }

    func target(ofLink path: Path) throws(StructuredError) -> String {
        let descriptor = try open(path, openPathOnly | O_NOFOLLOW)
        defer { close(descriptor) }
        return linkTarget(descriptor) ?? ""
    }

    func makeLink(_ path: Path, to target: String) throws(StructuredError) {
        let parent = try openParent(path)
        defer { close(parent) }
        if symlinkat(target, parent, path.name) != 0 { throw FileFailure.error(errno, path.absolute) }
    }

    func setMode(_ path: Path, _ mode: mode_t, isFolder: Bool = false) throws(StructuredError) {
        let descriptor = isFolder ? try open(path, O_RDONLY | O_DIRECTORY) : try openFile(path, O_RDONLY).0
        defer { close(descriptor) }
        if fchmod(descriptor, mode) != 0 { throw FileFailure.error(errno, path.absolute) }
    }
}
