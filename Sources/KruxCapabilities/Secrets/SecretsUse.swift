package import KruxCore

package struct SecretsUse: Capability {
    package static let declaration = CapabilityDeclaration(
        "secrets.use", "Makes a call with a secret in one of its arguments, which you do not see.",
        whenToUse:
            "When a program needs a credential, such as an environment variable; for HTTP use network.credentialed_request. A program can show what it gets: this keeps a secret out of sight, not out of reach.",
        effect: .external, sideEffects: ["the call is made, with the secret"], tier: .approvalRequired,
        input: [
            SecretSchema.name, .required("capability", .string(minLength: 3, maxLength: 100), "What to call."),
            .required("arguments", .map(.any, maxItems: 256), "The call's other arguments."),
            .required(
                "argument", .string(minLength: 1, maxLength: 128),
                "The argument that gets the secret, or a member of one, such as `env.API_TOKEN`."),
        ], output: [.required("result", .any, "The call's result, without the secret.")],
        errors: SecretSchema.errors)

    package struct Input: CapabilityInput {
        let name: String, capability: String, arguments: JSONObject, place: [String]

        package init(_ arguments: Arguments) throws(StructuredError) {
            name = try arguments.text("name")
            capability = try arguments.text("capability")
            place = try arguments.text("argument").split(separator: ".", omittingEmptySubsequences: false).map(
                String.init)
            try Self.requirePlace(place, in: capability)
            self.arguments = try Self.placing(
                "{secret \(name)}", at: place[...], in: arguments.optionalMap("arguments") ?? [:])
        }

        /// A secret goes where it is only passed on: a member of a map, or a long text. What rules read, and what names a
        /// file, a host or a command, is no such place.
        private static func requirePlace(_ place: [String], in capability: String) throws(StructuredError) {
            guard let declaration = Capabilities.catalogue[capability] else {
                throw StructuredError(
                    .unknownCapability, "there is no capability `\(capability.prefix(100))`",
                    recovery: ["Call agent.capabilities to see what there is."])
            }
            let property = place.first.flatMap { declaration.input.property($0) }
            let fits: Bool
            switch (property?.type, property?.role) {
            case (.map?, _): fits = place.count == 2
            case (.string(_, let most)?, .content?): fits = place.count == 1 && most >= 4096
            case (.string(_, let most)?, nil): fits = place.count == 1 && most >= 4096
            default: fits = false
            }
            guard fits else {
                throw StructuredError(
                    .invalidArguments, "no secret goes into `\(place.joined(separator: "."))` of \(capability)",
                    recovery: ["Use a member of `env` or `headers`, such as `env.API_TOKEN`, or a body."])
            }
        }

        /// The arguments with a placeholder where the secret goes.
        private static func placing(_ text: String, at place: ArraySlice<String>, in object: JSONObject)
            throws(StructuredError) -> JSONObject
        {
            var object = object
            guard let name = place.first, !name.isEmpty else {
                throw StructuredError(
                    .invalidArguments, "`argument` has an empty name", recovery: ["Write it like `env.API_TOKEN`."])
            }
            if place.count == 1 {
                guard !object.keys.contains(name) else {
                    throw StructuredError(
                        .invalidArguments, "`arguments` has a value already where the secret is to go",
                        recovery: ["Leave that member out."])
                }
                object[name] = .string(text)
                return object
            }
            guard let map = (object[name] ?? .object([:])).object else {
                throw StructuredError(
                    .invalidArguments, "`\(name)` is no object that could get the secret",
                    recovery: ["Name an argument, or a member of one that is an object."])
            }
            object[name] = .object(try placing(text, at: place.dropFirst(), in: map))
            return object
        }
    }

    package struct Output: CapabilityOutput {
        let result: JSONObject
        package var json: JSONObject { ["result": .object(result)] }
    }

    package func run(_ input: Input, _ context: CallContext) async throws(StructuredError) -> Output {
        Output(
            result: try await context.nested.run(
                NestedCalls.Call(
                    capability: input.capability, arguments: input.arguments, place: input.place, secret: input.name)))
    }

    package func binding(_ input: Input, _ context: CallContext) throws(StructuredError) -> JSONObject {
        try context.nested.look(input.capability, input.arguments).binding
    }

    package func preview(_ input: Input, _ context: CallContext) throws(StructuredError) -> Preview {
        var preview = try context.nested.look(input.capability, input.arguments).preview
        preview.effect = "With the secret `\(input.name)` as \(input.place.joined(separator: ".")): " + preview.effect
        return preview
    }
}

enum SecretSchema {
    static let name = Property.required("name", .string(minLength: 1, maxLength: 128), "The secret's name.")
    static let locked = CapabilityDeclaration.DeclaredError(
        .vaultLocked, when: "no person has unlocked the vault", recovery: "ask your supervisor")
    static let unknown = CapabilityDeclaration.DeclaredError(
        .notFound, when: "there is no such secret for you", recovery: "see secrets.list")
    static let outOfScope = CapabilityDeclaration.DeclaredError(
        .blocked, when: "the secret is not for this capability or host", recovery: "see secrets.list")
    static let errors = [locked, unknown, outOfScope]
}
