package import KruxCore

/// A tool as a client lists it.
package struct MCPTool: Sendable {
    package let name: String
    package let description: String
    package let input: ObjectSchema
    /// Nil where the result's shape depends on the call.
    package let output: ObjectSchema?
    package let effect: EffectClass

    package init(name: String, description: String, input: ObjectSchema, output: ObjectSchema?, effect: EffectClass) {
        self.name = name
        self.description = description
        self.input = input
        self.output = output
        self.effect = effect
    }

    package init(_ declaration: CapabilityDeclaration, note: String?) {
        self.init(
            name: declaration.name.toolName,
            description: "\(declaration.summary) \(declaration.whenToUse)" + (note.map { " \($0)" } ?? ""),
            input: declaration.input, output: declaration.output, effect: declaration.effect)
    }

    var json: JSONValue {
        var json: JSONObject = [
            "name": .string(name), "description": .string(description), "inputSchema": input.jsonSchema,
            "annotations": [
                "readOnlyHint": .bool(effect == .read), "destructiveHint": .bool(effect == .destructive),
                "openWorldHint": .bool(effect == .external),
            ],
        ]
        if let output { json["outputSchema"] = output.jsonSchema }
        return .object(json)
    }
}

/// What a tool call came to.
package enum MCPToolOutcome: Sendable {
    case success(JSONObject)
    case failure(StructuredError)
    /// The client knows a tool that is not listed to it.
    case unknownTool
}

/// The gate as an MCP server sees it.
package protocol MCPToolHost: Sendable {
    func tools() async -> [MCPTool]
    func call(tool: String, arguments: JSONObject) async -> MCPToolOutcome
}

/// Results as MCP carries them.
enum MCPResult {
    /// Text and structured content say the same.
    static func success(_ data: JSONObject) -> JSONObject {
        [
            "content": [["type": "text", "text": .string(data.canonicalText)]], "structuredContent": .object(data),
            "isError": false,
        ]
    }

    /// A tool error: words for the model, then the structured error. It is not `structuredContent`, which has to fit
    /// the tool's output schema; programs find it in `_meta`.
    static func failure(_ error: StructuredError) -> JSONObject {
        var text = error.agentDescription
        if error.agentDescription != error.description { text += "\n\n\(error.description)" }
        if !error.recoveryActions.isEmpty {
            text += "\n\nWhat you can do:\n" + error.recoveryActions.map { "- \($0)" }.joined(separator: "\n")
        }
        return [
            "content": [
                ["type": "text", "text": .string(text)], ["type": "text", "text": .string(error.json.canonicalText)],
            ], "isError": true, "_meta": [errorKey: error.json],
        ]
    }

    static let errorKey = "org.kruxos/error"
}
