package import KruxCore
package import KruxStore

/// A call that waits for a person, or waited for one.
package struct ApprovalRequest: Sendable {
    package let number: Int64
    /// `ap_001`.
    package let id: String
    package let state: ApprovalState
    package let agent: String
    package let session: String
    package let capability: String
    /// As they will be executed; not redacted.
    package let arguments: JSONObject
    /// What must be the same at execution.
    package let binding: JSONObject
    package let decision: JSONObject
    package let requestedAt: Timestamp
    package let decidedAt: Timestamp?
    package let decidedBy: String?
    package let decisionReason: String?
    package let intent: Int64?
    package let finishedAt: Timestamp?
    /// What waits are answered with: `{data}` or `{error}`.
    package let result: JSONObject?
    /// Why the agent asks, in its own words.
    package let purpose: String?
    /// What a person is shown, redacted: `{effect, preview?, segments?}`.
    package let shown: JSONObject
    /// Of every rule that asked; all must be met.
    package let terms: [ApprovalTerms]
    /// Equal for like requests.
    package let kin: String
    package let expiresAt: Timestamp?
    package let remindAt: Timestamp?
    /// The request that this one asks again.
    package let retryOf: String?
    /// As the agent gave them, where a supervisor has changed them.
    package let original: JSONObject?
    /// Of agent, capability, arguments and what they are bound to: what a person who answers has looked at.
    package let bindingDigest: [UInt8]
}

/// One person's consent.
package struct ApprovalVote: Sendable {
    /// `supervisor:alice`.
    package let principal: String
    package let at: Timestamp
    package let reason: String?
}

/// The requests' table. Every change is one transition, in the caller's transaction beside its row of the record.
package enum ApprovalQueue {
    private static let columns =
        "number, id, state, agent, session, capability, arguments, binding, decision, requested_at, decided_at, decided_by, decision_reason, intent, finished_at, result, purpose, shown, terms, kin, expires_at, remind_at, retry_of, original, binding_digest"

    private static func request(_ row: SQLRow) throws -> ApprovalRequest {
        func object(_ text: String) throws -> JSONObject {
            guard let object = (try? JSONParser.parse(text))?.object else {
                throw StoreError(.corrupt, "request \(row.text(1)) cannot be read")
            }
            return object
        }
        func terms(_ text: String) throws -> [ApprovalTerms] {
            guard let terms = (try? JSONParser.parse(text))?.array else {
                throw StoreError(.corrupt, "the terms of request \(row.text(1)) cannot be read")
            }
            return terms.compactMap(\.object).map(ApprovalTerms.init(json:))
        }
        guard let state = ApprovalState(rawValue: row.text(2)) else {
            throw StoreError(.corrupt, "request \(row.text(1)) is in no known state")
        }
        return ApprovalRequest(
            number: row.int(0), id: row.text(1), state: state, agent: row.text(3), session: row.text(4),
            capability: row.text(5), arguments: try object(row.text(6)), binding: try object(row.text(7)),
            decision: try object(row.text(8)), requestedAt: Timestamp(microseconds: row.int(9)),
            decidedAt: row.optionalInt(10).map(Timestamp.init(microseconds:)), decidedBy: row.optionalText(11),
            decisionReason: row.optionalText(12), intent: row.optionalInt(13),
            finishedAt: row.optionalInt(14).map(Timestamp.init(microseconds:)),
            result: try row.optionalText(15).map(object), purpose: row.optionalText(16),
            shown: try object(row.text(17)), terms: try terms(row.text(18)), kin: row.text(19),
            expiresAt: row.optionalInt(20).map(Timestamp.init(microseconds:)),
            remindAt: row.optionalInt(21).map(Timestamp.init(microseconds:)), retryOf: row.optionalText(22),
            original: try row.optionalText(23).map(object), bindingDigest: row.blob(24))
    }

    package static func find(_ tx: any ReadTx, _ id: String) throws -> ApprovalRequest? {
        try tx.first("SELECT \(columns) FROM approvals WHERE id = ?", [.text(id)], request)
    }

    /// - Throws: `StructuredError` `.notFound`.
    package static func require(_ tx: any ReadTx, _ id: String) throws -> ApprovalRequest {
        if let request = try find(tx, id) { return request }
        throw StructuredError(
            .notFound, "there is no approval request `\(id.prefix(64))`",
            recovery: ["List requests with `kruxos approve list`."])
    }

    /// Requests in a state, or all; oldest first. Those that wait are bounded by what each agent may have waiting.
    /// - Parameter newest: at most so many, the newest; nil for every one.
    package static func list(
        _ tx: any ReadTx, state: ApprovalState? = nil, agent: String? = nil, since: Timestamp? = nil,
        newest: Int64? = nil
    ) throws -> [ApprovalRequest] {
        var terms: [String] = []
        var arguments: [SQLValue] = []
        if let state {
            terms.append("state = ?")
            arguments.append(.text(state.rawValue))
        }
        if let agent {
            terms.append("agent = ?")
            arguments.append(.text(agent))
        }
        if let since {
            terms.append("requested_at >= ?")
            arguments.append(.int(since.microseconds))
        }
        let condition = terms.isEmpty ? "" : " WHERE " + terms.joined(separator: " AND ")
        guard let newest else {
            return try tx.rows(
                "SELECT \(columns) FROM approvals\(condition) ORDER BY number", arguments, request)
        }
        return try tx.rows(
            "SELECT \(columns) FROM approvals\(condition) ORDER BY number DESC LIMIT ?", arguments + [.int(newest)],
            request
        ).reversed()
    }

    /// The ids of requests in a state, oldest first.
    package static func ids(_ tx: any ReadTx, state: ApprovalState) throws -> [String] {
        try tx.rows("SELECT id FROM approvals WHERE state = ? ORDER BY number", [.text(state.rawValue)]) { $0.text(0) }
    }

    package static func count(_ tx: any ReadTx, state: ApprovalState) throws -> Int64 {
        try tx.first("SELECT count(*) FROM approvals WHERE state = ?", [.text(state.rawValue)]) { $0.int(0) } ?? 0
    }

    /// An agent's own: those that wait or run, or all; newest first.
    package static func list(ofAgent tx: any ReadTx, _ agent: String, all: Bool, limit: Int64) throws
        -> [ApprovalRequest]
    {
        let open = all ? "" : " AND state IN ('pending', 'approved', 'executing')"
        return try tx.rows(
            "SELECT \(columns) FROM approvals WHERE agent = ?\(open) ORDER BY number DESC LIMIT ?",
            [.text(agent), .int(limit)], request)
    }

    /// The request that asks this one again, unless that was not approved either.
    package static func retry(of tx: any ReadTx, _ id: String) throws -> String? {
        try tx.first(
            "SELECT id FROM approvals WHERE retry_of = ? AND state NOT IN ('rejected', 'cancelled', 'expired') LIMIT 1",
            [.text(id)]
        ) { $0.text(0) }
    }

    /// The id the next request gets: `ap_001`, …, `ap_999`, `ap_1000`; in the second epoch `ap_2_001`, and so on, so
    /// that an id which a restore has forgotten is never given to another request.
    package static func nextID(_ tx: any ReadTx) throws -> (number: Int64, id: String) {
        let number = try tx.first("SELECT coalesce(max(number), 0) + 1 FROM approvals") { $0.int(0) } ?? 1
        let series = try tx.first("SELECT value FROM meta WHERE key = ?", [.text(seriesKey)]) { $0.text(0) }
        let parts = (series ?? "").split(separator: " ").compactMap { Int64($0) }
        let digits = "\(number - (parts.count == 2 ? parts[1] : 0))"
        let prefix = parts.count == 2 ? "ap_\(parts[0])_" : "ap_"
        return (number, prefix + String(repeating: "0", count: max(0, 3 - digits.utf8.count)) + digits)
    }

    /// `<epoch> <number of the last request before it>`.
    private static let seriesKey = "approval_series"

    /// After a restore nobody knows what became of what the backup shows as open: pending requests are cancelled,
    /// approved and executing ones end as unknown, and ids begin anew.
    /// - Returns: the requests as they were.
    package static func abandonAll(_ tx: WriteTx, epoch: Int64, now: Timestamp) throws -> [(
        ApprovalRequest, ApprovalState
    )] {
        let open = try tx.rows(
            "SELECT \(columns) FROM approvals WHERE state IN ('pending', 'approved', 'executing') ORDER BY number", [],
            request)
        let ended = try open.map { request -> (ApprovalRequest, ApprovalState) in
            guard let next = request.state.after(request.state == .pending ? .cancel : .loseTrack) else {
                throw conflict(request)
            }
            let error =
                next == .cancelled
                ? StructuredError(
                    .approvalCancelled,
                    "\(request.id) was cancelled: the gateway's database was restored from a backup",
                    recovery: ["Call again if it is still needed."], context: ["request_id": .string(request.id)])
                : StructuredError(
                    .outcomeUnknown,
                    "the gateway's database was restored from a backup; \(request.id) may or may not have run",
                    recovery: ["Look at what the call was to change before doing it again."],
                    context: ["request_id": .string(request.id)])
            let result: JSONObject = ["error": error.json]
            try tx.execute(
                "UPDATE approvals SET state = ?, result = ?, finished_at = ? WHERE id = ?",
                [.text(next.rawValue), .text(result.canonicalText), .int(now.microseconds), .text(request.id)])
            return (request, next)
        }
        let last = try tx.first("SELECT coalesce(max(number), 0) FROM approvals") { $0.int(0) } ?? 0
        try tx.execute(
            "INSERT INTO meta (key, value) VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET value = excluded.value",
            [.text(seriesKey), .text("\(epoch) \(last)")])
        return ended
    }

    /// Forgets what old requests asked for and got; that they were made and how they ended stays.
    package static func prune(_ tx: WriteTx, finishedBefore time: Timestamp) throws -> Int {
        try tx.execute(
            "UPDATE approval_votes SET reason = NULL WHERE reason IS NOT NULL AND request IN (SELECT id FROM approvals WHERE finished_at < ?)",
            [.int(time.microseconds)])
        return try tx.execute(
            "UPDATE approvals SET arguments = '{\"$pruned\":true}', binding = '{}', decision_reason = NULL, purpose = NULL, shown = '{}', original = NULL, result = '{\"pruned\":true}' WHERE finished_at < ? AND result IS NOT '{\"pruned\":true}'",
            [.int(time.microseconds)])
    }

    package struct NewRequest: Sendable {
        package let agent: String, session: String, capability: String
        package let arguments: JSONObject, binding: JSONObject
        package let bindingDigest: [UInt8]
        package let decision: JSONObject
        package let now: Timestamp
        package var purpose: String?
        package var shown: JSONObject = [:]
        package var terms: [ApprovalTerms] = []
        package var kin = ""
        package var retryOf: String?

        package init(
            agent: String, session: String, capability: String, arguments: JSONObject, binding: JSONObject,
            bindingDigest: [UInt8], decision: JSONObject, now: Timestamp
        ) {
            self.agent = agent
            self.session = session
            self.capability = capability
            self.arguments = arguments
            self.binding = binding
            self.bindingDigest = bindingDigest
            self.decision = decision
            self.now = now
        }
    }

    /// - Parameter most: requests of the agent that may wait at once.
    /// - Throws: `StructuredError` `.overloaded` when as many wait already.
    package static func insert(_ tx: WriteTx, _ new: NewRequest, number: Int64, id: String, most: Int64) throws {
        let pending = try tx.first(
            "SELECT count(*) FROM (SELECT 1 FROM approvals INDEXED BY approvals_by_state WHERE state = 'pending' AND agent = ? LIMIT ?)",
            [.text(new.agent), .int(most)]
        ) { $0.int(0) }
        if pending ?? 0 >= most {
            throw StructuredError(
                .overloaded, "\(most) requests of `\(new.agent)` wait for approval already, which is the most allowed",
                agent: "You have \(most) requests waiting for a person, and no more may wait.",
                recovery: [
                    "Wait for answers with kruxos__wait_for_approval, or withdraw requests that are not needed.",
                    "Ask for less: one request for a whole step instead of many.",
                ], retryable: true, retryAfter: 60, context: ["max_pending": .int(most)])
        }
        func later(_ seconds: KeyPath<ApprovalTerms, Int64?>) -> SQLValue {
            new.terms.compactMap { $0[keyPath: seconds] }.min().map {
                .int(new.now.advanced(bySeconds: $0).microseconds)
            } ?? .null
        }
        try tx.execute(
            "INSERT INTO approvals (number, id, state, agent, session, capability, arguments, binding, binding_digest, decision, requested_at, purpose, shown, terms, kin, expires_at, remind_at, retry_of) VALUES (?, ?, 'pending', ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            [
                .int(number), .text(id), .text(new.agent), .text(new.session), .text(new.capability),
                .text(new.arguments.canonicalText), .text(new.binding.canonicalText), .blob(new.bindingDigest),
                .text(new.decision.canonicalText), .int(new.now.microseconds), .optional(new.purpose),
                .text(new.shown.canonicalText),
                .text(JSONValue.array(new.terms.map { .object($0.json) }).canonicalText), .text(new.kin),
                later(\.expiresSeconds), later(\.remindAfterSeconds), .optional(new.retryOf),
            ])
    }

    // MARK: Answers

    package static func votes(_ tx: any ReadTx, _ id: String) throws -> [ApprovalVote] {
        try tx.rows(
            "SELECT principal, voted_at, reason FROM approval_votes WHERE request = ? ORDER BY voted_at, principal",
            [.text(id)]
        ) {
            ApprovalVote(
                principal: $0.text(0), at: Timestamp(microseconds: $0.int(1)), reason: $0.optionalText(2))
        }
    }

    /// One person's consent to a pending request; the caller decides whether it is enough.
    /// - Throws: `StructuredError` `.conflict` when the request is answered, or the person has agreed before.
    package static func vote(_ tx: WriteTx, _ id: String, by principal: String, reason: String?, now: Timestamp) throws
    {
        let request = try require(tx, id)
        guard request.state == .pending else { throw conflict(request) }
        if let before = try votes(tx, id).first(where: { $0.principal == principal }) {
            throw StructuredError(
                .conflict, "you have approved `\(id)` already, at \(before.at.rfc3339); it waits for others",
                recovery: ["See who is asked with `kruxos approve show \(id)`."])
        }
        try tx.execute(
            "INSERT INTO approval_votes (request, principal, voted_at, reason) VALUES (?, ?, ?, ?)",
            [.text(id), .text(principal), .int(now.microseconds), .optional(reason)])
    }

    /// Other arguments than the agent's. Consent to the old ones does not count for them.
    package static func edit(
        _ tx: WriteTx, _ id: String, arguments: JSONObject, binding: JSONObject, bindingDigest: [UInt8],
        decision: JSONObject, shown: JSONObject, terms: [ApprovalTerms], kin: String
    ) throws {
        let request = try require(tx, id)
        guard request.state == .pending else { throw conflict(request) }
        try tx.execute(
            "UPDATE approvals SET arguments = ?, binding = ?, binding_digest = ?, decision = ?, shown = ?, terms = ?, kin = ?, original = coalesce(original, ?) WHERE id = ?",
            [
                .text(arguments.canonicalText), .text(binding.canonicalText), .blob(bindingDigest),
                .text(decision.canonicalText), .text(shown.canonicalText),
                .text(JSONValue.array(terms.map { .object($0.json) }).canonicalText), .text(kin),
                .text(request.arguments.canonicalText),
                .text(id),
            ])
        try tx.execute("DELETE FROM approval_votes WHERE request = ?", [.text(id)])
    }

    // MARK: Time

    /// When something is next to be done about a pending request.
    package static func nextDue(_ tx: any ReadTx) throws -> Timestamp? {
        try tx.first(
            "SELECT min(coalesce(min(expires_at, remind_at), expires_at, remind_at)) FROM approvals WHERE state = 'pending'"
        ) { $0.optionalInt(0) }?.map(Timestamp.init(microseconds:))
    }

    /// Pending requests whose time is over.
    package static func expired(_ tx: any ReadTx, at now: Timestamp) throws -> [ApprovalRequest] {
        try tx.rows(
            "SELECT \(columns) FROM approvals WHERE state = 'pending' AND expires_at <= ? ORDER BY number",
            [.int(now.microseconds)], request)
    }

    /// Pending requests of which people are to be reminded; the next time is set.
    package static func takeReminders(_ tx: WriteTx, at now: Timestamp) throws -> [ApprovalRequest] {
        let due = try tx.rows(
            "SELECT \(columns) FROM approvals WHERE state = 'pending' AND remind_at <= ? ORDER BY number",
            [.int(now.microseconds)], request)
        for request in due {
            let seconds = request.terms.compactMap(\.remindAfterSeconds).min() ?? ApprovalTerms.longestSeconds
            try tx.execute(
                "UPDATE approvals SET remind_at = ? WHERE id = ?",
                [.int(now.advanced(bySeconds: seconds).microseconds), .text(request.id)])
        }
        return due
    }

    /// A supervisor's answer, or the agent's withdrawal.
    /// - Throws: `StructuredError` `.conflict` that names who was first and when.
    package static func decide(
        _ tx: WriteTx, _ id: String, _ event: ApprovalState.Event, by principal: String, reason: String?,
        result: JSONObject?, now: Timestamp
    ) throws -> ApprovalRequest {
        let request = try require(tx, id)
        guard let next = request.state.after(event) else { throw conflict(request) }
        try tx.execute(
            "UPDATE approvals SET state = ?, decided_at = ?, decided_by = ?, decision_reason = ?, result = ?, finished_at = ? WHERE id = ?",
            [
                .text(next.rawValue), .int(now.microseconds), .text(principal), .optional(reason),
                .optional(result?.canonicalText), next.isFinal ? .int(now.microseconds) : .null, .text(id),
            ])
        return try require(tx, id)
    }

    /// Approved to executing, with the intent that starts it.
    package static func begin(_ tx: WriteTx, _ id: String, intent: Int64) throws {
        let request = try require(tx, id)
        guard request.state.after(.execute) != nil else { throw conflict(request) }
        try tx.execute("UPDATE approvals SET state = 'executing', intent = ? WHERE id = ?", [.int(intent), .text(id)])
    }

    /// The end of an approved request.
    package static func finish(
        _ tx: WriteTx, _ id: String, _ event: ApprovalState.Event, result: JSONObject, now: Timestamp
    ) throws {
        let request = try require(tx, id)
        guard let next = request.state.after(event) else { throw conflict(request) }
        try tx.execute(
            "UPDATE approvals SET state = ?, result = ?, finished_at = ? WHERE id = ?",
            [.text(next.rawValue), .text(result.canonicalText), .int(now.microseconds), .text(id)])
    }

    private static func conflict(_ request: ApprovalRequest) -> StructuredError {
        var text = "`\(request.id)` is \(request.state.rawValue) already"
        if let by = request.decidedBy, let at = request.decidedAt { text += ", decided by \(by) at \(at.rfc3339)" }
        return StructuredError(
            .conflict, text, recovery: ["Look at it with `kruxos approve show \(request.id)`."],
            context: ["request_id": .string(request.id), "state": .string(request.state.rawValue)])
    }
}
