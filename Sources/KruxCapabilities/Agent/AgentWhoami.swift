package import KruxCore

package struct AgentWhoami: Capability {
    package static let declaration = CapabilityDeclaration(
        "agent.whoami", "Tells who you are here and where your files are.", whenToUse: "First of all.", effect: .read,
        tier: .autonomous, input: [],
        output: [
            .required("name", .text, "Your name."), .required("purpose", .text, "What you are here for."),
            .required("workspace", .text, "Your own folder."),
            .required(
                "mounts",
                .array(
                    .object([
                        .required("path", .text, "Its path here."),
                        .required("read_only", .boolean, "Whether you may only read."),
                    ]), maxItems: 32), "Other folders you can reach."),
            .required("created_at", .text, "RFC 3339 time of your creation."),
            .required("policy", .text, "The active policy."),
        ])

    package struct Output: CapabilityOutput {
        let profile: HostServices.AgentProfile, workspace: Workspace, policy: String

        package var json: JSONObject {
            [
                "name": .string(profile.name), "purpose": .string(profile.purpose),
                "workspace": .string(workspace.root.path),
                "mounts": .array(
                    workspace.mountList.map { ["path": .string($0.target), "read_only": .bool($0.isReadOnly)] }),
                "created_at": .string(profile.createdAt.rfc3339), "policy": .string(policy),
            ]
        }
    }

    package func run(_ input: NoInput, _ context: CallContext) async throws(StructuredError) -> Output {
        Output(
            profile: try context.host.agent(), workspace: context.workspace, policy: context.host.policy().name)
    }
}
