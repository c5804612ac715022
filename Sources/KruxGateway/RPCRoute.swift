import HTTPTypes
import Hummingbird
import KruxCore
import KruxEngine
import KruxMCP

/// `POST /rpc`: JSON-RPC 2.0. A capability's name is a method with its arguments as `params`; beside them stand
/// `kruxos.call`, `kruxos.capabilities`, `kruxos.approval`, `kruxos.approvals` and `kruxos.cancel`.
struct RPCRoute: Sendable {
    let engine: Engine
    let caller: Caller

    static let mostInBatch = 100

    func respond(_ body: [UInt8]) async -> Response {
        let value: JSONValue
        do throws(JSONParser.Failure) { value = try JSONParser.parse(body) } catch {
            return HTTPReply.json(.badRequest, JSONRPCError(.parseError, "Parse error: \(error)").response(id: .null))
                .response
        }
        guard let batch = value.array else {
            return await HeldReply(style: .json) {
                guard let reply = await answer(value) else { return HTTPReply(status: .noContent, body: []) }
                return .json(.ok, reply)
            }.response()
        }
        guard (1...Self.mostInBatch).contains(batch.count) else {
            let error = JSONRPCError(.invalidRequest, "a batch holds 1 to \(Self.mostInBatch) messages")
            return HTTPReply.json(.badRequest, error.response(id: .null)).response
        }
        return await HeldReply(style: .json) {
            var replies: [JSONValue] = []
            for message in batch {
                if let reply = await answer(message) { replies.append(.object(reply)) }
            }
            if replies.isEmpty { return HTTPReply(status: .noContent, body: []) }
            return HTTPReply(status: .ok, body: JSONValue.array(replies).canonicalBytes())
        }.response()
    }

    /// Nil for what is not answered.
    private func answer(_ message: JSONValue) async -> JSONObject? {
        switch JSONRPCMessage(message) {
        case .invalid(let error, let id): return error.response(id: id)
        case .response: return nil
        case .notification(let method, let params):
            // Not answered, and so of use for effects only; decided and recorded all the same.
            _ = await result(method, params ?? [:])
            return nil
        case .request(let id, let method, let params):
            switch await result(method, params ?? [:]) {
            case .success(let result): return JSONRPC.response(id: id, result: result)
            case .failure(let error): return error.response(id: id)
            }
        }
    }

    private func result(_ method: String, _ params: JSONObject) async -> Result<JSONObject, JSONRPCError> {
        let known: [String: [String]] = [
            "kruxos.capabilities": [], "kruxos.approvals": ["all", "limit"], "kruxos.approval": ["request_id", "wait"],
            "kruxos.cancel": ["request_id"],
        ]
        if let names = known[method], let stranger = params.members.first(where: { !names.contains($0.key) })?.key {
            return .failure(
                JSONRPCError(
                    .invalidParams,
                    "`\(stranger.prefix(64))` is no parameter of \(method)"
                        + (names.isEmpty ? ", which takes none" : "; use \(names.joined(separator: ", "))")))
        }
        switch method {
        case "kruxos.call":
            do throws(StructuredError) {
                let (request, wait) = try CallRequest.decode(params)
                return await call(request, wait: wait)
            } catch {
                var answer = error
                if let capability = params["capability"]?.string {
                    answer = await engine.refuse(malformed: error, capability: capability, by: caller)
                }
                return .failure(JSONRPCError(.invalidParams, answer.description, data: answer.json))
            }
        case "kruxos.capabilities": return .success(AgentRoutes.capabilities(engine, caller))
        case "kruxos.approvals":
            let all = params["all"] ?? false
            let limit = params["limit"] ?? .int(AgentRoutes.mostListed)
            guard let all = all.bool, let most = limit.int, (1...AgentRoutes.mostListed).contains(most) else {
                return .failure(
                    JSONRPCError(
                        .invalidParams, "`all` is a boolean, and `limit` 1 to \(AgentRoutes.mostListed)"))
            }
            do {
                return .success(try AgentRoutes.list(engine, caller, all: all, limit: most))
            } catch {
                return .failure(Self.error(Engine.structured(error)))
            }
        case "kruxos.approval", "kruxos.cancel":
            guard let id = params["request_id"]?.string else {
                return .failure(JSONRPCError(.invalidParams, "`request_id` must be a string"))
            }
            let wait = params["wait"] ?? 0
            guard let seconds = wait.int, (0...CallRequest.longestWait).contains(seconds) else {
                return .failure(
                    JSONRPCError(.invalidParams, "`wait` must be 0 to \(CallRequest.longestWait) seconds"))
            }
            do {
                let request =
                    method == "kruxos.cancel"
                    ? try engine.cancelApproval(id, by: caller)
                    : try await engine.approval(
                        id, of: caller, waitSeconds: Double(seconds))
                return .success(Engine.json(forAgent: request))
            } catch {
                return .failure(Self.error(Engine.structured(error)))
            }
        default: return await call(CallRequest(capability: method, arguments: params), wait: 0)
        }
    }

    private func call(_ request: CallRequest, wait: Int64) async -> Result<JSONObject, JSONRPCError> {
        switch await engine.call(request, by: caller, waitSeconds: Double(wait)) {
        case .succeeded(let data, _, _): return .success(data)
        case .failed(let error): return .failure(Self.error(error))
        }
    }

    /// The one place that maps errors to JSON-RPC.
    private static func error(_ error: StructuredError) -> JSONRPCError {
        let code: JSONRPCError.Code =
            switch error.kind {
            case .unknownCapability: .methodNotFound
            case .invalidArguments: .invalidParams
            case .internalError: .internalError
            default: .gate
            }
        return JSONRPCError(code, error.description, data: error.json)
    }
}
