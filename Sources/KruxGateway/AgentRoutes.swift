import HTTPTypes
import Hummingbird
import KruxCore
import KruxEngine
import KruxMCP
import NIOCore
import NIOHTTP1
import Synchronization

/// What a connection tells a handler; nothing, so that a request costs nothing for it.
struct ConnectionContext: InitializableFromSource {
    let channel: any Channel
    init(source: ApplicationRequestContextSource) { channel = source.channel }
}

/// The agents' port. Every route but health needs a token.
struct AgentRoutes: HTTPResponder {
    typealias Context = ConnectionContext

    let engine: Engine
    let guardian: RequestGuard
    let mcp: MCPRoute
    private let bodies = BodyBudget()

    init(engine: Engine, host: String) {
        self.engine = engine
        guardian = RequestGuard(host: host)
        mcp = MCPRoute(engine: engine, sessions: MCPSessions())
    }

    /// A file of 8 MiB in base64 and what surrounds it.
    static let longestBody = 16 << 20

    func respond(to request: Request, context: ConnectionContext) async throws -> Response {
        do {
            if let refusal = guardian.refusal(request.head) { return refusal.response }
            let (path, query) = RequestGuard.split(request.head.path)
            if let health = HealthRoute.reply(path, request.head.method, engine) { return health.response }
            let isMCP = path == "/mcp"
            guard let caller = authenticate(request.head, via: isMCP ? "mcp" : "http") else {
                return unauthenticated(isMCP: isMCP).response
            }
            if let length = request.headers[.contentLength].flatMap({ Int($0) }), length > Self.longestBody {
                return tooLong(context)
            }
            // A body of unknown length may grow to the limit.
            let weight =
                request.head.method == .get
                ? 0 : request.headers[.contentLength].flatMap { Int($0) } ?? Self.longestBody
            guard bodies.take(weight) else {
                var reply = HTTPReply.error(
                    StructuredError(
                        .overloaded, "too many large requests at once", recovery: ["Try again in a moment."],
                        retryable: true, retryAfter: 1))
                reply.status = .serviceUnavailable
                return reply.response
            }
            defer { bodies.give(weight) }
            let body = try await request.body.collect(upTo: Self.longestBody)
            return await route(request.head, path, query, Array(body.readableBytesView), caller)
        } catch let error as HTTPParserError {
            throw error
        } catch is NIOTooManyBytesError {
            return tooLong(context)
        } catch {
            return HTTPReply.error(Engine.structured(error)).response
        }
    }

    private func authenticate(_ head: HTTPRequest, via: String) -> Caller? {
        BearerToken.read(head).flatMap { engine.authenticate(token: $0, via: via) }
    }

    private func unauthenticated(isMCP: Bool) -> HTTPReply {
        let error = StructuredError(
            .unauthenticated, "a valid agent token is needed",
            recovery: [
                "Send `Authorization: Bearer TOKEN`.",
                "Ask your supervisor for a new token (`kruxos agent rotate NAME`).",
            ])
        guard isMCP else { return .error(error) }
        var reply = MCPRoute.reply(.unauthorized, JSONRPCError(.gate, error.description, data: error.json))
        reply.headers.append((.wwwAuthenticate, "Bearer realm=\"kruxos\""))
        return reply
    }

    /// Says so and closes: the rest of the body is not read.
    private func tooLong(_ context: ConnectionContext) -> Response {
        let reply = HTTPReply.error(
            StructuredError(
                .tooLarge, "the request is over \(Self.longestBody) bytes",
                recovery: ["Write large files in parts with filesystem.append."]))
        let bytes = ByteBuffer(bytes: reply.body)
        var response = reply.response
        response.headers[.connection] = "close"
        response.body = ResponseBody(contentLength: bytes.readableBytes) { writer in
            try await writer.write(bytes)
            try await writer.finish(nil)
            context.channel.close(promise: nil)
        }
        return response
    }

    private func route(
        _ head: HTTPRequest, _ path: Substring, _ query: Substring, _ body: [UInt8], _ caller: Caller
    ) async -> Response {
        switch (head.method, path) {
        case (.post, "/v1/call"): return await call(body, caller)
        case (.get, "/v1/capabilities"): return HTTPReply.json(.ok, Self.capabilities(engine, caller)).response
        case (.post, "/rpc"): return await RPCRoute(engine: engine, caller: caller).respond(body)
        case (.get, "/v1/approvals"): return approvals(query, caller)
        case (_, "/mcp"): return await mcp.respond(head, body, caller)
        case (_, "/v1/call"), (_, "/v1/capabilities"), (_, "/v1/approvals"), (_, "/rpc"):
            let takesGet = path == "/v1/capabilities" || path == "/v1/approvals"
            var reply = HTTPReply.error(
                StructuredError(
                    .invalidRequest, "\(path) does not take \(head.method.rawValue.prefix(32))",
                    recovery: ["Use \(takesGet ? "GET" : "POST")."]))
            reply.status = .methodNotAllowed
            reply.headers.append((.allow, takesGet ? "GET" : "POST"))
            return reply.response
        default:
            if path.hasPrefix("/v1/approvals/") {
                return await approval(String(path.dropFirst("/v1/approvals/".count)), head.method, query, caller)
            }
            return HTTPReply.error(
                StructuredError(
                    .notFound, "there is no \(path.prefix(200))",
                    recovery: ["Use /v1/call, /v1/capabilities, /v1/approvals, /v1/approvals/{id}, /rpc or /mcp."])
            ).response
        }
    }

    private func call(_ body: [UInt8], _ caller: Caller) async -> Response {
        let input: JSONObject
        do throws(JSONParser.Failure) {
            guard let object = try JSONParser.parse(body).object else {
                return Self.malformed("the body must be a JSON object").response
            }
            input = object
        } catch {
            return Self.malformed("the body is no JSON: \(error)").response
        }
        let request: CallRequest
        let wait: Int64
        do throws(StructuredError) { (request, wait) = try CallRequest.decode(input) } catch {
            guard let capability = input["capability"]?.string else { return HTTPReply.error(error).response }
            return HTTPReply.error(await engine.refuse(malformed: error, capability: capability, by: caller)).response
        }
        guard wait > 0 || AgentTools.mayTakeLong(capability: request.capability) else {
            return Self.reply(await engine.call(request, by: caller)).response
        }
        let seconds = Double(wait)
        return await HeldReply(style: .json) { [engine] in
            Self.reply(await engine.call(request, by: caller, waitSeconds: seconds))
        }.response()
    }

    static func malformed(_ text: String) -> HTTPReply {
        .error(
            StructuredError(
                .invalidRequest, text,
                recovery: ["Send {\"capability\": \"filesystem.read\", \"arguments\": {\"path\": \"notes.txt\"}}."]))
    }

    private static func reply(_ reply: CallReply) -> HTTPReply {
        if case .failed(let error) = reply { return .error(error) }
        return .json(.ok, Engine.json(reply))
    }

    static func capabilities(_ engine: Engine, _ caller: Caller) -> JSONObject {
        [
            "capabilities": .array(
                engine.offered(to: caller).map { offer in
                    [
                        "name": .string(offer.declaration.name.text), "summary": .string(offer.declaration.summary),
                        "when_to_use": .string(offer.declaration.whenToUse),
                        "effect": .string(offer.declaration.effect.rawValue),
                        "side_effects": .strings(offer.declaration.sideEffects), "tier": .string(offer.tier.name),
                        "depends_on_arguments": .bool(offer.conditional),
                        "input_schema": offer.declaration.input.jsonSchema,
                        "output_schema": offer.declaration.output.jsonSchema,
                        "errors": .array(
                            offer.declaration.errors.map {
                                [
                                    "error_type": .string($0.kind.rawValue), "when": .string($0.when),
                                    "recovery": .string($0.recovery),
                                ]
                            }),
                    ]
                })
        ]
    }

    /// The caller's own requests: those that wait or run, or with `all=true` the last ones; newest first.
    private func approvals(_ query: Substring, _ caller: Caller) -> Response {
        do {
            let input = try QueryText(query, names: ["all", "limit"])
            let list = try Self.list(
                engine, caller, all: try input.flag("all") ?? false,
                limit: try input.int("limit", 1...Self.mostListed) ?? Self.mostListed)
            return HTTPReply.json(.ok, list).response
        } catch {
            return HTTPReply.error(Engine.structured(error)).response
        }
    }

    static let mostListed: Int64 = 1000

    static func list(_ engine: Engine, _ caller: Caller, all: Bool, limit: Int64) throws -> JSONObject {
        let requests = try engine.approvals(of: caller, all: all, limit: limit)
        return ["approvals": .array(requests.map { .object(Engine.json(forAgent: $0)) })]
    }

    private func approval(_ id: String, _ method: HTTPRequest.Method, _ query: Substring, _ caller: Caller) async
        -> Response
    {
        switch method {
        case .delete:
            do {
                return HTTPReply.json(.ok, Engine.json(forAgent: try engine.cancelApproval(id, by: caller))).response
            } catch {
                return HTTPReply.error(Engine.structured(error)).response
            }
        case .get:
            let wait: Double
            do {
                wait = Double(try QueryText(query, names: ["wait"]).int("wait", 0...CallRequest.longestWait) ?? 0)
            } catch {
                return HTTPReply.error(Engine.structured(error)).response
            }
            return await HeldReply(style: .json) { [engine] in
                do {
                    return .json(
                        .ok, Engine.json(forAgent: try await engine.approval(id, of: caller, waitSeconds: wait)))
                } catch {
                    return .error(Engine.structured(error))
                }
            }.response()
        default:
            var reply = Self.malformed("an approval takes GET and DELETE")
            reply.status = .methodNotAllowed
            reply.headers.append((.allow, "GET, DELETE"))
            return reply.response
        }
    }
}

/// Memory for bodies being read, shared by all connections.
private final class BodyBudget: Sendable {
    private static let most = 128 << 20
    private let taken = Mutex(0)

    func take(_ bytes: Int) -> Bool {
        taken.withLock { taken in
            guard taken + bytes <= Self.most else { return false }
            taken += bytes
            return true
        }
    }

    func give(_ bytes: Int) { taken.withLock { $0 -= bytes } }
}

/// `/health`: alive; `/health/ready`: able to let effects happen. The only routes without a token: they say what is wrong
/// in a word, and nothing of paths, agents or policies.
enum HealthRoute {
    private static func status(_ engine: Engine) -> JSONObject {
        let problems = engine.problems
        if problems.isEmpty { return ["status": "ok"] }
        return ["status": "degraded", "problems": .strings(problems.map(\.rawValue))]
    }

    static func reply(_ path: Substring, _ method: HTTPRequest.Method, _ engine: Engine) -> HTTPReply? {
        guard method == .get || method == .head else { return nil }
        switch path {
        case "/health": return .json(.ok, status(engine))
        case "/health/ready":
            return .json(engine.isReady ? .ok : .serviceUnavailable, status(engine))
        default: return nil
        }
    }
}
