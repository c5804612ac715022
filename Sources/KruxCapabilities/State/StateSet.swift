package import KruxCore
package import KruxStore

package struct StateSet<Place: StatePlace>: ChangingCapability {
    package static var declaration: CapabilityDeclaration {
        CapabilityDeclaration(
            StateSchema.name(Place.self, "set"), "Stores a value in \(Place.words).",
            whenToUse: "To remember something.",
            effect: .write, sideEffects: ["\(Place.words) changes"], tier: Place.changeTier,
            input: [
                StateSchema.key, .required("value", .any, "The value: any JSON."), StateSchema.version,
            ],
            output: StateSchema.entry, errors: [StateSchema.stale, StateSchema.full])
    }

    package struct Input: CapabilityInput {
        let key: String, value: JSONValue, version: Int64?

        package init(_ arguments: Arguments) throws(StructuredError) {
            key = try arguments.text("key")
            value = arguments.value("value") ?? .null
            version = arguments.optionalInt("version")
        }
    }

    package struct Output: CapabilityOutput {
        let entry: StateEntry
        package var json: JSONObject { entry.json }
    }

    package func change(_ input: Input, _ context: CallContext, _ tx: WriteTx) throws -> Output {
        Output(
            entry: try StateTable.set(
                tx, Place.self, Place.owner(context), input.key, input.value, expected: input.version,
                by: context.agent.text, at: context.clock.now()))
    }
}
