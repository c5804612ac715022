package import KruxCore

/// Why a call gets its answer: every layer, every rule that was considered, and each of its conditions.
package struct PolicyExplanation: Sendable {
    package struct Considered: Sendable {
        package enum Outcome: String, Sendable {
            /// It surely holds, and answers for its table.
            case matched
            /// It may hold: its tier counts when it is stricter.
            case mayMatch = "may_match"
            case noMatch = "no_match"
            /// A rule above it answered already.
            case notReached = "not_reached"
        }

        /// Index into `CompiledPolicy.rules`.
        package let rule: Int
        package let outcome: Outcome
        package let conditions: [(condition: Condition, truth: Truth)]
    }

    /// One table of rules as it was asked.
    package struct Asked: Sendable {
        package let layer: PolicyLayer
        /// The files it is made of.
        package let title: String
        package let rules: [Considered]
        /// Nil when no rule of it can hold.
        package let tier: Tier?
        /// It was not asked, because the agent's own rule answered.
        package let skipped: Bool
    }

    package let decision: Decision
    /// System, organisation, agent; in the order in which the decision reads them.
    package let tables: [Asked]
    /// For a call with several values, which combination gave the answer, from 0, and how many there are.
    package let variant: (index: Int, of: Int)
}

extension CompiledPolicy {
    /// Decides the call with a protocol of it. Agrees with `decide`; slow.
    package func explain(_ facts: CallFacts) -> PolicyExplanation {
        let decision = decide(facts)
        var answering: (facts: CallFacts, variant: Variant)?
        var count = 0
        forEachVariant(facts) { facts, variant in
            count += 1
            // The first of the strictest gave the answer.
            if answering == nil, decide(facts, variant, agents[facts.agent]).tier == decision.tier {
                answering = (facts, variant)
            }
        }
        return PolicyExplanation(
            decision: decision, tables: tables(answering?.facts ?? facts, answering?.variant ?? Variant()),
            variant: (answering?.variant.ordinal ?? 0, count))
    }

    private func tables(_ facts: CallFacts, _ variant: Variant) -> [PolicyExplanation.Asked] {
        var result = system.map { asked($0, .system, facts, variant) }
        result.append(asked(organisation, .organisation, facts, variant))
        guard brokenAgents[facts.agent] == nil, let layer = agents[facts.agent] else { return result }
        let own = asked(layer.own, .agent, facts, variant)
        let settled = own.rules.contains { $0.outcome == .matched }
        result.append(own)
        for table in layer.tightening { result.append(asked(table, .agent, facts, variant, skipped: settled)) }
        return result
    }

    private func asked(
        _ table: Int, _ layer: PolicyLayer, _ facts: CallFacts, _ variant: Variant, skipped: Bool = false
    ) -> PolicyExplanation.Asked {
        var rules: [PolicyExplanation.Considered] = []
        var tier: Tier?
        var settled = skipped
        for rule in tables[table].chain(facts.capability) {
            let record = self.rules[Int(rule.index)]
            if settled {
                rules.append(.init(rule: Int(rule.index), outcome: .notReached, conditions: []))
                continue
            }
            let truths = zip(record.conditions, rule.conditions).map {
                (condition: $0, truth: truth($1, facts, variant))
            }
            let outcome: PolicyExplanation.Considered.Outcome
            if truths.contains(where: { $0.truth == .no }) {
                outcome = .noMatch
            } else {
                outcome = truths.contains { $0.truth == .unknown } ? .mayMatch : .matched
                tier = tier.map { max($0, record.tier) } ?? record.tier
                settled = outcome == .matched
            }
            rules.append(.init(rule: Int(rule.index), outcome: outcome, conditions: truths))
        }
        return .init(layer: layer, title: tables[table].title, rules: rules, tier: tier, skipped: skipped)
    }
}

/// The smallest change of the policy files that changes an answer, found by trying: each candidate is compiled and
/// decided, so what is proposed is what would happen.
package struct PolicyEdit: Sendable {
    /// The file as the policy folder names it.
    package let file: String
    package let before: [UInt8]
    package let after: [UInt8]
    /// The tier the call gets then.
    package let tier: Tier
    /// In words: which rule is changed, and how.
    package let summary: String

    package init(file: String, before: [UInt8], after: [UInt8], tier: Tier, summary: String) {
        self.file = file
        self.before = before
        self.after = after
        self.tier = tier
        self.summary = summary
    }

    /// For `patch -p1` in the policy folder.
    package var patch: String { unifiedDiff(before, after, file: file) }

    /// Signs that are taken away or put in.
    package var cost: Int {
        let old = Array(before), new = Array(after)
        var head = 0
        while head < old.count, head < new.count, old[head] == new[head] { head += 1 }
        var tail = 0
        while tail < old.count - head, tail < new.count - head, old[old.count - 1 - tail] == new[new.count - 1 - tail] {
            tail += 1
        }
        return (old.count - head - tail) + (new.count - head - tail)
    }

    /// - Parameters:
    ///   - wanted: the tier the call should get; nil for any that is looser, or stricter where nothing is.
    ///   - capability: the call's, by name.
    /// - Returns: nil when no single edit below the system layer brings the answer about.
    package static func nearest(
        _ bundle: PolicyBundle, _ policy: CompiledPolicy, _ facts: CallFacts, capability: String, wanted: Tier?,
        catalogue: Catalogue
    ) -> PolicyEdit? {
        let explanation = policy.explain(facts)
        let current = explanation.decision.tier
        let goals: [Tier]
        if let wanted {
            goals = [wanted]
        } else if current == .autonomous {
            goals = Tier.allCases.filter { $0 > current }
        } else {
            goals = Tier.allCases.filter { $0 < current }.reversed()
        }
        for goal in goals {
            var found: [PolicyEdit] = []
            for candidate in candidates(bundle, policy, facts, explanation, capability, goal) {
                guard let changed = bundle.replacing(candidate.file, with: candidate.after),
                    let compiled = try? PolicyCompiler.compile(changed, catalogue: catalogue),
                    let index = compiled.index(of: capability), compiled.brokenAgents[facts.agent] == nil
                else { continue }
                var moved = facts
                moved.capability = index
                let tier = compiled.decide(moved).tier
                guard tier == goal else { continue }
                found.append(
                    PolicyEdit(
                        file: candidate.file, before: candidate.before, after: candidate.after, tier: tier,
                        summary: candidate.summary))
            }
            if let best = found.min(by: { ($0.cost, $0.file) < ($1.cost, $1.file) }) { return best }
        }
        return nil
    }

    /// Of rules that one condition keeps from holding, as many are tried: each is a compilation.
    private static let mostWidenings = 40

    private struct Candidate {
        let file: String
        let before: [UInt8]
        let after: [UInt8]
        let summary: String
    }

    private static func candidates(
        _ bundle: PolicyBundle, _ policy: CompiledPolicy, _ facts: CallFacts, _ explanation: PolicyExplanation,
        _ capability: String, _ goal: Tier
    ) -> [Candidate] {
        var result: [Candidate] = []
        var widenings = 0
        for considered in explanation.tables.flatMap(\.rules) {
            let record = policy.rules[considered.rule]
            guard let source = bundle.source(record.location.file), record.location.file != bundle.system.file else {
                continue
            }
            let place = "\(record.location.file) line \(record.location.line)"
            let holds = considered.outcome == .matched || considered.outcome == .mayMatch
            // Another tier for a rule that holds, or may.
            if holds, record.tier != goal,
                let after = replaceWord(source.text, at: record.tierLocation, record.tier.name, goal.name)
            {
                result.append(
                    Candidate(
                        file: source.file, before: source.text, after: after,
                        summary: "change the tier of `\(record.pattern)` (\(place)) to \(goal.name)"))
            }
            // A lock that stands in the way of a looser rule below.
            if record.locked, holds,
                let after = removeLine(source.text, near: record.location, "locked: true")
            {
                result.append(
                    Candidate(
                        file: source.file, before: source.text, after: after,
                        summary: "unlock `\(record.pattern)` (\(place))"))
            }
            // A rule of the wanted tier that one condition keeps from matching.
            let failing = considered.conditions.filter { $0.truth != .yes }
            if record.tier == goal, failing.count == 1, widenings < mostWidenings,
                let condition = failing.first?.condition
            {
                widenings += 1
                for (old, new) in widened(condition, facts) {
                    guard let after = replaceWord(source.text, at: condition.location, old, new, within: 400) else {
                        continue
                    }
                    result.append(
                        Candidate(
                            file: source.file, before: source.text, after: after,
                            summary: "let `\(condition.key)` of `\(record.pattern)` (\(place)) fit the call: \(new)"))
                }
            }
        }
        // A rule of its own for the agent, first in its file.
        let own = bundle.agents[facts.agent]
        let file = own?.file ?? "agents/\(facts.agent).yaml"
        if let after = inserting(["- capability: \(capability)", "  tier: \(goal.name)"], into: own?.text ?? []) {
            result.append(
                Candidate(
                    file: file, before: own?.text ?? [], after: after,
                    summary: "add a rule for `\(capability)` to \(file)"))
        }
        return result
    }

    /// A document with a rule more at the head of its `rules:`, which are added when there are none.
    /// - Parameter rule: the lines of a list's element, from its dash on.
    /// - Returns: nil for a document whose list is written on one line.
    package static func inserting(_ rule: [String], into text: [UInt8]) -> [UInt8]? {
        let whole = String(decoding: text, as: UTF8.self)
        var lines = whole.split(separator: "\n", omittingEmptySubsequences: false).map(String.init)
        if let index = lines.firstIndex(where: { $0 == "rules:" || $0.hasPrefix("rules: #") }) {
            // The elements of one list stand in one column.
            let indent =
                lines.dropFirst(index + 1).first { $0.drop { $0 == " " }.hasPrefix("-") }
                .map { String($0.prefix { $0 == " " }) } ?? "  "
            lines.insert(contentsOf: rule.map { indent + $0 }, at: index + 1)
            return Array(lines.joined(separator: "\n").utf8)
        }
        if lines.contains(where: { $0.hasPrefix("rules") }) { return nil }
        let end = whole.isEmpty || whole.hasSuffix("\n") ? "" : "\n"
        return Array((whole + end + "rules:\n" + rule.map { "  \($0)\n" }.joined()).utf8)
    }

    /// For a condition that does not fit, the words that would make it: as little more as the call needs.
    private static func widened(_ condition: Condition, _ facts: CallFacts) -> [(String, String)] {
        guard case .test(let test) = condition.form, let written = condition.source.members.first?.value else {
            return []
        }
        func scalar(_ new: String?) -> [(String, String)] {
            guard let new else { return [] }
            switch written {
            case .string(let old): return [(old, new)]
            case .int(let old): return [("\(old)", new)]
            default: return []
            }
        }
        switch test {
        case .pathPrefix:
            guard let path = facts.paths.first else { return [] }
            let text = String(decoding: path, as: UTF8.self)
            let folder = text.pathComponents.dropLast().map { "/" + $0 }.joined()
            return scalar(folder.isEmpty ? text : folder)
        case .contentSize(let comparison, _):
            guard let size = facts.contentSize else { return [] }
            switch comparison {
            case .lt: return scalar("\(size + 1)")
            case .lte, .gte: return scalar("\(size)")
            case .gt: return scalar(size > 0 ? "\(size - 1)" : nil)
            }
        case .command:
            if case .words(let words, _)? = facts.lines.first { return scalar(words.first) }
            return []
        case .host: return scalar(facts.host)
        case .method: return scalar(facts.method)
        case .port: return scalar(facts.port.map { "\($0)" })
        case .recipient: return scalar(facts.recipients.first?.text)
        case .recipientDomain: return scalar(facts.recipients.first?.domain)
        case .keyPrefix: return scalar(facts.key)
        default: return []
        }
    }

    private static func offset(_ text: [UInt8], _ location: SourceLocation) -> Int? {
        var line = 1
        var index = 0
        while line < location.line {
            guard let end = text[index...].firstIndex(of: 0x0A) else { return nil }
            index = end + 1
            line += 1
        }
        // Columns count scalars.
        let rest = String(decoding: text[index...], as: UTF8.self).unicodeScalars
        let skipped = String(String.UnicodeScalarView(rest.prefix(location.column - 1)))
        return index + skipped.utf8.count
    }

    /// `old` replaced by `new` where it stands at or soon after the location.
    private static func replaceWord(
        _ text: [UInt8], at location: SourceLocation, _ old: String, _ new: String, within reach: Int = 2
    ) -> [UInt8]? {
        guard let start = offset(text, location), start <= text.count, !old.isEmpty else { return nil }
        let word = Array(old.utf8)
        for index in start...min(start + reach, text.count) where text[index...].starts(with: word) {
            return Array(text[..<index]) + Array(new.utf8) + Array(text[(index + word.count)...])
        }
        return nil
    }

    /// The first line like `wanted` within a few lines of the location, taken away.
    private static func removeLine(_ text: [UInt8], near location: SourceLocation, _ wanted: String) -> [UInt8]? {
        var lines = String(decoding: text, as: UTF8.self).split(separator: "\n", omittingEmptySubsequences: false)
        let from = max(0, location.line - 1)
        for index in from..<min(from + 8, lines.count) where lines[index].drop(while: { $0 == " " }) == wanted {
            lines.remove(at: index)
            return Array(lines.joined(separator: "\n").utf8)
        }
        return nil
    }
}

extension PolicyBundle {
    /// The source of that name, below the compiled-in system layer.
    package func source(_ file: String) -> PolicySource? {
        if let organisation, organisation.file.utf8Equals(file) { return organisation }
        return (policies + requirements + Array(agents.values)).first { $0.file.utf8Equals(file) }
    }

    /// The bundle with another text for a file; a file of an agent may be new.
    package func replacing(_ file: String, with text: [UInt8]) -> PolicyBundle? {
        var bundle = self
        let source = PolicySource(file: file, text: text)
        if bundle.organisation?.file.utf8Equals(file) ?? false {
            bundle.organisation = source
        } else if let index = bundle.policies.firstIndex(where: { $0.file.utf8Equals(file) }) {
            bundle.policies[index] = source
        } else if let index = bundle.requirements.firstIndex(where: { $0.file.utf8Equals(file) }) {
            bundle.requirements[index] = source
        } else if let agent = bundle.agents.first(where: { $0.value.file.utf8Equals(file) })?.key {
            bundle.agents[agent] = source
        } else if file.hasPrefix("agents/"), file.hasSuffix(".yaml") {
            bundle.agents[String(file.dropFirst(7).dropLast(5))] = source
        } else {
            return nil
        }
        return bundle
    }
}
