import Foundation
import Synchronization

/// Does something again and again on a thread of its own until it is stopped: tests block theirs.
package final class Beside: Sendable {
    private struct State: Sendable {
        var stopping = false
        var times = 0
        var error: (any Error)?
    }

    private let state = Mutex(State())
    private let done = DispatchSemaphore(value: 0)

    package init(_ work: @escaping @Sendable () throws -> Void) {
        Thread.detachNewThread { [self] in
            do {
                while !state.withLock({ $0.stopping }) {
                    try work()
                    state.withLock { $0.times += 1 }
                }
            } catch {
                state.withLock { $0.error = error }
            }
            done.signal()
        }
    }

    /// Waits for its end and returns how often it was done; throws what `work` threw.
    package func stop() throws -> Int {
        state.withLock { $0.stopping = true }
        done.wait()
        return try state.withLock {
            if let error = $0.error { throw error }
            return $0.times
        }
    }
}
