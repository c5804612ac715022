package import KruxCore
package import KruxStore

package struct StateHistory<Place: StatePlace>: LookingCapability {
    package static var declaration: CapabilityDeclaration {
        CapabilityDeclaration(
            StateSchema.name(Place.self, "history"), "Shows how a value came about in \(Place.words).",
            whenToUse: "To see what it was before.",
            effect: .read, tier: .autonomous,
            input: [
                StateSchema.key, .optional("limit", .integer(1...100), "Most versions.", default: 100),
            ],
            output: [
                .required(
                    "entries", .array(.object(StateSchema.past), maxItems: 100),
                    "The last 100 at most, newest first; a deletion has no value.")
            ], errors: [StateSchema.missing])
    }

    package struct Input: CapabilityInput {
        let key: String, limit: Int64

        package init(_ arguments: Arguments) throws(StructuredError) {
            key = try arguments.text("key")
            limit = try arguments.int("limit")
        }
    }

    package struct Output: CapabilityOutput {
        let entries: [StateEntry]
        package var json: JSONObject { ["entries": .array(entries.map { .object($0.json) })] }
    }

    package func look(_ input: Input, _ context: CallContext, _ tx: any ReadTx, isLast: Bool) throws -> Output? {
        let entries = try StateTable.history(tx, Place.self, Place.owner(context), input.key, limit: input.limit)
        if entries.isEmpty { throw StateTable.missing(input.key) }
        return Output(entries: entries)
    }
}
