import KruxCore

/// Declared now, so that policies can cover them; not yet done by this version.
enum DeclaredFilesystem {
    static let all = [
        CapabilityDeclaration(
            "filesystem.edit", "Replaces a passage of a file, if it is there exactly once.",
            whenToUse: "To change part of a file and see the difference.", effect: .write,
            sideEffects: ["changes the file"], tier: .notify,
            input: [
                FileSchema.path("The file to change."),
                .required("expected", .string(minLength: 1, maxLength: 1 << 20), "The passage as it is now."),
                .required(
                    "replacement", .string(maxLength: 1 << 20), "The passage as it shall be.",
                    role: .content(encoding: "encoding")),
            ],
            output: [
                .required("path", .text, "The canonical path."),
                .required("diff", .string(maxLength: 4 << 20), "Unified diff of the change."),
            ]),
        CapabilityDeclaration(
            "filesystem.search_content", "Finds lines by their content.",
            whenToUse: "To find where something is mentioned.", effect: .read, tier: .autonomous,
            input: [
                .required("query", .string(minLength: 1, maxLength: 4096), "The text or expression to find."),
                .optional(
                    "path", .path, "Where to search.", default: ".", role: .path(followsLast: true, reach: .below)),
                .optional("regex", .boolean, "Whether query is a regular expression.", default: false),
                .optional("limit", .integer(1...10_000), "Most matches to return.", default: 1000),
            ],
            output: [
                .required(
                    "matches",
                    .array(
                        .object([
                            .required("path", .text, "The file."), .required("line", .count, "Line, from 1."),
                            .required("text", .string(maxLength: 1 << 16), "The line."),
                        ]), maxItems: 10_000), "In order of path and line."),
                .required("truncated", .boolean, "Whether there are more."),
            ]),
        CapabilityDeclaration(
            "filesystem.watch", "Waits for a change below a path.",
            whenToUse: "To react when a file appears or changes.", effect: .read, tier: .autonomous,
            input: [
                FileSchema.path("What to watch.", reach: .below),
                .optional("timeout_seconds", .integer(1...3600), "How long to wait.", default: 60),
            ],
            output: [
                .required(
                    "changes",
                    .array(
                        .object([.required("path", .text, "What changed."), .required("kind", .text, "How.")]),
                        maxItems: 10_000), "In order of time."),
                .required("timed_out", .boolean, "Whether nothing happened."),
            ]),
    ]
}
