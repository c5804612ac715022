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

    /// - Parameter also: another host that browsers may name.
    func refusal(_ head: HTTPRequest, also other: String? = nil) -> HTTPReply? {
        func allowed(_ host: String) -> Bool { self.allowed(host) || other.map { !$0.isEmpty && $0 == host } ?? false }
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
    static func host(_ authority: Substring) -> String {
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
