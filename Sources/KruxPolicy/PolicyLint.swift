import KruxCore

/// What is right by the language and probably not meant.
package struct PolicyLint {
    package enum Kind: String, Sendable {
        /// No call reaches the rule, because one above it answers for all its capabilities.
        case unreachable
        /// A rule above it matches whatever it matches.
        case shadowed
        /// An agent's rule that says something looser than the organisation's.
        case relaxation
        /// A capability that only `defaults` answers for.
        case defaultOnly = "default_only"
        /// A lock where nothing below could loosen the answer.
        case needlessLock = "needless_lock"
        /// A pattern that covers no capability, and other warnings of the compiler.
        case compiler
    }

    package struct Finding: Sendable {
        package let kind: Kind
        package let location: SourceLocation
        package let message: String
    }

    package static func findings(_ policy: CompiledPolicy) -> [Finding] {
        var found: [Finding] = policy.warnings.map {
            Finding(kind: .compiler, location: $0.location, message: $0.message + ($0.hint.map { "; \($0)" } ?? ""))
        }
        found += unreachable(policy)
        found += relaxations(policy)
        found += defaultOnly(policy)
        found += needlessLocks(policy)
        return found.sorted { $0.location < $1.location }
    }

    /// Rules that stand in no chain, and rules whose conditions one above them has fewer of.
    private static func unreachable(_ policy: CompiledPolicy) -> [Finding] {
        var reached = Array(repeating: false, count: policy.rules.count)
        /// For each rule, the rule above that shadows it in each chain; nil once one chain does not.
        var shadows: [Int: Int?] = [:]
        for table in policy.tables {
            for chain in table.chains {
                var earlier = EarlierRules()
                for rule in chain {
                    let index = Int(rule.index)
                    reached[index] = true
                    let conditions = policy.rules[index].conditions
                    let above = earlier.candidates(conditions).first { candidate in
                        policy.rules[candidate].conditions.allSatisfy { theirs in
                            conditions.contains { $0.implies(theirs) }
                        }
                    }
                    earlier.add(index, conditions)
                    if let above, shadows[index] == nil {
                        shadows[index] = .some(above)
                    } else if above == nil {
                        shadows[index] = .some(nil)
                    }
                }
            }
        }
        return policy.rules.indices.compactMap { index in
            let record = policy.rules[index]
            if !reached[index] {
                if record.isDefault { return nil }
                return Finding(
                    kind: .unreachable, location: record.location,
                    message:
                        "no call reaches this rule for `\(record.pattern)`: rules above it answer for all it covers")
            }
            guard case .some(.some(let above)) = shadows[index] else { return nil }
            let other = policy.rules[above]
            return Finding(
                kind: .shadowed, location: record.location,
                message:
                    "whatever this rule for `\(record.pattern)` matches, `\(other.pattern)` at \(other.location.file):\(other.location.line) matches first"
            )
        }
    }

    /// The rules above one, by their first condition: what shadows a rule has one that the rule's own imply.
    private struct EarlierRules {
        /// Of one kind this many are looked at; a chain of thousands on one kind would take its square.
        private static let most = 500
        private var byFolder: [[UInt8]: [Int]] = [:]
        private var byKey: [String: [Int]] = [:]

        mutating func add(_ rule: Int, _ conditions: [Condition]) {
            guard let first = conditions.first else { return }
            if case .test(.pathPrefix(let directories)) = first.form {
                for directory in directories { byFolder[directory, default: []].append(rule) }
            } else {
                byKey[first.key, default: []].append(rule)
            }
        }

        func candidates(_ conditions: [Condition]) -> [Int] {
            var found: Set<Int> = []
            for (test, _) in conditions.flatMap(\.tests) {
                guard case .pathPrefix(let directories) = test, let path = directories.first else { continue }
                let slash = UInt8(ascii: "/")
                for end in 0...path.count where end == 0 || end == path.count || path[end] == slash {
                    found.formUnion((byFolder[Array(path[..<end])] ?? []).prefix(Self.most))
                }
            }
            // A program's name is implied by a line that begins with it.
            let keys = Set(
                conditions.flatMap(\.tests).map(\.condition.key) + conditions.map(\.key) + ["all", "any", "command"])
            for key in keys { found.formUnion((byKey[key] ?? []).prefix(Self.most)) }
            return found.sorted()
        }
    }

    private struct Pair: Hashable {
        let own: Int32, other: Int32
    }

    private static func relaxations(_ policy: CompiledPolicy) -> [Finding] {
        var found: [Finding] = []
        let organisation = policy.tables[policy.organisation]
        for (agent, layer) in policy.agents.sorted(by: { $0.key < $1.key }) {
            var told: Set<Pair> = []
            for capability in policy.capabilities.indices {
                for rule in policy.tables[layer.own].chain(capability) {
                    for other in organisation.chain(capability) where rule.tier < other.tier {
                        guard told.insert(Pair(own: rule.index, other: other.index)).inserted else { continue }
                        let record = policy.rules[Int(rule.index)]
                        let theirs = policy.rules[Int(other.index)]
                        let effect =
                            other.binds
                            ? "has no effect where that one holds, because it binds" : "loosens it for this agent"
                        found.append(
                            Finding(
                                kind: .relaxation, location: record.location,
                                message:
                                    "`\(record.pattern)` is \(rule.tier.name) for \(agent), looser than `\(theirs.pattern)` \(theirs.tier.name) at \(theirs.location.file):\(theirs.location.line), and \(effect)"
                            ))
                    }
                }
            }
        }
        return found
    }

    private static func defaultOnly(_ policy: CompiledPolicy) -> [Finding] {
        let table = policy.tables[policy.organisation]
        var names: [String] = []
        var location = SourceLocation.nowhere
        for (index, capability) in policy.capabilities.enumerated() {
            guard let first = table.chain(index).first, policy.rules[Int(first.index)].isDefault else { continue }
            names.append(capability.name)
            location = policy.rules[Int(first.index)].location
        }
        if names.isEmpty { return [] }
        let shown = names.prefix(8).joined(separator: ", ") + (names.count > 8 ? " and \(names.count - 8) more" : "")
        return [
            Finding(
                kind: .defaultOnly, location: location,
                message: "\(names.count) capabilities have no rule and get the default: \(shown)")
        ]
    }

    private static func needlessLocks(_ policy: CompiledPolicy) -> [Finding] {
        let inOrganisation = Set(policy.tables[policy.organisation].chains.joined().map { Int($0.index) })
        return policy.rules.enumerated().compactMap { index, record in
            guard record.locked else { return nil }
            let why: String
            if record.tier == .blocked {
                why = "what is blocked binds anyway, and no grant reaches it"
            } else if record.layer == .system {
                why = "nothing loosens the system layer"
            } else if record.tier == .autonomous {
                why = "nothing is looser than autonomous"
            } else if record.layer == .organisation, inOrganisation.contains(index), policy.tightenOnly,
                record.tier < .approvalRequired
            {
                why = "`agent_overrides: tighten_only` binds every rule, and grants answer only approvals"
            } else {
                return nil
            }
            return Finding(
                kind: .needlessLock, location: record.location,
                message: "the lock on `\(record.pattern)` does nothing: \(why)")
        }
    }
}

extension Condition {
    /// Whether it holds only where `other` holds, as far as that can be seen from what they are.
    fileprivate func implies(_ other: Condition) -> Bool {
        if self == other { return true }
        switch (form, other.form) {
        case (.test(let mine), .test(let theirs)): return mine.implies(theirs)
        case (.all(let parts), _): return parts.contains { $0.implies(other) }
        case (.any(let parts), _): return parts.allSatisfy { $0.implies(other) }
        case (_, .all(let parts)): return parts.allSatisfy { implies($0) }
        case (_, .any(let parts)): return parts.contains { implies($0) }
        default: return false
        }
    }
}

extension Condition.Test {
    fileprivate func implies(_ other: Condition.Test) -> Bool {
        /// Each of these is covered by one of those.
        func each<T>(_ mine: [T], _ theirs: [T], _ covers: (T, T) -> Bool) -> Bool {
            mine.allSatisfy { one in theirs.contains { covers($0, one) } }
        }
        switch (self, other) {
        case (.pathPrefix(let mine), .pathPrefix(let theirs)): return each(mine, theirs) { pathIsUnder($1, $0) }
        case (.contentSize(let mine, let bound), .contentSize(let theirs, let limit)):
            switch (mine, theirs) {
            case (.lt, .lt), (.lte, .lte): return bound <= limit
            case (.gt, .gt), (.gte, .gte): return bound >= limit
            case (.lt, .lte): return bound <= limit || bound - 1 <= limit
            case (.lte, .lt): return bound < limit
            case (.gt, .gte): return bound + 1 >= limit
            case (.gte, .gt): return bound > limit
            default: return false
            }
        case (.command(let mine), .command(let theirs)), (.method(let mine), .method(let theirs)),
            (.argsContain(let mine), .argsContain(let theirs)), (.recipient(let mine), .recipient(let theirs)):
            return each(mine, theirs) { $0.utf8Equals($1) }
        case (.commandPrefix(let mine), .commandPrefix(let theirs)): return each(mine, theirs) { $1.starts(with: $0) }
        case (.commandPrefix(let mine), .command(let theirs)):
            return mine.allSatisfy { words in theirs.contains { $0.utf8Equals(words[0]) } }
        case (.host(let mine), .host(let theirs)), (.recipientDomain(let mine), .recipientDomain(let theirs)):
            return each(mine, theirs) { $0.utf8Equals($1) || !$1.hasPrefix("*") && WebAddress.matches($1, $0) }
        case (.urlPrefix(let mine), .urlPrefix(let theirs)): return each(mine, theirs) { $1.isUnder($0) }
        case (.port(let mine), .port(let theirs)): return each(mine, theirs, ==)
        case (.keyPrefix(let mine), .keyPrefix(let theirs)): return each(mine, theirs) { $1.utf8.starts(with: $0.utf8) }
        case (.sessionAge(let mine), .sessionAge(let theirs)), (.sessionCalls(let mine), .sessionCalls(let theirs)):
            return mine <= theirs
        default: return false
        }
    }
}
