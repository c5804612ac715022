import Foundation
import KruxCore
import NIOCore
import NIOPosix
import NIOSSL

/// A server of mail: where it is and how the way there is encrypted.
struct MailServer: Sendable, Equatable {
    let host: String
    let port: Int64
    /// From the first byte, or after STARTTLS; never not at all.
    let isImplicit: Bool

    /// `imaps://host`, `imap://host:143` (STARTTLS), `smtps://host` or `smtp://host:587` (STARTTLS).
    init?(_ text: String, schemes: (implicit: String, upgraded: String), ports: (implicit: Int64, upgraded: Int64)) {
        guard let mark = text.firstRange(of: "://") else { return nil }
        let scheme = text[..<mark.lowerBound].lowercased()
        guard scheme == schemes.implicit || scheme == schemes.upgraded else { return nil }
        isImplicit = scheme == schemes.implicit
        var rest = text[mark.upperBound...]
        if rest.hasSuffix("/") { rest = rest.dropLast() }
        guard let pattern = HostPattern(String(rest)), !pattern.host.hasPrefix("*") else { return nil }
        host = pattern.host
        port = pattern.port ?? (isImplicit ? ports.implicit : ports.upgraded)
    }
}

/// What went wrong with a server of mail, in words.
struct MailFailure: Error {
    let kind: StructuredError.Kind
    let text: String
    /// Whether the server itself said no, so that trying again is of no use.
    var isFinal = false
}

/// An encrypted connection to a server of mail, read by lines and by counts.
struct MailStream {
    private var iterator: NIOAsyncChannelInboundStream<ByteBuffer>.AsyncIterator
    private let outbound: NIOAsyncChannelOutboundWriter<ByteBuffer>
    private let channel: any Channel
    private var buffer: [UInt8] = []
    private var start = 0

    static let longestLine = 1 << 20

    /// Connects, and encrypts where that comes first.
    /// - Parameters:
    ///   - authority: a file of certificates that are trusted instead of the machine's; nil for those.
    ///   - body: speaks; after it the connection is closed.
    static func with<R: Sendable>(
        _ server: MailServer, authority: String?, timeoutSeconds: Int64,
        _ body: @escaping @Sendable (inout MailStream) async throws -> R
    ) async throws -> R {
        var configuration = TLSConfiguration.makeClientConfiguration()
        if let authority { configuration.trustRoots = .file(authority) }
        let tls = try NIOSSLContext(configuration: configuration)
        return try await withThrowingTaskGroup(of: R?.self) { group in
            group.addTask {
                let channel = try await ClientBootstrap(group: MultiThreadedEventLoopGroup.singleton)
                    .connectTimeout(.seconds(min(30, timeoutSeconds)))
                    .connect(host: server.host, port: Int(server.port)) { channel in
                        channel.eventLoop.makeCompletedFuture {
                            if server.isImplicit {
                                try channel.pipeline.syncOperations.addHandler(
                                    try NIOSSLClientHandler(context: tls, serverHostname: Self.name(server.host)))
                            }
                            return try NIOAsyncChannel<ByteBuffer, ByteBuffer>(wrappingChannelSynchronously: channel)
                        }
                    }
                return try await channel.executeThenClose { inbound, outbound in
                    var stream = MailStream(
                        iterator: inbound.makeAsyncIterator(), outbound: outbound, channel: channel.channel)
                    return try await body(&stream)
                }
            }
            group.addTask {
                try await Task.sleep(for: .seconds(timeoutSeconds))
                return nil
            }
            defer { group.cancelAll() }
            guard let first = try await group.next(), let result = first else {
                throw MailFailure(kind: .timedOut, text: "`\(server.host)` did not answer in time")
            }
            return result
        }
    }

    /// An address has no name to be asked for.
    private static func name(_ host: String) -> String? { NetworkAddress(host) == nil ? host : nil }

    private init(
        iterator: NIOAsyncChannelInboundStream<ByteBuffer>.AsyncIterator,
        outbound: NIOAsyncChannelOutboundWriter<ByteBuffer>, channel: any Channel
    ) {
        self.iterator = iterator
        self.outbound = outbound
        self.channel = channel
    }

    /// After the server has agreed to STARTTLS. What it sent before that is not believed.
    mutating func startTLS(_ server: MailServer, authority: String?) async throws {
        guard start == buffer.count else {
            throw MailFailure(kind: .ioFailure, text: "`\(server.host)` sent more before it was encrypted")
        }
        var configuration = TLSConfiguration.makeClientConfiguration()
        if let authority { configuration.trustRoots = .file(authority) }
        let tls = try NIOSSLContext(configuration: configuration)
        let channel = channel
        try await channel.eventLoop.submit {
            try channel.pipeline.syncOperations.addHandler(
                try NIOSSLClientHandler(context: tls, serverHostname: Self.name(server.host)), position: .first)
        }.get()
    }

    private mutating func fill() async throws {
        if start > 0 {
            buffer.removeFirst(start)
            start = 0
        }
        guard let part = try await iterator.next() else {
            throw MailFailure(kind: .ioFailure, text: "the server closed the connection")
        }
        buffer += part.readableBytesView
    }

    /// A line without its end.
    mutating func line() async throws -> [UInt8] {
        var searched = start
        while true {
            if let end = buffer[searched...].firstIndex(of: 10) {
                var line = Array(buffer[start..<end])
                if line.last == 13 { line.removeLast() }
                start = end + 1
                return line
            }
            guard buffer.count - start <= Self.longestLine else {
                throw MailFailure(kind: .tooLarge, text: "the server sent a line of more than 1 MiB")
            }
            let known = buffer.count - start
            try await fill()
            searched = start + known
        }
    }

    mutating func bytes(_ count: Int) async throws -> [UInt8] {
        while buffer.count - start < count { try await fill() }
        defer { start += count }
        return Array(buffer[start..<start + count])
    }

    func write(_ bytes: [UInt8]) async throws { try await outbound.write(ByteBuffer(bytes: bytes)) }
    func write(line: String) async throws { try await write(Array((line + "\r\n").utf8)) }
}
