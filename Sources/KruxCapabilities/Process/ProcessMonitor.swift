package import KruxCore
import KruxSandbox

package struct ProcessMonitor: Capability {
    package static let declaration = CapabilityDeclaration(
        "process.monitor", "Tells what a process uses, with everything it has started.",
        whenToUse: "To see whether a long run makes progress.", effect: .read, tier: .autonomous,
        input: [ProcessSchema.identifier],
        output: [
            .required("process", .object(ProcessSchema.process), "The process."),
            .required("cpu_ms", .count, "Milliseconds of processor time so far; 0 once it has ended."),
            .required("memory_bytes", .count, "Bytes of resident memory; 0 once it has ended."),
            .required("stdout_bytes", .count, "Bytes it has written to standard output."),
            .required("stderr_bytes", .count, "Bytes it has written to standard error."),
        ], errors: [ProcessSchema.unknown])

    package struct Input: CapabilityInput {
        let id: String
        package init(_ arguments: Arguments) throws(StructuredError) { id = try arguments.text("process_id") }
    }

    package struct Output: CapabilityOutput {
        let entry: ProcessTable.Entry
        let processorMilliseconds: Int64, residentBytes: Int64

        package var json: JSONObject {
            let totals = entry.process.totals
            return [
                "process": .object(entry.json), "cpu_ms": .int(processorMilliseconds),
                "memory_bytes": .int(residentBytes), "stdout_bytes": .int(Int64(totals[0])),
                "stderr_bytes": .int(Int64(totals[1])),
            ]
        }
    }

    package func run(_ input: Input, _ context: CallContext) async throws(StructuredError) -> Output {
        let entry = try context.processes.entry(input.id, of: context.agent)
        let usage = entry.process.result == nil ? context.processes.usage(entry) : (0, 0)
        return Output(entry: entry, processorMilliseconds: usage.0, residentBytes: usage.1)
    }
}
