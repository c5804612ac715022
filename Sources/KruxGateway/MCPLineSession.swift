import KruxCore
import KruxEngine
import KruxMCP
import Synchronization

/// MCP's stdio transport: a message per line, requests answered as they finish. The revision is each message's own: one
/// with the envelope of 2026-07-28 is modern, any other belongs to the handshake.
final class MCPLineSession: Sendable {
    private let engine: Engine
    private let agent: String
    private let connection: LineConnection
    private let running = Mutex<[String: Task<Void, Never>]>([:])

    init(engine: Engine, agent: String, connection: LineConnection) {
        self.engine = engine
        self.agent = agent
        self.connection = connection
    }

    func receive(_ line: [UInt8]) {
        if line.allSatisfy({ $0 == 0x20 || $0 == 0x0D || $0 == 0x09 }) { return }
        let value: JSONValue
        do throws(JSONParser.Failure) { value = try JSONParser.parse(line) } catch {
            connection.write(JSONRPCError(.parseError, "Parse error: \(error)").mcpResponse(id: .null))
            return
        }
        switch JSONRPCMessage(value) {
        case .invalid(let error, let id): connection.write(error.mcpResponse(id: id))
        case .response: break
        case .notification("notifications/cancelled", let params):
            guard let id = params?["requestId"]?.canonicalText else { return }
            running.withLock { $0.removeValue(forKey: id) }?.cancel()
        case .notification: break
        case .request(let id, let method, let params): start(id, method, params)
        }
    }

    private func start(_ id: JSONValue, _ method: String, _ params: JSONObject?) {
        let key = id.canonicalText
        let progress = CallProgress()
        running.withLock { running in
            running[key] = Task { [self] in
                let reply = await CallProgress.$current.withValue(progress) { await answer(id, method, params) }
                // A cancelled request is answered with silence.
                let wanted = self.running.withLock { $0.removeValue(forKey: key) } != nil
                if wanted { connection.write(reply) }
            }
        }
        if let token = MCPServer.progressToken(in: params) { pulse(key, token, progress) }
    }

    /// Progress every five seconds while the request runs.
    private func pulse(_ key: String, _ token: JSONValue, _ progress: CallProgress) {
        Task { [self] in
            var elapsed: Int64 = 0
            while true {
                try? await Task.sleep(for: HeldReply.pulse)
                elapsed += 5
                guard running.withLock({ $0[key] != nil }) else { return }
                connection.write(
                    MCPServer.progress(
                        token: token, elapsedSeconds: elapsed, message: progress.text(elapsedSeconds: elapsed)))
            }
        }
    }

    private func answer(_ id: JSONValue, _ method: String, _ params: JSONObject?) async -> JSONObject {
        do {
            // The agent may have been revoked since the last message.
            let caller = try engine.caller(agentNamed: agent, via: "stdio")
            let server = MCPServer(host: AgentTools(engine: engine, caller: caller), version: Engine.version)
            var era = MCPServer.Era.legacy
            if MCPServer.version(in: params) != nil || method == "server/discover" {
                try MCPServer.checkModern(params)
                era = .modern
            }
            return JSONRPC.response(id: id, result: try await server.answer(method: method, params: params, era: era))
        } catch let error as JSONRPCError {
            return error.response(id: id)
        } catch {
            let structured = Engine.structured(error)
            return JSONRPCError(.gate, structured.description, data: structured.json).response(id: id)
        }
    }

    /// The client says no more: what it asked for is still answered for a moment, then waits end; effects go on.
    func finish(within duration: Duration) async {
        let deadline = ContinuousClock.now + duration
        while let task = running.withLock({ $0.values.first }), ContinuousClock.now < deadline {
            await withTaskGroup(of: Void.self) { group in
                group.addTask { await task.value }
                group.addTask { try? await Task.sleep(until: deadline) }
                await group.next()
                group.cancelAll()
            }
        }
        end()
    }

    private func end() {
        let tasks = running.withLock { running in
            defer { running = [:] }
            return Array(running.values)
        }
        for task in tasks { task.cancel() }
    }
}
