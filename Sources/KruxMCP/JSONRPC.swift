package import KruxCore

/// A JSON-RPC 2.0 message as it came in.
package enum JSONRPCMessage: Sendable {
    /// `id` is a string or an integer and is given back as it came.
    case request(id: JSONValue, method: String, params: JSONObject?)
    case notification(method: String, params: JSONObject?)
    /// An answer to something we never asked.
    case response
    case invalid(JSONRPCError, id: JSONValue)

    package init(_ value: JSONValue) {
        guard let object = value.object else {
            self = .invalid(JSONRPCError(.invalidRequest, "a message is an object"), id: .null)
            return
        }
        let id = object["id"]
        let usableID: JSONValue
        switch id {
        case .string?, .int?: usableID = id ?? .null
        default: usableID = .null
        }
        func invalid(_ message: String) -> JSONRPCMessage {
            .invalid(JSONRPCError(.invalidRequest, message), id: usableID)
        }
        guard object["jsonrpc"]?.string == "2.0" else {
            self = invalid("`jsonrpc` must be \"2.0\"")
            return
        }
        guard let methodValue = object["method"] else {
            self = object["result"] != nil || object["error"] != nil ? .response : invalid("`method` is missing")
            return
        }
        guard let method = methodValue.string else {
            self = invalid("`method` must be a string")
            return
        }
        let params: JSONObject?
        switch object["params"] {
        case nil: params = nil
        case .object(let object)?: params = object
        default:
            self = .invalid(JSONRPCError(.invalidParams, "`params` must be an object"), id: usableID)
            return
        }
        if id == nil {
            self = .notification(method: method, params: params)
        } else if usableID.isNull {
            self = invalid("`id` must be a string or an integer")
        } else {
            self = .request(id: usableID, method: method, params: params)
        }
    }
}

package struct JSONRPCError: Error, Sendable, Equatable {
    package enum Code: Int64, Sendable {
        case parseError = -32700
        case invalidRequest = -32600
        case methodNotFound = -32601
        case invalidParams = -32602
        case internalError = -32603
        /// The gate's own: `data` is a structured error.
        case gate = -31999
        /// MCP 2026-07-28.
        case headerMismatch = -32020
        case missingCapability = -32021
        case unsupportedVersion = -32022
    }

    package let code: Code
    package let message: String
    package let data: JSONValue?

    package init(_ code: Code, _ message: String, data: JSONValue? = nil) {
        self.code = code
        self.message = message
        self.data = data
    }

    package var json: JSONObject {
        var json: JSONObject = ["code": .int(code.rawValue), "message": .string(message)]
        if let data { json["data"] = data }
        return json
    }

    package func response(id: JSONValue) -> JSONObject {
        ["jsonrpc": "2.0", "id": id, "error": .object(json)]
    }

    /// The same where an unknown id is left out: MCP's schema knows no null there, JSON-RPC's text demands it.
    package func mcpResponse(id: JSONValue) -> JSONObject {
        var response = response(id: id)
        if id.isNull { response["id"] = nil }
        return response
    }
}

package enum JSONRPC {
    package static func response(id: JSONValue, result: JSONObject) -> JSONObject {
        ["jsonrpc": "2.0", "id": id, "result": .object(result)]
    }
}
