package import KruxCore
import KruxSandbox

package struct GitPull: ResolvingCapability {
    package static let declaration = CapabilityDeclaration(
        "git.pull", "Fetches a branch of a remote and merges it into the current one.",
        whenToUse: "To get others' work.", effect: .external,
        sideEffects: ["changes files of the work tree", "the host sees the request"], tier: .approvalRequired,
        input: ObjectSchema(GitRemote.pulled + GitRemote.properties), output: GitRemote.output,
        errors: GitRemote.errors, startsProcess: true)

    package struct Input: CapabilityInput {
        let remote: GitRemote, path: String, name: String, branch: String

        package init(_ arguments: Arguments) throws(StructuredError) {
            remote = try GitRemote(arguments)
            path = try arguments.text("path")
            name = try GitSchema.revision(try arguments.text("remote"))
            branch = try GitSchema.revision(try arguments.text("branch"))
        }
    }

    package struct Output: CapabilityOutput {
        let remote: GitRemoteOutput
        package var json: JSONObject { remote.json }
    }

    package static func resolve(_ arguments: JSONObject, _ workspace: Workspace) throws(StructuredError) -> JSONObject {
        try GitRemote.resolve(arguments, workspace)
    }

    /// The URL that was decided on, whatever the repository's settings say by now.
    package func run(_ input: Input, _ context: CallContext) async throws(StructuredError) -> Output {
        let tool = try GitTool(input.path, context)
        let result = try await tool.run(
            [
                "pull", "--no-rebase", "--no-edit", "--no-recurse-submodules", "--no-autostash", "--",
                input.remote.url.text,
                "+refs/heads/\(input.branch):refs/remotes/\(input.name)/\(input.branch)",
            ], reads: false, remote: input.remote)
        return Output(
            remote: GitRemoteOutput(path: tool.path.absolute, url: input.remote.url.text, result: result))
    }

    package func binding(_ input: Input, _ context: CallContext) throws(StructuredError) -> JSONObject {
        ["sandbox": .object(context.confinement.settings.json)]
    }

    package func preview(_ input: Input, _ context: CallContext) throws(StructuredError) -> Preview {
        Preview(
            "Merges \(input.branch) of \(input.remote.url.text) on \(input.remote.url.address.host) into \(input.path)")
    }
}
