package import KruxCore
package import KruxStore

package struct StateList<Place: StatePlace>: LookingCapability {
    package static var declaration: CapabilityDeclaration {
        CapabilityDeclaration(
            StateSchema.name(Place.self, "list"), "Lists keys and values of \(Place.words).",
            whenToUse: "To see what is stored.",
            effect: .read, tier: .autonomous,
            input: [StateSchema.prefix, StateSchema.limit],
            output: StateSchema.entries, errors: [])
    }

    package struct Input: CapabilityInput {
        let prefix: String, limit: Int64

        package init(_ arguments: Arguments) throws(StructuredError) {
            prefix = try arguments.text("prefix")
            limit = try arguments.int("limit")
        }
    }

    package func look(_ input: Input, _ context: CallContext, _ tx: any ReadTx, isLast: Bool) throws -> StateEntries? {
        try StateTable.entries(tx, Place.self, Place.owner(context), prefix: input.prefix, limit: input.limit) { _ in
            true
        }
    }
}
