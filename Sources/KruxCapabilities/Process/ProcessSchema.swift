import KruxCore

/// What the capabilities on processes have in common.
enum ProcessSchema {
    static let process: ObjectSchema = [
        .required("process_id", .text, "What the other process capabilities need."),
        .required("command", .text, "The command line."),
        .required("state", .choice(["running", "ended"]), "Where it stands."),
        .required("started_at", .text, "RFC 3339 time of its start."),
        .optional("exit_code", .integer(0...255), "The exit code, where it ended by itself."),
        .optional("signal", .integer(1...64), "The signal that ended it."),
        .optional("timed_out", .boolean, "Whether it ran into its timeout."),
    ]

    static let identifier = Property.required(
        "process_id", .string(minLength: 1, maxLength: 64), "What process.run returned.")

    static let unknown = CapabilityDeclaration.DeclaredError(
        .notFound, when: "there is no such process of yours", recovery: "look with process.list")
}
