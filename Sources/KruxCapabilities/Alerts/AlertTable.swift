package import KruxCore
import KruxStore

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

enum AlertTable {
    static let columns = "id, message, severity, created_at, acknowledged_at"

    static func alert(_ row: SQLRow) -> Alert {
        Alert(
            id: row.text(0), message: row.text(1), severity: row.text(2),
            createdAt: Timestamp(microseconds: row.int(3)),
            acknowledgedAt: row.optionalInt(4).map(Timestamp.init(microseconds:)))
    }

    static let schema: ObjectSchema = [
        .required("alert_id", .text, "The alert."), .required("message", .string(maxLength: 4096), "What it says."),
        .required("severity", .choice(["info", "warning", "critical"]), "How bad."),
        .required("created_at", .text, "RFC 3339 time."),
        .required("acknowledged", .boolean, "Whether it has been dealt with."),
        .optional("acknowledged_at", .text, "RFC 3339 time of that."),
    ]
}
