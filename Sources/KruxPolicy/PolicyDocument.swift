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
    /// Whether a supervisor's grant may answer for this policy; nil when the document does not say.
    package var grants: Located<Grants>?
    /// Requests of one agent that may wait at once; more are refused.
    package var maxPending: Located<Int64>?
    /// Where people are told of what waits.
    package var notifiers: Located<[NotifierSettings]>?
    package var links: Located<LinkSettings>?
    /// Names in a workspace that no agent changes: `.git/hooks`, at any depth.
    package var protected: Located<[String]>?
    /// Modes of roles.
    package var roles: [(name: String, mode: Mode, location: SourceLocation)] = []
    /// An agent's own role and mode, where the registry has none.
    package var role: Located<String>?
    package var mode: Located<Mode>?
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
        /// Where the tier's word stands.
        package var tierLocation: SourceLocation
    }

    package static let largestMaxPending: Int64 = 100_000

    package enum Grants: String, Sendable, CaseIterable {
        case allowed, none
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
        } else if text.utf8.suffix(2).elementsEqual(".*".utf8) {
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
    package var rateLimit: RateLimit?
    package var approval: ApprovalTerms?
    package var sandbox: SandboxSettings?
    package var location: SourceLocation
    /// Where the tier's word stands.
    package var tierLocation: SourceLocation
}

/// At most `max` calls admitted without approval in any `windowSeconds`; `onExceed` beyond it.
package struct RateLimit: Sendable, Equatable {
    package var max: Int64
    package var windowSeconds: Int64
    package var onExceed: Tier

    package init(max: Int64, windowSeconds: Int64, onExceed: Tier) {
        self.max = max
        self.windowSeconds = windowSeconds
        self.onExceed = onExceed
    }

    /// Windows are remembered this long.
    package static let longestWindowSeconds: Int64 = 31 * 86_400
    package static let largestMax: Int64 = 1_000_000
}
