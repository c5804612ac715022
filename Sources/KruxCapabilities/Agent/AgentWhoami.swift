package import KruxCore

package struct AgentWhoami: Capability {
    package static let declaration = CapabilityDeclaration(
        "agent.whoami", "Tells who you are here and where your files are.", whenToUse: "First of all.", effect: .read,
        tier: .autonomous, input: [],
        output: [
            .required("name", .text, "Your name."), .required("purpose", .text, "What you are here for."),
            .required("workspace", .text, "The folder you can reach."),
            .required("created_at", .text, "RFC 3339 time of your creation."),
            .required("policy", .text, "The active policy."),
        ])

    package struct Output: CapabilityOutput {
        let profile: HostServices.AgentProfile, workspace: String, policy: String

        package var json: JSONObject {
            [
                "name": .string(profile.name), "purpose": .string(profile.purpose), "workspace": .string(workspace),
                "created_at": .string(profile.createdAt.rfc3339), "policy": .string(policy),
            ]
        }
    }

    package func run(_ input: NoInput, _ context: CallContext) async throws(StructuredError) -> Output {
        Output(
            profile: try context.host.agent(), workspace: context.workspace.root, policy: context.host.policy().name)
    }
}
