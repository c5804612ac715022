/// Everything there is to know of a capability without running it.
package struct CapabilityDeclaration: Sendable {
    package let name: CapabilityName
    /// One sentence on what it does.
    package let summary: String
    /// When to choose it over its neighbours.
    package let whenToUse: String
    package let effect: EffectClass
    /// What it changes besides its reply; empty for `read`.
    package let sideEffects: [String]
    /// The tier a careful person would give it, for documentation and templates; no decision reads it.
    package let defaultTier: Tier
    package let input: ObjectSchema
    package let output: ObjectSchema
    /// The errors it answers with, besides those of every call.
    package let errors: [DeclaredError]
    /// A program runs on its behalf, confined as rules say with `sandbox:`.
    package let startsProcess: Bool
    /// The gate itself connects somewhere on its behalf: to public addresses, and those that `sandbox:` adds.
    package let connects: Bool

    package struct DeclaredError: Sendable, Equatable {
        package let kind: StructuredError.Kind
        package let when: String
        package let recovery: String

        package init(_ kind: StructuredError.Kind, when: String, recovery: String) {
            self.kind = kind
            self.when = when
            self.recovery = recovery
        }
    }

    package init(
        _ name: String, _ summary: String, whenToUse: String, effect: EffectClass, sideEffects: [String] = [],
        tier: Tier, input: ObjectSchema, output: ObjectSchema, errors: [DeclaredError] = [],
        startsProcess: Bool = false, connects: Bool = false
    ) {
        // INVARIANT: names are literals in the catalogue and a test reads every one of them.
        guard let parsed = CapabilityName(name) else { preconditionFailure("`\(name)` is no capability name") }
        self.name = parsed
        self.summary = summary
        self.whenToUse = whenToUse
        self.effect = effect
        self.sideEffects = sideEffects
        self.defaultTier = tier
        self.input = input
        self.output = output
        self.errors = errors
        self.startsProcess = startsProcess
        self.connects = connects
    }
}

/// The capabilities in a fixed order; a capability's position is its index in compiled policies.
package struct Catalogue: Sendable {
    package let declarations: [CapabilityDeclaration]
    private let indices: [String: Int]

    package init(_ declarations: [CapabilityDeclaration]) {
        self.declarations = declarations.sorted { $0.name.text < $1.name.text }
        indices = Dictionary(
            self.declarations.enumerated().map { ($1.name.text, $0) }, uniquingKeysWith: { first, _ in first })
    }

    package func index(of name: String) -> Int? {
        guard let index = indices[name], declarations[index].name.text.utf8Equals(name) else { return nil }
        return index
    }

    package subscript(name: String) -> CapabilityDeclaration? { index(of: name).map { declarations[$0] } }
    package var count: Int { declarations.count }
    package var names: [String] { declarations.map(\.name.text) }
}
