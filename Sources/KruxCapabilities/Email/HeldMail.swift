package import KruxCore
package import KruxStore

/// Mail that waits for its time, in which it can be taken back.
package struct HeldMail: Sendable {
    package let id: String, agent: String, account: String
    /// The request that a person approved it by.
    package let approval: String?
    package let arguments: JSONObject
    package let sendAt: Timestamp

    package static func isID(_ text: String) -> Bool { text.hasPrefix("ml_") }

    package init(
        id: String, agent: String, account: String, approval: String?, arguments: JSONObject, sendAt: Timestamp
    ) {
        self.id = id
        self.agent = agent
        self.account = account
        self.approval = approval
        self.arguments = arguments
        self.sendAt = sendAt
    }
}

/// The table of held mail. Each change is made in the caller's transaction, beside its row of the record.
package enum HeldMailTable {
    package static let mostOfAgent: Int64 = 20

    package static func insert(
        _ tx: WriteTx, agent: String, account: String, approval: String?, _ message: JSONObject, now: Timestamp,
        sendAt: Timestamp
    ) throws -> HeldMail {
        let held =
            try tx.first(
                "SELECT count(*) FROM held_mail WHERE agent = ? AND state = 'held'", [.text(agent)]
            ) { $0.int(0) } ?? 0
        guard held < mostOfAgent else {
            throw StructuredError(
                .tooLarge, "\(held) messages of yours are held already", recovery: ["Wait until they are sent."],
                retryable: true, retryAfter: 60)
        }
        let number = try tx.first("SELECT coalesce(max(number), 0) + 1 FROM held_mail") { $0.int(0) } ?? 1
        let digits = "\(number)"
        let id = "ml_" + String(repeating: "0", count: max(0, 3 - digits.utf8.count)) + digits
        try tx.execute(
            "INSERT INTO held_mail (number, id, agent, account, approval, message, state, created_at, send_at) VALUES (?, ?, ?, ?, ?, ?, 'held', ?, ?)",
            [
                .int(number), .text(id), .text(agent), .text(account), .optional(approval),
                .text(JSONValue.object(message).canonicalText), .int(now.microseconds), .int(sendAt.microseconds),
            ])
        return HeldMail(id: id, agent: agent, account: account, approval: approval, arguments: message, sendAt: sendAt)
    }

    /// Held ones whose time has come. One whose content cannot be read fits no schema, and fails when it is sent.
    package static func due(_ tx: any ReadTx, at now: Timestamp) throws -> [HeldMail] {
        try tx.rows(
            "SELECT id, agent, account, message, send_at, approval FROM held_mail WHERE state = 'held' AND send_at <= ? ORDER BY send_at, number LIMIT 100",
            [.int(now.microseconds)]
        ) {
            HeldMail(
                id: $0.text(0), agent: $0.text(1), account: $0.text(2), approval: $0.optionalText(5),
                arguments: (try? JSONParser.parse($0.text(3)))?.object ?? [:],
                sendAt: Timestamp(microseconds: $0.int(4)))
        }
    }

    package static func nextDue(_ tx: any ReadTx) throws -> Timestamp? {
        try tx.first("SELECT min(send_at) FROM held_mail WHERE state = 'held'") { $0.optionalInt(0) }.flatMap { $0 }
            .map(Timestamp.init(microseconds:))
    }

    /// Those that were being sent when the gateway stopped.
    package static func interrupted(_ tx: any ReadTx) throws -> [(id: String, agent: String)] {
        try tx.rows("SELECT id, agent FROM held_mail WHERE state = 'sending' ORDER BY number") {
            ($0.text(0), $0.text(1))
        }
    }

    /// From one state to another; what it says is forgotten once it has ended.
    /// - Throws: `StructuredError` `.conflict` where it is in another state.
    package static func move(_ tx: WriteTx, _ id: String, from: String, to: String, error: String? = nil) throws {
        let isEnded = to != "held" && to != "sending"
        let count = try tx.execute(
            "UPDATE held_mail SET state = ?, error = ?, message = iif(?, NULL, message) WHERE id = ? AND state = ?",
            [.text(to), .optional(error), .int(isEnded ? 1 : 0), .text(id), .text(from)])
        guard count == 1 else {
            throw StructuredError(
                .conflict, "`\(id)` is not \(from) any more", recovery: ["It has been sent, or taken back before."])
        }
    }
}
