import ArgumentParser
import KruxStore
import KruxCore
import KruxEngine
import KruxPolicy
import KruxRegistry

struct AgentCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "agent", abstract: "Create, list and revoke agents.",
        subcommands: [
            Create.self, List.self, Show.self, Mode.self, Role.self, Sessions.self, Session.self, Rotate.self,
            Revoke.self, Restore.self, Resume.self, Quota.self,
        ])

    struct Quota: AsyncParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "How much an agent may keep in its workspace; without limits, as much as there is.",
            discussion: "Example: kruxos agent quota coder --bytes 10G --files 100000")
        @OptionGroup var common: CommonOptions
        @Argument(help: "The agent.") var name: String
        @Option(help: "Bytes, such as 500M or 10G.") var bytes: String?
        @Option(help: "Files, folders and links.") var files: Int64?

        mutating func run() async throws {
            let result = try await OperatorClient(home: try common.resolveHome()).run(
                .agentQuota,
                ["name": .string(name), "bytes": .optional(try bytes.map(Self.size)), "files": .optional(files)])
            if common.json { return Console.print(.object(result)) }
            let limits = [bytes.map { "\($0) of bytes" }, files.map { "\($0) files" }].compactMap { $0 }
            Console.print(
                limits.isEmpty
                    ? "\(name) may keep as much as there is."
                    : "\(name) may keep \(limits.joined(separator: " and ")) in its workspace.")
        }

        /// `1024`, `500M`, `10G`: powers of 1,024.
        private static func size(_ text: String) throws -> Int64 {
            let powers: [Character: Int64] = ["K": 10, "M": 20, "G": 30, "T": 40]
            let power = text.last.flatMap { powers[Character($0.uppercased())] }
            let digits = power == nil ? text[...] : text.dropLast()
            guard let number = Int64(digits), number > 0, number <= Int64.max >> (power ?? 0) else {
                throw ValidationError("`\(text)` is no size; write it like 500M or 10G")
            }
            return number << (power ?? 0)
        }
    }

    struct Create: AsyncParsableCommand {
        static let configuration = CommandConfiguration(abstract: "Create an agent; its token is shown once.")
        @OptionGroup var common: CommonOptions
        @Option(help: "Its name: \(AgentName.rule).") var name: String
        @Option(help: "What it is for, in a sentence.") var purpose: String
        @Option(help: "What it does: dev, qa, devops, analyst, architect, po, pm, sm, or a role of your policy.")
        var role: String?

        mutating func run() async throws {
            let client = OperatorClient(home: try common.resolveHome())
            let result = try await client.run(
                .agentCreate, ["name": .string(name), "purpose": .string(purpose), "role": .optional(role)])
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
                [
                    $0.name.text, $0.isSuspended ? "suspended" : $0.status.rawValue, $0.createdAt.short,
                    $0.purpose.cut(to: 60, marked: true),
                ]
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
            if let force = try? PolicyInForce(common) {
                let mode = force.policy.mode(
                    ofAgent: name, role: json["role"]?.string,
                    mode: json["mode"]?.string.flatMap(KruxPolicy.Mode.init(name:)))
                json["effective_mode"] = .string(mode.rawValue)
            }
            AgentCommand.show(json, json: common.json)
        }
    }

    struct Resume: AsyncParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Let agents go on that a restore has suspended.")
        @OptionGroup var common: CommonOptions
        @Argument(help: "The agents.") var names: [String] = []
        @Flag(help: "All of them.") var all = false

        mutating func run() async throws {
            let home = try common.resolveHome()
            var names = names
            if all {
                names = try common.openForReading().read(AgentTable.all).filter(\.isSuspended).map(\.name.text)
                if names.isEmpty { return Console.print("No agent is suspended.") }
            }
            guard !names.isEmpty else { throw ValidationError("name the agents, or give --all") }
            for name in names {
                let result = try await OperatorClient(home: home).run(.agentResume, ["name": .string(name)])
                if common.json { Console.print(.object(result)) } else { Console.print("Agent \(name) goes on.") }
            }
        }
    }

    struct Mode: AsyncParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Show or set how freely an agent works.",
            discussion: """
                auto: the policy's answer stands. ask: whatever is not a read waits for you. explore: reads only. \
                `none` gives the word back to the agent's policy file and its role.
                """)
        @OptionGroup var common: CommonOptions
        @Argument(help: "The agent.") var name: String
        @Argument(help: "explore, ask, auto or none.") var mode: String?

        mutating func run() async throws {
            let home = try common.resolveHome()
            let name = name
            guard let mode else {
                let force = try PolicyInForce(common)
                let record = try force.store.read { try AgentTable.require($0, name) }
                let effective = force.policy.mode(ofAgent: name, role: record.role, mode: record.mode)
                if common.json {
                    return Console.print([
                        "name": .string(name), "role": .optional(record.role), "mode": .optional(record.mode?.rawValue),
                        "effective_mode": .string(effective.rawValue),
                    ])
                }
                let from =
                    record.mode != nil
                    ? "set by a supervisor" : record.role.map { "by its role `\($0)`" } ?? "by its policy"
                return Console.print("\(effective.rawValue) (\(from))")
            }
            let result = try await OperatorClient(home: home).run(
                .agentMode, ["name": .string(name), "mode": mode == "none" ? .null : .string(mode)])
            AgentCommand.show(result, json: common.json)
        }
    }

    struct Role: AsyncParsableCommand {
        static let configuration = CommandConfiguration(abstract: "Set what an agent does, which gives it a mode.")
        @OptionGroup var common: CommonOptions
        @Argument(help: "The agent.") var name: String
        @Argument(help: "dev, qa, devops, analyst, architect, po, pm, sm, a role of your policy, or none.") var role:
            String

        mutating func run() async throws {
            let client = OperatorClient(home: try common.resolveHome())
            let result = try await client.run(
                .agentRole, ["name": .string(name), "role": role == "none" ? .null : .string(role)])
            AgentCommand.show(result, json: common.json)
        }
    }

    struct Sessions: AsyncParsableCommand {
        static let configuration = CommandConfiguration(abstract: "List live sessions; the gateway must run.")
        @OptionGroup var common: CommonOptions

        mutating func run() async throws {
            let result = try await OperatorClient(home: try common.resolveHome()).run(.sessionList, [:])
            if common.json { return Console.print(result["sessions"] ?? []) }
            let sessions = result["sessions"]?.array ?? []
            var table = Table([
                .init("Session"), .init("Agent"), .init("Via"), .init("Label"), .init("Mode"), .init("Calls"),
                .init("Last call"),
            ])
            table.rows = sessions.map { session in
                [
                    session["id"]?.string ?? "", session["agent"]?.string ?? "", session["via"]?.string ?? "",
                    session["label"]?.string ?? "", session["mode"]?.string ?? "", "\(session["calls"]?.int ?? 0)",
                    String((session["last_seen_at"]?.string ?? "").prefix(19)),
                ]
            }
            Console.printTable(sessions.isEmpty ? "No live sessions." : table.text)
        }
    }

    struct Session: AsyncParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Set the label or the mode of a live session.",
            discussion: "Policies can ask for a label with `session: {label: …}`. `none` takes either away.")
        @OptionGroup var common: CommonOptions
        @Argument(help: "Its id, from `kruxos agent sessions`.") var id: String
        @Option(help: "A word for what the session is about.") var label: String?
        @Option(help: "explore, ask or auto.") var mode: String?

        mutating func validate() throws {
            guard label != nil || mode != nil else { throw ValidationError("give --label, --mode or both") }
        }

        mutating func run() async throws {
            var parameters: JSONObject = ["id": .string(id)]
            if let label { parameters["label"] = .string(label == "none" ? "" : label) }
            if let mode { parameters["mode"] = .string(mode == "none" ? "" : mode) }
            let result = try await OperatorClient(home: try common.resolveHome()).run(.sessionChange, parameters)
            if common.json { return Console.print(.object(result)) }
            Console.print(
                "\(id): label \(result["label"]?.string ?? "none"), mode \(result["mode"]?.string ?? "the agent's own")"
            )
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
            ("folder", "Folder:"), ("role", "Role:"), ("effective_mode", "Mode:"), ("created_at", "Created:"),
            ("token_created_at", "Token since:"),
        ] {
            if let text = agent[key]?.string {
                Console.print(title + String(repeating: " ", count: 13 - title.count) + Console.visible(text))
            }
        }
        if let token = agent["token"]?.string {
            Console.print("\nToken (shown once, keep it safe):\n\(token)")
        }
        if let key = agent["root_key"]?.string {
            Console.print(
                "\nRoot key of the new record (keep it elsewhere; `audit verify --trust` pins it):\n\(key)")
        }
    }
}
