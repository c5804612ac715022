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
        let number = try tx.first("SELECT coalesce(max(number), 0) + 1 FROM alerts") { $0.int(0) } ?? 1
        let digits = "\(number)"
        let id = "al_" + String(repeating: "0", count: max(0, 3 - digits.utf8.count)) + digits
        let now = context.clock.now()
        try tx.execute(
            "INSERT INTO alerts (number, id, agent, message, severity, created_at) VALUES (?, ?, ?, ?, ?, ?)",
            [
                .int(number), .text(id), .text(context.agent.text), .text(input.message), .text(input.severity),
                .int(now.microseconds),
            ])
        return Alert(id: id, message: input.message, severity: input.severity, createdAt: now, acknowledgedAt: nil)
    }
}
