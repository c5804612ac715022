import KruxApprovals
import KruxAudit
import KruxCore
import KruxStore

/// After a crash: intents without an outcome are recorded as `unknown`, never run again.
struct Recovery {
    let store: Store
    let audit: AuditLog

    /// Up to this row every intent has its outcome.
    private static let marker = "complete_through"

    private static func completeThrough(_ tx: any ReadTx) throws -> Int64 {
        try tx.first("SELECT value FROM meta WHERE key = ?", [.text(marker)]) { Int64($0.text(0)) ?? 0 } ?? 0
    }

    static func markComplete(_ tx: WriteTx, through seq: Int64) throws {
        try tx.execute(
            "INSERT INTO meta (key, value) VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET value = excluded.value",
            [.text(marker), .text("\(seq)")])
    }

    private struct OpenIntent: Sendable {
        let seq: Int64
        let agent: String?, session: String?, capability: String?, request: String?, tier: String?
        let principal: String
    }

    /// Intents that nothing tells the end of, oldest first.
    private static func open(_ tx: any ReadTx) throws -> [OpenIntent] {
        let from = try completeThrough(tx)
        let ended = Set(
            try tx.rows(
                "SELECT intent FROM audit WHERE seq > ? AND phase = 'outcome' AND intent IS NOT NULL", [.int(from)]
            ) {
                $0.int(0)
            })
        return try tx.rows(
            "SELECT seq, agent, session, capability, request, tier, principal FROM audit WHERE seq > ? AND phase = 'intent' ORDER BY seq",
            [.int(from)]
        ) {
            OpenIntent(
                seq: $0.int(0), agent: $0.optionalText(1), session: $0.optionalText(2),
                capability: $0.optionalText(3), request: $0.optionalText(4), tier: $0.optionalText(5),
                principal: $0.text(6))
        }.filter { !ended.contains($0.seq) }
    }

    static func firstOpen(_ tx: any ReadTx) throws -> Int64? { try open(tx).first?.seq }

    func run(now: Timestamp) throws {
        let open = try store.read(Self.open)
        let audit = audit
        try store.writer.writeAndWait { tx in
            var last = audit.lastSeq
            for intent in open {
                var body = AuditBody(time: now, phase: .outcome, principal: .system)
                body.agent = intent.agent
                body.session = intent.session
                body.capability = intent.capability
                body.request = intent.request
                body.intent = intent.seq
                body.outcome = .unknown
                let error = StructuredError(
                    .outcomeUnknown, "the gateway stopped while the call ran; it may or may not have taken effect",
                    recovery: ["Look at what the call was to change before doing it again."])
                body.members = [("error", error.json), ("decision", ["tier": .optional(intent.tier)])]
                last = try audit.append(body.canonicalBytes(), tx)
                if let request = intent.request {
                    try ApprovalQueue.finish(tx, request, .loseTrack, result: ["error": error.json], now: now)
                }
            }
            try Self.markComplete(tx, through: last)
        }
    }
}
