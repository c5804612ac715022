package import KruxCore

/// Calls that a call makes: each decided and recorded by itself.
package struct NestedCalls: Sendable {
    package struct Call: Sendable {
        package let capability: String
        /// With a placeholder at `place`.
        package let arguments: JSONObject
        /// Names of members, from the outside in.
        package let place: [String]
        /// The secret that takes the placeholder's place when it runs.
        package let secret: String
    }

    /// What an approval of the outer call is bound to and shows of the inner one.
    package struct Look: Sendable {
        package let binding: JSONObject
        package let preview: Preview

        package init(binding: JSONObject, preview: Preview) {
            self.binding = binding
            self.preview = preview
        }
    }

    package let look: @Sendable (String, JSONObject) throws(StructuredError) -> Look
    package let run: @Sendable (Call) async throws(StructuredError) -> JSONObject

    package init(
        look: @escaping @Sendable (String, JSONObject) throws(StructuredError) -> Look,
        run: @escaping @Sendable (Call) async throws(StructuredError) -> JSONObject
    ) {
        self.look = look
        self.run = run
    }

    /// Where there are none.
    package static let none = NestedCalls(
        look: { _, _ throws(StructuredError) in throw unavailable },
        run: { _ throws(StructuredError) in throw unavailable })
    private static let unavailable = StructuredError(.internalError, "no call can be made within this one")
}
