package import KruxCore
import KruxCrypto

/// Text or base64, as bytes.
struct Content: Sendable {
    let bytes: [UInt8]

    init(_ arguments: Arguments) throws(StructuredError) {
        let text = try arguments.text("content")
        guard try arguments.text("encoding") == "base64" else {
            bytes = Array(text.utf8)
            return
        }
        guard let decoded = Base64.decode(text) else {
            throw StructuredError(
                .invalidArguments, "`content` is no padded base64",
                recovery: ["Encode it again with padding and without line breaks, or send text with encoding: utf8."])
        }
        bytes = decoded
    }

    static let properties: [Property] = [
        .required(
            "content", .string(maxLength: 12 << 20), "What to write, in the given encoding.",
            role: .content(encoding: "encoding")),
        .optional("encoding", .choice(["utf8", "base64"]), "How content is given.", default: "utf8"),
    ]
}

package struct FilesystemWrite: Capability {
    package static let declaration = CapabilityDeclaration(
        "filesystem.write", "Writes a whole file in one step, replacing what was there.",
        whenToUse: "To create a file or replace all of it; use filesystem.append to add to its end.", effect: .write,
        sideEffects: ["creates or replaces the file"], tier: .notify,
        input: ObjectSchema(
            [FileSchema.path("The file to write.")] + Content.properties + [
                .optional("overwrite", .boolean, "Whether an existing file may be replaced.", default: true),
                .optional("create_parents", .boolean, "Make missing folders above it.", default: false),
                .optional("durable", .boolean, "Wait until the file is on the disk.", default: false),
            ]),
        output: [
            .required("path", .text, "The canonical path that was written."),
            .required("bytes", .count, "Bytes written."),
            .required("created", .boolean, "Whether the file is new."),
            .required("sha256", .text, "SHA-256 of the content, hexadecimal."),
        ],
        errors: [FileSchema.outside, FileSchema.exists, FileSchema.wrongType, FileSchema.full, FileSchema.missing])

    package struct Input: CapabilityInput {
        let path: String, content: Content, overwrite: Bool, createParents: Bool, durable: Bool

        package init(_ arguments: Arguments) throws(StructuredError) {
            path = try arguments.text("path")
            content = try Content(arguments)
            overwrite = try arguments.bool("overwrite")
            createParents = try arguments.bool("create_parents")
            durable = try arguments.bool("durable")
        }
    }

    package struct Output: CapabilityOutput {
        let path: String, bytes: Int, created: Bool, sha256: String

        package var json: JSONObject {
            [
                "path": .string(path), "bytes": .int(Int64(bytes)), "created": .bool(created),
                "sha256": .string(sha256),
            ]
        }
    }

    package func run(_ input: Input, _ context: CallContext) async throws(StructuredError) -> Output {
        let path = try context.workspace.place(input.path)
        try context.workspace.requireChangeable(path, context.protected)
        if input.createParents, !path.isRoot { try context.workspace.makeFolders(context.workspace.folder(of: path)) }
        let created = try context.workspace.writeAtomically(
            path, input.content.bytes, replace: input.overwrite, durable: input.durable)
        return Output(
            path: path.absolute, bytes: input.content.bytes.count, created: created,
            sha256: sha256(input.content.bytes).hex)
    }

    /// A file that somebody has changed since is not the one whose change was approved.
    package func binding(_ input: Input, _ context: CallContext) throws(StructuredError) -> JSONObject {
        try context.workspace.binding([try context.workspace.place(input.path)])
    }

    package func preview(_ input: Input, _ context: CallContext) throws(StructuredError) -> Preview {
        try context.workspace.preview(
            writing: input.content.bytes, to: try context.workspace.place(input.path), context.scrub)
    }
}
