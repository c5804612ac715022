import Foundation
import KruxApprovals
import KruxAudit
package import KruxCapabilities
package import KruxCore
import KruxCrypto
import KruxPolicy
import KruxRegistry
import KruxStore
import Logging

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
        let facts: CallFacts
    }

    /// One call, from text to recorded end. Nothing runs before it is decided, nothing is answered before it is
    /// recorded.
    package func call(_ request: CallRequest, by caller: Caller) async -> CallReply {
        let started = clock.now()
        var record = CallRecord(caller: caller, request: request, started: started)
        do {
            let prepared = try prepare(request, caller)
            record.prepared = prepared
            let policy = policy
            let decision = policy.compiled.decide(prepared.facts)
            record.decision = (decision, policy)
            switch decision.tier {
            case .blocked: throw blocked(decision, policy.compiled, prepared)
            case .approvalRequired:
                let capability = try implementation(prepared)
                return .failed(try await requestApproval(capability, prepared, decision, policy, caller, record))
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
        var paths: [String] = []
        var reachesBelow = false
        for property in declaration.input.properties {
            let followsLast: Bool
            var read = true
            switch property.role {
            case .path(let follows, let reach):
                followsLast = follows
                reachesBelow = reachesBelow || Self.reaches(reach, arguments)
            case .workingDirectory:
                followsLast = true
                read = false
            default: continue
            }
            guard let text = arguments[property.name]?.string else { continue }
            let path = try workspace(caller.agent.name).canonicalise(text, followsLast: followsLast)
            arguments[property.name] = .string(path.absolute)
            if read { paths.append(path.absolute) }
        }
        return Prepared(
            index: index, declaration: declaration, arguments: arguments,
            facts: CallFacts(
                agent: caller.agent.name.text, capability: index, paths: paths,
                contentSize: contentSize(declaration, arguments), reachesBelow: reachesBelow))
    }

    private static func reaches(_ reach: PathReach, _ arguments: JSONObject) -> Bool {
        switch reach {
        case .itself: false
        case .below: true
        case .belowWhen(let name): arguments[name]?.bool ?? false || arguments[name]?.int ?? 0 > 1
        }
    }

    /// Decoded bytes of the content argument; nil when there is none or it cannot be decoded.
    private func contentSize(_ declaration: CapabilityDeclaration, _ arguments: JSONObject) -> Int64? {
        guard let (content, encoding) = declaration.contentArgument, let text = arguments[content.name]?.string else {
            return nil
        }
        if arguments[encoding]?.string == "base64" { return Base64.decode(text).map { Int64($0.count) } }
        return Int64(text.utf8.count)
    }

    private func implementation(_ prepared: Prepared) throws(StructuredError) -> AnyCapability {
        if let capability = Capabilities.implementation(at: prepared.index) { return capability }
        throw StructuredError(
            .capabilityUnavailable, "\(prepared.declaration.name) is declared but not part of this version",
            recovery: ["Call agent.capabilities to see what can be called."],
            context: ["capability": .string(prepared.declaration.name.text)])
    }

    func blocked(_ decision: Decision, _ policy: CompiledPolicy, _ prepared: Prepared) -> StructuredError {
        var context = decision.json(policy)
        context["capability"] = .string(prepared.declaration.name.text)
        let reason = context["reason"]?.string
        var text = "\(prepared.declaration.name) is blocked"
        if let source = context["source"]?.string {
            text += " by \(source)"
        } else if policy.brokenAgents[prepared.facts.agent] != nil {
            text += ": the agent's own policy does not compile"
        } else {
            text += ": no rule allows it"
        }
        if let reason { text += ": \(reason)" }
        return StructuredError(
            .blocked, text, agent: reason ?? "This is not allowed for you, and asking again will not change it.",
            recovery: [
                "Find another way: call agent.capabilities to see what you may do.",
                "Tell your supervisor if you need this; they can change the policy.",
            ], context: context)
    }

    private func run(
        _ capability: AnyCapability, _ prepared: Prepared, _ decision: Decision, _ caller: Caller, _ record: CallRecord
    ) async throws -> CallReply {
        let context = try context(caller)
        if prepared.declaration.effect == .read {
            let data = try await capability.run(prepared.arguments, context)
            let seq = try await write(
                record.body(.outcome, outcome: .succeeded, self), record, notify: decision.tier == .notify)
            return .succeeded(data, tier: decision.tier, seq: seq)
        }
        try requireSpace()
        let intent = try await write(record.body(.intent, outcome: nil, self), record)
        let end = await finishEffect(capability, prepared.arguments, context, record, intent: intent)
        switch end {
        case .success(let (data, seq)): return .succeeded(data, tier: decision.tier, seq: seq)
        case .failure(let error): return .failed(error)
        }
    }

    func requireSpace() throws(StructuredError) {
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
        let result: Result<JSONObject, StructuredError>
        do throws(StructuredError) { result = .success(try await capability.run(arguments, context)) } catch {
            result = .failure(error)
        }
        let failure: StructuredError? = if case .failure(let error) = result { error } else { nil }
        var body = record.body(.outcome, outcome: failure == nil ? .succeeded : .failed, self, error: failure)
        body.intent = intent
        do {
            let seq = try await write(body, record, notify: record.tier == .notify) { tx in try also?(tx, result) }
            return result.map { ($0, seq) }
        } catch {
            // The effect may have happened and cannot be recorded now; the next start records it as unknown.
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
        let bytes = body.canonicalBytes()
        let audit = audit
        // An outcome's session was stored with its intent.
        let session = body.intent == nil ? record.session : nil
        let event = notify ? record.event(body) : nil
        let outcome = body.outcome?.rawValue ?? ""
        let seq = try await store.writer.write { tx in
            if let session { try SessionTable.store(tx, session) }
            let seq = try audit.append(bytes, tx)
            if let event {
                try tx.execute(
                    "INSERT INTO notifications (seq, time, agent, capability, outcome, summary) VALUES (?, ?, ?, ?, ?, ?)",
                    [
                        .int(seq), .int(event.time.microseconds), .text(event.agent), .text(event.capability),
                        .text(outcome), .text(event.summary),
                    ])
            }
            try also?(tx)
            return seq
        }
        if let event { events.publish(event) }
        return seq
    }

    func context(_ caller: Caller) throws(StructuredError) -> CallContext {
        CallContext(
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
                        name: compiled.active.name, digest: compiled.digest.hex,
                        description: compiled.active.description)
                },
                offers: { [self] in offers(to: caller.agent.name.text) }, health: { [self] in health }))
    }

    /// What an agent may call in some way, by name.
    package func offers(to agent: String) -> [HostServices.Offer] {
        let compiled = policy.compiled
        return Capabilities.catalogue.declarations.enumerated().compactMap { index, declaration in
            guard Capabilities.implementation(at: index) != nil,
                !compiled.blocksEveryCall(agent: agent, capability: index)
            else { return nil }
            let decision = compiled.decide(CallFacts(agent: agent, capability: index))
            return HostServices.Offer(
                declaration: declaration, tier: decision.tier, conditional: decision.indeterminate)
        }
    }
}

/// What the rows of one call have in common.
struct CallRecord: Sendable {
    let caller: Caller
    let request: CallRequest
    let started: Timestamp
    var prepared: Engine.Prepared?
    var decision: (Decision, Engine.ActivePolicy)?
    /// The approval this call runs under.
    var approval: String?

    init(caller: Caller, request: CallRequest, started: Timestamp) {
        self.caller = caller
        self.request = request
        self.started = started
    }

    var tier: Tier? { decision?.0.tier }
    var session: Session? { caller.storeSession ? caller.session : nil }

    /// How a failure before anything ran is recorded: what policy or confinement refused is `denied`.
    func outcome(_ error: StructuredError) -> AuditOutcome {
        switch error.kind {
        case .blocked, .outsideWorkspace: .denied
        default: .failed
        }
    }

    func body(
        _ phase: AuditPhase, outcome: AuditOutcome?, _ engine: Engine, error: StructuredError? = nil
    ) -> AuditBody {
        let now = engine.clock.now()
        var body = AuditBody(time: now, phase: phase, principal: .agent(caller.agent.name))
        body.agent = caller.agent.name.text
        body.session = caller.session.id
        body.capability = prepared?.declaration.name.text ?? Self.printable(request.capability)
        body.outcome = outcome
        body.request = approval
        // A clock that steps back makes no negative duration.
        if phase == .outcome { body.durationMicroseconds = max(0, now.microseconds - started.microseconds) }
        let arguments = prepared?.arguments ?? request.arguments
        body.members = [
            ("arguments", engine.redactor.recorded(arguments)),
            ("arguments_digest", .string(engine.redactor.digest(arguments.canonicalBytes()))),
        ]
        if let (decision, policy) = decision {
            body.members.append(("decision", .object(decision.json(policy.compiled))))
            body.members.append(
                (
                    "facts",
                    [
                        "policy": .string(policy.compiled.digest.hex),
                        "content_size": .optional(prepared?.facts.contentSize),
                        "paths": .strings(prepared?.facts.paths ?? []),
                        "reaches_below": .bool(prepared?.facts.reachesBelow ?? false),
                    ]
                ))
        }
        if let error { body.members.append(("error", error.json)) }
        return body
    }

    /// A name that is no capability's as a column can hold it: SQLite's JSON ends a text at NUL.
    private static func printable(_ name: String) -> String {
        String(
            decoding: name.utf8.prefix(100).map { (0x21...0x7E).contains($0) ? $0 : UInt8(ascii: "?") }, as: UTF8.self)
    }

    /// What a supervisor is told of a `notify` call.
    func event(_ body: AuditBody) -> GateEvent {
        let arguments = body.members.first { $0.0 == "arguments" }?.1.object ?? [:]
        return GateEvent(
            kind: .notification, time: body.time, agent: caller.agent.name.text, capability: body.capability ?? "",
            summary: prepared.map { summarise(arguments, of: $0.declaration) } ?? "", request: nil)
    }
}

/// Whether an argument says more than its default; the workspace itself is the default of every path.
package func isWorthShowing(_ value: JSONValue?, of property: Property) -> Bool {
    guard let value, value != property.defaultValue else { return false }
    return property.defaultValue != "." || value.string?.pathComponents.count != 2
}

/// Arguments on one line, in the schema's order and without what was left at its default: `command=make test`. A
/// program's arguments follow it as they would in a terminal.
package func summarise(_ arguments: JSONObject, of declaration: CapabilityDeclaration, limit: Int = 120) -> String {
    var parts: [String] = []
    for property in declaration.input.properties {
        guard let value = arguments[property.name], isWorthShowing(value, of: property) else { continue }
        switch value {
        case .string(let text): parts.append("\(property.name)=\(text)")
        case .array(let elements):
            let line = elements.map { $0.string ?? $0.canonicalText }.joined(separator: " ")
            parts.append(property.name == "args" ? line : "\(property.name)=\(line)")
        default: parts.append("\(property.name)=\(value.canonicalText)")
        }
    }
    let line = String(parts.joined(separator: " ").map { $0.isNewline || $0 == "\t" ? " " : $0 })
    return line.count > limit ? line.prefix(limit - 1) + "…" : line
}
