package import KruxCore

package struct GitLog: Capability {
    package static let declaration = CapabilityDeclaration(
        "git.log", "Shows the history, newest first.", whenToUse: "To see what was done before.", effect: .read,
        tier: .autonomous,
        input: [
            GitSchema.repository, .optional("limit", .integer(1...10_000), "Most commits.", default: 50),
            .optional(
                "revision", .string(minLength: 1, maxLength: 256), "Where to begin; what is checked out if absent."),
        ],
        output: [
            .required("path", .text, "The repository."),
            .required(
                "commits",
                .array(
                    .object([
                        .required("hash", .text, "The commit."), .required("author", .text, "Name and address."),
                        .required("time", .text, "RFC 3339 time of the commit."),
                        .required("parents", .array(.text, maxItems: 100), "The commits before it."),
                        .required("message", .string(maxLength: 1 << 20), "What it says."),
                    ]), maxItems: 10_000), "Newest first."),
            .required("truncated", .boolean, "Whether git's output was cut, at 4 MiB."),
        ], errors: [GitSchema.failed, GitSchema.unavailable], startsProcess: true)

    package struct Input: CapabilityInput {
        let path: String, limit: Int64, revision: String?

        package init(_ arguments: Arguments) throws(StructuredError) {
            path = try arguments.text("path")
            limit = try arguments.int("limit")
            revision = try arguments.optionalText("revision").map(GitSchema.revision)
        }
    }

    package struct Output: CapabilityOutput {
        let path: String, text: String, isTruncated: Bool

        package var json: JSONObject {
            var commits = text.split(separator: "\0").compactMap { commit -> JSONValue? in
                let fields = commit.split(separator: "\u{1F}", maxSplits: 4, omittingEmptySubsequences: false)
                guard fields.count == 5 else { return nil }
                var message = fields[4]
                while message.last?.isNewline == true { message.removeLast() }
                return [
                    "hash": .string(String(fields[0])), "author": .string(String(fields[1])),
                    "time": .string(String(fields[2])),
                    "parents": .strings(fields[3].split(separator: " ").map(String.init)),
                    "message": .string(String(message)),
                ]
            }
            // The last one may not be whole.
            if isTruncated, !commits.isEmpty { commits.removeLast() }
            return ["path": .string(path), "commits": .array(commits), "truncated": .bool(isTruncated)]
        }
    }

    package func run(_ input: Input, _ context: CallContext) async throws(StructuredError) -> Output {
        let tool = try GitTool(input.path, context)
        // Fields and commits end with what no text holds.
        let result = try await tool.run(
            ["log", "-z", "--no-show-signature", "--format=%H%x1f%an <%ae>%x1f%cI%x1f%P%x1f%B", "-n", "\(input.limit)"]
                + (input.revision.map { [$0] } ?? []) + ["--"], reads: true)
        return Output(path: tool.path.absolute, text: result.text, isTruncated: result.isTruncated)
    }
}
