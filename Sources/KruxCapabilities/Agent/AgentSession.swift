package import KruxCore

package struct AgentSession: Capability {
    package static let declaration = CapabilityDeclaration(
        "agent.session", "Describes the session your calls belong to.",
        whenToUse: "To find your own calls in the record.", effect: .read, tier: .autonomous, input: [],
        output: [
            .required("id", .text, "The session."), .required("via", .text, "How you came in."),
            .required("started_at", .text, "RFC 3339 time of its first call."),
            .required("calls", .count, "Calls so far, this one included."),
        ])

    package struct Output: CapabilityOutput {
        let session: HostServices.SessionProfile

        package var json: JSONObject {
            [
                "id": .string(session.id), "via": .string(session.via),
                "started_at": .string(session.startedAt.rfc3339), "calls": .int(session.calls),
            ]
        }
    }

    package func run(_ input: NoInput, _ context: CallContext) async throws(StructuredError) -> Output {
        Output(session: context.host.session())
    }
}
