import Foundation
import KruxApprovals
import KruxAudit
package import KruxCapabilities
package import KruxCore
import KruxCrypto
import KruxPolicy
import KruxRegistry
import KruxSandbox
import KruxStore
import Logging
import Synchronization

extension Engine {
    /// The agent a token belongs to, with its session. Nil for no active agent's token.
    package func authenticate(token: String, via: String) -> Caller? {
        agents.authenticate(token).map { caller($0, via: via) }
    }

    /// An agent by name, for the owner of the machine at the command line.
    /// - Throws: `StructuredError` `.notFound`, or `.unauthenticated` for a revoked agent.
    package func caller(agentNamed name: String, via: String) throws -> Caller {
        let record = try agents.agent(named: name) ?? store.read { try AgentTable.require($0, name) }
        guard record.status == .active else {
            throw StructuredError(
                .unauthenticated, "the agent `\(name)` is revoked",
                recovery: ["Bring it back with `kruxos agent restore \(name)`."])
        }
        guard !record.isSuspended else {
            throw StructuredError(
                .unauthenticated, "the agent `\(name)` is suspended since a backup was restored",
                recovery: ["Let it go on with `kruxos agent resume \(name)`."])
        }
        return caller(record, via: via)
    }

    private func caller(_ record: AgentRecord, via: String) -> Caller {
        let (session, store) = sessions.touch(record, via: via, now: clock.now())
        return Caller(agent: record, session: session, storeSession: store)
    }

    /// A call that has been validated, with what the record and the decision need of it.
    struct Prepared {
        let index: Int
        let declaration: CapabilityDeclaration
        /// Canonical: defaults filled in, paths resolved.
        let arguments: JSONObject
        var facts: CallFacts
    }

    /// One call, from text to recorded end. Nothing runs before it is decided, nothing is answered before it is
    /// recorded.
    package func call(_ request: CallRequest, by caller: Caller) async -> CallReply {
        let started = clock.now()
        var record = CallRecord(caller: caller, request: request, started: started)
        do {
            var prepared = try prepare(request, caller)
            record.prepared = prepared
            let policy = policy
            var decided = try decide(prepared.facts, policy.compiled)
            if let granted = try granted(prepared, decided, policy.compiled, caller) {
                (decided, record.grant) = (granted.decided, granted.grant)
                prepared.facts.grant = true
                record.prepared = prepared
            }
            let decision = decided.decision
            record.decision = (decision, policy)
            record.standings = decided.standings
            record.reservation = decided.reservation
            switch decision.tier {
            case .blocked: throw blocked(decision, policy.compiled, prepared, decided.standings)
            case .approvalRequired:
                let capability = try implementation(prepared)
                let pending = try await requestApproval(capability, prepared, decision, policy, caller, record)
                return .failed(
                    decision.cause == .rateLimit
                        ? rateLimited(decision, policy.compiled, prepared, decided.standings, pending) : pending)
            case .autonomous, .notify:
                let capability = try implementation(prepared)
                return try await run(capability, prepared, decision, caller, record)
            }
        } catch {
            let failure = Self.structured(error)
            // What could not be recorded is not answered as if it were: the storage's own error is the answer then.
            do {
                try await write(record.body(.outcome, outcome: record.outcome(failure), self, error: failure), record)
                return .failed(failure)
            } catch {
                return .failed(Self.structured(error))
            }
        }
    }

    /// A call that names a capability and is malformed otherwise gets its row, too.
    package func refuse(malformed error: StructuredError, capability: String, by caller: Caller) async
        -> StructuredError
    {
        let request = CallRequest(capability: capability, arguments: [:])
        let record = CallRecord(caller: caller, request: request, started: clock.now())
        do {
            try await write(record.body(.outcome, outcome: .failed, self, error: error), record)
            return error
        } catch {
            return Self.structured(error)
        }
    }

    // MARK: Steps

    func prepare(_ request: CallRequest, _ caller: Caller) throws(StructuredError) -> Prepared {
        let catalogue = Capabilities.catalogue
        guard let index = catalogue.index(of: request.capability) else {
            let hint = nearest(to: request.capability, among: catalogue.names).map { "Did you mean `\($0)`?" }
            throw StructuredError(
                .unknownCapability, "there is no capability `\(request.capability.prefix(128))`",
                recovery: [hint, "Call agent.capabilities to see what there is."].compactMap { $0 })
        }
        let declaration = catalogue.declarations[index]
        var (arguments, violations) = declaration.input.validate(request.arguments)
        guard violations.isEmpty else {
            let shown = violations.prefix(20).map { "\($0.pointer) \($0.message)" }
            throw StructuredError(
                .invalidArguments, "arguments of \(declaration.name) do not fit: \(shown.joined(separator: "; "))",
                recovery: ["Correct the arguments named and call again."],
                context: [
                    "violations": .array(
                        violations.prefix(20).map { ["pointer": .string($0.pointer), "message": .string($0.message)] })
                ])
        }
        for property in declaration.input.properties {
            let followsLast: Bool
            switch property.role {
            case .path(let follows, _): followsLast = follows
            case .workingDirectory: followsLast = true
            default: continue
            }
            guard let text = arguments[property.name]?.string else { continue }
            let path = try workspace(caller.agent.name).canonicalise(text, followsLast: followsLast)
            arguments[property.name] = .string(path.absolute)
        }
        if let resolve = Capabilities.implementation(at: index)?.resolve {
            arguments = try resolve(arguments, try workspace(caller.agent.name))
        }
        let now = clock.now()
        var facts = CallFacts(
            agent: caller.agent.name.text, capability: index, declaration: declaration, arguments: arguments, time: now)
        facts.role = caller.agent.role
        facts.mode = caller.session.mode ?? caller.agent.mode
        facts.session = .init(
            label: caller.session.label,
            ageSeconds: max(0, (now.microseconds - caller.session.startedAt.microseconds) / 1_000_000),
            calls: max(0, caller.session.calls - 1))
        return Prepared(index: index, declaration: declaration, arguments: arguments, facts: facts)
    }

    /// A decision with what its rate limits had to say.
    struct Decided {
        let decision: Decision
        let standings: [RateWindows.Standing]
        /// The call as it is counted, to be stored with its first row.
        let reservation: RateWindows.Reservation?
    }

    /// Decides, and counts the call in its rate windows when it runs without approval, as one step.
    func decide(_ facts: CallFacts, _ policy: CompiledPolicy) throws -> Decided {
        let decision = policy.decide(facts)
        if decision.limits.isEmpty { return Decided(decision: decision, standings: [], reservation: nil) }
        let limits = decision.limits.compactMap { index -> RateWindows.Limit? in
            let rule = policy.rules[Int(index)]
            return rule.rateLimit.map { RateWindows.Limit(window: rule.window(of: facts.agent), limit: $0) }
        }
        func limited(_ standings: [RateWindows.Standing]) -> Decision {
            policy.limited(decision) { index in
                decision.limits.firstIndex(of: index).map { standings[$0].isFull } ?? false
            }
        }
        let (standings, reservation) = try windows.admit(limits, store: store) { limited($0).tier <= .notify }
        return Decided(decision: limited(standings), standings: standings, reservation: reservation)
    }

    /// The decision with a grant that answers what would be asked; nil when none does.
    private func granted(_ prepared: Prepared, _ decided: Decided, _ policy: CompiledPolicy, _ caller: Caller) throws
        -> (decided: Decided, grant: Grant)?
    {
        let decision = decided.decision
        guard decision.tier == .approvalRequired, decision.cause != .rateLimit, policy.grantsAllowed else { return nil }
        let terms = decision.terms.compactMap { policy.rules[Int($0)].approval }
        guard
            let grant = grants.take(
                prepared.facts, capability: prepared.declaration.name.text, session: caller.session.id, terms: terms,
                policy)
        else { return nil }
        var facts = prepared.facts
        facts.grant = true
        do {
            let again = try decide(facts, policy)
            // A lock, or a full window.
            if again.decision.tier <= .notify { return (again, grant) }
        } catch {
            grants.release(grant)
            throw error
        }
        grants.release(grant)
        return nil
    }

    func implementation(_ prepared: Prepared) throws(StructuredError) -> AnyCapability {
        if let capability = Capabilities.implementation(at: prepared.index) { return capability }
        throw StructuredError(
            .capabilityUnavailable, "\(prepared.declaration.name) is declared but not part of this version",
            recovery: ["Call agent.capabilities to see what can be called."],
            context: ["capability": .string(prepared.declaration.name.text)])
    }

    func blocked(
        _ decision: Decision, _ policy: CompiledPolicy, _ prepared: Prepared, _ standings: [RateWindows.Standing] = []
    ) -> StructuredError {
        if decision.cause == .rateLimit { return rateLimited(decision, policy, prepared, standings, nil) }
        var context = decision.json(policy)
        context["capability"] = .string(prepared.declaration.name.text)
        var reason = context["reason"]?.string
        var text = "\(prepared.declaration.name) is blocked"
        switch decision.cause {
        case .mode:
            text += ": \(prepared.facts.agent) is in `\(decision.mode.rawValue)` mode"
            reason = "You are in `\(decision.mode.rawValue)` mode, which allows only what changes nothing."
        case .broken: text += ": the agent's own policy does not compile"
        case .noRule: text += ": no rule allows it"
        case .rule, .grant, .rateLimit:
            if let source = context["source"]?.string { text += " by \(source)" }
            if let reason { text += ": \(reason)" }
        }
        return StructuredError(
            .blocked, text, agent: reason ?? "This is not allowed for you, and asking again will not change it.",
            recovery: [
                "Find another way: call agent.capabilities to see what you may do.",
                "Tell your supervisor if you need this; they can change the policy.",
            ], context: context)
    }

    /// The answer to a call over a rate limit: refused until the window has room, or waiting for a person.
    /// - Parameter pending: the answer that names the request, when the limit asks for approval.
    private func rateLimited(
        _ decision: Decision, _ policy: CompiledPolicy, _ prepared: Prepared, _ standings: [RateWindows.Standing],
        _ pending: StructuredError?
    ) -> StructuredError {
        let full = standings.filter(\.isFull)
        let wait = full.map(\.retryAfterMicroseconds).max() ?? 0
        let seconds = max(1, (wait + 999_999) / 1_000_000)
        var context = decision.json(policy)
        context["capability"] = .string(prepared.declaration.name.text)
        if let request = pending?.context["request_id"] { context["request_id"] = request }
        if let rule = decision.rule.map({ policy.rules[$0] }), let limit = rule.rateLimit {
            context["max"] = .int(limit.max)
            context["window_seconds"] = .int(limit.windowSeconds)
        }
        let text =
            "\(prepared.declaration.name) has used up its rate limit, by \(context["source"]?.string ?? "policy")"
        return StructuredError(
            .rateLimited, pending.map { "\(text); \($0.description)" } ?? text,
            agent: "You have called this as often as you may for now; there is room again in \(seconds) s."
                + (pending.map { " " + $0.agentDescription } ?? ""),
            recovery: (pending?.recoveryActions ?? []) + ["Call again in \(seconds) seconds."], retryable: true,
            retryAfter: seconds, context: context)
    }

    private func run(
        _ capability: AnyCapability, _ prepared: Prepared, _ decision: Decision, _ caller: Caller, _ record: CallRecord
    ) async throws -> CallReply {
        let context = try context(caller, prepared, decision)
        if case .change(let change) = capability.work {
            return try await self.change(change, prepared, decision, context, record)
        }
        if prepared.declaration.effect == .read {
            let data = try await perform(capability, prepared.arguments, context)
            let seq = try await write(
                record.body(.outcome, outcome: .succeeded, self, result: data), record, notify: decision.tier == .notify
            )
            return .succeeded(data, tier: decision.tier, seq: seq)
        }
        try requireSound()
        let intent = try await write(record.body(.intent, outcome: nil, self), record)
        let end = await finishEffect(capability, prepared.arguments, context, record, intent: intent)
        switch end {
        case .success(let (data, seq)): return .succeeded(data, tier: decision.tier, seq: seq)
        case .failure(let error): return .failed(error)
        }
    }

    /// What must hold before an effect begins, so that its outcome can be recorded.
    func requireSound() throws(StructuredError) {
        if let trouble = audit.trouble {
            throw StructuredError(
                .unavailable, "no effect begins: \(trouble.text)",
                agent: "The gate's signing key or its folder is not in order, so nothing that changes anything is run.",
                recovery: ["Wait until your supervisor has mended it."], retryable: true, retryAfter: 5)
        }
        guard home.freeBytes >= Self.reservedBytes else {
            throw StructuredError(
                .storageFull, "less than 64 MiB of disk is free, so no effect begins",
                agent: "The machine's disk is nearly full, so nothing that changes anything is run.",
                recovery: ["Wait until your supervisor has freed some space."], retryable: true, retryAfter: 60)
        }
    }

    /// Runs what an intent has announced and records how it ended.
    func finishEffect(
        _ capability: AnyCapability, _ arguments: JSONObject, _ context: CallContext, _ record: CallRecord,
        intent: Int64, also: (@Sendable (WriteTx, Result<JSONObject, StructuredError>) throws -> Void)? = nil
    ) async -> Result<(JSONObject, Int64), StructuredError> {
        if case .change(let change) = capability.work {
            // With its outcome, and the end of the request it was approved by.
            do {
                let (seq, result) = try await write(
                    record, isFirst: false, isTold: record.tier == .notify, notice: try change.notice(arguments),
                    also: also, applying(change, arguments, context, record, intent: intent))
                stateChanged()
                return result.map { ($0, seq) }
            } catch {
                // Nothing of it has happened; that is recorded like any other end.
                return await recordEnd(.failure(Self.structured(error)), record, intent: intent, also: also)
            }
        }
        var context = context
        context.nested = nested(record.caller, approval: record.approval)
        context.approval = record.approval
        context.report = { [self] detail in try await report(detail, record, intent: intent) }
        let ready = context
        let progress = CallProgress.current ?? CallProgress()
        let reports = Task { [self] in await reportProgress(progress, record, intent: intent) }
        let result = await CallProgress.$current.withValue(progress) { () -> Result<JSONObject, StructuredError> in
            do throws(StructuredError) { return .success(try await perform(capability, arguments, ready)) } catch {
                return .failure(error)
            }
        }
        reports.cancel()
        return await recordEnd(result, record, intent: intent, also: also)
    }

    /// Records how an effect ended, now or as soon as that is possible.
    private func recordEnd(
        _ result: Result<JSONObject, StructuredError>, _ record: CallRecord, intent: Int64,
        also: (@Sendable (WriteTx, Result<JSONObject, StructuredError>) throws -> Void)?
    ) async -> Result<(JSONObject, Int64), StructuredError> {
        let failure: StructuredError? = if case .failure(let error) = result { error } else { nil }
        let data = try? result.get()
        var body = record.body(
            .outcome, outcome: failure == nil ? .succeeded : .failed, self, error: failure, result: data)
        body.intent = intent
        do {
            let seq = try await write(body, record, notify: record.tier == .notify) { tx in try also?(tx, result) }
            return result.map { ($0, seq) }
        } catch {
            // The effect has happened and cannot be recorded now. It is as soon as that is possible; after a stop the next
            // start records it as unknown.
            let outcome = body
            unrecorded.withLock { $0 += 1 }
            Task { [self] in
                while !isDraining.withLock({ $0 }) {
                    do {
                        try await Task.sleep(for: .seconds(1))
                        try await write(outcome, record) { tx in try also?(tx, result) }
                        unrecorded.withLock { $0 -= 1 }
                        if let request = record.approval { waiters.wake(request) }
                        return
                    } catch {
                        log.debug("an outcome still cannot be recorded", metadata: ["intent": "\(intent)"])
                    }
                }
            }
            log.critical(
                "an outcome could not be recorded",
                metadata: ["intent": "\(intent)", "reason": "\(Self.structured(error).description)"])
            return .failure(
                StructuredError(
                    .outcomeUnknown, "the call ran, and its outcome could not be recorded: \(error)",
                    recovery: ["Look at what the call was to change before doing it again."],
                    context: ["intent": .int(intent)]))
        }
    }

    /// Appends a row, durable when this returns, with what belongs into the same transaction.
    @discardableResult
    func write(
        _ body: AuditBody, _ record: CallRecord, notify: Bool = false,
        also: (@Sendable (WriteTx) throws -> Void)? = nil
    ) async throws -> Int64 {
        try await write(
            record, isFirst: body.intent == nil, isTold: notify, also: { tx, _ in try also?(tx) }
        ) { _ in (body, ()) }.seq
    }

    /// Appends a row that is made in its own transaction, durable when this returns.
    /// - Parameters:
    ///   - isFirst: nothing of the call has been written yet: its session, its place in rate windows and the use of a
    ///     grant are stored with it.
    ///   - isTold: people are told of the call.
    ///   - notice: people are told this of it, whatever the tier.
    ///   - also: follows the row in its transaction.
    func write<T: Sendable>(
        _ record: CallRecord, isFirst: Bool, isTold: Bool, notice: String? = nil,
        also: (@Sendable (WriteTx, T) throws -> Void)? = nil,
        _ make: @escaping @Sendable (WriteTx) throws -> (AuditBody, T)
    ) async throws -> (seq: Int64, made: T) {
        let audit = audit
        // An outcome's session was stored with its intent.
        let session = isFirst ? record.session : nil
        let reservation = isFirst ? record.reservation : nil
        let grant = isFirst ? record.grant : nil
        let seq: Int64
        let made: T
        let event: GateEvent?
        do {
            (seq, made, event) = try await store.writer.write { [self] tx in
                let (body, made) = try make(tx)
                if let session { try SessionTable.store(tx, session) }
                if let reservation { try RateWindows.store(tx, reservation) }
                if let grant { try GrantTable.use(tx, grant.id, now: body.time) }
                let seq = try audit.append(body.canonicalBytes(), tx)
                let outcome = body.outcome?.rawValue ?? ""
                var event = isTold || notice != nil ? record.event(body) : nil
                if let notice { event?.summary = redactor.scrub(notice) }
                if let event {
                    try tx.execute(
                        "INSERT INTO notifications (seq, time, agent, capability, outcome, summary) VALUES (?, ?, ?, ?, ?, ?)",
                        [
                            .int(seq), .int(event.time.microseconds), .text(event.agent), .text(event.capability),
                            .text(outcome), .text(event.summary),
                        ])
                    try tell(
                        tx, .notification,
                        [
                            "time": .string(event.time.rfc3339), "agent": .string(event.agent),
                            "capability": .string(event.capability), "summary": .string(event.summary),
                            "outcome": .string(outcome),
                        ], request: nil, now: event.time)
                }
                try also?(tx, made)
                return (seq, made, event)
            }
        } catch {
            // Not recorded, so it does not run, and does not count.
            if let reservation { windows.release(reservation) }
            if let grant { grants.release(grant) }
            throw error
        }
        if let reservation { windows.written(reservation) }
        if let event {
            events.publish(event)
            if policy.compiled.notifiers.contains(where: { $0.events.contains(.notification) }) {
                deliveriesDue.changed()
            }
        }
        return (seq, made)
    }

    /// - Parameter decision: says which box a process of the call is put into.
    func context(_ caller: Caller, _ prepared: Prepared, _ decision: Decision) throws(StructuredError) -> CallContext {
        let compiled = policy.compiled
        return CallContext(
            agent: caller.agent.name, workspace: try workspace(caller.agent.name), clock: clock,
            host: HostServices(
                version: Self.version,
                agent: {
                    HostServices.AgentProfile(
                        name: caller.agent.name.text, purpose: caller.agent.purpose, createdAt: caller.agent.createdAt)
                },
                session: {
                    HostServices.SessionProfile(
                        id: caller.session.id, via: caller.session.via, startedAt: caller.session.startedAt,
                        calls: caller.session.calls)
                },
                policy: { [self] in
                    let compiled = policy.compiled
                    return HostServices.PolicyProfile(
                        name: compiled.active.name, digest: policy.digest.hex,
                        description: compiled.active.description)
                },
                offers: { [self] in offers(to: caller) }, health: { [self] in health },
                secrets: { [self] () throws(StructuredError) in try secrets(of: caller.agent.name) },
                timeZone: { TimeZones.table($0) },
                holdMail: { [self] account, mail, seconds, approval async throws(StructuredError) in
                    try await holdMail(account, mail, seconds, approval, caller)
                },
                cancelMail: { [self] id async throws(StructuredError) in
                    try await cancelMail(id, caller.agent.name)
                }),
            confinement: Confinement(
                settings: decision.sandbox, home: home.root, group: group(of: caller.agent.name.text)),
            protected: ProtectedNames(compiled.protected), protectedFiles: try protectedFiles(caller.agent.name),
            processes: processes, processEnded: { [self] in await processEnded($0, caller) },
            scrub: { [redactor] in redactor.scrub($0) },
            redecide: { [self] changes throws(StructuredError) in
                let arguments = prepared.arguments.adding(changes.members.map { ($0.key, $0.value) })
                let again = try prepare(
                    CallRequest(capability: prepared.declaration.name.text, arguments: arguments), caller)
                let compiled = policy.compiled
                let decision = compiled.decide(again.facts)
                return CallContext.Redecision(
                    tier: decision.tier, sandbox: decision.sandbox, reason: decision.json(compiled)["reason"]?.string)
            },
            secret: { [self] name, address throws(StructuredError) in
                try secret(
                    name, for: caller.agent.name, capability: prepared.declaration.name.text, to: address)
            }, nested: nested(caller, approval: nil), hiding: { [redactor] in redactor.hidingValues($0) })
    }

    /// What an agent may call in some way, by name.
    package func offers(to caller: Caller) -> [HostServices.Offer] {
        let compiled = policy.compiled
        let now = clock.now()
        return Capabilities.catalogue.declarations.enumerated().compactMap { index, declaration in
            var facts = CallFacts(
                agent: caller.name, capability: index, declaration: declaration, arguments: [:], complete: false,
                time: now)
            facts.role = caller.agent.role
            facts.mode = caller.session.mode ?? caller.agent.mode
            guard Capabilities.implementation(at: index) != nil, !compiled.blocksEveryCall(facts) else { return nil }
            let decision = compiled.decide(facts)
            return HostServices.Offer(
                declaration: declaration, tier: decision.tier, conditional: decision.indeterminate)
        }
    }
}
