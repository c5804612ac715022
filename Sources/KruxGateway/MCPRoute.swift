import HTTPTypes
import Hummingbird
import KruxCore
import KruxEngine
import KruxMCP

/// `/mcp`: Streamable HTTP in the stateless revision and in those with a handshake, on one path.
struct MCPRoute: Sendable {
    let engine: Engine
    let sessions: MCPSessions

    private static let sessionHeader = HTTPField.Name("Mcp-Session-Id")
    private static let versionHeader = HTTPField.Name("MCP-Protocol-Version")
    private static let methodHeader = HTTPField.Name("Mcp-Method")
    private static let nameHeader = HTTPField.Name("Mcp-Name")

    private static func values(_ fields: HTTPFields, _ name: HTTPField.Name?) -> [String] {
        name.map { fields[values: $0] } ?? []
    }

    static func reply(_ status: HTTPResponse.Status, _ error: JSONRPCError, id: JSONValue = .null) -> HTTPReply {
        .json(status, error.mcpResponse(id: id))
    }

    func respond(_ head: HTTPRequest, _ body: [UInt8], _ caller: Caller) async -> Response {
        let headers = MCPHeaders(
            protocolVersion: Self.values(head.headerFields, Self.versionHeader),
            method: Self.values(head.headerFields, Self.methodHeader),
            name: Self.values(head.headerFields, Self.nameHeader))
        guard head.method == .post else { return notAPost(head, headers, caller).response }
        if let refusal = negotiate(head) { return refusal.response }
        let value: JSONValue
        do throws(JSONParser.Failure) { value = try JSONParser.parse(body) } catch {
            return Self.reply(.badRequest, JSONRPCError(.parseError, "Parse error: \(error)")).response
        }
        let server = MCPServer(host: AgentTools(engine: engine, caller: caller), version: Engine.version)
        switch headers.era {
        case .modern: return await modern(value, headers, server)
        case .legacy: return await legacy(value, head, headers, server, caller)
        }
    }

    private func notAPost(_ head: HTTPRequest, _ headers: MCPHeaders, _ caller: Caller) -> HTTPReply {
        if head.method == .delete, headers.era == .legacy,
            let id = Self.values(head.headerFields, Self.sessionHeader).first
        {
            guard sessions.use(id, agent: caller.name, now: engine.clock.now()) else {
                return Self.reply(.notFound, JSONRPCError(.invalidRequest, "Session not found"))
            }
            sessions.close(id)
            return HTTPReply(status: .ok, body: [])
        }
        // The gate has nothing to say unasked, so there is no stream to GET.
        var reply = Self.reply(.methodNotAllowed, JSONRPCError(.invalidRequest, "use POST"))
        reply.headers.append((.allow, headers.era == .legacy ? "POST, DELETE" : "POST"))
        return reply
    }

    private func negotiate(_ head: HTTPRequest) -> HTTPReply? {
        let accept = head.headerFields[values: .accept].joined(separator: ",").lowercased()
        let anything = accept.isEmpty || accept.contains("*/*")
        if !anything, !accept.contains("application/json") || !accept.contains("text/event-stream") {
            return Self.reply(
                .notAcceptable,
                JSONRPCError(.invalidRequest, "Not Acceptable: accept application/json and text/event-stream"))
        }
        let type = head.headerFields[.contentType]?.split(separator: ";").first?.lowercased() ?? ""
        if type.trimmingSpaces != "application/json" {
            return Self.reply(
                .unsupportedMediaType, JSONRPCError(.invalidRequest, "the body must be application/json"))
        }
        return nil
    }

    private func modern(_ value: JSONValue, _ headers: MCPHeaders, _ server: MCPServer) async -> Response {
        switch JSONRPCMessage(value) {
        case .invalid(let error, let id): return Self.reply(.badRequest, error, id: id).response
        case .response:
            return Self.reply(.badRequest, JSONRPCError(.invalidRequest, "nothing was asked of the client")).response
        case .notification: return HTTPReply(status: .accepted, body: []).response
        case .request(let id, let method, let params):
            do throws(JSONRPCError) {
                try headers.check(method: method, params: params, decodeBase64: Engine.decodeBase64)
            } catch {
                return Self.reply(.badRequest, error, id: id).response
            }
            return await answer(server, id, method, params, .modern)
        }
    }

    private func legacy(
        _ value: JSONValue, _ head: HTTPRequest, _ headers: MCPHeaders, _ server: MCPServer, _ caller: Caller
    ) async -> Response {
        let sessionID = Self.values(head.headerFields, Self.sessionHeader).first
        if let batch = value.array {
            return await legacyBatch(batch, sessionID, headers, server, caller)
        }
        switch JSONRPCMessage(value) {
        case .invalid(let error, let id): return Self.reply(.badRequest, error, id: id).response
        case .request(let id, "initialize", let params):
            let result: JSONObject
            do throws(JSONRPCError) {
                result = try await server.answer(method: "initialize", params: params, era: .legacy)
            } catch {
                return Self.reply(.badRequest, error, id: id).response
            }
            var reply = HTTPReply.json(.ok, JSONRPC.response(id: id, result: result))
            if let name = Self.sessionHeader {
                reply.headers.append((name, sessions.open(agent: caller.name, now: engine.clock.now())))
            }
            return reply.response
        case .request(let id, _, let params)
        where MCPServer.version(in: params) != nil && headers.protocolVersion.isEmpty:
            return Self.reply(
                .badRequest, JSONRPCError(.headerMismatch, "Header mismatch: MCP-Protocol-Version is missing"), id: id
            ).response
        case .request(let id, let method, let params):
            if let refusal = checkSession(sessionID, caller, request: id) { return refusal.response }
            return await answer(
                server, id, method, params, .legacy, cancelKey: sessionID.map { "\($0) \(id.canonicalText)" })
        case .notification("notifications/cancelled", let params):
            if let refusal = checkSession(sessionID, caller) { return refusal.response }
            if let sessionID, let request = params?["requestId"] {
                sessions.cancellations.cancel("\(sessionID) \(request.canonicalText)")
            }
            return HTTPReply(status: .accepted, body: []).response
        case .notification, .response:
            if let refusal = checkSession(sessionID, caller) { return refusal.response }
            return HTTPReply(status: .accepted, body: []).response
        }
    }

    /// Batches exist in 2025-03-26 alone, which sends no version header.
    private func legacyBatch(
        _ batch: [JSONValue], _ sessionID: String?, _ headers: MCPHeaders, _ server: MCPServer, _ caller: Caller
    ) async -> Response {
        guard headers.protocolVersion.isEmpty || headers.protocolVersion == ["2025-03-26"],
            (1...100).contains(batch.count)
        else {
            return Self.reply(
                .badRequest, JSONRPCError(.invalidRequest, "batches of 1 to 100 messages belong to 2025-03-26")
            ).response
        }
        if let refusal = checkSession(sessionID, caller) { return refusal.response }
        var replies: [JSONValue] = []
        for message in batch {
            switch JSONRPCMessage(message) {
            case .invalid(let error, let id): replies.append(.object(error.mcpResponse(id: id)))
            case .request(let id, "initialize", _):
                replies.append(.object(JSONRPCError(.invalidRequest, "initialize comes alone").mcpResponse(id: id)))
            case .request(let id, let method, let params):
                replies.append(.object(await Self.result(server, id, method, params, .legacy).json))
            case .notification, .response: break
            }
        }
        if replies.isEmpty { return HTTPReply(status: .accepted, body: []).response }
        return HTTPReply(status: .ok, body: JSONValue.array(replies).canonicalBytes()).response
    }

    private func checkSession(_ id: String?, _ caller: Caller, request: JSONValue = .null) -> HTTPReply? {
        guard let id else {
            return Self.reply(
                .badRequest, JSONRPCError(.invalidRequest, "Bad Request: Missing session ID"), id: request)
        }
        guard sessions.use(id, agent: caller.name, now: engine.clock.now()) else {
            return Self.reply(.notFound, JSONRPCError(.invalidRequest, "Session not found"), id: request)
        }
        return nil
    }

    private static func result(
        _ server: MCPServer, _ id: JSONValue, _ method: String, _ params: JSONObject?, _ era: MCPServer.Era
    ) async -> (status: HTTPResponse.Status, json: JSONObject) {
        do throws(JSONRPCError) {
            return (
                .ok, JSONRPC.response(id: id, result: try await server.answer(method: method, params: params, era: era))
            )
        } catch {
            // The stateless revision says it with the status too; the others say everything with 200.
            let status: HTTPResponse.Status =
                era == .legacy ? .ok : error.code == .methodNotFound ? .notFound : .badRequest
            return (status, error.mcpResponse(id: id))
        }
    }

    private func answer(
        _ server: MCPServer, _ id: JSONValue, _ method: String, _ params: JSONObject?, _ era: MCPServer.Era,
        cancelKey: String? = nil
    ) async -> Response {
        guard method == "tools/call", AgentTools.mayTakeLong(tool: params?["name"]?.string) else {
            let (status, json) = await Self.result(server, id, method, params, era)
            return HTTPReply.json(status, json).response
        }
        return await HeldReply(
            style: .events(progressToken: MCPServer.progressToken(in: params)),
            cancellations: sessions.cancellations, cancelKey: cancelKey
        ) {
            let (status, json) = await Self.result(server, id, method, params, era)
            return HTTPReply.json(status, json)
        }.response()
    }
}

extension String {
    var trimmingSpaces: String {
        var view = Substring(self)
        while view.first == " " { view.removeFirst() }
        while view.last == " " { view.removeLast() }
        return String(view)
    }
}
