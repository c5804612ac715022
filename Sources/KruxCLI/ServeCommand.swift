import ArgumentParser
import Foundation
import KruxCore
import KruxCrypto
import KruxEngine
import KruxGateway
import KruxSandbox
import Logging

struct ServeCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "serve", abstract: "Run the gateway until it is stopped.",
        discussion: "Prints a line per listener once all of them listen. SIGTERM lets calls in flight end.")

    @OptionGroup var common: CommonOptions
    @OptionGroup var listen: ListenOptions

    /// Connections, processes' pipes and proxies each take some; the usual limit of 1,024 is for programs that use select(2).
    private static func raiseDescriptors() {
        var limit = rlimit()
        let kind = __rlimit_resource_t(RLIMIT_NOFILE.rawValue)
        guard getrlimit(kind, &limit) == 0 else { return }
        limit.rlim_cur = max(limit.rlim_cur, min(limit.rlim_max, 65_536))
        setrlimit(kind, &limit)
    }

    mutating func run() async throws {
        let log = OperatorClient.log
        let home = try common.resolveHome()
        if let running = try OperatorClient.connect(home) {
            let status = try OperatorClient.ask(running, Engine.OperatorCommand.status.rawValue, [:])
            throw StructuredError(
                .unavailable, "a gateway runs for this home already, agents on \(status["agents_url"]?.string ?? "-")",
                recovery: ["Stop it first, or give another home with --home."])
        }
        Self.raiseDescriptors()
        let groups: ControlGroups?
        do throws(SandboxError) {
            groups = try ControlGroups.claim("kruxos-\(sha256(Array(home.root.utf8)).hex.prefix(12))")
        } catch {
            groups = nil
            log.info("no cgroup limits", metadata: ["why": "\(error.message)", "hint": "\(error.hint ?? "-")"])
        }
        let engine = try Engine(home: home, log: log, groups: groups)
        engine.watchPolicies()
        let anchors = Task { await engine.runAnchors() }
        let retention = Task { await engine.runRetention() }
        let gateway = Gateway(
            engine: engine,
            configuration: .init(host: listen.host, port: listen.port, supervisorPort: listen.supervisorPort), log: log)
        let failure: (any Error)?
        do {
            try await gateway.run { lines in
                for line in lines { Console.print(line) }
                if let key = engine.newRootKey {
                    Console.print(
                        "root key     \(key.bytes.hex)  (of the new record; keep it elsewhere, for audit verify --trust)"
                    )
                }
            }
            failure = nil
        } catch {
            failure = error
        }
        retention.cancel()
        engine.drain()
        anchors.cancel()
        await anchors.value
        await retention.value
        try engine.close()
        if let failure {
            Console.printError("error: the gateway stopped: \(failure)")
            if "\(failure)".contains("in use") {
                Console.printError("  - choose other ports with --port and --supervisor-port; 0 takes any free one")
            }
            throw KruxExit.unavailable
        }
    }
}

/// Where a gateway listens.
struct ListenOptions: ParsableArguments {
    @Option(name: .long, help: "The address both ports are bound to.")
    var host = "127.0.0.1"

    @Option(name: .long, help: "The agents' port; 0 for any.")
    var port = 7700

    @Option(name: .long, help: "The supervisors' port; 0 for any.")
    var supervisorPort = 7800

    mutating func validate() throws {
        guard (0...65535).contains(port), (0...65535).contains(supervisorPort) else {
            throw ValidationError("a port is a number from 0 to 65535")
        }
    }
}
