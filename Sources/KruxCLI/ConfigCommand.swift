import ArgumentParser
import KruxCrypto
import Foundation
import KruxCapabilities
import KruxCore
import KruxEngine
import KruxPolicies
import KruxPolicy
import KruxRegistry
import KruxStore

struct ConfigCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "config", abstract: "See, choose and check policies.",
        subcommands: [Show.self, Set.self, Validate.self, CheckPolicy.self, Schema.self])

    struct Show: AsyncParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Show a setting.", subcommands: [Policy.self, System.self, Retention.self])

        struct Policy: AsyncParsableCommand {
            static let configuration = CommandConfiguration(abstract: "Show which policy is in force.")
            @OptionGroup var common: CommonOptions

            mutating func run() async throws {
                let force = try PolicyInForce(common)
                let version = force.version
                let source = "\(force.home.policies)/\(force.policy.active.file)"
                if common.json {
                    let last = try force.store.read { try PolicyVersions.activation($0, version.version) }
                    return Console.print([
                        "name": .string(force.policy.active.name), "source": .string(source),
                        "version": .int(version.version), "digest": .string(version.digest.hex),
                        "activated_at": .string((last?.at ?? version.createdAt).rfc3339),
                        "activated_by": .string(last?.by ?? version.createdBy),
                    ])
                }
                Console.print(
                    "Active policy: \(Console.visible(force.policy.active.name))\nSource: \(Console.visible(source))")
            }
        }

        struct Retention: AsyncParsableCommand {
            static let configuration = CommandConfiguration(abstract: "Show how long the record keeps what calls held.")
            @OptionGroup var common: CommonOptions

            mutating func run() async throws {
                let seconds = try common.openForReading().read(Engine.retention)
                if common.json { return Console.print(["retention_seconds": .optional(seconds)]) }
                Console.print("Retention: " + (seconds.map(HumanDuration.short) ?? "off, everything is kept"))
            }
        }

        struct System: AsyncParsableCommand {
            static let configuration = CommandConfiguration(abstract: "Print the system layer that is compiled in.")

            mutating func run() async throws {
                Console.print(String(decoding: BuiltInPolicies.system, as: UTF8.self).trimmingCharacters(in: .newlines))
            }
        }
    }

    struct Set: AsyncParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Change a setting.", subcommands: [Policy.self, Retention.self])

        struct Retention: AsyncParsableCommand {
            static let configuration = CommandConfiguration(
                abstract: "Forget the bodies of calls after some time; `off` keeps them.",
                discussion: "The gateway prunes when it starts and once a day; see `kruxos audit prune`.")
            @OptionGroup var common: CommonOptions
            @Argument(help: "90d, 52w … or off.") var age: String

            mutating func run() async throws {
                let span = HumanDuration(age)
                guard age == "off" || span != nil else {
                    throw ValidationError("`\(age)` is no duration; write 90d, or off")
                }
                let result = try await OperatorClient(home: try common.resolveHome()).run(
                    .retentionSet, ["seconds": .optional(span?.seconds)])
                if common.json { return Console.print(.object(result)) }
                Console.print(
                    "Retention: " + (span.map { HumanDuration.short($0.seconds) } ?? "off, everything is kept"))
            }
        }

        struct Policy: AsyncParsableCommand {
            static let configuration = CommandConfiguration(
                abstract: "Put a policy of the policies folder in force; reads all its files anew.")
            @OptionGroup var common: CommonOptions
            @Argument(help: "Its name.") var name: String

            mutating func run() async throws {
                let client = OperatorClient(home: try common.resolveHome())
                let result = try await client.run(.policySet, ["name": .string(name)])
                if common.json { return Console.print(.object(result)) }
                Console.print(
                    "Active policy: \(Console.visible(result["name"]?.string ?? name))\nSource: \(Console.visible(result["source"]?.string ?? "-"))"
                )
                for warning in result["warnings"]?.array ?? [] {
                    Console.printError("warning: \(warning.string ?? "")")
                }
                if let problem = result["problem"]?.string {
                    for line in problem.split(separator: "\n") { Console.printError("error: \(line)") }
                    Console.printError("  - these agents keep the rules they had, or are blocked if they had none")
                    throw KruxExit.badPolicy
                }
            }
        }
    }

    struct Validate: AsyncParsableCommand {
        static let configuration = CommandConfiguration(abstract: "Check policy files without putting them in force.")
        @OptionGroup var common: CommonOptions
        @Argument(help: "The files.") var files: [String]

        mutating func run() async throws {
            var results: [JSONValue] = []
            var failed = false
            for (index, file) in files.enumerated() {
                if index > 0, !common.json { Console.print("") }
                guard let data = FileManager.default.contents(atPath: file) else {
                    Console.printError("error: `\(file)` cannot be read")
                    failed = true
                    continue
                }
                do {
                    let report = try PolicyReport(file: file, text: [UInt8](data), folder: policies())
                    results.append(report.json)
                    if !common.json { Console.print(report.text) }
                } catch let errors as PolicyErrors {
                    failed = true
                    for diagnostic in errors.diagnostics { Console.printError("error: \(diagnostic)") }
                    results.append([
                        "file": .string(file), "valid": false,
                        "errors": .strings(errors.diagnostics.map(\.description)),
                    ])
                }
            }
            if common.json { Console.print(.array(results)) }
            if failed { throw KruxExit.badPolicy }
        }

        /// The home's folder for what `extends` names; none is needed.
        private func policies() -> PolicyFolder? { (try? common.resolveHome()).map { PolicyFolder(path: $0.policies) } }
    }

    struct Schema: AsyncParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Print the JSON Schema of the policy language, for editors.",
            discussion: """
                With the YAML extension of an editor, put this at the head of a policy:
                  # yaml-language-server: $schema=policy.schema.json
                """)

        mutating func run() async throws {
            Console.print(String(decoding: BuiltInPolicies.schema, as: UTF8.self).trimmingCharacters(in: .newlines))
        }
    }

    struct CheckPolicy: AsyncParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Tell which tier a call would get, and why.",
            discussion: "Without arguments, conditions on them cannot be judged, and the strictest tier is shown.")
        @OptionGroup var common: CommonOptions
        @Option(help: "The agent.") var agent: String
        @Option(help: "The capability.") var capability: String
        @OptionGroup var circumstances: Circumstances
        @Argument(help: "Arguments of the call, as key=value.") var arguments: [String] = []

        mutating func run() async throws {
            let force = try PolicyInForce(common)
            let (facts, known) = try force.facts(
                agent: agent, capability: capability, arguments, time: try circumstances.time(),
                session: try circumstances.session())
            let decision = force.policy.decide(facts)
            let rule = decision.rule.map { force.policy.rules[$0] }
            let source = PolicyText.source(decision, force.policy)
            let hierarchy = PolicyText.hierarchy(decision)
            let unjudged = force.policy.unjudged(facts)
            if common.json {
                return Console.print([
                    "agent": .string(agent), "capability": .string(capability), "tier": .string(decision.tier.name),
                    "source": .string(source), "hierarchy": .string(hierarchy), "reason": .optional(rule?.reason),
                    "mode": .string(decision.mode.rawValue), "indeterminate": .bool(decision.indeterminate),
                    "not_judged": .array(
                        unjudged.map { ["condition": .string($0.condition), "rule": .string($0.rule)] }),
                ])
            }
            Console.print(
                """
                Agent:       \(Console.visible(agent))
                Capability:  \(capability)
                Tier:        \(decision.tier.name)
                Source:      \(Console.visible(source))
                Hierarchy:   \(hierarchy)
                """)
            if decision.mode != .auto { Console.print("Mode:        \(decision.mode.rawValue)") }
            for index in decision.limits {
                let record = force.policy.rules[Int(index)]
                guard let limit = record.rateLimit else { continue }
                Console.print(
                    "Rate limit:  \(PolicyText.limit(limit)) (\(record.location.file) line \(record.location.line))")
            }
            for (condition, rule) in unjudged { Console.print("Not judged:  \(Console.visible(condition)) (\(rule))") }
            if decision.indeterminate {
                Console.print("Note:        the tier depends on the arguments; the strictest is shown")
            }
            if !known {
                Console.printError("warning: there is no agent `\(agent)`; this is what one of that name would get")
            }
        }
    }
}

/// Decisions in the words of the user's documents.
enum PolicyText {
    /// `team-moderate.yaml (line 15)`.
    static func source(_ decision: Decision, _ policy: CompiledPolicy) -> String {
        let rule = decision.rule.map { policy.rules[$0].location }
        let place = rule.map { "\($0.file) (line \($0.line))" }
        switch decision.cause {
        case .mode: return "mode \(decision.mode.rawValue)" + (place.map { ", over \($0)" } ?? "")
        case .broken: return "the agent's own policy does not compile"
        case .noRule: return "no rule"
        case .grant: return "a grant" + (place.map { ", over \($0)" } ?? "")
        case .rule, .rateLimit: return place ?? "no rule"
        }
    }

    /// `system(allowed) → org(approval_required) → agent(no override)`.
    static func hierarchy(_ decision: Decision) -> String {
        func name(_ tier: Tier?, _ none: String) -> String { tier?.name ?? none }
        let system = decision.system == .autonomous ? "allowed" : name(decision.system, "allowed")
        let organisation = name(decision.organisation, "no rule")
        let agent = decision.cause == .broken ? "does not compile" : name(decision.agent, "no override")
        return "system(\(system)) → org(\(organisation)) → agent(\(agent))"
    }

    static func limit(_ limit: RateLimit) -> String {
        "\(limit.max) in \(HumanDuration.short(limit.windowSeconds)), then \(limit.onExceed.name)"
    }
}
