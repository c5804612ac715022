package import KruxCore

package struct AgentCapabilities: Capability {
    private static let offer: ObjectSchema = [
        .required("name", .text, "The capability."), .required("summary", .text, "What it does."),
        .required("when_to_use", .text, "When to choose it."),
        .required("effect", .choice(EffectClass.allCases.map(\.rawValue)), "What it does to the world."),
        .required("tier", .choice(Tier.allCases.map(\.name)), "The tier of a call of which nothing is known."),
        .required("depends_on_arguments", .boolean, "Whether arguments change the tier."),
    ]

    package static let declaration = CapabilityDeclaration(
        "agent.capabilities", "Lists what you may call, and which calls need approval.",
        whenToUse: "To plan: what runs at once, what waits for a person.", effect: .read, tier: .autonomous,
        input: [.optional("category", .string(minLength: 1, maxLength: 64), "Only this one, such as `filesystem`.")],
        output: [.required("capabilities", .array(.object(offer), maxItems: 10_000), "By name.")])

    package struct Input: CapabilityInput {
        let category: String?
        package init(_ arguments: Arguments) { category = arguments.optionalText("category") }
    }

    package struct Output: CapabilityOutput {
        let offers: [HostServices.Offer]

        package var json: JSONObject {
            [
                "capabilities": .array(
                    offers.map { offer in
                        [
                            "name": .string(offer.declaration.name.text), "summary": .string(offer.declaration.summary),
                            "when_to_use": .string(offer.declaration.whenToUse),
                            "effect": .string(offer.declaration.effect.rawValue), "tier": .string(offer.tier.name),
                            "depends_on_arguments": .bool(offer.conditional),
                        ]
                    })
            ]
        }
    }

    package func run(_ input: Input, _ context: CallContext) async throws(StructuredError) -> Output {
        let prefix = input.category.map { $0 + "." } ?? ""
        return Output(offers: context.host.offers().filter { $0.declaration.name.text.hasPrefix(prefix) })
    }
}
