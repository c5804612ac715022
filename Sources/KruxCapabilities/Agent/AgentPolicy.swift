package import KruxCore

package struct AgentPolicy: Capability {
    package static let declaration = CapabilityDeclaration(
        "agent.policy", "Names the policy that decides your calls.",
        whenToUse: "To tell a person which policy stands in the way.", effect: .read, tier: .autonomous, input: [],
        output: [
            .required("name", .text, "The active policy."), .required("digest", .text, "SHA-256 of all its documents."),
            .optional("description", .text, "What it says it is for."),
            .required("tiers", .array(.text, maxItems: 4), "The four tiers, loosest first."),
        ])

    package struct Output: CapabilityOutput {
        let policy: HostServices.PolicyProfile

        package var json: JSONObject {
            var json: JSONObject = [
                "name": .string(policy.name), "digest": .string(policy.digest),
                "tiers": .strings(Tier.allCases.map(\.name)),
            ]
            if let description = policy.description { json["description"] = .string(description) }
            return json
        }
    }

    package func run(_ input: NoInput, _ context: CallContext) async throws(StructuredError) -> Output {
        Output(policy: context.host.policy())
    }
}
