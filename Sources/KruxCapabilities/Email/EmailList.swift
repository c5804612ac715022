package import KruxCore

package struct EmailList: Capability {
    package static let declaration = CapabilityDeclaration(
        "email.list", "Lists messages of a folder, newest first, without marking them as read.",
        whenToUse: "To see what came in.", effect: .read, tier: .autonomous,
        input: ObjectSchema([EmailSchema.folder, EmailSchema.limit] + MailAccount.properties),
        output: EmailSchema.headers, errors: MailAccount.errors + [EmailSchema.unknown], connects: true)

    package struct Input: CapabilityInput {
        let account: String, folder: String, limit: Int64

        package init(_ arguments: Arguments) throws(StructuredError) {
            account = try arguments.text("account")
            folder = try arguments.text("folder")
            limit = try arguments.int("limit")
        }
    }

    package struct Output: CapabilityOutput {
        let list: MailList
        package var json: JSONObject { list.json }
    }

    package func run(_ input: Input, _ context: CallContext) async throws(StructuredError) -> Output {
        Output(
            list: try await MailList.read(
                try MailAccount(input.account, context), input.folder, nil, Int(input.limit)))
    }
}
