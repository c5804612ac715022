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
    /// What is spoken until it is encrypted.
    let dialogue: UpgradeHandler.Dialogue

    /// `imaps://host`, `imap://host:143` (STARTTLS), `smtps://host` or `smtp://host:587` (STARTTLS).
    init?(_ text: String, schemes: (implicit: String, upgraded: String), ports: (implicit: Int64, upgraded: Int64)) {
        guard let mark = text.firstRange(of: "://") else { return nil }
        let scheme = text[..<mark.lowerBound].lowercased()
        guard scheme == schemes.implicit || scheme == schemes.upgraded else { return nil }
        isImplicit = scheme == schemes.implicit
        dialogue = schemes.upgraded == "imap" ? .imap : .smtp
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
                let (channel, upgraded) = try await ClientBootstrap(group: MultiThreadedEventLoopGroup.singleton)
                    .connectTimeout(.seconds(min(30, timeoutSeconds)))
                    .connect(host: server.host, port: Int(server.port)) { channel in
                        channel.eventLoop.makeCompletedFuture {
                            let encryption = try NIOSSLClientHandler(
                                context: tls, serverHostname: Self.name(server.host))
                            var upgraded: EventLoopFuture<Void>?
                            if server.isImplicit {
                                try channel.pipeline.syncOperations.addHandler(encryption)
                            } else {
                                let promise = channel.eventLoop.makePromise(of: Void.self)
                                upgraded = promise.futureResult
                                try channel.pipeline.syncOperations.addHandler(
                                    UpgradeHandler(server.dialogue, encryption, promise))
                            }
                            return (
                                try NIOAsyncChannel<ByteBuffer, ByteBuffer>(wrappingChannelSynchronously: channel),
                                upgraded
                            )
                        }
                    }
                return try await channel.executeThenClose { inbound, outbound in
                    // Nothing is said to the server before that.
                    try await upgraded?.get()
                    var stream = MailStream(
                        iterator: inbound.makeAsyncIterator(), outbound: outbound)
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
        outbound: NIOAsyncChannelOutboundWriter<ByteBuffer>
    ) {
        self.iterator = iterator
        self.outbound = outbound
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

/// Speaks in the clear until the server has agreed to STARTTLS, and passes nothing of it on. What comes with that answer, or
/// before it was asked for, ends the connection: only what TLS has decrypted is read after this.
final class UpgradeHandler: ChannelDuplexHandler, RemovableChannelHandler {
    typealias InboundIn = ByteBuffer
    typealias OutboundIn = ByteBuffer
    typealias OutboundOut = ByteBuffer

    enum Dialogue: Sendable, Equatable {
        case imap, smtp
    }

    private enum Step {
        case greeting, hello, answer
    }

    private let dialogue: Dialogue
    private let encryption: NIOSSLClientHandler
    private var step = Step.greeting
    private var bytes: [UInt8] = []
    private var offersTLS = false
    private var isUpgraded = false
    private static let most = 64 << 10

    private let upgraded: EventLoopPromise<Void>

    /// - Parameter upgraded: kept once everything is encrypted, failed when nothing will be.
    init(_ dialogue: Dialogue, _ encryption: NIOSSLClientHandler, _ upgraded: EventLoopPromise<Void>) {
        self.upgraded = upgraded
        self.dialogue = dialogue
        self.encryption = encryption
    }

    func channelRead(context: ChannelHandlerContext, data: NIOAny) {
        bytes += unwrapInboundIn(data).readableBytesView
        guard bytes.count <= Self.most else {
            fail(context, "the server says too much before it encrypts")
            return
        }
        while let end = bytes.firstIndex(of: 10) {
            let line = String(decoding: bytes[..<end], as: UTF8.self).trimmingCharacters(in: .whitespacesAndNewlines)
            bytes.removeFirst(end + 1)
            guard read(line, context) else { return }
        }
    }

    /// What anybody else would write in the clear does not go out.
    func write(context: ChannelHandlerContext, data: NIOAny, promise: EventLoopPromise<Void>?) {
        promise?.fail(MailFailure(kind: .internalError, text: "the connection is not encrypted yet"))
    }

    func channelInactive(context: ChannelHandlerContext) {
        upgraded.fail(MailFailure(kind: .ioFailure, text: "the server closed the connection"))
        context.fireChannelInactive()
    }

    /// Also of a connection that never came about.
    func handlerRemoved(context: ChannelHandlerContext) {
        if !isUpgraded { upgraded.fail(MailFailure(kind: .ioFailure, text: "the server cannot be reached")) }
    }

    func errorCaught(context: ChannelHandlerContext, error: any Error) {
        upgraded.fail(error)
        context.fireErrorCaught(error)
    }

    /// - Returns: whether more lines are read.
    private func read(_ line: String, _ context: ChannelHandlerContext) -> Bool {
        switch dialogue {
        case .imap:
            if step == .greeting {
                guard line.uppercased().hasPrefix("* OK") else { return fail(context, "that is no IMAP server") }
                return ask("a0 STARTTLS", .answer, context)
            }
            if line.hasPrefix("* ") { return true }
            guard line.uppercased().hasPrefix("A0 OK") else { return fail(context, "the server does not encrypt") }
        case .smtp:
            let isLast = line.count < 4 || line.dropFirst(3).first != "-"
            switch step {
            case .greeting:
                guard line.hasPrefix("220") else { return fail(context, "that is no mail server") }
                return isLast ? ask("EHLO localhost", .hello, context) : true
            case .hello:
                guard line.hasPrefix("250") else { return fail(context, "that is no mail server") }
                if line.dropFirst(4).uppercased() == "STARTTLS" { offersTLS = true }
                if !isLast { return true }
                guard offersTLS else { return fail(context, "the server does not encrypt") }
                return ask("STARTTLS", .answer, context)
            case .answer:
                guard line.hasPrefix("220"), isLast else { return fail(context, "the server does not encrypt") }
            }
        }
        guard bytes.isEmpty else { return fail(context, "the server sent more before it was encrypted") }
        do {
            try context.pipeline.syncOperations.addHandler(encryption, position: .first)
        } catch {
            return fail(context, "the connection cannot be encrypted: \(error)")
        }
        isUpgraded = true
        context.pipeline.syncOperations.removeHandler(self, promise: upgraded)
        return false
    }

    private func ask(_ text: String, _ next: Step, _ context: ChannelHandlerContext) -> Bool {
        // An answer to what was not asked yet.
        guard bytes.isEmpty else { return fail(context, "the server answers before it is asked") }
        step = next
        context.writeAndFlush(wrapOutboundOut(ByteBuffer(string: text + "\r\n")), promise: nil)
        return true
    }

    @discardableResult
    private func fail(_ context: ChannelHandlerContext, _ text: String) -> Bool {
        bytes = []
        upgraded.fail(MailFailure(kind: .ioFailure, text: text, isFinal: true))
        context.close(promise: nil)
        return false
    }
}
