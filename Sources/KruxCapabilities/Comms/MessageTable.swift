package import KruxCore
import KruxCrypto
import KruxStore

/// Messages between agents: each waits until its reader says that they have dealt with it, over restarts as well.
enum MessageTable {
    /// Of one reader.
    static let mostWaiting: Int64 = 10_000
    static let mostTopics = 1000

    /// - Throws: `StructuredError` `.notFound` for no agent, `.overloaded` for one whose messages are not read.
    static func send(
        _ tx: WriteTx, from sender: String, to recipient: String, topic: String?, _ body: String, id: String,
        at now: Timestamp
    ) throws {
        let known = try tx.first(
            "SELECT 1 FROM agents WHERE name = ? AND status = 'active'", [.text(recipient)]
        ) { $0.int(0) }
        guard known != nil else {
            throw StructuredError(
                .notFound, "there is no agent `\(recipient.prefix(63))`",
                recovery: ["Ask your supervisor which agents there are."])
        }
        let waiting = try tx.first(
            "SELECT count(*) FROM (SELECT 1 FROM messages WHERE recipient = ? LIMIT ?)",
            [.text(recipient), .int(mostWaiting)]
        ) { $0.int(0) }
        guard waiting ?? 0 < mostWaiting else {
            throw StructuredError(
                .overloaded, "`\(recipient)` has \(mostWaiting) messages that it has not dealt with",
                recovery: ["Wait until it reads them, or tell your supervisor."], retryable: true, retryAfter: 60)
        }
        try tx.execute(
            "INSERT INTO messages (id, sender, recipient, topic, body, sent_at) VALUES (?, ?, ?, ?, ?, ?)",
            [.text(id), .text(sender), .text(recipient), .optional(topic), .text(body), .int(now.microseconds)])
    }

    static func newID() -> String { "ms_" + randomBytes(8).hex }
}

enum CommsSchema {
    static let message = Property.required(
        "message", .string(minLength: 1, maxLength: 64 << 10), "What to say.")
    static let topic = Property.required("topic", .string(minLength: 1, maxLength: 128), "The topic.")
    static let sent: ObjectSchema = [
        .required("message_id", .text, "The message; of a broadcast the first one, empty where nobody listens."),
        .required("recipients", .count, "How many get it."),
    ]
}

/// Who a message went to.
package struct Sent: CapabilityOutput {
    let id: String, recipients: Int
    package var json: JSONObject { ["message_id": .string(id), "recipients": .int(Int64(recipients))] }
}
