import HTTPTypes
import Hummingbird
import KruxCore
import KruxEngine
import NIOCore

/// The supervisors' port: supervisor credentials only. Here are health, links that answer one request each where a policy
/// has them, and requests for whoever shows a supervisor's token; what only the machine's owner does goes over the control
/// socket.
struct SupervisorRoutes: HTTPResponder {
    typealias Context = ConnectionContext

    let engine: Engine
    let guardian: RequestGuard
    let background: BackgroundTasks

    private static let prefix = "/a/"
    private static let longestForm = 16 << 10
    private static let longestAnswer = 16 << 20

    func respond(to request: Request, context: ConnectionContext) async throws -> Response {
        if let refusal = guardian.refusal(request.head, also: linkHost) { return refusal.response }
        let (path, query) = RequestGuard.split(request.head.path)
        if let reply = HealthRoute.reply(path, request.head.method, engine) { return reply.response }
        if path.hasPrefix(Self.prefix), engine.linkBase != nil {
            return try await link(String(path.dropFirst(Self.prefix.count)), request)
        }
        do {
            guard let token = BearerToken.read(request.head) else {
                throw StructuredError(
                    .unauthenticated, "supervisor credentials are needed; an agent's token is none",
                    recovery: [
                        "Send `Authorization: Bearer TOKEN` with a token of `kruxos supervisor add NAME`.",
                        "Use the kruxos command on this machine, such as `kruxos approve list`.",
                    ])
            }
            let principal = try engine.authenticate(supervisor: token)
            return HTTPReply.json(.ok, try await answer(request, path, query, principal)).response
        } catch is NIOTooManyBytesError {
            return HTTPReply.error(StructuredError(.tooLarge, "that is more than an answer holds")).response
        } catch {
            return HTTPReply.error(Engine.structured(error)).response
        }
    }

    private static let approvals = "/v1/approvals"

    /// `GET /v1/approvals[?all=true&agent=NAME&limit=N]`, `GET /v1/approvals/ID`,
    /// `POST /v1/approvals/ID {approve, reason?, seen?, arguments?, segments?}`, `POST /v1/approvals/ID/retry`.
    private func answer(_ request: Request, _ path: Substring, _ query: Substring, _ principal: Principal) async throws
        -> JSONObject
    {
        let parts = path.dropFirst().split(separator: "/", omittingEmptySubsequences: false)
        switch (request.head.method, parts.count) {
        case (.get, 2) where path == Self.approvals:
            let input = try QueryText(query, names: ["all", "agent", "limit"])
            return try engine.supervisedApprovals(
                all: try input.flag("all") ?? false, agent: input.text("agent"),
                limit: try input.int("limit", 1...1000) ?? 1000)
        case (.get, 3) where path.hasPrefix(Self.approvals + "/"):
            return try engine.supervisedApproval(String(parts[2]))
        case (.post, 3) where path.hasPrefix(Self.approvals + "/"):
            let body = try await request.body.collect(upTo: Self.longestAnswer)
            guard var input = (try? JSONParser.parse(Array(body.readableBytesView)))?.object else {
                throw StructuredError(
                    .invalidRequest, "the body must be a JSON object",
                    recovery: [#"Send {"approve": true, "reason": "I asked for it"}."#])
            }
            input["id"] = .string(String(parts[2]))
            // Who answers is told by the token alone.
            input["supervisor_token"] = nil
            let answered = try await engine.operate(.approvalDecide, input, by: principal)
            runIfApproved(answered)
            return answered
        case (.post, 4) where path.hasPrefix(Self.approvals + "/") && parts[3] == "retry":
            return try await engine.operate(.approvalRetry, ["id": .string(String(parts[2]))], by: principal)
        default:
            throw StructuredError(
                .notFound, "there is no \(request.head.method.rawValue.prefix(32)) \(path.prefix(200))",
                recovery: ["Use GET and POST of /v1/approvals, /v1/approvals/ID and /v1/approvals/ID/retry."])
        }
    }

    private func runIfApproved(_ answered: JSONObject) {
        guard answered["state"]?.string == "approved", let id = answered["id"]?.string else { return }
        background.start { [engine] in await engine.runApproved(id) }
    }

    /// The host of links, which a phone's browser names.
    private var linkHost: String? {
        engine.linkBase.flatMap { base in
            base.firstRange(of: "://").map { range in
                RequestGuard.host(base[range.upperBound...].prefix { $0 != "/" })
            }
        }
    }

    /// Looking changes nothing: programs that look at links in messages answer none.
    private func link(_ token: String, _ request: Request) async throws -> Response {
        do {
            switch request.head.method {
            case .get: return ApprovalPage.question(try engine.linkedRequest(token)).response
            case .post:
                let body = try await request.body.collect(upTo: Self.longestForm)
                let form = try ApprovalPage.form(String(buffer: body))
                guard let decision = form["decision"], ["approve", "reject"].contains(decision) else {
                    throw StructuredError(.invalidRequest, "the form says neither approve nor reject")
                }
                let reason = form["reason"].flatMap { $0.isEmpty ? nil : String($0.prefix(1000)) }
                let answered = try engine.answerByLink(token, approve: decision == "approve", reason: reason)
                runIfApproved(answered)
                return ApprovalPage.answered(answered).response
            default:
                var reply = ApprovalPage.problem(StructuredError(.invalidRequest, "a link is looked at, or answered"))
                reply.status = .methodNotAllowed
                reply.headers.append((.allow, "GET, POST"))
                return reply.response
            }
        } catch is NIOTooManyBytesError {
            return ApprovalPage.problem(StructuredError(.tooLarge, "that is more than an answer holds")).response
        } catch {
            return ApprovalPage.problem(Engine.structured(error)).response
        }
    }
}
