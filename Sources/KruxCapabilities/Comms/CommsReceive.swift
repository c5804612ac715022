package import KruxCore
package import KruxStore

package struct CommsReceive: ChangingCapability {
    package static let declaration = CapabilityDeclaration(
        "comms.receive", "Gives you the messages that wait for you, until you say that you have dealt with them.",
        whenToUse: "To see what others want; then again with `acknowledge`.", effect: .write,
        sideEffects: ["acknowledged messages are gone"], tier: .autonomous,
        input: [
            .optional(
                "acknowledge", .array(.string(minLength: 1, maxLength: 64), maxItems: 1000),
                "Messages that you have dealt with.", default: []),
            .optional("limit", .integer(0...1000), "Most messages; 0 only acknowledges.", default: 100),
            .optional("wait_seconds", .integer(0...300), "Wait for one to come.", default: 0),
        ],
        output: [
            .required(
                "messages",
                .array(
                    .object([
                        .required("message_id", .text, "The message."), .required("from", .text, "Its sender."),
                        .optional("topic", .text, "Its topic."),
                        .required("message", .string(maxLength: 64 << 10), "What it says."),
                        .required("sent_at", .text, "RFC 3339 time."),
                        .required("deliveries", .count, "How often you got it, this time included."),
                    ]), maxItems: 1000), "Oldest first."),
            .required("acknowledged", .count, "How many of those named were waiting, and are gone."),
            .required("waiting", .count, "How many more there are."),
        ])

    package struct Input: CapabilityInput {
        let acknowledged: [String], limit: Int64, patience: Int64

        package init(_ arguments: Arguments) throws(StructuredError) {
            acknowledged = try arguments.texts("acknowledge")
            limit = try arguments.int("limit")
            patience = try arguments.int("wait_seconds")
        }
    }

    package struct Output: CapabilityOutput {
        let messages: [JSONValue], acknowledged: Int, waiting: Int64

        package var json: JSONObject {
            ["messages": .array(messages), "acknowledged": .int(Int64(acknowledged)), "waiting": .int(waiting)]
        }
    }

    package func patience(_ input: Input) -> Int64 { input.patience }

    package func isReady(_ input: Input, _ context: CallContext, _ tx: any ReadTx) throws -> Bool {
        let waiting = try tx.rows(
            "SELECT id FROM messages WHERE recipient = ? ORDER BY number LIMIT ?",
            [.text(context.agent.text), .int(Int64(input.acknowledged.count) + 1)]
        ) { $0.text(0) }
        return waiting.contains { id in !input.acknowledged.contains { $0.utf8Equals(id) } }
    }

    package func change(_ input: Input, _ context: CallContext, _ tx: WriteTx) throws -> Output {
        let agent = SQLValue.text(context.agent.text)
        var acknowledged = 0
        for id in input.acknowledged {
            acknowledged += try tx.execute("DELETE FROM messages WHERE id = ? AND recipient = ?", [.text(id), agent])
        }
        var last: Int64 = 0
        let messages = try tx.rows(
            "SELECT number, id, sender, topic, body, sent_at, deliveries FROM messages WHERE recipient = ? ORDER BY number LIMIT ?",
            [agent, .int(input.limit)]
        ) { row -> JSONValue in
            last = row.int(0)
            var message: JSONObject = [
                "message_id": .string(row.text(1)), "from": .string(row.text(2)), "message": .string(row.text(4)),
                "sent_at": .string(Timestamp(microseconds: row.int(5)).rfc3339), "deliveries": .int(row.int(6) + 1),
            ]
            if let topic = row.optionalText(3) { message["topic"] = .string(topic) }
            return .object(message)
        }
        try tx.execute(
            "UPDATE messages SET deliveries = deliveries + 1 WHERE recipient = ? AND number <= ?", [agent, .int(last)])
        let all = try tx.first("SELECT count(*) FROM messages WHERE recipient = ?", [agent]) { $0.int(0) } ?? 0
        return Output(messages: messages, acknowledged: acknowledged, waiting: all - Int64(messages.count))
    }
}
