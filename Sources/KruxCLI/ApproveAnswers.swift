import ArgumentParser
import Foundation
import KruxApprovals
import KruxAudit
import KruxCapabilities
import KruxCore
import KruxEngine
import KruxPolicy
import KruxStore
import KruxSandbox

/// Which requests are meant: by their ids, or all that wait.
struct RequestSelection: ParsableArguments {
    @Argument(help: "Their ids.") var ids: [String] = []
    @Flag(help: "Every request that waits and fits --agent and --capability.") var all = false
    @Option(help: "Only this agent's.") var agent: String?
    @Option(help: "Only this capability, or those of a pattern such as filesystem.*.") var capability: String?
    @Flag(help: "Also those that wait and are like the ones named.") var like = false
    @Flag(help: "Do not ask.") var yes = false

    func validate() throws {
        if all, !ids.isEmpty { throw ValidationError("name requests or give --all, not both") }
        if !all, ids.isEmpty { throw ValidationError("name requests, or --all") }
        if all, like { throw ValidationError("--all has no use for --like") }
    }

    /// - Parameter verb: `Approve` or `Reject`, for the question.
    func resolve(_ common: CommonOptions, _ verb: String) throws -> [String] {
        if !all, !like { return ids }
        let pending = try common.openForReading().read { try ApprovalQueue.list($0, state: .pending) }
        let kin = Set(pending.filter { ids.contains($0.id) && !$0.kin.isEmpty }.map(\.kin))
        let found = pending.filter { request in
            ids.contains(request.id)
                || (all || kin.contains(request.kin)) && agent.map { $0.utf8Equals(request.agent) } ?? true
                    && capability.map { Self.fits(request.capability, $0) } ?? true
        }
        // One that does not wait any more gets its own answer.
        let missing = ids.filter { id in !found.contains { $0.id == id } }
        if found.isEmpty, missing.isEmpty {
            Console.print("No pending requests fit.")
            return []
        }
        if !yes {
            if !common.json {
                Console.print(
                    ApproveCommand.table(found, try ApproveCommand.redactor(common), now: Engine.systemClock.now()))
            }
            guard Console.isTerminal else { throw ValidationError("nobody can be asked here; add --yes") }
            guard Console.ask("\(verb) \(found.count == 1 ? "it" : "these \(found.count)")?") else {
                throw KruxExit.failed
            }
        }
        return missing + found.map(\.id)
    }

    private static func fits(_ name: String, _ pattern: String) -> Bool {
        pattern.hasSuffix("*") ? name.utf8.starts(with: pattern.utf8.dropLast()) : name.utf8Equals(pattern)
    }
}

extension ApproveCommand {
    struct Accept: AsyncParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Approve requests; the gateway runs them, now or when it next starts.",
            discussion: """
                --edit opens the arguments in $VISUAL or $EDITOR; what you change is decided again and recorded beside \
                what the agent asked for. --segments takes some of the commands of a shell's line; the others fail where \
                they stand. --always stores a grant, so that the same is not asked again; it lasts for the session unless \
                you say --for, --uses or --permanent, and you see what it would have answered before it is stored.
                """)
        @OptionGroup var common: CommonOptions
        @OptionGroup var selection: RequestSelection
        @Option(help: "Why, for the record.") var reason: String?
        @Flag(help: "Change the arguments first.") var edit = false
        @Option(help: "Only these commands of the line, such as 1,3.") var segments: String?
        @Flag(help: "Also grant it from now on.") var always = false
        @OptionGroup var terms: GrantTerms

        func validate() throws {
            if edit || segments != nil, selection.ids.count != 1 || selection.all || selection.like {
                throw ValidationError("--edit and --segments change one request: name it")
            }
            if edit, segments != nil { throw ValidationError("give --edit or --segments") }
            if terms.isGiven, !always { throw ValidationError("a grant's terms need --always") }
            if always, edit || segments != nil {
                throw ValidationError("--always grants what the agent asked; answer the change first")
            }
            if always, selection.all { throw ValidationError("--always grants what one request asked: name it") }
        }

        mutating func run() async throws {
            let places = try segments.map(Self.places)
            let ids = try selection.resolve(common, "Approve")
            var changed: JSONObject?
            if edit, let id = ids.first {
                changed = try ArgumentsEditor.edit(id, common)
                if changed == nil { return Console.print("Nothing was changed, so \(id) was not answered.") }
            }
            if !selection.yes { try Self.askOfChanges(ids, places, common) }
            // What it would answer is seen before anything is done.
            var proposals: [(id: String, proposal: Engine.GrantProposal)] = []
            if always {
                for id in selection.ids { proposals.append((id, try terms.propose(id, common))) }
                if !common.json { for (id, proposal) in proposals { GrantTerms.show(proposal, for: id) } }
                if !selection.yes {
                    guard Console.isTerminal else { throw ValidationError("nobody can be asked here; add --yes") }
                    guard Console.ask("Approve and grant?") else { throw KruxExit.failed }
                }
            }
            let answer = Engine.Answer(approve: true, reason: reason, arguments: changed, segments: places)
            let (terms, agent, reason) = (terms, selection.agent, reason)
            try await ApproveCommand.decide(ids, answer, common) { client, id in
                guard let (_, proposal) = proposals.first(where: { $0.id == id }) else { return nil }
                return try await client.run(
                    .grantCreate, try terms.parameters(id, proposal, reason: reason, agent: agent))
            }
        }

        /// What runs is not what the agent asked for: the person has seen it, or is shown it.
        private static func askOfChanges(_ ids: [String], _ places: [Int]?, _ common: CommonOptions) throws {
            for id in ids {
                let request = try common.openForReading().read { try ApprovalQueue.find($0, id) }
                guard let request, request.state == .pending, request.original != nil || places != nil else { continue }
                if !common.json {
                    Console.print(ApproveCommand.detail(request, try ApproveCommand.redactor(common)))
                    if let places, let text = request.arguments["command"]?.string,
                        let segments = ShellText.parse(text),
                        let rest = ShellText.text(
                            text, failing: Set(segments.indices).subtracting(places.map { $0 - 1 }))
                    {
                        Console.print("It would run: \(Console.visible(rest))")
                    }
                }
                guard Console.isTerminal else {
                    throw ValidationError("\(id) is changed, and nobody can be asked here; add --yes")
                }
                guard Console.ask("Approve it so?") else { throw KruxExit.failed }
            }
        }

        private static func places(_ text: String) throws -> [Int] {
            try text.split(separator: ",").map {
                guard let place = Int($0.trimmingCharacters(in: .whitespaces)) else {
                    throw ValidationError("--segments takes numbers such as 1,3")
                }
                return place
            }
        }
    }

    struct Reject: AsyncParsableCommand {
        static let configuration = CommandConfiguration(abstract: "Reject requests; the agent is told the reason.")
        @OptionGroup var common: CommonOptions
        @OptionGroup var selection: RequestSelection
        @Option(help: "Why, for the agent and the record.") var reason: String?

        mutating func run() async throws {
            let ids = try selection.resolve(common, "Reject")
            try await ApproveCommand.decide(ids, Engine.Answer(approve: false, reason: reason), common)
        }
    }

    struct Retry: AsyncParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Ask again for a request that did not surely succeed.",
            discussion: """
                A new request is made for the same call, with what is known of the old one; it runs once that is approved.
                """)
        @OptionGroup var common: CommonOptions
        @Argument(help: "Its id, such as ap_001.") var id: String

        mutating func run() async throws {
            let result = try await OperatorClient(home: try common.resolveHome()).run(
                .approvalRetry, ApproveCommand.signed(["id": .string(id)]))
            if common.json { return Console.print(.object(result)) }
            let again = result["id"]?.string ?? "-"
            Console.print("\(id) is asked again as \(again)")
            let request = try common.openForReading().read { try ApprovalQueue.require($0, again) }
            Console.print(ApproveCommand.detail(request, try ApproveCommand.redactor(common), full: true))
        }
    }

    /// Parameters as the supervisor whose token stands in the environment; as the machine's owner without one.
    static func signed(_ parameters: JSONObject) -> JSONObject {
        guard let token = ProcessInfo.processInfo.environment["KRUXOS_SUPERVISOR_TOKEN"], !token.isEmpty else {
            return parameters
        }
        var signed = parameters
        signed["supervisor_token"] = .string(token)
        return signed
    }

    /// Answers each; one that cannot be answered does not keep the others from it.
    /// - Parameter then: what follows an answer, such as a grant; told beside it.
    static func decide(
        _ ids: [String], _ answer: Engine.Answer, _ common: CommonOptions,
        then: (OperatorClient, String) async throws -> JSONObject? = { _, _ in nil }
    ) async throws {
        try await each(ids, common) { client, id in
            var result = try await client.run(.approvalDecide, parameters(id, answer))
            var words = "\(id) \(word(result))"
            if let grant = try await then(client, id) {
                result["grant"] = .object(grant)
                words += "\n" + GrantsCommand.line(grant)
            }
            return (result, words)
        }
    }

    static func parameters(_ id: String, _ answer: Engine.Answer) -> JSONObject {
        var parameters: JSONObject = [
            "id": .string(id), "approve": .bool(answer.approve), "reason": .optional(answer.reason),
        ]
        if let arguments = answer.arguments { parameters["arguments"] = .object(arguments) }
        if let seen = answer.seen { parameters["seen"] = .string(seen) }
        if let segments = answer.segments { parameters["segments"] = .array(segments.map { .int(Int64($0)) }) }
        return signed(parameters)
    }

    /// Does something with each; one that fails does not keep the others from it.
    /// - Parameter work: returns what happened as JSON and in words.
    static func each(
        _ ids: [String], _ common: CommonOptions, _ work: (OperatorClient, String) async throws -> (JSONObject, String)
    ) async throws {
        let client = OperatorClient(home: try common.resolveHome())
        var results: [JSONValue] = []
        var failure: ExitCode?
        for id in ids {
            do {
                let (result, words) = try await work(client, id)
                results.append(.object(result))
                if !common.json { Console.print(words) }
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

    /// `approved`, `rejected`, or whose consent is still missing.
    static func word(_ result: JSONObject) -> String {
        guard result["state"]?.string == "pending" else { return result["state"]?.string ?? "-" }
        let agreed = result["agreed"]?.array?.count ?? 0
        let needed = (result["terms"]?.array ?? []).compactMap { $0["quorum"]?.int }.max() ?? 1
        return "has \(agreed) of \(needed) approvals"
    }
}

/// A request's arguments in the supervisor's own editor.
enum ArgumentsEditor {
    /// - Returns: the changed arguments; nil when nothing was changed.
    static func edit(_ id: String, _ common: CommonOptions) throws -> JSONObject? {
        let request = try common.openForReading().read { try ApprovalQueue.require($0, id) }
        guard request.state == .pending else {
            throw StructuredError(
                .conflict, "`\(id)` is \(request.state.rawValue) already", recovery: ["See `kruxos approve list`."])
        }
        let environment = ProcessInfo.processInfo.environment
        guard
            let editor = [environment["VISUAL"], environment["EDITOR"]].compactMap({ $0 }).first(where: { !$0.isEmpty })
        else {
            throw StructuredError(
                .invalidArguments, "no editor is known", recovery: ["Set EDITOR, such as `EDITOR=nano`."])
        }
        let folder = FileManager.default.temporaryDirectory.path + "/kruxos-\(UUID().uuidString)"
        guard mkdir(folder, 0o700) == 0 else {
            throw StructuredError(.ioFailure, "cannot make `\(folder)`: \(String(cString: strerror(errno)))")
        }
        let file = "\(folder)/\(id).json"
        let before = JSONValue.object(request.arguments).prettyText() + "\n"
        try Data(before.utf8).write(to: URL(fileURLWithPath: file))
        // The shell splits what people write into EDITOR, such as `code --wait`.
        let code = try OwnerProcess.runAtTerminal(["/bin/sh", "-c", "\(editor) \"$1\"", "kruxos", file])
        guard code == 0 else {
            try FileManager.default.removeItem(atPath: folder)
            throw StructuredError(
                .conflict, "the editor ended with \(code), so \(id) was not answered", recovery: ["Try again."])
        }
        guard let data = FileManager.default.contents(atPath: file), let after = String(data: data, encoding: .utf8)
        else {
            throw StructuredError(
                .conflict, "the editor left no text, so \(id) was not answered", recovery: ["Try again."])
        }
        if after == before {
            try FileManager.default.removeItem(atPath: folder)
            return nil
        }
        let parsed: JSONValue
        do { parsed = try JSONParser.parse(after) } catch {
            throw StructuredError(
                .invalidArguments, "what you wrote is no JSON: \(error); it is kept in \(file)",
                recovery: ["Try again and keep to the shape of the text."])
        }
        guard let arguments = parsed.object else {
            throw StructuredError(
                .invalidArguments, "arguments are an object; what you wrote is kept in \(file)",
                recovery: ["Try again and keep the outer braces."])
        }
        try FileManager.default.removeItem(atPath: folder)
        return arguments
    }
}
