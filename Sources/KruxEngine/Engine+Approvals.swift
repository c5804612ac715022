package import KruxApprovals
import KruxAudit
import KruxCapabilities
package import KruxCore
import KruxCrypto
import KruxPolicy
import KruxRegistry
import KruxStore
import Logging

extension Engine {
    /// Queues a call and returns the error that tells the agent so.
    func requestApproval(
        _ capability: AnyCapability, _ prepared: Prepared, _ decision: Decision, _ policy: ActivePolicy,
        _ caller: Caller, _ record: CallRecord
    ) async throws -> StructuredError {
        let binding = try capability.binding(prepared.arguments, try context(caller))
        let decisionJSON = decision.json(policy.compiled).adding([
            ("policy", .string(policy.compiled.active.name)), ("digest", .string(policy.digest.hex)),
        ])
        let new = ApprovalQueue.NewRequest(
            agent: caller.agent.name.text, session: caller.session.id, capability: prepared.declaration.name.text,
            arguments: prepared.arguments, binding: binding,
            bindingDigest: bindingDigest(prepared, caller, binding).bytes, decision: decisionJSON, now: record.started)
        let audit = audit
        let session = record.session
        var template = record.body(.approval, outcome: .pending, self)
        template.members.append(("binding", .object(binding)))
        let body = template
        let id = try await store.writer.write { tx in
            if let session { try SessionTable.store(tx, session) }
            let (number, id) = try ApprovalQueue.nextID(tx)
            try ApprovalQueue.insert(tx, new, number: number, id: id)
            var body = body
            body.request = id
            try audit.append(body.canonicalBytes(), tx)
            return id
        }
        events.publish(
            GateEvent(
                kind: .approval, time: record.started, agent: new.agent, capability: new.capability,
                summary: summarise(redactor.redact(prepared.arguments), of: prepared.declaration), request: id))
        return Self.pending(id, capability: new.capability, reason: decisionJSON["reason"]?.string)
    }

    /// The hash of all that a request is bound to.
    private func bindingDigest(_ prepared: Prepared, _ caller: Caller, _ binding: JSONObject) -> Digest {
        let bound: JSONValue = [
            "agent": .string(caller.agent.name.text), "capability": .string(prepared.declaration.name.text),
            "arguments": .object(prepared.arguments), "binding": .object(binding),
        ]
        return sha256(bound.canonicalBytes())
    }

    static func pending(_ id: String, capability: String, reason: String?) -> StructuredError {
        StructuredError(
            .approvalPending, "\(capability) waits for approval as \(id)",
            agent: "A person must approve this first" + (reason.map { ": \($0)" } ?? "")
                + ". Your request is \(id); it runs by itself once approved.",
            recovery: [
                "Wait for the answer with kruxos__wait_for_approval, or GET /v1/approvals/\(id)?wait=60.",
                "Go on with other work and ask again later.",
            ], retryable: false, context: ["request_id": .string(id), "capability": .string(capability)])
    }

    // MARK: Answers

    /// A supervisor's answer. An approved request runs when `runApproved` is called with its id.
    package func decideApproval(
        _ id: String, approve: Bool, by principal: Principal, reason: String?
    ) throws -> ApprovalRequest {
        if case .agent = principal {
            throw StructuredError(
                .blocked, "agents do not decide requests", recovery: ["Ask a supervisor."])
        }
        let now = clock.now()
        let audit = audit
        let redactor = redactor
        let request = try store.writer.writeAndWait { tx in
            let rejection: JSONObject? =
                approve ? nil : ["error": Self.rejected(id, by: principal, reason: reason).json]
            let request = try ApprovalQueue.decide(
                tx, id, approve ? .approve : .reject, by: principal.text, reason: reason, result: rejection, now: now)
            var body = AuditBody(time: now, phase: .approval, principal: principal)
            body.agent = request.agent
            body.session = request.session
            body.capability = request.capability
            body.request = id
            body.outcome = approve ? .approved : .rejected
            body.members = [
                ("arguments", .object(redactor.redact(request.arguments))),
                ("arguments_digest", .string(redactor.digest(request.arguments.canonicalBytes()))),
                ("decision", .object(request.decision)), ("reason", .optional(reason.map { redactor.scrub($0) })),
            ]
            try audit.append(body.canonicalBytes(), tx)
            // The reply carries it: who answers can keep it as an anchor.
            audit.wantCheckpoint()
            return request
        }
        if !approve { waiters.wake(id) }
        return request
    }

    private static func rejected(_ id: String, by principal: Principal, reason: String?) -> StructuredError {
        StructuredError(
            .approvalRejected, "\(id) was rejected by \(principal.text)" + (reason.map { ": \($0)" } ?? ""),
            agent: "A person rejected this" + (reason.map { ": \($0)" } ?? "."),
            recovery: ["Find another way, or ask what would be acceptable."],
            context: ["request_id": .string(id), "reason": .optional(reason)])
    }

    /// Withdraws a pending request of the agent itself.
    package func cancelApproval(_ id: String, by caller: Caller) throws -> ApprovalRequest {
        let now = clock.now()
        let audit = audit
        let principal = Principal.agent(caller.agent.name)
        let request = try store.writer.writeAndWait { tx in
            let request = try ApprovalQueue.require(tx, id)
            guard request.agent == caller.agent.name.text else { throw Self.notYours(id) }
            let error = StructuredError(
                .approvalCancelled, "\(id) was withdrawn by the agent", recovery: ["Call again if it is needed."],
                context: ["request_id": .string(id)])
            let cancelled = try ApprovalQueue.decide(
                tx, id, .cancel, by: principal.text, reason: nil, result: ["error": error.json], now: now)
            var body = AuditBody(time: now, phase: .approval, principal: principal)
            body.agent = request.agent
            body.session = request.session
            body.capability = request.capability
            body.request = id
            body.outcome = .cancelled
            try audit.append(body.canonicalBytes(), tx)
            return cancelled
        }
        waiters.wake(id)
        return request
    }

    /// Another agent's request and one that never was look the same.
    private static func notYours(_ id: String) -> StructuredError {
        StructuredError(
            .notFound, "there is no approval request `\(id.prefix(64))` of yours",
            recovery: ["Use the request_id that your own call returned."])
    }

    // MARK: Execution

    /// Requests that were approved and have not run: at start-up, what was decided while the gateway was down.
    package func approvedRequests() throws -> [String] {
        try store.read { try ApprovalQueue.list($0, state: .approved).map(\.id) }
    }

    /// Runs an approved request, at most once ever: it is decided again, what it is bound to is compared, and it is
    /// marked as executing in the transaction of its intent.
    package func runApproved(_ id: String) async {
        do {
            try await execute(id)
        } catch {
            // Refused because another run has it, or not recordable now; an approved request is tried at next start.
            log.warning(
                "an approved request did not run",
                metadata: ["request": "\(id)", "reason": "\(Self.structured(error).description)"])
        }
        waiters.wake(id)
    }

    private func execute(_ id: String) async throws {
        let request = try store.read { try ApprovalQueue.require($0, id) }
        guard request.state == .approved else { return }
        let started = clock.now()
        guard let agent = agents.agent(named: request.agent) else {
            throw StructuredError(.notFound, "the agent `\(request.agent)` is gone")
        }
        let session =
            sessions.session(request.session)
            ?? Session(
                id: request.session, agent: agent.name, via: "approval", tokenHash: nil, startedAt: request.requestedAt,
                lastSeenAt: started, calls: 0, storedAt: started)
        let caller = Caller(agent: agent, session: session, storeSession: false)
        let callRequest = CallRequest(capability: request.capability, arguments: request.arguments)
        var record = CallRecord(caller: caller, request: callRequest, started: started)
        record.approval = id
        let prepared: Prepared
        let capability: AnyCapability
        do {
            guard agent.status == .active, !agent.isSuspended else {
                throw StructuredError(
                    .approvalRefused, "the agent `\(agent.name)` is \(agent.isSuspended ? "suspended" : "revoked")")
            }
            prepared = try prepare(callRequest, caller)
            record.prepared = prepared
            let policy = policy
            let decision = policy.compiled.decide(prepared.facts)
            record.decision = (decision, policy)
            if decision.tier == .blocked { throw blocked(decision, policy.compiled, prepared) }
            guard let found = Capabilities.implementation(at: prepared.index) else {
                throw StructuredError(.capabilityUnavailable, "\(request.capability) is not part of this version")
            }
            capability = found
            try compare(request, prepared, try found.binding(prepared.arguments, try context(caller)))
            try requireSound()
        } catch {
            let cause = Self.structured(error)
            // A full disk or a lost key is no change of what was approved: the request stays approved.
            if cause.kind == .storageFull || cause.kind == .unavailable { throw cause }
            try await refuse(id, cause, record)
            return
        }
        let intent = try await write(record.body(.intent, outcome: nil, self), record) { [audit] tx in
            try ApprovalQueue.begin(tx, id, intent: audit.lastAppended)
        }
        let context = try context(caller)
        let clock = clock
        _ = await finishEffect(capability, prepared.arguments, context, record, intent: intent) { tx, result in
            switch result {
            case .success(let data):
                try ApprovalQueue.finish(tx, id, .succeed, result: ["data": .object(data)], now: clock.now())
            case .failure(let error):
                try ApprovalQueue.finish(tx, id, .fail, result: ["error": error.json], now: clock.now())
            }
        }
    }

    /// What was approved is what runs: paths must lead where they led, and bound files be the same.
    private func compare(_ request: ApprovalRequest, _ prepared: Prepared, _ binding: JSONObject)
        throws(StructuredError)
    {
        guard prepared.arguments != request.arguments || binding != request.binding else { return }
        func changes(_ before: JSONObject, _ now: JSONObject, _ prefix: String) -> [JSONValue] {
            Set(before.keys).union(now.keys).sorted().compactMap { key -> JSONValue? in
                before[key] == now[key]
                    ? nil
                    : [
                        "what": .string(prefix + key), "approved": before[key] ?? .null, "now": now[key] ?? .null,
                    ]
            }
        }
        let differences =
            changes(redactor.redact(request.arguments), redactor.redact(prepared.arguments), "")
            + changes(request.binding["files"]?.object ?? [:], binding["files"]?.object ?? [:], "content of ")
        throw StructuredError(
            .approvalRefused, "what was approved is not what would run: \(JSONValue.array(differences).canonicalText)",
            agent: "Something your approved call depends on changed before it ran, so it was refused.",
            recovery: ["Call again to have the new state approved."],
            context: ["differences": .array(differences)])
    }

    private func refuse(_ id: String, _ cause: StructuredError, _ record: CallRecord) async throws {
        let error = StructuredError(
            .approvalRefused, "\(id) was approved and then refused: \(cause.description)",
            agent: cause.agentDescription,
            recovery: cause.recoveryActions.isEmpty ? ["Call again if it is still needed."] : cause.recoveryActions,
            context: cause.context.adding([("request_id", .string(id)), ("cause", .string(cause.kind.rawValue))]))
        let now = clock.now()
        try await write(record.body(.approval, outcome: .refused, self, error: error), record) { tx in
            try ApprovalQueue.finish(tx, id, .refuse, result: ["error": error.json], now: now)
        }
    }

    // MARK: Waiting

    /// A request of the caller's, once it has ended or `seconds` are over; the same answer every time after its end.
    package func approval(_ id: String, of caller: Caller, waitSeconds seconds: Double) async throws -> ApprovalRequest
    {
        let store = store
        func current() throws -> ApprovalRequest {
            guard let request = try store.read({ try ApprovalQueue.find($0, id) }),
                request.agent == caller.agent.name.text
            else { throw Self.notYours(id) }
            return request
        }
        let request = try current()
        if request.state.isFinal || seconds <= 0 { return request }
        await waiters.wait(for: id, seconds: seconds) {
            // An unreadable store ends the wait, and the read below says why.
            (try? store.read { try ApprovalQueue.find($0, id)?.state.isFinal }) ?? true
        }
        return try current()
    }

    /// A request as an agent sees it.
    package static func json(forAgent request: ApprovalRequest) -> JSONObject {
        var json: JSONObject = [
            "request_id": .string(request.id), "state": .string(request.state.rawValue),
            "capability": .string(request.capability), "requested_at": .string(request.requestedAt.rfc3339),
        ]
        if let at = request.decidedAt { json["decided_at"] = .string(at.rfc3339) }
        if let reason = request.decisionReason { json["reason"] = .string(reason) }
        if let data = request.result?["data"] { json["data"] = data }
        if let error = request.result?["error"] { json["error"] = error }
        return json
    }

    /// The reply to a call whose request has ended; nil while it has not.
    package static func reply(of request: ApprovalRequest) -> CallReply? {
        guard request.state.isFinal else { return nil }
        if let data = request.result?["data"]?.object {
            return .succeeded(data, tier: .approvalRequired, seq: request.intent ?? 0)
        }
        if let error = request.result?["error"].flatMap(StructuredError.init(json:)) { return .failed(error) }
        return .failed(StructuredError(.outcomeUnknown, "\(request.id) is \(request.state.rawValue) without a result"))
    }
}

extension JSONObject {
    func adding(_ members: [(String, JSONValue)]) -> JSONObject {
        var copy = self
        for (key, value) in members { copy[key] = value }
        return copy
    }
}
