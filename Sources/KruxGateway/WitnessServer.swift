import HTTPTypes
import Hummingbird
import HummingbirdCore
package import KruxAudit
import KruxCore
package import KruxCrypto
package import KruxStore
package import Logging
import NIOCore
import ServiceLifecycle
import UnixSignals

/// The C2SP witness protocol over HTTP: `POST /add-checkpoint` and `GET /<origin hash>/checkpoint`. It needs no token: a
/// checkpoint is let in by its log's signature, and what it says is public to whoever may connect.
package final class WitnessServer: Sendable {
    private let store: Store
    private let verifier: NoteKey
    private let key: WitnessKey
    private let now: @Sendable () -> Int64
    private let log: Logger

    /// - Parameter now: microseconds since 1970.
    package init(
        store: Store, verifier: NoteKey, key: consuming SigningKey, now: @escaping @Sendable () -> Int64, log: Logger
    ) {
        self.store = store
        self.verifier = verifier
        self.key = WitnessKey(key)
        self.now = now
        self.log = log
    }

    /// Serves until SIGTERM or SIGINT.
    package func run(host: String, port: Int, ready: @escaping @Sendable (String) -> Void) async throws {
        let application = Application(
            responder: Routes(server: self),
            server: OnLoopChannel.builder(configuration: .init(idleTimeout: .seconds(120))),
            configuration: ApplicationConfiguration(
                address: .hostname(host, port: port), serverName: nil, backlog: 128,
                availableConnectionsDelegate: MaximumAvailableConnections(256, logger: log)),
            onServerRunning: { channel in
                let shown = host.contains(":") ? "[\(host)]" : host
                ready("http://\(shown):\(channel.localAddress?.port ?? port)")
            }, logger: log)
        try await ServiceGroup(
            configuration: ServiceGroupConfiguration(
                services: [application], gracefulShutdownSignals: [.sigterm, .sigint], logger: log)
        ).run()
    }

    fileprivate static let longestBody = 64 << 10

    fileprivate func reply(_ method: HTTPRequest.Method, _ path: Substring, _ body: String) async -> Witness.Reply {
        do {
            if path == "/add-checkpoint" {
                guard method == .post else { return Witness.Reply.plain(405, "add-checkpoint takes POST\n") }
                let (verifier, key, time) = (verifier, key, Timestamp(microseconds: now()))
                return try await store.writer.write { tx in
                    try key.with { try Witness.addCheckpoint(tx, body, witness: verifier, key: $0, now: time) }
                }
            }
            let parts = path.split(separator: "/", omittingEmptySubsequences: false)
            if parts.count == 3, parts[2] == "checkpoint", method == .get {
                let hash = String(parts[1])
                return try store.read { try Witness.latest($0, originHash: hash) }
            }
            return Witness.Reply.plain(404, "there is nothing here\n")
        } catch {
            log.error("a witness request failed", metadata: ["reason": "\(error)"])
            return Witness.Reply.plain(500, "the witness cannot remember this now\n")
        }
    }

    private struct Routes: HTTPResponder {
        typealias Context = ConnectionContext
        let server: WitnessServer

        func respond(to request: Request, context: ConnectionContext) async throws -> Response {
            let body: ByteBuffer
            do { body = try await request.body.collect(upTo: WitnessServer.longestBody) } catch is NIOTooManyBytesError
            {
                return Self.response(Witness.Reply.plain(413, "the request is too long\n"))
            }
            let (path, _) = RequestGuard.split(request.head.path)
            return Self.response(await server.reply(request.head.method, path, String(buffer: body)))
        }

        private static func response(_ reply: Witness.Reply) -> Response {
            Response(
                status: .init(code: reply.status), headers: [.contentType: reply.contentType],
                body: ResponseBody(byteBuffer: ByteBuffer(string: reply.body)))
        }
    }
}

/// Gives a key a place in a class.
private final class WitnessKey: @unchecked Sendable {
    // @unchecked: the key lies in memory that is never written again.
    private let key: SigningKey
    init(_ key: consuming SigningKey) { self.key = key }
    func with<R>(_ body: (borrowing SigningKey) throws -> R) rethrows -> R { try body(key) }
}
