package import KruxCore

/// The answer to a call and where it comes from.
package struct Decision: Sendable, Equatable {
    /// What settled the tier, when it was not a rule.
    package enum Cause: String, Sendable {
        case rule
        /// No rule matched, and the organisation has no default.
        case noRule = "no_rule"
        /// The agent's own document does not compile.
        case broken
        case mode, grant
        case rateLimit = "rate_limit"
    }

    package var tier: Tier
    package var layer: PolicyLayer
    package var cause: Cause = .rule
    /// Index into `CompiledPolicy.rules`: the rule that gave the tier, or that asked for what a grant answered.
    package var rule: Int?
    /// What each layer said: nil for no match.
    package var system: Tier?
    package var organisation: Tier?
    package var agent: Tier?
    package var mode: Mode = .auto
    /// Some condition could not be judged, and the stricter side was taken.
    package var indeterminate = false
    /// Matching rules with a rate limit, as indices into `CompiledPolicy.rules`.
    package var limits: [Int32] = []
    /// Matching rules that say how a question is answered, as indices into `CompiledPolicy.rules`.
    package var terms: [Int32] = []
    /// The box that a process of the call is put into.
    package var sandbox = SandboxSettings()

    mutating func tighten(_ tier: Tier?, _ layer: PolicyLayer, _ rule: Int32) {
        guard let tier, tier > self.tier else { return }
        self.tier = tier
        self.layer = layer
        self.rule = rule < 0 ? nil : Int(rule)
        cause = rule < 0 ? .noRule : .rule
    }
}

extension CompiledPolicy {
    /// More combinations of values than this are not decided one by one.
    static let maxVariants = 2_000

    /// Decides a call, rate limits aside. A pure function of the policy and the facts; a call with several values for
    /// one condition is decided once for each, and the strictest answer stands. Without allocation for a call with one
    /// value of each kind under rules on paths and sizes.
    package func decide(_ facts: CallFacts) -> Decision {
        if !brokenAgents.isEmpty, brokenAgents[facts.agent] != nil {
            return Decision(tier: .blocked, layer: .agent, cause: .broken, rule: nil, agent: .blocked)
        }
        let layer = agents[facts.agent]
        if !hasSeveralValues(facts) { return decide(facts, Variant(), layer) }
        var strictest: Decision?
        forEachVariant(facts) { facts, variant in
            let decision = decide(facts, variant, layer)
            guard let before = strictest else {
                strictest = decision
                return
            }
            var next = decision.tier > before.tier ? decision : before
            next.indeterminate = before.indeterminate || decision.indeterminate
            next.limits = before.limits + decision.limits.filter { !before.limits.contains($0) }
            next.terms = before.terms + decision.terms.filter { !before.terms.contains($0) }
            next.sandbox = before.sandbox.tightened(by: decision.sandbox)
            strictest = next
        }
        return strictest ?? decide(facts, Variant(), layer)
    }

    @inline(__always)
    func hasSeveralValues(_ facts: CallFacts) -> Bool {
        facts.paths.count > 1 || facts.lines.count > 1 || facts.recipients.count > 1
            || !listArguments[facts.capability].isEmpty || facts.hidden != nil
    }

    /// Every combination of the call's values, the last kind changing fastest.
    func forEachVariant(_ facts: CallFacts, _ body: (CallFacts, Variant) -> Void) {
        let lists = listArguments[facts.capability]
        let hidden = facts.hidden?.counts ?? []
        func count(_ known: Int, _ place: Int) -> Int { max(known, place < hidden.count ? hidden[place] : 0, 1) }
        let counts =
            [count(facts.paths.count, 0), count(facts.lines.count, 1), count(facts.recipients.count, 2)]
            + lists.enumerated().map { count(facts.arguments[$1]?.array?.count ?? 0, 3 + $0) }
        let total = counts.reduce(1) { min($0 * $1, Self.maxVariants + 1) }
        guard total <= Self.maxVariants else {
            // Too many to look at: where there are several, none can be judged.
            var blurred = facts
            if facts.paths.count > 1 { blurred.paths = [] }
            if facts.lines.count > 1 { blurred.lines = [.opaque] }
            if facts.recipients.count > 1 { blurred.recipients = [] }
            return body(blurred, Variant(elements: counts.dropFirst(3).map { $0 > 1 ? .max : 0 }))
        }
        var places = Array(repeating: 0, count: counts.count)
        for ordinal in 0..<total {
            body(
                facts,
                Variant(
                    path: places[0], line: places[1], recipient: places[2], elements: Array(places.dropFirst(3)),
                    ordinal: ordinal))
            for place in places.indices.reversed() {
                places[place] += 1
                if places[place] < counts[place] { break }
                places[place] = 0
            }
        }
    }

    /// What one chain of rules says, or several that are asked side by side.
    struct Match {
        /// The strictest of the rules that may hold; nil when none can.
        var tier: Tier?
        var rule: Int32 = -1
        /// The strictest tier that no lower layer may loosen.
        var floor: Tier?
        var floorRule: Int32 = -1
        /// The strictest tier of a locked rule, which no grant may loosen.
        var locked: Tier?
        /// A rule surely holds; false when the chain ran out, perhaps past rules that could not be judged.
        var settled = false
        var indeterminate = false
        var limits: [Int32] = []
        var terms: [Int32] = []
        /// What the rule that surely holds says of the box.
        var box: SandboxSettings?
        /// What rules say of it that only may hold: they tighten, and never loosen.
        var limit: SandboxSettings?

        @inline(__always)
        mutating func add(_ candidate: CompiledRule) {
            if tier.map({ candidate.tier > $0 }) ?? true {
                tier = candidate.tier
                rule = candidate.index
            }
            if candidate.binds, floor.map({ candidate.tier > $0 }) ?? true {
                floor = candidate.tier
                floorRule = candidate.index
            }
            if candidate.locked, locked.map({ candidate.tier > $0 }) ?? true { locked = candidate.tier }
            if candidate.limited { limits.append(candidate.index) }
            if candidate.hasTerms { terms.append(candidate.index) }
        }

        static func both(_ one: SandboxSettings?, _ other: SandboxSettings?) -> SandboxSettings? {
            guard let one, let other else { return one ?? other }
            return one.tightened(by: other)
        }

        /// Both, the stricter standing.
        mutating func join(_ other: Match) {
            if let their = other.tier, tier.map({ their > $0 }) ?? true {
                tier = their
                rule = other.rule
            }
            if let their = other.locked, locked.map({ their > $0 }) ?? true { locked = their }
            indeterminate = indeterminate || other.indeterminate
            if !other.limits.isEmpty { limits += other.limits }
            if !other.terms.isEmpty { terms += other.terms }
            box = Self.both(box, other.box)
            limit = Self.both(limit, other.limit)
        }
    }

    func decide(_ facts: CallFacts, _ variant: Variant, _ layer: AgentLayer?) -> Decision {
        let organisation = match(organisation, facts, variant)
        var own = Match()
        var tightening = Match()
        if let layer {
            own = match(layer.own, facts, variant)
            // What the agent extends is asked only when no own rule surely matched.
            if !own.settled {
                for table in layer.tightening { tightening.join(match(table, facts, variant)) }
            }
        }
        var system = Match()
        for table in self.system { system.join(match(table, facts, variant)) }
        let mode = facts.mode ?? layer?.mode ?? mode(ofRole: facts.role ?? layer?.role)
        return combine(system, organisation, own, tightening, facts, mode)
    }

    private func match(_ table: Int, _ facts: CallFacts, _ variant: Variant) -> Match {
        var match = Match()
        ask(table, facts, variant) { rule, truth in
            match.add(rule)
            if truth == .yes {
                match.settled = true
                match.box = rule.sandbox
            } else {
                match.indeterminate = true
                if let sandbox = rule.sandbox { match.limit = Match.both(match.limit, sandbox) }
            }
        }
        return match
    }

    /// Asks the rules of a table in order until one surely holds; `answer` gets those that hold or may hold.
    @inline(__always)
    func ask(_ table: Int, _ facts: CallFacts, _ variant: Variant, _ answer: (CompiledRule, Truth) -> Void) {
        let chain = tables[table].chain(facts.capability)
        // A call that touches what lies below its path may meet rules for folders there.
        if chain.count >= PathIndex.shortest, !facts.reachesBelow, facts.hidden == nil,
            variant.path < facts.paths.count,
            let index = tables[table].indexes[Int(tables[table].chainOf[facts.capability])]
        {
            let asked = index.forEachPlace(facts.paths[variant.path]) { place in
                let truth = truth(all: chain[place].conditions, facts, variant)
                if truth != .no { answer(chain[place], truth) }
                return truth == .yes
            }
            if asked { return }
        }
        for rule in chain {
            switch truth(all: rule.conditions, facts, variant) {
            case .no: continue
            case .unknown: answer(rule, .unknown)
            case .yes: return answer(rule, .yes)
            }
        }
    }

    /// DESIGN "Between layers": the agent's own rule, else the organisation's answer; never looser than what binds.
    private func combine(
        _ system: Match, _ organisation: Match, _ own: Match, _ tightening: Match, _ facts: CallFacts, _ mode: Mode
    ) -> Decision {
        // An organisation layer that matches nothing and has no default is blocked, and so is one that may match
        // nothing because what stands there cannot be judged.
        let organisationTier = organisation.settled ? organisation.tier ?? .blocked : .blocked
        let given = organisationTier == organisation.tier
        var decision = Decision(
            tier: organisationTier, layer: .organisation, cause: given ? .rule : .noRule,
            rule: given ? Int(organisation.rule) : nil, organisation: organisationTier, agent: own.tier, mode: mode)
        if own.settled, let tier = own.tier {
            decision.tier = tier
            decision.layer = .agent
            decision.rule = Int(own.rule)
            decision.cause = .rule
            decision.tighten(organisation.floor, .organisation, organisation.floorRule)
        } else {
            decision.tighten(tightening.tier, .agent, tightening.rule)
            if let tier = tightening.tier { decision.agent = decision.agent.map { max($0, tier) } ?? tier }
            // An own rule that could not be judged may hold: the stricter of both worlds.
            decision.tighten(own.tier, .agent, own.rule)
        }
        if mode != .auto, capabilities[facts.capability].effect != .read {
            let least: Tier = mode == .explore ? .blocked : .approvalRequired
            if decision.tier < least {
                decision.tier = least
                decision.cause = .mode
            }
        }
        if facts.grant, grantsAllowed, decision.tier == .approvalRequired {
            func asks(_ locked: Tier?) -> Bool { locked.map { $0 >= .approvalRequired } ?? false }
            if !asks(organisation.locked), !asks(own.locked), !asks(tightening.locked) {
                decision.tier = .notify
                decision.cause = .grant
            }
        }
        decision.system = system.tier
        decision.tighten(system.tier, .system, system.rule)
        decision.indeterminate =
            organisation.indeterminate || own.indeterminate || system.indeterminate || tightening.indeterminate
        decision.limits = organisation.limits
        if !own.limits.isEmpty { decision.limits += own.limits }
        if !tightening.limits.isEmpty { decision.limits += tightening.limits }
        if !system.limits.isEmpty { decision.limits += system.limits }
        decision.terms = organisation.terms
        if !own.terms.isEmpty { decision.terms += own.terms }
        if !tightening.terms.isEmpty { decision.terms += tightening.terms }
        if !system.terms.isEmpty { decision.terms += system.terms }
        decision.sandbox = box(system, organisation, own, tightening)
        return decision
    }

    /// The organisation's rule says which box, or the agent's own; where agents only tighten, or the organisation's rule
    /// binds, an organisation that says nothing means the standard box. Everything else only tightens.
    private func box(_ system: Match, _ organisation: Match, _ own: Match, _ tightening: Match) -> SandboxSettings {
        let standard = SandboxSettings()
        var box = organisation.settled ? organisation.box ?? standard : standard
        if own.settled, let wanted = own.box {
            let binds = tightenOnly || organisation.floor != nil || !organisation.settled
            box = binds || organisation.box != nil ? wanted.tightened(by: box) : wanted
        }
        if let limit = organisation.limit { box = box.tightened(by: limit) }
        if let limit = own.limit { box = box.tightened(by: limit) }
        if let limit = Match.both(tightening.box, tightening.limit) { box = box.tightened(by: limit) }
        if let limit = Match.both(system.box, system.limit) { box = box.tightened(by: limit) }
        return box
    }

    /// The decision when those of its limits are used up for which `isFull` says so.
    package func limited(_ decision: Decision, isFull: (Int32) -> Bool) -> Decision {
        var limited = decision
        for index in decision.limits where isFull(index) {
            let record = rules[Int(index)]
            guard let tier = record.rateLimit?.onExceed, tier > limited.tier else { continue }
            limited.tier = tier
            limited.layer = record.layer
            limited.rule = Int(index)
            limited.cause = .rateLimit
        }
        return limited
    }

    // MARK: Without arguments

    /// The conditions that a decision without arguments could not judge, with the place of their rules.
    package func unjudged(_ facts: CallFacts) -> [(condition: String, rule: String)] {
        tables(for: facts.agent).flatMap { tables[$0].chain(facts.capability) }.flatMap { rule in
            let record = rules[Int(rule.index)]
            return zip(record.conditions, rule.conditions).compactMap { condition, compiled in
                truth(compiled, facts, Variant()) == .unknown
                    ? (condition.text, "\(record.location.file) line \(record.location.line)") : nil
            }
        }
    }

    /// Whether every call of the capability by the agent is blocked, whatever its arguments and circumstances.
    /// - Parameter facts: agent, role, mode and capability are read.
    package func blocksEveryCall(_ facts: CallFacts) -> Bool {
        if brokenAgents[facts.agent] != nil { return true }
        let layer = agents[facts.agent]
        let mode = mode(facts)
        var systems = [Match()]
        for table in system { systems = joined(systems, reachable(table, facts)) }
        var tightenings = [Match()]
        for table in layer?.tightening ?? [] { tightenings = joined(tightenings, reachable(table, facts)) }
        for organisation in reachable(organisation, facts) {
            for own in layer.map({ reachable($0.own, facts) }) ?? [Match()] {
                for system in systems {
                    for tightening in tightenings
                    where combine(system, organisation, own, tightening, facts, mode).tier != .blocked {
                        return false
                    }
                }
            }
        }
        return true
    }

    private func joined(_ some: [Match], _ others: [Match]) -> [Match] {
        distinct(
            some.flatMap { one in
                others.map { other in
                    var both = one
                    both.join(other)
                    return both
                }
            })
    }

    /// Every answer a chain can give for some arguments, conditions taken as independent: looser than the truth, so a
    /// capability is never hidden that some call could use. At most a few, because only tiers count.
    private func reachable(_ table: Int, _ facts: CallFacts) -> [Match] {
        var matches: [Match] = []
        for rule in tables[table].chain(facts.capability) {
            var match = Match()
            match.add(rule)
            match.settled = true
            matches.append(match)
            if rule.conditions.isEmpty { return distinct(matches) }
        }
        return distinct(matches + [Match()])
    }

    private func distinct(_ matches: [Match]) -> [Match] {
        struct Key: Hashable {
            let tier: Tier?, floor: Tier?, locked: Tier?
        }
        var seen: Set<Key> = []
        return matches.filter { seen.insert(Key(tier: $0.tier, floor: $0.floor, locked: $0.locked)).inserted }
    }
}
