package import KruxCore

package struct EmailSearch: Capability {
    package static let declaration = CapabilityDeclaration(
        "email.search", "Finds messages of a folder by a text in their headers or body.",
        whenToUse: "To find one by sender, subject or text.", effect: .read, tier: .autonomous,
        input: ObjectSchema(
            [
                .required("query", .string(minLength: 1, maxLength: 1024), "What must stand in them."),
                EmailSchema.folder, EmailSchema.limit,
            ] + MailAccount.properties), output: EmailSchema.headers,
        errors: MailAccount.errors + [EmailSchema.unknown], connects: true)

    package struct Input: CapabilityInput {
        let account: String, folder: String, limit: Int64, query: String

        package init(_ arguments: Arguments) throws(StructuredError) {
            account = try arguments.text("account")
            folder = try arguments.text("folder")
            limit = try arguments.int("limit")
            query = try arguments.text("query")
        }
    }

    package struct Output: CapabilityOutput {
        let list: MailList
        package var json: JSONObject { list.json }
    }

    package func run(_ input: Input, _ context: CallContext) async throws(StructuredError) -> Output {
        Output(
            list: try await MailList.read(
                try MailAccount(input.account, context), input.folder, input.query, Int(input.limit)))
    }
}
