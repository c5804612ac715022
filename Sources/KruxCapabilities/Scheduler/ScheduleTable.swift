package import KruxCore
package import KruxStore

/// A call that is made later in an agent's name, once or again and again.
package struct Schedule: CapabilityOutput {
    package let id: String, agent: String, capability: String
    package let arguments: JSONObject
    /// Why its row cannot be carried out; nil for one as it was written.
    package let problem: String?
    /// Five fields; nil for one call.
    package let cron: String?
    package let zone: String?
    package let catchesUp: Bool
    package let createdAt: Timestamp
    /// Nil once it has ended.
    package let nextRun: Timestamp?
    package let lastRun: Timestamp?
    package let runs: Int64, missed: Int64

    package var json: JSONObject {
        var json: JSONObject = [
            "job_id": .string(id), "capability": .string(capability), "arguments": .object(arguments),
            "state": nextRun == nil ? "ended" : "waiting", "runs": .int(runs), "missed": .int(missed),
            "created_at": .string(createdAt.rfc3339),
        ]
        if let cron {
            json["schedule"] = .string(cron)
            json["timezone"] = .string(zone ?? "UTC")
            json["catch_up"] = .bool(catchesUp)
        }
        if let nextRun { json["next_run"] = .string(nextRun.rfc3339) }
        if let lastRun { json["last_run"] = .string(lastRun.rfc3339) }
        return json
    }
}

package enum ScheduleTable {
    static let mostOfAgent: Int64 = 1000
    /// Bytes of one's arguments as canonical JSON.
    static let longestArguments = 16 << 10

    static let call: [Property] = [
        .required("capability", .string(minLength: 3, maxLength: 100), "What to call."),
        .optional("arguments", .map(.any, maxItems: 256), "Its arguments."),
    ]

    static let schema: ObjectSchema = [
        .required("job_id", .text, "What scheduler.cron_delete needs."),
        .required("capability", .text, "What is called."),
        .required("arguments", .map(.any, maxItems: 256), "Its arguments."),
        .required("state", .choice(["waiting", "ended"]), "Whether it will be called again."),
        .required("runs", .count, "How often it was called."),
        .required(
            "missed", .count, "How often it was not, because the gateway did not run or the last call still did."),
        .required("created_at", .text, "RFC 3339 time."),
        .optional("next_run", .text, "RFC 3339 time of the next call."),
        .optional("last_run", .text, "RFC 3339 time of the last one."),
        .optional("schedule", .text, "Its five fields."), .optional("timezone", .text, "The zone they are meant in."),
        .optional("catch_up", .boolean, "Whether missed calls are made up for, once."),
    ]

    private static let columns =
        "id, agent, capability, arguments, cron, zone, catch_up, created_at, next_run, last_run, runs, missed"

    private static func schedule(_ row: SQLRow) throws -> Schedule {
        let arguments = (try? JSONParser.parse(row.text(3)))?.object
        return Schedule(
            id: row.text(0), agent: row.text(1), capability: row.text(2), arguments: arguments ?? [:],
            problem: arguments == nil ? "its arguments are no JSON" : nil, cron: row.optionalText(4),
            zone: row.optionalText(5), catchesUp: row.int(6) != 0, createdAt: Timestamp(microseconds: row.int(7)),
            nextRun: row.optionalInt(8).map(Timestamp.init(microseconds:)),
            lastRun: row.optionalInt(9).map(Timestamp.init(microseconds:)), runs: row.int(10), missed: row.int(11))
    }

    /// By next run, ended ones left out.
    package static func all(_ tx: any ReadTx, agent: String?) throws -> [Schedule] {
        try tx.rows(
            "SELECT \(columns) FROM schedules WHERE next_run IS NOT NULL AND agent = coalesce(?, agent) ORDER BY next_run, number",
            [.optional(agent)], schedule)
    }

    package static func find(_ tx: any ReadTx, _ id: String) throws -> Schedule? {
        try tx.first("SELECT \(columns) FROM schedules WHERE id = ?", [.text(id)], schedule)
    }

    /// Those whose time has come, earliest first.
    package static func due(_ tx: any ReadTx, at now: Timestamp) throws -> [Schedule] {
        try tx.rows(
            "SELECT \(columns) FROM schedules WHERE next_run <= ? ORDER BY next_run, number LIMIT 100",
            [.int(now.microseconds)], schedule)
    }

    package static func nextDue(_ tx: any ReadTx) throws -> Timestamp? {
        try tx.first("SELECT min(next_run) FROM schedules WHERE next_run IS NOT NULL") { $0.optionalInt(0) }
            .flatMap { $0 }.map(Timestamp.init(microseconds:))
    }

    /// - Throws: `StructuredError` for a call that could never be made, or too many.
    static func insert(
        _ tx: WriteTx, _ capability: String, _ arguments: JSONObject, cron: String?, zone: String?, catchesUp: Bool,
        nextRun: Timestamp, _ context: CallContext
    ) throws -> Schedule {
        guard let declaration = Capabilities.catalogue[capability] else {
            let hint = nearest(to: capability, among: Capabilities.catalogue.names).map { "Did you mean `\($0)`?" }
            throw StructuredError(
                .unknownCapability, "there is no capability `\(capability.prefix(100))`",
                recovery: [hint, "Call agent.capabilities to see what there is."].compactMap { $0 })
        }
        let (_, violations) = declaration.input.validate(arguments)
        guard violations.isEmpty else {
            let shown = violations.prefix(20).map { "\($0.pointer) \($0.message)" }
            throw StructuredError(
                .invalidArguments, "arguments of \(capability) do not fit: \(shown.joined(separator: "; "))",
                recovery: ["Correct them: the call would fail each time."])
        }
        let text = JSONValue.object(arguments).canonicalText
        guard text.utf8.count <= longestArguments else {
            throw StructuredError(
                .tooLarge, "the arguments have \(text.utf8.count) bytes, of at most \(longestArguments)",
                recovery: ["Put long content into a file, and plan a call that reads it."])
        }
        let count =
            try tx.first(
                "SELECT count(*) FROM schedules WHERE agent = ? AND next_run IS NOT NULL", [.text(context.agent.text)]
            ) { $0.int(0) } ?? 0
        guard count < mostOfAgent else {
            throw StructuredError(
                .tooLarge, "you have \(count) schedules already", recovery: ["End some with scheduler.cron_delete."])
        }
        let number = try tx.first("SELECT coalesce(max(number), 0) + 1 FROM schedules") { $0.int(0) } ?? 1
        let digits = "\(number)"
        let id = "sc_" + String(repeating: "0", count: max(0, 3 - digits.utf8.count)) + digits
        let now = context.clock.now()
        try tx.execute(
            "INSERT INTO schedules (number, id, agent, capability, arguments, cron, zone, catch_up, created_at, next_run) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            [
                .int(number), .text(id), .text(context.agent.text), .text(capability),
                .text(text), .optional(cron), .optional(zone),
                .int(catchesUp ? 1 : 0), .int(now.microseconds), .int(nextRun.microseconds),
            ])
        return Schedule(
            id: id, agent: context.agent.text, capability: capability, arguments: arguments, problem: nil, cron: cron,
            zone: zone,
            catchesUp: catchesUp, createdAt: now, nextRun: nextRun, lastRun: nil, runs: 0, missed: 0)
    }

    /// Ends one; its row stays.
    package static func end(_ tx: WriteTx, _ id: String) throws {
        try tx.execute("UPDATE schedules SET next_run = NULL WHERE id = ?", [.text(id)])
    }

    /// It runs now, or was missed; and comes again at `next`.
    package static func advance(_ tx: WriteTx, _ id: String, ran: Timestamp?, missed: Int64, next: Timestamp?) throws {
        try tx.execute(
            "UPDATE schedules SET next_run = ?, last_run = coalesce(?, last_run), runs = min(runs, 1000000000) + ?, missed = min(missed, 1000000000) + ? WHERE id = ?",
            [
                .optional(next?.microseconds), .optional(ran?.microseconds), .int(ran == nil ? 0 : 1), .int(missed),
                .text(id),
            ])
    }
}
