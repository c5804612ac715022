import ArgumentParser
import KruxStore
import KruxCore
import KruxEngine
import KruxRegistry

struct AgentCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "agent", abstract: "Create, list and revoke agents.",
        subcommands: [Create.self, List.self, Show.self, Rotate.self, Revoke.self, Restore.self])

    struct Create: AsyncParsableCommand {
        static let configuration = CommandConfiguration(abstract: "Create an agent; its token is shown once.")
        @OptionGroup var common: CommonOptions
        @Option(help: "Its name: \(AgentName.rule).") var name: String
        @Option(help: "What it is for, in a sentence.") var purpose: String

        mutating func run() async throws {
            let client = OperatorClient(home: try common.resolveHome())
            let result = try await client.run(
                .agentCreate, ["name": .string(name), "purpose": .string(purpose)])
            AgentCommand.show(result, json: common.json)
        }
    }

    struct List: AsyncParsableCommand {
        static let configuration = CommandConfiguration(abstract: "List agents.")
        @OptionGroup var common: CommonOptions

        mutating func run() async throws {
            let agents = try common.openForReading().read(AgentTable.all)
            if common.json { return Console.print(.array(agents.map { .object($0.json) })) }
            var table = Table([.init("Name"), .init("Status"), .init("Created"), .init("Purpose")])
            table.rows = agents.map {
                [$0.name.text, $0.status.rawValue, $0.createdAt.short, $0.purpose.cut(to: 60, marked: true)]
            }
            Console.print(agents.isEmpty ? "No agents. Create one with `kruxos agent create`." : table.text)
        }
    }

    struct Show: AsyncParsableCommand {
        static let configuration = CommandConfiguration(abstract: "Show an agent.")
        @OptionGroup var common: CommonOptions
        @Argument var name: String

        mutating func run() async throws {
            let home = try common.resolveHome()
            let name = name
            var json = try common.openForReading().read { try AgentTable.require($0, name) }.json
            json["folder"] = .string("\(home.root)/workspaces/\(name)")
            AgentCommand.show(json, json: common.json)
        }
    }

    struct Rotate: AsyncParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Give an agent a new token; the old one stops at once.")
        @OptionGroup var common: CommonOptions
        @Argument var name: String
        mutating func run() async throws { try await AgentCommand.change(.agentRotate, name, common) }
    }

    struct Revoke: AsyncParsableCommand {
        static let configuration = CommandConfiguration(abstract: "Shut an agent out; its token is forgotten.")
        @OptionGroup var common: CommonOptions
        @Argument var name: String
        mutating func run() async throws { try await AgentCommand.change(.agentRevoke, name, common) }
    }

    struct Restore: AsyncParsableCommand {
        static let configuration = CommandConfiguration(abstract: "Bring a revoked agent back, with a new token.")
        @OptionGroup var common: CommonOptions
        @Argument var name: String
        mutating func run() async throws { try await AgentCommand.change(.agentRestore, name, common) }
    }

    private static func change(_ command: Engine.OperatorCommand, _ name: String, _ common: CommonOptions) async throws
    {
        let client = OperatorClient(home: try common.resolveHome())
        show(try await client.run(command, ["name": .string(name)]), json: common.json)
    }

    private static func show(_ agent: JSONObject, json: Bool) {
        if json { return Console.print(.object(agent)) }
        for (key, title) in [
            ("name", "Agent:"), ("purpose", "Purpose:"), ("status", "Status:"), ("workspace", "Workspace:"),
            ("folder", "Folder:"), ("created_at", "Created:"), ("token_created_at", "Token since:"),
        ] {
            if let text = agent[key]?.string {
                Console.print(title + String(repeating: " ", count: 13 - title.count) + Console.visible(text))
            }
        }
        if let token = agent["token"]?.string {
            Console.print("\nToken (shown once, keep it safe):\n\(token)")
        }
    }
}
