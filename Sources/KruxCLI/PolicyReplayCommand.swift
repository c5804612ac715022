import ArgumentParser
import Foundation
import KruxCapabilities
import KruxCore
import KruxEngine
import KruxPolicies
import KruxPolicy
import KruxRegistry

struct PolicyReplayCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "replay",
        abstract: "Decide recorded calls again, under another policy or the one that decided them.",
        discussion: """
            With --policy, shows the calls whose tier would change. Without it, checks that every recorded decision is \
            the one its policy gives, and ends with 5 when one is not.
            """)

    @OptionGroup var common: CommonOptions
    @Option(help: "A policy file to stand in for the active policy, or a version's number.") var policy: String?
    @Option(help: "How far to go back: 90s, 15m, 1h, 7d.") var last = "7d"

    mutating func run() async throws {
        let force = try PolicyInForce(common)
        let since = try CommonOptions.since(last)
        let candidate = try policy.map { try compiled($0, force) }
        let replay = try PolicyReplay.run(force.store, candidate: candidate, since: since)
        if common.json { Console.print(json(replay)) } else { show(replay) }
        if !replay.disagreements.isEmpty { throw KruxExit.verificationFailed }
    }

    private func compiled(_ text: String, _ force: PolicyInForce) throws -> CompiledPolicy {
        if let number = Int64(text) {
            return try PolicyCommand.version(number, force.store).policy(Capabilities.catalogue)
        }
        guard let data = FileManager.default.contents(atPath: text) else {
            throw StructuredError(.notFound, "`\(text)` cannot be read", recovery: ["Give a policy file or a version."])
        }
        let bundle = try PolicyReport.bundle(file: text, text: [UInt8](data), in: force.version.bundle)
        return try PolicyCompiler.compile(bundle, catalogue: Capabilities.catalogue)
    }

    private func show(_ replay: PolicyReplay) {
        let changed = replay.changes.reduce(0) { $0 + $1.calls }
        Console.print(
            "\(replay.decided) call\(replay.decided == 1 ? "" : "s") decided again: \(replay.same) the same, \(policy == nil ? replay.disagreements.count : changed) \(policy == nil ? "not as recorded" : "changed"), \(replay.indeterminate) indeterminate"
        )
        if replay.withoutFacts > 0 {
            Console.print("\(replay.withoutFacts) rows hold no facts to decide by and were left out.")
        }
        for seq in replay.disagreements.prefix(20) { Console.print("  row \(seq) is not what its policy decides") }
        if policy == nil, replay.disagreements.isEmpty {
            return Console.print("The record agrees with the policies that decided it.")
        }
        guard !replay.changes.isEmpty else { return }
        var table = Table([.init("Calls"), .init("Capability"), .init("Tier"), .init("By"), .init("Rows")])
        table.rows = replay.changes.map {
            [
                "\($0.calls)", $0.capability, "\($0.from.name) → \($0.to.name)", $0.rule,
                $0.examples.map { "\($0)" }.joined(separator: " "),
            ]
        }
        Console.printTable(table.text)
    }

    private func json(_ replay: PolicyReplay) -> JSONValue {
        [
            "decided": .int(Int64(replay.decided)), "same": .int(Int64(replay.same)),
            "indeterminate": .int(Int64(replay.indeterminate)), "without_facts": .int(Int64(replay.withoutFacts)),
            "disagreements": .array(replay.disagreements.map(JSONValue.int)),
            "changes": .array(
                replay.changes.map {
                    [
                        "capability": .string($0.capability), "from": .string($0.from.name), "to": .string($0.to.name),
                        "rule": .string($0.rule), "calls": .int(Int64($0.calls)),
                        "rows": .array($0.examples.map(JSONValue.int)),
                    ]
                }),
        ]
    }
}
