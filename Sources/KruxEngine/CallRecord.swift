import KruxApprovals
import KruxAudit
import KruxCapabilities
package import KruxCore
import KruxPolicy
import KruxRegistry

/// What the rows of one call have in common.
struct CallRecord: Sendable {
    let caller: Caller
    let request: CallRequest
    let started: Timestamp
    var prepared: Engine.Prepared?
    var decision: (Decision, Engine.ActivePolicy)?
    /// What its rate limits had to say.
    var standings: [RateWindows.Standing] = []
    /// The call as rate windows count it; stored with its first row.
    var reservation: RateWindows.Reservation?
    /// The approval this call runs under.
    var approval: String?
    /// The grant that answered for it; counted with its first row.
    var grant: Grant?
    /// Who asked, where it is not the agent.
    var principal: Principal?

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
        case .blocked, .rateLimited, .outsideWorkspace, .addressRefused: .denied
        default: .failed
        }
    }

    func body(
        _ phase: AuditPhase, outcome: AuditOutcome?, _ engine: Engine, error: StructuredError? = nil,
        result: JSONObject? = nil
    ) -> AuditBody {
        let now = engine.clock.now()
        var body = AuditBody(time: now, phase: phase, principal: principal ?? .agent(caller.agent.name))
        body.agent = caller.agent.name.text
        body.session = caller.session.id
        body.capability = prepared?.declaration.name.text ?? Self.printable(request.capability)
        body.outcome = outcome
        body.request = approval
        // A clock that steps back makes no negative duration.
        if phase == .outcome { body.durationMicroseconds = max(0, now.microseconds - started.microseconds) }
        let arguments = prepared?.arguments ?? request.arguments
        let recorded = engine.redactor.recorded(arguments)
        body.members = [
            ("arguments", recorded),
            ("arguments_digest", .string(engine.redactor.digest(arguments.canonicalBytes()))),
        ]
        if let (decision, policy) = decision {
            var json = decision.json(policy.compiled)
            if let grant { json["grant"] = .string(grant.id) }
            body.members.append(("decision", .object(json)))
            if let facts = prepared?.facts {
                body.members.append(("facts", RecordedFacts.json(facts, recorded: recorded, policy, standings)))
            }
        }
        if let error { body.members.append(("error", engine.redactor.scrub(error.json))) }
        if let result { body.members.append(("result", engine.redactor.recorded(result: result))) }
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
