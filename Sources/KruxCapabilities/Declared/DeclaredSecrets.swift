import KruxCore

/// What there is only to be blocked.
enum DeclaredSecrets {
    static let all = [
        CapabilityDeclaration(
            "secrets.read_raw", "Would hand out a secret's value; exists only to be blocked.",
            whenToUse: "Never.", effect: .destructive, tier: .blocked, input: [SecretSchema.name],
            output: [.required("value", .text, "Never returned.")]),
        CapabilityDeclaration(
            "secrets.export", "Would take secrets out of the vault; exists only to be blocked.",
            whenToUse: "Never.", effect: .destructive, tier: .blocked, input: [],
            output: [.required("values", .map(.text, maxItems: 0), "Never returned.")]),
    ]
}
