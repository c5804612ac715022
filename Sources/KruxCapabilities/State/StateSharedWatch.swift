package import KruxCore
package import KruxStore

package struct StateSharedWatch: LookingCapability {
    package static let declaration = CapabilityDeclaration(
        "state.shared.watch", "Waits for a change of a key.", whenToUse: "To follow another agent's progress.",
        effect: .read, tier: .autonomous,
        input: [
            StateSchema.key, .optional("version", .count, "The version you know; 0 for none.", default: 0),
            .optional("timeout_seconds", .integer(1...3600), "How long to wait.", default: 60),
        ],
        output: [
            .required("changed", .boolean, "Whether it has another version than you know, or is gone."),
            .optional("entry", .object(StateSchema.entry), "The entry as it is now; absent where there is none."),
        ])

    package struct Input: CapabilityInput {
        let key: String, version: Int64, timeout: Int64

        package init(_ arguments: Arguments) throws(StructuredError) {
            key = try arguments.text("key")
            version = try arguments.int("version")
            timeout = try arguments.int("timeout_seconds")
        }
    }

    package struct Output: CapabilityOutput {
        let changed: Bool, entry: StateEntry?

        package var json: JSONObject {
            var json: JSONObject = ["changed": .bool(changed)]
            if let entry { json["entry"] = .object(entry.json) }
            return json
        }
    }

    package func patience(_ input: Input) -> Int64 { input.timeout }

    package func look(_ input: Input, _ context: CallContext, _ tx: any ReadTx, isLast: Bool) throws -> Output? {
        let entry = try StateTable.find(tx, SharedPlace.self, SharedPlace.owner(context), input.key)
        let changed = entry?.version ?? 0 != input.version
        return changed || isLast ? Output(changed: changed, entry: entry) : nil
    }
}
