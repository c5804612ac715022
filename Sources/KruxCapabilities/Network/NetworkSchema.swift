import AsyncHTTPClient
import Foundation
import KruxCore
import KruxCrypto
import NIOCore

/// What the capabilities on the network have in common.
enum NetworkSchema {
    static let url = Property.required(
        "url", .string(minLength: 1, maxLength: 8192), "An http or https URL.", role: .url)
    static let host = Property.required(
        "host", .string(minLength: 1, maxLength: 253), "A name, or an address.", role: .host)

    static let request: [Property] = [
        url,
        .optional(
            "method", .choice(["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"]), "The method.",
            default: "GET", role: .method),
        .optional("headers", .map(.string(maxLength: 8192), maxItems: 100), "Request headers."),
        .optional("body", .string(maxLength: 12 << 20), "Request body, in the given encoding."),
        .optional("encoding", .choice(["utf8", "base64"]), "How the body is given.", default: "utf8"),
        .optional("timeout_seconds", .integer(1...600), "Give up after this long.", default: 30),
        .optional(
            "max_bytes", .integer(0...(16 << 20)), "Bytes of the answer's body that are returned.",
            default: .int(1 << 20)),
        followRedirects,
    ]

    static let followRedirects = Property.optional(
        "follow_redirects", .boolean, "Go where the answer leads, as far as rules let you.", default: true)

    static let redirects: [Property] = [
        .required(
            "redirects",
            .array(
                .object([
                    .required("status", .integer(300...399), "The status that led there."),
                    .required("url", .string(maxLength: 8192), "Where it led."),
                ]), maxItems: WebClient.mostRedirects), "Redirects that were followed."),
        .optional(
            "stopped", .text, "Why a redirect was not followed: status and `location` are its own then."),
    ]

    static let response = ObjectSchema(
        [
            .required("url", .string(maxLength: 8300), "Where the answer came from."),
            .required("address", .text, "The address that was connected to."),
            .required("status", .integer(100...999), "HTTP status."),
            .required(
                "headers", .map(.string(maxLength: 128 << 10), maxItems: 1000),
                "Response headers by their names in lower case; several of one name are joined by a comma, cookies by a line's end."
            ),
            .required("body", .string(maxLength: 24 << 20), "Response body."),
            .required("encoding", .choice(["utf8", "base64"]), "How the body is given: base64 where it is no UTF-8."),
            .required("bytes", .count, "Bytes of the body that are given."),
            .required("truncated", .boolean, "Whether there is more, beyond max_bytes."),
        ] + redirects)

    static let refused = CapabilityDeclaration.DeclaredError(
        .addressRefused, when: "the address is private, local or a metadata service's",
        recovery: "ask your supervisor for a rule with `sandbox: {addresses: […]}`")
    static let noHost = CapabilityDeclaration.DeclaredError(
        .notFound, when: "there is no such host", recovery: "check the name")
    static let late = CapabilityDeclaration.DeclaredError(
        .timedOut, when: "no answer comes in time", recovery: "try again with more timeout_seconds")
    static let unreachable = CapabilityDeclaration.DeclaredError(
        .ioFailure, when: "it cannot be reached, or its certificate does not hold", recovery: "check host and port")
    static let errors = [refused, noHost, late, unreachable]

    /// Those that mean something to the connection and not to who answers, which the gate writes itself.
    private static let reserved: Set<String> = [
        "host", "content-length", "transfer-encoding", "connection", "keep-alive", "te", "trailer", "upgrade", "expect",
        "http2-settings",
    ]

    /// - Throws: `StructuredError` `.invalidArguments`.
    static func headers(_ map: JSONObject?) throws(StructuredError) -> [(name: String, value: String)] {
        var headers: [(name: String, value: String)] = []
        for member in map?.members ?? [] {
            let value = member.value.string ?? ""
            try requireHeader(member.key)
            guard value.utf8.allSatisfy({ $0 >= 32 && $0 != 127 || $0 == 9 }) else {
                throw StructuredError(
                    .invalidArguments, "the header `\(member.key)` contains a line's end or another control character",
                    recovery: ["Send it without."])
            }
            headers.append((member.key, value))
        }
        return headers
    }

    static func requireHeader(_ name: String) throws(StructuredError) {
        let isToken =
            !name.isEmpty
            && name.utf8.allSatisfy { byte in
                (48...57).contains(byte) || (65...90).contains(byte & 0xDF) || "!#$%&'*+-.^_`|~".utf8.contains(byte)
            }
        guard isToken, !reserved.contains(name.lowercased()), !name.lowercased().hasPrefix("proxy-") else {
            throw StructuredError(
                .invalidArguments, "the header `\(name.prefix(64))` cannot be set",
                recovery: ["Leave it out: the gate writes what belongs to the connection itself."])
        }
    }
}

/// The arguments that HTTP requests have in common.
struct WebInput: Sendable {
    let request: WebClient.Request
    let follow: Bool
    let timeout: Int64, mostBytes: Int

    init(_ arguments: Arguments) throws(StructuredError) {
        var body: [UInt8]?
        if let text = arguments.optionalText("body") {
            if try arguments.text("encoding") == "base64" {
                guard let bytes = Base64.decode(text) else {
                    throw StructuredError(
                        .invalidArguments, "`body` is no padded base64", recovery: ["Encode it again with padding."])
                }
                body = bytes
            } else {
                body = Array(text.utf8)
            }
        }
        request = WebClient.Request(
            url: try WebURL(try arguments.text("url")), method: try arguments.text("method"),
            headers: try NetworkSchema.headers(arguments.optionalMap("headers")), body: body)
        follow = try arguments.bool("follow_redirects")
        timeout = try arguments.int("timeout_seconds")
        mostBytes = Int(try arguments.int("max_bytes"))
    }

    /// An answer that repeats a secret must not do so in another form or in pieces.
    func requirePlainAnswer() throws(StructuredError) {
        for header in request.headers where ["accept-encoding", "range", "if-range"].contains(header.name.lowercased())
        {
            throw StructuredError(
                .invalidArguments, "the header `\(header.name)` cannot be set beside a secret",
                recovery: ["Leave it out."])
        }
    }
}

/// An answer with as much of its body as was asked for.
struct WebOutput: CapabilityOutput {
    let head: WebClient.Head
    let body: [UInt8], isTruncated: Bool

    /// Reads a body up to a limit.
    /// - Parameter hiding: takes what is secret out of the whole before it is cut; nil where nothing is.
    init(
        _ head: WebClient.Head, _ body: HTTPClientResponse.Body, most wanted: Int,
        hiding: (@Sendable ([UInt8]) -> [UInt8])?
    ) async throws {
        // What begins before the cut and ends after it is seen as a whole.
        let most = hiding == nil ? wanted : wanted + Self.longestSecret
        var bytes: [UInt8] = []
        var isTruncated = false
        for try await part in body {
            CallProgress.current?.add(part.readableBytesView)
            let room = most - bytes.count
            bytes += part.readableBytesView.prefix(room)
            if part.readableBytes > room {
                isTruncated = true
                break
            }
        }
        if let hiding {
            bytes = hiding(bytes)
            if bytes.count > wanted {
                bytes = Array(bytes.prefix(wanted))
                isTruncated = true
            }
        }
        self.head = head
        self.body = bytes
        self.isTruncated = isTruncated
    }

    /// With its longest encoding.
    private static let longestSecret = 256 << 10

    var json: JSONObject {
        var text = String(validating: body, as: UTF8.self)
        // A letter may be cut in two.
        if text == nil, isTruncated {
            text = (1...3).lazy.compactMap { String(validating: body.dropLast($0), as: UTF8.self) }.first
        }
        var json: JSONObject = [
            "url": .string(head.url.text), "address": .string(head.address.text), "status": .int(head.status),
            "headers": .object(head.headers), "body": .string(text ?? Base64.encode(body)),
            "encoding": text == nil ? "base64" : "utf8", "bytes": .int(Int64(text?.utf8.count ?? body.count)),
            "truncated": .bool(isTruncated), "redirects": .array(head.hops.map(\.json)),
        ]
        if let stopped = head.stopped { json["stopped"] = .string(stopped) }
        return json
    }
}
