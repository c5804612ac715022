package import KruxCore

package struct GitCheckout: Capability {
    package static let declaration = CapabilityDeclaration(
        "git.checkout", "Switches to a branch or commit.", whenToUse: "To work on another line.", effect: .write,
        sideEffects: ["changes files of the work tree"], tier: .notify,
        input: [
            GitSchema.repository, .required("revision", .string(minLength: 1, maxLength: 256), "Where to."),
            .optional("create", .boolean, "Make it as a new branch.", default: false),
        ],
        output: [
            .required("path", .text, "The repository."),
            .required("output", .string(maxLength: 16 << 20), "What git said."), GitSchema.putBack,
        ], errors: [GitSchema.failed, GitSchema.unavailable], startsProcess: true)

    package struct Input: CapabilityInput {
        let path: String, revision: String, create: Bool

        package init(_ arguments: Arguments) throws(StructuredError) {
            path = try arguments.text("path")
            revision = try GitSchema.revision(try arguments.text("revision"))
            create = try arguments.bool("create")
        }
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
        let result = try await tool.run(
            ["checkout", "--quiet", "--no-recurse-submodules"]
                + (input.create ? ["-b", input.revision] : [input.revision])
                + ["--"], reads: false)
        return Output(path: tool.path.absolute, result: result)
    }
}
