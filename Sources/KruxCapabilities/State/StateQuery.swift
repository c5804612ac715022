package import KruxCore
package import KruxStore

package struct StateQuery<Place: StatePlace>: LookingCapability {
    package static var declaration: CapabilityDeclaration {
        CapabilityDeclaration(
            StateSchema.name(Place.self, "query"), "Finds values by a field in \(Place.words).",
            whenToUse: "To search stored objects.",
            effect: .read, tier: .autonomous,
            input: [
                .required("field", .string(maxLength: 512), "A JSON Pointer into the values, such as `/owner/name`."),
                .required("equals", .any, "What must be there."), StateSchema.prefix, StateSchema.limit,
            ],
            output: StateSchema.entries,
            errors: [.init(.invalidArguments, when: "the pointer is none", recovery: "begin it with a slash")])
    }

    package struct Input: CapabilityInput {
        let steps: [String], wanted: JSONValue, prefix: String, limit: Int64

        package init(_ arguments: Arguments) throws(StructuredError) {
            // RFC 6901.
            let pointer = try arguments.text("field")
            guard pointer.isEmpty || pointer.hasPrefix("/") else {
                throw StructuredError(
                    .invalidArguments, "`\(pointer.prefix(100))` is no JSON Pointer",
                    recovery: ["Begin it with a slash: `/status`."])
            }
            steps = pointer.split(separator: "/", omittingEmptySubsequences: false).dropFirst().map {
                String($0).replacing("~1", with: "/").replacing("~0", with: "~")
            }
            wanted = arguments.value("equals") ?? .null
            prefix = try arguments.text("prefix")
            limit = try arguments.int("limit")
        }

        func fits(_ value: JSONValue) -> Bool {
            var here = value
            for step in steps {
                if let object = here.object {
                    guard let next = object[step] else { return false }
                    here = next
                } else if let array = here.array, let index = Int(step), array.indices.contains(index),
                    "\(index)".utf8Equals(step)
                {
                    here = array[index]
                } else {
                    return false
                }
            }
            return here == wanted
        }
    }

    package func look(_ input: Input, _ context: CallContext, _ tx: any ReadTx, isLast: Bool) throws -> StateEntries? {
        try StateTable.entries(tx, Place.self, Place.owner(context), prefix: input.prefix, limit: input.limit) {
            input.fits($0.value)
        }
    }
}
