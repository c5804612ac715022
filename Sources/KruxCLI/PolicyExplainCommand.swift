import ArgumentParser
import KruxApprovals
import KruxCapabilities
import KruxCore
import KruxRegistry
import KruxEngine
import KruxPolicy
import KruxStore

struct PolicyExplainCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "explain",
        abstract: "Tell every rule a call was asked about, and the smallest edit that would change the answer.",
        discussion: "The edit is printed as a patch for `patch -p1` in the policies folder; nothing is changed.")

    @OptionGroup var common: CommonOptions
    @Option(help: "The agent.") var agent: String
    @Option(help: "The capability.") var capability: String
    @OptionGroup var circumstances: Circumstances
    @Option(help: "The tier the edit should bring about; the next looser one if absent.") var want: String?
    @Flag(help: "Show rules that were not reached, too.") var all = false
    @Argument(help: "Arguments of the call, as key=value.") var arguments: [String] = []

    mutating func run() async throws {
        let force = try PolicyInForce(common)
        let wanted = try want.map { text -> Tier in
            guard let tier = Tier(name: text) else {
                throw ValidationError("`\(text)` is no tier: use \(Tier.allCases.map(\.name).joined(separator: ", "))")
            }
            return tier
        }
        let (facts, known) = try force.facts(
            agent: agent, capability: capability, arguments, time: try circumstances.time(),
            session: try circumstances.session())
        let explanation = force.policy.explain(facts)
        let grants = try grants(force, facts)
        let edit = PolicyEdit.nearest(
            force.version.bundle, force.policy, facts, capability: capability, wanted: wanted,
            catalogue: Capabilities.catalogue)
        if common.json { return Console.print(json(explanation, force.policy, edit, grants)) }
        let decision = explanation.decision
        Console.print(
            """
            Agent:       \(Console.visible(agent))
            Capability:  \(capability)
            Tier:        \(decision.tier.name)
            Source:      \(Console.visible(PolicyText.source(decision, force.policy)))
            Hierarchy:   \(PolicyText.hierarchy(decision))
            """)
        if let reason = decision.rule.flatMap({ force.policy.rules[$0].reason }) {
            Console.print("Reason:      \(Console.visible(reason))")
        }
        if decision.mode != .auto { Console.print("Mode:        \(decision.mode.rawValue)") }
        if explanation.variant.of > 1 {
            Console.print(
                "Values:      decided once for each of \(explanation.variant.of); shown is number \(explanation.variant.index + 1), the strictest"
            )
        }
        for table in explanation.tables { show(table, force.policy) }
        for index in decision.limits {
            let record = force.policy.rules[Int(index)]
            if let limit = record.rateLimit {
                Console.print("\nRate limit:  \(PolicyText.limit(limit)), by \(place(record))")
            }
        }
        for index in decision.terms {
            let record = force.policy.rules[Int(index)]
            guard let terms = record.approval, decision.tier == .approvalRequired else { continue }
            let quorum = terms.quorum > 1 ? "\(terms.quorum) of " : ""
            Console.print("\nAsks:        \(quorum)\(terms.whom), by \(place(record))")
        }
        for (grant, tier) in grants {
            let json = Engine.json(grant, try ApproveCommand.redactor(common), now: Engine.systemClock.now())
            Console.print(
                "\nGrant:       \(grant.id) with \(Console.visible(GrantsCommand.conditions(json))), \(GrantsCommand.lasts(json)) → \(tier.name)"
                    + (tier == .approvalRequired ? ": a lock, or who is asked, is above it" : ""))
        }
        if let edit {
            Console.print("\nNearest change: \(edit.summary) → \(edit.tier.name)\n\n\(edit.patch)")
        } else {
            Console.print(
                "\nNo single edit below the system layer changes the answer\(want.map { " to \($0)" } ?? "").")
        }
        if !known {
            Console.printError("warning: there is no agent `\(agent)`; this is what one of that name would get")
        }
    }

    /// Live grants that fit the call, and what holds with each.
    private func grants(_ force: PolicyInForce, _ facts: CallFacts) throws -> [(grant: Grant, tier: Tier)] {
        let (declaration, now) = (try force.capability(capability).declaration, facts.time)
        let found = try force.store.read(GrantTable.notEnded).filter {
            $0.agent.utf8Equals(agent) && $0.capability.utf8Equals(capability) && $0.isLive(at: now)
        }
        return try found.compactMap { grant in
            let pattern = try GrantPattern(
                grant.conditions, capability: declaration, catalogue: Capabilities.catalogue, source: grant.id)
            guard pattern.covers(facts, force.policy) else { return nil }
            var granted = facts
            granted.grant = true
            let decision = force.policy.decide(granted)
            let agreed = try grant.agreed.map { principal in
                let name = String(principal.drop { $0 != ":" }.dropFirst())
                return Approver(name: name, role: try force.store.read { try SupervisorTable.find($0, name) }?.role)
            }
            let terms = force.policy.decide(facts).terms.compactMap { force.policy.rules[Int($0)].approval }
            let isEnough = terms.allSatisfy { $0.missing(after: agreed) == 0 }
            return (grant, isEnough ? decision.tier : .approvalRequired)
        }
    }

    private func place(_ record: CompiledPolicy.RuleRecord) -> String {
        "\(record.location.file) line \(record.location.line)"
    }

    private func show(_ table: PolicyExplanation.Asked, _ policy: CompiledPolicy) {
        let answer = table.skipped ? "not asked: the agent's own rule answered" : table.tier?.name ?? "no rule"
        Console.print("\n\(table.layer.rawValue) (\(table.title)): \(answer)")
        for considered in table.rules where all || considered.outcome != .notReached {
            let record = policy.rules[considered.rule]
            let sign =
                switch considered.outcome {
                case .matched: "✔"
                case .mayMatch: "?"
                case .noMatch: "✘"
                case .notReached: "·"
                }
            let lock = record.locked ? ", locked" : ""
            Console.print("  \(sign) \(record.pattern) → \(record.tier.name)\(lock)  (\(place(record)))")
            for (condition, truth) in considered.conditions {
                let words = truth == .yes ? "true" : truth == .no ? "false" : "cannot be judged"
                Console.print("      \(Console.visible(condition.text)): \(words)")
            }
        }
        let unreached = table.rules.count { $0.outcome == .notReached }
        if !all, unreached > 0, !table.skipped {
            Console.print("    \(unreached) further rule\(unreached == 1 ? "" : "s") not reached")
        }
    }

    private func json(
        _ explanation: PolicyExplanation, _ policy: CompiledPolicy, _ edit: PolicyEdit?,
        _ grants: [(grant: Grant, tier: Tier)]
    ) -> JSONValue {
        let decision = explanation.decision
        let tables = explanation.tables.map { table -> JSONValue in
            [
                "layer": .string(table.layer.rawValue), "documents": .string(table.title),
                "tier": .optional(table.tier?.name), "asked": .bool(!table.skipped),
                "rules": .array(
                    table.rules.map { considered in
                        let record = policy.rules[considered.rule]
                        return [
                            "pattern": .string(record.pattern), "tier": .string(record.tier.name),
                            "at": .string(record.location.description), "locked": .bool(record.locked),
                            "outcome": .string(considered.outcome.rawValue),
                            "conditions": .array(
                                considered.conditions.map {
                                    [
                                        "condition": .object($0.condition.source),
                                        "truth": $0.truth == .yes ? "true" : $0.truth == .no ? "false" : "unknown",
                                    ]
                                }),
                        ]
                    }),
            ]
        }
        return [
            "agent": .string(agent), "capability": .string(capability), "tier": .string(decision.tier.name),
            "cause": .string(decision.cause.rawValue), "source": .string(PolicyText.source(decision, policy)),
            "hierarchy": .string(PolicyText.hierarchy(decision)), "mode": .string(decision.mode.rawValue),
            "indeterminate": .bool(decision.indeterminate), "tables": .array(tables),
            "grants": .array(grants.map { ["id": .string($0.grant.id), "tier": .string($0.tier.name)] }),
            "asks": .array(decision.terms.compactMap { policy.rules[Int($0)].approval.map { .object($0.json) } }),
            "nearest_change": edit.map {
                [
                    "tier": .string($0.tier.name), "summary": .string($0.summary), "file": .string($0.file),
                    "patch": .string($0.patch),
                ]
            } ?? .null,
        ]
    }
}
