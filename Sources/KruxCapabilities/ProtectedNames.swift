import Foundation
import KruxCore

/// Places in a workspace that decide how tools outside the gate behave: hooks, editors' and agents' settings, start-up
/// files, CI. An agent reads them and does not change them. A name such as `.git/hooks` means itself, and what is in it,
/// at any depth.
package struct ProtectedNames: Sendable {
    private let names: [[String]]

    package init(_ names: [String]) { self.names = names.map(\.pathComponents).filter { !$0.isEmpty } }

    package var isEmpty: Bool { names.isEmpty }

    /// Their first components: what a search looks for.
    var firsts: Set<String> { Set(names.compactMap(\.first)) }

    /// The protected place that `components` names or lies in, as its number of components; nil when there is none.
    func place(_ components: [String]) -> Int? {
        for start in components.indices {
            for name in names where components.count - start >= name.count {
                if zip(components[start...], name).allSatisfy({ $0.utf8Equals($1) }) { return start + name.count }
            }
        }
        return nil
    }

    /// Whether the last components are the beginning of a longer protected name, as `.git` is of `.git/hooks`.
    func leads(_ components: [String]) -> Bool {
        names.contains { name in
            (1..<max(1, name.count)).contains { count in
                components.count >= count && zip(components.suffix(count), name).allSatisfy { $0.utf8Equals($1) }
            }
        }
    }

    /// Whether such a path is a protected place, lies in one or leads to one.
    package func holds(_ components: [String]) -> Bool { place(components) != nil || leads(components) }

    /// The names that are whole paths from the workspace's root.
    var atRoot: [String] { names.map { $0.joined(separator: "/") } }
}

extension Workspace {
    static func isProtected(_ path: Path) -> StructuredError {
        StructuredError(
            .blocked, "`\(path.absolute)` is protected: agents do not change it",
            agent: "This decides how tools outside your workspace behave, so you may read it but not change it.",
            recovery: [
                "Put what you want changed into another file, and ask your supervisor to take it over.",
                "The list is in `kruxos config show policy system`.",
            ], context: ["path": .string(path.absolute)])
    }

    /// - Parameter isFolder: whether a folder is made; anything else in the place of one that leads to something protected,
    ///   as a file called `.git` does, would put another in its stead.
    /// - Throws: `StructuredError` `.blocked` when writing there would change something protected.
    func requireChangeable(_ path: Path, isFolder: Bool = false, _ names: ProtectedNames) throws(StructuredError) {
        try requireWritable(path)
        if names.place(path.components) != nil || !isFolder && names.leads(path.components) {
            throw Self.isProtected(path)
        }
    }

    /// What may be taken away: nothing protected, nor what leads to it where that is there.
    func requireRemovable(_ path: Path, _ names: ProtectedNames) throws(StructuredError) {
        try requireChangeable(path, isFolder: true, names)
        guard names.leads(path.components), let first = try protectedPlaces(below: path, as: path, names).first else {
            return
        }
        throw Self.isProtected(Path(path.root, path.components + first))
    }

    /// Moving or copying neither puts something into a protected place nor takes it out of one: what is protected at one
    /// end is at the other.
    func requireSameProtection(
        _ source: Path, _ destination: Path, keepsSource: Bool, _ names: ProtectedNames
    ) throws(StructuredError) {
        let isFolder = try status(source).map { $0.st_mode & S_IFMT == S_IFDIR } ?? false
        try requireChangeable(destination, isFolder: isFolder, names)
        if !keepsSource { try requireChangeable(source, isFolder: true, names) }
        // Only the end of a path can make a difference to what lies below it.
        guard names.leads(source.components) || names.leads(destination.components) else { return }
        let before = Set(try protectedPlaces(below: source, as: source, names))
        let after = Set(try protectedPlaces(below: source, as: destination, names))
        if let gained = after.subtracting(before).first {
            throw Self.isProtected(Path(destination.root, destination.components + gained))
        }
        if keepsSource { return }
        if let lost = before.subtracting(after).first {
            throw Self.isProtected(Path(source.root, source.components + lost))
        }
    }

    /// Everything at or below `folder` that is protected if `folder` stood at `name`, relative to it.
    private func protectedPlaces(below folder: Path, as name: Path, _ names: ProtectedNames) throws(StructuredError)
        -> [[String]]
    {
        if names.isEmpty { return [] }
        if names.place(name.components) != nil { return [[]] }
        guard let status = try status(folder), status.st_mode & S_IFMT == S_IFDIR else { return [] }
        var found: [[String]] = []
        try walk(folder, depth: Self.deepest) { (entry) throws(StructuredError) in
            let relative = Array(entry.path.components.dropFirst(folder.components.count))
            if let length = names.place(name.components + relative), length == name.components.count + relative.count {
                found.append(relative)
            }
            return true
        }
        return found
    }
}
