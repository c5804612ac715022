import Dispatch
package import KruxApprovals
import KruxAudit
import KruxCapabilities
package import KruxCore
import KruxCrypto
import KruxPolicy
import KruxRegistry
import KruxStore
import Logging
import Synchronization

extension Engine {
    /// Queues a call and returns the error that tells the agent so.
    func requestApproval(
        _ capability: AnyCapability, _ prepared: Prepared, _ decision: Decision, _ policy: ActivePolicy,
        _ caller: Caller, _ record: CallRecord
    ) async throws -> StructuredError {
        let asked = try await looking { [self] in
            try question(capability, prepared, decision, policy, caller)
        }
        var new = ApprovalQueue.NewRequest(
            agent: caller.agent.name.text, session: caller.session.id, capability: prepared.declaration.name.text,
            arguments: prepared.arguments, binding: asked.binding, bindingDigest: asked.bindingDigest.bytes,
            decision: asked.decision, now: record.started)
        new.purpose = record.request.purpose.map { redactor.scrub($0) }
        new.shown = asked.shown
        new.terms = decision.terms.compactMap { policy.compiled.rules[Int($0)].approval }
        new.kin = kin(prepared)
        let id = try await enqueue(new, record, most: policy.compiled.maxPending(ofAgent: new.agent), asked)
        return Self.pending(id, capability: new.capability, reason: asked.decision["reason"]?.string)
    }

    /// A request with its row, announced to whoever watches.
    func enqueue(_ new: ApprovalQueue.NewRequest, _ record: CallRecord, most: Int64, _ asked: Question) async throws
        -> String
    {
        let audit = audit
        let session = record.session
        var template = record.body(.approval, outcome: .pending, self)
        template.members.append(("binding", .object(asked.binding)))
        if let purpose = new.purpose { template.members.append(("purpose", .string(purpose))) }
        if let retry = new.retryOf { template.members.append(("retry_of", .string(retry))) }
        let body = template
        let id = try await store.writer.write { [self] tx in
            if let session { try SessionTable.store(tx, session) }
            let (number, id) = try ApprovalQueue.nextID(tx)
            try ApprovalQueue.insert(tx, new, number: number, id: id, most: most)
            var body = body
            body.request = id
            try audit.append(body.canonicalBytes(), tx)
            try tell(tx, .approval, message(try ApprovalQueue.require(tx, id), now: new.now), request: id, now: new.now)
            return id
        }
        events.publish(
            GateEvent(
                kind: .approval, time: record.started, agent: new.agent, capability: new.capability,
                summary: Capabilities.catalogue[new.capability].map {
                    summarise(redactor.redact(new.arguments), of: $0)
                }
                    ?? "", request: id))
        due.changed()
        deliveriesDue.changed()
        return id
    }

    /// Looks into files where no other call waits for it: a diff or a large folder takes its time.
    func looking<R: Sendable>(_ body: @escaping @Sendable () throws -> R) async throws -> R {
        try await withCheckedThrowingContinuation { continuation in
            Self.lookout.async { continuation.resume(with: Result { try body() }) }
        }
    }
    private static let lookout = DispatchQueue(label: "kruxos.preview", qos: .utility)

    /// What is asked of a person: the decision, what the call is bound to, and what they are shown.
    struct Question: Sendable {
        let decision: JSONObject
        let binding: JSONObject
        let bindingDigest: Digest
        let shown: JSONObject
    }

    func question(
        _ capability: AnyCapability, _ prepared: Prepared, _ decision: Decision, _ policy: ActivePolicy,
        _ caller: Caller
    ) throws -> Question {
        let context = try context(caller, prepared, decision)
        let binding = try capability.binding(prepared.arguments, context)
        var shown: JSONObject
        do throws(StructuredError) {
            shown = redactor.scrub(.object(try capability.preview(prepared.arguments, context).json)).object ?? [:]
        } catch {
            // A look that fails tells what the call would meet, too.
            shown = ["effect": .string(redactor.scrub("It would fail now: \(error.description)"))]
        }
        let segments = verdicts(prepared, policy.compiled)
        if !segments.isEmpty { shown["segments"] = .array(segments) }
        return Question(
            decision: decision.json(policy.compiled).adding([
                ("policy", .string(policy.compiled.active.name)), ("digest", .string(policy.digest.hex)),
            ]), binding: binding, bindingDigest: bindingDigest(prepared, caller, binding), shown: shown)
    }

    /// Each command of a shell's line with what policy says of it alone: `[{text, tier, source?, reason?}]`.
    private func verdicts(_ prepared: Prepared, _ policy: CompiledPolicy) -> [JSONValue] {
        guard let text = prepared.shellText, let segments = ShellText.parse(text), segments.count > 1 else { return [] }
        let bytes = Array(text.utf8)
        return segments.map { segment in
            let part = String(decoding: bytes[segment.range], as: UTF8.self)
            var facts = prepared.facts
            // What cannot be told of the whole, such as a variable that decides what is loaded, holds for each part.
            facts.lines = CommandLine.commands(ofShellText: part) + (prepared.hasRiskyVariables ? [.opaque] : [])
            let decision = policy.decide(facts).json(policy)
            var verdict: JSONObject = ["text": .string(redactor.scrub(part)), "tier": decision["tier"] ?? .null]
            for key in ["source", "reason"] { if let value = decision[key] { verdict[key] = value } }
            return .object(verdict)
        }
    }

    /// Equal for requests that a person would answer alike: the same command line; files of one kind in one folder; the
    /// same host, key and recipients' domains.
    func kin(_ prepared: Prepared) -> String {
        let facts = prepared.facts
        var parts = [facts.agent, prepared.declaration.name.text]
        for line in facts.lines {
            if case .words(let words, _) = line {
                parts.append(CommandLine.joined(words))
            } else {
                // What cannot be told is like nothing but itself.
                parts.append(prepared.arguments.canonicalText)
            }
        }
        parts += facts.paths.map { path in
            let components = String(decoding: path, as: UTF8.self).pathComponents
            let name = components.last ?? ""
            // A name that begins with a dot, or a folder as a whole, is like nothing else.
            let isPlain = !name.hasPrefix(".") && !facts.reachesBelow
            let kind = isPlain ? name.lastIndex(of: ".").map { String(name[$0...]) } ?? "" : name
            return components.dropLast().joined(separator: "/") + "/ " + kind
        }
        parts += [facts.host, facts.key].compactMap { $0 } + facts.recipients.map { $0.domain ?? $0.text }
        return sha256(Array(JSONValue.strings(parts).canonicalText.utf8)).hex
    }

    /// The hash of all that a request is bound to.
    func bindingDigest(_ prepared: Prepared, _ caller: Caller, _ binding: JSONObject) -> Digest {
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

    // MARK: The agent's own

    /// Withdraws a pending request of the agent itself.
    package func cancelApproval(_ id: String, by caller: Caller) throws -> ApprovalRequest {
        let now = clock.now()
        try endOverdue(at: now)
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

    /// The agent's own requests: those that wait or run, or all of the last ones; newest first.
    package func approvals(of caller: Caller, all: Bool, limit: Int64) throws -> [ApprovalRequest] {
        let name = caller.agent.name.text
        try endOverdue(at: clock.now())
        return try store.read { try ApprovalQueue.list(ofAgent: $0, name, all: all, limit: limit) }
    }

    /// Requests as a supervisor sees them, oldest first: those that wait, or the newest of all.
    package func supervisedApprovals(all: Bool, agent: String?, limit: Int64) throws -> JSONObject {
        try endOverdue(at: clock.now())
        let requests = try store.read { tx in
            try ApprovalQueue.list(tx, state: all ? nil : .pending, agent: agent, newest: limit)
        }
        return ["approvals": .array(requests.map { .object(Self.json(forSupervisor: $0, redactor)) })]
    }

    /// - Throws: `StructuredError` `.notFound`.
    package func supervisedApproval(_ id: String) throws -> JSONObject {
        let (request, votes) = try store.read { (try ApprovalQueue.require($0, id), try ApprovalQueue.votes($0, id)) }
        return Self.json(forSupervisor: request, redactor, votes: votes)
    }

    // MARK: Execution

    /// Requests that were approved and have not run: at start-up, what was decided while the gateway was down.
    package func approvedRequests() throws -> [String] {
        try store.read { try ApprovalQueue.ids($0, state: .approved) }
    }

    /// Runs an approved request, at most once ever: it is decided again, what it is bound to is compared, and it is
    /// marked as executing in the transaction of its intent.
    package func runApproved(_ id: String) async {
        do {
            try await execute(id)
        } catch {
            let cause = Self.structured(error)
            if cause.kind == .storageFull || cause.kind == .unavailable {
                // Nothing was begun; it is tried until it can be, here or after the next start.
                Task { [self] in
                    try await Task.sleep(for: .seconds(5))
                    if !isDraining.withLock({ $0 }) { await runApproved(id) }
                }
            }
            // Else refused because another run has it.
            log.warning(
                "an approved request did not run",
                metadata: ["request": "\(id)", "reason": "\(Self.structured(error).description)"])
        }
        waiters.wake(id)
    }

    private func execute(_ id: String) async throws {
        let request = try store.read { try ApprovalQueue.require($0, id) }
        guard request.state == .approved else { return }
        let caller = try caller(of: request)
        let agent = caller.agent
        let callRequest = CallRequest(capability: request.capability, arguments: request.arguments)
        var record = CallRecord(caller: caller, request: callRequest, started: clock.now())
        record.approval = id
        let prepared: Prepared
        let capability: AnyCapability
        let context: CallContext
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
            context = try self.context(caller, prepared, decision)
            if decision.tier == .blocked { throw blocked(decision, policy.compiled, prepared) }
            capability = try implementation(prepared)
            let (found, callContext) = (capability, context)
            try compare(request, prepared, try await looking { try found.binding(prepared.arguments, callContext) })
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
        // An earlier version bound less; what it bound must be the same.
        let holds = request.binding.members.allSatisfy { binding[$0.key] == $0.value }
        if prepared.arguments == request.arguments, holds { return }
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
            + (request.binding["files"]?.object.map {
                changes($0, binding["files"]?.object ?? [:], "content of ")
            } ?? [])
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
        if let at = request.finishedAt { json["finished_at"] = .string(at.rfc3339) }
        if let reason = request.decisionReason { json["reason"] = .string(reason) }
        if let at = request.expiresAt, request.state == .pending { json["expires_at"] = .string(at.rfc3339) }
        if let retry = request.retryOf { json["retry_of"] = .string(retry) }
        // What runs is not what was asked for: the agent must know.
        if request.original != nil { json["changed_arguments"] = .object(request.arguments) }
        if let refused = request.shown["refused_segments"] { json["refused_segments"] = refused }
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
