package import KruxCore

package struct SystemHealth: Capability {
    package static let declaration = CapabilityDeclaration(
        "system.health", "Tells whether the gate can do its work.",
        whenToUse: "When calls fail in a way their errors do not explain.", effect: .read, tier: .autonomous,
        input: [],
        output: [
            .required("status", .choice(["ok", "degraded"]), "degraded: effects are refused for now."),
            .required("findings", .array(.text, maxItems: 32), "What is wrong."),
            .required("uptime_seconds", .count, "How long the gate has been up."),
        ])

    package struct Output: CapabilityOutput {
        let health: HostServices.Health

        package var json: JSONObject {
            [
                "status": .string(health.status), "findings": .strings(health.findings),
                "uptime_seconds": .int(health.uptimeSeconds),
            ]
        }
    }

    package func run(_ input: NoInput, _ context: CallContext) async throws(StructuredError) -> Output {
        Output(health: context.host.health())
    }
}
