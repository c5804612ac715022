package import KruxApprovals
package import KruxAudit
import KruxCapabilities
package import KruxCore
package import KruxPolicy
import KruxRegistry
package import KruxStore
import KruxCrypto

/// Answers in advance.
extension Engine {
    /// What a grant from a request would answer for, and what it would have answered.
    package struct GrantProposal: Sendable {
        package let agent: String
        package let capability: String
        package let conditions: JSONValue
        /// On one line.
        package let text: String
        /// Calls of the last 30 days that it covers, newest first, by what they do and how they were decided.
        package let matched: [(summary: String, tier: String, count: Int)]
        package let calls: Int
        /// Calls of which the record does not show enough to tell.
        package let untold: Int
        /// What else a person should know before they agree.
        package let warnings: [String]

        package var json: JSONObject {
            [
                "agent": .string(agent), "capability": .string(capability), "conditions": conditions,
                "calls": .int(Int64(calls)), "untold": .int(Int64(untold)),
                "matched": .array(
                    matched.map {
                        ["summary": .string($0.summary), "tier": .string($0.tier), "calls": .int(Int64($0.count))]
                    }), "warnings": .strings(warnings),
            ]
        }
    }

    private static let lookBackSeconds: Int64 = 30 * 86_400
    private static let mostCallsLookedAt: Int64 = 20_000

    /// The narrowest grant that covers a request, or one with the conditions given, and what it would have answered.
    /// Reads only, so it needs no gateway and no lock.
    /// - Parameter condition: YAML on one line; nil for the narrowest.
    package static func proposeGrant(
        _ store: some SnapshotSource, for id: String, condition: String?, policy: CompiledPolicy, redactor: Redactor,
        now: Timestamp
    ) throws -> GrantProposal {
        let request = try store.read { try ApprovalQueue.require($0, id) }
        guard let declaration = Capabilities.catalogue[request.capability],
            let index = policy.index(of: request.capability)
        else { throw StructuredError(.capabilityUnavailable, "\(request.capability) is not part of this version") }
        try requireGrantable(request, policy)
        let facts = CallFacts(
            agent: request.agent, capability: index, declaration: declaration, arguments: request.arguments, time: now)
        let narrowest = GrantPattern.narrowest(facts, declaration)
        if condition == nil, narrowest == nil {
            throw StructuredError(
                .conflict, "no pattern covers \(id) exactly: what it does cannot be told before it runs",
                recovery: ["Approve it without a grant, or name a pattern with `--condition`."])
        }
        let pattern: GrantPattern
        do throws(PolicyErrors) {
            if let condition {
                pattern = try GrantPattern(
                    text: condition, capability: declaration, catalogue: Capabilities.catalogue, source: "--condition")
            } else {
                pattern = try GrantPattern(
                    .object(narrowest ?? [:]), capability: declaration, catalogue: Capabilities.catalogue, source: id)
            }
        } catch {
            throw StructuredError(
                .invalidArguments, error.description,
                recovery: ["See the conditions in docs/policy-language.md."])
        }
        guard pattern.covers(facts, policy) else {
            throw StructuredError(
                .conflict, "`\(pattern.text)` does not cover \(id)",
                recovery: ["Name a condition that holds for every part of the call, or leave `--condition` out."])
        }
        var warnings: [String] = []
        for file in (request.binding["files"]?.object ?? [:]).keys
        where declaration.effect == .destructive && declaration.input.properties.contains(where: Self.isCommand) {
            warnings.append(
                "\(redactor.scrub(file)) may say something else the next time; a grant is for the line, not for the file"
            )
        }
        let (rows, untold) = try matches(
            store, request, pattern, policy, since: now.advanced(bySeconds: -lookBackSeconds))
        var counts: [(summary: String, tier: String, count: Int)] = []
        for row in rows {
            let summary = summarise(row.arguments, of: declaration, limit: 100)
            if let place = counts.firstIndex(where: { $0.summary == summary && $0.tier == row.tier }) {
                counts[place].count += 1
            } else {
                counts.append((summary, row.tier, 1))
            }
        }
        return GrantProposal(
            agent: request.agent, capability: request.capability, conditions: pattern.json,
            text: redactor.scrub(pattern.text), matched: counts, calls: rows.count, untold: untold, warnings: warnings)
    }

    /// What nobody grants is said before anything is answered.
    private static func requireGrantable(_ request: ApprovalRequest, _ policy: CompiledPolicy) throws {
        if !policy.grantsAllowed {
            throw StructuredError(
                .blocked, "the policy `\(policy.active.name)` says `grants: none`",
                recovery: ["Approve requests one by one, or change the policy."])
        }
        if let terms = request.terms.first(where: { $0.quorum > 1 }) {
            throw StructuredError(
                .blocked, "the rule asks \(terms.quorum) people each time, so nobody grants it in advance",
                recovery: ["Approve requests one by one."])
        }
    }

    private static func isCommand(_ property: Property) -> Bool {
        if case .command = property.role { true } else { false }
    }

    private static func matches(
        _ store: some SnapshotSource, _ request: ApprovalRequest, _ pattern: GrantPattern, _ policy: CompiledPolicy,
        since: Timestamp
    ) throws -> (rows: [(arguments: JSONObject, tier: String)], untold: Int) {
        var found: [(arguments: JSONObject, tier: String)] = []
        var untold = 0
        try store.read { tx in
            // Each call once: its first row, which holds the facts.
            try tx.forEach(
                "SELECT body FROM audit WHERE capability = ? AND agent = ? AND time >= ? AND body IS NOT NULL AND intent IS NULL AND phase IN ('intent', 'outcome', 'approval') ORDER BY seq DESC LIMIT \(mostCallsLookedAt)",
                [.text(request.capability), .text(request.agent), .int(since.microseconds)]
            ) { row in
                guard let body = (try? JSONParser.parse(row.text(0)))?.object, let json = body["facts"]?.object,
                    // The intent of an approved request is the same call again.
                    body["phase"]?.string != "intent" || body["request"] == nil
                else { return true }
                let arguments = body["arguments"] ?? [:]
                guard
                    let facts = RecordedFacts.facts(
                        agent: request.agent, capability: request.capability, arguments: arguments, json, policy),
                    facts.hidden == nil
                else {
                    untold += 1
                    return true
                }
                if pattern.covers(facts, policy) {
                    found.append((arguments.object ?? [:], body["decision"]?["tier"]?.string ?? "-"))
                }
                return true
            }
        }
        return (found, untold)
    }

    // MARK: Changes

    /// Stores a grant that a person has seen the proposal of.
    func createGrant(_ input: OperatorInput, by principal: Principal) throws -> JSONObject {
        let id = try input.text("request")
        let now = clock.now()
        let person = try approver(principal)
        let request = try store.read { try ApprovalQueue.require($0, id) }
        guard let declaration = Capabilities.catalogue[request.capability] else {
            throw StructuredError(.capabilityUnavailable, "\(request.capability) is not part of this version")
        }
        guard [.approved, .executing, .succeeded, .failed, .unknown].contains(request.state) else {
            throw StructuredError(
                .conflict, "\(id) is \(request.state.rawValue): a grant follows an approval",
                recovery: ["Approve it first."])
        }
        try Self.requireGrantable(request, policy.compiled)
        for terms in request.terms where terms.missing(after: [person]) > 0 {
            throw StructuredError(
                .blocked, "only \(terms.whom) can grant this, and you are \(person.name)",
                recovery: ["Approve requests one by one."])
        }
        let pattern: GrantPattern
        do throws(PolicyErrors) {
            pattern = try GrantPattern(
                input.value("conditions") ?? .null, capability: declaration, catalogue: Capabilities.catalogue,
                source: "grant")
        } catch {
            throw StructuredError(.invalidArguments, error.description)
        }
        // What was approved, which may be another call than the one that was asked.
        guard let index = policy.compiled.index(of: request.capability),
            pattern.covers(
                CallFacts(
                    agent: request.agent, capability: index, declaration: declaration, arguments: request.arguments,
                    time: now), policy.compiled)
        else {
            throw StructuredError(
                .conflict, "the grant would not cover \(id) as it was approved",
                recovery: ["Look at it with `kruxos approve show \(id)`."])
        }
        let seconds = try input.optionalInt("seconds")
        let uses = try input.optionalInt("uses")
        let permanent = try input.optionalFlag("permanent") ?? false
        let scope = try input.optionalText("scope") ?? "session"
        guard ["session", "agent"].contains(scope) else {
            throw StructuredError(.invalidArguments, "a grant's scope is `session` or `agent`")
        }
        guard seconds.map({ (1...ApprovalTerms.longestSeconds).contains($0) }) ?? true, uses.map({ $0 >= 1 }) ?? true
        else {
            throw StructuredError(
                .invalidArguments, "a grant lasts from a second to a year, and for at least one use",
                recovery: ["Give such as `--for 1h` or `--uses 5`."])
        }
        if scope == "agent", seconds == nil, uses == nil, !permanent {
            throw StructuredError(
                .invalidArguments, "a grant for every session needs an end",
                recovery: ["Give `--for 1h`, `--uses 5`, or `--permanent`."])
        }
        if scope == "session" {
            guard let session = sessions.session(request.session),
                now < session.lastSeenAt.advanced(bySeconds: SessionTable.idleSeconds)
            else {
                throw StructuredError(
                    .conflict, "the session of \(id) is over, so a grant for it would answer nothing",
                    recovery: ["Give `--for 1h`, `--uses 5`, or `--permanent` for a grant for every session."])
            }
        }
        let new = GrantTable.New(
            agent: request.agent, capability: request.capability, conditions: pattern.json,
            session: scope == "session" ? request.session : nil,
            expiresAt: seconds.map { now.advanced(bySeconds: $0) }, uses: uses, now: now, by: principal.text,
            agreed: [principal.text], request: id, reason: try input.optionalText("reason"))
        let audit = audit
        let redactor = redactor
        let grant = try store.writer.writeAndWait { tx in
            let grant = try GrantTable.insert(tx, new)
            var body = AuditBody(time: now, phase: .admin, principal: principal)
            body.agent = grant.agent
            body.capability = grant.capability
            body.session = grant.session
            body.request = id
            body.members = [
                (
                    "detail",
                    [
                        "action": "grant created", "grant": .string(grant.id),
                        "conditions": .string(redactor.scrub(grant.conditions.canonicalText)),
                        "expires_at": .optional(grant.expiresAt?.rfc3339), "uses": .optional(grant.uses),
                        "reason": .optional(grant.reason.map { redactor.scrub($0) }),
                    ]
                )
            ]
            try audit.append(body.canonicalBytes(), tx)
            return grant
        }
        try reloadGrants()
        return Self.json(grant, redactor, now: now)
    }

    func revokeGrant(_ input: OperatorInput, by principal: Principal) throws -> JSONObject {
        let id = try input.text("id")
        _ = try approver(principal)
        let now = clock.now()
        let audit = audit
        let grant = try store.writer.writeAndWait { tx in
            let grant = try GrantTable.require(tx, id)
            if let ended = grant.endedAt {
                throw StructuredError(
                    .conflict, "`\(id)` was revoked by \(grant.endedBy ?? "somebody") at \(ended.rfc3339) already",
                    recovery: ["List grants with `kruxos grants list`."])
            }
            try GrantTable.end(tx, id, by: principal.text, now: now)
            var body = AuditBody(time: now, phase: .admin, principal: principal)
            body.agent = grant.agent
            body.capability = grant.capability
            body.members = [("detail", ["action": "grant revoked", "grant": .string(id), "used": .int(grant.used)])]
            try audit.append(body.canonicalBytes(), tx)
            return try GrantTable.require(tx, id)
        }
        try reloadGrants()
        return Self.json(grant, redactor, now: now)
    }

    func reloadGrants() throws { try grants.reload(store, log: log) }

    /// A grant as a supervisor sees it.
    package static func json(_ grant: Grant, _ redactor: Redactor, now: Timestamp) -> JSONObject {
        let state =
            grant.endedAt != nil
            ? "revoked"
            : grant.expiresAt.map { $0 <= now } ?? false ? "expired" : grant.isLive(at: now) ? "live" : "used up"
        return [
            "id": .string(grant.id), "state": .string(state), "agent": .string(grant.agent),
            "capability": .string(grant.capability), "conditions": redactor.scrub(grant.conditions),
            "session": .optional(grant.session), "expires_at": .optional(grant.expiresAt?.rfc3339),
            "uses": .optional(grant.uses), "used": .int(grant.used),
            "last_used_at": .optional(grant.lastUsedAt?.rfc3339),
            "created_at": .string(grant.createdAt.rfc3339), "created_by": .string(grant.createdBy),
            "request": .optional(grant.request), "reason": .optional(grant.reason.map { redactor.scrub($0) }),
            "ended_at": .optional(grant.endedAt?.rfc3339), "ended_by": .optional(grant.endedBy),
        ]
    }
}
