import ArgumentParser
import KruxCrypto
import KruxStore
import KruxApprovals
import KruxAudit
import KruxCapabilities
import KruxCore
import KruxEngine

struct ApproveCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "approve", abstract: "See and answer requests for approval.",
        subcommands: [List.self, Show.self, Accept.self, Reject.self])

    struct List: AsyncParsableCommand {
        static let configuration = CommandConfiguration(abstract: "List requests that wait for an answer.")
        @OptionGroup var common: CommonOptions
        @Flag(help: "Also those that have been answered.") var all = false
        @Option(help: "Only this agent's.") var agent: String?

        mutating func run() async throws {
            let state: ApprovalState? = all ? nil : .pending
            let agent = agent
            let requests = try common.openForReading().read { try ApprovalQueue.list($0, state: state, agent: agent) }
            let redactor = try ApproveCommand.redactor(common)
            if common.json {
                return Console.print(.array(requests.map { .object(Engine.json(forSupervisor: $0, redactor)) }))
            }
            if requests.isEmpty { return Console.print(all ? "No requests." : "No pending requests.") }
            Console.print(ApproveCommand.table(requests, redactor, now: Engine.systemClock.now(), states: all))
        }
    }

    struct Show: AsyncParsableCommand {
        static let configuration = CommandConfiguration(abstract: "Show a request.")
        @OptionGroup var common: CommonOptions
        @Argument(help: "Its id, such as ap_001.") var id: String

        mutating func run() async throws {
            let id = id
            let request = try common.openForReading().read { try ApprovalQueue.require($0, id) }
            let redactor = try ApproveCommand.redactor(common)
            if common.json { return Console.print(.object(Engine.json(forSupervisor: request, redactor))) }
            Console.print(ApproveCommand.detail(request, redactor))
        }
    }

    struct Accept: AsyncParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Approve requests; the gateway runs them, now or when it next starts.")
        @OptionGroup var common: CommonOptions
        @Argument(help: "Their ids.") var ids: [String]
        @Option(help: "Why, for the record.") var reason: String?
        mutating func run() async throws {
            try await ApproveCommand.decide(ids, approve: true, reason: reason, common)
        }
    }

    struct Reject: AsyncParsableCommand {
        static let configuration = CommandConfiguration(abstract: "Reject requests; the agent is told the reason.")
        @OptionGroup var common: CommonOptions
        @Argument(help: "Their ids.") var ids: [String]
        @Option(help: "Why, for the agent and the record.") var reason: String?
        mutating func run() async throws {
            try await ApproveCommand.decide(ids, approve: false, reason: reason, common)
        }
    }

    /// Answers each; one that cannot be answered does not keep the others from it.
    private static func decide(_ ids: [String], approve: Bool, reason: String?, _ common: CommonOptions) async throws {
        let client = OperatorClient(home: try common.resolveHome())
        var results: [JSONValue] = []
        var failure: ExitCode?
        for id in ids {
            do {
                let result = try await client.run(
                    .approvalDecide, ["id": .string(id), "approve": .bool(approve), "reason": .optional(reason)])
                results.append(.object(result))
                if !common.json { Console.print("\(id) \(approve ? "approved" : "rejected")") }
            } catch {
                let structured = Engine.structured(error)
                results.append(["id": .string(id), "error": structured.json])
                Console.report(structured)
                failure = KruxExit.code(structured)
            }
        }
        if common.json { Console.print(.array(results)) }
        if let failure { throw failure }
    }

    /// The home's redactor, so that the terminal shows what the record shows.
    static func redactor(_ common: CommonOptions) throws -> Redactor {
        Redactor(key: try KeyFiles(home: try common.resolveHome().root).digestKey())
    }

    static func table(_ requests: [ApprovalRequest], _ redactor: Redactor, now: Timestamp, states: Bool = false)
        -> String
    {
        var columns: [Table.Column] = [
            .init("ID", width: 9), .init("Agent", width: 12), .init("Capability", width: 18),
            .init("Parameters", width: 30), .init("Requested"),
        ]
        if states { columns.append(.init("State")) }
        var table = Table(columns)
        table.rows = requests.map { request in
            let declaration = Capabilities.catalogue[request.capability]
            let parameters = declaration.map { summarise(redactor.redact(request.arguments), of: $0, limit: 400) } ?? ""
            let age = (now.microseconds - request.requestedAt.microseconds) / 1_000_000
            return [
                request.id, request.agent, request.capability, parameters.cut(to: 29),
                HumanDuration.short(age) + " ago",
            ] + (states ? [request.state.rawValue] : [])
        }
        return table.text
    }

    static func detail(_ request: ApprovalRequest, _ redactor: Redactor) -> String {
        func line(_ title: String, _ text: String) -> String {
            title + String(repeating: " ", count: max(1, 12 - title.count)) + Console.visible(text)
        }
        var lines = [
            line("Request:", request.id), line("Agent:", request.agent), line("Capability:", request.capability),
            "Parameters:",
        ]
        let arguments = redactor.redact(request.arguments)
        let declared = Capabilities.catalogue[request.capability]?.input.properties ?? []
        let shown = declared.filter { isWorthShowing(arguments[$0.name], of: $0) }
        let width = (shown.map { $0.name.count }.max() ?? 0) + 2
        for property in shown {
            guard let value = arguments[property.name] else { continue }
            let text: String
            switch value {
            case .string(let string): text = Console.visible(string)
            case .array(let elements): text = "[" + elements.map(\.canonicalText).joined(separator: ", ") + "]"
            default: text = value.canonicalText
            }
            let name = property.name + ":"
            lines.append("  " + name + String(repeating: " ", count: max(1, width - name.count)) + text)
        }
        lines.append(line("Requested:", request.requestedAt.short))
        lines.append(line("Policy:", request.decision["policy"]?.string ?? "-"))
        lines.append(
            line(
                "Rule:",
                "\(request.decision["rule"]?.string ?? "-") → \(request.decision["tier"]?.string ?? "-")"))
        lines.append(line("Reason:", request.decision["reason"]?.string ?? "-"))
        if request.state != .pending {
            lines.append(line("State:", request.state.rawValue))
            if let by = request.decidedBy, let at = request.decidedAt {
                lines.append(line("Decided:", "\(at.short) by \(by)"))
            }
            if let reason = request.decisionReason { lines.append(line("Because:", reason)) }
            if let error = request.result?["error"]?["description"]?.string { lines.append(line("Error:", error)) }
        }
        return lines.joined(separator: "\n")
    }
}
