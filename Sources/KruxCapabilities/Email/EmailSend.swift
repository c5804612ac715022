package import KruxCore

package struct EmailSend: Capability {
    package static let declaration = CapabilityDeclaration(
        "email.send", "Sends a message, at once or after a time in which it can be taken back with email.delete.",
        whenToUse: "When somebody outside must hear of it.", effect: .external,
        sideEffects: ["the message reaches its recipients"], tier: .approvalRequired,
        input: ObjectSchema(
            OutgoingMail.properties + [
                .optional(
                    "undo_for", .integer(0...86_400), "Seconds to hold it, in which it can be taken back.", default: 0)
            ] + MailAccount.properties),
        output: [
            .required("state", .choice(["sent", "held"]), "Whether it is on its way."),
            .required("message_id", .string(maxLength: 1024), "Its header id, or what takes it back while it is held."),
            .optional("send_at", .text, "RFC 3339 time at which a held one is sent."),
        ],
        errors: MailAccount.errors + [
            .init(.conflict, when: "the server refuses it or a recipient", recovery: "read what it says")
        ], connects: true)

    package struct Input: CapabilityInput {
        let account: String, mail: OutgoingMail, undoSeconds: Int64

        package init(_ arguments: Arguments) throws(StructuredError) {
            account = try arguments.text("account")
            mail = try OutgoingMail(arguments)
            undoSeconds = try arguments.int("undo_for")
        }
    }

    package struct Output: CapabilityOutput {
        package let json: JSONObject
    }

    package func run(_ input: Input, _ context: CallContext) async throws(StructuredError) -> Output {
        // What cannot be sent is not held, either.
        let account = try MailAccount(input.account, context)
        guard input.undoSeconds > 0 else {
            return Output(
                json: ["state": "sent", "message_id": .string(try await Self.send(input.mail, account, context.clock))])
        }
        let held = try await context.host.holdMail(input.account, input.mail, input.undoSeconds, context.approval)
        return Output(
            json: ["state": "held", "message_id": .string(held.id), "send_at": .string(held.sendAt.rfc3339)])
    }

    /// Sends held mail, with the arguments of the call that wrote it.
    /// - Returns: its header id.
    package static func deliver(_ arguments: JSONObject, _ context: CallContext) async throws(StructuredError) -> String
    {
        let input = try Input(Arguments(arguments))
        return try await send(input.mail, try MailAccount(input.account, context), context.clock)
    }

    /// - Returns: its header id.
    static func send(_ mail: OutgoingMail, _ account: MailAccount, _ clock: WallClock) async throws(StructuredError)
        -> String
    {
        let (message, id) = mail.message(from: account.from, at: clock.now())
        try await MailAccount.speak(account.smtp) {
            try await SMTPClient.send(message, to: mail.recipients, account)
        }
        return id
    }

    package func preview(_ input: Input, _ context: CallContext) throws(StructuredError) -> Preview {
        let mail = input.mail
        let copies = mail.cc.isEmpty ? "" : ", copies to \(mail.cc.joined(separator: ", "))"
        let blind = mail.bcc.isEmpty ? "" : ", blind copies to \(mail.bcc.joined(separator: ", "))"
        let held = input.undoSeconds == 0 ? "" : ", held for \(input.undoSeconds) s"
        return Preview(
            "Sends mail to \(mail.to.joined(separator: ", "))\(copies)\(blind)\(held)", .files,
            (["Subject: \(String(mail.subject.map { $0.isNewline ? " " : $0 }))", ""]
                + mail.body.split(separator: "\n", omittingEmptySubsequences: false).map(String.init))
                .map { context.scrub($0) })
    }
}
