import CSandbox
package import Foundation
import KruxCore
import Synchronization

/// A process that an agent causes, confined by the launcher in `CSandbox`; there is no other way to start one. A machine
/// that cannot give every layer gets a refusal that names the layer, never an unconfined process, unless the policy lets
/// that layer be missing.
package final class ConfinedProcess: Sendable {
    package struct Launch: Sendable {
        /// `[0]` is a program's name, looked for in `searchPath`, or a path in the confined root.
        package var arguments: [String]
        package var environment: [String: String]
        /// An `O_PATH` descriptor of the workspace; the caller keeps it open until the process has been started.
        package var workspace: Int32
        /// Where the workspace is seen: `/workspace/<agent>`.
        package var workspacePath: String
        /// Relative to the workspace; empty for itself.
        package var directory: String
        package var timeoutSeconds: Int64
        /// Bytes kept of each of standard output and standard error; the rest is counted.
        package var outputLimit: Int
        package var confinement: Confinement
        /// Gets all of the output as it comes, from the process's own thread.
        package var sink: (@Sendable (Stream, ArraySlice<UInt8>) -> Void)?

        package init(
            arguments: [String], environment: [String: String], workspace: Int32, workspacePath: String,
            directory: String, timeoutSeconds: Int64, outputLimit: Int, confinement: Confinement,
            sink: (@Sendable (Stream, ArraySlice<UInt8>) -> Void)? = nil
        ) {
            self.arguments = arguments
            self.environment = environment
            self.workspace = workspace
            self.workspacePath = workspacePath
            self.directory = directory
            self.timeoutSeconds = timeoutSeconds
            self.outputLimit = outputLimit
            self.confinement = confinement
            self.sink = sink
        }
    }

    package enum Stream: String, Sendable, CaseIterable {
        case stdout, stderr
    }

    package enum Ending: Sendable, Equatable {
        case exited(Int32)
        case signalled(Int32)
        case timedOut
    }

    package struct Output: Sendable, Equatable {
        package var kept: [UInt8] = []
        /// Bytes written by the process, kept or not.
        package var total: Int = 0
    }

    package struct Result: Sendable {
        package let ending: Ending
        package let standardOutput: Output
        package let standardError: Output
        package let durationMicroseconds: Int64
        package let layers: SandboxLayers
        /// Whether the kernel killed a process meanwhile because the agent's memory was used up.
        package let ranOutOfMemory: Bool
    }

    /// Where names of programs are looked for, whatever `PATH` a process is given.
    package static let searchPath = String(cString: krux_search_path())

    /// The program that a name means, as it is now.
    package static func locate(_ name: String) -> String? {
        guard !name.isEmpty, !name.contains("/") else { return nil }
        return searchPath.split(separator: ":").map { "\($0)/\(name)" }.first { path in
            var status = stat()
            return stat(path, &status) == 0 && status.st_mode & S_IFMT == S_IFREG && access(path, X_OK) == 0
        }
    }

    /// The version of Landlock this kernel has; below 1 for none.
    package static var landlockABI: Int { Int(krux_landlock_abi()) }

    /// The layers that hold it.
    package let layers: SandboxLayers
    /// Of its first process, in the gateway's own numbering.
    package let pid: pid_t

    private struct State {
        var result: Result?
        var waiting: [CheckedContinuation<Result, Never>] = []
        /// Closed once it has ended.
        var pidfd: Int32
        var totals = [0, 0]
    }
    private let state: Mutex<State>

    private init(pidfd: Int32, layers: SandboxLayers) {
        self.layers = layers
        pid = Self.pid(of: pidfd)
        state = Mutex(State(pidfd: pidfd))
    }

    /// Starts it; what it writes is read from then on.
    /// - Throws: `SandboxError`.
    package static func start(_ launch: Launch) async throws(SandboxError) -> ConfinedProcess {
        let outcome: Swift.Result<ConfinedProcess, SandboxError> = await withCheckedContinuation { continuation in
            // A thread of its own: it waits in poll(2), which no cooperative thread may.
            let thread = Thread { Self.follow(launch) { continuation.resume(returning: $0) } }
            thread.name = "kruxos.process"
            thread.stackSize = 512 << 10
            thread.start()
        }
        return try outcome.get()
    }

    /// Runs to the end, or to the timeout, when the whole process tree is killed. A task that is cancelled kills it too.
    /// - Throws: `SandboxError`.
    package static func run(_ launch: Launch) async throws(SandboxError) -> Result {
        let process = try await start(launch)
        return await withTaskCancellationHandler {
            await process.ended()
        } onCancel: {
            process.signal(SIGKILL)
        }
    }

    /// What it came to, once it has ended.
    package func ended() async -> Result {
        await withCheckedContinuation { continuation in
            let result = state.withLock { state -> Result? in
                if state.result == nil { state.waiting.append(continuation) }
                return state.result
            }
            if let result { continuation.resume(returning: result) }
        }
    }

    /// Nil while it runs.
    package var result: Result? { state.withLock { $0.result } }
    /// Bytes written so far, to standard output and to standard error.
    package var totals: [Int] { state.withLock { $0.totals } }

    /// Sends a signal to the program, SIGKILL to everything it has started as well.
    /// - Returns: whether it still ran.
    @discardableResult
    package func signal(_ number: Int32) -> Bool {
        state.withLock { state in
            guard state.result == nil, state.pidfd >= 0 else { return false }
            let isWhole = number == SIGKILL && !layers.contains(.namespaces)
            return krux_pidfd_signal(state.pidfd, isWhole ? Int32(KRUX_SIGNAL_END) : number) == 0
        }
    }

    /// Launches, tells `started`, and reads to the end.
    private static func follow(
        _ launch: Launch, _ started: (Swift.Result<ConfinedProcess, SandboxError>) -> Void
    ) {
        let begun = monotonic()
        let command = launch.arguments.first ?? ""
        guard let out = Pipe(), let err = Pipe(), let status = Pipe(), let connections = ConnectionSocket(launch) else {
            return started(.failure(SandboxError(.exhausted, "no descriptors left for a process")))
        }
        let pidfd = Self.launch(launch, out.writeEnd, err.writeEnd, status.writeEnd, connections.theirs)
        out.closeWriteEnd()
        err.closeWriteEnd()
        status.closeWriteEnd()
        connections.closeTheirs()
        guard pidfd >= 0 else {
            return started(.failure(SandboxError(step: KRUX_STEP_CLONE.rawValue, code: -pidfd, command: command)))
        }
        guard let first = report(status.readEnd) else {
            close(pidfd)
            return started(.failure(SandboxError(.unavailable, "the process was killed before it began")))
        }
        guard first.step == KRUX_STEP_NONE.rawValue else {
            // The launcher's first process ends by itself; nothing of the agent's ran.
            close(pidfd)
            return started(.failure(SandboxError(report: first, command: command)))
        }
        let process = ConfinedProcess(pidfd: pidfd, layers: SandboxLayers(rawValue: first.layers))
        started(.success(process))
        process.read(launch, out.readEnd, err.readEnd, status.readEnd, connections.ours, since: begun)
    }

    /// The next report; nil at the end of the pipe.
    private static func report(_ descriptor: Int32) -> krux_report? {
        var report = krux_report()
        while true {
            // One report is one write of less than a pipe's atomic size.
            let count = Glibc.read(descriptor, &report, MemoryLayout<krux_report>.size)
            if count < 0, errno == EINTR { continue }
            return count == MemoryLayout<krux_report>.size ? report : nil
        }
    }

    /// Reads what the process writes until the launcher's first process has ended, and with it everything it started.
    private func read(
        _ launch: Launch, _ out: Int32, _ err: Int32, _ status: Int32, _ connections: Int32, since begun: Int64
    ) {
        var kept: [[UInt8]] = [[], []]
        var buffer = [UInt8](repeating: 0, count: 64 << 10)
        func take(_ index: Int, _ count: Int) {
            let bytes = buffer[..<count]
            kept[index] += bytes.prefix(max(0, launch.outputLimit - kept[index].count))
            state.withLock { $0.totals[index] += count }
            launch.sink?(Stream.allCases[index], bytes)
        }
        let group = launch.confinement.group
        let killsBefore = group?.outOfMemoryKills ?? 0
        var open = [out, err, status, connections]
        var report: krux_report?
        var timedOut = false
        let deadline = begun + launch.timeoutSeconds * 1_000_000
        // The status descriptor closes last: the launcher's first process holds it until everything has ended.
        while open[2] >= 0 {
            var descriptors = open.map { pollfd(fd: $0, events: Int16(POLLIN), revents: 0) }
            let wait = timedOut ? -1 : max(0, (deadline - Self.monotonic() + 999) / 1000)
            let ready = poll(&descriptors, nfds_t(descriptors.count), Int32(clamping: wait))
            if ready == 0, !timedOut {
                timedOut = true
                signal(SIGKILL)
                continue
            }
            guard ready > 0 else { continue }
            for index in 0..<2 where open[index] >= 0 && descriptors[index].revents != 0 {
                let count = Glibc.read(open[index], &buffer, buffer.count)
                if count < 0, errno == EINTR { continue }
                if count > 0 { take(index, count) } else { open[index] = -1 }
            }
            if descriptors[2].revents != 0 {
                if let next = Self.report(status) { report = next } else { open[2] = -1 }
            }
            if open[3] >= 0, descriptors[3].revents != 0 {
                let connection = krux_receive_descriptor(connections)
                if connection >= 0 {
                    launch.confinement.proxy?(connection)
                } else if connection != -EINTR {
                    open[3] = -1
                }
            }
        }
        // What was written before the end is still in the pipes; who holds one beyond the end, if anybody, is not waited for.
        for index in 0..<2 where open[index] >= 0 {
            while true {
                var descriptor = pollfd(fd: open[index], events: Int16(POLLIN), revents: 0)
                guard poll(&descriptor, 1, 0) > 0 else { break }
                let count = Glibc.read(open[index], &buffer, buffer.count)
                if count <= 0 { break }
                take(index, count)
            }
        }
        let ending: Ending
        if timedOut {
            ending = .timedOut
        } else if let report, report.ended != 0 {
            let code = report.wait_status
            ending = code & 0x7F == 0 ? .exited(code >> 8 & 0xFF) : .signalled(code & 0x7F)
        } else {
            // The namespace was killed from outside.
            ending = .signalled(SIGKILL)
        }
        let ranOutOfMemory = group.map { $0.outOfMemoryKills > killsBefore } ?? false
        let waiting = state.withLock { state in
            let result = Result(
                ending: ending, standardOutput: Output(kept: kept[0], total: state.totals[0]),
                standardError: Output(kept: kept[1], total: state.totals[1]),
                durationMicroseconds: Self.monotonic() - begun, layers: layers, ranOutOfMemory: ranOutOfMemory)
            state.result = result
            close(state.pidfd)
            state.pidfd = -1
            defer { state.waiting = [] }
            return state.waiting.map { ($0, result) }
        }
        for (continuation, result) in waiting { continuation.resume(returning: result) }
    }

    /// Microseconds that only go up.
    private static func monotonic() -> Int64 {
        var time = timespec()
        clock_gettime(CLOCK_MONOTONIC, &time)
        return Int64(time.tv_sec) * 1_000_000 + Int64(time.tv_nsec) / 1000
    }

    /// The `Pid:` line of a pidfd's `fdinfo`.
    private static func pid(of pidfd: Int32) -> pid_t {
        let text = (try? String(contentsOfFile: "/proc/self/fdinfo/\(pidfd)", encoding: .utf8)) ?? ""
        let line = text.split(separator: "\n").first { $0.hasPrefix("Pid:") }
        return line.flatMap { pid_t($0.dropFirst(4).trimmingCharacters(in: .whitespaces)) } ?? -1
    }

    /// A path without links; empty for one that does not exist, nil for one that cannot be told.
    private static func resolved(_ path: String) -> String? {
        if path.isEmpty { return "" }
        guard let found = realpath(path, nil) else { return errno == ENOENT ? "" : nil }
        defer { free(found) }
        return String(cString: found)
    }

    /// The zygote answers one launch at a time.
    private static let zygote = NSLock()

    /// - Returns: a pidfd, or a negative errno.
    private static func launch(_ launch: Launch, _ out: Int32, _ err: Int32, _ status: Int32, _ proxy: Int32) -> Int32 {
        let box = launch.confinement
        guard let home = resolved(box.home) else { return -errno }
        let texts = CStrings([launch.workspacePath, launch.directory, home])
        let arguments = CStrings(launch.arguments)
        let environment = CStrings(launch.environment.sorted { $0.key < $1.key }.map { "\($0.key)=\($0.value)" })
        let mounts = CStrings(box.mounts.map { ($0.isReadOnly ? "ro" : "rw") + $0.target })
        let protected = CStrings(box.protected)
        guard box.mounts.count <= KRUX_MOST_MOUNTS else { return -E2BIG }
        return withExtendedLifetime((texts, arguments, environment, mounts, protected)) {
            var wire = krux_launch()
            wire.workspace = texts.pointer[0]
            wire.directory = texts.pointer[1]
            wire.home = texts.pointer[2]
            wire.arguments = arguments.pointer
            wire.environment = environment.pointer
            wire.mounts = mounts.pointer
            wire.protect = protected.pointer
            wire.limits = krux_limits(
                cpu_seconds: UInt64(max(1, launch.timeoutSeconds)) * 4, file_bytes: 4 << 30, open_files: 1024,
                processes: 1024, address_space: 16 << 30, tmp_bytes: 256 << 20)
            wire.files =
                switch box.settings.files {
                case .readOnly: KRUX_READ_ONLY.rawValue
                case .workspaceWrite: KRUX_WORKSPACE_WRITE.rawValue
                case .fullAccess: KRUX_FULL_ACCESS.rawValue
                }
            wire.optional = box.settings.isBestEffort ? SandboxLayers.all.rawValue : 0
            wire.omit = box.omitted.rawValue
            wire.uid = Confinement.processUser ?? 0
            wire.workspace_fd = launch.workspace
            wire.stdout_fd = out
            wire.stderr_fd = err
            wire.status_fd = status
            wire.cgroup_fd = box.group?.descriptor ?? -1
            wire.proxy_fd = proxy
            withUnsafeMutableBytes(of: &wire.mount_fds) { raw in
                let descriptors = raw.bindMemory(to: Int32.self)
                for (index, mount) in box.mounts.enumerated() { descriptors[index] = mount.descriptor }
            }
            zygote.lock()
            defer { zygote.unlock() }
            return krux_zygote_launch(&wire)
        }
    }
}

/// The socket on which the launcher hands over connections to the proxy, where there is one.
private final class ConnectionSocket {
    private(set) var ours: Int32 = -1
    private(set) var theirs: Int32 = -1

    init?(_ launch: ConfinedProcess.Launch) {
        guard launch.confinement.proxy != nil else { return }
        var ends: [Int32] = [-1, -1]
        let kind = Int32(SOCK_SEQPACKET.rawValue) | Int32(SOCK_CLOEXEC.rawValue)
        guard socketpair(AF_UNIX, kind, 0, &ends) == 0 else { return nil }
        (ours, theirs) = (ends[0], ends[1])
    }

    func closeTheirs() {
        if theirs >= 0 { close(theirs) }
        theirs = -1
    }

    deinit {
        closeTheirs()
        if ours >= 0 { close(ours) }
    }
}

/// A C array of C strings with a null at its end.
final class CStrings {
    private let owned: [UnsafeMutablePointer<CChar>?]
    private let list: UnsafeMutablePointer<UnsafePointer<CChar>?>
    var pointer: UnsafePointer<UnsafePointer<CChar>?> { UnsafePointer(list) }

    init(_ texts: [String]) {
        owned = texts.map { strdup($0) }
        list = .allocate(capacity: texts.count + 1)
        for (index, text) in owned.enumerated() { (list + index).initialize(to: text.map { UnsafePointer($0) }) }
        (list + texts.count).initialize(to: nil)
    }

    deinit {
        list.deallocate()
        for text in owned { free(text) }
    }
}

private final class Pipe {
    let readEnd: Int32
    private(set) var writeEnd: Int32

    init?() {
        var ends: [Int32] = [-1, -1]
        guard krux_pipe(&ends) == 0 else { return nil }
        readEnd = ends[0]
        writeEnd = ends[1]
    }

    func closeWriteEnd() {
        if writeEnd >= 0 { close(writeEnd) }
        writeEnd = -1
    }

    deinit {
        close(readEnd)
        closeWriteEnd()
    }
}
