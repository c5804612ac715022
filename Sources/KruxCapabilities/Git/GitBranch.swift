package import KruxCore

package struct GitBranch: Capability {
    package static let declaration = CapabilityDeclaration(
        "git.branch", "Lists, makes or deletes branches.", whenToUse: "To start or end a line of work.", effect: .write,
        sideEffects: ["changes branches"], tier: .notify,
        input: [
            GitSchema.repository,
            .optional("action", .choice(["list", "create", "delete"]), "What to do.", default: "list"),
            .optional("name", .string(minLength: 1, maxLength: 256), "The branch; not for list."),
            .optional("revision", .string(minLength: 1, maxLength: 256), "Where a new one begins."),
            .optional("force", .boolean, "Delete one that is not merged.", default: false),
        ],
        output: [
            .required("path", .text, "The repository."),
            .required(
                "branches",
                .array(
                    .object([
                        .required("name", .text, "The branch."), .required("commit", .text, "Where it stands."),
                        .required("current", .boolean, "Whether it is checked out."),
                    ]), maxItems: 100_000), "As they are now."), GitSchema.putBack,
        ], errors: [GitSchema.failed, GitSchema.unavailable], startsProcess: true)

    package struct Input: CapabilityInput {
        let path: String, action: String, name: String?, revision: String?, force: Bool

        package init(_ arguments: Arguments) throws(StructuredError) {
            path = try arguments.text("path")
            action = try arguments.text("action")
            name = try arguments.optionalText("name").map(GitSchema.revision)
            revision = try arguments.optionalText("revision").map(GitSchema.revision)
            force = try arguments.bool("force")
            guard (name == nil) == (action == "list") else {
                throw StructuredError(
                    .invalidArguments, action == "list" ? "`list` takes no `name`" : "`\(action)` needs a `name`",
                    recovery: ["Give a name to create or delete, and none to list."])
            }
        }
    }

    package struct Output: CapabilityOutput {
        let path: String, text: String, putBack: [String]

        package var json: JSONObject {
            let branches = text.split(separator: "\n").compactMap { line -> JSONValue? in
                let fields = line.split(separator: "\t", omittingEmptySubsequences: false)
                guard fields.count == 3 else { return nil }
                return [
                    "name": .string(String(fields[0])), "commit": .string(String(fields[1])),
                    "current": .bool(fields[2] == "*"),
                ]
            }
            var json: JSONObject = ["path": .string(path), "branches": .array(branches)]
            if !putBack.isEmpty { json["put_back"] = .strings(putBack) }
            return json
        }
    }

    package func run(_ input: Input, _ context: CallContext) async throws(StructuredError) -> Output {
        let tool = try GitTool(input.path, context)
        var putBack: [String] = []
        if let name = input.name {
            let arguments =
                input.action == "create"
                ? ["branch", "--no-track", name] + (input.revision.map { [$0] } ?? [])
                : ["branch", input.force ? "-D" : "-d", name]
            putBack = try await tool.run(arguments, reads: false).putBack
        }
        let listed = try await tool.run(
            ["for-each-ref", "--format=%(refname:short)%09%(objectname)%09%(HEAD)", "refs/heads"], reads: true)
        return Output(path: tool.path.absolute, text: listed.text, putBack: putBack)
    }
}
