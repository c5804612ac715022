import KruxCore

/// A repository that git has just made, and what its settings may say.
package struct FreshRepository: Sendable {
    let path: Workspace.Path
    /// Where it was cloned from.
    let origin: String?

    private static let usual: Set<String> = [
        "[core]", "repositoryformatversion = 0", "filemode = true", "filemode = false", "bare = false",
        "logallrefupdates = true", "",
    ]

    /// Whether a place can only have come with the commits of a remote that policy let be cloned: CI configuration, say.
    func isCheckedOut(_ place: String) -> Bool {
        let inside = path.absolute + "/"
        return origin != nil && place.hasPrefix(inside) && !place.hasPrefix(inside + ".git/")
            && !place.utf8Equals(inside + ".git")
    }

    /// Whether git writes such a line into every new repository, or into every clone of `origin`.
    func isUsual(_ line: String) -> Bool {
        if Self.usual.contains(line) { return true }
        guard let origin else { return false }
        if ["[remote \"origin\"]", "url = \(origin)", "remote = origin"].contains(line) { return true }
        if line == "fetch = +refs/heads/*:refs/remotes/origin/*" { return true }
        if let names = line.wholeMatch(of: /fetch = \+refs\/(heads|tags)\/(\S+):refs\/(remotes\/origin|tags)\/(\S+)/)?
            .output
        {
            return names.2 == names.4 && Self.isBranch(names.2)
        }
        if let name = line.wholeMatch(of: /\[branch "(\S+)"\]/)?.output.1 { return Self.isBranch(name) }
        if let name = line.wholeMatch(of: /merge = refs\/heads\/(\S+)/)?.output.1 { return Self.isBranch(name) }
        return false
    }

    private static func isBranch(_ name: Substring) -> Bool {
        name.utf8.allSatisfy { byte in
            (48...57).contains(byte) || (65...90).contains(byte & 0xDF) || "-._/".utf8.contains(byte) || byte >= 0x80
        }
    }
}
