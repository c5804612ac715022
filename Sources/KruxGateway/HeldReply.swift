import HTTPTypes
import Hummingbird
import KruxCore
import KruxMCP
import NIOCore
import Synchronization

/// A reply that may take long. One that is ready within a few seconds goes out as usual, with its own status; after
/// that the status is 200 and something is sent every five seconds, because clients hang up on silence. When the
/// client hangs up, the wait ends; what was started goes on.
struct HeldReply: Sendable {
    enum Style: Sendable {
        /// White space before the JSON value.
        case json
        /// Server-sent events: progress for a client that gave a token, else comments.
        case events(progressToken: JSONValue?)
    }

    static let patience = Duration.milliseconds(4500)
    static let pulse = Duration.seconds(5)

    let style: Style
    /// What ends the work from outside, for as long as it runs.
    var cancellations: Cancellations?
    var cancelKey: String?
    private let progress = CallProgress()
    let work: @Sendable () async -> HTTPReply

    init(
        style: Style, cancellations: Cancellations? = nil, cancelKey: String? = nil,
        work: @escaping @Sendable () async -> HTTPReply
    ) {
        self.style = style
        self.cancellations = cancellations
        self.cancelKey = cancelKey
        self.work = work
    }

    func response() async -> Response {
        let result = OneShot<HTTPReply>()
        let task = Task {
            let reply = await CallProgress.$current.withValue(progress) { await work() }
            if let cancelKey { cancellations?.remove(cancelKey) }
            result.set(reply)
        }
        if let cancelKey { cancellations?.add(cancelKey, task, unless: { result.isSet }) }
        if let early = await result.value(within: Self.patience) { return early.response }
        var headers = HTTPFields()
        headers[.cacheControl] = "no-cache, no-transform"
        if case .events = style {
            headers[.contentType] = "text/event-stream"
        } else {
            headers[.contentType] = "application/json"
        }
        let started = ContinuousClock.now
        let body = ResponseBody { writer in
            do {
                while true {
                    if let reply = await result.value(within: Self.pulse) {
                        try await writer.write(ByteBuffer(bytes: final(reply)))
                        break
                    }
                    let elapsed = (ContinuousClock.now - started).components.seconds + 5
                    try await writer.write(ByteBuffer(bytes: heartbeat(elapsed)))
                }
                try await writer.finish(nil)
            } catch {
                task.cancel()
                throw error
            }
        }
        return Response(status: .ok, headers: headers, body: body)
    }

    private func heartbeat(_ elapsed: Int64) -> [UInt8] {
        switch style {
        case .json: Array("\n".utf8)
        case .events(nil): Array(": waiting\n\n".utf8)
        case .events(let token?):
            event(
                MCPServer.progress(
                    token: token, elapsedSeconds: elapsed, message: progress.text(elapsedSeconds: elapsed)
                ).canonicalBytes())
        }
    }

    private func final(_ reply: HTTPReply) -> [UInt8] {
        if case .json = style { reply.body } else { event(reply.body) }
    }

    private func event(_ json: [UInt8]) -> [UInt8] { Array("event: message\ndata: ".utf8) + json + Array("\n\n".utf8) }
}

/// Requests under way that their client may cancel by name.
final class Cancellations: Sendable {
    private let tasks = Mutex<[String: Task<Void, Never>]>([:])

    func add(_ key: String, _ task: Task<Void, Never>, unless isDone: () -> Bool) {
        tasks.withLock { tasks in
            if !isDone() { tasks[key] = task }
        }
    }

    func remove(_ key: String) { tasks.withLock { $0[key] = nil } }

    /// One that has ended, and one that never was, are cancelled without an effect.
    func cancel(_ key: String) { tasks.withLock { $0.removeValue(forKey: key) }?.cancel() }
}

/// A value that comes once, and those who wait for it.
final class OneShot<Value: Sendable>: Sendable {
    private struct State {
        var value: Value?
        var waiters: [Int: CheckedContinuation<Value?, Never>] = [:]
        var next = 0
    }

    private let state = Mutex(State())

    var isSet: Bool { state.withLock { $0.value != nil } }

    func set(_ value: Value) {
        let waiters = state.withLock { state in
            state.value = value
            defer { state.waiters = [:] }
            return Array(state.waiters.values)
        }
        for waiter in waiters { waiter.resume(returning: value) }
    }

    /// The value, or nil when it has not come in time.
    func value(within duration: Duration) async -> Value? {
        let ticket = state.withLock { state in
            state.next += 1
            return state.next
        }
        let timer = Task { [self] in
            try? await Task.sleep(for: duration)
            let waiter = state.withLock { $0.waiters.removeValue(forKey: ticket) }
            waiter?.resume(returning: nil)
        }
        defer { timer.cancel() }
        return await withCheckedContinuation { continuation in
            let ready = state.withLock { state -> Value? in
                if state.value == nil { state.waiters[ticket] = continuation }
                return state.value
            }
            if let ready { continuation.resume(returning: ready) }
        }
    }
}
