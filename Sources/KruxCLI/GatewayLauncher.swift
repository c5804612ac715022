import Foundation
import KruxCore
import KruxEngine
import KruxGateway
import KruxSandbox

/// Starts a gateway in the background when none runs.
struct GatewayLauncher {
    let home: Home

    /// Returns once a gateway answers on the control socket. Two commands at once start one.
    /// - Parameter ports: tried in turn until one pair can be bound.
    /// - Returns: whether it was started here.
    @discardableResult
    func ensure(host: String = "127.0.0.1", ports: [(agents: Int, supervisors: Int)]) throws -> Bool {
        if try OperatorClient.connect(home) != nil { return false }
        try home.create()
        let guardFile = open(home.root + "/kruxos.start.lock", O_RDWR | O_CREAT | O_CLOEXEC, 0o600)
        guard guardFile >= 0, flock(guardFile, LOCK_EX) == 0 else {
            throw StructuredError(.ioFailure, "cannot lock the home: \(String(cString: strerror(errno)))")
        }
        defer { close(guardFile) }
        if try OperatorClient.connect(home) != nil { return false }
        for pair in ports {
            let arguments = [
                "serve", "--home", home.root, "--host", host, "--port", "\(pair.agents)", "--supervisor-port",
                "\(pair.supervisors)",
            ]
            guard let output = DetachedProcess.start(arguments: arguments, log: home.log) else {
                throw StructuredError(
                    .ioFailure, "cannot start the gateway: \(String(cString: strerror(errno)))",
                    recovery: ["Run `kruxos serve` yourself."])
            }
            defer { close(output) }
            if waitForReady(output) { return true }
        }
        throw StructuredError(
            .unavailable, "the gateway did not start:\n\(logTail())",
            recovery: ["Run `kruxos serve` to see why.", "Choose other ports with --port and --supervisor-port."])
    }

    /// Three lines, one per listener, or the end of the pipe when the gateway gave up.
    private func waitForReady(_ descriptor: Int32) -> Bool {
        var lines = 0
        var buffer = [UInt8](repeating: 0, count: 4096)
        while lines < 3 {
            let count = read(descriptor, &buffer, buffer.count)
            if count < 0, errno == EINTR { continue }
            if count <= 0 { return false }
            lines += buffer[..<count].count { $0 == 0x0A }
        }
        return true
    }

    private func logTail() -> String {
        guard let data = FileManager.default.contents(atPath: home.log) else { return "(no log)" }
        return String(decoding: data.suffix(2000), as: UTF8.self).split(separator: "\n").suffix(5).joined(
            separator: "\n")
    }
}
