package import KruxCore
import KruxSandbox

package struct NetworkHTTPRequest: Capability {
    package static let declaration = CapabilityDeclaration(
        "network.http_request", "Sends an HTTP request and returns the answer.",
        whenToUse: "To read or change something on the web; use network.download for what is large.",
        effect: .external, sideEffects: ["the request reaches the host"], tier: .approvalRequired,
        input: ObjectSchema(NetworkSchema.request), output: NetworkSchema.response, errors: NetworkSchema.errors,
        connects: true)

    package struct Input: CapabilityInput {
        let web: WebInput

        package init(_ arguments: Arguments) throws(StructuredError) { web = try WebInput(arguments) }
    }

    package struct Output: CapabilityOutput {
        let answer: WebOutput
        package var json: JSONObject { answer.json }
    }

    package func run(_ input: Input, _ context: CallContext) async throws(StructuredError) -> Output {
        let most = input.web.mostBytes
        let hiding = context.carried == nil ? nil : context.hiding
        if hiding != nil { try input.web.requirePlainAnswer() }
        return try await WebClient(context: context, crossesOrigins: context.carried == nil).send(
            input.web.request, follow: input.web.follow, timeoutSeconds: input.web.timeout
        ) { head, body in
            Output(answer: try await WebOutput(head, body, most: most, hiding: hiding))
        }
    }

    package func binding(_ input: Input, _ context: CallContext) throws(StructuredError) -> JSONObject {
        ["sandbox": .object(context.confinement.settings.json)]
    }

    /// The host is not looked up before somebody has agreed: a name in a question to a resolver is a message, too.
    package func preview(_ input: Input, _ context: CallContext) throws(StructuredError) -> Preview {
        let request = input.web.request
        let body = request.body.map { ", sending \($0.count) bytes" } ?? ""
        return Preview("Sends \(request.method) \(request.url.text) to \(request.url.address.host)\(body)")
    }
}
