package import KruxCore
import Synchronization

/// Something a supervisor may want to see as it happens.
package struct GateEvent: Sendable {
    package enum Kind: String, Sendable {
        case notification, approval
        /// A request has waited for long.
        case reminder
        /// A request has got an answer, or its time is over.
        case answered
        /// Something of the gate's own that a person should mend.
        case alert
    }

    package let kind: Kind
    package let time: Timestamp
    package let agent: String
    package let capability: String
    package var summary: String
    /// The request of an `approval`.
    package let request: String?

    package var json: JSONObject {
        [
            "kind": .string(kind.rawValue), "time": .string(time.rfc3339), "agent": .string(agent),
            "capability": .string(capability), "summary": .string(summary), "request_id": .optional(request),
        ]
    }
}

/// Hands events to whoever listens. A listener that does not keep up loses the oldest, not the gate its memory.
package final class EventHub: Sendable {
    private struct Listeners {
        var next = 0
        var streams: [Int: AsyncStream<GateEvent>.Continuation] = [:]
    }

    private let listeners = Mutex(Listeners())

    package func subscribe() -> AsyncStream<GateEvent> {
        let (stream, continuation) = AsyncStream.makeStream(
            of: GateEvent.self, bufferingPolicy: .bufferingNewest(1000))
        let id = listeners.withLock { listeners in
            listeners.next += 1
            listeners.streams[listeners.next] = continuation
            return listeners.next
        }
        continuation.onTermination = { [weak self] _ in
            self?.listeners.withLock { _ = $0.streams.removeValue(forKey: id) }
        }
        return stream
    }

    package func publish(_ event: GateEvent) {
        for stream in listeners.withLock({ Array($0.streams.values) }) { stream.yield(event) }
    }

    package func finish() {
        for stream in listeners.withLock({ Array($0.streams.values) }) { stream.finish() }
    }
}

/// Says that what is next due may be another now.
final class DueSignal: Sendable {
    private struct State {
        var isSet = false
        var waiting: CheckedContinuation<Void, Never>?
    }

    private let state = Mutex(State())

    func changed() {
        let waiting = state.withLock { state -> CheckedContinuation<Void, Never>? in
            defer { state.waiting = nil }
            if state.waiting == nil { state.isSet = true }
            return state.waiting
        }
        waiting?.resume()
    }

    /// Returns at `time`, or when something has changed.
    func wait(until time: Timestamp?, now: Timestamp) async {
        let timer = time.map { time in
            // A clock that is set back makes it look again too early, never too late by more than an hour.
            Task { [self] in
                try? await Task.sleep(
                    for: .microseconds(min(max(0, time.microseconds - now.microseconds), 3_600_000_000)))
                if !Task.isCancelled { changed() }
            }
        }
        await withCheckedContinuation { continuation in
            let isSet = state.withLock { state in
                if !state.isSet { state.waiting = continuation }
                defer { state.isSet = false }
                return state.isSet
            }
            if isSet { continuation.resume() }
        }
        timer?.cancel()
    }
}

/// Wakes those who wait for a request to end.
package final class ApprovalWaiters: Sendable {
    private struct Waiting {
        var draining = false
        var next = 0
        var byRequest: [String: [Int: CheckedContinuation<Void, Never>]] = [:]
    }

    private let waiting = Mutex(Waiting())

    /// Returns when the request has ended, the time is over or the task is cancelled.
    /// - Parameter ended: asked once the waiter is registered, so that an end in between is not missed.
    package func wait(for id: String, seconds: Double, ended: @escaping @Sendable () -> Bool) async {
        await withTaskGroup(of: Void.self) { group in
            group.addTask { try? await Task.sleep(for: .seconds(seconds)) }
            let ticket = waiting.withLock { waiting in
                waiting.next += 1
                return waiting.next
            }
            group.addTask { [self] in
                await withTaskCancellationHandler {
                    await withCheckedContinuation { continuation in
                        let draining = waiting.withLock { waiting in
                            waiting.byRequest[id, default: [:]][ticket] = continuation
                            return waiting.draining
                        }
                        if draining || ended() || Task.isCancelled { resume(id, ticket) }
                    }
                } onCancel: {
                    resume(id, ticket)
                }
            }
            await group.next()
            group.cancelAll()
        }
    }

    private func resume(_ id: String, _ ticket: Int) {
        let continuation = waiting.withLock { waiting in
            let found = waiting.byRequest[id]?.removeValue(forKey: ticket)
            if waiting.byRequest[id]?.isEmpty == true { waiting.byRequest[id] = nil }
            return found
        }
        continuation?.resume()
    }

    /// Ends every wait, now and from now on: the gateway is stopping, and requests stay in the queue.
    package func drain() {
        let all = waiting.withLock { waiting in
            waiting.draining = true
            defer { waiting.byRequest = [:] }
            return waiting.byRequest.values.flatMap(\.values)
        }
        for continuation in all { continuation.resume() }
    }

    package func wake(_ id: String) {
        let all = waiting.withLock { $0.byRequest.removeValue(forKey: id) }
        for continuation in (all ?? [:]).values { continuation.resume() }
    }
}
