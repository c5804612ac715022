import ArgumentParser
import KruxCore
import KruxPolicy
import KruxRegistry
import KruxEngine

struct PolicySuggestCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "suggest", abstract: "Propose rules for what you have always approved.",
        discussion: """
            Each is the narrowest rule that would have answered those requests, as a patch for `patch -p1` in the \
            policies folder; nothing is changed. What was ever rejected is never proposed.
            """)

    @OptionGroup var common: CommonOptions
    @Option(help: "How far to go back: 90s, 15m, 1h, 7d.") var last = "30d"
    @Option(help: "Approvals it takes to propose a rule.") var least = 3

    mutating func run() async throws {
        guard least > 0 else { throw ValidationError("--least must be at least 1") }
        let force = try PolicyInForce(common)
        let found = try PolicySuggestion.find(
            force.store, force.version.bundle, force.policy, since: try CommonOptions.since(last), least: least)
        if common.json {
            return Console.print(
                .array(
                    found.map {
                        [
                            "agent": .string($0.agent), "capability": .string($0.capability),
                            "condition": .string($0.condition), "requests": .strings($0.requests),
                            "saved": .int(Int64($0.requests.count)), "file": .string($0.edit.file),
                            "patch": .string($0.edit.patch),
                        ]
                    }))
        }
        if found.isEmpty {
            return Console.print(
                "Nothing to propose: no \(least) approvals of the last \(last) have a narrow rule in common.")
        }
        for (index, suggestion) in found.enumerated() {
            if index > 0 { Console.print("") }
            Console.print(
                "\(Console.visible(suggestion.edit.summary)): \(suggestion.requests.count) question\(suggestion.requests.count == 1 ? "" : "s") saved (\(suggestion.requests.prefix(5).joined(separator: ", "))\(suggestion.requests.count > 5 ? ", …" : ""))"
            )
            Console.print(suggestion.edit.patch)
        }
    }
}
