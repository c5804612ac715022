import ArgumentParser
import Foundation
import KruxCapabilities
import KruxCore
import KruxEngine
import KruxSandbox
import KruxStore

struct SandboxCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "sandbox", abstract: "Look at the box that agents' processes are put into.",
        subcommands: [Diagnose.self, Run.self])

    struct Diagnose: AsyncParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Tell which layers of confinement this machine gives.",
            discussion: """
                Each layer is tried with a program that does nothing. A layer that is missing keeps processes from being \
                started, all but cgroup, unless a rule says `sandbox: {require: best_effort}`.
                """)
        @Flag(help: "Print JSON.") var json = false

        mutating func run() async throws {
            let whole = await Self.attempt(omitted: [])
            var findings: [JSONValue] = []
            var lines = Table([.init("Layer", width: 14), .init("Holds", width: 6), .init("What it does")])
            for (name, layer) in SandboxLayers.named {
                // A gateway that is no root has no other user to turn into.
                if layer == .user, Confinement.processUser == nil { continue }
                // Tried without one: it is the gateway's to have.
                if layer == .cgroup { continue }
                // Without namespaces there is no private root for the others to stand on.
                let alone: SandboxLayers = layer == .namespaces ? layer : [layer, .namespaces]
                let error = await Self.attempt(omitted: SandboxLayers.all.subtracting(alone))
                findings.append([
                    "layer": .string(name), "holds": .bool(error == nil), "reason": .optional(error?.message),
                    "hint": .optional(error?.hint),
                ])
                lines.rows.append([name, error == nil ? "yes" : "no", Self.purpose(layer)])
                for text in [error?.message, error?.hint].compactMap({ $0 }) { lines.rows.append(["", "", text]) }
            }
            var noGroups: SandboxError?
            do throws(SandboxError) { try ControlGroups.probe() } catch { noGroups = error }
            findings.append([
                "layer": "cgroup", "holds": .bool(noGroups == nil), "required": false,
                "reason": .optional(noGroups?.message), "hint": .optional(noGroups?.hint),
            ])
            lines.rows.append(["cgroup", noGroups == nil ? "yes" : "no", Self.purpose(.cgroup)])
            for text in [noGroups?.message, noGroups?.hint].compactMap({ $0 }) { lines.rows.append(["", "", text]) }
            let abi = ConfinedProcess.landlockABI
            if json {
                Console.print(
                    .object([
                        "confines": .bool(whole == nil), "layers": .array(findings), "landlock_abi": .int(Int64(abi)),
                        "user": .optional(Confinement.processUser.map { "\($0)" }),
                    ]))
            } else {
                Console.print(lines.text)
                Console.print("")
                Console.print(
                    "Landlock ABI \(abi)" + (abi < 4 ? ": no limits on TCP; the network namespace has none" : ""))
                Console.print(
                    Confinement.processUser.map { "Processes run as user \($0)." } ?? "Processes run as your own user.")
                if let whole {
                    Console.print("Processes cannot be confined here: \(Console.visible(whole.message))")
                } else {
                    Console.print("Processes can be confined here.")
                }
            }
            if whole != nil { throw KruxExit.failed }
        }

        private static func purpose(_ layer: SandboxLayers) -> String {
            switch layer {
            case .namespaces: "sees its workspace, system directories and its own processes only"
            case .network: "has no network but the gate's proxy"
            case .user: "runs as a user who owns nothing else"
            case .limits: "cannot use up memory, processes and files"
            case .landlock: "writes below its workspace only, whatever it mounts or opens"
            case .cgroup: "shares limits of memory and processes with the agent's others; not required"
            case .capabilities: "has no privileges, and gains none"
            default: "makes no system calls that programs do not need"
            }
        }

        /// - Returns: why a program that does nothing could not be started with what is left.
        private static func attempt(omitted: SandboxLayers) async -> SandboxError? {
            do {
                try await SandboxCommand.withFolder { folder in
                    _ = try await ConfinedProcess.run(
                        SandboxCommand.launch(["true"], folder, Confinement(omitted: omitted), sink: nil))
                }
                return nil
            } catch let error as SandboxError {
                return error
            } catch {
                return SandboxError(.unavailable, "\(error)")
            }
        }
    }

    struct Run: AsyncParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Run a command as an agent's would be run.",
            discussion: """
                In an empty folder that is gone afterwards, or with --agent in an agent's workspace, which it may change. \
                Nothing is decided or recorded: this is for the machine's owner, to see what the box does.
                """)
        @OptionGroup var common: CommonOptions
        @Option(help: "In this agent's workspace.") var agent: String?
        @Option(help: "read-only, workspace-write or full-access.") var files = "workspace-write"
        @Option(help: ArgumentHelp("Leave a layer out, to look at the others alone.", valueName: "layer"))
        var without: [String] = []
        @Option(help: "End it after so many seconds.") var timeout: Int64 = 60
        @Argument(parsing: .postTerminator, help: "The program and its arguments, after --.") var command: [String]

        func validate() throws {
            guard !command.isEmpty else { throw ValidationError("name a program after --") }
            guard SandboxSettings.Files(rawValue: files) != nil else {
                throw ValidationError("--files is read-only, workspace-write or full-access")
            }
            for name in without where SandboxLayers(name: name) == nil {
                throw ValidationError(
                    "`\(name)` is no layer; use \(SandboxLayers.named.map(\.name).joined(separator: ", "))")
            }
            guard (1...86_400).contains(timeout) else { throw ValidationError("--timeout is 1 to 86400 seconds") }
        }

        mutating func run() async throws {
            let home = try common.resolveHome()
            let omitted = SandboxLayers(without.compactMap { SandboxLayers(name: $0) })
            let confinement = Confinement(
                settings: SandboxSettings(files: SandboxSettings.Files(rawValue: files) ?? .readOnly),
                home: FileManager.default.fileExists(atPath: home.root) ? home.root : "", omitted: omitted)
            let write: @Sendable (ConfinedProcess.Stream, ArraySlice<UInt8>) -> Void = { stream, bytes in
                let handle = stream == .stdout ? FileHandle.standardOutput : FileHandle.standardError
                handle.write(Data(bytes))
            }
            let result: ConfinedProcess.Result
            do {
                if let agent {
                    guard let name = AgentName(agent) else {
                        throw ValidationError("`\(agent)` is no agent name")
                    }
                    let workspace = try Workspace(agent: name, home: home.root)
                    let protected = ProtectedFiles(workspace: workspace)
                    workspace.setMounts(
                        try common.openForReading().read { try MountTable.all($0, agent: name.text) }.map(\.mount))
                    let mounts = try protected.begin(ProtectedNames([]))
                    var launch = SandboxCommand.launch(
                        command, workspace.root.descriptor, confinement, timeout: timeout, sink: write)
                    launch.workspacePath = workspace.root.path
                    launch.confinement.mounts = mounts.map(Confinement.Mount.init)
                    result = try await ConfinedProcess.run(launch)
                    withExtendedLifetime(mounts) {}
                } else {
                    let (command, timeout) = (command, timeout)
                    result = try await SandboxCommand.withFolder { folder in
                        try await ConfinedProcess.run(
                            SandboxCommand.launch(command, folder, confinement, timeout: timeout, sink: write))
                    }
                }
            } catch let error as SandboxError {
                throw StructuredError(.confinementUnavailable, error.message, recovery: [error.hint].compactMap { $0 })
            }
            switch result.ending {
            case .exited(let code): throw ExitCode(code)
            case .signalled(let signal): throw ExitCode(128 + signal)
            case .timedOut: throw StructuredError(.timedOut, "it ran longer than \(timeout) seconds")
            }
        }
    }

    /// A folder of its own for a process, gone afterwards.
    fileprivate static func withFolder<R: Sendable>(_ body: @Sendable (Int32) async throws -> R) async throws -> R {
        let folder = NSTemporaryDirectory() + "kruxos-sandbox-\(UUID().uuidString)"
        try FileManager.default.createDirectory(
            atPath: folder, withIntermediateDirectories: false, attributes: [.posixPermissions: 0o700])
        defer { try? FileManager.default.removeItem(atPath: folder) }
        if let user = Confinement.processUser { _ = chown(folder, user, user) }
        let descriptor = open(folder, O_DIRECTORY | O_RDONLY | O_CLOEXEC)
        guard descriptor >= 0 else { throw StructuredError(.ioFailure, "no folder could be made in /tmp") }
        defer { close(descriptor) }
        return try await body(descriptor)
    }

    fileprivate static func launch(
        _ command: [String], _ workspace: Int32, _ confinement: Confinement, timeout: Int64 = 60,
        sink: (@Sendable (ConfinedProcess.Stream, ArraySlice<UInt8>) -> Void)?
    ) -> ConfinedProcess.Launch {
        ConfinedProcess.Launch(
            arguments: command,
            environment: [
                "PATH": ConfinedProcess.searchPath, "HOME": "/workspace/sandbox", "LANG": "C.UTF-8", "TMPDIR": "/tmp",
                "TERM": "dumb",
            ], workspace: workspace, workspacePath: "/workspace/sandbox", directory: "", timeoutSeconds: timeout,
            outputLimit: 0, confinement: confinement, sink: sink)
    }
}
