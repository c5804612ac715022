package import KruxCore
package import KruxStore

package struct CommsSubscribe: ChangingCapability {
    package static let declaration = CapabilityDeclaration(
        "comms.subscribe", "Listens to a topic, or no longer.", whenToUse: "Before comms.receive.", effect: .write,
        sideEffects: ["messages on the topic wait for you from now on"], tier: .autonomous,
        input: [CommsSchema.topic, .optional("end", .boolean, "Listen no longer.", default: false)],
        output: [
            .required("topic", .text, "The topic."),
            .required("topics", .array(.text, maxItems: 1000), "What you listen to now."),
        ], errors: [.init(.tooLarge, when: "you listen to 1,000 topics", recovery: "end some")])

    package struct Input: CapabilityInput {
        let topic: String, ends: Bool

        package init(_ arguments: Arguments) throws(StructuredError) {
            topic = try arguments.text("topic")
            ends = try arguments.bool("end")
        }
    }

    package struct Output: CapabilityOutput {
        let topic: String, topics: [String]
        package var json: JSONObject { ["topic": .string(topic), "topics": .strings(topics)] }
    }

    package func change(_ input: Input, _ context: CallContext, _ tx: WriteTx) throws -> Output {
        let agent = SQLValue.text(context.agent.text)
        if input.ends {
            try tx.execute("DELETE FROM subscriptions WHERE agent = ? AND topic = ?", [agent, .text(input.topic)])
        } else {
            try tx.execute(
                "INSERT INTO subscriptions (agent, topic, since) VALUES (?, ?, ?) ON CONFLICT DO NOTHING",
                [agent, .text(input.topic), .int(context.clock.now().microseconds)])
        }
        let topics = try tx.rows("SELECT topic FROM subscriptions WHERE agent = ? ORDER BY topic", [agent]) {
            $0.text(0)
        }
        guard topics.count <= MessageTable.mostTopics else {
            throw StructuredError(
                .tooLarge, "you listen to \(MessageTable.mostTopics) topics already", recovery: ["End some."])
        }
        return Output(topic: input.topic, topics: topics)
    }
}
