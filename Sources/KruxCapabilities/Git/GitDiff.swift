package import KruxCore

package struct GitDiff: Capability {
    package static let declaration = CapabilityDeclaration(
        "git.diff", "Shows changes as a unified diff.", whenToUse: "To review before a commit.", effect: .read,
        tier: .autonomous,
        input: [
            GitSchema.repository,
            .optional(
                "revision", .string(minLength: 1, maxLength: 256), "Against what, or `A..B`; the index if absent."),
            .optional("staged", .boolean, "What is staged, against the last commit or `revision`.", default: false),
        ], output: GitSchema.text, errors: [GitSchema.failed, GitSchema.unavailable], startsProcess: true)

    package struct Input: CapabilityInput {
        let path: String, revision: String?, staged: Bool

        package init(_ arguments: Arguments) throws(StructuredError) {
            path = try arguments.text("path")
            revision = try arguments.optionalText("revision").map(GitSchema.revision)
            staged = try arguments.bool("staged")
        }
    }

    package struct Output: CapabilityOutput {
        let text: GitText
        package var json: JSONObject { text.json }
    }

    package func run(_ input: Input, _ context: CallContext) async throws(StructuredError) -> Output {
        let tool = try GitTool(input.path, context)
        let result = try await tool.run(
            ["diff", "--no-ext-diff", "--no-textconv"] + (input.staged ? ["--cached"] : [])
                + (input.revision.map { [$0] } ?? []) + ["--"], reads: true)
        return Output(text: GitText(tool, result))
    }
}
