package import KruxCore

package struct SecretsList: Capability {
    package static let declaration = CapabilityDeclaration(
        "secrets.list", "Lists the secrets you may use, by name; never their values.",
        whenToUse: "To see what network.credentialed_request and secrets.use can be given.", effect: .read,
        tier: .autonomous, input: [],
        output: [
            .required(
                "secrets",
                .array(
                    .object([
                        .required("name", .text, "Its name."),
                        .required("capabilities", .array(.text, maxItems: 1000), "What may use it."),
                        .required("hosts", .array(.text, maxItems: 1000), "Where it may be sent."),
                        .required("version", .count, "Goes up when it is rotated."),
                        .required("changed_at", .text, "RFC 3339 time of its last change."),
                    ]), maxItems: 10_000), "By name.")
        ])

    package struct Output: CapabilityOutput {
        let secrets: [HostServices.SecretProfile]

        package var json: JSONObject {
            [
                "secrets": .array(
                    secrets.map {
                        [
                            "name": .string($0.name), "capabilities": .strings($0.capabilities),
                            "hosts": .strings($0.hosts), "version": .int($0.version),
                            "changed_at": .string($0.changedAt.rfc3339),
                        ]
                    })
            ]
        }
    }

    package func run(_ input: NoInput, _ context: CallContext) async throws(StructuredError) -> Output {
        Output(secrets: try context.host.secrets())
    }
}
