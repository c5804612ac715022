package import KruxCore
package import KruxStore

package struct SecretsRotateRequest: ChangingCapability {
    package static let declaration = CapabilityDeclaration(
        "secrets.rotate_request", "Asks the supervisor to rotate a secret, as an alert.",
        whenToUse: "When one may have leaked, or is about to end.", effect: .write,
        sideEffects: ["the supervisor is notified"], tier: .notify,
        input: [SecretSchema.name, .optional("reason", .string(maxLength: 2048), "Why.")],
        output: AlertTable.schema, errors: [SecretSchema.unknown])

    package struct Input: CapabilityInput {
        let name: String, reason: String?

        package init(_ arguments: Arguments) throws(StructuredError) {
            name = try arguments.text("name")
            reason = arguments.optionalText("reason")
        }

        var message: String { "rotate the secret `\(name)`" + (reason.map { ": \($0)" } ?? "") }
    }

    package func notice(_ input: Input) -> String? { "warning: \(input.message)" }

    package func change(_ input: Input, _ context: CallContext, _ tx: WriteTx) throws -> Alert {
        guard try context.host.secrets().contains(where: { $0.name.utf8Equals(input.name) }) else {
            throw StructuredError(
                .notFound, "there is no secret `\(input.name.prefix(64))` for you", recovery: ["See secrets.list."])
        }
        return try AlertTable.insert(tx, input.message, "warning", context)
    }
}
