package import KruxCore

package struct EmailDraft: Capability {
    package static let declaration = CapabilityDeclaration(
        "email.draft", "Saves a draft in the account's folder for drafts.", whenToUse: "To let a person send it.",
        effect: .write, sideEffects: ["a draft is saved"], tier: .notify,
        input: ObjectSchema(OutgoingMail.properties + MailAccount.properties),
        output: [
            .required("folder", .string(maxLength: 1024), "Where it is."),
            .optional("message_id", .string(maxLength: 1024), "The draft, where the server names it."),
            .required("message_header_id", .string(maxLength: 1024), "Its header id."),
        ], errors: MailAccount.errors, connects: true)

    package struct Input: CapabilityInput {
        let account: String, mail: OutgoingMail

        package init(_ arguments: Arguments) throws(StructuredError) {
            account = try arguments.text("account")
            mail = try OutgoingMail(arguments)
        }
    }

    package struct Output: CapabilityOutput {
        package let json: JSONObject
    }

    package func run(_ input: Input, _ context: CallContext) async throws(StructuredError) -> Output {
        let account = try MailAccount(input.account, context)
        let (message, headerID) = input.mail.message(from: account.from, at: context.clock.now())
        return try await account.read { client in
            let folder = try await client.folder(for: "\\Drafts", else: "Drafts")
            let number = try await client.append(message, to: folder, flags: "\\Draft \\Seen")
            var json: JSONObject = ["folder": .string(folder), "message_header_id": .string(headerID)]
            if let number {
                let validity = try await client.open(folder, readOnly: true)
                json["message_id"] = .string(MessageID(folder: folder, validity: validity, number: number).text)
            }
            return Output(json: json)
        }
    }
}
