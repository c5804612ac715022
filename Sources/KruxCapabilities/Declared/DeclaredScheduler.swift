import KruxCore

/// Declared now, so that policies can cover them; not yet done by this version.
enum DeclaredScheduler {
    private static let call: [Property] = [
        .required("capability", .string(minLength: 3, maxLength: 100), "What to call."),
        .optional("arguments", .map(.any, maxItems: 256), "Its arguments."),
    ]
    private static let job: ObjectSchema = [
        .required("job_id", .text, "What scheduler.cron_delete needs."),
        .required("capability", .text, "What is called."),
        .required("next_run", .text, "RFC 3339 time of the next run."),
        .optional("schedule", .text, "The cron expression."),
    ]

    static let all = [
        CapabilityDeclaration(
            "scheduler.cron_create", "Calls a capability on a schedule.", whenToUse: "For work that recurs.",
            effect: .write, sideEffects: ["calls are made later in your name"], tier: .approvalRequired,
            input: ObjectSchema(
                [
                    .required("schedule", .string(minLength: 9, maxLength: 256), "Five cron fields."),
                    .optional("timezone", .string(minLength: 1, maxLength: 64), "IANA zone.", default: "UTC"),
                ] + call), output: job),
        CapabilityDeclaration(
            "scheduler.cron_list", "Lists your schedules.", whenToUse: "To see what is planned.", effect: .read,
            tier: .autonomous, input: [],
            output: [.required("jobs", .array(.object(job), maxItems: 10_000), "By next run.")]),
        CapabilityDeclaration(
            "scheduler.cron_delete", "Ends a schedule.", whenToUse: "When recurring work is not needed any more.",
            effect: .write, sideEffects: ["the schedule is gone"], tier: .notify,
            input: [.required("job_id", .string(minLength: 1, maxLength: 64), "The schedule.")], output: job),
        CapabilityDeclaration(
            "scheduler.delay", "Calls a capability once, later.", whenToUse: "To come back to something.",
            effect: .write, sideEffects: ["a call is made later in your name"], tier: .notify,
            input: ObjectSchema([.required("seconds", .integer(1...31_536_000), "How long to wait.")] + call),
            output: job),
    ]
}
