import Foundation
package import KruxCore
import KruxSandbox

package struct ProcessKill: Capability {
    package static let declaration = CapabilityDeclaration(
        "process.kill", "Sends a signal to a process of yours; KILL ends everything it has started.",
        whenToUse: "When a background run is not needed any more.", effect: .destructive,
        sideEffects: ["the process and its children end"], tier: .approvalRequired,
        input: [
            ProcessSchema.identifier,
            .optional("signal", .choice(["TERM", "KILL", "INT", "HUP"]), "Which signal.", default: "TERM"),
            .optional(
                "kill_after_seconds", .integer(0...300),
                "Where it has not ended so long after the signal, it is killed; 0 leaves it.", default: 10),
        ],
        output: [.required("process", .object(ProcessSchema.process), "The process as it is now.")],
        errors: [
            ProcessSchema.unknown,
            .init(.conflict, when: "it has ended already", recovery: "read its output with process.logs"),
        ])

    package struct Input: CapabilityInput {
        let id: String, signal: Int32, patience: Int64

        package init(_ arguments: Arguments) throws(StructuredError) {
            id = try arguments.text("process_id")
            patience = try arguments.int("kill_after_seconds")
            let signals = ["KILL": SIGKILL, "INT": SIGINT, "HUP": SIGHUP]
            signal = signals[try arguments.text("signal")] ?? SIGTERM
        }
    }

    package struct Output: CapabilityOutput {
        let entry: ProcessTable.Entry
        package var json: JSONObject { ["process": .object(entry.json)] }
    }

    package func run(_ input: Input, _ context: CallContext) async throws(StructuredError) -> Output {
        let entry = try context.processes.entry(input.id, of: context.agent)
        guard entry.process.signal(input.signal) else {
            throw StructuredError(
                .conflict, "`\(input.id)` has ended already", recovery: ["Read its output with process.logs."])
        }
        guard input.signal != SIGHUP, input.patience > 0 || input.signal == SIGKILL else { return Output(entry: entry) }
        let killer = Task {
            // Cancelled when it ends in time.
            if (try? await Task.sleep(for: .seconds(input.patience))) != nil { entry.process.signal(SIGKILL) }
        }
        _ = await entry.process.ended()
        killer.cancel()
        return Output(entry: entry)
    }

    /// The same process, not one that took its place.
    package func binding(_ input: Input, _ context: CallContext) throws(StructuredError) -> JSONObject {
        let entry = try context.processes.entry(input.id, of: context.agent)
        return ["process": .string(entry.id), "command": .string(entry.command)]
    }

    package func preview(_ input: Input, _ context: CallContext) throws(StructuredError) -> Preview {
        let entry = try context.processes.entry(input.id, of: context.agent)
        return Preview("Ends \(context.scrub(entry.command)), running since \(entry.startedAt.rfc3339)")
    }
}
