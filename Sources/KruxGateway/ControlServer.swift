import Foundation
import Glibc
import KruxCore
import KruxEngine
import KruxMCP
import Logging
import Synchronization

/// `kruxos.sock`: the owner's commands while the gateway runs, one line of JSON each way.
///
///     → {"command":"agent.create","parameters":{…}}
///     ← {"result":{…}} or {"error":{…}}
///
/// `watch` answers with one line per event until the client goes. `mcp` turns the connection into an MCP stdio
/// transport for the agent named.
///
/// Who may connect: a process of the same user, seen in the gateway's own namespaces, that the gateway did not start.
/// A confined process is none of these even if it finds the socket.
package final class ControlServer: Sendable {
    private let engine: Engine
    private let path: String
    private let listener: Int32
    private let log: Logger
    private let addresses: JSONObject
    private let background: BackgroundTasks
    private let open = Mutex<Set<Int32>>([])
    private let closed = OneShot<Void>()
    private static let mostConnections = 128
    private static let longestLine = 20 << 20

    /// Binds the socket. The caller holds the writer's lock, so a socket that lies there is stale.
    /// - Parameter addresses: what `status` tells of the other listeners.
    init(engine: Engine, addresses: JSONObject, background: BackgroundTasks, log: Logger) throws {
        self.engine = engine
        self.log = log
        self.addresses = addresses
        self.background = background
        path = engine.home.socket
        unlink(path)
        listener = try UnixSocket.bind(engine.home.root, "kruxos.sock")
        let thread = Thread { [self] in acceptLoop() }
        thread.name = "kruxos.control"
        thread.stackSize = 256 << 10
        thread.start()
    }

    /// Takes no new connection; commands that run are still answered.
    func stop() {
        unlink(path)
        shutdown(listener, Int32(SHUT_RDWR))
    }

    /// Ends what has nothing left to answer and returns when every connection is closed.
    func finish() async {
        while true {
            let connections = open.withLock { $0 }
            if connections.isEmpty { return }
            // The reader sees the end; an answer that is due still goes out.
            for descriptor in connections { shutdown(descriptor, Int32(SHUT_RD)) }
            await closed.value(within: .milliseconds(200))
        }
    }

    private func acceptLoop() {
        while true {
            let descriptor = Glibc.accept(listener, nil, nil)
            if descriptor < 0 {
                if errno == EINTR || errno == ECONNABORTED { continue }
                close(listener)
                return
            }
            _ = fcntl(descriptor, F_SETFD, FD_CLOEXEC)
            let admitted = open.withLock { open in
                open.count < Self.mostConnections && open.insert(descriptor).inserted
            }
            guard admitted else {
                close(descriptor)
                continue
            }
            let thread = Thread { [self] in
                serve(descriptor)
                close(descriptor)
                let last = open.withLock { open in
                    open.remove(descriptor)
                    return open.isEmpty
                }
                if last { closed.set(()) }
            }
            thread.name = "kruxos.operator"
            thread.stackSize = 1 << 20
            thread.start()
        }
    }

    private func serve(_ descriptor: Int32) {
        let connection = LineConnection(descriptor, longestLine: Self.longestLine)
        let peer: Peer
        do throws(StructuredError) { peer = try Peer(descriptor) } catch {
            log.warning("a control connection was refused", metadata: ["reason": "\(error.description)"])
            connection.write(["error": error.json])
            return
        }
        while let line = connection.read() {
            guard let message = try? JSONParser.parse(line), let command = message["command"]?.string else {
                connection.write([
                    "error": StructuredError(.invalidRequest, "a line must hold a JSON object with a `command`").json
                ])
                return
            }
            let parameters = message["parameters"]?.object ?? [:]
            switch command {
            case "watch": return watch(connection, parameters)
            case "mcp": return mcp(connection, parameters)
            default: connection.write(blocking { await self.operate(command, parameters, peer.principal) })
            }
        }
    }

    private func operate(_ name: String, _ parameters: JSONObject, _ principal: Principal) async -> JSONObject {
        guard let command = Engine.OperatorCommand(rawValue: name) else {
            return ["error": StructuredError(.invalidRequest, "there is no command `\(name.prefix(64))`").json]
        }
        do {
            var result = try await engine.operate(command, parameters, by: principal)
            switch command {
            case .status: for member in addresses.members { result[member.key] = member.value }
            case .approvalDecide where result["state"]?.string == "approved":
                if let id = result["id"]?.string { background.start { [engine] in await engine.runApproved(id) } }
            default: break
            }
            return ["result": .object(result)]
        } catch {
            return ["error": Engine.structured(error).json]
        }
    }

    /// Runs a task to its end from this connection's own thread.
    private func blocking<T: Sendable>(_ work: @escaping @Sendable () async -> T) -> T {
        let done = DispatchSemaphore(value: 0)
        let box = Box<T>()
        Task {
            box.value = await work()
            done.signal()
        }
        done.wait()
        // INVARIANT: the task has set it before it signalled.
        // swift-format-ignore: NeverForceUnwrap
        return box.value!
    }

    private final class Box<T>: @unchecked Sendable {
        // @unchecked: written before the semaphore is signalled, read after it was waited for.
        var value: T?
    }

    private func watch(_ connection: LineConnection, _ parameters: JSONObject) {
        let agent = parameters["agent"]?.string
        let capability = parameters["capability"]?.string
        let stream = engine.events.subscribe()
        connection.write(["result": [:]])
        let watcher = Task {
            for await event in stream {
                if let agent, event.agent != agent { continue }
                if let capability, !Self.matches(event.capability, capability) { continue }
                connection.write(event.json)
            }
            connection.end()
        }
        // The client says nothing more; its end of file ends the watch.
        while connection.read() != nil {}
        watcher.cancel()
    }

    private static func matches(_ name: String, _ pattern: String) -> Bool {
        if pattern == "*" { return true }
        return pattern.hasSuffix("*") ? name.hasPrefix(pattern.dropLast()) : name == pattern
    }

    private func mcp(_ connection: LineConnection, _ parameters: JSONObject) {
        let name = parameters["agent"]?.string ?? ""
        do {
            _ = try engine.caller(agentNamed: name, via: "stdio")
        } catch {
            connection.write(["error": Engine.structured(error).json])
            return
        }
        connection.write(["result": [:]])
        let session = MCPLineSession(engine: engine, agent: name, connection: connection)
        while let line = connection.read() { session.receive(line) }
        blocking { await session.finish(within: .milliseconds(1500)) }
    }
}

/// The process at the other end of a control connection.
private struct Peer {
    let principal: Principal

    init(_ descriptor: Int32) throws(StructuredError) {
        func refuse(_ reason: String) -> StructuredError {
            StructuredError(
                .unauthenticated, "the control socket refuses this process: \(reason)",
                recovery: ["Run kruxos as the user whose gateway this is, outside any sandbox."])
        }
        // struct ucred: pid, uid, gid.
        var credentials: (pid_t, uid_t, gid_t) = (0, 0, 0)
        var length = socklen_t(MemoryLayout.size(ofValue: credentials))
        guard getsockopt(descriptor, SOL_SOCKET, SO_PEERCRED, &credentials, &length) == 0 else {
            throw refuse("it has no credentials")
        }
        let (pid, uid, _) = credentials
        guard uid == geteuid() else { throw refuse("it belongs to another user") }
        guard pid > 0 else { throw refuse("it runs in another process namespace") }
        for kind in ["user", "pid", "mnt"] {
            guard let own = Self.link("/proc/self/ns/\(kind)"), own == Self.link("/proc/\(pid)/ns/\(kind)") else {
                throw refuse("it runs in another \(kind) namespace")
            }
        }
        var ancestor = pid
        while ancestor > 1 {
            if ancestor == getpid() { throw refuse("the gateway started it") }
            guard let parent = Self.parent(ancestor) else { break }
            ancestor = parent
        }
        let name = getpwuid(uid).flatMap { String(validatingCString: $0.pointee.pw_name) } ?? "uid-\(uid)"
        principal = .supervisor(name)
    }

    private static func link(_ path: String) -> String? {
        var buffer = [UInt8](repeating: 0, count: 256)
        let count = buffer.withUnsafeMutableBytes { raw in
            // INVARIANT: the buffer is not empty.
            // swift-format-ignore: NeverForceUnwrap
            readlink(path, raw.bindMemory(to: CChar.self).baseAddress!, raw.count)
        }
        return count > 0 ? String(decoding: buffer[..<count], as: UTF8.self) : nil
    }

    /// The fourth field of `/proc/PID/stat`, after the name in parentheses, which may hold anything.
    private static func parent(_ pid: pid_t) -> pid_t? {
        guard let data = FileManager.default.contents(atPath: "/proc/\(pid)/stat"),
            let end = data.lastIndex(of: UInt8(ascii: ")"))
        else { return nil }
        let fields = String(decoding: data[data.index(after: end)...], as: UTF8.self).split(separator: " ")
        return fields.count > 1 ? pid_t(fields[1]) : nil
    }
}

/// Tasks that outlive the request that started them, and are awaited at the end.
package final class BackgroundTasks: Sendable {
    private struct State {
        var next = 0
        var running: [Int: Task<Void, Never>] = [:]
    }

    private let state = Mutex(State())

    package init() {}

    package func start(_ work: @escaping @Sendable () async -> Void) {
        state.withLock { state in
            state.next += 1
            let id = state.next
            state.running[id] = Task { [self] in
                await work()
                self.state.withLock { _ = $0.running.removeValue(forKey: id) }
            }
        }
    }

    package func finish() async {
        while let task = state.withLock({ $0.running.values.first }) { await task.value }
    }
}
