package import KruxCore

package struct GitCommit: Capability {
    package static let declaration = CapabilityDeclaration(
        "git.commit", "Records changes, in the agent's own name.", whenToUse: "When a step of work is done.",
        effect: .write, sideEffects: ["adds a commit"], tier: .notify,
        input: [
            GitSchema.repository, .required("message", .string(minLength: 1, maxLength: 64 << 10), "The message."),
            .optional("all", .boolean, "Stage all tracked changes first.", default: false),
            .optional(
                "files", .array(.string(minLength: 1, maxLength: 4096), maxItems: 4096),
                "Stage these first, relative to the repository: new files as well.", default: []),
        ],
        output: [
            .required("path", .text, "The repository."), .required("commit", .text, "The new commit's hash."),
            .required("files", .array(.text, maxItems: 100_000), "What it changes."),
            .required("truncated", .boolean, "Whether it changes more."), GitSchema.putBack,
        ], errors: [GitSchema.failed, GitSchema.unavailable], startsProcess: true)

    package struct Input: CapabilityInput {
        let path: String, message: String, all: Bool, files: [String]

        package init(_ arguments: Arguments) throws(StructuredError) {
            path = try arguments.text("path")
            message = try arguments.text("message")
            all = try arguments.bool("all")
            files = try arguments.texts("files")
            if (files + [message]).contains(where: { $0.utf8.contains(0) }) {
                throw StructuredError(
                    .invalidArguments, "the message or a file's name contains a NUL byte",
                    recovery: ["Send it without."])
            }
        }
    }

    package struct Output: CapabilityOutput {
        let path: String, text: String, isTruncated: Bool, putBack: [String]

        package var json: JSONObject {
            let parts = text.split(separator: "\0").map { $0.drop { $0.isNewline } }.filter { !$0.isEmpty }
            var json: JSONObject = [
                "path": .string(path), "commit": .string(parts.first.map { String($0) } ?? ""),
                // The last name may be cut.
                "files": .strings(
                    parts.dropFirst().dropLast(isTruncated && parts.count > 1 ? 1 : 0).prefix(100_000).map {
                        String($0)
                    }),
                "truncated": .bool(isTruncated || parts.count > 100_001),
            ]
            if !putBack.isEmpty { json["put_back"] = .strings(putBack) }
            return json
        }
    }

    package func run(_ input: Input, _ context: CallContext) async throws(StructuredError) -> Output {
        let tool = try GitTool(input.path, context)
        var putBack: [String] = []
        if !input.files.isEmpty {
            putBack += try await tool.run(["--literal-pathspecs", "add", "--"] + input.files, reads: false).putBack
        }
        putBack += try await tool.run(
            ["commit", "--quiet", "--no-verify", "--cleanup=strip", "-m", input.message] + (input.all ? ["--all"] : []),
            reads: false
        ).putBack
        let made = try await tool.run(
            ["show", "--no-show-signature", "--format=%H", "--name-only", "-z", "HEAD", "--"], reads: true)
        return Output(path: tool.path.absolute, text: made.text, isTruncated: made.isTruncated, putBack: putBack)
    }
}
