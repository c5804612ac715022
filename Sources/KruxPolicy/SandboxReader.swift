import KruxCore

/// Reads `sandbox:` and `protected:`.
extension NodeReader {
    /// `workspace-write`, or `{files: read-only, hosts: [example.com], require: best_effort}`.
    mutating func sandbox(_ node: YAMLNode) -> SandboxSettings? {
        guard case .mapping = node.content else { return files(node).map { SandboxSettings(files: $0) } }
        guard let pairs = pairs(node, "`sandbox`") else { return nil }
        var settings = SandboxSettings()
        var hostsNode: YAMLNode?
        for (keyNode, value) in pairs {
            guard let key = word(keyNode) else { continue }
            switch key {
            case "files": settings.files = files(value) ?? settings.files
            case "hosts":
                hostsNode = keyNode
                settings.hosts = (texts(value, key) ?? []).compactMap { text, node in host(text, node) }
            case "require":
                settings.isBestEffort =
                    choice(value, "value of `require`", ["all", "best_effort"]) {
                        ["all": false, "best_effort": true][$0]
                    } ?? false
            default: unknown(keyNode, key, known: ["files", "hosts", "require"])
            }
        }
        if let hostsNode, settings.files == .fullAccess {
            fail(hostsNode, "`full-access` has the machine's whole network", hint: "remove `hosts`")
        }
        return settings
    }

    private mutating func files(_ node: YAMLNode) -> SandboxSettings.Files? {
        choice(node, "sandbox", SandboxSettings.Files.allCases.map(\.rawValue)) { SandboxSettings.Files(rawValue: $0) }
    }

    /// `example.com`, `*.example.com`, `example.com:8080`.
    private mutating func host(_ text: String, _ node: YAMLNode) -> String? {
        let wild = text.utf8.starts(with: "*.".utf8)
        let parts = text.split(separator: ":", maxSplits: 1, omittingEmptySubsequences: false).map(String.init)
        let port = parts.count == 2 ? Int(parts[1]) ?? 0 : 443
        guard (1...65_535).contains(port),
            let host = WebAddress.host(wild ? String(parts[0].dropFirst(2)) : parts[0])
        else {
            fail(
                node, "`hosts`: `\(text)` is no host name",
                hint: "such as `example.com`, `*.example.com` or `example.com:8080`")
            return nil
        }
        return (wild ? "*." : "") + host + (parts.count == 2 ? ":\(port)" : "")
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
