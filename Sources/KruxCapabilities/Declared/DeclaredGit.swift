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
    private static let text: ObjectSchema = [
        .required("path", .text, "The repository."), .required("text", .string(maxLength: 4 << 20), "git's output."),
        .required("truncated", .boolean, "Whether it was cut."),
    ]

    static let all = [
        CapabilityDeclaration(
            "git.init", "Makes a repository.", whenToUse: "To start versioning a folder.", effect: .write,
            sideEffects: ["creates a repository"], tier: .notify, input: [repository], output: done),
        CapabilityDeclaration(
            "git.clone", "Copies a remote repository into the workspace.", whenToUse: "To work on existing code.",
            effect: .external, sideEffects: ["creates a folder", "the host sees the request"], tier: .approvalRequired,
            input: [
                .required("url", .string(minLength: 1, maxLength: 8192), "Where from.", role: .url),
                FileSchema.path("Where to.", reach: .below),
                .optional("depth", .integer(1...1_000_000), "Only this many commits."),
            ], output: done),
        CapabilityDeclaration(
            "git.status", "Tells what has changed.", whenToUse: "Before a commit.", effect: .read, tier: .autonomous,
            input: [repository], output: text),
        CapabilityDeclaration(
            "git.diff", "Shows changes.", whenToUse: "To review before a commit.", effect: .read, tier: .autonomous,
            input: [
                repository, .optional("revision", .string(minLength: 1, maxLength: 256), "Against what."),
                .optional("staged", .boolean, "Only what is staged.", default: false),
            ], output: text),
        CapabilityDeclaration(
            "git.log", "Shows the history.", whenToUse: "To see what was done before.", effect: .read,
            tier: .autonomous,
            input: [repository, .optional("limit", .integer(1...10_000), "Most commits.", default: 50)], output: text),
        CapabilityDeclaration(
            "git.branch", "Lists, makes or deletes branches.", whenToUse: "To start or end a line of work.",
            effect: .write, sideEffects: ["changes branches"], tier: .notify,
            input: [
                repository, .optional("action", .choice(["list", "create", "delete"]), "What to do.", default: "list"),
                .optional("name", .string(minLength: 1, maxLength: 256), "The branch."),
            ], output: done),
        CapabilityDeclaration(
            "git.checkout", "Switches to a branch or commit.", whenToUse: "To work on another line.", effect: .write,
            sideEffects: ["changes files of the work tree"], tier: .notify,
            input: [repository, .required("revision", .string(minLength: 1, maxLength: 256), "Where to.")], output: done
        ),
        CapabilityDeclaration(
            "git.commit", "Records changes.", whenToUse: "When a step of work is done.", effect: .write,
            sideEffects: ["adds a commit"], tier: .notify,
            input: [
                repository, .required("message", .string(minLength: 1, maxLength: 64 << 10), "The message."),
                .optional("all", .boolean, "Stage all tracked changes first.", default: false),
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
