package import KruxCore
package import KruxStore

package struct AlertsList: LookingCapability {
    package static let declaration = CapabilityDeclaration(
        "alerts.list", "Lists alerts you raised.", whenToUse: "To see which are still open.", effect: .read,
        tier: .autonomous,
        input: [
            .optional("limit", .integer(1...1000), "Most alerts.", default: 100),
            .optional("open", .boolean, "Only those that have not been acknowledged.", default: false),
        ], output: [.required("alerts", .array(.object(AlertTable.schema), maxItems: 1000), "Newest first.")])

    package struct Input: CapabilityInput {
        let limit: Int64, onlyOpen: Bool

        package init(_ arguments: Arguments) throws(StructuredError) {
            limit = try arguments.int("limit")
            onlyOpen = try arguments.bool("open")
        }
    }

    package struct Output: CapabilityOutput {
        let alerts: [Alert]
        package var json: JSONObject { ["alerts": .array(alerts.map { .object($0.json) })] }
    }

    package func look(_ input: Input, _ context: CallContext, _ tx: any ReadTx, isLast: Bool) throws -> Output? {
        let open = input.onlyOpen ? " AND acknowledged_at IS NULL" : ""
        return Output(
            alerts: try tx.rows(
                "SELECT \(AlertTable.columns) FROM alerts WHERE agent = ?\(open) ORDER BY number DESC LIMIT ?",
                [.text(context.agent.text), .int(input.limit)], AlertTable.alert))
    }
}
