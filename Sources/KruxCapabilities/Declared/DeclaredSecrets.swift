import KruxCore

/// Declared now, so that policies can cover them; not yet done by this version.
enum DeclaredSecrets {
    private static let name = Property.required("name", .string(minLength: 1, maxLength: 128), "The secret's name.")

    static let all = [
        CapabilityDeclaration(
            "secrets.list", "Lists the names of secrets you may use.", whenToUse: "To see what there is.",
            effect: .read, tier: .autonomous, input: [],
            output: [.required("names", .array(.text, maxItems: 10_000), "By name; never values.")]),
        CapabilityDeclaration(
            "secrets.use", "Gives a capability a secret without showing it to you.",
            whenToUse: "When a call needs a credential.", effect: .external,
            sideEffects: ["the secret is used once"], tier: .approvalRequired,
            input: [
                name, .required("capability", .string(minLength: 3, maxLength: 100), "The call that gets it."),
                .required("arguments", .map(.any, maxItems: 256), "The call's other arguments."),
                .required("argument", .string(minLength: 1, maxLength: 128), "The argument that gets the secret."),
            ], output: [.required("result", .any, "The call's result, without the secret.")]),
        CapabilityDeclaration(
            "secrets.rotate_request", "Asks the supervisor to rotate a secret.", whenToUse: "When one may have leaked.",
            effect: .write, sideEffects: ["the supervisor is asked"], tier: .notify,
            input: [name, .optional("reason", .string(maxLength: 4096), "Why.")],
            output: [.required("request_id", .text, "The request.")]),
        CapabilityDeclaration(
            "secrets.read_raw", "Would hand out a secret's value; exists only to be blocked.",
            whenToUse: "Never.", effect: .destructive, tier: .blocked, input: [name],
            output: [.required("value", .text, "Never returned.")]),
        CapabilityDeclaration(
            "secrets.export", "Would take secrets out of the vault; exists only to be blocked.",
            whenToUse: "Never.", effect: .destructive, tier: .blocked, input: [],
            output: [.required("values", .map(.text, maxItems: 0), "Never returned.")]),
    ]
}
