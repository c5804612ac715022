import KruxCore
package import KruxPolicy
package import KruxStore
import Synchronization

/// Calls admitted without approval, per window, exactly: a call is counted in the same step in which it is found that
/// the window has room, so that no number of clients and no restart admits one more than the limit says.
///
/// Time is microseconds that have passed, not a clock's: it never goes back, and setting the clock neither frees nor
/// fills a window. It goes on over restarts of the gateway; over a restart of the machine it starts from the later of
/// the wall clock and the last counted call.
package final class RateWindows: Sendable {
    private struct Counted {
        /// When calls were admitted, in order.
        var calls: [Int64] = []
        /// Calls from before this are in the database only.
        var from: Int64
    }

    private struct State {
        var windows: [RateWindow: Counted] = [:]
        /// Elapsed time is this much more than the machine's monotonic clock.
        var base: Int64
        var last: Int64
        var number: Int64 = 0
        /// Counted calls that are not written yet, by number; the database does not know them.
        var unwritten: [Int64: Int64] = [:]
    }

    private let state: Mutex<State>
    private let monotonic: @Sendable () -> Int64

    /// A limit that a call meets.
    package struct Limit: Sendable {
        package let window: RateWindow
        package let limit: RateLimit

        package init(window: RateWindow, limit: RateLimit) {
            self.window = window
            self.limit = limit
        }
    }

    /// What stood in a window when a call came.
    package struct Standing: Sendable, Equatable {
        package let window: RateWindow
        package let seconds: Int64
        /// Calls counted in the last `seconds`.
        package let calls: Int64
        package let isFull: Bool
        /// Until it has room, when it is full.
        package let retryAfterMicroseconds: Int64
    }

    /// A counted call, to be stored in the transaction that lets it happen, or taken back.
    package struct Reservation: Sendable {
        package let windows: [RateWindow]
        let elapsed: Int64
        let number: Int64
    }

    private static let marker = "rate_clock"
    /// In the year 73,000.
    private static let end: Int64 = 1 << 61
    /// What to write so that the next gateway on this boot goes on where this one stands.
    private let anchor: String

    /// - Parameters:
    ///   - wall: microseconds since 1970, now.
    ///   - boot: names the run of the machine that `monotonic` counts from.
    ///   - monotonic: microseconds of a clock that only goes forward, suspended or not.
    package init(_ tx: any ReadTx, wall: Int64, boot: String, monotonic: @escaping @Sendable () -> Int64) throws {
        // Times beyond any clock are no times; they would overflow what is added to them.
        let last =
            (try tx.first("SELECT max(elapsed) FROM rate_calls WHERE elapsed < ?", [.int(Self.end)]) {
                $0.optionalInt(0)
            } ?? nil) ?? 0
        let stored = try tx.first("SELECT value FROM meta WHERE key = ?", [.text(Self.marker)]) { $0.text(0) }
        let parts = stored?.split(separator: " ").map(String.init) ?? []
        let now = monotonic()
        let base: Int64
        if parts.count == 2, parts[0].utf8Equals(boot), let known = Int64(parts[1]),
            (-Self.end..<Self.end).contains(known)
        {
            base = known
        } else {
            base = max(wall, last + 1) - now
        }
        anchor = "\(boot) \(base)"
        state = Mutex(State(base: base, last: max(base + now, last)))
        self.monotonic = monotonic
    }

    /// To be written once at the start.
    package func storeAnchor(_ tx: WriteTx) throws {
        try tx.execute(
            "INSERT INTO meta (key, value) VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET value = excluded.value",
            [.text(Self.marker), .text(anchor)])
    }

    /// Looks at the windows and counts the call in all of them if it is admitted, as one step.
    /// - Parameters:
    ///   - store: where calls from before are read, when a window is looked at for the first time or reaches further
    ///     back than before.
    ///   - admits: whether the call runs without approval, by what stands.
    package func admit(
        _ limits: [Limit], store: Store, admits: ([Standing]) -> Bool
    ) throws -> (standings: [Standing], reservation: Reservation?) {
        try state.withLock { state in
            let now = max(state.base + monotonic(), state.last)
            state.last = now
            var standings: [Standing] = []
            for limit in limits {
                let since = now - limit.limit.windowSeconds * 1_000_000
                try Self.load(limit.window, since: since, &state, store)
                // INVARIANT: `load` has made the entry.
                let calls = state.windows[limit.window]?.calls ?? []
                let first = Self.firstIndex(after: since, in: calls)
                let count = Int64(calls.count - first)
                let isFull = count >= limit.limit.max
                // Room again once the max-th newest call has left the window.
                let leaving = isFull ? calls[calls.count - Int(limit.limit.max)] : 0
                standings.append(
                    Standing(
                        window: limit.window, seconds: limit.limit.windowSeconds, calls: count, isFull: isFull,
                        retryAfterMicroseconds: isFull ? leaving + limit.limit.windowSeconds * 1_000_000 - now : 0))
            }
            guard admits(standings) else { return (standings, nil) }
            let windows = Array(Set(limits.map(\.window)))
            state.number += 1
            for window in windows { state.windows[window]?.calls.append(now) }
            state.unwritten[state.number] = now
            return (standings, Reservation(windows: windows, elapsed: now, number: state.number))
        }
    }

    /// The call did not happen after all.
    package func release(_ reservation: Reservation) {
        state.withLock { state in
            state.unwritten[reservation.number] = nil
            for window in reservation.windows {
                guard let index = state.windows[window]?.calls.lastIndex(of: reservation.elapsed) else { continue }
                state.windows[window]?.calls.remove(at: index)
            }
        }
    }

    /// The call is in the database.
    package func written(_ reservation: Reservation) {
        state.withLock { _ = $0.unwritten.removeValue(forKey: reservation.number) }
    }

    /// Writes a counted call, and forgets what no window reaches any more.
    package static func store(_ tx: WriteTx, _ reservation: Reservation) throws {
        for window in reservation.windows {
            let key: [SQLValue] = [
                .text(window.agent), .text(window.layer.rawValue), .text(window.document), .text(window.pattern),
            ]
            try tx.execute(
                "INSERT INTO rate_calls (agent, layer, document, pattern, elapsed, number) VALUES (?, ?, ?, ?, ?, ?)",
                key + [.int(reservation.elapsed), .int(reservation.number)])
            try tx.execute(
                "DELETE FROM rate_calls WHERE agent = ? AND layer = ? AND document = ? AND pattern = ? AND elapsed < ?",
                key + [.int(reservation.elapsed - RateLimit.longestWindowSeconds * 1_000_000)])
        }
    }

    private static func load(_ window: RateWindow, since: Int64, _ state: inout State, _ store: Store) throws {
        if var counted = state.windows[window] {
            if counted.from > since {
                // Older calls were written long ago: what is not yet durable is in memory.
                let older = try read(window, from: since, until: counted.from, store)
                counted.calls = older + counted.calls
                counted.from = since
                state.windows[window] = counted
            } else if let first = counted.calls.first, first < since - 60_000_000 {
                // Let go of what has left the window, a minute's worth at a time; but not of what is nowhere else.
                let until = min(since, (state.unwritten.values.min() ?? .max) - 1)
                counted.calls.removeFirst(firstIndex(after: until, in: counted.calls))
                counted.from = max(counted.from, until)
                state.windows[window] = counted
            }
            return
        }
        let calls = try read(window, from: since, until: .max, store)
        state.windows[window] = Counted(calls: calls, from: since)
    }

    private static func read(_ window: RateWindow, from: Int64, until: Int64, _ store: Store) throws -> [Int64] {
        try store.read { tx in
            try tx.rows(
                "SELECT elapsed FROM rate_calls WHERE agent = ? AND layer = ? AND document = ? AND pattern = ? AND elapsed > ? AND elapsed <= ? ORDER BY elapsed",
                [
                    .text(window.agent), .text(window.layer.rawValue), .text(window.document), .text(window.pattern),
                    .int(from), .int(min(until, end)),
                ]
            ) { $0.int(0) }
        }
    }

    /// The first call that is younger than `since`. O(log calls).
    private static func firstIndex(after since: Int64, in calls: [Int64]) -> Int {
        var low = 0
        var high = calls.count
        while low < high {
            let middle = (low + high) / 2
            if calls[middle] > since { high = middle } else { low = middle + 1 }
        }
        return low
    }
}
