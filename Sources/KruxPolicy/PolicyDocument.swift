package import KruxCore

/// One policy file, read and checked against itself; both spellings end here and everything after reads only this.
package struct PolicyDocument: Sendable {
    /// `name:`, else the file's stem.
    package var name: String
    package var file: String
    package var description: String?
    package var version: String?
    /// The agent an agent policy is for.
    package var agent: Located<String>?
    package var extends: Located<String>?
    package var defaults: Default?
    /// Nil when the document does not say; `tighten_only` then, unless one below it says otherwise.
    package var agentOverrides: Located<AgentOverrides>?
    /// `overrides:` first, which bind, then `rules:`; the first match decides.
    package var list: [Rule] = []
    /// `capabilities:`, most specific pattern first.
    package var map: [Rule] = []

    package struct Located<Value: Sendable>: Sendable {
        package let value: Value
        package let location: SourceLocation
    }

    package struct Default: Sendable {
        package var tier: Tier
        package var locked: Bool
        package var location: SourceLocation
    }

    package enum AgentOverrides: String, Sendable, CaseIterable {
        case tightenOnly = "tighten_only"
        case withinSystem = "within_system"
    }
}

/// A capability pattern: a name, `a.b.*`, `a.*` or `*`.
package struct CapabilityPattern: Sendable, Equatable {
    package let text: String
    /// Exact names first, then longer prefixes; `*` last.
    package let specificity: Int

    package init?(_ text: String) {
        self.text = text
        if text.utf8Equals("*") {
            specificity = 0
        } else if text.hasSuffix(".*") {
            let stem = text.dropLast(2)
            let words = stem.split(separator: ".", omittingEmptySubsequences: false)
            guard (1...3).contains(words.count), CapabilityName("\(stem).x") != nil else { return nil }
            specificity = words.count
        } else {
            guard CapabilityName(text) != nil else { return nil }
            specificity = 100
        }
    }

    package func matches(_ name: String) -> Bool {
        if specificity == 100 { return text.utf8Equals(name) }
        return name.utf8.starts(with: text.utf8.dropLast())
    }
}

/// A tier and when it holds, with its place in the file.
package struct Rule: Sendable {
    package var pattern: CapabilityPattern
    package var tier: Tier
    package var conditions: [Condition]
    package var reason: String?
    package var locked: Bool
    package var location: SourceLocation
}

/// What a rule asks of a call. Three-valued: a value that is missing or cannot be judged is neither true nor false.
package struct Condition: Sendable, Equatable {
    package enum Test: Sendable, Equatable {
        /// The canonical path is this directory or below it, by whole components. No trailing slash.
        case pathPrefix(String)
        /// Decoded bytes of the content.
        case contentSize(Comparison, Int64)
    }

    package enum Comparison: String, Sendable, CaseIterable {
        case lt, lte, gt, gte
    }

    package let test: Test
    package let location: SourceLocation

    /// The key as written.
    package var key: String {
        switch test {
        case .pathPrefix: "path_prefix"
        case .contentSize(let comparison, _): "content_size_\(comparison.rawValue)"
        }
    }

    /// The key and value as written, for explanations.
    package var text: String {
        switch test {
        case .pathPrefix(let prefix): "\(key): \(prefix.isEmpty ? "/" : prefix)"
        case .contentSize(_, let size): "\(key): \(size)"
        }
    }

    static let keys = ["path_prefix"] + Comparison.allCases.map { "content_size_\($0.rawValue)" }
    /// Conditions of the language that this version does not judge: named so that they are refused, never ignored.
    static let futureKeys: Set<String> = [
        "path_glob", "path_not_under", "command", "command_prefix", "command_glob", "args_contain", "host",
        "url_prefix", "method", "port", "recipient", "recipient_domain", "key_prefix", "time_between", "days",
        "session", "all", "any", "not",
    ]
}
