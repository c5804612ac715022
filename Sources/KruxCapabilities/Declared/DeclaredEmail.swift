import KruxCore

/// Declared now, so that policies can cover them; not yet done by this version.
enum DeclaredEmail {
    private static let identifier = Property.required(
        "message_id", .string(minLength: 1, maxLength: 1024), "The message.")
    private static let folder = Property.optional(
        "folder", .string(minLength: 1, maxLength: 256), "The folder.", default: "INBOX")
    private static let limit = Property.optional("limit", .integer(1...1000), "Most messages.", default: 50)
    private static let addresses = SchemaType.array(.string(minLength: 3, maxLength: 320), maxItems: 100)
    private static let header: ObjectSchema = [
        .required("message_id", .text, "The message."), .required("from", .text, "Sender."),
        .required("to", addresses, "Recipients."), .required("subject", .text, "Subject."),
        .required("date", .text, "RFC 3339 time."), .required("unread", .boolean, "Whether it was read."),
    ]
    private static let headers: ObjectSchema = [
        .required("messages", .array(.object(header), maxItems: 1000), "Newest first.")
    ]
    private static let outgoing: [Property] = [
        .required("to", addresses, "Recipients.", role: .recipient),
        .optional("cc", addresses, "Copies.", default: [], role: .recipient),
        .optional("bcc", addresses, "Blind copies.", default: [], role: .recipient),
        .required("subject", .string(maxLength: 998), "Subject."),
        .required("body", .string(maxLength: 1 << 20), "Plain text."),
        .optional("in_reply_to", .string(maxLength: 1024), "The message this answers."),
    ]

    static let all = [
        CapabilityDeclaration(
            "email.list", "Lists messages of a folder.", whenToUse: "To see what came in.", effect: .read,
            tier: .autonomous, input: [folder, limit], output: headers),
        CapabilityDeclaration(
            "email.search", "Finds messages.", whenToUse: "To find one by sender, subject or text.", effect: .read,
            tier: .autonomous,
            input: [.required("query", .string(minLength: 1, maxLength: 1024), "What to find."), folder, limit],
            output: headers),
        CapabilityDeclaration(
            "email.read", "Reads a message.", whenToUse: "To see its text.", effect: .read, tier: .autonomous,
            input: [identifier],
            output: [
                .required("header", .object(header), "Its header."),
                .required("body", .string(maxLength: 8 << 20), "Its text."),
                .required("attachments", .array(.text, maxItems: 1000), "Names of attachments."),
            ]),
        CapabilityDeclaration(
            "email.draft", "Saves a draft.", whenToUse: "To let a person send it.", effect: .write,
            sideEffects: ["a draft is saved"], tier: .notify, input: ObjectSchema(outgoing),
            output: [.required("message_id", .text, "The draft.")]),
        CapabilityDeclaration(
            "email.send", "Sends a message.", whenToUse: "When somebody outside must hear of it.", effect: .external,
            sideEffects: ["the message reaches its recipients"], tier: .approvalRequired, input: ObjectSchema(outgoing),
            output: [.required("message_id", .text, "The message.")]),
        CapabilityDeclaration(
            "email.delete", "Deletes a message.", whenToUse: "To remove what is not needed.", effect: .destructive,
            sideEffects: ["the message is gone"], tier: .approvalRequired, input: [identifier],
            output: [.required("message_id", .text, "The message.")]),
    ]
}
