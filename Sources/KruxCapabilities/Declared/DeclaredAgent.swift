import KruxCore

/// Declared now, so that policies can cover them; not yet done by this version.
enum DeclaredAgent {
    static let all = [
        CapabilityDeclaration(
            "agent.briefing", "Tells what happened since you were last here.",
            whenToUse: "At the start of a session.", effect: .read, tier: .autonomous,
            input: [
                .optional("since", .string(minLength: 1, maxLength: 64), "RFC 3339 time; your last session if absent.")
            ],
            output: [
                .required("summary", .string(maxLength: 64 << 10), "In words."),
                .required("pending_approvals", .count, "Requests of yours that wait."),
                .required("unread_messages", .count, "Messages for you."),
            ])
    ]
}
