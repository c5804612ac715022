import Foundation
import KruxCore
import NIOCore
import NIOPosix
import Synchronization

/// The only way from a confined process to the network: an HTTP proxy (RFC 9110 §9.3.6 `CONNECT`, and absolute URLs
/// of plain http) that connects to the hosts a rule names, at addresses that may be reached, and to nothing else.
///
/// What runs inside a tunnel is the process's own; a host that shares its server with others cannot be told from them
/// there.
final class FilteringProxy: Sendable {
    /// One connection that was asked for.
    private struct Attempt: Sendable {
        var host: String
        var port: Int64
        var address: NetworkAddress?
        var sent: Int64 = 0
        var received: Int64 = 0
        /// Why it was not made.
        var refusal: String?

        var json: JSONValue {
            var json: JSONObject = ["host": .string(host), "port": .int(port), "allowed": .bool(refusal == nil)]
            if let address { json["address"] = .string(address.text) }
            if let refusal {
                json["reason"] = .string(refusal)
            } else {
                json["sent_bytes"] = .int(sent)
                json["received_bytes"] = .int(received)
            }
            return .object(json)
        }
    }

    private let hosts: [HostPattern]
    private let reach: Reach
    private let attempts = Mutex<(list: [Attempt], total: Int)>(([], 0))
    private let open = Mutex<(tasks: [Int: Task<Void, Never>], next: Int, isEnded: Bool)>(([:], 0, false))
    /// Remembered one by one.
    static let mostAttempts = 100
    private static let mostOpen = 64
    /// Of all processes of the gate: each takes two descriptors.
    private static let mostOpenOfAll = 256
    private static let openOfAll = Mutex(0)
    /// A request that is not whole by then is not waited for.
    private static let headSeconds: Int64 = 15
    private static let longestHead = 64 << 10

    init(_ settings: SandboxSettings) {
        hosts = settings.hosts ?? []
        reach = Reach(allowed: settings.addresses)
    }

    /// Variables by which programs find it.
    static let address = "http://127.0.0.1:3128"
    static let environment: [String: String] = {
        let names = ["HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"]
        return Dictionary(
            uniqueKeysWithValues: (names + names.map { $0.lowercased() }).map { ($0, address) })
    }()

    /// `[{host, port, allowed, address?, sent_bytes?, received_bytes?, reason?}]`, of the first hundred.
    var connections: [JSONValue] { attempts.withLock { $0.list.map(\.json) } }
    /// All there were.
    var count: Int { attempts.withLock { $0.total } }

    static let schema = Property.optional(
        "connections",
        .array(
            .object([
                .required("host", .string(maxLength: 512), "What was asked for."),
                .required("port", .integer(0...65535), "The port."),
                .required("allowed", .boolean, "Whether rules let it through."),
                .optional("address", .text, "The address that was connected to."),
                .optional("sent_bytes", .count, "Bytes from the process."),
                .optional("received_bytes", .count, "Bytes to the process."),
                .optional("reason", .text, "Why it was refused, or came to nothing."),
            ]), maxItems: mostAttempts), "Connections it made through the gate's proxy, the first hundred.")

    /// Serves a connection that a process has made. Owns the descriptor.
    func take(_ descriptor: Int32) {
        let isTaken = open.withLock { open -> Bool in
            let isRoom = Self.openOfAll.withLock { count in
                guard open.tasks.count < Self.mostOpen, !open.isEnded, count < Self.mostOpenOfAll else { return false }
                count += 1
                return true
            }
            guard isRoom else { return false }
            let number = open.next
            open.next += 1
            open.tasks[number] = Task {
                await self.serve(descriptor)
                Self.openOfAll.withLock { $0 -= 1 }
                self.open.withLock { $0.tasks[number] = nil }
            }
            return true
        }
        if !isTaken { close(descriptor) }
    }

    /// Ends every connection: the process is gone.
    func end() {
        let tasks = open.withLock { open in
            open.isEnded = true
            return Array(open.tasks.values)
        }
        for task in tasks { task.cancel() }
    }

    private func serve(_ descriptor: Int32) async {
        do {
            let client = try await ClientBootstrap(group: MultiThreadedEventLoopGroup.singleton)
                .withConnectedSocket(descriptor) { channel in
                    channel.eventLoop.makeCompletedFuture { try Self.wrap(channel) }
                }
            // Whoever says nothing is hung up on; the timer ends with the head.
            let late = client.channel.eventLoop.scheduleTask(in: .seconds(Self.headSeconds)) {
                client.channel.close(promise: nil)
            }
            try await client.executeThenClose { inbound, outbound in
                await serve(inbound, outbound, late)
            }
        } catch {
            // The process has hung up, or is gone; what it did is on the list.
        }
    }

    private typealias Stream = NIOAsyncChannel<ByteBuffer, ByteBuffer>

    private static func wrap(_ channel: any Channel) throws -> Stream {
        try Stream(
            wrappingChannelSynchronously: channel,
            configuration: .init(isOutboundHalfClosureEnabled: true))
    }

    // MARK: One connection

    private struct Target {
        let host: String
        let port: Int64
        /// What goes to the server first; empty for a tunnel.
        let head: [UInt8]
        /// Bytes of a plain request's body; nil for a tunnel.
        let body: Int?
    }

    private struct Refusal: Error {
        let status: String
        let reason: String
    }

    private func serve(
        _ inbound: NIOAsyncChannelInboundStream<ByteBuffer>, _ outbound: NIOAsyncChannelOutboundWriter<ByteBuffer>,
        _ late: Scheduled<Void>
    ) async {
        var iterator = inbound.makeAsyncIterator()
        var place: Int?
        do {
            let (head, rest) = try await Self.readHead(&iterator)
            late.cancel()
            let target = try Self.target(head)
            place = note(target)
            guard hosts.contains(where: { $0.matches(target.host, target.port) }) else {
                throw Refusal(
                    status: "403 Forbidden", reason: "\(target.host):\(target.port) is no host that a rule names")
            }
            let server = try await connect(target, place)
            try await relay(target, server, rest, &iterator, outbound, place)
        } catch {
            let refusal =
                error as? Refusal ?? Refusal(status: "502 Bad Gateway", reason: "\(error)")
            if let place { change(place) { if $0.received == 0 { $0.refusal = refusal.reason } } }
            let text = "KruxOS: \(refusal.reason)\n"
            let reply =
                "HTTP/1.1 \(refusal.status)\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: \(text.utf8.count)\r\nConnection: close\r\n\r\n\(text)"
            try? await outbound.write(ByteBuffer(string: reply))
        }
        outbound.finish()
    }

    private func note(_ target: Target) -> Int? {
        attempts.withLock { attempts in
            attempts.total += 1
            guard attempts.list.count < Self.mostAttempts else { return nil }
            attempts.list.append(Attempt(host: target.host, port: target.port))
            return attempts.list.count - 1
        }
    }

    private func change(_ place: Int?, _ body: (inout Attempt) -> Void) {
        guard let place else { return }
        attempts.withLock { body(&$0.list[place]) }
    }

    /// The head of a request, and what came after it.
    private static func readHead(_ iterator: inout NIOAsyncChannelInboundStream<ByteBuffer>.AsyncIterator) async throws
        -> (head: String, rest: [UInt8])
    {
        var bytes: [UInt8] = []
        while let part = try await iterator.next() {
            bytes += part.readableBytesView
            if let end = bytes.firstRange(of: Array("\r\n\r\n".utf8)) {
                return (String(decoding: bytes[..<end.lowerBound], as: UTF8.self), Array(bytes[end.upperBound...]))
            }
            guard bytes.count <= longestHead else { break }
        }
        throw Refusal(status: "400 Bad Request", reason: "no whole request came")
    }

    /// What a request asks for: `CONNECT host:port`, or `GET http://host/path` to be sent on with its own path.
    private static func target(_ head: String) throws -> Target {
        // By scalars: to Swift, a line's two end signs are one character.
        let lines = head.unicodeScalars.split(separator: "\n", omittingEmptySubsequences: false).map { line in
            String(String.UnicodeScalarView(line)).trimmingCharacters(in: CharacterSet(charactersIn: "\r"))
        }
        let words = (lines.first ?? "").split(separator: " ", omittingEmptySubsequences: false).map(String.init)
        func malformed(_ reason: String) -> Refusal { Refusal(status: "400 Bad Request", reason: reason) }
        guard words.count == 3, words[2].hasPrefix("HTTP/1.") else { throw malformed("that is no request to a proxy") }
        if words[0] == "CONNECT" {
            guard let address = WebAddress("http://\(words[1])/"), words[1].hasSuffix(":\(address.port)") else {
                throw malformed("CONNECT needs HOST:PORT")
            }
            return Target(host: address.host, port: address.port, head: [], body: nil)
        }
        guard let url = try? WebURL(words[1]), url.address.scheme == "http",
            words[0].utf8.allSatisfy({ (65...90).contains($0) })
        else { throw malformed("only CONNECT and absolute http URLs are served") }
        let path = String(url.text.dropFirst(url.address.origin.count))
        var kept = ["\(words[0]) \(path) HTTP/1.1", "Host: \(url.address.origin.dropFirst("http://".count))"]
        var lengths: Set<String> = []
        for line in lines.dropFirst() {
            guard let colon = line.firstIndex(of: ":"), line.first != " ", line.first != "\t" else {
                throw malformed("a header has no name")
            }
            let name = line[..<colon].lowercased()
            let value = line[line.index(after: colon)...].trimmingCharacters(in: .whitespaces)
            guard name.utf8.allSatisfy({ $0 > 32 && $0 < 127 }), value.utf8.allSatisfy({ $0 >= 32 || $0 == 9 }) else {
                throw malformed("a header has no name that could be sent on")
            }
            switch name {
            case "transfer-encoding":
                throw Refusal(status: "411 Length Required", reason: "send the body's length, or use https")
            case "content-length": lengths.insert(value)
            case "host", "connection", "keep-alive", "te", "trailer", "upgrade", "expect": continue
            case _ where name.hasPrefix("proxy-"): continue
            default: break
            }
            kept.append("\(line[..<colon]): \(value)")
        }
        var body = 0
        if let length = lengths.first {
            guard lengths.count == 1, length.utf8.allSatisfy({ (48...57).contains($0) }), let count = Int(length) else {
                throw malformed("the body's length is no number")
            }
            body = count
        }
        kept += ["Connection: close", "", ""]
        return Target(
            host: url.address.host, port: url.address.port, head: Array(kept.joined(separator: "\r\n").utf8),
            body: body)
    }

    private func connect(_ target: Target, _ place: Int?) async throws -> Stream {
        let addresses: [NetworkAddress]
        do throws(StructuredError) { addresses = try await reach.addresses(of: target.host) } catch {
            let status = error.kind == .addressRefused ? "403 Forbidden" : "502 Bad Gateway"
            throw Refusal(status: status, reason: error.description)
        }
        var failure: any Error = Refusal(status: "502 Bad Gateway", reason: "no address")
        for address in addresses.prefix(4) {
            do {
                let server = try await ClientBootstrap(group: MultiThreadedEventLoopGroup.singleton)
                    .connectTimeout(.seconds(10)).connect(host: address.text, port: Int(target.port)) { channel in
                        channel.eventLoop.makeCompletedFuture { try Self.wrap(channel) }
                    }
                change(place) { $0.address = address }
                return server
            } catch {
                failure = error
            }
        }
        throw Refusal(
            status: "502 Bad Gateway", reason: "\(target.host):\(target.port) cannot be reached: \(failure)")
    }

    /// Both ways until the server has ended, or the process has.
    private func relay(
        _ target: Target, _ server: Stream, _ rest: [UInt8],
        _ iterator: inout NIOAsyncChannelInboundStream<ByteBuffer>.AsyncIterator,
        _ outbound: NIOAsyncChannelOutboundWriter<ByteBuffer>, _ place: Int?
    ) async throws {
        // An iterator may not be shared with the other direction's task, so this one keeps it and that one is the server's.
        var incoming = iterator
        defer { iterator = incoming }
        try await server.executeThenClose { fromServer, toServer in
            try await withThrowingTaskGroup(of: Void.self) { group in
                group.addTask { [self] in
                    for try await part in fromServer {
                        change(place) { $0.received += Int64(part.readableBytes) }
                        try await outbound.write(part)
                    }
                    outbound.finish()
                }
                if target.body == nil {
                    try await outbound.write(ByteBuffer(string: "HTTP/1.1 200 Connection established\r\n\r\n"))
                } else {
                    change(place) { $0.sent += Int64(target.head.count) }
                    try await toServer.write(ByteBuffer(bytes: target.head))
                }
                var left = target.body ?? .max
                var next: ByteBuffer? = rest.isEmpty ? try await Self.more(&incoming, left) : ByteBuffer(bytes: rest)
                while let part = next {
                    // What follows a plain request's body would be another request.
                    let bytes = part.readableBytesView.prefix(left)
                    left -= bytes.count
                    change(place) { $0.sent += Int64(bytes.count) }
                    if !bytes.isEmpty { try await toServer.write(ByteBuffer(bytes)) }
                    next = try await Self.more(&incoming, left)
                }
                if target.body == nil { toServer.finish() }
                try await group.waitForAll()
            }
        }
    }

    private static func more(
        _ iterator: inout NIOAsyncChannelInboundStream<ByteBuffer>.AsyncIterator, _ left: Int
    ) async throws -> ByteBuffer? { left > 0 ? try await iterator.next() : nil }
}
