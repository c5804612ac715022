package import KruxCore
package import KruxStore

package struct StateDelete<Place: StatePlace>: ChangingCapability {
    package static var declaration: CapabilityDeclaration {
        CapabilityDeclaration(
            StateSchema.name(Place.self, "delete"), "Forgets a value of \(Place.words).",
            whenToUse: "When it is not needed any more.",
            effect: .destructive, sideEffects: ["\(Place.words) changes"], tier: Place.changeTier,
            input: [StateSchema.key, StateSchema.version],
            output: [
                .required("key", .text, "The key."), .required("existed", .boolean, "Whether it was there."),
                .required("version", .count, "The version under which its end is remembered; 0 if it was not there."),
            ], errors: [StateSchema.stale])
    }

    package struct Input: CapabilityInput {
        let key: String, version: Int64?

        package init(_ arguments: Arguments) throws(StructuredError) {
            key = try arguments.text("key")
            version = arguments.optionalInt("version")
        }
    }

    package struct Output: CapabilityOutput {
        let key: String, version: Int64
        package var json: JSONObject {
            ["key": .string(key), "existed": .bool(version > 0), "version": .int(version)]
        }
    }

    package func change(_ input: Input, _ context: CallContext, _ tx: WriteTx) throws -> Output {
        let owner = Place.owner(context)
        if input.version ?? 0 == 0, try StateTable.find(tx, Place.self, owner, input.key) == nil {
            return Output(key: input.key, version: 0)
        }
        let gone = try StateTable.set(
            tx, Place.self, owner, input.key, nil, expected: input.version, by: context.agent.text,
            at: context.clock.now())
        return Output(key: input.key, version: gone.version)
    }
}
