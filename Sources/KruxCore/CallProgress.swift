import Synchronization

/// How far a call that takes long has come, for whoever waits for it. Of a task and those that it starts.
package final class CallProgress: Sendable {
    @TaskLocal package static var current: CallProgress?

    package struct Amount: Sendable, Equatable {
        /// Written by a process, or received.
        package var bytes: Int64 = 0
        package var lines: Int64 = 0
    }

    private let state = Mutex(Amount())

    package init() {}

    package var amount: Amount { state.withLock { $0 } }

    package func add(_ bytes: some Collection<UInt8>, countingLines: Bool = false) {
        let lines = countingLines ? bytes.count { $0 == 10 } : 0
        state.withLock { amount in
            amount.bytes += Int64(bytes.count)
            amount.lines += Int64(lines)
        }
    }

    /// `12 s, 3456 bytes, 78 lines`.
    package func text(elapsedSeconds: Int64) -> String {
        let amount = amount
        var parts = ["\(elapsedSeconds) s"]
        if amount.bytes > 0 { parts.append("\(amount.bytes) bytes") }
        if amount.lines > 0 { parts.append("\(amount.lines) lines") }
        return parts.joined(separator: ", ")
    }
}
