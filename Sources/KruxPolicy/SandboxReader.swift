import KruxCore

/// Reads `sandbox:` and `protected:`.
extension NodeReader {
    /// `workspace-write`, or `{files: read-only, hosts: [example.com], addresses: [10.0.0.0/8], require: best_effort}`.
    mutating func sandbox(_ node: YAMLNode) -> SandboxSettings? {
        guard case .mapping = node.content else { return files(node).map { SandboxSettings(files: $0) } }
        guard let pairs = pairs(node, "`sandbox`") else { return nil }
        var settings = SandboxSettings()
        for (keyNode, value) in pairs {
            guard let key = word(keyNode) else { continue }
            switch key {
            case "files": settings.files = files(value) ?? settings.files
            case "require":
                settings.isBestEffort =
                    choice(value, "value of `require`", ["all", "best_effort"]) {
                        ["all": false, "best_effort": true][$0]
                    } ?? false
            case "hosts":
                settings.hosts = texts(value, "hosts")?.compactMap { text, node in
                    if let host = HostPattern(text) { return host }
                    fail(
                        node, "`\(text)` is no host",
                        hint: "a name such as `example.com`, `*.example.com` or `example.com:8080`, without a scheme")
                    return nil
                }
            case "addresses":
                settings.addresses =
                    texts(value, "addresses")?.compactMap { text, node in
                        if let range = AddressRange(text) { return range }
                        fail(node, "`\(text)` is no range of addresses", hint: "such as `10.0.0.0/8` or `127.0.0.1`")
                        return nil
                    } ?? []
            default: unknown(keyNode, key, known: ["files", "hosts", "addresses", "require"])
            }
        }
        if settings.hosts != nil, settings.files == .fullAccess {
            fail(node, "`full-access` reaches every host", hint: "remove `hosts`, or choose `workspace-write`")
        }
        return settings
    }

    private mutating func files(_ node: YAMLNode) -> SandboxSettings.Files? {
        choice(node, "sandbox", SandboxSettings.Files.allCases.map(\.rawValue)) { SandboxSettings.Files(rawValue: $0) }
    }

    /// Relative paths, each of which is protected wherever it stands in a workspace.
    mutating func protected(_ node: YAMLNode) -> [String] {
        (texts(node, "protected") ?? []).compactMap { text, node in
            let parts = text.split(separator: "/", omittingEmptySubsequences: false)
            guard !parts.contains(where: { $0.isEmpty || $0 == "." || $0 == ".." || $0.utf8.contains(0) }) else {
                fail(
                    node, "`\(text)` is no relative path of names",
                    hint: "such as `.git/hooks`; without `.`, `..` and a slash at an end")
                return nil
            }
            return text
        }
    }
}
