package import KruxCore
import KruxSandbox

package struct GitClone: Capability {
    package static let declaration = CapabilityDeclaration(
        "git.clone", "Copies a remote repository into a new folder of the workspace, without its submodules.",
        whenToUse: "To work on existing code.", effect: .external,
        sideEffects: ["creates a folder", "the host sees the request"], tier: .approvalRequired,
        input: ObjectSchema(
            [
                .required("url", .string(minLength: 1, maxLength: 8192), "Its http or https URL.", role: .url),
                FileSchema.path("The folder to make.", reach: .below),
                .optional("branch", .string(minLength: 1, maxLength: 256), "The branch; the remote's own if absent."),
                .optional("depth", .integer(1...1_000_000), "Only this many commits."),
            ] + GitRemote.properties), output: GitRemote.output, errors: GitRemote.errors + [FileSchema.exists],
        startsProcess: true)

    package struct Input: CapabilityInput {
        let remote: GitRemote, path: String, branch: String?, depth: Int64?

        package init(_ arguments: Arguments) throws(StructuredError) {
            remote = try GitRemote(arguments)
            path = try arguments.text("path")
            branch = try arguments.optionalText("branch").map { (text) throws(StructuredError) in
                try GitSchema.revision(text)
            }
            depth = arguments.optionalInt("depth")
        }
    }

    package struct Output: CapabilityOutput {
        let remote: GitRemoteOutput
        package var json: JSONObject { remote.json }
    }

    package func run(_ input: Input, _ context: CallContext) async throws(StructuredError) -> Output {
        let tool = try GitTool(input.path, context)
        try context.workspace.requireChangeable(tool.path, isFolder: true, context.protected)
        var isEmpty = true
        if try context.workspace.status(tool.path) != nil {
            isEmpty = try context.workspace.entries(tool.path).entries.isEmpty
        }
        guard isEmpty, !tool.path.isRoot else {
            throw StructuredError(
                .alreadyExists, "`\(tool.path.absolute)` is there and not empty", recovery: ["Name a new folder."],
                context: ["path": .string(tool.path.absolute)])
        }
        try context.workspace.makeFolders(tool.path)
        var arguments = ["clone", "--template=", "--no-recurse-submodules", "--no-local"]
        if let branch = input.branch { arguments += ["--branch", branch] }
        if let depth = input.depth { arguments += ["--depth", "\(depth)"] }
        let result = try await tool.run(
            arguments + ["--", input.remote.url.text, "."], reads: false, makesRepository: true, remote: input.remote)
        return Output(
            remote: GitRemoteOutput(path: tool.path.absolute, url: input.remote.url.text, result: result))
    }

    package func binding(_ input: Input, _ context: CallContext) throws(StructuredError) -> JSONObject {
        ["sandbox": .object(context.confinement.settings.json)]
    }

    package func preview(_ input: Input, _ context: CallContext) throws(StructuredError) -> Preview {
        let login = input.remote.secret.map { " with the secret `\($0)`" } ?? ""
        return Preview("Clones \(input.remote.url.text) from \(input.remote.url.address.host) to \(input.path)\(login)")
    }
}
