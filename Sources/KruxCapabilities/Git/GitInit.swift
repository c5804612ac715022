package import KruxCore

package struct GitInit: Capability {
    package static let declaration = CapabilityDeclaration(
        "git.init", "Makes a repository, on a branch called main.", whenToUse: "To start versioning a folder.",
        effect: .write, sideEffects: ["creates a repository"], tier: .notify, input: [GitSchema.repository],
        output: [
            .required("path", .text, "The repository."),
            .required("output", .string(maxLength: 16 << 20), "What git said."), GitSchema.putBack,
        ], errors: [GitSchema.failed, GitSchema.unavailable], startsProcess: true)

    package struct Input: CapabilityInput {
        let path: String
        package init(_ arguments: Arguments) throws(StructuredError) { path = try arguments.text("path") }
    }

    package struct Output: CapabilityOutput {
        let path: String, result: GitTool.Result

        package var json: JSONObject {
            var json: JSONObject = ["path": .string(path), "output": .string(result.text)]
            if !result.putBack.isEmpty { json["put_back"] = .strings(result.putBack) }
            return json
        }
    }

    package func run(_ input: Input, _ context: CallContext) async throws(StructuredError) -> Output {
        let tool = try GitTool(input.path, context)
        try context.workspace.requireChangeable(tool.path, isFolder: true, context.protected)
        if !tool.path.isRoot { try context.workspace.makeFolders(tool.path) }
        // One that is there keeps its settings; no template puts hooks into a new one.
        let result = try await tool.run(["init", "--quiet", "--template="], reads: false, makesRepository: true)
        return Output(path: tool.path.absolute, result: result)
    }
}
