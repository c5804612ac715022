import Foundation
import KruxCore
import KruxEngine
import KruxGateway
import KruxStore
import Logging

/// Runs a supervisor's command through the gateway if one runs, else on the home directly.
struct OperatorClient {
    let home: Home

    /// - Throws: `StructuredError` and the engine's own errors.
    func run(_ command: Engine.OperatorCommand, _ parameters: JSONObject = [:]) async throws -> JSONObject {
        if let connection = try Self.connect(home) {
            return try Self.ask(connection, command.rawValue, parameters)
        }
        // Only creating an agent makes a home; anything else on a home that is not there is a slip of the pen.
        if command != .agentCreate { try ReadOnlyStore(path: home.database).close() }
        let engine = try Engine(home: home, log: Self.log)
        engine.refuseBackgroundProcesses()
        let result: Result<JSONObject, any Error>
        do {
            result = .success(try await engine.operate(command, parameters, by: .supervisor(Self.user)))
        } catch {
            result = .failure(error)
        }
        await engine.endProcesses()
        try engine.close()
        return try result.get()
    }

    /// A connection to the gateway of a home; nil when none runs.
    static func connect(_ home: Home) throws -> LineConnection? {
        try UnixSocket.connect(home.root, "kruxos.sock").map { LineConnection($0, longestLine: 64 << 20) }
    }

    static func ask(_ connection: LineConnection, _ command: String, _ parameters: JSONObject) throws -> JSONObject {
        connection.write(["command": .string(command), "parameters": .object(parameters)])
        guard let line = connection.read() else {
            throw StructuredError(
                .unavailable, "the gateway closed the connection", recovery: ["Look into gateway.log in its home."])
        }
        let reply = try JSONParser.parse(line)
        if let error = reply["error"].flatMap(StructuredError.init(json:)) { throw error }
        guard let result = reply["result"]?.object else {
            throw StructuredError(.internalError, "the gateway's answer cannot be read")
        }
        return result
    }

    static var user: String {
        getpwuid(geteuid()).flatMap { String(validatingCString: $0.pointee.pw_name) } ?? "uid-\(geteuid())"
    }

    /// Diagnostics on standard error; `KRUXOS_LOG` chooses the level.
    static var log: Logger {
        var logger = Logger(label: "kruxos") { StreamLogHandler.standardError(label: $0) }
        logger.logLevel =
            ProcessInfo.processInfo.environment["KRUXOS_LOG"].flatMap(Logger.Level.init(rawValue:)) ?? .warning
        return logger
    }
}
