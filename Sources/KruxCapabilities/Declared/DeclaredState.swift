import KruxCore

/// Declared now, so that policies can cover them; not yet done by this version. Three places with the same six verbs:
/// a session's, an agent's own, and one that agents share.
enum DeclaredState {
    private static let key = Property.required(
        "key", .string(minLength: 1, maxLength: 512), "The key.", role: .key())
    private static let version = Property.optional("version", .count, "The version you read, to refuse a lost update.")
    private static let entry: ObjectSchema = [
        .required("key", .text, "The key."), .required("value", .any, "The value."),
        .required("version", .count, "Goes up with each change."), .required("updated_at", .text, "RFC 3339 time."),
    ]
    private static let entries: ObjectSchema = [
        .required("entries", .array(.object(entry), maxItems: 10_000), "By key."),
        .required("truncated", .boolean, "Whether there are more."),
    ]
    private static let limit = Property.optional("limit", .integer(1...10_000), "Most entries.", default: 1000)

    private struct Verb {
        let name: String, summary: String, when: String
        let effect: EffectClass
        let input: [Property]
        let output: ObjectSchema
    }

    private static func verbs(shared: Bool) -> [Verb] {
        [
            Verb(
                name: "get", summary: "Reads a value", when: "To recall something.", effect: .read, input: [key],
                output: entry),
            Verb(
                name: "set", summary: "Stores a value", when: "To remember something.", effect: .write,
                input: [key, .required("value", .any, "The value.")] + (shared ? [version] : []), output: entry),
            Verb(
                name: "delete", summary: "Forgets a value", when: "When it is not needed any more.",
                effect: .destructive, input: [key] + (shared ? [version] : []),
                output: [.required("key", .text, "The key."), .required("existed", .boolean, "Whether it was there.")]),
            Verb(
                name: "list", summary: "Lists keys and values", when: "To see what is stored.", effect: .read,
                input: [
                    .optional(
                        "prefix", .string(maxLength: 512), "Only keys that start so.", default: "",
                        role: .key(reachesBelow: true)), limit,
                ],
                output: entries),
            Verb(
                name: "query", summary: "Finds values by a field", when: "To search stored objects.", effect: .read,
                input: [
                    .required("field", .string(minLength: 1, maxLength: 512), "A JSON Pointer into the values."),
                    .required("equals", .any, "What must be there."), limit,
                ], output: entries),
            Verb(
                name: "history", summary: "Shows how a value came about", when: "To see what it was before.",
                effect: .read, input: [key, limit], output: entries),
        ]
    }

    private static func declare(_ place: String, shared: Bool, names: [StaticString])
        -> [CapabilityDeclaration]
    {
        zip(names, verbs(shared: shared)).map { name, verb in
            CapabilityDeclaration(
                name, "\(verb.summary) in \(place).", whenToUse: verb.when, effect: verb.effect,
                sideEffects: verb.effect == .read ? [] : ["\(place) changes"],
                tier: shared && verb.effect != .read ? .notify : .autonomous, input: ObjectSchema(verb.input),
                output: verb.output)
        }
    }

    static let all =
        declare(
            "this session's state", shared: false,
            names: [
                "state.session.get", "state.session.set", "state.session.delete", "state.session.list",
                "state.session.query", "state.session.history",
            ])
        + declare(
            "your own lasting state", shared: false,
            names: [
                "state.persistent.get", "state.persistent.set", "state.persistent.delete", "state.persistent.list",
                "state.persistent.query", "state.persistent.history",
            ])
        + declare(
            "the state agents share", shared: true,
            names: [
                "state.shared.get", "state.shared.set", "state.shared.delete", "state.shared.list",
                "state.shared.query", "state.shared.history",
            ])
        + [
            CapabilityDeclaration(
                "state.shared.watch", "Waits for a change of a key.", whenToUse: "To follow another agent's progress.",
                effect: .read, tier: .autonomous,
                input: [
                    key, .optional("version", .count, "The version you know.", default: 0),
                    .optional("timeout_seconds", .integer(1...3600), "How long to wait.", default: 60),
                ],
                output: [
                    .required("changed", .boolean, "Whether it changed in time."),
                    .optional("entry", .object(entry), "The entry as it is now."),
                ])
        ]
}
