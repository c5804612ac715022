import Foundation
package import KruxCore
import KruxCrypto
import KruxSandbox
import Synchronization

/// The processes of this gateway's agents: what runs, what has run lately, and all of their output.
///
/// Output goes to `outputs/<agent>/<id>.stdout` and `.stderr` in the gate's home, where no process sees it. The processes
/// end with the gateway; their output stays until newer ones take its place.
package final class ProcessTable: Sendable {
    /// One process, running or ended.
    package struct Entry: Sendable {
        package let id: String
        package let agent: String
        /// The command line, as it is shown.
        package let command: String
        package let startedAt: Timestamp
        package let isBackground: Bool
        let process: ConfinedProcess

        var isRunning: Bool { process.result == nil }

        /// `{process_id, command, state, started_at, exit_code?, signal?, timed_out?}`.
        var json: JSONObject {
            var json: JSONObject = [
                "process_id": .string(id), "command": .string(command), "state": "running",
                "started_at": .string(startedAt.rfc3339),
            ]
            guard let result = process.result else { return json }
            json["state"] = "ended"
            switch result.ending {
            case .exited(let code): json["exit_code"] = .int(Int64(code))
            case .signalled(let signal): json["signal"] = .int(Int64(signal))
            case .timedOut: json["timed_out"] = true
            }
            return json
        }
    }

    private struct State {
        var entries: [String: Entry] = [:]
        /// By time of start.
        var order: [String] = []
        /// What goes on until background processes have ended and that is recorded.
        var tasks: [String: Task<Void, Never>] = [:]
        var isStopped = false
        var refusesBackground = false
        /// Of each agent, those that are being started.
        var starting: [String: Int] = [:]
        /// Agents of whom one process runs that no other may run beside.
        var alone: Set<String> = []
    }

    private let folder: String
    private let state = Mutex(State())

    /// - Parameter folder: `outputs` in the gate's home; made when it is needed.
    package init(folder: String) { self.folder = folder }

    /// Of each of standard output and standard error; the rest is counted.
    static let mostKept = 64 << 20
    /// Of each agent, with their output.
    static let mostEntries = 100
    /// Of each agent, running at once.
    static let mostRunning = 64

    static func unknown(_ id: String) -> StructuredError {
        StructuredError(
            .notFound, "there is no process `\(id.prefix(64))` of yours",
            recovery: ["Use the process_id that process.run returned, or process.list."])
    }

    // MARK: Start and end

    /// Starts a process whose output is kept, unless it gets a secret.
    /// - Parameter isExclusive: no other process of the agent runs beside it.
    /// - Throws: `SandboxError`, or `StructuredError` when too many run.
    func start(
        _ launch: ConfinedProcess.Launch, command: String, isBackground: Bool, isExclusive: Bool = false,
        _ context: CallContext
    ) async throws -> Entry {
        let agent = context.agent.text
        let id = "pr_" + randomBytes(6).hex
        try state.withLock { state in
            guard !(isBackground && state.refusesBackground) else {
                throw StructuredError(
                    .unavailable, "no gateway runs, in which it could go on",
                    recovery: ["Start one with `kruxos serve`."])
            }
            let running = state.entries.values.count { $0.agent == agent && $0.process.result == nil }
            guard running + state.starting[agent, default: 0] < Self.mostRunning, !state.isStopped else {
                throw StructuredError(
                    .overloaded, "\(running) processes of yours run already", recovery: ["End one with process.kill."],
                    retryable: true, retryAfter: 5, context: ["most": .int(Int64(Self.mostRunning))])
            }
            let others = running + state.starting[agent, default: 0]
            guard !state.alone.contains(agent), !(isExclusive && others > 0) else {
                throw StructuredError(
                    .conflict, "a process that gets a login runs by itself, and another process of yours runs",
                    recovery: ["Wait until it has ended, or end it with process.kill; see process.list."],
                    retryable: true, retryAfter: 5)
            }
            if isExclusive { state.alone.insert(agent) }
            state.starting[agent, default: 0] += 1
        }
        var isStarted = false
        defer {
            state.withLock { state in
                state.starting[agent, default: 1] -= 1
                if isExclusive, !isStarted { state.alone.remove(agent) }
            }
        }
        let files = try OutputFiles(folder, agent, id)
        var launch = launch
        let progress = CallProgress.current
        let isKept = context.carried == nil
        launch.sink = { stream, bytes in
            progress?.add(bytes, countingLines: true)
            if isKept { files.write(stream, bytes) }
        }
        let startedAt = context.clock.now()
        if isBackground { try OutputFiles.mark(folder, agent, id, command, startedAt) }
        let process: ConfinedProcess
        do { process = try await ConfinedProcess.start(launch) } catch {
            OutputFiles.unmark(folder, agent, id)
            throw error
        }
        let entry = Entry(
            id: id, agent: agent, command: command, startedAt: startedAt, isBackground: isBackground,
            process: process)
        let old = state.withLock { state -> [String] in
            state.entries[id] = entry
            state.order.append(id)
            // Started while the gateway was being stopped.
            if state.isStopped, isBackground { process.signal(SIGKILL) }
            let own = state.order.filter { state.entries[$0]?.agent == agent }
            let ended = own.dropLast(Self.mostEntries).filter { state.entries[$0]?.process.result != nil }
            for id in ended {
                state.entries[id] = nil
                state.tasks[id] = nil
            }
            state.order.removeAll { ended.contains($0) }
            return ended
        }
        for id in old { OutputFiles.remove(folder, agent, id) }
        isStarted = true
        if isExclusive {
            Task { [self] in
                _ = await process.ended()
                state.withLock { _ = $0.alone.remove(agent) }
            }
        }
        return entry
    }

    /// Goes on with what follows when a background process has ended.
    func follow(_ entry: Entry, _ work: @escaping @Sendable (ConfinedProcess.Result) async -> Void) {
        let task = Task { [folder] in
            await work(await entry.process.ended())
            OutputFiles.unmark(folder, entry.agent, entry.id)
        }
        // Also of one that has ended by now: what follows is waited for.
        state.withLock { $0.tasks[entry.id] = task }
    }

    /// Background processes whose end an earlier gateway did not see: it ended before them, and they with it.
    /// - Returns: by agent, `{process_id, command, state, started_at}`.
    package func lost() -> [(agent: String, process: JSONObject)] {
        let agents = (try? FileManager.default.contentsOfDirectory(atPath: folder)) ?? []
        return agents.sorted().flatMap { agent in
            let names = (try? FileManager.default.contentsOfDirectory(atPath: "\(folder)/\(agent)")) ?? []
            return names.sorted().filter { $0.hasSuffix(".running") }.map { name in
                let data = FileManager.default.contents(atPath: "\(folder)/\(agent)/\(name)") ?? Data()
                var process: JSONObject = (try? JSONParser.parse([UInt8](data)))?.object ?? [:]
                process["process_id"] = .string(String(name.dropLast(".running".count)))
                process["state"] = "lost"
                return (agent, process)
            }
        }
    }

    /// Once the end of a lost process is in the record.
    package func forget(_ agent: String, _ process: JSONObject) {
        OutputFiles.unmark(folder, agent, process["process_id"]?.string ?? "")
    }

    /// From now on nothing is started that would go on after its call: this gate ends with the command that opened it.
    package func refuseBackground() { state.withLock { $0.refusesBackground = true } }

    /// Ends every process, and returns when what follows from that has been done.
    package func stop() async {
        let (running, tasks) = state.withLock { state in
            state.isStopped = true
            return (state.entries.values.filter { $0.process.result == nil }, Array(state.tasks.values))
        }
        for entry in running where entry.isBackground { entry.process.signal(SIGKILL) }
        for task in tasks { await task.value }
    }

    /// Ends every process of an agent.
    package func end(of agent: AgentName) {
        for entry in entries(of: agent) { entry.process.signal(SIGKILL) }
    }

    // MARK: Looking

    func entries(of agent: AgentName) -> [Entry] {
        state.withLock { state in
            state.order.compactMap { state.entries[$0] }.filter { $0.agent.utf8Equals(agent.text) }
        }
    }

    /// - Throws: `StructuredError` `.notFound`, for another agent's as well.
    func entry(_ id: String, of agent: AgentName) throws(StructuredError) -> Entry {
        guard let entry = state.withLock({ $0.entries[id] }), entry.agent.utf8Equals(agent.text) else {
            throw Self.unknown(id)
        }
        return entry
    }

    /// A part of the output, also of a process that an earlier gateway ran.
    /// - Returns: the bytes, how many there are, and whether more may come.
    func output(_ id: String, of agent: AgentName, _ stream: ConfinedProcess.Stream, at offset: Int64, limit: Int)
        throws(StructuredError) -> (bytes: [UInt8], size: Int64, isRunning: Bool)
    {
        let isRunning = state.withLock { $0.entries[id] }.map { $0.process.result == nil } ?? false
        guard let found = OutputFiles.read(folder, agent.text, id, stream, at: offset, limit: limit) else {
            throw Self.unknown(id)
        }
        return (found.bytes, found.size, isRunning)
    }

    /// Processor time and memory of everything a process has started, as far as the kernel still knows it.
    func usage(_ entry: Entry) -> (processorMilliseconds: Int64, residentBytes: Int64) {
        let ticks = Int64(sysconf(Int32(_SC_CLK_TCK)))
        let page = Int64(sysconf(Int32(_SC_PAGESIZE)))
        var found = (processor: Int64(0), pages: Int64(0))
        var left = [entry.process.pid]
        while let pid = left.popLast() {
            guard let stat = try? String(contentsOfFile: "/proc/\(pid)/stat", encoding: .utf8),
                let end = stat.lastIndex(of: ")")
            else { continue }
            // proc(5): the third field is the state; time in user and kernel mode are the 14th and 15th, of children that
            // were waited for the 16th and 17th, resident pages the 24th.
            let fields = stat[stat.index(after: end)...].split(separator: " ")
            guard fields.count > 21 else { continue }
            found.processor += fields[11...14].reduce(0) { $0 + (Int64($1) ?? 0) }
            found.pages += Int64(fields[21]) ?? 0
            let children = (try? String(contentsOfFile: "/proc/\(pid)/task/\(pid)/children", encoding: .utf8)) ?? ""
            left += children.split(separator: " ").compactMap { pid_t($0) }
        }
        return (found.processor * 1000 / max(1, ticks), found.pages * page)
    }
}

/// Where the output of one process goes.
private final class OutputFiles: Sendable {
    private let descriptors: [Int32]
    private let written = Mutex([0, 0])

    private static func path(_ folder: String, _ agent: String, _ id: String, _ stream: ConfinedProcess.Stream)
        -> String
    {
        "\(folder)/\(agent)/\(id).\(stream.rawValue)"
    }

    init(_ folder: String, _ agent: String, _ id: String) throws(StructuredError) {
        for path in [folder, "\(folder)/\(agent)"] where mkdir(path, 0o700) != 0 && errno != EEXIST {
            throw FileFailure.error(errno, path)
        }
        var opened: [Int32] = []
        for stream in ConfinedProcess.Stream.allCases {
            let path = Self.path(folder, agent, id, stream)
            let descriptor = open(path, O_WRONLY | O_CREAT | O_EXCL | O_APPEND | O_NOFOLLOW | O_CLOEXEC, 0o600)
            guard descriptor >= 0 else {
                let code = errno
                for descriptor in opened { close(descriptor) }
                throw FileFailure.error(code, path)
            }
            opened.append(descriptor)
        }
        descriptors = opened
    }

    deinit { for descriptor in descriptors { close(descriptor) } }

    /// What does not fit any more, or cannot be written, is left out: the count of what came stays true.
    func write(_ stream: ConfinedProcess.Stream, _ bytes: ArraySlice<UInt8>) {
        let index = stream == .stdout ? 0 : 1
        written.withLock { written in
            var rest = bytes.prefix(max(0, ProcessTable.mostKept - written[index]))
            while !rest.isEmpty {
                let count = rest.withUnsafeBytes { Glibc.write(descriptors[index], $0.baseAddress, $0.count) }
                if count < 0, errno == EINTR { continue }
                if count <= 0 {
                    written[index] = ProcessTable.mostKept
                    return
                }
                written[index] += count
                rest = rest.dropFirst(count)
            }
        }
    }

    static func read(
        _ folder: String, _ agent: String, _ id: String, _ stream: ConfinedProcess.Stream, at offset: Int64, limit: Int
    ) -> (bytes: [UInt8], size: Int64)? {
        guard id.hasPrefix("pr_"), id.utf8.count == 15, id.utf8.dropFirst(3).allSatisfy({ hexDigit($0) != nil }) else {
            return nil
        }
        let path = path(folder, agent, id, stream)
        let descriptor = open(path, O_RDONLY | O_NOFOLLOW | O_CLOEXEC)
        guard descriptor >= 0 else { return nil }
        defer { close(descriptor) }
        var status = stat()
        guard fstat(descriptor, &status) == 0 else { return nil }
        let count = max(0, min(limit, Int(Int64(status.st_size) - offset)))
        guard let bytes = try? Workspace.readAll(descriptor, count: count, at: offset, path) else { return nil }
        return (bytes, Int64(status.st_size))
    }

    /// Beside the output while a background process runs, for whoever comes after a crash.
    static func mark(_ folder: String, _ agent: String, _ id: String, _ command: String, _ startedAt: Timestamp)
        throws(StructuredError)
    {
        let json: JSONValue = [
            "process_id": .string(id), "command": .string(command), "started_at": .string(startedAt.rfc3339),
        ]
        let path = "\(folder)/\(agent)/\(id).running"
        guard FileManager.default.createFile(atPath: path, contents: Data(json.canonicalBytes())) else {
            throw FileFailure.error(errno, path)
        }
    }

    static func unmark(_ folder: String, _ agent: String, _ id: String) { unlink("\(folder)/\(agent)/\(id).running") }

    static func remove(_ folder: String, _ agent: String, _ id: String) {
        for stream in ConfinedProcess.Stream.allCases { unlink(path(folder, agent, id, stream)) }
    }
}
