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
        subcommands: [Show.self, Set.self, Validate.self, CheckPolicy.self])

    struct Show: AsyncParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Show a setting.", subcommands: [Policy.self, System.self])

        struct Policy: AsyncParsableCommand {
            static let configuration = CommandConfiguration(abstract: "Show which policy is in force.")
            @OptionGroup var common: CommonOptions

            mutating func run() async throws {
                let home = try common.resolveHome()
                guard let version = try common.openForReading().read(PolicyVersions.current) else {
                    throw StructuredError(.notFound, "no policy is in force yet", recovery: ["Start the gateway once."])
                }
                let compiled = try PolicyCompiler.compile(version.bundle, catalogue: Capabilities.catalogue)
                let source = "\(home.policies)/\(compiled.active.file)"
                if common.json {
                    return Console.print([
                        "name": .string(compiled.active.name), "source": .string(source),
                        "version": .int(version.version), "digest": .string(compiled.digest.hex),
                        "activated_at": .string(version.createdAt.rfc3339), "activated_by": .string(version.createdBy),
                    ])
                }
                Console.print("Active policy: \(compiled.active.name)\nSource: \(source)")
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
        static let configuration = CommandConfiguration(abstract: "Change a setting.", subcommands: [Policy.self])

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
                    "Active policy: \(result["name"]?.string ?? name)\nSource: \(result["source"]?.string ?? "-")")
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
            var failed = false
            for (index, file) in files.enumerated() {
                if index > 0 { Console.print("") }
                guard let data = FileManager.default.contents(atPath: file) else {
                    Console.printError("error: `\(file)` cannot be read")
                    failed = true
                    continue
                }
                do {
                    Console.print(try PolicyReport(file: file, text: [UInt8](data), folder: policies()).text)
                } catch let errors as PolicyErrors {
                    failed = true
                    for diagnostic in errors.diagnostics { Console.printError("error: \(diagnostic)") }
                }
            }
            if failed { throw KruxExit.badPolicy }
        }

        /// The home's folder for what `extends` names; none is needed.
        private func policies() -> PolicyFolder? { (try? common.resolveHome()).map { PolicyFolder(path: $0.policies) } }
    }

    struct CheckPolicy: AsyncParsableCommand {
        static let configuration = CommandConfiguration(abstract: "Tell which tier a call would get, and why.")
        @OptionGroup var common: CommonOptions
        @Option(help: "The agent.") var agent: String
        @Option(help: "The capability.") var capability: String

        mutating func run() async throws {
            guard let version = try common.openForReading().read(PolicyVersions.current) else {
                throw StructuredError(.notFound, "no policy is in force yet", recovery: ["Start the gateway once."])
            }
            guard let index = Capabilities.catalogue.index(of: capability) else {
                let hint = nearest(to: capability, among: Capabilities.catalogue.names)
                throw StructuredError(
                    .unknownCapability, "there is no capability `\(capability)`",
                    recovery: hint.map { ["Did you mean `\($0)`?"] } ?? [])
            }
            let compiled = try PolicyCompiler.compile(version.bundle, catalogue: Capabilities.catalogue)
            let decision = compiled.decide(CallFacts(agent: agent, capability: index))
            let rule = decision.rule.map { compiled.rules[$0] }
            let source = rule.map { "\($0.location.file) (line \($0.location.line))" } ?? "no rule"
            let hierarchy =
                "system(\(decision.system.map { $0 == .autonomous ? "allowed" : $0.name } ?? "allowed"))"
                + " → org(\(decision.organisation?.name ?? "no rule"))"
                + " → agent(\(decision.agent?.name ?? "no override"))"
            if common.json {
                return Console.print([
                    "agent": .string(agent), "capability": .string(capability), "tier": .string(decision.tier.name),
                    "source": .string(source), "hierarchy": .string(hierarchy), "reason": .optional(rule?.reason),
                    "indeterminate": .bool(decision.indeterminate),
                ])
            }
            Console.print(
                """
                Agent:       \(Console.visible(agent))
                Capability:  \(capability)
                Tier:        \(decision.tier.name)
                Source:      \(source)
                Hierarchy:   \(hierarchy)
                """)
            if try common.openForReading().read({ [agent] in try AgentTable.find($0, agent) }) == nil {
                Console.printError("warning: there is no agent `\(agent)`; this is what one of that name would get")
            }
            for (condition, rule) in compiled.unjudged(agent: agent, capability: index) {
                Console.print("Not judged:  \(condition) (\(rule))")
            }
            if decision.indeterminate {
                Console.print("Note:        the tier depends on the arguments; the strictest is shown")
            }
        }
    }
}
