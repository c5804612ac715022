package import KruxCore

package struct SystemTime: Capability {
    package static let declaration = CapabilityDeclaration(
        "system.time", "Tells the time.", whenToUse: "To date a note or measure how long something took.",
        effect: .read, tier: .autonomous, input: [],
        output: [
            .required("utc", .text, "RFC 3339, UTC."),
            .required("unix_us", .count, "Microseconds since 1970-01-01T00:00:00Z."),
        ])

    package struct Output: CapabilityOutput {
        let now: Timestamp
        package var json: JSONObject { ["utc": .string(now.rfc3339), "unix_us": .int(now.microseconds)] }
    }

    package func run(_ input: NoInput, _ context: CallContext) async throws(StructuredError) -> Output {
        Output(now: context.clock.now())
    }
}
