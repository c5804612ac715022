import KruxCore
import KruxEngine
import KruxMCP

/// The gate as one agent's MCP tools: what policy lets it call, and a tool to wait for approvals.
struct AgentTools: MCPToolHost {
    static let waitTool = "kruxos__wait_for_approval"

    let engine: Engine
    let caller: Caller

    private static let wait = MCPTool(
        name: waitTool,
        description: "Waits for a person's answer to a request and for its result. Use it after a call answered with "
            + "a request_id; a wait that runs out leaves the request in the queue, and you may wait again.",
        input: [
            .required("request_id", .string(minLength: 1, maxLength: 64), "The id that the call returned."),
            .optional("timeout_seconds", .integer(0...CallRequest.longestWait), "How long to wait.", default: 60),
        ], output: nil, effect: .read)

    static let listTool = "kruxos__list_approvals"
    static let cancelTool = "kruxos__cancel_approval"

    private static let list = MCPTool(
        name: listTool,
        description:
            "Lists your requests that wait for a person or run, newest first; with `all` also those that ended.",
        input: [
            .optional("all", .boolean, "Also those that ended.", default: false),
            .optional("limit", .integer(1...AgentRoutes.mostListed), "At most so many.", default: 20),
        ], output: nil, effect: .read)
    private static let cancel = MCPTool(
        name: cancelTool, description: "Withdraws a request of yours that still waits for a person.",
        input: [.required("request_id", .string(minLength: 1, maxLength: 64), "The id that the call returned.")],
        output: nil, effect: .write)

    func tools() async -> [MCPTool] {
        engine.offered(to: caller).map { offer in
            let note: String? =
                switch (offer.tier, offer.conditional) {
                case (.approvalRequired, false): "A person must approve each call."
                case (_, true): "Depending on its arguments a person must approve the call."
                default: nil
                }
            return MCPTool(offer.declaration, note: note)
        } + [Self.wait, Self.list, Self.cancel]
    }

    func call(tool: String, arguments: JSONObject, reason: String?) async -> MCPToolOutcome {
        if tool == Self.waitTool { return await wait(arguments) }
        if tool == Self.listTool {
            return own(Self.list, arguments) { input in
                try AgentRoutes.list(
                    engine, caller, all: input["all"]?.bool ?? false,
                    limit: input["limit"]?.int ?? AgentRoutes.mostListed)
            }
        }
        if tool == Self.cancelTool {
            return own(Self.cancel, arguments) { input in
                Engine.json(forAgent: try engine.cancelApproval(input["request_id"]?.string ?? "", by: caller))
            }
        }
        // Also what is no capability's name goes through the gate: an unknown call is recorded like any other.
        let name = CapabilityName(toolName: tool).flatMap { $0.toolName.utf8Equals(tool) ? $0.text : nil } ?? tool
        // Unlisted tools go through the gate like any other call: the refusal is decided and recorded.
        switch await engine.call(
            CallRequest(capability: name, arguments: arguments, purpose: reason), by: caller)
        {
        case .succeeded(let data, _, _): return .success(data)
        case .failed(let error): return error.kind == .unknownCapability ? .unknownTool : .failure(error)
        }
    }

    private func own(_ tool: MCPTool, _ arguments: JSONObject, _ work: (JSONObject) throws -> JSONObject)
        -> MCPToolOutcome
    {
        let (input, violations) = tool.input.validate(arguments)
        guard violations.isEmpty else {
            let shown = violations.map { "\($0.pointer) \($0.message)" }.joined(separator: "; ")
            return .failure(StructuredError(.invalidArguments, "arguments of \(tool.name) do not fit: \(shown)"))
        }
        do { return .success(try work(input)) } catch { return .failure(Engine.structured(error)) }
    }

    private func wait(_ arguments: JSONObject) async -> MCPToolOutcome {
        let (input, violations) = Self.wait.input.validate(arguments)
        guard violations.isEmpty, let id = input["request_id"]?.string, let seconds = input["timeout_seconds"]?.int
        else {
            let shown = violations.map { "\($0.pointer) \($0.message)" }.joined(separator: "; ")
            return .failure(
                StructuredError(
                    .invalidArguments, "arguments of \(Self.waitTool) do not fit: \(shown)",
                    recovery: ["Pass the request_id that the call returned."]))
        }
        do {
            let request = try await engine.approval(id, of: caller, waitSeconds: Double(seconds))
            if case .failed(let error)? = Engine.reply(of: request) { return .failure(error) }
            return .success(Engine.json(forAgent: request))
        } catch {
            return .failure(Engine.structured(error))
        }
    }

    func task(_ id: String) async -> MCPTask? {
        guard let request = try? await engine.approval(id, of: caller, waitSeconds: 0) else { return nil }
        let json = Engine.json(forAgent: request)
        let state = json["state"]?.string ?? ""
        let status: MCPTask.Status =
            switch Engine.reply(of: request) {
            case _ where state == "cancelled": .cancelled
            case .succeeded(let data, _, _)?: .completed(.success(data))
            case .failed(let error)?: .completed(.failure(error))
            case nil: .working
            }
        let times = ["requested_at", "decided_at", "finished_at"].compactMap { json[$0]?.string }
        return MCPTask(
            id: id, status: status, message: state == "pending" ? "Waits for a person's answer." : "It is \(state).",
            createdAt: times.first ?? "", updatedAt: times.last ?? "")
    }

    /// One that runs or has ended goes on as it is: a cancellation is a wish.
    func cancelTask(_ id: String) async -> Bool {
        if (try? engine.cancelApproval(id, by: caller)) != nil { return true }
        return await task(id) != nil
    }

    /// Whether a call may take longer than a client's patience.
    static func mayTakeLong(capability: String) -> Bool {
        capability == "filesystem.watch"
            || !["filesystem.", "system.", "agent."].contains { capability.hasPrefix($0) }
    }

    /// The same of a tool's name.
    static func mayTakeLong(tool: String?) -> Bool {
        guard let tool else { return false }
        return CapabilityName(toolName: tool).map { mayTakeLong(capability: $0.text) } ?? true
    }
}
