import Foundation
package import KruxCore
import KruxSandbox

package struct SystemInfo: Capability {
    package static let declaration = CapabilityDeclaration(
        "system.info", "Describes the machine as far as an agent needs to know it.",
        whenToUse: "To choose commands that fit the operating system.", effect: .read, tier: .autonomous, input: [],
        output: [
            .required("os", .text, "Operating system."), .required("kernel", .text, "Kernel release."),
            .required("architecture", .text, "Processor architecture."), .required("cpus", .count, "Processors."),
            .required("memory_bytes", .count, "Physical memory."),
            .required("kruxos_version", .text, "Version of the gate."),
            .required("workspace", .text, "Where your files are."),
            .required("confinement", .array(.text, maxItems: 32), "What holds for every process you run."),
        ])

    package struct Output: CapabilityOutput {
        let os: String, kernel: String, architecture: String, version: String, workspace: String

        package var json: JSONObject {
            [
                "os": .string(os), "kernel": .string(kernel), "architecture": .string(architecture),
                "cpus": .int(Int64(ProcessInfo.processInfo.activeProcessorCount)),
                "memory_bytes": .int(Int64(clamping: ProcessInfo.processInfo.physicalMemory)),
                "kruxos_version": .string(version), "workspace": .string(workspace),
                "confinement": .strings(SandboxLayers.all.names),
            ]
        }
    }

    package func run(_ input: NoInput, _ context: CallContext) async throws(StructuredError) -> Output {
        var names = utsname()
        guard uname(&names) == 0 else { throw FileFailure.error(errno, "uname") }
        func text<T>(_ field: T) -> String {
            withUnsafeBytes(of: field) { String(decoding: $0.prefix { $0 != 0 }, as: UTF8.self) }
        }
        return Output(
            os: text(names.sysname), kernel: text(names.release), architecture: text(names.machine),
            version: context.host.version, workspace: context.workspace.root.path)
    }
}
