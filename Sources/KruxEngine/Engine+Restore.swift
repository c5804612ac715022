import Foundation
import KruxApprovals
import KruxAudit
import KruxCrypto
package import KruxCore
import KruxRegistry
package import KruxStore
import Logging

extension Engine {
    /// Why a new epoch begins.
    package struct Restore: Sendable {
        package let principal: Principal
        /// What the new epoch's first row says of it: where the file came from, and where the old one went.
        package let detail: JSONObject

        package init(principal: Principal, detail: JSONObject) {
            self.principal = principal
            self.detail = detail
        }
    }

    /// What a person should know before it happens.
    package static let restoreConsequences = [
        "a new epoch of the record begins, with new keys; its first row says who restored what",
        "rows recorded after the backup was made are not in the file any more",
        "pending requests are cancelled; approved and executing ones end as unknown and never run again",
        "grants are dropped and sessions end",
        "every agent is suspended until `kruxos agent resume NAME`",
    ]

    /// A home that had a database and has none is not a fresh one.
    static func requireDatabase(_ home: Home, _ restore: Restore?) throws {
        guard restore == nil, access(home.database, F_OK) != 0, try HeadFile.read(home: home.root) != nil else {
            return
        }
        throw AuditError(
            .wrongHead, "`\(home.database)` is gone, and this home has a record",
            hint:
                "put the file back (an interrupted restore leaves the old one beside it as kruxos.db.before-restore-…), or restore a backup with `kruxos restore FILE`"
        )
    }

    static func beginEpoch(_ writer: Writer, _ audit: AuditLog, _ restore: Restore, now: Timestamp) throws {
        try writer.writeAndWait { tx in
            var detail = restore.detail
            let agents = try AgentTable.all(tx).filter { $0.status == .active && !$0.isSuspended }.map(\.name.text)
            detail["suspended"] = .strings(agents)
            detail["grants"] = .strings(try GrantTable.endAll(tx, now: now))
            try audit.beginEpoch(tx, now: now, by: restore.principal, detail: detail)
            let epoch = try tx.first("SELECT max(epoch) FROM epochs") { $0.int(0) } ?? 1
            for (request, end) in try ApprovalQueue.abandonAll(tx, epoch: epoch, now: now) {
                var body = AuditBody(time: now, phase: .approval, principal: restore.principal)
                body.agent = request.agent
                body.session = request.session
                body.capability = request.capability
                body.request = request.id
                body.outcome = AuditOutcome(rawValue: end.rawValue)
                body.members = [("detail", ["action": "restored", "state_before": .string(request.state.rawValue)])]
                try audit.append(body.canonicalBytes(), tx)
            }
            try tx.execute("DELETE FROM sessions")
            try tx.execute("DELETE FROM approval_links")
            try tx.execute("DELETE FROM deliveries")
            try AgentTable.suspendAll(tx, now: now)
        }
    }

    // MARK: Retention

    private static let retentionKey = "retention_seconds"

    /// How long bodies are kept, in seconds; nil for always.
    package static func retention(_ tx: any ReadTx) throws -> Int64? {
        try tx.first("SELECT value FROM meta WHERE key = ?", [.text(retentionKey)]) { Int64($0.text(0)) } ?? nil
    }

    func setRetention(_ input: OperatorInput, by principal: Principal) throws -> JSONObject {
        let seconds = try input.optionalInt("seconds")
        if let seconds, seconds < 86_400 {
            throw StructuredError(
                .invalidArguments, "bodies are kept for at least a day", recovery: ["Give a day or more, or `off`."])
        }
        let before = try store.read(Self.retention)
        try change(
            "retention set", agent: nil, by: principal, now: clock.now(),
            detail: ["seconds": .optional(seconds), "previous": .optional(before)]
        ) { tx in
            try tx.execute("DELETE FROM meta WHERE key = ?", [.text(Self.retentionKey)])
            if let seconds {
                try tx.execute(
                    "INSERT INTO meta (key, value) VALUES (?, ?)", [.text(Self.retentionKey), .text("\(seconds)")])
            }
        }
        return ["retention_seconds": .optional(seconds)]
    }

    func prune(_ input: OperatorInput, by principal: Principal) throws -> JSONObject {
        let seconds = try input.int("older_than_seconds")
        guard seconds >= 0 else {
            throw StructuredError(.invalidArguments, "an age is not negative", recovery: ["Give 90d, for example."])
        }
        return try prune(olderThan: seconds, by: principal)
    }

    /// Forgets the bodies of old calls; heads, signatures and tiles stay, so every proof still verifies.
    func prune(olderThan seconds: Int64, by principal: Principal) throws -> JSONObject {
        let now = clock.now()
        let cutoff = now.advanced(bySeconds: -seconds)
        let pruned = try Pruning.run(store: store, audit: audit, before: cutoff, now: now, by: principal)
        return [
            "bodies": .int(pruned.bodies), "through": .int(pruned.through), "before": .string(cutoff.rfc3339),
            "requests": .int(pruned.requests), "audit_seq": .optional(pruned.seq),
        ]
    }

    /// Prunes at start and once a day, until the task is cancelled.
    package func runRetention() async {
        while !Task.isCancelled {
            removeWhatIsOld()
            do { try await Task.sleep(for: .seconds(86_400)) } catch { return }
        }
    }

    func removeWhatIsOld() {
        do {
            let now = try retentionTime()
            // Every age is measured from there.
            let behind = (clock.now().microseconds - now.microseconds) / 1_000_000
            emptyTrashAsConfigured(now: now)
            guard let seconds = try store.read(Self.retention) else { return }
            _ = try prune(olderThan: seconds + behind, by: .system)
        } catch {
            log.error("old bodies could not be pruned", metadata: ["reason": "\(Self.structured(error).description)"])
        }
    }

    private static let retentionTimeKey = "retention_time"

    /// The time that ages are measured from: at most two days after the one before it, once a day and at each start. A clock
    /// that is wrong once makes nothing old; after a long pause things are kept longer.
    private func retentionTime() throws -> Timestamp {
        let now = clock.now()
        let known = try store.read { tx in
            try tx.first("SELECT value FROM meta WHERE key = ?", [.text(Self.retentionTimeKey)]) { Int64($0.text(0)) }
        }
        let time = min(
            now, known.flatMap { $0 }.map { Timestamp(microseconds: $0).advanced(bySeconds: 2 * 86_400) } ?? now)
        try store.writer.writeAndWait {
            try $0.execute(
                "INSERT INTO meta (key, value) VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET value = excluded.value",
                [.text(Self.retentionTimeKey), .text("\(time.microseconds)")])
        }
        return time
    }

    // MARK: Checkpoints

    /// A checkpoint of everything that is durable now.
    func checkpointJSON() async throws -> JSONObject {
        let audit = audit
        try await store.writer.write { _ in audit.wantCheckpoint() }
        guard let newest = audit.newestCheckpoint else {
            throw AuditError(.notFound, "there is no checkpoint yet")
        }
        return ["checkpoint": .string(newest.note), "epoch": .int(newest.epoch), "size": .int(newest.size)]
    }
}

/// Forgets bodies under a signed row that says which.
enum Pruning {
    struct Result {
        var bodies: Int64 = 0
        var through: Int64 = 0
        var requests: Int64 = 0
        /// The row that says so; nil when there was nothing to forget.
        var seq: Int64?
    }

    private static let batch: Int64 = 500
    /// What is kept: keys and prunings, which verification needs, and what changed the gate itself.
    private static let phases = "('intent', 'outcome', 'approval')"

    static func run(
        store: Store, audit: AuditLog, before cutoff: Timestamp, now: Timestamp, by principal: Principal
    ) throws -> Result {
        // All rows up to the first one that is young enough; a clock that stepped back makes it prune less, not more.
        let (through, bodies, kept) = try store.read { tx -> (Int64, Int64, [Int64]) in
            let done =
                try tx.first(
                    "SELECT coalesce(max(json_extract(body, '$.detail.through')), 0) FROM audit WHERE phase IN ('key', 'prune') AND phase = 'prune'"
                ) { $0.int(0) } ?? 0
            let firstYoung =
                try tx.first("SELECT min(seq) FROM audit WHERE time >= ?", [.int(cutoff.microseconds)]) {
                    $0.optionalInt(0)
                } ?? nil
            let last = try tx.first("SELECT coalesce(max(seq), 0) FROM audit") { $0.int(0) } ?? 0
            // What is not ended yet must stay readable: a crash would leave nothing to tell it by.
            let open = try Recovery.firstOpen(tx).map { $0 - 1 } ?? last
            let through = max(done, min(open, firstYoung.map { $0 - 1 } ?? last))
            let bodies =
                try tx.first(
                    "SELECT count(*) FROM audit WHERE seq <= ? AND body IS NOT NULL AND phase IN \(phases)",
                    [.int(through)]
                ) { $0.int(0) } ?? 0
            let kept = try tx.rows(
                "SELECT seq FROM audit WHERE seq <= ? AND phase NOT IN \(phases) ORDER BY seq", [.int(through)]
            ) { $0.int(0) }
            return (through, bodies, kept)
        }
        var result = Result(bodies: bodies, through: through)
        guard bodies > 0 else { return result }
        var body = AuditBody(time: now, phase: .prune, principal: principal)
        body.members = [
            (
                "detail",
                [
                    "action": "bodies pruned", "through": .int(through), "before": .int(cutoff.microseconds),
                    "bodies": .int(bodies), "kept": .int(Int64(kept.count)),
                    "kept_digest": .string(AuditVerifier.digest(kept: kept).hex),
                    "phases": ["intent", "outcome", "approval"],
                ]
            )
        ]
        let bytes = body.canonicalBytes()
        // The row first: a crash in between leaves bodies that may go, never a missing one that nobody covers.
        // Grants stay, as policies do: they are why calls were let through.
        (result.seq, result.requests) = try store.writer.writeAndWait { tx in
            try tx.forEach("PRAGMA secure_delete = ON", []) { _ in true }
            let seq = try audit.append(bytes, tx)
            try tx.execute("DELETE FROM notifications WHERE seq <= ?", [.int(through)])
            return (seq, Int64(try ApprovalQueue.prune(tx, finishedBefore: cutoff)))
        }
        var last: Int64 = 0
        while last < through {
            let from = last
            last = try store.writer.writeAndWait { tx in
                // What is deleted is overwritten in the file.
                try tx.forEach("PRAGMA secure_delete = ON", []) { _ in true }
                let end =
                    try tx.first(
                        "SELECT max(seq) FROM (SELECT seq FROM audit WHERE seq > ? AND seq <= ? ORDER BY seq LIMIT \(batch))",
                        [.int(from), .int(through)]
                    ) { $0.optionalInt(0) } ?? nil
                guard let end else { return through }
                try tx.execute(
                    "UPDATE audit SET body = NULL WHERE seq > ? AND seq <= ? AND body IS NOT NULL AND phase IN \(phases)",
                    [.int(from), .int(end)])
                return end
            }
        }
        return result
    }
}
