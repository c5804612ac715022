package import KruxCore

package struct EmailDelete: Capability {
    package static let declaration = CapabilityDeclaration(
        "email.delete",
        "Deletes a message: into the account's bin, or for good where it is there already. Takes back one that is held.",
        whenToUse: "To remove what is not needed, or to cancel email.send within its undo_for.", effect: .destructive,
        sideEffects: ["the message is in the bin, or gone"], tier: .approvalRequired,
        input: ObjectSchema([EmailSchema.identifier] + MailAccount.properties),
        output: [
            .required("message_id", .string(maxLength: 1024), "The message."),
            .required("state", .choice(["binned", "deleted", "cancelled"]), "What became of it."),
            .optional("folder", .string(maxLength: 1024), "The bin."),
        ], errors: MailAccount.errors + [EmailSchema.unknown], connects: true)

    package struct Input: CapabilityInput {
        let account: String, text: String

        package init(_ arguments: Arguments) throws(StructuredError) {
            account = try arguments.text("account")
            text = try arguments.text("message_id")
        }
    }

    package struct Output: CapabilityOutput {
        package let json: JSONObject
    }

    package func run(_ input: Input, _ context: CallContext) async throws(StructuredError) -> Output {
        let text = input.text
        if HeldMail.isID(text) {
            try await context.host.cancelMail(text)
            return Output(json: ["message_id": .string(text), "state": "cancelled"])
        }
        let id = try MessageID(text)
        return try await MailAccount(input.account, context).read { client in
            try await id.open(&client, readOnly: false)
            guard try await client.fetch([id.number], "FLAGS")[id.number] != nil else {
                throw MessageID.unknown(text)
            }
            let bin = try await client.delete(id.number, from: id.folder)
            var json: JSONObject = ["message_id": .string(text), "state": bin == nil ? "deleted" : "binned"]
            if let bin { json["folder"] = .string(bin) }
            return Output(json: json)
        }
    }
}
