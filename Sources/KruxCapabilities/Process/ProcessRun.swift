import Foundation
package import KruxCore
import KruxCrypto
import KruxSandbox

package struct ProcessRun: Capability {
    package static let declaration = CapabilityDeclaration(
        "process.run", "Runs a program in a box, as policy says: usually with the workspace alone and no network.",
        whenToUse: "For builds, tests and tools; there is no shell unless you ask for one with `shell`.",
        effect: .destructive,
        sideEffects: ["the program may change anything in the workspace", "its output is returned"],
        tier: .approvalRequired,
        input: [
            .required(
                "command", .string(minLength: 1, maxLength: 4096),
                "The program: the name of an installed one, or a path in the workspace such as `./deploy.sh`.",
                role: .command(arguments: "args", shell: "shell", environment: "env")),
            .optional(
                "args", .array(.string(maxLength: 128 << 10), maxItems: 4096), "Its arguments, one each.",
                default: []),
            .optional(
                "shell", .boolean, "Give `command` to `/bin/sh -c`; `args` must be empty then.", default: false),
            .optional("cwd", .path, "The working directory.", default: ".", role: .workingDirectory),
            .optional(
                "background", .boolean, "Answer as soon as it has been started; see the other process capabilities.",
                default: false),
            .optional(
                "timeout_seconds", .integer(1...604_800),
                "Kill it after this long; 60 seconds if absent, a day in the background."),
            .optional(
                "max_output_bytes", .integer(0...(4 << 20)), "Bytes kept of each of stdout and stderr.",
                default: .int(256 << 10)),
            .optional(
                "env", .map(.string(maxLength: 32 << 10), maxItems: 256), "Variables to add to a minimal environment."),
        ],
        output: [
            .required("process_id", .text, "What process.logs and the others need."),
            .required("state", .choice(["running", "ended"]), "Whether it still runs, in the background."),
            .optional("exit_code", .integer(-1...255), "The exit code; -1 when it was killed."),
            .optional("signal", .integer(1...64), "The signal that ended it."),
            .required("timed_out", .boolean, "Whether it ran into the timeout."),
            .required(
                "stdout", .string(maxLength: 16 << 20), "Standard output; bytes that are not UTF-8 are replaced."),
            .required("stderr", .string(maxLength: 16 << 20), "Standard error, likewise."),
            .required("stdout_bytes", .count, "Bytes the program wrote to standard output."),
            .required("stderr_bytes", .count, "Bytes the program wrote to standard error."),
            .required("truncated", .boolean, "Whether there is more than is given here; process.logs has it."),
            .required("duration_ms", .count, "Milliseconds from start to end."),
            .required("layers", .array(.text, maxItems: 16), "The layers of confinement that held it."),
            .optional(
                "out_of_memory", .boolean, "Whether the kernel killed something because your memory was used up."),
            .optional(
                "put_back", .array(.text, maxItems: 100_000),
                "Protected places that it had changed, and that are as they were."),
            FilteringProxy.schema,
        ],
        errors: [
            .init(.notFound, when: "there is no such program", recovery: "name one that is installed"),
            .init(.confinementUnavailable, when: "the machine cannot confine it", recovery: "tell your supervisor"),
            FileSchema.outside,
        ], startsProcess: true)

    package struct Input: CapabilityInput {
        let command: String, arguments: [String], shell: Bool
        let directory: String, timeout: Int64, outputLimit: Int64, isBackground: Bool
        let environment: [String: String]

        package init(_ arguments: Arguments) throws(StructuredError) {
            let program = try arguments.text("command")
            let words = try arguments.texts("args")
            shell = try arguments.bool("shell")
            if shell, !words.isEmpty {
                throw StructuredError(
                    .invalidArguments, "`args` has no place beside `shell`",
                    recovery: ["Write the whole line into `command`, or leave `shell` out."])
            }
            command = shell ? "/bin/sh" : program
            self.arguments = shell ? ["-c", program] : words
            directory = try arguments.text("cwd")
            isBackground = try arguments.bool("background")
            timeout = arguments.optionalInt("timeout_seconds") ?? (isBackground ? 86_400 : 60)
            outputLimit = try arguments.int("max_output_bytes")
            var environment: [String: String] = [:]
            for member in arguments.optionalMap("env")?.members ?? [] {
                let name = member.key.utf8
                guard !name.isEmpty, name.allSatisfy({ $0 != 0 && $0 != UInt8(ascii: "=") }) else {
                    throw StructuredError(
                        .invalidArguments, "`env` has a name that is empty or contains `=`",
                        recovery: ["Name variables like `LANG`."])
                }
                environment[member.key] = member.value.string ?? ""
            }
            self.environment = environment
            let texts = [command] + self.arguments + Array(environment.keys) + Array(environment.values)
            if texts.contains(where: { $0.utf8.contains(0) }) {
                throw StructuredError(
                    .invalidArguments, "the command line contains a NUL byte", recovery: ["Send it without."])
            }
            // Linux refuses more at exec, with a worse message.
            guard texts.reduce(0, { $0 + $1.utf8.count + 1 }) < 1 << 20 else {
                throw StructuredError(
                    .tooLarge, "arguments and environment are over 1 MiB", recovery: ["Put long input into a file."])
            }
        }
    }

    package struct Output: CapabilityOutput {
        let entry: ProcessTable.Entry
        /// Nil while it runs.
        let result: ConfinedProcess.Result?
        /// Protected places that it changed, which are as they were.
        let changes: [String]
        /// Nil where it had no network.
        let proxy: FilteringProxy?

        package var json: JSONObject {
            guard let result else {
                return [
                    "process_id": .string(entry.id), "state": "running", "timed_out": false, "stdout": "", "stderr": "",
                    "stdout_bytes": 0, "stderr_bytes": 0, "truncated": false, "duration_ms": 0,
                    "layers": .strings(entry.process.layers.names),
                ]
            }
            let out = result.standardOutput
            let err = result.standardError
            var json: JSONObject = [
                "process_id": .string(entry.id), "state": "ended", "exit_code": -1,
                "timed_out": .bool(result.ending == .timedOut),
                "stdout": .string(String(decoding: out.kept, as: UTF8.self)),
                "stderr": .string(String(decoding: err.kept, as: UTF8.self)),
                "stdout_bytes": .int(Int64(out.total)), "stderr_bytes": .int(Int64(err.total)),
                "truncated": .bool(out.total > out.kept.count || err.total > err.kept.count),
                "duration_ms": .int(result.durationMicroseconds / 1000), "layers": .strings(result.layers.names),
            ]
            if result.ranOutOfMemory { json["out_of_memory"] = true }
            if !changes.isEmpty { json["put_back"] = .strings(changes) }
            if let proxy { json["connections"] = .array(proxy.connections) }
            switch result.ending {
            case .exited(let code): json["exit_code"] = .int(Int64(code))
            case .signalled(let signal): json["signal"] = .int(Int64(signal))
            case .timedOut: json["signal"] = .int(Int64(SIGKILL))
            }
            return json
        }
    }

    package func run(_ input: Input, _ context: CallContext) async throws(StructuredError) -> Output {
        let workspace = context.workspace
        let directory = try workspace.place(input.directory)
        var environment = [
            "PATH": ConfinedProcess.searchPath, "HOME": workspace.root.path,
            "USER": context.agent.text, "LOGNAME": context.agent.text, "LANG": "C.UTF-8", "TMPDIR": "/tmp",
            "TERM": "dumb", "KRUXOS_AGENT": context.agent.text,
        ]
        environment.merge(input.environment) { _, given in given }
        let launch = ConfinedProcess.Launch(
            arguments: [input.command] + input.arguments, environment: environment,
            workspace: workspace.root.descriptor,
            workspacePath: workspace.root.path, directory: directory.directory,
            timeoutSeconds: input.timeout, outputLimit: Int(input.outputLimit), confinement: context.confinement)
        let command = (input.shell ? Array(input.arguments.suffix(1)) : [input.command] + input.arguments).joined(
            separator: " ")
        return try await Self.guarded(launch, command: command, isBackground: input.isBackground, context)
    }

    /// Runs a process with what is protected in the workspace as it was afterwards.
    /// - Parameter repository: where git makes a repository, whose usual settings may come about.
    static func guarded(
        _ launch: ConfinedProcess.Launch, command: String, isBackground: Bool, repository: FreshRepository? = nil,
        isExclusive: Bool = false,
        _ context: CallContext
    ) async throws(StructuredError) -> Output {
        if isBackground, context.carried != nil {
            throw StructuredError(
                .invalidArguments, "a process that gets a secret runs in the foreground",
                recovery: ["Leave `background` out."])
        }
        var launch = launch
        launch.confinement.protected = context.protected.atRoot
        let settings = launch.confinement.settings
        var proxy: FilteringProxy?
        if settings.hosts != nil, settings.files != .fullAccess {
            let made = FilteringProxy(settings)
            launch.confinement.proxy = { made.take($0) }
            launch.environment.merge(FilteringProxy.environment) { given, _ in given }
            proxy = made
        }
        // One that is over its quota deletes first.
        try context.workspace.charge(Workspace.Path(context.workspace.root, []), bytes: 0)
        let mounts = try context.protectedFiles.begin(context.protected)
        launch.confinement.mounts = mounts.map(Confinement.Mount.init)
        // Their descriptors stay open until the process has been started.
        defer { withExtendedLifetime(mounts) {} }
        let entry: ProcessTable.Entry
        do {
            entry = try await context.processes.start(
                launch, command: command, isBackground: isBackground, isExclusive: isExclusive, context)
        } catch {
            _ = context.protectedFiles.end(at: context.clock.now())
            if let failed = error as? SandboxError { throw structured(failed) }
            throw error as? StructuredError ?? StructuredError(.internalError, "\(error)")
        }
        guard isBackground else {
            let process = entry.process
            let result = await withTaskCancellationHandler {
                await process.ended()
            } onCancel: {
                process.signal(SIGKILL)
            }
            proxy?.end()
            let changes = context.protectedFiles.end(at: context.clock.now(), repository: repository)
            // Whatever else the outcome says, where it went stands in the record.
            if let proxy, proxy.count > 0 {
                let connections: JSONObject = [
                    "connections": .array(proxy.connections), "count": .int(Int64(proxy.count)),
                ]
                do { try await context.report(connections) } catch {
                    throw error as? StructuredError ?? StructuredError(.ioFailure, "\(error)")
                }
            }
            return Output(entry: entry, result: result, changes: changes, proxy: proxy)
        }
        context.processes.follow(entry) { [proxy] result in
            proxy?.end()
            let changes = context.protectedFiles.end(at: context.clock.now())
            var report: JSONObject = [
                "process": .object(entry.json), "duration_ms": .int(result.durationMicroseconds / 1000),
                "stdout_bytes": .int(Int64(result.standardOutput.total)),
                "stderr_bytes": .int(Int64(result.standardError.total)),
            ]
            if result.ranOutOfMemory { report["out_of_memory"] = true }
            if !changes.isEmpty { report["put_back"] = .strings(changes) }
            if let proxy { report["connections"] = .array(proxy.connections) }
            await context.processEnded(report)
        }
        return Output(entry: entry, result: nil, changes: [], proxy: nil)
    }

    static func structured(_ error: SandboxError) -> StructuredError {
        let hint = error.hint.map { [$0] } ?? []
        switch error.code {
        case .unavailable:
            return StructuredError(
                .confinementUnavailable, error.message,
                agent: "This machine cannot confine the process, so it was not started.",
                recovery: ["Tell your supervisor: the call cannot work until the machine is changed."] + hint)
        case .commandNotFound: return StructuredError(.notFound, error.message, recovery: hint)
        case .notExecutable:
            return StructuredError(
                .wrongType, error.message, recovery: ["Make it executable: run `chmod` with `+x` and the file."])
        case .badDirectory: return StructuredError(.notFound, error.message, recovery: ["Choose another cwd."])
        case .exhausted:
            return StructuredError(
                .overloaded, error.message, recovery: ["Try again when other processes have ended."], retryable: true)
        }
    }

    /// The files of the workspace that the command line names, by content: an approved script must not change before
    /// it runs.
    package func binding(_ input: Input, _ context: CallContext) throws(StructuredError) -> JSONObject {
        let workspace = context.workspace
        var files = JSONObject()
        // Whatever may be a file's name: the words, and the words of a text that a shell is given, with quotes gone and as
        // they stand.
        var named: Set<String> = []
        for text in [input.command] + input.arguments {
            named.insert(text)
            for separators in [" \t\n;&|()<>\"'`$", "\t\n;&|()<>\"'`$", " \t\n;&|()<>`$"] {
                for part in text.split(whereSeparator: { separators.contains($0) }) {
                    named.insert(String(part))
                    named.insert(part.trimmingCharacters(in: .whitespaces))
                    named.insert(part.filter { $0 != "'" && $0 != "\"" && $0 != "\\" })
                    if let mark = part.firstIndex(of: "=") { named.insert(String(part[part.index(after: mark)...])) }
                }
            }
        }
        func place(_ text: String, _ folder: String) -> (Workspace.Path, stat)? {
            guard !text.isEmpty, text.utf8.count <= 4096 else { return nil }
            let absolute = text.isAbsolutePath ? text : folder + "/" + text
            guard let path = try? workspace.canonicalise(absolute, followsLast: true),
                let status = try? workspace.status(path)
            else { return nil }
            return (path, status)
        }
        // A line may go into another folder first, by `cd`, `-C` or otherwise.
        var folders: Set<String> = [input.directory]
        for text in named {
            if let (path, status) = place(text, input.directory), status.st_mode & S_IFMT == S_IFDIR {
                folders.insert(path.absolute)
            }
        }
        guard named.count * folders.count <= 20_000 else {
            throw StructuredError(
                .tooLarge, "the command names more than can be bound to an approval",
                recovery: ["Put the work into a script, and run that."])
        }
        for (text, folder) in named.flatMap({ name in folders.map { (name, $0) } }) {
            guard let (path, status) = place(text, folder), status.st_mode & S_IFMT == S_IFREG,
                files[path.absolute] == nil
            else { continue }
            guard files.count < 256, status.st_size <= 256 << 20 else {
                throw StructuredError(
                    .tooLarge, "the command names more than can be bound to an approval: 256 files of 256 MiB",
                    recovery: ["Name fewer or smaller files on the command line."])
            }
            let (descriptor, _) = try workspace.openFile(path, O_RDONLY)
            defer { close(descriptor) }
            files[path.absolute] = .string(try Workspace.digest(descriptor, path.absolute).hex)
        }
        return [
            "directory": .string(input.directory), "files": .object(files),
            "sandbox": .object(context.confinement.settings.json),
        ]
    }

    package func preview(_ input: Input, _ context: CallContext) throws(StructuredError) -> Preview {
        var effect = "Gives a line to /bin/sh"
        if !input.shell {
            effect = "Runs \(input.command)"
            if !input.command.contains("/") {
                effect += ConfinedProcess.locate(input.command).map { " (\($0))" } ?? " (which is not installed)"
            }
        }
        if input.isBackground { effect += " in the background" }
        effect += " in \(input.directory)"
        if !input.environment.isEmpty {
            effect += " with " + input.environment.keys.sorted().joined(separator: ", ") + " set"
        }
        return Preview(effect + ", \(context.confinement.settings.text), for at most \(input.timeout) s")
    }
}
