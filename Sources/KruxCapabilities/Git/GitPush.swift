package import KruxCore
import KruxSandbox

package struct GitPush: ResolvingCapability {
    package static let declaration = CapabilityDeclaration(
        "git.push", "Sends the current branch's commits to a branch of a remote.", whenToUse: "To publish work.",
        effect: .external, sideEffects: ["changes the remote repository"], tier: .approvalRequired,
        input: ObjectSchema(
            GitRemote.pulled + [
                .optional(
                    "commit", .string(minLength: 40, maxLength: 64), "The commit; that of the current branch if absent."
                ),
                .optional(
                    "force", .boolean, "Replace the remote's branch, if it is what was fetched last.", default: false),
            ] + GitRemote.properties), output: GitRemote.output, errors: GitRemote.errors, startsProcess: true)

    package struct Input: CapabilityInput {
        let remote: GitRemote, path: String, name: String, branch: String, commit: String, force: Bool

        package init(_ arguments: Arguments) throws(StructuredError) {
            remote = try GitRemote(arguments)
            path = try arguments.text("path")
            name = try GitSchema.revision(try arguments.text("remote"))
            branch = try GitSchema.revision(try arguments.text("branch"))
            commit = try arguments.text("commit")
            guard commit.utf8.allSatisfy({ (48...57).contains($0) || (97...102).contains($0) }) else {
                throw StructuredError(
                    .invalidArguments, "`commit` is no commit's hash", recovery: ["Take one that git.log shows."])
            }
            force = try arguments.bool("force")
        }
    }

    package struct Output: CapabilityOutput {
        let remote: GitRemoteOutput
        package var json: JSONObject { remote.json }
    }

    package static func resolve(_ arguments: JSONObject, _ workspace: Workspace) throws(StructuredError) -> JSONObject {
        var arguments = try GitRemote.resolve(arguments, workspace)
        if arguments["commit"]?.string == nil, let path = arguments["path"]?.string {
            arguments["commit"] = .string(try GitRemote.head(path, workspace))
        }
        return arguments
    }

    package func run(_ input: Input, _ context: CallContext) async throws(StructuredError) -> Output {
        let tool = try GitTool(input.path, context)
        let lease = "--force-with-lease=refs/heads/\(input.branch):refs/remotes/\(input.name)/\(input.branch)"
        let result = try await tool.run(
            ["push", "--no-verify", "--porcelain", "--no-signed", "--recurse-submodules=no"]
                + (input.force ? [lease] : []) + [
                    "--", input.remote.url.text, "\(input.commit):refs/heads/\(input.branch)",
                ],
            reads: false, remote: input.remote)
        return Output(
            remote: GitRemoteOutput(path: tool.path.absolute, url: input.remote.url.text, result: result))
    }

    package func binding(_ input: Input, _ context: CallContext) throws(StructuredError) -> JSONObject {
        ["sandbox": .object(context.confinement.settings.json)]
    }

    package func preview(_ input: Input, _ context: CallContext) throws(StructuredError) -> Preview {
        let force = input.force ? ", in place of what is there" : ""
        return Preview(
            "Sends \(input.commit.prefix(12)) of \(input.path) to \(input.branch) of \(input.remote.url.text) on \(input.remote.url.address.host)\(force)"
        )
    }
}
