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

/// What people say to requests, and what time does to them.
extension Engine {
    /// A supervisor's answer to one request.
    package struct Answer: Sendable {
        package var approve: Bool
        package var reason: String?
        /// Other arguments than the agent's: decided again, and recorded beside them.
        package var arguments: JSONObject?
        /// Of a shell's line the commands that may run, by their place from 1; the others fail where they stand.
        package var segments: [Int]?
        /// The binding digest of what the person looked at, in hexadecimal; another request than that is not answered.
        package var seen: String?

        package init(
            approve: Bool, reason: String? = nil, arguments: JSONObject? = nil, segments: [Int]? = nil,
            seen: String? = nil
        ) {
            self.seen = seen
            self.approve = approve
            self.reason = reason
            self.arguments = arguments
            self.segments = segments
        }
    }

    /// Who a principal is to the terms of rules.
    /// - Throws: `StructuredError` `.blocked` for an agent, by whatever way it came.
    func approver(_ principal: Principal) throws -> Approver {
        guard case .supervisor(let name) = principal else {
            throw StructuredError(.blocked, "agents do not decide requests", recovery: ["Ask a supervisor."])
        }
        let role = try store.read { try SupervisorTable.find($0, name) }.flatMap { $0.revokedAt == nil ? $0.role : nil }
        return Approver(name: name, role: role)
    }

    /// Takes an answer. The request runs when `runApproved` is called with its id and it is approved now; where several
    /// people must agree, it stays pending until they have.
    /// - Throws: `StructuredError` `.conflict` that names who was first and when, `.blocked` for somebody who is not
    ///   asked, or for edited arguments that policy blocks.
    package func decideApproval(_ id: String, _ answer: Answer, by principal: Principal) throws -> ApprovalRequest {
        let person = try approver(principal)
        let now = clock.now()
        try endOverdue(at: now)
        let change = try answer.approve ? edit(id, answer, now: now) : nil
        let termsNow = answer.approve ? currentTerms(id) : []
        let audit = audit
        let redactor = redactor
        let reason = answer.reason
        let request = try store.writer.writeAndWait { tx in
            // The reply carries it: who answers can keep it as an anchor.
            defer { audit.wantCheckpoint() }
            func row(_ request: ApprovalRequest, _ outcome: AuditOutcome, _ more: [(String, JSONValue)]) throws {
                var body = AuditBody(time: now, phase: .approval, principal: principal)
                body.agent = request.agent
                body.session = request.session
                body.capability = request.capability
                body.request = id
                body.outcome = outcome
                body.members =
                    [
                        ("arguments", redactor.recorded(request.arguments)),
                        ("arguments_digest", .string(redactor.digest(request.arguments.canonicalBytes()))),
                        ("decision", .object(request.decision)),
                        ("reason", .optional(reason.map { redactor.scrub($0) })),
                    ] + more
                try audit.append(body.canonicalBytes(), tx)
            }
            guard answer.approve else {
                let rejection: JSONObject = ["error": Self.rejected(id, by: principal, reason: reason).json]
                let request = try ApprovalQueue.decide(
                    tx, id, .reject, by: principal.text, reason: reason, result: rejection, now: now)
                try row(request, .rejected, [])
                return request
            }
            var request = try ApprovalQueue.require(tx, id)
            if let seen = answer.seen, seen != request.bindingDigest.hex {
                throw StructuredError(
                    .conflict, "`\(id)` was changed by somebody else since you looked at it",
                    recovery: ["Look at it again with `kruxos approve show \(id)`."])
            }
            // What was asked under, what the changed call asks for, and what the policy says by now.
            var terms = request.terms
            for more in (change?.terms ?? []) + termsNow where !terms.contains(more) { terms.append(more) }
            if request.state == .pending, !terms.isEmpty, !terms.contains(where: { $0.admits(person) }) {
                throw StructuredError(
                    .blocked,
                    "\(id) is for \(terms.map(\.whom).joined(separator: ", and for ")), and you are \(person.name)",
                    recovery: ["Ask them to answer, or reject it."])
            }
            var more: [(String, JSONValue)] = []
            if let change {
                guard request.arguments == change.from else {
                    throw StructuredError(
                        .conflict, "`\(id)` was changed by somebody else meanwhile",
                        recovery: ["Look at it again with `kruxos approve show \(id)`."])
                }
                try ApprovalQueue.edit(
                    tx, id, arguments: change.arguments, binding: change.question.binding,
                    bindingDigest: change.question.bindingDigest.bytes, decision: change.question.decision,
                    shown: change.question.shown, terms: terms, kin: change.kin)
                more.append(
                    (
                        "edited",
                        [
                            "arguments": redactor.recorded(request.arguments),
                            "arguments_digest": .string(redactor.digest(request.arguments.canonicalBytes())),
                        ]
                    ))
                request = try ApprovalQueue.require(tx, id)
            }
            try ApprovalQueue.vote(tx, id, by: principal.text, reason: reason, now: now)
            let votes = try ApprovalQueue.votes(tx, id)
            let people = try votes.compactMap { vote -> Approver? in
                let name = String(vote.principal.drop { $0 != ":" }.dropFirst())
                let known = try SupervisorTable.find(tx, name)
                // Whoever was shut out since does not count.
                return known?.revokedAt == nil ? Approver(name: name, role: known?.role) : nil
            }
            let missing = terms.map { $0.missing(after: people) }.max() ?? 0
            if votes.count > 1 || missing > 0 {
                more.append(("agreed", .strings(votes.map(\.principal))))
            }
            guard missing == 0 else {
                more.append(("missing", .int(missing)))
                try row(request, .pending, more)
                return request
            }
            request = try ApprovalQueue.decide(
                tx, id, .approve, by: votes.map(\.principal).joined(separator: ", "), reason: reason, result: nil,
                now: now)
            try row(request, .approved, more)
            return request
        }
        if request.state.isFinal { waiters.wake(id) }
        events.publish(
            GateEvent(
                kind: .answered, time: now, agent: request.agent, capability: request.capability,
                summary: "\(id) is \(request.state.rawValue)", request: id))
        due.changed()
        return request
    }

    private static func rejected(_ id: String, by principal: Principal, reason: String?) -> StructuredError {
        StructuredError(
            .approvalRejected, "\(id) was rejected by \(principal.text)" + (reason.map { ": \($0)" } ?? ""),
            agent: "A person rejected this" + (reason.map { ": \($0)" } ?? "."),
            recovery: ["Find another way, or ask what would be acceptable."],
            context: ["request_id": .string(id), "reason": .optional(reason)])
    }

    // MARK: Another call than the agent's

    private struct Change: Sendable {
        let from: JSONObject
        let arguments: JSONObject
        let question: Question
        let terms: [ApprovalTerms]
        let kin: String
    }

    /// The terms under which the request would be asked now; none when it cannot be told, which execution finds out.
    private func currentTerms(_ id: String) -> [ApprovalTerms] {
        do {
            let request = try store.read { try ApprovalQueue.require($0, id) }
            let (prepared, _, _) = try again(request, request.arguments)
            let policy = policy
            return policy.compiled.decide(prepared.facts).terms.compactMap { policy.compiled.rules[Int($0)].approval }
        } catch {
            log.debug(
                "no terms now", metadata: ["request": "\(id)", "reason": "\(Self.structured(error).description)"])
            return []
        }
    }

    /// The call with a person's arguments, decided as if the agent had made it.
    private func edit(_ id: String, _ answer: Answer, now: Timestamp) throws -> Change? {
        guard answer.arguments != nil || answer.segments != nil else { return nil }
        let request = try store.read { try ApprovalQueue.require($0, id) }
        guard request.state == .pending else { return nil }
        var arguments = answer.arguments ?? request.arguments
        var refused: [String] = []
        if let places = answer.segments {
            (arguments, refused) = try taking(places, of: request, arguments)
        }
        let (prepared, capability, caller) = try again(request, arguments)
        guard prepared.arguments != request.arguments else { return nil }
        let policy = policy
        let decision = policy.compiled.decide(prepared.facts)
        if decision.tier == .blocked { throw blocked(decision, policy.compiled, prepared) }
        var question = try question(capability, prepared, decision, policy, caller)
        if !refused.isEmpty {
            question = Question(
                decision: question.decision, binding: question.binding, bindingDigest: question.bindingDigest,
                shown: question.shown.adding([("refused_segments", .strings(refused.map { redactor.scrub($0) }))]))
        }
        return Change(
            from: request.arguments, arguments: prepared.arguments, question: question,
            terms: decision.terms.compactMap { policy.compiled.rules[Int($0)].approval }, kin: kin(prepared))
    }

    private static let changesTheShell: Set<String> = [
        "cd", "pushd", "popd", "umask", "ulimit", "exec", "exit", "return", "wait", "times",
    ]

    private func taking(_ places: [Int], of request: ApprovalRequest, _ arguments: JSONObject) throws -> (
        JSONObject, refused: [String]
    ) {
        guard let declaration = Capabilities.catalogue[request.capability],
            let property = declaration.shellProperty(arguments), let text = arguments[property]?.string,
            let segments = ShellText.parse(text), segments.count > 1
        else {
            throw StructuredError(
                .invalidArguments, "\(request.id) has no commands that could be answered one by one",
                recovery: ["Approve or reject it as a whole, or edit it with `--edit`."])
        }
        guard !places.isEmpty, places.allSatisfy({ (1...segments.count).contains($0) }) else {
            throw StructuredError(
                .invalidArguments, "the commands of \(request.id) are 1 to \(segments.count)",
                recovery: ["See them with `kruxos approve show \(request.id)`; to take none, reject it."])
        }
        let out = Set(segments.indices).subtracting(places.map { $0 - 1 })
        // Without it the others would run somewhere else, or in another way.
        for place in out where Self.changesTheShell.contains(segments[place].words.first ?? "") {
            throw StructuredError(
                .invalidArguments,
                "`\(segments[place].words.joined(separator: " "))` changes how the other commands run",
                recovery: ["Approve it with them, reject the whole, or edit it with `--edit`."])
        }
        guard let rest = ShellText.text(text, failing: out) else {
            throw StructuredError(.internalError, "the line of \(request.id) cannot be taken apart")
        }
        let bytes = Array(text.utf8)
        var changed = arguments
        changed[property] = .string(rest)
        return (changed, out.sorted().map { String(decoding: bytes[segments[$0].range], as: UTF8.self) })
    }

    /// A request's agent in the session it asked in, also when that is over.
    func caller(of request: ApprovalRequest) throws -> Caller {
        guard let agent = agents.agent(named: request.agent) else {
            throw StructuredError(.notFound, "the agent `\(request.agent)` is gone")
        }
        let session =
            sessions.session(request.session)
            ?? Session(
                id: request.session, agent: agent.name, via: "approval", tokenHash: nil, startedAt: request.requestedAt,
                lastSeenAt: clock.now(), calls: 0, storedAt: clock.now())
        return Caller(agent: agent, session: session, storeSession: false)
    }

    /// A request's call prepared anew, as its agent would make it now.
    private func again(_ request: ApprovalRequest, _ arguments: JSONObject) throws -> (Prepared, AnyCapability, Caller)
    {
        let caller = try caller(of: request)
        let prepared = try prepare(CallRequest(capability: request.capability, arguments: arguments), caller)
        return (prepared, try implementation(prepared), caller)
    }

    // MARK: Once more

    /// Asks again for a call that may or may not have run; what is known of it is shown with the new request. Nothing
    /// runs until that is approved.
    func retryApproval(_ id: String, by principal: Principal) async throws -> JSONObject {
        _ = try approver(principal)
        let request = try store.read { try ApprovalQueue.require($0, id) }
        guard [.unknown, .failed, .refused, .expired].contains(request.state) else {
            throw StructuredError(
                .conflict, "`\(id)` is \(request.state.rawValue); only what did not surely succeed is asked again",
                recovery: ["See it with `kruxos approve show \(id)`."])
        }
        if let later = try store.read({ try ApprovalQueue.retry(of: $0, id) }) {
            throw StructuredError(
                .conflict, "`\(id)` is asked again as `\(later)` already",
                recovery: ["Answer that with `kruxos approve show \(later)`."])
        }
        let (prepared, capability, caller) = try again(request, request.arguments)
        guard caller.agent.status == .active, !caller.agent.isSuspended else {
            throw StructuredError(
                .blocked, "the agent `\(request.agent)` is \(caller.agent.isSuspended ? "suspended" : "revoked")",
                recovery: ["See `kruxos agent list`."])
        }
        let policy = policy
        let decision = policy.compiled.decide(prepared.facts)
        if decision.tier == .blocked { throw blocked(decision, policy.compiled, prepared) }
        var asked = try await looking { [self] in
            try question(capability, prepared, decision, policy, caller)
        }
        let error = request.result?["error"]?["description"]?.string ?? "no result is recorded"
        let evidence: JSONObject = [
            "request": .string(id), "state": .string(request.state.rawValue),
            "approved_by": .optional(request.decidedBy), "intent": .optional(request.intent),
            "ended_at": .optional(request.finishedAt?.rfc3339), "error": .string(redactor.scrub(error)),
        ]
        asked = Question(
            decision: asked.decision, binding: asked.binding, bindingDigest: asked.bindingDigest,
            shown: asked.shown.adding([("before", .object(evidence))]))
        var record = CallRecord(
            caller: caller, request: CallRequest(capability: request.capability, arguments: request.arguments),
            started: clock.now())
        record.prepared = prepared
        record.decision = (decision, policy)
        record.principal = principal
        var new = ApprovalQueue.NewRequest(
            agent: request.agent, session: request.session, capability: request.capability,
            arguments: prepared.arguments, binding: asked.binding, bindingDigest: asked.bindingDigest.bytes,
            decision: asked.decision, now: record.started)
        new.purpose = request.purpose
        new.shown = asked.shown
        new.terms = decision.terms.compactMap { policy.compiled.rules[Int($0)].approval }
        new.kin = request.kin
        new.retryOf = id
        let again = try await enqueue(new, record, most: .max, asked)
        return ["id": .string(again), "retry_of": .string(id)]
    }

    // MARK: Time

    /// Ends pending requests whose time is over; before every answer, and when the next is due.
    func endOverdue(at now: Timestamp) throws {
        let overdue = try store.read { try ApprovalQueue.expired($0, at: now) }
        if overdue.isEmpty { return }
        let audit = audit
        try store.writer.writeAndWait { [self] tx in
            for request in try ApprovalQueue.expired(tx, at: now) {
                let error = StructuredError(
                    .approvalExpired, "nobody answered \(request.id) in time",
                    agent: "No person answered this request in time, so it is over.",
                    recovery: ["Call again if it is still needed."], context: ["request_id": .string(request.id)])
                try ApprovalQueue.finish(tx, request.id, .expire, result: ["error": error.json], now: now)
                var body = AuditBody(time: now, phase: .approval, principal: .system)
                body.agent = request.agent
                body.session = request.session
                body.capability = request.capability
                body.request = request.id
                body.outcome = .expired
                try audit.append(body.canonicalBytes(), tx)
                try tell(tx, .expired, message(request, now: now), request: request.id, now: now)
            }
        }
        deliveriesDue.changed()
        for request in overdue {
            waiters.wake(request.id)
            events.publish(
                GateEvent(
                    kind: .answered, time: now, agent: request.agent, capability: request.capability,
                    summary: "\(request.id) is expired", request: request.id))
        }
    }

    /// Ends what is over and reminds of what waits, for as long as the gateway runs.
    package func watchTheTime() async {
        while !isDraining.withLock({ $0 }) {
            let now = clock.now()
            do {
                try endOverdue(at: now)
                let reminded = try await store.writer.write { [self] tx in
                    let requests = try ApprovalQueue.takeReminders(tx, at: now)
                    for request in requests {
                        try tell(tx, .reminder, message(request, now: now), request: request.id, now: now)
                    }
                    return requests
                }
                if !reminded.isEmpty { deliveriesDue.changed() }
                for request in reminded {
                    events.publish(
                        GateEvent(
                            kind: .reminder, time: now, agent: request.agent, capability: request.capability,
                            summary: Capabilities.catalogue[request.capability].map {
                                summarise(redactor.redact(request.arguments), of: $0)
                            } ?? "", request: request.id))
                }
                let next = try store.read { try ApprovalQueue.nextDue($0) }
                await due.wait(until: next, now: clock.now())
            } catch {
                log.warning("approvals' times", metadata: ["reason": "\(Self.structured(error).description)"])
                await due.wait(until: now.advanced(bySeconds: 5), now: clock.now())
            }
        }
    }
}

extension CapabilityDeclaration {
    /// The argument that holds a text for a shell in a call with these arguments.
    func shellProperty(_ arguments: JSONObject) -> String? {
        for property in input.properties {
            if case .command(_, let shell, _) = property.role, arguments[shell]?.bool == true { return property.name }
        }
        return nil
    }
}

extension Engine.Prepared {
    /// A variable of the call may decide what a program loads, or what its name means.
    var hasRiskyVariables: Bool {
        declaration.input.properties.contains { property in
            guard case .command(_, _, let environment) = property.role else { return false }
            return arguments[environment]?.object?.keys.contains(where: CommandLine.isRisky) ?? false
        }
    }

    var shellText: String? { declaration.shellProperty(arguments).flatMap { arguments[$0]?.string } }
}
