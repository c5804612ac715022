package import KruxCore
package import KruxCrypto
package import KruxPolicy
package import KruxStore
import Synchronization

/// One stretch of an agent's work: it belongs to a token and a way in, and ends after 30 idle minutes. An agent cannot
/// start one: its first call after the idle time does.
package struct Session: Sendable, Equatable {
    package let id: String
    package let agent: AgentName
    package let via: String
    package let tokenHash: Digest?
    package let startedAt: Timestamp
    package var lastSeenAt: Timestamp
    package var calls: Int64
    /// Given by a supervisor.
    package var label: String?
    package var mode: Mode?
    /// What the table says of `lastSeenAt`; nil before the session is stored.
    package var storedAt: Timestamp?

    package init(
        id: String, agent: AgentName, via: String, tokenHash: Digest?, startedAt: Timestamp, lastSeenAt: Timestamp,
        calls: Int64, label: String? = nil, mode: Mode? = nil, storedAt: Timestamp?
    ) {
        self.id = id
        self.agent = agent
        self.via = via
        self.tokenHash = tokenHash
        self.startedAt = startedAt
        self.lastSeenAt = lastSeenAt
        self.calls = calls
        self.label = label
        self.mode = mode
        self.storedAt = storedAt
    }
}

/// The live sessions in memory, and what must be written of them in the transaction of their next row.
package final class SessionTable: Sendable {
    package static let idleSeconds: Int64 = 1800
    /// The stored time of the last call may lag this much: a crash then ends a session a little early.
    private static let storeEverySeconds: Int64 = 60

    private struct Key: Hashable {
        let agent: String, via: String
    }

    private let live = Mutex<[Key: Session]>([:])

    package init() {}

    /// Takes up the sessions that had not ended when the gateway stopped.
    package func resume(_ tx: any ReadTx, now: Timestamp) throws {
        let since = now.advanced(bySeconds: -Self.idleSeconds)
        let sessions = try tx.rows(
            "SELECT id, agent, via, token_hash, started_at, last_seen_at, calls, label, mode FROM sessions WHERE last_seen_at > ? ORDER BY last_seen_at",
            [.int(since.microseconds)]
        ) { row -> Session? in
            guard let agent = AgentName(row.text(1)) else { return nil }
            let seen = Timestamp(microseconds: row.int(5))
            return Session(
                id: row.text(0), agent: agent, via: row.text(2), tokenHash: Digest(row.blob(3)),
                startedAt: Timestamp(microseconds: row.int(4)), lastSeenAt: seen, calls: row.int(6),
                label: row.optionalText(7), mode: row.optionalText(8).flatMap(Mode.init(name:)), storedAt: seen)
        }
        live.withLock { live in
            for case let session? in sessions { live[Key(agent: session.agent.text, via: session.via)] = session }
        }
    }

    /// The session a call belongs to, and what of it is to be stored with the call's first row.
    package func touch(_ agent: AgentRecord, via: String, now: Timestamp) -> (session: Session, store: Bool) {
        live.withLock { live in
            let key = Key(agent: agent.name.text, via: via)
            if var session = live[key], session.tokenHash == agent.tokenHash,
                now < session.lastSeenAt.advanced(bySeconds: Self.idleSeconds)
            {
                session.lastSeenAt = max(now, session.lastSeenAt)
                session.calls += 1
                let store = session.storedAt.map { now > $0.advanced(bySeconds: Self.storeEverySeconds) } ?? true
                if store { session.storedAt = now }
                live[key] = session
                return (session, store)
            }
            let session = Session(
                id: "s_" + randomBytes(8).hex, agent: agent.name, via: via, tokenHash: agent.tokenHash, startedAt: now,
                lastSeenAt: now, calls: 1, storedAt: now)
            live[key] = session
            return (session, true)
        }
    }

    /// Changes a live session; nil when there is none of that id.
    package func change(_ id: String, _ change: (inout Session) -> Void) -> Session? {
        live.withLock { live in
            guard let key = live.first(where: { $0.value.id == id })?.key, var session = live[key] else { return nil }
            change(&session)
            live[key] = session
            return session
        }
    }

    package func session(_ id: String) -> Session? { live.withLock { $0.values.first { $0.id == id } } }

    /// Sessions whose stored time lags, for the last transaction before a stop.
    package var all: [Session] { live.withLock { Array($0.values) } }

    package static func store(_ tx: WriteTx, _ session: Session) throws {
        try tx.execute(
            "INSERT INTO sessions (id, agent, via, token_hash, started_at, last_seen_at, calls, label, mode) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (id) DO UPDATE SET last_seen_at = max(last_seen_at, excluded.last_seen_at), calls = max(calls, excluded.calls), label = excluded.label, mode = excluded.mode",
            [
                .text(session.id), .text(session.agent.text), .text(session.via),
                session.tokenHash.map { .blob($0.bytes) } ?? .null, .int(session.startedAt.microseconds),
                .int(session.lastSeenAt.microseconds), .int(session.calls), .optional(session.label),
                .optional(session.mode?.rawValue),
            ])
    }
}
