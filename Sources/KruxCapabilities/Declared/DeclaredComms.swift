import KruxCore

/// Declared now, so that policies can cover them; not yet done by this version.
enum DeclaredComms {
    private static let body = Property.required("message", .string(minLength: 1, maxLength: 64 << 10), "What to say.")
    private static let topic = Property.required("topic", .string(minLength: 1, maxLength: 128), "The topic.")
    private static let sent: ObjectSchema = [
        .required("message_id", .text, "The message."), .required("recipients", .count, "How many get it."),
    ]

    static let all = [
        CapabilityDeclaration(
            "comms.send", "Sends a message to another agent.", whenToUse: "To hand over work.", effect: .write,
            sideEffects: ["the message waits for its reader"], tier: .notify,
            input: [.required("to", .string(minLength: 1, maxLength: 63), "The agent.", role: .recipient), body],
            output: sent),
        CapabilityDeclaration(
            "comms.broadcast", "Sends a message to everybody who listens to a topic.",
            whenToUse: "To tell several agents at once.", effect: .write,
            sideEffects: ["the message waits for its readers"], tier: .notify, input: [topic, body], output: sent),
        CapabilityDeclaration(
            "comms.subscribe", "Listens to a topic.", whenToUse: "Before comms.receive.", effect: .write,
            sideEffects: ["messages on the topic wait for you"], tier: .autonomous, input: [topic],
            output: [.required("topic", .text, "The topic.")]),
        CapabilityDeclaration(
            "comms.receive", "Takes messages that wait for you.", whenToUse: "To see what others want.",
            effect: .read, tier: .autonomous,
            input: [
                .optional("limit", .integer(1...1000), "Most messages.", default: 100),
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
                        ]), maxItems: 1000), "Oldest first.")
            ]),
    ]
}
