package import KruxCore

package struct ProcessList: Capability {
    package static let declaration = CapabilityDeclaration(
        "process.list", "Lists your own processes: those that run, and the last that have ended.",
        whenToUse: "To see what still runs.", effect: .read, tier: .autonomous, input: [],
        output: [
            .required("processes", .array(.object(ProcessSchema.process), maxItems: 10_000), "By time of start.")
        ])

    package struct Output: CapabilityOutput {
        let entries: [ProcessTable.Entry]
        package var json: JSONObject { ["processes": .array(entries.map { .object($0.json) })] }
    }

    package func run(_ input: NoInput, _ context: CallContext) async throws(StructuredError) -> Output {
        Output(entries: context.processes.entries(of: context.agent))
    }
}
