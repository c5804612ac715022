import KruxCore

/// Declared now, so that policies can cover them; not yet done by this version.
enum DeclaredNetwork {
    private static let url = Property.required(
        "url", .string(minLength: 1, maxLength: 8192), "An http or https URL.", role: .url)
    private static let request: [Property] = [
        url,
        .optional(
            "method", .choice(["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"]), "The method.",
            default: "GET", role: .method),
        .optional("headers", .map(.string(maxLength: 8192), maxItems: 100), "Request headers."),
        .optional("body", .string(maxLength: 8 << 20), "Request body."),
        .optional("timeout_seconds", .integer(1...600), "Give up after this long.", default: 30),
    ]
    private static let response: ObjectSchema = [
        .required("status", .integer(100...599), "HTTP status."),
        .required("headers", .map(.string(maxLength: 64 << 10), maxItems: 1000), "Response headers."),
        .required("body", .string(maxLength: 16 << 20), "Response body."),
        .required("truncated", .boolean, "Whether the body was cut."),
    ]

    static let all = [
        CapabilityDeclaration(
            "network.http_request", "Sends an HTTP request.", whenToUse: "To read or change something on the web.",
            effect: .external, sideEffects: ["the request reaches the host"], tier: .approvalRequired,
            input: ObjectSchema(request), output: response),
        CapabilityDeclaration(
            "network.download", "Downloads a URL into the workspace.", whenToUse: "For files too large for a reply.",
            effect: .external, sideEffects: ["creates or replaces the file"], tier: .approvalRequired,
            input: [url, FileSchema.path("Where to put it.")],
            output: [
                .required("path", .text, "The file."), .required("bytes", .count, "Its size."),
                .required("sha256", .text, "SHA-256 of its content."),
            ]),
        CapabilityDeclaration(
            "network.dns_lookup", "Resolves a host name.", whenToUse: "To see whether a name exists.",
            effect: .external, sideEffects: ["the name reaches a resolver"], tier: .notify,
            input: [
                .required("host", .string(minLength: 1, maxLength: 253), "The name.", role: .host),
                .optional("type", .choice(["A", "AAAA", "CNAME", "MX", "TXT"]), "The record type.", default: "A"),
            ], output: [.required("records", .array(.text, maxItems: 1000), "As the resolver gives them.")]),
        CapabilityDeclaration(
            "network.port_check", "Tells whether a TCP port answers.", whenToUse: "To see whether a service is up.",
            effect: .external, sideEffects: ["a connection is opened and closed"], tier: .notify,
            input: [
                .required("host", .string(minLength: 1, maxLength: 253), "Name or address.", role: .host),
                .required("port", .integer(1...65535), "The port.", role: .port),
            ],
            output: [
                .required("open", .boolean, "Whether it answered."),
                .required("latency_ms", .count, "How long it took."),
            ]),
        CapabilityDeclaration(
            "network.credentialed_request", "Sends an HTTP request that carries a secret by name.",
            whenToUse: "For services that need a key you must not see.", effect: .external,
            sideEffects: ["the request reaches the host with the credential"], tier: .approvalRequired,
            input: ObjectSchema(
                request + [
                    .required("secret", .string(minLength: 1, maxLength: 128), "The secret's name in the vault."),
                    .optional(
                        "header", .string(minLength: 1, maxLength: 128), "The header it goes into.",
                        default: "Authorization"),
                ]), output: response),
    ]
}
