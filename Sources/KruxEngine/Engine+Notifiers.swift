import Foundation
import KruxApprovals
import KruxAudit
import KruxCapabilities
package import KruxCore
import KruxCrypto
import KruxOutbound
import KruxPolicy
import KruxRegistry
import KruxStore
import Logging
import Synchronization

/// Reaching people: what waits for them is told where the organisation's policy says, and a link may answer it.
extension Engine {
    /// Notes what notifiers are to be told, in the transaction of what happened.
    func tell(_ tx: WriteTx, _ event: NotifierSettings.Event, _ message: JSONObject, request: String?, now: Timestamp)
        throws
    {
        for notifier in policy.compiled.notifiers where notifier.events.contains(event) {
            // A second person is told only when the first has not answered.
            let wait = event == .approval || event == .reminder ? notifier.afterSeconds : 0
            try Deliveries.insert(
                tx, notifier: notifier.name, message: message.adding([("event", .string(event.rawValue))]),
                request: request, dueAt: now.advanced(bySeconds: wait + notifier.batchSeconds))
        }
    }

    /// What is told of a request.
    func message(_ request: ApprovalRequest, now: Timestamp) -> JSONObject {
        let summary = Capabilities.catalogue[request.capability].map {
            summarise(redactor.redact(request.arguments), of: $0)
        }
        return [
            "time": .string(now.rfc3339), "agent": .string(request.agent), "capability": .string(request.capability),
            "summary": .string(summary ?? ""), "request": .string(request.id),
            "reason": request.decision["reason"] ?? .null, "purpose": .optional(request.purpose),
        ]
    }

    private static let mostAttempts: Int64 = 20

    /// Tells people what is due, for as long as the gateway runs. What cannot be told is tried again, less and less often.
    package func tellPeople() async {
        while !isDraining.withLock({ $0 }) {
            do {
                try await tellWhatIsDue()
                await deliveriesDue.wait(until: try store.read { try Deliveries.nextDue($0) }, now: clock.now())
            } catch {
                log.warning("notifiers", metadata: ["reason": "\(Self.structured(error).description)"])
                await deliveriesDue.wait(until: clock.now().advanced(bySeconds: 5), now: clock.now())
            }
        }
    }

    private func tellWhatIsDue() async throws {
        let now = clock.now()
        let policy = policy
        for name in try store.read({ try Deliveries.dueNotifiers($0, at: now) }) {
            let settings = policy.compiled.notifiers.first { $0.name.utf8Equals(name) }
            // What would be due soon is told with it.
            let end = now.advanced(bySeconds: settings?.batchSeconds ?? 0)
            let deliveries = try store.read { try Deliveries.due($0, for: name, by: end) }
            guard let notifier = settings else {
                try await store.writer.write { try Deliveries.remove($0, deliveries) }
                continue
            }
            if let minutes = notifier.quiet?.left(at: Self.minuteOfDay(now)) {
                let until = now.advanced(bySeconds: max(1, minutes * 60))
                try await store.writer.write { try Deliveries.postpone($0, deliveries, until: until, problem: nil) }
                continue
            }
            // What was answered meanwhile waits no more.
            let open = try store.read { tx in
                try deliveries.filter { delivery in
                    let event = delivery.message["event"]?.string
                    guard event == "approval" || event == "reminder", let id = delivery.request else { return true }
                    return try ApprovalQueue.find(tx, id)?.state == .pending
                }
            }
            let over = deliveries.filter { delivery in !open.contains { $0.number == delivery.number } }
            if !over.isEmpty { try await store.writer.write { try Deliveries.remove($0, over) } }
            guard let first = open.first else { continue }
            do {
                let message = try compose(open, notifier, policy.compiled.links, now: now)
                try await NotifierSender().send(message, to: notifier.kind, number: first.number, now: now)
                try await store.writer.write { try Deliveries.remove($0, open) }
            } catch let failure as NotifierSender.Failure {
                let attempts = (open.map(\.attempts).max() ?? 0) + 1
                let isLast = attempts >= Self.mostAttempts
                log.log(
                    level: isLast ? .error : .warning, "people could not be told",
                    metadata: ["notifier": "\(name)", "attempt": "\(attempts)", "reason": "\(failure.reason)"])
                // After two seconds, then up to every quarter of an hour.
                let later = now.advanced(bySeconds: min(900, 1 << min(attempts, 10)))
                try await store.writer.write { tx in
                    try isLast
                        ? Deliveries.remove(tx, open)
                        : Deliveries.postpone(tx, open, until: later, problem: failure.reason)
                }
            }
        }
    }

    private static func minuteOfDay(_ time: Timestamp) -> Int64 {
        var seconds = time_t(time.microseconds / 1_000_000)
        var parts = tm()
        localtime_r(&seconds, &parts)
        return Int64(parts.tm_hour) * 60 + Int64(parts.tm_min)
    }

    private func compose(
        _ deliveries: [Delivery], _ notifier: NotifierSettings, _ links: LinkSettings?, now: Timestamp
    ) throws -> NotifierSender.Message {
        var lines: [String] = []
        var events: [JSONValue] = []
        var only: String?
        for delivery in deliveries {
            let message = delivery.message
            let event = NotifierSettings.Event(rawValue: message["event"]?.string ?? "")
            let what = [message["agent"]?.string, message["capability"]?.string, message["summary"]?.string]
                .compactMap { $0 }.joined(separator: "  ")
            let id = delivery.request ?? ""
            let words =
                switch event {
                case .approval: "\(id) waits: "
                case .reminder: "\(id) still waits: "
                case .expired: "\(id) was not answered in time: "
                default: ""
                }
            var line = words + what
            if let purpose = message["purpose"]?.string { line += "\nwhy: \(purpose)" }
            if let reason = message["reason"]?.string { line += "\nrule: \(reason)" }
            var json = message
            if let links, let name = notifier.answersAs, event == .approval || event == .reminder, !id.isEmpty,
                let link = try makeLink(id, as: name, links, now: now)
            {
                json["link"] = .string(link)
                if deliveries.count == 1 { only = link } else { line += "\n\(link)" }
            }
            lines.append(line)
            events.append(.object(json))
        }
        let waiting = deliveries.count { ["approval", "reminder"].contains($0.message["event"]?.string) }
        let first = deliveries.first?.message
        let title =
            deliveries.count == 1
            ? (waiting == 1
                ? "\(first?["agent"]?.string ?? "an agent") asks: \(first?["capability"]?.string ?? "")" : "KruxOS")
            : waiting > 0 ? "\(waiting) requests wait" : "\(deliveries.count) messages"
        return NotifierSender.Message(
            title: title, text: lines.joined(separator: "\n\n"),
            json: ["title": .string(title), "events": .array(events), "link": .optional(only)], link: only,
            isUrgent: waiting > 0)
    }

    // MARK: Links

    /// A new link that answers a request once; nil when it waits no more.
    private func makeLink(_ id: String, as name: String, _ links: LinkSettings, now: Timestamp) throws -> String? {
        let token = AgentToken.make()
        return try store.writer.writeAndWait { tx in
            try ApprovalLinks.forget(tx, before: now.advanced(bySeconds: -86_400))
            guard let request = try ApprovalQueue.find(tx, id), request.state == .pending else { return nil }
            try ApprovalLinks.insert(
                tx, hash: token.hash.bytes,
                ApprovalLink(
                    request: id, bindingDigest: request.bindingDigest, principal: Principal.supervisor(name).text,
                    expiresAt: now.advanced(bySeconds: links.validSeconds), usedAt: nil))
            return "\(links.baseURL)/a/\(token.text)"
        }
    }

    /// The address under which links are followed; nil where no policy has links.
    package var linkBase: String? { policy.compiled.links?.baseURL }

    /// What a link is for.
    /// - Throws: `StructuredError` `.notFound` for no link, `.conflict` for one that answers nothing any more.
    package func linkedRequest(_ token: String) throws -> JSONObject {
        let (_, request) = try checkedLink(token)
        return Self.json(forSupervisor: request, redactor)
    }

    private func checkedLink(_ token: String) throws -> (ApprovalLink, ApprovalRequest) {
        let now = clock.now()
        let hash = AgentToken(text: token).hash.bytes
        guard policy.compiled.links != nil, let link = try store.read({ try ApprovalLinks.find($0, hash: hash) }) else {
            throw StructuredError(.notFound, "this link is none", recovery: ["Look for a newer message."])
        }
        if link.usedAt != nil || now >= link.expiresAt {
            throw StructuredError(
                .conflict, link.usedAt == nil ? "this link is too old" : "this link has been used",
                recovery: ["Use `kruxos approve` on the machine, or wait for the next reminder."])
        }
        let request = try store.read { try ApprovalQueue.require($0, link.request) }
        guard request.state == .pending else {
            throw StructuredError(
                .conflict,
                "\(request.id) is \(request.state.rawValue) already"
                    + (request.decidedBy.map { ", decided by \($0)" } ?? ""))
        }
        guard request.bindingDigest == link.bindingDigest else {
            throw StructuredError(
                .conflict, "\(request.id) was changed since this link was made",
                recovery: ["Use `kruxos approve` on the machine."])
        }
        return (link, request)
    }

    /// Answers by a link, which is spent with it.
    package func answerByLink(_ token: String, approve: Bool, reason: String?) throws -> JSONObject {
        let (link, request) = try checkedLink(token)
        let now = clock.now()
        let hash = AgentToken(text: token).hash.bytes
        guard try store.writer.writeAndWait({ try ApprovalLinks.use($0, hash: hash, now: now) }) else {
            throw StructuredError(.conflict, "this link has been used")
        }
        let name = String(link.principal.drop { $0 != ":" }.dropFirst())
        let answer = Answer(approve: approve, reason: reason, seen: request.bindingDigest.hex)
        return Self.json(
            forSupervisor: try decideApproval(request.id, answer, by: .supervisor(name)), redactor)
    }
}
