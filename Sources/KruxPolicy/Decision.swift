package import KruxCore
import KruxCrypto

/// What of a call a decision may read, besides the policy.
package struct CallFacts: Sendable {
    package let agent: String
    /// The capability's index in the catalogue the policy was compiled against.
    package let capability: Int
    /// Canonical absolute paths, one per path argument that is present. Empty: there is none, or it is not known.
    package let paths: [String]
    /// Decoded bytes of the content argument; nil when there is none or it is not known.
    package let contentSize: Int64?
    /// The call also touches what lies below its paths.
    package let reachesBelow: Bool

    package init(
        agent: String, capability: Int, paths: [String] = [], contentSize: Int64? = nil, reachesBelow: Bool = false
    ) {
        self.agent = agent
        self.capability = capability
        self.paths = paths
        self.contentSize = contentSize
        self.reachesBelow = reachesBelow
    }
}

package enum PolicyLayer: String, Sendable {
    case system, organisation, agent
}

/// The answer to a call and where it comes from.
package struct Decision: Sendable, Equatable {
    package var tier: Tier
    package var layer: PolicyLayer
    /// Index into `CompiledPolicy.rules`; nil when no rule matched.
    package var rule: Int?
    /// What each layer said: nil for no match.
    package var system: Tier?
    package var organisation: Tier?
    package var agent: Tier?
    /// Some condition could not be judged, and the stricter side was taken.
    package var indeterminate = false
}

/// Kleene's strong three-valued truth.
package enum Truth: Sendable {
    case yes, no, unknown
}

extension CompiledPolicy {
    /// Decides a call. A pure function of the policy and the facts; a call with several paths is decided once for each
    /// and the strictest answer stands.
    package func decide(_ facts: CallFacts) -> Decision {
        guard facts.paths.count > 1 else { return decide(facts, path: facts.paths.first) }
        var strictest = decide(facts, path: facts.paths[0])
        for path in facts.paths.dropFirst() {
            let decision = decide(facts, path: path)
            if decision.tier > strictest.tier { strictest = decision }
        }
        return strictest
    }

    /// The conditions that a decision without arguments could not judge, with the place of their rules.
    package func unjudged(agent: String, capability: Int) -> [(condition: String, rule: String)] {
        var tables = system + [organisation]
        if let layer = agents[agent] { tables += [layer.own] + layer.tightening }
        return tables.flatMap { $0.chains[capability] }.flatMap { rule in
            let record = rules[Int(rule.index)]
            return record.conditions.map { ($0.text, "\(record.location.file) line \($0.location.line)") }
        }
    }

    /// Whether every call of the capability by the agent is blocked, whatever its arguments.
    package func blocksEveryCall(agent: String, capability: Int) -> Bool {
        if brokenAgents[agent] != nil { return true }
        let layer = agents[agent]
        for system in system.map({ reachable($0.chains[capability]) }).combinations {
            for organisation in reachable(organisation.chains[capability]) {
                for own in layer.map({ reachable($0.own.chains[capability]) }) ?? [Match()] {
                    for tightening in (layer?.tightening ?? []).map({ reachable($0.chains[capability]) }).combinations
                    where combine(system, organisation, own, tightening).tier != .blocked { return false }
                }
            }
        }
        return true
    }

    private func decide(_ facts: CallFacts, path: String?) -> Decision {
        guard var path else { return decide(facts, nil) }
        // Rules compare bytes in place.
        return path.withUTF8 { decide(facts, $0) }
    }

    private func decide(_ facts: CallFacts, _ path: UnsafeBufferPointer<UInt8>?) -> Decision {
        if brokenAgents[facts.agent] != nil {
            return Decision(tier: .blocked, layer: .agent, rule: nil, agent: .blocked)
        }
        let index = facts.capability
        let organisation = match(organisation.chains[index], path, facts)
        let systemMatches = system.map { match($0.chains[index], path, facts) }
        guard let layer = agents[facts.agent] else { return combine(systemMatches, organisation, Match(), []) }
        let own = match(layer.own.chains[index], path, facts)
        // What the agent extends is asked only when no own rule surely matched.
        let tightening = own.settled ? [] : layer.tightening.map { match($0.chains[index], path, facts) }
        return combine(systemMatches, organisation, own, tightening)
    }

    /// What one chain of rules says.
    struct Match {
        /// The strictest of the rules that may hold; nil when none can.
        var tier: Tier?
        var rule: Int32 = -1
        /// The strictest tier that no lower layer may loosen.
        var floor: Tier?
        var floorRule: Int32 = -1
        /// A rule surely holds; false when the chain ran out, perhaps past rules that could not be judged.
        var settled = false
        var indeterminate = false

        mutating func add(_ candidate: CompiledRule) {
            if tier.map({ candidate.tier > $0 }) ?? true {
                tier = candidate.tier
                rule = candidate.index
            }
            if candidate.binds, floor.map({ candidate.tier > $0 }) ?? true {
                floor = candidate.tier
                floorRule = candidate.index
            }
        }
    }

    private func match(
        _ chain: [CompiledRule], _ path: UnsafeBufferPointer<UInt8>?, _ facts: CallFacts
    ) -> Match {
        var match = Match()
        for rule in chain {
            switch Self.truth(rule.conditions, path, facts) {
            case .no: continue
            case .unknown:
                match.add(rule)
                match.indeterminate = true
            case .yes:
                match.add(rule)
                match.settled = true
                return match
            }
        }
        return match
    }

    private static func truth(
        _ conditions: [CompiledCondition], _ path: UnsafeBufferPointer<UInt8>?, _ facts: CallFacts
    ) -> Truth {
        var result = Truth.yes
        for condition in conditions {
            switch truth(condition, path, facts) {
            case .no: return .no
            case .unknown: result = .unknown
            case .yes: break
            }
        }
        return result
    }

    private static func truth(
        _ condition: CompiledCondition, _ path: UnsafeBufferPointer<UInt8>?, _ facts: CallFacts
    ) -> Truth {
        switch condition {
        case .pathPrefix(let prefix):
            guard let path else { return .unknown }
            if pathIsUnder(path, prefix) { return .yes }
            // A call on a folder touches the rule's folder too when that lies inside.
            guard facts.reachesBelow, prefix.count > path.count else { return .no }
            return prefix.starts(with: path) && prefix[path.count] == UInt8(ascii: "/") ? .unknown : .no
        case .contentSize(let comparison, let bound):
            guard let size = facts.contentSize else { return .unknown }
            let holds =
                switch comparison {
                case .lt: size < bound
                case .lte: size <= bound
                case .gt: size > bound
                case .gte: size >= bound
                }
            return holds ? .yes : .no
        }
    }

    /// DESIGN "Between layers": the agent's own rule, else the organisation's answer; never looser than what binds.
    private func combine(_ system: [Match], _ organisation: Match, _ own: Match, _ tightening: [Match]) -> Decision {
        // An organisation layer that matches nothing and has no default is blocked, and so is one that may match
        // nothing because what stands there cannot be judged.
        let organisationTier = organisation.settled ? organisation.tier ?? .blocked : .blocked
        var decision = Decision(
            tier: organisationTier, layer: .organisation,
            rule: organisationTier == organisation.tier ? Int(organisation.rule) : nil,
            system: nil, organisation: organisationTier, agent: own.tier)
        func tighten(_ tier: Tier?, _ layer: PolicyLayer, _ rule: Int32) {
            guard let tier, tier > decision.tier else { return }
            decision.tier = tier
            decision.layer = layer
            decision.rule = rule < 0 ? nil : Int(rule)
        }
        if own.settled, let tier = own.tier {
            decision.tier = tier
            decision.layer = .agent
            decision.rule = Int(own.rule)
            tighten(organisation.floor, .organisation, organisation.floorRule)
        } else {
            for match in tightening {
                tighten(match.tier, .agent, match.rule)
                decision.agent = [decision.agent, match.tier].compactMap { $0 }.max()
            }
            // An own rule that could not be judged may hold: the stricter of both worlds.
            tighten(own.tier, .agent, own.rule)
        }
        for match in system {
            decision.system = max(decision.system ?? .autonomous, match.tier ?? .autonomous)
            tighten(match.tier, .system, match.rule)
        }
        decision.indeterminate =
            organisation.indeterminate || own.indeterminate || system.contains { $0.indeterminate }
            || tightening.contains { $0.indeterminate }
        return decision
    }

    /// Every answer a chain can give for some arguments, conditions taken as independent: looser than the truth, so a
    /// capability is never hidden that some call could use.
    private func reachable(_ chain: [CompiledRule]) -> [Match] {
        var matches: [Match] = []
        for rule in chain {
            var match = Match()
            match.add(rule)
            match.settled = true
            matches.append(match)
            if rule.conditions.isEmpty { return matches }
        }
        return matches + [Match()]
    }
}

/// Whether `path` is `directory` or lies below it, by whole components. `directory` has no trailing slash; the root is
/// empty. Bytes are compared, as the file system does.
package func pathIsUnder(_ path: UnsafeBufferPointer<UInt8>, _ directory: [UInt8]) -> Bool {
    let count = directory.count
    guard path.count >= count, path.count == count || count == 0 || path[count] == UInt8(ascii: "/") else {
        return false
    }
    // From the end: prefixes of one policy share their beginning.
    var index = count
    while index > 0 {
        index -= 1
        if path[index] != directory[index] { return false }
    }
    return true
}

extension Array where Element == [CompiledPolicy.Match] {
    /// One choice out of each, in all ways; a single empty choice for no elements.
    var combinations: [[CompiledPolicy.Match]] {
        reduce([[]]) { partial, choices in partial.flatMap { head in choices.map { head + [$0] } } }
    }
}
