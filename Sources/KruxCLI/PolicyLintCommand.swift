import ArgumentParser
import Foundation
import KruxCapabilities
import KruxCore
import KruxEngine
import KruxPolicies
import KruxPolicy
import KruxRegistry

struct PolicyLintCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "lint", abstract: "Find rules that do nothing, or not what they seem to.",
        discussion: "Reads the policies folder as it stands. Ends with 1 when something is found.")

    @OptionGroup var common: CommonOptions
    @Option(help: "The policy to look at as the active one.") var policy: String?

    mutating func run() async throws {
        let force = try PolicyInForce(common)
        let active = policy ?? force.version.bundle.active
        let bundle = try PolicyFolder(path: force.home.policies).bundle(active: active, system: BuiltInPolicies.system)
        let compiled = try PolicyCompiler.compile(bundle, catalogue: Capabilities.catalogue)
        let findings = PolicyLint.findings(compiled)
        for (_, errors) in compiled.brokenAgents.sorted(by: { $0.key < $1.key }) {
            for diagnostic in errors.diagnostics { Console.printError("error: \(diagnostic)") }
        }
        if common.json {
            Console.print(
                .array(
                    findings.map {
                        [
                            "kind": .string($0.kind.rawValue), "at": .string($0.location.description),
                            "message": .string($0.message),
                        ]
                    }))
        } else {
            for finding in findings {
                Console.print("\(finding.location): \(finding.kind.rawValue): \(Console.visible(finding.message))")
            }
            if findings.isEmpty { Console.print("Nothing found.") }
        }
        if !compiled.brokenAgents.isEmpty { throw KruxExit.badPolicy }
        if !findings.isEmpty { throw KruxExit.failed }
    }
}
