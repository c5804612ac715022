package import KruxCore
package import KruxStore

package struct AlertsSend: ChangingCapability {
    package static let declaration = CapabilityDeclaration(
        "alerts.send", "Raises an alert for the supervisor.", whenToUse: "When a person should know now.",
        effect: .write, sideEffects: ["the supervisor is notified"], tier: .autonomous,
        input: [
            .required("message", .string(minLength: 1, maxLength: 4096), "What to say."),
            .optional("severity", .choice(["info", "warning", "critical"]), "How bad.", default: "info"),
        ], output: AlertTable.schema)

    package struct Input: CapabilityInput {
        let message: String, severity: String

        package init(_ arguments: Arguments) throws(StructuredError) {
            message = try arguments.text("message")
            severity = try arguments.text("severity")
        }
    }

    package func notice(_ input: Input) -> String? { "\(input.severity): \(input.message)" }

    package func change(_ input: Input, _ context: CallContext, _ tx: WriteTx) throws -> Alert {
        try AlertTable.insert(tx, input.message, input.severity, context)
    }
}
