package import KruxCore
import KruxSandbox

package struct GitPush: ResolvingCapability {
    package static let declaration = CapabilityDeclaration(
        "git.push", "Sends the current branch's commits to a branch of a remote.", whenToUse: "To publish work.",
        effect: .external, sideEffects: ["changes the remote repository"], tier: .approvalRequired,
        input: ObjectSchema(
            GitRemote.pulled + [
                .optional(
                    "force", .boolean, "Replace the remote's branch, if it is what was fetched last.", default: false)
            ] + GitRemote.properties), output: GitRemote.output, errors: GitRemote.errors, startsProcess: true)

    package struct Input: CapabilityInput {
        let remote: GitRemote, path: String, name: String, branch: String, force: Bool

        package init(_ arguments: Arguments) throws(StructuredError) {
            remote = try GitRemote(arguments)
            path = try arguments.text("path")
            name = try GitSchema.revision(try arguments.text("remote"))
            branch = try GitSchema.revision(try arguments.text("branch"))
            force = try arguments.bool("force")
        }
    }

    package struct Output: CapabilityOutput {
        let remote: GitRemoteOutput
        package var json: JSONObject { remote.json }
    }

    package static func resolve(_ arguments: JSONObject, _ workspace: Workspace) throws(StructuredError) -> JSONObject {
        try GitRemote.resolve(arguments, workspace)
    }

    package func run(_ input: Input, _ context: CallContext) async throws(StructuredError) -> Output {
        let tool = try GitTool(input.path, context)
        let lease = "--force-with-lease=refs/heads/\(input.branch):refs/remotes/\(input.name)/\(input.branch)"
        let result = try await tool.run(
            ["push", "--no-verify", "--porcelain", "--no-signed", "--recurse-submodules=no"]
                + (input.force ? [lease] : []) + ["--", input.remote.url.text, "HEAD:refs/heads/\(input.branch)"],
            reads: false, remote: input.remote)
        return Output(
            remote: GitRemoteOutput(path: tool.path.absolute, url: input.remote.url.text, result: result))
    }

    /// The commit that is sent is the one that was looked at.
    package func binding(_ input: Input, _ context: CallContext) throws(StructuredError) -> JSONObject {
        [
            "sandbox": .object(context.confinement.settings.json),
            "commit": .optional(try GitRemote.head(input.path, context.workspace)),
        ]
    }

    package func preview(_ input: Input, _ context: CallContext) throws(StructuredError) -> Preview {
        let commit = try GitRemote.head(input.path, context.workspace).map { $0.prefix(12) } ?? "nothing"
        let force = input.force ? ", in place of what is there" : ""
        return Preview(
            "Sends \(commit) of \(input.path) to \(input.branch) of \(input.remote.url.text) on \(input.remote.url.address.host)\(force)"
        )
    }
}
