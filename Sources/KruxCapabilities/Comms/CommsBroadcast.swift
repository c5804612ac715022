package import KruxCore
package import KruxStore

package struct CommsBroadcast: ChangingCapability {
    package static let declaration = CapabilityDeclaration(
        "comms.broadcast", "Sends a message to everybody who listens to a topic.",
        whenToUse: "To tell several agents at once.", effect: .write,
        sideEffects: ["the message waits for its readers"], tier: .notify,
        input: [CommsSchema.topic, CommsSchema.message], output: CommsSchema.sent,
        errors: [.init(.overloaded, when: "a reader does not read", recovery: "wait")])

    package struct Input: CapabilityInput {
        let topic: String, message: String

        package init(_ arguments: Arguments) throws(StructuredError) {
            topic = try arguments.text("topic")
            message = try arguments.text("message")
        }
    }

    package func change(_ input: Input, _ context: CallContext, _ tx: WriteTx) throws -> Sent {
        // Not to the sender, and not to who is revoked.
        let readers = try tx.rows(
            "SELECT agent FROM subscriptions JOIN agents ON agents.name = subscriptions.agent WHERE topic = ? AND agent <> ? AND agents.status = 'active' ORDER BY agent",
            [.text(input.topic), .text(context.agent.text)]
        ) { $0.text(0) }
        var first = ""
        for reader in readers {
            let id = MessageTable.newID()
            if first.isEmpty { first = id }
            try MessageTable.send(
                tx, from: context.agent.text, to: reader, topic: input.topic, input.message, id: id,
                at: context.clock.now())
        }
        return Sent(id: first, recipients: readers.count)
    }
}
