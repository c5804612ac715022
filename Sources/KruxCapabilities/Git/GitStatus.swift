package import KruxCore

package struct GitStatus: Capability {
    package static let declaration = CapabilityDeclaration(
        "git.status", "Tells what has changed since the last commit.", whenToUse: "Before a commit.", effect: .read,
        tier: .autonomous, input: [GitSchema.repository],
        output: [
            .required("path", .text, "The repository."),
            .optional("branch", .text, "The branch; absent where none is checked out."),
            .optional("commit", .text, "The last commit's hash; absent before the first."),
            .required(
                "changes",
                .array(
                    .object([
                        .required("path", .text, "The file, in the repository."),
                        .required("staged", .text, "In the index: M, A, D, R, C, T, U, ? or . for unchanged."),
                        .required("unstaged", .text, "In the work tree, likewise."),
                    ]), maxItems: 100_000), "What differs."),
            .required("truncated", .boolean, "Whether there are more."),
        ], errors: [GitSchema.failed, GitSchema.unavailable], startsProcess: true)

    package struct Input: CapabilityInput {
        let path: String
        package init(_ arguments: Arguments) throws(StructuredError) { path = try arguments.text("path") }
    }

    /// Reads `git status --porcelain=v2 --branch -z`.
    package struct Output: CapabilityOutput {
        let path: String, text: String, isTruncated: Bool

        package var json: JSONObject {
            var json: JSONObject = ["path": .string(path), "truncated": .bool(isTruncated)]
            var changes: [JSONValue] = []
            func add(_ states: Substring, _ path: Substring) {
                let signs = Array(states)
                guard signs.count == 2 else { return }
                changes.append([
                    "path": .string(String(path)), "staged": .string(String(signs[0])),
                    "unstaged": .string(String(signs[1])),
                ])
            }
            var lines = text.split(separator: "\0")[...]
            while let line = lines.popFirst() {
                let words = line.split(separator: " ", omittingEmptySubsequences: false)
                switch words.first {
                case "#" where words.count > 2 && words[1] == "branch.head" && words[2] != "(detached)":
                    json["branch"] = .string(words.dropFirst(2).joined(separator: " "))
                case "#" where words.count > 2 && words[1] == "branch.oid" && words[2] != "(initial)":
                    json["commit"] = .string(String(words[2]))
                case "1" where words.count > 8: add(words[1], Substring(words.dropFirst(8).joined(separator: " ")))
                case "2" where words.count > 9:
                    add(words[1], Substring(words.dropFirst(9).joined(separator: " ")))
                    // The name before it was renamed.
                    _ = lines.popFirst()
                case "u" where words.count > 10: add(words[1], Substring(words.dropFirst(10).joined(separator: " ")))
                case "?": add("??", line.dropFirst(2))
                default: break
                }
            }
            json["changes"] = .array(Array(changes.prefix(100_000)))
            if changes.count > 100_000 { json["truncated"] = true }
            return json
        }
    }

    package func run(_ input: Input, _ context: CallContext) async throws(StructuredError) -> Output {
        let tool = try GitTool(input.path, context)
        let result = try await tool.run(
            ["status", "--porcelain=v2", "--branch", "-z", "--untracked-files=all"], reads: true)
        return Output(path: tool.path.absolute, text: result.text, isTruncated: result.isTruncated)
    }
}
