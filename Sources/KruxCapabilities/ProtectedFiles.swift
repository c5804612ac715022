import CSandbox
import Foundation
package import KruxCore
import KruxCrypto
import KruxSandbox
import Synchronization

/// What of a workspace is protected while processes run in it. A process can rename what lies above a read-only mount, and
/// make what was not there; so what is protected is looked at before the first and after each, and what has changed is
/// put back as it was, the change itself in the trash.
package final class ProtectedFiles: Sendable {
    /// One protected place and everything in it.
    private struct Item: Equatable {
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

    private struct Held {
        var count = 0
        var baseline: [String: [Item]] = [:]
    }

    private let workspace: Workspace
    private let held = Mutex(Held())

    package init(workspace: Workspace) { self.workspace = workspace }

    private static let mostBytes = 64 << 20

    /// Before a process starts: what is there now holds, unless another already runs.
    package func begin(_ names: ProtectedNames) throws(StructuredError) {
        let failure: StructuredError? = held.withLock { held in
            if held.count == 0 {
                do throws(StructuredError) { held.baseline = try look(names) } catch { return error }
            }
            held.count += 1
            return nil
        }
        if let failure { throw failure }
    }

    /// After it has ended.
    /// - Parameter folder: what is new below it stays, and is protected from now on.
    /// - Returns: what had been changed, in words: one line for each place.
    package func end(_ names: ProtectedNames, at time: Timestamp, accepting folder: Workspace.Path? = nil) -> [String] {
        held.withLock { held in
            defer {
                held.count -= 1
                if held.count == 0 { held.baseline = [:] }
            }
            let now: [String: [Item]]
            do throws(StructuredError) { now = try look(names) } catch {
                return ["what is protected could not be looked at: \(error.description)"]
            }
            return Set(now.keys).union(held.baseline.keys).sorted().compactMap { place in
                let before = held.baseline[place] ?? []
                let after = now[place] ?? []
                if before == after { return nil }
                if before.isEmpty, let folder, let first = after.first?.path.components,
                    first.count > folder.components.count,
                    zip(first, folder.components).allSatisfy({ $0.utf8Equals($1) })
                {
                    held.baseline[place] = after
                    return nil
                }
                return putBack(place, before, after, at: time)
            }
        }
    }

    /// Every protected place with what is in it. Files of a root gateway's owner become the agents' user's on the way, so
    /// that their processes can work with them.
    private func look(_ names: ProtectedNames) throws(StructuredError) -> [String: [Item]] {
        var found: [String: [Item]] = [:]
        var kept = 0
        var protected: (path: String, depth: Int)?
        let root = try workspace.place(workspace.root)
        try workspace.adopt(root)
        try workspace.walk(root, depth: Workspace.deepest) { (entry) throws(StructuredError) in
            try workspace.adopt(entry)
            let components = entry.path.components
            if let length = names.place(components) {
                protected = (Workspace.Path(workspace.root, Array(components.prefix(length))).absolute, length)
            } else {
                protected = nil
            }
            guard let protected else { return true }
            let mode = mode_t(entry.status.st_mode & 0o7777)
            let kind: Item.Kind
            switch entry.status.st_mode & S_IFMT {
            case S_IFDIR: kind = .folder
            case S_IFLNK: kind = .link(try workspace.target(ofLink: entry.path))
            case S_IFREG:
                let descriptor = try workspace.open(entry.path, O_RDONLY | O_NONBLOCK)
                defer { close(descriptor) }
                let size = Int(entry.status.st_size)
                if kept + size <= Self.mostBytes {
                    let bytes = try Workspace.readAll(descriptor, count: size, at: 0, entry.path)
                    kept += bytes.count
                    kind = .file(sha256(bytes), bytes)
                } else {
                    kind = .file(try Workspace.digest(descriptor, entry.path), nil)
                }
            default: kind = .other
            }
            found[protected.path, default: []].append(Item(path: entry.path, mode: mode, kind: kind))
            return true
        }
        return found
    }

    private func putBack(_ place: String, _ before: [Item], _ after: [Item], at time: Timestamp) -> String {
        let what = before.isEmpty ? "was made" : after.isEmpty ? "was taken away" : "was changed"
        do throws(StructuredError) {
            let path = try workspace.place(place)
            var text = "\(place) \(what)"
            if !after.isEmpty, try workspace.status(path) != nil {
                text += "; the trash holds it as \(try Trash(workspace: workspace).take(path, at: time))"
            }
            if before.isEmpty { return text }
            try workspace.makeFolders(workspace.folder(of: path))
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
            return text + (isWhole ? "; it is as it was" : "; not all of it could be put back")
        } catch {
            return "\(place) \(what) and could not be put back: \(error.description)"
        }
    }
}

extension Workspace {
    /// A root gateway's agents run as a user of their own, to whom their files must belong. A file with several names may
    /// have one outside, and stays whose it is.
    func adopt(_ entry: Entry) throws(StructuredError) {
        guard let user = Confinement.processUser, entry.status.st_uid == 0 else { return }
        if entry.kind != "directory", entry.status.st_nlink > 1 { return }
        let parent = try openParent(entry.path)
        defer { close(parent) }
        // Gone since it was listed: nothing to do.
        if fchownat(parent, entry.path.name, user, user, AT_SYMLINK_NOFOLLOW) != 0, errno != ENOENT {
            throw FileFailure.error(errno, entry.path.absolute)
        }
    }

    func adopt(_ root: Path) throws(StructuredError) {
        guard let user = Confinement.processUser else { return }
        let folder = try open(root, O_RDONLY | O_DIRECTORY)
        defer { close(folder) }
        if fchown(folder, user, user) != 0 { throw FileFailure.error(errno, root.absolute) }
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

    func setMode(_ path: Path, _ mode: mode_t) throws(StructuredError) {
        let (descriptor, _) = try openFile(path, O_RDONLY)
        defer { close(descriptor) }
        if fchmod(descriptor, mode) != 0 { throw FileFailure.error(errno, path.absolute) }
    }
}
