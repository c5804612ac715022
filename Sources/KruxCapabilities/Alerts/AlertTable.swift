package import KruxCore
package import KruxStore

/// What an agent raised for its supervisor.
package struct Alert: CapabilityOutput {
    let id: String, message: String, severity: String
    let createdAt: Timestamp
    let acknowledgedAt: Timestamp?

    package var json: JSONObject {
        var json: JSONObject = [
            "alert_id": .string(id), "message": .string(message), "severity": .string(severity),
            "created_at": .string(createdAt.rfc3339), "acknowledged": .bool(acknowledgedAt != nil),
        ]
        if let acknowledgedAt { json["acknowledged_at"] = .string(acknowledgedAt.rfc3339) }
        return json
    }
}

package enum AlertTable {
    static let columns = "id, message, severity, created_at, acknowledged_at"

    static func alert(_ row: SQLRow) -> Alert {
        Alert(
            id: row.text(0), message: row.text(1), severity: row.text(2),
            createdAt: Timestamp(microseconds: row.int(3)),
            acknowledgedAt: row.optionalInt(4).map(Timestamp.init(microseconds:)))
    }

    static func insert(_ tx: WriteTx, _ message: String, _ severity: String, _ context: CallContext) throws -> Alert {
        try insert(tx, message, severity: severity, agent: context.agent.text, now: context.clock.now())
    }

    @discardableResult
    package static func insert(
        _ tx: WriteTx, _ message: String, severity: String, agent: String, now: Timestamp
    ) throws -> Alert {
        let number = try tx.first("SELECT coalesce(max(number), 0) + 1 FROM alerts") { $0.int(0) } ?? 1
        let digits = "\(number)"
        let id = "al_" + String(repeating: "0", count: max(0, 3 - digits.utf8.count)) + digits
        try tx.execute(
            "INSERT INTO alerts (number, id, agent, message, severity, created_at) VALUES (?, ?, ?, ?, ?, ?)",
            [
                .int(number), .text(id), .text(agent), .text(message), .text(severity),
                .int(now.microseconds),
            ])
        return Alert(id: id, message: message, severity: severity, createdAt: now, acknowledgedAt: nil)
    }

    static let schema: ObjectSchema = [
        .required("alert_id", .text, "The alert."), .required("message", .string(maxLength: 4096), "What it says."),
        .required("severity", .choice(["info", "warning", "critical"]), "How bad."),
        .required("created_at", .text, "RFC 3339 time."),
        .required("acknowledged", .boolean, "Whether it has been dealt with."),
        .optional("acknowledged_at", .text, "RFC 3339 time of that."),
    ]
}
