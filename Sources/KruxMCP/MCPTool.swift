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

/// A call that goes on after its answer, as the tasks extension shows it.
package struct MCPTask: Sendable {
    package enum Status: Sendable {
        case working, cancelled
        /// With what the call would have been answered.
        case completed(MCPToolOutcome)
    }

    package let id: String
    package let status: Status
    package let message: String
    /// RFC 3339.
    package let createdAt: String
    package let updatedAt: String

    package init(id: String, status: Status, message: String, createdAt: String, updatedAt: String) {
        self.id = id
        self.status = status
        self.message = message
        self.createdAt = createdAt
        self.updatedAt = updatedAt
    }

    /// A task may be asked for as long as the record keeps it.
    private static let pollMilliseconds: Int64 = 5000

    /// `Task` of the extension, without what it came to.
    var seed: JSONObject {
        let word =
            switch status {
            case .working: "working"
            case .cancelled: "cancelled"
            case .completed: "completed"
            }
        return [
            "taskId": .string(id), "status": .string(word), "statusMessage": .string(message),
            "createdAt": .string(createdAt), "lastUpdatedAt": .string(updatedAt), "ttlMs": .null,
            "pollIntervalMs": .int(Self.pollMilliseconds),
        ]
    }

    var json: JSONObject {
        var json = seed
        if case .completed(let outcome) = status {
            switch outcome {
            case .success(let data): json["result"] = .object(MCPResult.success(data))
            case .failure(let error): json["result"] = .object(MCPResult.failure(error))
            case .unknownTool: break
            }
        }
        return json
    }
}

/// The gate as an MCP server sees it.
package protocol MCPToolHost: Sendable {
    func tools() async -> [MCPTool]
    /// - Parameter reason: why, in the agent's own words, for the person who may be asked.
    func call(tool: String, arguments: JSONObject, reason: String?) async -> MCPToolOutcome
    /// The call behind a request id; nil for none of the agent's.
    func task(_ id: String) async -> MCPTask?
    /// Withdraws it, if it still waits. False for none of the agent's.
    func cancelTask(_ id: String) async -> Bool
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
