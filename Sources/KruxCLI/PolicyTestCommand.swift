import ArgumentParser
import Foundation
import KruxCapabilities
import KruxCore
import KruxEngine
import KruxPolicies
import KruxPolicy
import KruxRegistry

struct PolicyTestCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "test", abstract: "Run test suites against policies.",
        discussion: """
            A suite is a YAML file of calls and the tiers they should get; those of the templates are in \
            policies/suites/. Ends with 1 when a test fails.
            """)

    @OptionGroup var common: CommonOptions
    @Option(help: ArgumentHelp("Write the results as JUnit XML, too.", valueName: "file")) var junit: String?
    @Flag(help: "List the rules that no test reaches.") var uncovered = false
    @Argument(help: "The suites.") var files: [String]

    private struct Ran {
        let file: String
        let policy: String
        let report: PolicySuite.Report
    }

    /// A suite that could not be run, and why.
    private struct Broken {
        let file: String
        let errors: [String]
    }

    mutating func run() async throws {
        let bundle = try policies()
        var ran: [Ran] = []
        var broken: [Broken] = []
        for file in files {
            guard let data = FileManager.default.contents(atPath: file) else {
                Console.printError("error: `\(file)` cannot be read")
                broken.append(Broken(file: file, errors: ["cannot be read"]))
                continue
            }
            do throws(PolicyErrors) {
                let suite = try PolicySuite.read([UInt8](data), file: file, catalogue: Capabilities.catalogue)
                let zoned = TimeZones.resolved(bundle)
                ran.append(
                    Ran(
                        file: file, policy: suite.policy ?? bundle.active,
                        report: try suite.run(zoned, catalogue: Capabilities.catalogue)))
            } catch {
                for diagnostic in error.diagnostics { Console.printError("error: \(diagnostic)") }
                broken.append(Broken(file: file, errors: error.diagnostics.map(\.description)))
            }
        }
        if let junit { try writeJUnit(ran, broken, to: junit) }
        if common.json { Console.print(json(ran, broken)) } else { for suite in ran { show(suite) } }
        if !broken.isEmpty { throw KruxExit.badPolicy }
        if ran.contains(where: { $0.report.results.contains { !$0.failures.isEmpty } }) { throw KruxExit.failed }
    }

    /// The home's files as they stand, or the templates where there is no home.
    private func policies() throws -> PolicyBundle {
        let home = try common.resolveHome()
        if FileManager.default.fileExists(atPath: home.policies) {
            let active = (try? PolicyInForce(common).version.bundle.active) ?? "personal-permissive"
            return try PolicyFolder(path: home.policies).bundle(active: active, system: BuiltInPolicies.system)
        }
        return PolicyReport.templates
    }

    private func show(_ ran: Ran) {
        for result in ran.report.results where !result.failures.isEmpty {
            Console.print("✘ \(Console.visible(result.name))  (\(result.location.file):\(result.location.line))")
            for failure in result.failures { Console.print("    \(Console.visible(failure))") }
        }
        let failed = ran.report.results.count { !$0.failures.isEmpty }
        let covered = ran.report.rules.count - ran.report.uncovered.count
        Console.print(
            "\(failed == 0 ? "✔" : "✘") \(ran.file) (\(ran.policy)): \(ran.report.results.count - failed) passed, \(failed) failed, rules covered \(covered)/\(ran.report.rules.count)"
        )
        if uncovered {
            for rule in ran.report.uncovered {
                Console.print("    not covered: \(rule.pattern) → \(rule.tier.name) (\(rule.location))")
            }
        }
    }

    private func json(_ ran: [Ran], _ broken: [Broken]) -> JSONValue {
        .array(
            ran.map { suite in
                [
                    "file": .string(suite.file), "policy": .string(suite.policy),
                    "tests": .array(
                        suite.report.results.map {
                            [
                                "name": .string($0.name), "at": .string($0.location.description),
                                "passed": .bool($0.failures.isEmpty), "failures": .strings($0.failures),
                            ]
                        }),
                    "rules": .int(Int64(suite.report.rules.count)),
                    "rules_covered": .int(Int64(suite.report.rules.count - suite.report.uncovered.count)),
                    "uncovered": .strings(suite.report.uncovered.map { "\($0.pattern) at \($0.location)" }),
                ]
            } + broken.map { ["file": .string($0.file), "errors": .strings($0.errors)] })
    }

    /// The XML that Jenkins, GitLab and GitHub's reporters read.
    private func writeJUnit(_ ran: [Ran], _ broken: [Broken], to file: String) throws {
        let tests = ran.reduce(0) { $0 + $1.report.results.count } + broken.count
        let failures = ran.reduce(0) { $0 + $1.report.results.count { !$0.failures.isEmpty } }
        var text =
            "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<testsuites tests=\"\(tests)\" failures=\"\(failures)\" errors=\"\(broken.count)\">\n"
        for suite in broken {
            let name = Self.escaped(suite.file)
            text +=
                "  <testsuite name=\"\(name)\" tests=\"1\" failures=\"0\" errors=\"1\">\n    <testcase name=\"the suite is read\" classname=\"\(name)\"><error message=\"\(Self.escaped(suite.errors.joined(separator: "; ")))\"/></testcase>\n  </testsuite>\n"
        }
        for suite in ran {
            let failed = suite.report.results.count { !$0.failures.isEmpty }
            text +=
                "  <testsuite name=\"\(Self.escaped(suite.file))\" tests=\"\(suite.report.results.count)\" failures=\"\(failed)\">\n"
            for result in suite.report.results {
                let head =
                    "    <testcase name=\"\(Self.escaped(result.name))\" classname=\"\(Self.escaped(suite.policy))\" file=\"\(Self.escaped(suite.file))\" line=\"\(result.location.line)\""
                if result.failures.isEmpty {
                    text += head + "/>\n"
                } else {
                    let message = Self.escaped(result.failures.joined(separator: "; "))
                    text += head + ">\n      <failure message=\"\(message)\"/>\n    </testcase>\n"
                }
            }
            text += "  </testsuite>\n"
        }
        text += "</testsuites>\n"
        do { try Data(text.utf8).write(to: URL(fileURLWithPath: file), options: .atomic) } catch {
            throw StructuredError(.ioFailure, "`\(file)` cannot be written: \(error.localizedDescription)")
        }
    }

    private static func escaped(_ text: String) -> String {
        var result = ""
        for scalar in text.unicodeScalars {
            switch scalar {
            case "<": result += "&lt;"
            case ">": result += "&gt;"
            case "&": result += "&amp;"
            case "\"": result += "&quot;"
            // XML 1.0 has no place for these.
            case _ where scalar.value < 32 && scalar != "\t" && scalar != "\n": result += "?"
            default: result.unicodeScalars.append(scalar)
            }
        }
        return result
    }
}
