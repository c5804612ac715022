package import KruxCore

/// The Model Context Protocol's server side for tools, in the revisions the gate speaks. It knows messages and what
/// each revision demands of them; sockets, sessions and headers' transport are the gateway's.
///
/// 2026-07-28 is stateless: every request carries its version and the client's capabilities in `_meta`. The earlier
/// revisions begin with `initialize`.
package struct MCPServer: Sendable {
    package static let modern = "2026-07-28"
    /// Newest first.
    package static let legacy = ["2025-11-25", "2025-06-18", "2025-03-26"]
    /// Known of old, and so routed to the handshake, which answers with a version we speak.
    package static let older = ["2024-11-05", "2024-10-07"]

    package enum Era: Sendable, Equatable {
        case modern
        case legacy
    }

    private let host: any MCPToolHost
    private let version: String

    /// - Parameter version: the gate's, for `serverInfo`.
    package init(host: any MCPToolHost, version: String) {
        self.host = host
        self.version = version
    }

    private static let versionKey = "io.modelcontextprotocol/protocolVersion"
    private static let capabilitiesKey = "io.modelcontextprotocol/clientCapabilities"
    private static let serverInfoKey = "io.modelcontextprotocol/serverInfo"

    /// Why a call is made, for the person who may be asked.
    package static let reasonKey = "org.kruxos/reason"

    static let instructions =
        "KruxOS decides every call by policy and records it. Calls may need a person's approval: they answer with "
        + "a request_id at once; pass it to kruxos__wait_for_approval, or go on with other work. Paths are relative to "
        + "your workspace."

    /// The revision a message shows by itself; nil when it shows none, as every legacy message does.
    package static func version(in params: JSONObject?) -> String? { params?["_meta"]?[versionKey]?.string }

    /// The token under which a client wants progress.
    package static func progressToken(in params: JSONObject?) -> JSONValue? {
        switch params?["_meta"]?["progressToken"] {
        case .string(let text)?: .string(text)
        case .int(let number)?: .int(number)
        default: nil
        }
    }

    package static func progress(token: JSONValue, elapsedSeconds: Int64, message: String) -> JSONObject {
        [
            "jsonrpc": "2.0", "method": "notifications/progress",
            "params": [
                "progressToken": token, "progress": .int(elapsedSeconds), "message": .string(message),
            ],
        ]
    }

    /// What 2026-07-28 demands of every request's `_meta`, and that its version is one we speak.
    package static func checkModern(_ params: JSONObject?) throws(JSONRPCError) {
        guard let meta = params?["_meta"]?.object, let version = meta[versionKey]?.string,
            meta[capabilitiesKey]?.object != nil
        else {
            throw JSONRPCError(.invalidParams, "`_meta` needs `\(versionKey)` and `\(capabilitiesKey)`")
        }
        if version != modern {
            throw JSONRPCError(
                .unsupportedVersion, "Unsupported protocol version",
                data: ["supported": .strings([modern] + legacy), "requested": .string(version)])
        }
    }

    /// The value that `Mcp-Name` has to repeat; nil for methods without one.
    package static func name(method: String, params: JSONObject?) -> String? {
        switch method {
        case "tools/call", "prompts/get": params?["name"]?.string
        case "resources/read": params?["uri"]?.string
        case "tasks/get", "tasks/update", "tasks/cancel": params?["taskId"]?.string
        default: nil
        }
    }

    /// Answers a request.
    package func answer(method: String, params: JSONObject?, era: Era) async throws(JSONRPCError) -> JSONObject {
        switch (method, era) {
        case ("server/discover", .modern):
            return modernised(
                [
                    "supportedVersions": .strings([Self.modern] + Self.legacy),
                    "capabilities": ["tools": [:], "extensions": [Self.tasksExtension: [:]]],
                    "instructions": .string(Self.instructions), "ttlMs": 0, "cacheScope": "private",
                ])
        case ("initialize", .legacy): return try initialise(params)
        case ("ping", .legacy): return [:]
        case ("tools/list", _):
            if let cursor = params?["cursor"], !cursor.isNull {
                throw JSONRPCError(.invalidParams, "the list has one page, so there is no such cursor")
            }
            let list: JSONObject = ["tools": .array(await host.tools().map(\.json))]
            guard era == .modern else { return list }
            // What is listed depends on the agent and its policy, and may change at any time.
            var result = list
            result["ttlMs"] = 0
            result["cacheScope"] = "private"
            return modernised(result)
        case ("tools/call", _):
            let result = try await call(params, mayReturnTask: era == .modern && Self.speaksTasks(params))
            return era == .modern ? modernised(result) : result
        case ("tasks/get", .modern), ("tasks/update", .modern), ("tasks/cancel", .modern):
            return modernised(try await task(method, params))
        default: throw JSONRPCError(.methodNotFound, "Method not found", data: .string(String(method.prefix(128))))
        }
    }

    private static let tasksExtension = "io.modelcontextprotocol/tasks"

    /// Whether the client said with this request that it can be answered with a task.
    private static func speaksTasks(_ params: JSONObject?) -> Bool {
        params?["_meta"]?[capabilitiesKey]?["extensions"]?[tasksExtension]?.object != nil
    }

    private func task(_ method: String, _ params: JSONObject?) async throws(JSONRPCError) -> JSONObject {
        guard Self.speaksTasks(params) else {
            throw JSONRPCError(
                .missingCapability, "Missing required client capability",
                data: ["requiredCapabilities": ["extensions": [Self.tasksExtension: [:]]]])
        }
        guard let id = params?["taskId"]?.string else {
            throw JSONRPCError(.invalidParams, "`taskId` must be a string")
        }
        let unknown = JSONRPCError(.invalidParams, "Failed to retrieve task: Task not found")
        switch method {
        case "tasks/get":
            guard let task = await host.task(id) else { throw unknown }
            return task.json
        case "tasks/cancel":
            guard await host.cancelTask(id) else { throw unknown }
            return [:]
        default:
            // A task never asks its client for anything, so whatever comes answers nothing.
            guard await host.task(id) != nil else { throw unknown }
            return [:]
        }
    }

    private func call(_ params: JSONObject?, mayReturnTask: Bool) async throws(JSONRPCError) -> JSONObject {
        guard let name = params?["name"]?.string else { throw JSONRPCError(.invalidParams, "`name` must be a string") }
        let arguments: JSONObject
        switch params?["arguments"] {
        case nil, .null?: arguments = [:]
        case .object(let object)?: arguments = object
        default: throw JSONRPCError(.invalidParams, "`arguments` must be an object")
        }
        let given = params?["_meta"]?[Self.reasonKey] ?? .null
        let reason = given.string
        guard given.isNull || reason.map({ $0.utf8.count <= 2000 }) ?? false else {
            throw JSONRPCError(.invalidParams, "`\(Self.reasonKey)` is a text of at most 2000 bytes")
        }
        switch await host.call(tool: name, arguments: arguments, reason: reason) {
        case .success(let data): return MCPResult.success(data)
        case .failure(let error):
            if mayReturnTask, error.isPending, let id = error.context["request_id"]?.string,
                let task = await host.task(id)
            {
                var result = task.seed
                result["resultType"] = "task"
                return result
            }
            return MCPResult.failure(error)
        case .unknownTool: throw JSONRPCError(.invalidParams, "Unknown tool: \(name.prefix(128))")
        }
    }

    /// The client's version if we speak it, else our newest with a handshake; never the stateless revision.
    private func initialise(_ params: JSONObject?) throws(JSONRPCError) -> JSONObject {
        guard let requested = params?["protocolVersion"]?.string else {
            throw JSONRPCError(.invalidParams, "`protocolVersion` must be a string")
        }
        return [
            "protocolVersion": .string(Self.legacy.contains(requested) ? requested : Self.legacy[0]),
            "capabilities": ["tools": ["listChanged": false]], "serverInfo": serverInfo,
            "instructions": .string(Self.instructions),
        ]
    }

    private var serverInfo: JSONValue { ["name": "kruxos", "title": "KruxOS", "version": .string(version)] }

    private func modernised(_ result: JSONObject) -> JSONObject {
        var result = result
        if result["resultType"] == nil { result["resultType"] = "complete" }
        var meta = result["_meta"]?.object ?? [:]
        meta[Self.serverInfoKey] = serverInfo
        result["_meta"] = .object(meta)
        return result
    }
}
