package import KruxCore
package import KruxStore

package struct AgentBriefing: LookingCapability {
    package static let declaration = CapabilityDeclaration(
        "agent.briefing", "Tells what happened since you were last here.", whenToUse: "At the start of a session.",
        effect: .read, tier: .autonomous,
        input: [
            .optional("since", .string(minLength: 1, maxLength: 64), "RFC 3339 time; your last session if absent.")
        ],
        output: [
            .required("summary", .string(maxLength: 64 << 10), "In words."),
            .required("since", .text, "RFC 3339 time from which it tells."),
            .required(
                "requests",
                .array(
                    .object([
                        .required("request_id", .text, "The request."), .required("capability", .text, "What for."),
                        .required("state", .text, "How it stands."),
                        .optional("reason", .string(maxLength: 4096), "Why, in the supervisor's words."),
                    ]), maxItems: 50), "Requests of yours that were answered or ended, newest first."),
            .required("pending_approvals", .count, "Requests of yours that wait."),
            .required("unread_messages", .count, "Messages for you."),
            .required("open_alerts", .count, "Alerts of yours that are not acknowledged."),
            .required("policy_changes", .count, "How often the policy was changed."),
        ],
        errors: [.init(.invalidArguments, when: "`since` is no time", recovery: "use one like 2026-03-29T14:20:00Z")])

    package struct Input: CapabilityInput {
        let since: Timestamp?

        package init(_ arguments: Arguments) throws(StructuredError) {
            since = try arguments.optionalText("since").map { (text) throws(StructuredError) in
                guard let time = Timestamp(parsing: text) else {
                    throw StructuredError(
                        .invalidArguments, "`since` is no RFC 3339 time",
                        recovery: ["Use one like 2026-03-29T14:20:00Z."])
                }
                return time
            }
        }
    }

    package struct Output: CapabilityOutput {
        let since: Timestamp
        let requests: [JSONValue]
        let pending: Int64, messages: Int64, alerts: Int64, changes: Int64

        package var json: JSONObject {
            func count(_ number: Int64, _ one: String, _ several: String) -> String? {
                number == 0 ? nil : "\(number) \(number == 1 ? one : several)"
            }
            let parts = [
                count(
                    Int64(requests.count), "request of yours was answered or ended",
                    "requests of yours were answered or ended"),
                count(pending, "waits for a person", "wait for a person"),
                count(messages, "message waits for you", "messages wait for you"),
                count(alerts, "alert of yours is open", "alerts of yours are open"),
                count(changes, "change of the policy", "changes of the policy"),
            ].compactMap { $0 }
            return [
                "summary": .string(parts.isEmpty ? "Nothing has happened." : parts.joined(separator: "; ") + "."),
                "since": .string(since.rfc3339), "requests": .array(requests), "pending_approvals": .int(pending),
                "unread_messages": .int(messages), "open_alerts": .int(alerts), "policy_changes": .int(changes),
            ]
        }
    }

    package func look(_ input: Input, _ context: CallContext, _ tx: any ReadTx, isLast: Bool) throws -> Output? {
        let agent = SQLValue.text(context.agent.text)
        func count(_ sql: String, _ arguments: [SQLValue]) throws -> Int64 {
            try tx.first("SELECT count(*) FROM \(sql)", arguments) { $0.int(0) } ?? 0
        }
        let last = try tx.first(
            "SELECT max(last_seen_at) FROM sessions WHERE agent = ? AND id <> ?",
            [agent, .text(context.host.session().id)]
        ) { $0.optionalInt(0) }
        let since = input.since ?? last.flatMap { $0 }.map(Timestamp.init(microseconds:)) ?? Timestamp(microseconds: 0)
        let from = SQLValue.int(since.microseconds)
        let requests = try tx.rows(
            "SELECT id, capability, state, decision_reason FROM approvals WHERE agent = ? AND state <> 'pending' AND max(coalesce(decided_at, 0), coalesce(finished_at, 0)) >= ? ORDER BY number DESC LIMIT 50",
            [agent, from]
        ) { row -> JSONValue in
            var request: JSONObject = [
                "request_id": .string(row.text(0)), "capability": .string(row.text(1)), "state": .string(row.text(2)),
            ]
            if let reason = row.optionalText(3) { request["reason"] = .string(String(reason.prefix(1000))) }
            return .object(request)
        }
        return Output(
            since: since, requests: requests,
            pending: try count("approvals WHERE agent = ? AND state = 'pending'", [agent]),
            messages: try count("messages WHERE recipient = ?", [agent]),
            alerts: try count("alerts WHERE agent = ? AND acknowledged_at IS NULL", [agent]),
            changes: try count("audit WHERE phase = 'policy' AND time >= ?", [from]))
    }
}
