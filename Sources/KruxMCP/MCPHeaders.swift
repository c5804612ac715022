package import KruxCore

/// The headers of revision 2026-07-28 that repeat the body, so that what is between client and server can route
/// without reading it; the server refuses a request whose headers say something else.
package struct MCPHeaders: Sendable {
    package let protocolVersion: [String]
    package let method: [String]
    package let name: [String]

    /// All values of each header, in order.
    package init(protocolVersion: [String], method: [String], name: [String]) {
        self.protocolVersion = protocolVersion
        self.method = method
        self.name = name
    }

    /// Which way a POST goes: an absent version, or one of a revision with a handshake, goes to the handshake.
    package var era: MCPServer.Era {
        guard let version = protocolVersion.first else { return .legacy }
        return (MCPServer.legacy + MCPServer.older).contains(version) ? .legacy : .modern
    }

    /// The ladder of checks for a modern request, first failure first.
    /// - Parameter decodeBase64: RFC 4648 with padding.
    package func check(
        method: String, params: JSONObject?, decodeBase64: (String) -> [UInt8]?
    ) throws(JSONRPCError) {
        for (header, values) in [
            ("MCP-Protocol-Version", protocolVersion), ("Mcp-Method", self.method), ("Mcp-Name", name),
        ]
        where values.count > 1 {
            throw JSONRPCError(.headerMismatch, "Header mismatch: \(header) is given more than once")
        }
        guard let version = MCPServer.version(in: params) else {
            try MCPServer.checkModern(params)
            return
        }
        try mismatch("MCP-Protocol-Version", protocolVersion.first, version)
        try mismatch("Mcp-Method", self.method.first, method)
        if let expected = MCPServer.name(method: method, params: params) {
            var value = name.first
            if let text = value, text.hasPrefix("=?base64?"), text.hasSuffix("?="), text.utf8.count >= 11 {
                value = decodeBase64(String(text.dropFirst(9).dropLast(2))).flatMap {
                    String(validating: $0, as: UTF8.self)
                }
            }
            try mismatch("Mcp-Name", value, expected)
        }
        try MCPServer.checkModern(params)
    }

    private func mismatch(_ header: String, _ value: String?, _ expected: String) throws(JSONRPCError) {
        guard let value else { throw JSONRPCError(.headerMismatch, "Header mismatch: \(header) is missing") }
        guard value.utf8Equals(expected) else {
            throw JSONRPCError(
                .headerMismatch,
                "Header mismatch: \(header) is `\(value.prefix(128))` and the body says `\(expected.prefix(128))`")
        }
    }
}
