import KruxCore

/// Declared now, so that policies can cover them; not yet done by this version.
enum DeclaredGit {
    private static let repository = Property.optional(
        "path", .path, "The repository.", default: ".", role: .path(followsLast: true, reach: .below))
    private static let done: ObjectSchema = [
        .required("path", .text, "The repository."), .required("output", .string(maxLength: 4 << 20), "What git said."),
    ]
    private static let remote: [Property] = [
        repository, .optional("remote", .string(minLength: 1, maxLength: 256), "The remote.", default: "origin"),
        .optional("branch", .string(minLength: 1, maxLength: 256), "The branch; the current one if absent."),
    ]
    static let all = [
        CapabilityDeclaration(
            "git.clone", "Copies a remote repository into the workspace.", whenToUse: "To work on existing code.",
            effect: .external, sideEffects: ["creates a folder", "the host sees the request"], tier: .approvalRequired,
            input: [
                .required("url", .string(minLength: 1, maxLength: 8192), "Where from.", role: .url),
                FileSchema.path("Where to.", reach: .below),
                .optional("depth", .integer(1...1_000_000), "Only this many commits."),
            ], output: done),
        CapabilityDeclaration(
            "git.pull", "Fetches and merges a remote branch.", whenToUse: "To get others' work.", effect: .external,
            sideEffects: ["changes files of the work tree"], tier: .approvalRequired, input: ObjectSchema(remote),
            output: done),
        CapabilityDeclaration(
            "git.push", "Sends commits to a remote.", whenToUse: "To publish work.", effect: .external,
            sideEffects: ["changes the remote repository"], tier: .approvalRequired, input: ObjectSchema(remote),
            output: done),
    ]
}
