import KruxCore

/// Declared now, so that policies can cover them; not yet done by this version.
enum DeclaredSystem {
    static let all = [
        CapabilityDeclaration(
            "system.metrics", "Tells how busy the machine and the gate are.",
            whenToUse: "Before starting something heavy.", effect: .read, tier: .autonomous, input: [],
            output: [
                .required("load_percent", .count, "Processor load."),
                .required("memory_free_bytes", .count, "Free memory."),
                .required("disk_free_bytes", .count, "Free space of the workspace's disk."),
                .required("calls_last_minute", .count, "Calls the gate has decided."),
            ])
    ]
}
