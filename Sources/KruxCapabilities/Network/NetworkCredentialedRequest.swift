import Foundation
package import KruxCore
import KruxCrypto
import KruxSandbox

package struct NetworkCredentialedRequest: Capability {
    package static let declaration = CapabilityDeclaration(
        "network.credentialed_request", "Sends an HTTP request with a secret of the vault in a header.",
        whenToUse: "For services that need a key, which you do not see.", effect: .external,
        sideEffects: ["the request reaches the host with the credential"], tier: .approvalRequired,
        input: ObjectSchema(
            NetworkSchema.request + [
                .required("secret", .string(minLength: 1, maxLength: 128), "The secret's name; see secrets.list."),
                .optional(
                    "header", .string(minLength: 1, maxLength: 128), "The header it goes into.",
                    default: "Authorization"),
                .optional(
                    "format", .string(minLength: 8, maxLength: 256),
                    "The header's value, with `{secret}` where the secret goes; `{secret:base64}` encodes it.",
                    default: "Bearer {secret}"),
            ]), output: NetworkSchema.response, errors: SecretSchema.errors + NetworkSchema.errors, connects: true)

    package struct Input: CapabilityInput {
        let web: WebInput, secret: String, header: String, format: String

        package init(_ arguments: Arguments) throws(StructuredError) {
            web = try WebInput(arguments)
            try web.requirePlainAnswer()
            secret = try arguments.text("secret")
            header = try arguments.text("header")
            format = try arguments.text("format")
            try NetworkSchema.requireHeader(header)
            guard format.contains("{secret}") || format.contains("{secret:base64}") else {
                throw StructuredError(
                    .invalidArguments, "`format` has no `{secret}`", recovery: ["Write it like `Bearer {secret}`."])
            }
            guard !web.request.headers.contains(where: { $0.name.lowercased() == header.lowercased() }) else {
                throw StructuredError(
                    .invalidArguments, "`headers` has the header that gets the secret", recovery: ["Leave it out."])
            }
        }
    }

    package struct Output: CapabilityOutput {
        let answer: WebOutput
        package var json: JSONObject { answer.json }
    }

    /// The secret is where it must be for the request alone; a redirect to another origin does not get it.
    package func run(_ input: Input, _ context: CallContext) async throws(StructuredError) -> Output {
        let value = try context.secret(input.secret, input.web.request.url.address)
        let filled = value.withBytes { bytes in
            input.format.replacing("{secret:base64}", with: Base64.encode(Array(bytes)))
                .replacing("{secret}", with: String(decoding: bytes, as: UTF8.self))
        }
        guard filled.utf8.allSatisfy({ $0 >= 32 && $0 != 127 }) else {
            throw StructuredError(
                .wrongType,
                "the secret `\(input.secret)` cannot stand in a header: it has a line's end or other controls",
                recovery: ["Ask your supervisor to add it without, or use `{secret:base64}`."])
        }
        var request = input.web.request
        request.headers.append((input.header, filled))
        let most = input.web.mostBytes
        let hiding = context.hiding
        return try await WebClient(context: context, crossesOrigins: false).send(
            request, follow: input.web.follow, timeoutSeconds: input.web.timeout
        ) { head, body in
            Output(answer: try await WebOutput(head, body, most: most, hiding: hiding))
        }
    }

    package func binding(_ input: Input, _ context: CallContext) throws(StructuredError) -> JSONObject {
        ["sandbox": .object(context.confinement.settings.json)]
    }

    package func preview(_ input: Input, _ context: CallContext) throws(StructuredError) -> Preview {
        let request = input.web.request
        let body = request.body.map { ", sending \($0.count) bytes" } ?? ""
        return Preview(
            "Sends \(request.method) \(request.url.text) to \(request.url.address.host) with the secret `\(input.secret)` in \(input.header)\(body)"
        )
    }
}
