import Foundation
package import KruxCore
package import KruxStore

package struct SystemMetrics: LookingCapability {
    package static let declaration = CapabilityDeclaration(
        "system.metrics", "Tells how busy the machine and the gate are.", whenToUse: "Before starting something heavy.",
        effect: .read, tier: .autonomous, input: [],
        output: [
            .required("load_percent", .count, "Processor load of the last minute; 100 is every core busy."),
            .required("cores", .count, "Processors."),
            .required("memory_free_bytes", .count, "Memory that can be had without swapping."),
            .required("disk_free_bytes", .count, "Free space of the workspace's disk."),
            .required("calls_last_minute", .count, "Calls the gate has decided."),
            .required("processes", .count, "Processes of yours that run."),
        ])

    package struct Output: CapabilityOutput {
        let load: Int64, cores: Int64, memory: Int64, disk: Int64, calls: Int64, processes: Int64

        package var json: JSONObject {
            [
                "load_percent": .int(load), "cores": .int(cores), "memory_free_bytes": .int(memory),
                "disk_free_bytes": .int(disk), "calls_last_minute": .int(calls), "processes": .int(processes),
            ]
        }
    }

    package func look(_ input: NoInput, _ context: CallContext, _ tx: any ReadTx, isLast: Bool) throws -> Output? {
        let cores = Int64(ProcessInfo.processInfo.activeProcessorCount)
        var loads = [0.0]
        let load = getloadavg(&loads, 1) == 1 ? Int64(loads[0] * 100 / Double(max(1, cores))) : 0
        let memory = (try? String(contentsOfFile: "/proc/meminfo", encoding: .utf8)) ?? ""
        let available = memory.split(separator: "\n").first { $0.hasPrefix("MemAvailable:") }
        let kibibytes = available.flatMap { Int64($0.split(separator: " ").dropFirst().first ?? "") } ?? 0
        var disk = statvfs()
        let free =
            fstatvfs(context.workspace.root.descriptor, &disk) == 0 ? Int64(disk.f_bavail) * Int64(disk.f_frsize) : 0
        let minute = context.clock.now().advanced(bySeconds: -60)
        let calls = try tx.first(
            "SELECT count(*) FROM audit WHERE time >= ? AND phase IN ('intent', 'outcome') AND intent IS NULL",
            [.int(minute.microseconds)]
        ) { $0.int(0) }
        let running = context.processes.entries(of: context.agent).count { $0.isRunning }
        return Output(
            load: load, cores: cores, memory: kibibytes << 10, disk: free, calls: calls ?? 0, processes: Int64(running))
    }
}
