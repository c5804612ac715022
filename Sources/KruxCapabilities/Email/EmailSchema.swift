import KruxCore

/// What the capabilities on mail have in common.
enum EmailSchema {
    static let folder = Property.optional(
        "folder", .string(minLength: 1, maxLength: 256), "The folder.", default: "INBOX")
    static let limit = Property.optional("limit", .integer(1...500), "Most messages.", default: 50)
    static let identifier = Property.required(
        "message_id", .string(minLength: 1, maxLength: 1024), "The message, as email.list names it.")

    static let header: ObjectSchema = [
        .required("message_id", .string(maxLength: 1024), "What email.read and email.delete need."),
        .required("from", .string(maxLength: 32 << 10), "Sender."),
        .required("to", .array(.string(maxLength: 32 << 10), maxItems: 1000), "Recipients."),
        .required("subject", .string(maxLength: 32 << 10), "Subject."),
        .required("date", .string(maxLength: 1024), "RFC 3339 time; as it stands where it is no date."),
        .required("unread", .boolean, "Whether nobody has read it."),
        .required("bytes", .count, "Its size."),
    ]

    static let headers: ObjectSchema = [
        .required("messages", .array(.object(header), maxItems: 500), "Newest first."),
        .required("total", .count, "How many there are."),
    ]

    static let unknown = CapabilityDeclaration.DeclaredError(
        .notFound, when: "there is no such message or folder", recovery: "list them again")
}

/// Names a message over the time that its folder keeps its numbers.
struct MessageID: Sendable, Equatable {
    let folder: String
    let validity: Int64, number: Int64

    var text: String { "\(validity)/\(number)/\(folder)" }

    init(folder: String, validity: Int64, number: Int64) {
        self.folder = folder
        self.validity = validity
        self.number = number
    }

    init(_ text: String) throws(StructuredError) {
        let parts = text.split(separator: "/", maxSplits: 2, omittingEmptySubsequences: false)
        guard parts.count == 3, let validity = Int64(parts[0]), let number = Int64(parts[1]), number > 0,
            !parts[2].isEmpty
        else { throw Self.unknown(text) }
        self.init(folder: String(parts[2]), validity: validity, number: number)
    }

    static func unknown(_ text: String) -> StructuredError {
        StructuredError(
            .notFound, "there is no message `\(text.prefix(100))`", recovery: ["List the folder again with email.list."]
        )
    }

    /// Opens its folder, if its numbers still hold.
    func open(_ client: inout IMAPClient, readOnly: Bool) async throws {
        guard try await client.open(folder, readOnly: readOnly) == validity else { throw Self.unknown(text) }
    }
}

/// Headers of messages, newest first.
struct MailList: CapabilityOutput {
    let messages: [JSONValue]
    let total: Int

    var json: JSONObject { ["messages": .array(messages), "total": .int(Int64(total))] }

    /// - Parameter query: nil for all.
    static func read(_ account: MailAccount, _ folder: String, _ query: String?, _ limit: Int)
        async throws(StructuredError) -> MailList
    {
        try await account.read { client in
            let validity = try await client.open(folder, readOnly: true)
            let numbers = try await client.search(query)
            let newest = Array(numbers.suffix(limit))
            let found = try await client.fetch(
                newest, "FLAGS RFC822.SIZE BODY.PEEK[HEADER.FIELDS (FROM TO SUBJECT DATE)]")
            let messages = try await MailMessage.reading {
                newest.reversed().compactMap { number in
                    found[number].map { header($0, MessageID(folder: folder, validity: validity, number: number)) }
                }
            }
            return MailList(messages: messages, total: numbers.count)
        }
    }

    static func header(_ members: [String: IMAPClient.Value], _ id: MessageID) -> JSONValue {
        let bytes = members.first { $0.key.hasPrefix("BODY[") }?.value.bytes ?? []
        let message = MailMessage(bytes)
        let flags = members["FLAGS"]?.list ?? []
        return [
            "message_id": .string(id.text), "from": .string(message.from), "to": .strings(message.to),
            "subject": .string(message.subject), "date": .string(message.date),
            "unread": .bool(!flags.contains { $0.text?.lowercased() == "\\seen" }),
            "bytes": .int(members["RFC822.SIZE"]?.text.flatMap { Int64($0) } ?? Int64(bytes.count)),
        ]
    }
}
