import KruxCore
import KruxEngine
import Synchronization

/// Sessions of the revisions with a handshake: an id for the client, bound to its agent. They carry nothing, so a
/// restart costs a client one new handshake.
final class MCPSessions: Sendable {
    private struct Entry {
        let agent: String
        var lastUsed: Timestamp
    }

    private static let most = 10_000
    private static let idleSeconds: Int64 = 3600
    private let entries = Mutex<[String: Entry]>([:])
    /// Long calls, by `<session> <request>`.
    let cancellations = Cancellations()

    func open(agent: String, now: Timestamp) -> String {
        let id = Engine.randomID()
        entries.withLock { entries in
            if entries.count >= Self.most {
                entries = entries.filter { now < $0.value.lastUsed.advanced(bySeconds: Self.idleSeconds) }
                if entries.count >= Self.most, let oldest = entries.min(by: { $0.value.lastUsed < $1.value.lastUsed }) {
                    entries[oldest.key] = nil
                }
            }
            entries[id] = Entry(agent: agent, lastUsed: now)
        }
        return id
    }

    /// Whether the session exists and is the agent's; another agent's looks like none.
    func use(_ id: String, agent: String, now: Timestamp) -> Bool {
        entries.withLock { entries in
            guard var entry = entries[id], entry.agent == agent,
                now < entry.lastUsed.advanced(bySeconds: Self.idleSeconds)
            else { return false }
            entry.lastUsed = now
            entries[id] = entry
            return true
        }
    }

    func close(_ id: String) { entries.withLock { $0[id] = nil } }
}
