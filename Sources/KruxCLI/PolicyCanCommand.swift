import ArgumentParser
import KruxCapabilities
import KruxCore
import KruxEngine
import KruxPolicy

struct PolicyCanCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "can", abstract: "Tell whether an agent can ever make a call, with one that it can.",
        discussion: """
            Looks for arguments, times and sessions under which the call gets the tier or a looser one. Rate limits \
            are left aside. Ends with 4 when there is none.
            """)

    @OptionGroup var common: CommonOptions
    @Option(help: "The agent.") var agent: String
    @Option(help: "The capability.") var capability: String
    @Option(help: "The strictest tier that counts.") var tier = "notify"
    @Option(name: .customLong("where"), parsing: .upToNextOption, help: "Arguments that are fixed, as key=value.")
    var fixed: [String] = []

    mutating func run() async throws {
        guard let wanted = Tier(name: tier) else {
            throw ValidationError("`\(tier)` is no tier: use \(Tier.allCases.map(\.name).joined(separator: ", "))")
        }
        let force = try PolicyInForce(common)
        let (facts, known) = try force.facts(
            agent: agent, capability: capability, fixed, time: Engine.systemClock.now())
        let result = PolicySearch.run(
            force.policy, facts, declaration: try force.capability(capability).declaration, upTo: wanted)
        if common.json {
            Console.print([
                "agent": .string(agent), "capability": .string(capability), "tier": .string(wanted.name),
                "possible": .bool(result.witness != nil), "exact": .bool(result.isExact),
                "call": .strings(result.witness?.call ?? []),
                "gets": .optional(result.witness?.decision.tier.name), "tried": .int(Int64(result.tried)),
                "approximations": .strings(result.approximations),
            ])
        } else if let witness = result.witness {
            let call = fixed + witness.call
            Console.print("Yes: \(Console.visible(agent)) gets \(witness.decision.tier.name) for \(capability)")
            for line in call { Console.print("  \(Console.visible(line))") }
            Console.print("  by \(PolicyText.source(witness.decision, force.policy))")
        } else {
            Console.print(
                "\(result.isExact ? "No" : "None found"): no call of \(capability) by \(Console.visible(agent)) gets \(wanted.name) or looser"
            )
            for approximation in result.approximations { Console.print("  Approximate: \(approximation)") }
        }
        if !known {
            Console.printError("warning: there is no agent `\(agent)`; this is what one of that name would get")
        }
        if result.witness == nil { throw KruxExit.denied }
    }
}
