import ArgumentParser
import KruxCapabilities
import KruxCore
import KruxEngine
import KruxPolicies
import KruxPolicy
import KruxRegistry
import KruxStore

struct PolicyCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "policy", abstract: "Understand, test and change policies.",
        subcommands: [
            List.self, Show.self, History.self, Diff.self, Activate.self, Rollback.self, PolicyExplainCommand.self,
            PolicyTestCommand.self, PolicyLintCommand.self, PolicyCanCommand.self, PolicyReplayCommand.self,
            PolicySuggestCommand.self,
        ])

    struct List: AsyncParsableCommand {
        static let configuration = CommandConfiguration(abstract: "List the policies of the policies folder.")
        @OptionGroup var common: CommonOptions

        mutating func run() async throws {
            let force = try PolicyInForce(common)
            let bundle = try PolicyFolder(path: force.home.policies).bundle(
                active: force.version.bundle.active, system: BuiltInPolicies.system)
            let rows = bundle.policies.map { source -> (name: String, file: String, state: String, about: String) in
                switch PolicyDocumentReader.read(source.text, file: source.file) {
                case .success(let document):
                    let active = document.name == force.version.bundle.active
                    return (document.name, source.file, active ? "active" : "", document.description ?? "")
                case .failure(let failure):
                    return ("-", source.file, "broken", failure.diagnostics.first?.description ?? "")
                }
            }
            if common.json {
                return Console.print(
                    .array(
                        rows.map {
                            [
                                "name": .string($0.name), "file": .string($0.file), "state": .string($0.state),
                                "description": .string($0.about),
                            ]
                        }))
            }
            var table = Table([.init("Policy"), .init("State"), .init("File"), .init("Description")])
            table.rows = rows.map { [$0.name, $0.state, $0.file, $0.about] }
            Console.printTable(table.text)
            let others = (bundle.organisation.map { [$0.file] } ?? []) + bundle.requirements.map(\.file)
            if !others.isEmpty { Console.print("\nAlways in force: \(others.joined(separator: ", "))") }
            if !bundle.agents.isEmpty {
                Console.print("Agents with rules of their own: \(bundle.agents.keys.sorted().joined(separator: ", "))")
            }
        }
    }

    struct Show: AsyncParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Print the text of a policy, or of everything a version is made of.")
        @OptionGroup var common: CommonOptions
        @Argument(help: "A policy's name, or a version's number; the active policy if absent.") var policy: String?

        mutating func run() async throws {
            let force = try PolicyInForce(common)
            if let number = policy.flatMap(Int64.init) {
                let version = try PolicyCommand.version(number, force.store)
                if common.json { return Console.print(version.bundle.json) }
                for source in PolicyCommand.sources(version.bundle) {
                    Console.print("# \(source.file)\n\(PolicyCommand.text(source))")
                }
                return
            }
            let name = policy ?? force.version.bundle.active
            let found = force.version.bundle.policies.first { source in
                let document = try? PolicyDocumentReader.read(source.text, file: source.file).get()
                return document?.name.utf8Equals(name) ?? false || source.file.utf8Equals(name)
            }
            guard let source = found ?? force.version.bundle.source(name) else {
                let names = force.version.bundle.policies.map { String($0.file.prefix { $0 != "." }) }
                let hint = nearest(to: name, among: names).map { "Did you mean `\($0)`?" }
                throw StructuredError(
                    .notFound, "no policy in force is named `\(name)`",
                    recovery: [hint ?? "List them with `kruxos policy list`."])
            }
            if common.json {
                return Console.print(["file": .string(source.file), "text": .string(PolicyCommand.text(source))])
            }
            Console.print(PolicyCommand.text(source))
        }
    }

    struct History: AsyncParsableCommand {
        static let configuration = CommandConfiguration(abstract: "List the versions that have been in force.")
        @OptionGroup var common: CommonOptions

        mutating func run() async throws {
            let entries = try common.openForReading().read(PolicyVersions.list)
            if common.json {
                return Console.print(
                    .array(
                        entries.map {
                            [
                                "version": .int($0.version), "digest": .string($0.digest),
                                "policy": .string($0.policy), "activated_at": .string($0.activatedAt.rfc3339),
                                "activated_by": .string($0.activatedBy), "in_force": .bool($0.inForce),
                            ]
                        }))
            }
            var table = Table([
                .init("Version"), .init("In force"), .init("Policy"), .init("Activated"), .init("By"), .init("Digest"),
            ])
            table.rows = entries.map {
                [
                    "\($0.version)", $0.inForce ? "yes" : "", $0.policy, $0.activatedAt.short, $0.activatedBy,
                    String($0.digest.prefix(16)),
                ]
            }
            Console.printTable(table.text)
        }
    }

    struct Diff: AsyncParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Show what changed between two versions, and whose calls it changes.")
        @OptionGroup var common: CommonOptions
        @Argument(help: "A version's number, or `files` for the policies folder as it stands.") var from: String
        @Argument(help: "Likewise; the version in force if absent.") var to: String?

        mutating func run() async throws {
            let force = try PolicyInForce(common)
            let before = try bundle(from, force)
            let after = try to.map { try bundle($0, force) } ?? force.version.bundle
            var old = Dictionary(
                PolicyCommand.sources(before).map { ($0.file, $0.text) }, uniquingKeysWith: { first, _ in first })
            var patch = before.active == after.active ? "" : "active policy: \(before.active) → \(after.active)\n"
            for source in PolicyCommand.sources(after) {
                patch += unifiedDiff(old.removeValue(forKey: source.file) ?? [], source.text, file: source.file)
            }
            for (file, text) in old.sorted(by: { $0.key < $1.key }) { patch += unifiedDiff(text, [], file: file) }
            let changes = try Self.changes(before, after)
            if common.json {
                return Console.print([
                    "patch": .string(patch),
                    "tiers": .array(
                        changes.map {
                            [
                                "agent": .optional($0.agent), "capability": .string($0.capability),
                                "from": .string($0.from.name), "to": .string($0.to.name),
                            ]
                        }),
                ])
            }
            if patch.isEmpty { return Console.print("No difference.") }
            Console.print(patch)
            guard !changes.isEmpty else { return Console.print("No call without arguments gets another tier.") }
            var table = Table([.init("Agent"), .init("Capability"), .init("Tier")])
            table.rows = changes.map { [$0.agent ?? "(any)", $0.capability, "\($0.from.name) → \($0.to.name)"] }
            Console.printTable(table.text)
        }

        private func bundle(_ text: String, _ force: PolicyInForce) throws -> PolicyBundle {
            if text == "files" {
                return try PolicyFolder(path: force.home.policies).bundle(
                    active: force.version.bundle.active, system: BuiltInPolicies.system)
            }
            guard let number = Int64(text) else {
                throw ValidationError("`\(text)` is no version: give a number of `kruxos policy history`, or `files`")
            }
            return try PolicyCommand.version(number, force.store).bundle
        }

        /// Tiers of calls of which nothing more is known, for agents with a document and for all others.
        private static func changes(_ before: PolicyBundle, _ after: PolicyBundle) throws -> [(
            agent: String?, capability: String, from: Tier, to: Tier
        )] {
            let old = try PolicyCompiler.compile(before, catalogue: Capabilities.catalogue)
            let new = try PolicyCompiler.compile(after, catalogue: Capabilities.catalogue)
            let agents: [String?] = [nil] + Set(before.agents.keys).union(after.agents.keys).sorted()
            var changes: [(agent: String?, capability: String, from: Tier, to: Tier)] = []
            var general: [String: (Tier, Tier)] = [:]
            for agent in agents {
                for (index, declaration) in Capabilities.catalogue.declarations.enumerated() {
                    let facts = CallFacts(
                        agent: agent ?? "", capability: index, declaration: declaration, arguments: [:],
                        complete: false, time: Engine.systemClock.now())
                    let from = old.decide(facts).tier
                    let to = new.decide(facts).tier
                    if agent == nil { general[declaration.name.text] = (from, to) }
                    // What holds for any agent is said once.
                    let known = agent != nil && general[declaration.name.text].map { $0 == (from, to) } ?? false
                    if from != to, !known { changes.append((agent, declaration.name.text, from, to)) }
                }
            }
            return changes
        }
    }

    struct Activate: AsyncParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Put an earlier version in force, and its files back into the folder.",
            discussion: "Files it replaces are kept in policies/.replaced/. The system layer stays the machine's own.")
        @OptionGroup var common: CommonOptions
        @Argument(help: "A version's number, from `kruxos policy history`.") var version: Int64

        mutating func run() async throws {
            let client = OperatorClient(home: try common.resolveHome())
            PolicyCommand.showActivated(
                try await client.run(.policyActivate, ["version": .int(version)]), json: common.json)
        }
    }

    struct Rollback: AsyncParsableCommand {
        static let configuration = CommandConfiguration(abstract: "Go back to the version that was in force before.")
        @OptionGroup var common: CommonOptions

        mutating func run() async throws {
            let client = OperatorClient(home: try common.resolveHome())
            PolicyCommand.showActivated(try await client.run(.policyActivate, [:]), json: common.json)
        }
    }

    private static func showActivated(_ result: JSONObject, json: Bool) {
        if json { return Console.print(.object(result)) }
        let version = result["version"]?.int ?? 0
        let asked = result["restored"]?.int ?? 0
        Console.print("Active policy: \(result["name"]?.string ?? "-")\nVersion: \(version)")
        if version != asked {
            Console.print("Version \(asked) with today's system layer is version \(version).")
        }
        for file in result["files"]?.array ?? [] { Console.print("Restored: \(file.string ?? "")") }
    }

    static func version(_ number: Int64, _ store: ReadOnlyStore) throws -> PolicyVersion {
        if let version = try store.read({ try PolicyVersions.find($0, number) }) { return version }
        throw StructuredError(
            .notFound, "there is no policy version \(number)", recovery: ["List them with `kruxos policy history`."])
    }

    /// Every document of a bundle, the binding ones first.
    static func sources(_ bundle: PolicyBundle) -> [PolicySource] {
        [bundle.system] + bundle.requirements + (bundle.organisation.map { [$0] } ?? []) + bundle.policies
            + bundle.agents.values.sorted { $0.file < $1.file }
    }

    static func text(_ source: PolicySource) -> String {
        var text = String(decoding: source.text, as: UTF8.self)
        while text.hasSuffix("\n") { text.removeLast() }
        return text
    }
}

extension CommonOptions {
    /// The time `duration` ago.
    static func since(_ duration: String) throws -> Timestamp {
        guard let duration = HumanDuration(duration) else {
            throw ValidationError("`\(duration)` is no duration: write it like 90s, 15m, 1h or 7d")
        }
        return Engine.systemClock.now().advanced(bySeconds: -duration.seconds)
    }
}
