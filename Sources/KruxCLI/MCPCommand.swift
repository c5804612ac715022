import ArgumentParser
import Foundation
import KruxCore
import KruxEngine
import KruxGateway
import KruxRegistry
import KruxStore
import Synchronization

struct MCPCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "mcp", abstract: "Speak MCP on standard input and output, as an agent.",
        discussion: "Joins the gateway of the home, and starts one if none runs.")

    @OptionGroup var common: CommonOptions
    @Option(help: "The agent.") var agent: String

    mutating func run() async throws {
        let home = try common.resolveHome()
        let agent = agent
        // No gateway is started for an agent that does not exist.
        _ = try ReadOnlyStore(path: home.database).read { try AgentTable.require($0, agent) }
        try GatewayLauncher(home: home).ensure(ports: [(7700, 7800), (0, 0)])
        guard let descriptor = try UnixSocket.connect(home.root, "kruxos.sock") else {
            throw StructuredError(
                .unavailable, "the gateway has gone", recovery: ["Look into gateway.log in its home."])
        }
        let connection = LineConnection(descriptor, longestLine: 64 << 20)
        _ = try OperatorClient.ask(connection, "mcp", ["agent": .string(agent)])
        let inputEnded = InputFlag()
        let input = Thread {
            Self.copyInput(to: descriptor)
            // The client says no more; what it asked for is still answered.
            inputEnded.set()
            shutdown(descriptor, Int32(SHUT_WR))
        }
        input.start()
        while let line = connection.read() {
            var bytes = (line + [0x0A])[...]
            while !bytes.isEmpty {
                let count = bytes.withUnsafeBytes { write(STDOUT_FILENO, $0.baseAddress, $0.count) }
                if count < 0, errno == EINTR { continue }
                if count <= 0 { return }
                bytes = bytes.dropFirst(count)
            }
        }
        if inputEnded.value { return }
        throw StructuredError(
            .unavailable, "the gateway has stopped", recovery: ["Start it again with `kruxos serve`."])
    }

    private final class InputFlag: Sendable {
        private let flag = Mutex(false)
        var value: Bool { flag.withLock { $0 } }
        func set() { flag.withLock { $0 = true } }
    }

    private static func copyInput(to descriptor: Int32) {
        var buffer = [UInt8](repeating: 0, count: 64 << 10)
        while true {
            let count = read(STDIN_FILENO, &buffer, buffer.count)
            if count < 0, errno == EINTR { continue }
            if count <= 0 { return }
            var rest = buffer[..<count]
            while !rest.isEmpty {
                let sent = rest.withUnsafeBytes { write(descriptor, $0.baseAddress, $0.count) }
                if sent < 0, errno == EINTR { continue }
                if sent <= 0 { return }
                rest = rest.dropFirst(sent)
            }
        }
    }
}
