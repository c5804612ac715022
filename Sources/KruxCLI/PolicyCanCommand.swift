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
                "call": result.witness.map { json($0) } ?? .null,
                "gets": .optional(result.witness?.decision.tier.name), "tried": .int(Int64(result.tried)),
                "approximations": .strings(result.approximations),
            ])
        } else if let witness = result.witness {
            Console.print("Yes: \(Console.visible(agent)) gets \(witness.decision.tier.name) for \(capability)")
            for member in witness.arguments.members {
                Console.print("  \(Console.visible(Self.text(member.key, member.value)))")
            }
            if let time = witness.time { Console.print("  at \(time.rfc3339)") }
            if let session = witness.session {
                let label = session.label.map { "labelled \(Console.visible($0))" } ?? "without a label"
                Console.print(
                    "  in a session \(label), \(session.ageSeconds) s old, after \(session.calls) calls")
            }
            Console.print("  by \(Console.visible(PolicyText.source(witness.decision, force.policy)))")
            Console.print("Try it: kruxos config check-policy \(Console.visible(commandLine(witness)))")
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

    private func json(_ witness: PolicySearch.Witness) -> JSONValue {
        var json: JSONObject = ["arguments": .object(witness.arguments)]
        if let time = witness.time { json["time"] = .string(time.rfc3339) }
        if let session = witness.session {
            json["session"] = [
                "label": .optional(session.label), "age_seconds": .int(session.ageSeconds),
                "calls": .int(session.calls),
            ]
        }
        return .object(json)
    }

    private static func text(_ name: String, _ value: JSONValue) -> String {
        let text = value.string ?? value.canonicalText
        return text.utf8.count > 200 ? "\(name): \(text.utf8.count) bytes" : "\(name)=\(text)"
    }

    /// The witness as words for a shell.
    private func commandLine(_ witness: PolicySearch.Witness) -> String {
        var words = ["--agent", agent, "--capability", capability]
        if let time = witness.time { words += ["--at", time.rfc3339] }
        if let session = witness.session {
            if let label = session.label { words += ["--session-label", label] }
            words += ["--session-age", "\(session.ageSeconds)s", "--session-calls", "\(session.calls)"]
        }
        words += witness.arguments.members.map { "\($0.key)=\($0.value.string ?? $0.value.canonicalText)" }
        let line = CommandLine.joined(words)
        return line.utf8.count > 2000 ? "… (its arguments are too long to print; use --json)" : line
    }
}
