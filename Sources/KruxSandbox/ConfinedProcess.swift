import CSandbox
import Foundation
import KruxCore

/// Starts every process an agent causes, confined by the launcher in `CSandbox`; there is no other way to start one.
/// A machine that cannot give every layer gets a refusal that names the layer, never an unconfined process.
package struct ConfinedProcess: Sendable {
    /// `[0]` is a program's name, looked for in `searchPath`, or a path in the confined root.
    package var arguments: [String]
    package var environment: [String: String]
    /// An `O_PATH` descriptor of the workspace; the caller keeps it open until `run` returns.
    package var workspace: Int32
    /// Where the workspace is seen: `/workspace/<agent>`.
    package var workspacePath: String
    /// Relative to the workspace; empty for itself.
    package var directory: String
    package var timeoutSeconds: Int64
    /// Bytes kept of each of standard output and standard error; the rest is counted and dropped.
    package var outputLimit: Int

    package init(
        arguments: [String], environment: [String: String], workspace: Int32, workspacePath: String, directory: String,
        timeoutSeconds: Int64, outputLimit: Int
    ) {
        self.arguments = arguments
        self.environment = environment
        self.workspace = workspace
        self.workspacePath = workspacePath
        self.directory = directory
        self.timeoutSeconds = timeoutSeconds
        self.outputLimit = outputLimit
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
    }

    /// What of confinement every process gets, as the record names it.
    package static let layers = [
        "user, mount, pid, net, ipc and uts namespaces", "private root", "landlock", "no_new_privs", "no capabilities",
        "rlimits",
    ]

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

    /// Runs to the end, or to the timeout, when the whole process tree is killed.
    /// - Throws: `SandboxError`.
    package func run() async throws(SandboxError) -> Result {
        let outcome: Swift.Result<Result, SandboxError> = await withCheckedContinuation { continuation in
            // A thread of its own: it waits in poll(2), which no cooperative thread may.
            let thread = Thread { continuation.resume(returning: self.runBlocking()) }
            thread.name = "kruxos.process"
            thread.stackSize = 512 << 10
            thread.start()
        }
        return try outcome.get()
    }

    private func runBlocking() -> Swift.Result<Result, SandboxError> {
        var started = timespec()
        clock_gettime(CLOCK_MONOTONIC, &started)
        guard let out = Pipe(), let err = Pipe(), let status = Pipe() else {
            return .failure(SandboxError(.exhausted, "no descriptors left for a process"))
        }
        let process: Int32
        switch launch(out.writeEnd, err.writeEnd, status.writeEnd) {
        case .success(let pidfd): process = pidfd
        case .failure(let error): return .failure(error)
        }
        defer { close(process) }
        out.closeWriteEnd()
        err.closeWriteEnd()
        status.closeWriteEnd()

        var outputs = [Output(), Output()]
        var report: krux_report?
        var timedOut = false
        var open = [out.readEnd, err.readEnd, status.readEnd]
        let deadline = now() + timeoutSeconds * 1000
        var buffer = [UInt8](repeating: 0, count: 64 << 10)
        // The status descriptor closes last: the launcher's first process holds it until everything has ended.
        while open[2] >= 0 {
            var descriptors = open.map { pollfd(fd: $0, events: Int16(POLLIN), revents: 0) }
            let wait = timedOut ? -1 : max(0, deadline - now())
            let ready = poll(&descriptors, nfds_t(descriptors.count), Int32(clamping: wait))
            if ready == 0, !timedOut {
                timedOut = true
                _ = krux_pidfd_signal(process, SIGKILL)
                continue
            }
            for index in 0..<3 where open[index] >= 0 && descriptors[index].revents != 0 {
                let count = read(open[index], &buffer, buffer.count)
                if count < 0, errno == EINTR { continue }
                if count <= 0 {
                    open[index] = -1
                    continue
                }
                if index == 2 {
                    if report == nil, count >= MemoryLayout<krux_report>.size {
                        report = buffer.withUnsafeBytes { $0.loadUnaligned(as: krux_report.self) }
                    }
                } else {
                    let room = max(0, outputLimit - outputs[index].kept.count)
                    outputs[index].kept += buffer[..<min(count, room)]
                    outputs[index].total += count
                }
            }
        }
        // What was written before the end is still in the pipes.
        for index in 0..<2 where open[index] >= 0 {
            while true {
                var descriptor = pollfd(fd: open[index], events: Int16(POLLIN), revents: 0)
                guard poll(&descriptor, 1, 0) > 0 else { break }
                let count = read(open[index], &buffer, buffer.count)
                if count <= 0 { break }
                let room = max(0, outputLimit - outputs[index].kept.count)
                outputs[index].kept += buffer[..<min(count, room)]
                outputs[index].total += count
            }
        }
        var ended = timespec()
        clock_gettime(CLOCK_MONOTONIC, &ended)
        let duration =
            Int64(ended.tv_sec - started.tv_sec) * 1_000_000 + Int64(ended.tv_nsec - started.tv_nsec) / 1000
        if let report, report.step != KRUX_STEP_NONE.rawValue {
            return .failure(SandboxError(report: report, command: arguments.first ?? ""))
        }
        let ending: Ending
        if timedOut {
            ending = .timedOut
        } else if let report {
            let code = report.wait_status
            ending = code & 0x7F == 0 ? .exited(code >> 8 & 0xFF) : .signalled(code & 0x7F)
        } else {
            // The namespace was killed from outside: the gateway or the machine is going down.
            ending = .signalled(SIGKILL)
        }
        return .success(
            Result(
                ending: ending, standardOutput: outputs[0], standardError: outputs[1], durationMicroseconds: duration))
    }

    private func now() -> Int64 {
        var time = timespec()
        clock_gettime(CLOCK_MONOTONIC, &time)
        return Int64(time.tv_sec) * 1000 + Int64(time.tv_nsec) / 1_000_000
    }

    /// The zygote answers one launch at a time.
    private static let zygote = NSLock()

    private func launch(_ out: Int32, _ err: Int32, _ status: Int32) -> Swift.Result<Int32, SandboxError> {
        let strings = CStrings(arguments)
        let variables = CStrings(environment.sorted { $0.key < $1.key }.map { "\($0.key)=\($0.value)" })
        let result = workspacePath.withCString { workspacePath in
            directory.withCString { directory in
                var launch = krux_launch()
                launch.arguments = strings.pointer
                launch.environment = variables.pointer
                launch.workspace = workspacePath
                launch.directory = directory
                launch.limits = krux_limits(
                    cpu_seconds: UInt64(max(1, timeoutSeconds)) * 4, file_bytes: 4 << 30, open_files: 1024,
                    processes: 1024, address_space: 16 << 30, tmp_bytes: 256 << 20)
                launch.workspace_fd = workspace
                launch.stdout_fd = out
                launch.stderr_fd = err
                launch.status_fd = status
                Self.zygote.lock()
                defer { Self.zygote.unlock() }
                return krux_zygote_launch(&launch)
            }
        }
        if result >= 0 { return .success(result) }
        return .failure(SandboxError(step: KRUX_STEP_CLONE.rawValue, code: -result, command: arguments.first ?? ""))
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
