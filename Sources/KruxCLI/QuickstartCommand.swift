import ArgumentParser
import Foundation
import KruxAudit
import KruxCore
import KruxCrypto
import KruxEngine
import KruxRegistry
import KruxStore

struct QuickstartCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "quickstart", abstract: "Set everything up and see the gate at work, in a minute.",
        discussion: """
            Makes a home with the policy personal-permissive and one agent, starts the gateway, plays a short session \
            through it, shows the record of it, and leaves the gateway running.
            """)

    @OptionGroup var common: CommonOptions
    @OptionGroup var listen: ListenOptions
    @Option(help: "The agent's name.") var agent = "my-agent"
    @Flag(help: "Give the approval without asking.") var yes = false

    mutating func run() async throws {
        let home = try common.resolveHome()
        Console.print("KruxOS \(Engine.version)\nHome: \(home.root)\n")
        try home.create()
        let name = try freeName(home)
        try writeAgentPolicy(home, name)
        let started = try GatewayLauncher(home: home).ensure(
            host: listen.host, ports: [(listen.port, listen.supervisorPort)])
        let client = OperatorClient(home: home)
        // A gateway that ran already does not know the new file yet.
        _ = try await client.run(.policyReload)
        let status = try await client.run(.status)
        guard let url = status["agents_url"]?.string, let port = url.split(separator: ":").last.flatMap({ UInt16($0) })
        else { throw StructuredError(.internalError, "the gateway does not say where it listens") }
        Console.print("Gateway \(started ? "started" : "was running"): agents on \(url)")
        if let key = try ReadOnlyStore(path: home.database).read(EpochKeys.all).first?.root {
            Console.print(
                "Root key of the record: \(key.bytes.hex) (keep it elsewhere; `audit verify --trust` pins it)")
        }
        Console.print("Policy: \(status["policy"]?["name"]?.string ?? "-")")
        let created = try await client.run(
            .agentCreate, ["name": .string(name), "purpose": "Created by quickstart to try the gate"])
        guard let token = created["token"]?.string else { throw StructuredError(.internalError, "no token was made") }
        Console.print("Agent: \(name)\n")
        let since = Engine.systemClock.now()
        let agentClient = LoopbackClient(host: listen.host, port: port, token: token)
        try await play(agentClient, client)
        try showRecord(home, since: since, agent: name)
        showConfiguration(url, token, name, home, policy: status["policy"]?["name"]?.string ?? "personal-permissive")
    }

    /// The asked-for name, or one with a number when it is taken: an agent's token is never replaced unasked.
    private func freeName(_ home: Home) throws -> String {
        guard AgentName(agent) != nil else {
            throw ValidationError("`\(agent)` is no agent name; use \(AgentName.rule)")
        }
        guard FileManager.default.fileExists(atPath: home.database) else { return agent }
        let taken = try ReadOnlyStore(path: home.database).read(AgentTable.all).map(\.name.text)
        var name = agent
        var number = 2
        while taken.contains(name) {
            name = "\(agent.prefix(58))-\(number)"
            number += 1
        }
        return name
    }

    /// A rule of the agent's own, to show where one goes: deleting asks first.
    private func writeAgentPolicy(_ home: Home, _ name: String) throws {
        let folder = home.policies + "/agents"
        let text = """
            # Rules for one agent, on top of the active policy.
            agent: \(name)

            capabilities:
              filesystem.delete:
                tier: approval_required
                reason: "Deleting asks first"

            """
        let file = "\(folder)/\(name).yaml"
        let descriptor = open(file, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0o600)
        if descriptor < 0, errno == EEXIST { return }
        guard descriptor >= 0 else {
            throw StructuredError(.ioFailure, "cannot write `\(file)`: \(String(cString: strerror(errno)))")
        }
        defer { close(descriptor) }
        guard write(descriptor, text, text.utf8.count) == text.utf8.count else {
            throw StructuredError(.ioFailure, "cannot write `\(file)`: \(String(cString: strerror(errno)))")
        }
    }

    private func play(_ agent: LoopbackClient, _ supervisor: OperatorClient) async throws {
        func call(_ capability: String, _ arguments: JSONObject) throws -> JSONValue {
            try agent.post("/v1/call", ["capability": .string(capability), "arguments": .object(arguments)]).body
        }
        func say(_ step: String, _ reply: JSONValue, _ text: String?) {
            let tier = reply["tier"]?.string ?? reply["error"]?["error_type"]?.string ?? "-"
            Console.print("  \(step)\n    → \(tier): \(Console.visible(text ?? ""))")
        }
        Console.print("The agent calls, through HTTP:")
        let written = try call("filesystem.write", ["path": "hello.txt", "content": "Hello from behind the gate.\n"])
        say("filesystem.write path=hello.txt", written, written["data"]?["path"]?.string)
        let read = try call("filesystem.read", ["path": "hello.txt"])
        say("filesystem.read path=hello.txt", read, read["data"]?["content"]?.string.map { String($0.dropLast()) })
        let escape = try call("filesystem.read", ["path": "../../../etc/passwd"])
        say("filesystem.read path=../../../etc/passwd", escape, escape["error"]?["agent_description"]?.string)
        let asked = try call("filesystem.delete", ["path": "hello.txt"])
        guard let id = asked["error"]?["context"]?["request_id"]?.string else {
            say("filesystem.delete path=hello.txt", asked, "this was to wait for approval")
            throw KruxExit.failed
        }
        say("filesystem.delete path=hello.txt", asked, "the call waits for you as \(id)")
        guard try approved(id) else {
            Console.print(
                "\nLeft pending. Answer it with `kruxos approve accept \(id)` or `kruxos approve reject \(id)`.\n")
            return
        }
        _ = try await supervisor.run(
            .approvalDecide, ["id": .string(id), "approve": true, "reason": "approved in quickstart"])
        let ended = try agent.get("/v1/approvals/\(id)?wait=30").body
        let trash = ended["data"]?["trash_id"]?.string.map { "restore with trash_id \($0)" }
        Console.print(
            "    → \(ended["state"]?.string ?? "-"): \(trash ?? ended["error"]?["description"]?.string ?? "")\n")
    }

    private func approved(_ id: String) throws -> Bool {
        if yes {
            Console.print("    (approved by --yes)")
            return true
        }
        guard Console.isTerminal else { return false }
        FileHandle.standardOutput.write(Data("    Approve \(id)? [y, or Enter to leave it pending] ".utf8))
        return ["y", "yes"].contains((readLine() ?? "").lowercased())
    }

    private func showRecord(_ home: Home, since: Timestamp, agent: String) throws {
        let store = try ReadOnlyStore(path: home.database)
        var filter = AuditFilter()
        filter.since = since
        filter.agent = agent
        Console.print("The signed record of it (kruxos audit query --agent \(agent)):\n")
        Console.printTable(AuditFormat.table(try store.read { try AuditQuery.rows($0, filter) }))
        var options = AuditVerifier.Options()
        options.home = home.root
        let verdict = try AuditVerifier.verify({ try ReadOnlyStore(path: home.database) }, options)
        Console.print("\nkruxos audit verify: \(verdict.rows) rows checked, \(verdict.text)")
        if !verdict.isIntact { throw KruxExit.verificationFailed }
    }

    private func showConfiguration(_ url: String, _ token: String, _ name: String, _ home: Home, policy: String) {
        let configuration: JSONValue = [
            "mcpServers": [
                "kruxos": [
                    "type": "http", "url": .string(url + "/mcp"),
                    "headers": ["Authorization": .string("Bearer \(token)")],
                ]
            ]
        ]
        Console.print(
            """

            The gateway keeps running. For an MCP client (Claude Code: .mcp.json):

            \(configuration.prettyText())

            Or without a token, on this machine: kruxos mcp --agent \(name) --home \(home.root)
            Its files: \(home.root)/workspaces/\(name)
            Its rules: \(home.policies)/agents/\(name).yaml (after an edit: kruxos config set policy \(policy))
            Next: kruxos status · kruxos approve list · kruxos watch
            """)
    }
}
