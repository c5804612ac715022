import KruxCore

/// Declared now, so that policies can cover them; not yet done by this version.
enum DeclaredProcess {
    private static let process: ObjectSchema = [
        .required("process_id", .text, "What the other process capabilities need."),
        .required("command", .text, "The program."),
        .required("state", .choice(["running", "ended"]), "Where it stands."),
        .required("started_at", .text, "RFC 3339 time of its start."),
        .optional("exit_code", .integer(-1...255), "The exit code once it has ended."),
    ]
    private static let identifier = Property.required(
        "process_id", .string(minLength: 1, maxLength: 64), "What process.run returned.")

    static let all = [
        CapabilityDeclaration(
            "process.list", "Lists the agent's own processes.", whenToUse: "To see what still runs.", effect: .read,
            tier: .autonomous, input: [],
            output: [.required("processes", .array(.object(process), maxItems: 10_000), "By time of start.")]),
        CapabilityDeclaration(
            "process.monitor", "Tells what a process uses.", whenToUse: "To see whether a long run makes progress.",
            effect: .read, tier: .autonomous, input: [identifier],
            output: [
                .required("process", .object(process), "The process."), .required("cpu_ms", .count, "Processor time."),
                .required("memory_bytes", .count, "Resident memory."),
            ]),
        CapabilityDeclaration(
            "process.logs", "Reads the output of a process.", whenToUse: "To page through output that was cut.",
            effect: .read, tier: .autonomous,
            input: [
                identifier, .optional("stream", .choice(["stdout", "stderr"]), "Which output.", default: "stdout"),
                .optional("offset", .count, "First byte.", default: 0),
                .optional("limit", .integer(1...(8 << 20)), "Most bytes.", default: .int(1 << 20)),
            ],
            output: [
                .required("content", .string(maxLength: 16 << 20), "The output."),
                .optional("next_offset", .count, "Where to go on."),
            ]),
        CapabilityDeclaration(
            "process.kill", "Stops a process of the agent.", whenToUse: "When a background run is not needed any more.",
            effect: .destructive, sideEffects: ["the process and its children end"], tier: .approvalRequired,
            input: [
                identifier,
                .optional("signal", .choice(["TERM", "KILL", "INT", "HUP"]), "Which signal.", default: "TERM"),
            ],
            output: [.required("process", .object(process), "The process as it is now.")]),
    ]
}
