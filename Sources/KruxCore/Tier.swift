/// What a call needs, loosest to strictest.
package enum Tier: UInt8, Sendable, Comparable, CaseIterable {
    case autonomous, notify, approvalRequired, blocked

    /// The name in policies, records and replies.
    package var name: String {
        switch self {
        case .autonomous: "autonomous"
        case .notify: "notify"
        case .approvalRequired: "approval_required"
        case .blocked: "blocked"
        }
    }

    package init?(name: String) {
        guard let tier = Self.allCases.first(where: { $0.name.utf8Equals(name) }) else { return nil }
        self = tier
    }

    package static func < (a: Tier, b: Tier) -> Bool { a.rawValue < b.rawValue }
}

/// What a capability does to the world, which decides how it is recorded and what a mode allows.
package enum EffectClass: String, Sendable, CaseIterable {
    /// Only effect is the reply.
    case read
    /// Changes something that can be put back.
    case write
    /// Changes something that cannot be put back, or not easily.
    case destructive
    /// Reaches beyond the machine.
    case external
}
