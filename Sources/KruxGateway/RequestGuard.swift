import HTTPTypes
import Hummingbird
import KruxCore

/// Refuses what a web page made a browser send: a foreign `Origin`, and on loopback a `Host` that is not this machine,
/// which is what DNS rebinding looks like.
struct RequestGuard: Sendable {
    private static let loopback: Set<String> = ["localhost", "127.0.0.1", "[::1]"]
    private let bound: String

    /// - Parameter host: what the port is bound to.
    init(host: String) { bound = host.contains(":") ? "[\(host)]" : host.lowercased() }

    func refusal(_ head: HTTPRequest) -> HTTPReply? {
        for origin in head.headerFields[values: Self.origin] {
            guard let range = origin.firstRange(of: "://"), allowed(Self.host(origin[range.upperBound...])) else {
                return refuse("a request from the origin `\(origin.prefix(200))` is refused")
            }
        }
        if Self.loopback.contains(bound), let authority = head.authority, !allowed(Self.host(Substring(authority))) {
            return refuse("the host `\(authority.prefix(200))` is not this machine")
        }
        return nil
    }

    private static let origin = HTTPField.Name.origin

    private func allowed(_ host: String) -> Bool { Self.loopback.contains(host) || host == bound }

    /// The host of `host[:port]`, in lower case.
    private static func host(_ authority: Substring) -> String {
        let end: Substring.Index
        if authority.utf8.first == UInt8(ascii: "[") {
            guard let bracket = authority.utf8.firstIndex(of: UInt8(ascii: "]")) else { return "" }
            end = authority.utf8.index(after: bracket)
        } else {
            end = authority.utf8.firstIndex(of: UInt8(ascii: ":")) ?? authority.endIndex
        }
        // After the host a port or nothing: no user, no second name.
        let port = authority[end...].utf8
        guard port.isEmpty || port.first == UInt8(ascii: ":") && port.dropFirst().allSatisfy({ (48...57).contains($0) })
        else { return "" }
        return authority[..<end].lowercased()
    }

    private func refuse(_ text: String) -> HTTPReply {
        var reply = HTTPReply.error(
            StructuredError(
                .invalidRequest, text, recovery: ["Call from a program, at the address the gateway prints."]))
        reply.status = .forbidden
        return reply
    }

    /// Path and query of a request target.
    static func split(_ target: String?) -> (path: Substring, query: Substring) {
        let target = Substring(target ?? "/")
        guard let mark = target.firstIndex(of: "?") else { return (target, "") }
        return (target[..<mark], target[target.index(after: mark)...])
    }
}

/// The supervisors' port: supervisor credentials only. What a supervisor does goes over the control socket for now, so
/// here is health and nothing else.
struct SupervisorRoutes: HTTPResponder {
    typealias Context = ConnectionContext

    let health: @Sendable (Substring, HTTPRequest.Method) -> HTTPReply?
    let guardian: RequestGuard

    func respond(to request: Request, context: ConnectionContext) async throws -> Response {
        if let refusal = guardian.refusal(request.head) { return refusal.response }
        let (path, _) = RequestGuard.split(request.head.path)
        if let reply = health(path, request.head.method) { return reply.response }
        return HTTPReply.error(
            StructuredError(
                .unauthenticated, "supervisor credentials are needed; an agent's token is none",
                recovery: ["Use the kruxos command on this machine, such as `kruxos approve list`."])
        ).response
    }
}
