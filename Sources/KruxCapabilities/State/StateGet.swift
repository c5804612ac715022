package import KruxCore
package import KruxStore

package struct StateGet<Place: StatePlace>: LookingCapability {
    package static var declaration: CapabilityDeclaration {
        CapabilityDeclaration(
            StateSchema.name(Place.self, "get"), "Reads a value of \(Place.words).", whenToUse: "To recall something.",
            effect: .read, tier: .autonomous,
            input: [StateSchema.key],
            output: StateSchema.entry, errors: [StateSchema.missing])
    }

    package struct Input: CapabilityInput {
        let key: String
        package init(_ arguments: Arguments) throws(StructuredError) { key = try arguments.text("key") }
    }

    package struct Output: CapabilityOutput {
        let entry: StateEntry
        package var json: JSONObject { entry.json }
    }

    package func look(_ input: Input, _ context: CallContext, _ tx: any ReadTx, isLast: Bool) throws -> Output? {
        guard let entry = try StateTable.find(tx, Place.self, Place.owner(context), input.key) else {
            throw StateTable.missing(input.key)
        }
        return Output(entry: entry)
    }
}
