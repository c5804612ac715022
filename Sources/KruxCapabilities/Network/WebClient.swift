import AsyncHTTPClient
import Foundation
import KruxCore
import KruxSandbox
import NIOCore
import NIOHTTP1
import NIOPosix

/// An http or https URL in its one spelling.
struct WebURL: Sendable, Equatable {
    let address: WebAddress
    /// What is asked for: scheme, host, the port where it is not the scheme's own, path and query.
    let text: String

    /// - Throws: `StructuredError` `.invalidArguments`.
    init(_ text: String) throws(StructuredError) {
        func refusal(_ why: String, _ way: String) -> StructuredError {
            StructuredError(.invalidArguments, "the URL \(why)", recovery: [way])
        }
        let scheme = text.prefix { $0 != ":" && $0 != "/" }.lowercased()
        guard ["http", "https"].contains(scheme) else {
            throw refusal("has the scheme `\(scheme.prefix(32))`", "Use http or https.")
        }
        guard let address = WebAddress(text) else {
            throw refusal(
                "can be read in more than one way, so it is not used",
                "Write it as `https://host/path`: no blanks, no backslashes, no encoded letters or dots in its path.")
        }
        let authority = text.dropFirst(address.scheme.count + 3).prefix { !"/?#".contains($0) }
        guard !authority.contains("@") else {
            throw refusal(
                "carries a user name", "Leave it out; network.credentialed_request sends a secret of the vault.")
        }
        var query = ""
        let rest = text.prefix { $0 != "#" }
        if let mark = rest.firstIndex(of: "?") { query = String(rest[mark...]) }
        self.address = address
        self.text = address.origin + address.path + query
    }
}

extension WebAddress {
    /// `https://example.com:8443`, without the scheme's own port.
    var origin: String {
        let isUsual = port == (scheme == "https" ? 443 : 80)
        return "\(scheme)://\(host)" + (isUsual ? "" : ":\(port)")
    }
}

/// Sends requests to where rules let it: each hop's address is judged and is the one connected to, each redirect is
/// decided anew. No proxy, cookies, credentials or other habits of the machine are taken over.
struct WebClient: Sendable {
    let context: CallContext
    /// Whether a redirect may lead to another origin.
    let crossesOrigins: Bool

    struct Request: Sendable {
        var url: WebURL
        var method: String
        var headers: [(name: String, value: String)]
        var body: [UInt8]?
    }

    struct Hop: Sendable {
        let status: Int64
        let url: String

        var json: JSONValue { ["status": .int(status), "url": .string(url)] }
    }

    /// What came back, without its body.
    struct Head: Sendable {
        let url: WebURL
        let address: NetworkAddress
        let status: Int64
        let headers: JSONObject
        /// Redirects that were followed.
        let hops: [Hop]
        /// Why the last one was not.
        let stopped: String?

        var isSuccess: Bool { (200..<300).contains(status) }
    }

    private enum Step<R: Sendable>: Sendable {
        case ended(R), again(Request, SandboxSettings, Hop)
    }

    static let mostRedirects = 10

    /// Sends a request and gives its answer to `take`, whose result it returns.
    /// - Throws: `StructuredError` `.addressRefused`, `.notFound`, `.timedOut`, `.ioFailure`, or what `take` throws.
    func send<R: Sendable>(
        _ request: Request, follow: Bool, timeoutSeconds: Int64,
        _ take: @escaping @Sendable (Head, HTTPClientResponse.Body) async throws -> R
    ) async throws(StructuredError) -> R {
        do {
            return try await withThrowingTaskGroup(of: R?.self) { group in
                group.addTask { try await exchange(request, follow: follow, timeoutSeconds, take) }
                group.addTask {
                    try await Task.sleep(for: .seconds(timeoutSeconds))
                    return nil
                }
                defer { group.cancelAll() }
                guard let first = try await group.next(), let result = first else { throw Self.late(timeoutSeconds) }
                return result
            }
        } catch {
            throw Self.structured(error, request.url.address.host)
        }
    }

    private static func late(_ seconds: Int64) -> StructuredError {
        StructuredError(
            .timedOut, "no whole answer came within \(seconds) s", recovery: ["Try again with more timeout_seconds."],
            retryable: true)
    }

    private func exchange<R: Sendable>(
        _ first: Request, follow: Bool, _ timeoutSeconds: Int64,
        _ take: @escaping @Sendable (Head, HTTPClientResponse.Body) async throws -> R
    ) async throws -> R {
        var request = first
        var reach = Reach(allowed: context.confinement.settings.addresses)
        var hops: [Hop] = []
        while true {
            let current = request
            let known = hops
            let step: Step<R> = try await hop(current, reach, timeoutSeconds) { response, address in
                var stopped: String?
                if follow, let (next, why) = redirect(current, response) {
                    switch next {
                    case nil: stopped = why
                    case let next? where known.count < Self.mostRedirects:
                        let (decided, refusal) = try decide(next, asked: first)
                        if let decided {
                            let hop = Hop(status: Int64(response.status.code), url: next.url.text)
                            return .again(next, decided, hop)
                        }
                        stopped = refusal
                    default: stopped = "more than \(Self.mostRedirects) redirects"
                    }
                }
                let head = Head(
                    url: current.url, address: address, status: Int64(response.status.code),
                    headers: Self.headers(response.headers), hops: known, stopped: stopped)
                return .ended(try await take(head, response.body))
            }
            switch step {
            case .ended(let result): return result
            case .again(let next, let settings, let hop):
                try await context.report(["redirect": hop.json])
                hops.append(hop)
                request = next
                reach = Reach(allowed: settings.addresses)
            }
        }
    }

    /// One request and its answer, on a connection of its own to an address that was judged.
    private func hop<R>(
        _ request: Request, _ reach: Reach, _ timeoutSeconds: Int64,
        _ body: (HTTPClientResponse, NetworkAddress) async throws -> R
    ) async throws -> R {
        let host = request.url.address.host
        let addresses = try await reach.addresses(of: host)
        var failure: any Error = Reach.refusal(host, addresses)
        for address in addresses.prefix(4) {
            var configuration = HTTPClient.Configuration(redirectConfiguration: .disallow)
            configuration.dnsOverride = [host: address.text]
            configuration.timeout.connect = .seconds(min(10, timeoutSeconds))
            configuration.decompression = .disabled
            let client = HTTPClient(eventLoopGroupProvider: .singleton, configuration: configuration)
            var outgoing = HTTPClientRequest(url: request.url.text)
            outgoing.method = HTTPMethod(rawValue: request.method)
            for (name, value) in request.headers { outgoing.headers.add(name: name, value: value) }
            if !outgoing.headers.contains(name: "user-agent") {
                outgoing.headers.add(name: "user-agent", value: "kruxos")
            }
            if let body = request.body { outgoing.body = .bytes(ByteBuffer(bytes: body)) }
            let response: HTTPClientResponse
            do {
                response = try await client.execute(outgoing, timeout: .seconds(timeoutSeconds))
            } catch {
                try? await client.shutdown()
                failure = error
                // Nothing was sent, so another address may be tried.
                if Self.isConnecting(error) { continue }
                throw error
            }
            let result: Result<R, any Error>
            do { result = .success(try await body(response, address)) } catch { result = .failure(error) }
            // What is left of the body is not wanted.
            try? await client.shutdown()
            return try result.get()
        }
        throw failure
    }

    private static func isConnecting(_ error: any Error) -> Bool {
        error is NIOConnectionError || (error as? HTTPClientError) == .connectTimeout
    }

    /// Where an answer leads: the request that follows it, or why none does. Nil for no redirect.
    private func redirect(_ request: Request, _ response: HTTPClientResponse) -> (next: Request?, why: String?)? {
        let status = response.status.code
        guard [301, 302, 303, 307, 308].contains(status),
            let location = response.headers.first(name: "location")
        else { return nil }
        guard let target = URL(string: location, relativeTo: URL(string: request.url.text))?.absoluteString else {
            return (nil, "its location is no URL")
        }
        var next = request
        do throws(StructuredError) { next.url = try WebURL(target) } catch { return (nil, error.description) }
        if status == 303 && request.method != "HEAD" || status <= 302 && request.method == "POST" {
            next.method = "GET"
            next.body = nil
            next.headers.removeAll { $0.name.lowercased().hasPrefix("content-") }
        }
        guard next.url.address.origin != request.url.address.origin else { return (next, nil) }
        if !crossesOrigins { return (nil, "it leads to another origin, which does not get the secret") }
        if request.url.address.scheme == "https", next.url.address.scheme == "http" {
            return (nil, "it leads from https to http")
        }
        next.headers.removeAll { ["authorization", "cookie", "proxy-authorization"].contains($0.name.lowercased()) }
        return (next, nil)
    }

    /// What rules say of a request that follows another; nil and why when it needs more than they give by themselves.
    private func decide(_ next: Request, asked: Request) throws -> (SandboxSettings?, String?) {
        var changed: JSONObject = ["url": .string(next.url.text)]
        // Compared with what the call itself says: a redirect before this one may have changed it.
        if next.method != asked.method { changed["method"] = .string(next.method) }
        let decision = try context.redecide(changed)
        if decision.tier <= .notify { return (decision.sandbox, nil) }
        let reason = decision.reason.map { ": \($0)" } ?? ""
        let why = decision.tier == .blocked ? "is blocked" : "needs approval; call it by itself"
        return (nil, "what it leads to \(why)\(reason)")
    }

    /// Lower-case names; several of one name joined, cookies by line.
    private static func headers(_ headers: HTTPHeaders) -> JSONObject {
        var result = JSONObject()
        for (name, value) in headers {
            let key = name.lowercased()
            let clean = String(decoding: value.utf8.filter { $0 >= 32 && $0 != 127 || $0 == 9 }, as: UTF8.self)
            guard let before = result[key]?.string else {
                result[key] = .string(clean)
                continue
            }
            result[key] = .string(before + (key == "set-cookie" ? "\n" : ", ") + clean)
        }
        return result
    }

    /// Errors of the library in words.
    static func structured(_ error: any Error, _ host: String) -> StructuredError {
        if let error = error as? StructuredError { return error }
        let timeouts: [HTTPClientError] = [
            .connectTimeout, .readTimeout, .writeTimeout, .deadlineExceeded, .tlsHandshakeTimeout,
        ]
        if let error = error as? HTTPClientError, timeouts.contains(error) {
            return StructuredError(
                .timedOut, "`\(host)` did not answer in time", recovery: ["Try again with more timeout_seconds."],
                retryable: true)
        }
        if error is CancellationError {
            return StructuredError(.timedOut, "the request was ended", recovery: ["Call again."], retryable: true)
        }
        return StructuredError(
            .ioFailure, "`\(host)` cannot be reached: \(String(describing: error).prefix(500))",
            recovery: ["Check host, port and scheme, or try again later."], retryable: true)
    }
}
