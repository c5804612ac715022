package import KruxCore
package import KruxStore

package struct AlertsAcknowledge: ChangingCapability {
    package static let declaration = CapabilityDeclaration(
        "alerts.acknowledge", "Marks an alert of yours as dealt with.", whenToUse: "When its cause is gone.",
        effect: .write, sideEffects: ["the alert is acknowledged"], tier: .autonomous,
        input: [.required("alert_id", .string(minLength: 1, maxLength: 64), "The alert.")], output: AlertTable.schema,
        errors: [.init(.notFound, when: "there is no such alert of yours", recovery: "look with alerts.list")])

    package struct Input: CapabilityInput {
        let id: String
        package init(_ arguments: Arguments) throws(StructuredError) { id = try arguments.text("alert_id") }
    }

    package func change(_ input: Input, _ context: CallContext, _ tx: WriteTx) throws -> Alert {
        let key: [SQLValue] = [.text(input.id), .text(context.agent.text)]
        // The first time counts.
        try tx.execute(
            "UPDATE alerts SET acknowledged_at = ? WHERE id = ? AND agent = ? AND acknowledged_at IS NULL",
            [.int(context.clock.now().microseconds)] + key)
        let found = try tx.first(
            "SELECT \(AlertTable.columns) FROM alerts WHERE id = ? AND agent = ?", key, AlertTable.alert)
        guard let found else {
            throw StructuredError(
                .notFound, "there is no alert `\(input.id)` of yours", recovery: ["Look with alerts.list."])
        }
        return found
    }
}
