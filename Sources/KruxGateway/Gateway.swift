import Hummingbird
import HummingbirdCore
import KruxCore
package import KruxEngine
package import Logging
import NIOCore
import NIOPosix
import ServiceLifecycle
import Synchronization
import UnixSignals

/// The running gateway: the engine behind two ports and the control socket, until a signal stops it.
package struct Gateway: Sendable {
    package struct Configuration: Sendable {
        package var host: String
        /// 0 for any.
        package var port: Int
        package var supervisorPort: Int

        package init(host: String, port: Int, supervisorPort: Int) {
            self.host = host
            self.port = port
            self.supervisorPort = supervisorPort
        }
    }

    private static let mostConnections = 1024
    private let engine: Engine
    private let configuration: Configuration
    private let log: Logger

    package init(engine: Engine, configuration: Configuration, log: Logger) {
        self.engine = engine
        self.configuration = configuration
        self.log = log
    }

    /// Serves until SIGTERM or SIGINT, then lets calls in flight end.
    /// - Parameter ready: called with each listener's line once all of them listen.
    package func run(ready: @escaping @Sendable ([String]) -> Void) async throws {
        let background = BackgroundTasks()
        let bound = Listeners(engine: engine, host: configuration.host, background: background, log: log, ready: ready)
        let agents = application(
            AgentRoutes(engine: engine, host: configuration.host), configuration.port, "agents", bound)
        let supervisors = application(
            SupervisorRoutes(
                engine: engine, guardian: RequestGuard(host: configuration.host), background: background),
            configuration.supervisorPort, "supervisors", bound)
        // Stopped in reverse: first the waits end, then the listeners close.
        let group = ServiceGroup(
            configuration: ServiceGroupConfiguration(
                services: [agents, supervisors, Drain(engine: engine, listeners: bound)],
                gracefulShutdownSignals: [.sigterm, .sigint], logger: log))
        background.start { [engine] in await engine.watchTheTime() }
        background.start { [engine] in await engine.tellPeople() }
        background.start { [engine] in await engine.runSchedules() }
        for id in try engine.approvedRequests() { background.start { [engine] in await engine.runApproved(id) } }
        do {
            try await group.run()
        } catch {
            bound.stop()
            await background.finish()
            await bound.finish()
            throw error
        }
        await background.finish()
        await bound.finish()
        await engine.endProcesses()
    }

    private func application(
        _ responder: some HTTPResponder<ConnectionContext>, _ port: Int, _ name: String, _ listeners: Listeners
    ) -> any Service {
        Application(
            responder: responder,
            server: OnLoopChannel.builder(
                configuration: .init(
                    idleTimeout: .seconds(120),
                    httpDecoderConfiguration: .init(
                        maxHeaderFieldSize: 16 << 10, maxHeaderListSize: 32 << 10, maxHeaderFieldCount: 100))),
            configuration: ApplicationConfiguration(
                address: .hostname(configuration.host, port: port), serverName: nil, backlog: 512,
                availableConnectionsDelegate: MaximumAvailableConnections(Self.mostConnections, logger: log)),
            onServerRunning: { channel in listeners.bound(name, channel.localAddress?.port ?? port) }, logger: log)
    }
}

/// Ends what would hold a stop up.
private struct Drain: Service {
    let engine: Engine
    let listeners: Listeners

    func run() async throws {
        try? await gracefulShutdown()
        listeners.stop()
        engine.drain()
    }
}

/// Which listeners are up. When both ports are, the control socket opens, so that a command which finds it finds
/// everything.
private final class Listeners: Sendable {
    private struct State {
        var ports: [String: Int] = [:]
        var control: ControlServer?
    }

    private let engine: Engine
    private let host: String
    private let background: BackgroundTasks
    private let log: Logger
    private let ready: @Sendable ([String]) -> Void
    private let state = Mutex(State())

    init(
        engine: Engine, host: String, background: BackgroundTasks, log: Logger,
        ready: @escaping @Sendable ([String]) -> Void
    ) {
        self.engine = engine
        self.host = host
        self.background = background
        self.log = log
        self.ready = ready
    }

    func bound(_ name: String, _ port: Int) {
        let ports = state.withLock { state in
            state.ports[name] = port
            return state.ports
        }
        guard let agents = ports["agents"], let supervisors = ports["supervisors"] else { return }
        let shown = host.contains(":") ? "[\(host)]" : host
        let agentURL = "http://\(shown):\(agents)"
        let supervisorURL = "http://\(shown):\(supervisors)"
        do {
            let control = try ControlServer(
                engine: engine,
                addresses: [
                    "agents_url": .string(agentURL), "supervisors_url": .string(supervisorURL), "running": true,
                ],
                background: background, log: log)
            state.withLock { $0.control = control }
        } catch {
            log.critical("the control socket cannot be opened", metadata: ["error": "\(error)"])
        }
        ready([
            "agents       \(agentURL)", "supervisors  \(supervisorURL)", "operators    \(engine.home.socket)",
        ])
    }

    func stop() { state.withLock { $0.control }?.stop() }
    func finish() async { await state.withLock { $0.control }?.finish() }
}
