import KruxAudit
import KruxCapabilities
import KruxCore
import KruxPolicy
import KruxRegistry
import KruxStore
import Logging

/// Mail that is held before it is sent, so that it can be taken back.
extension Engine {
    func holdMail(_ account: String, _ mail: OutgoingMail, _ seconds: Int64, _ approval: String?, _ caller: Caller)
        async throws(StructuredError)
        -> HeldMail
    {
        let now = clock.now()
        let agent = caller.agent.name.text
        do {
            let audit = audit
            let held = try await store.writer.write { tx in
                let held = try HeldMailTable.insert(
                    tx, agent: agent, account: account, approval: approval, mail.json, now: now,
                    sendAt: now.advanced(bySeconds: seconds))
                try audit.append(
                    Self.mailRow(held.id, agent, now, ["event": "held", "send_at": .string(held.sendAt.rfc3339)]), tx)
                return held
            }
            schedulesDue.changed()
            return held
        } catch {
            throw Self.structured(error)
        }
    }

    private static func mailRow(_ id: String, _ agent: String, _ time: Timestamp, _ detail: JSONObject) -> [UInt8] {
        var body = AuditBody(time: time, phase: .progress, principal: .system)
        body.agent = agent
        body.capability = "email.send"
        body.members = [("detail", .object(detail.adding([("message_id", .string(id))])))]
        return body.canonicalBytes()
    }

    /// - Throws: `StructuredError` `.notFound` for another agent's, `.conflict` for one that is not held any more.
    func cancelMail(_ id: String, _ agent: AgentName) async throws(StructuredError) {
        let now = clock.now()
        do {
            let audit = audit
            try await store.writer.write { tx in
                let owner = try tx.first("SELECT agent FROM held_mail WHERE id = ?", [.text(id)]) { $0.text(0) }
                guard owner?.utf8Equals(agent.text) ?? false else {
                    throw StructuredError(
                        .notFound, "there is no message `\(id.prefix(64))` of yours",
                        recovery: ["Use the message_id that email.send returned."])
                }
                try HeldMailTable.move(tx, id, from: "held", to: "cancelled")
                try audit.append(Self.mailRow(id, agent.text, now, ["event": "cancelled"]), tx)
            }
        } catch {
            throw Self.structured(error)
        }
    }

    /// What was being sent when the gateway stopped may have arrived or not; it is not sent again.
    func recoverMail(now: Timestamp) throws {
        let interrupted = try store.read(HeldMailTable.interrupted)
        if interrupted.isEmpty { return }
        let audit = audit
        try store.writer.writeAndWait { tx in
            for (id, agent) in interrupted {
                try HeldMailTable.move(tx, id, from: "sending", to: "unknown")
                try audit.append(Self.mailRow(id, agent, now, ["event": "unknown"]), tx)
            }
        }
    }

    /// Marks a held message as being sent, so that no crash sends it twice.
    /// - Returns: false when it has been taken back in this moment.
    func beginMail(_ held: HeldMail) throws -> Bool {
        let audit = audit
        let now = clock.now()
        do {
            try store.writer.writeAndWait { tx in
                try HeldMailTable.move(tx, held.id, from: "held", to: "sending")
                try audit.append(Self.mailRow(held.id, held.agent, now, ["event": "sending"]), tx)
            }
            return true
        } catch let error as StructuredError where error.kind == .conflict {
            return false
        }
    }

    /// Sends a message that has been marked; it is decided again, so that what policy blocks by now is not sent, nor what a
    /// person must see by now and has not.
    func sendHeldMail(_ held: HeldMail) async {
        let audit = audit
        var detail: JSONObject
        var state = "sent"
        var failure: String?
        do {
            let caller = try caller(agentNamed: held.agent, via: "mail")
            let arguments = held.arguments.adding([("account", .string(held.account))])
            let prepared = try prepare(CallRequest(capability: "email.send", arguments: arguments), caller)
            let policy = policy.compiled
            let decision = policy.decide(prepared.facts)
            if decision.tier == .blocked { throw blocked(decision, policy, prepared) }
            guard decision.tier <= .notify || held.approval != nil else {
                throw StructuredError(
                    .blocked, "it needs approval since it was held, and nobody has approved it",
                    recovery: ["Send it again."], context: decision.json(policy))
            }
            let id = try await EmailSend.deliver(prepared.arguments, try context(caller, prepared, decision))
            detail = ["event": "sent", "message_header_id": .string(id)]
        } catch {
            let error = redactor.hidingValues(Self.structured(error))
            (state, failure) = ("failed", error.description)
            detail = ["event": "failed", "error": redactor.scrub(error.json)]
        }
        let row = Self.mailRow(held.id, held.agent, clock.now(), detail)
        do {
            let (state, failure) = (state, failure)
            try await store.writer.write { [self] tx in
                try HeldMailTable.move(tx, held.id, from: "sending", to: state, error: failure)
                try audit.append(row, tx)
                if let failure {
                    // Nobody waits for its reply any more.
                    try AlertTable.insert(
                        tx, "mail \(held.id) was not sent: \(failure.prefix(2000))", severity: "warning",
                        agent: held.agent, now: self.clock.now())
                }
            }
        } catch {
            log.error(
                "the end of held mail could not be recorded",
                metadata: ["message": "\(held.id)", "reason": "\(Self.structured(error).description)"])
        }
    }
}
