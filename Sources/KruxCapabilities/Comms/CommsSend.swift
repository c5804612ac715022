package import KruxCore
package import KruxStore

package struct CommsSend: ChangingCapability {
    package static let declaration = CapabilityDeclaration(
        "comms.send", "Sends a message to another agent.", whenToUse: "To hand over work.", effect: .write,
        sideEffects: ["the message waits for its reader"], tier: .notify,
        input: [
            .required("to", .string(minLength: 1, maxLength: 63), "The agent.", role: .recipient), CommsSchema.message,
        ], output: CommsSchema.sent,
        errors: [
            .init(.notFound, when: "there is no such agent", recovery: "ask which agents there are"),
            .init(.overloaded, when: "the reader does not read", recovery: "wait"),
        ])

    package struct Input: CapabilityInput {
        let recipient: String, message: String

        package init(_ arguments: Arguments) throws(StructuredError) {
            recipient = try arguments.text("to")
            message = try arguments.text("message")
        }
    }

    package func change(_ input: Input, _ context: CallContext, _ tx: WriteTx) throws -> Sent {
        let id = MessageTable.newID()
        try MessageTable.send(
            tx, from: context.agent.text, to: input.recipient, topic: nil, input.message, id: id,
            at: context.clock.now())
        return Sent(id: id, recipients: 1)
    }
}
