import KruxCore

/// Declared now, so that policies can cover them; not yet done by this version.
enum DeclaredAlerts {
    private static let alert: ObjectSchema = [
        .required("alert_id", .text, "The alert."), .required("message", .text, "What it says."),
        .required("severity", .choice(["info", "warning", "critical"]), "How bad."),
        .required("created_at", .text, "RFC 3339 time."),
        .required("acknowledged", .boolean, "Whether somebody saw it."),
    ]

    static let all = [
        CapabilityDeclaration(
            "alerts.send", "Raises an alert for the supervisor.", whenToUse: "When a person should know now.",
            effect: .write, sideEffects: ["the supervisor is notified"], tier: .autonomous,
            input: [
                .required("message", .string(minLength: 1, maxLength: 4096), "What to say."),
                .optional("severity", .choice(["info", "warning", "critical"]), "How bad.", default: "info"),
            ], output: alert),
        CapabilityDeclaration(
            "alerts.list", "Lists alerts you raised.", whenToUse: "To see whether one was noticed.", effect: .read,
            tier: .autonomous, input: [.optional("limit", .integer(1...1000), "Most alerts.", default: 100)],
            output: [.required("alerts", .array(.object(alert), maxItems: 1000), "Newest first.")]),
        CapabilityDeclaration(
            "alerts.acknowledge", "Marks an alert as dealt with.", whenToUse: "When its cause is gone.",
            effect: .write, sideEffects: ["the alert is acknowledged"], tier: .autonomous,
            input: [.required("alert_id", .string(minLength: 1, maxLength: 64), "The alert.")], output: alert),
    ]
}
