package import ArgumentParser
import Foundation
import KruxCore
import KruxEngine
import KruxPolicy
import KruxStore

/// `kruxos`: every verb in a file of its own.
package struct KruxOSCommand: AsyncParsableCommand {
    package static let configuration = CommandConfiguration(
        commandName: "kruxos", abstract: "The permission gate between AI agents and your machine.",
        discussion: KruxExit.help, version: Engine.version,
        subcommands: [
            QuickstartCommand.self, ServeCommand.self, StatusCommand.self, AgentCommand.self, ApproveCommand.self,
            GrantsCommand.self, SupervisorCommand.self, CapabilitiesCommand.self,
            AuditCommand.self, NotificationsCommand.self, WatchCommand.self, ConfigCommand.self, PolicyCommand.self,
            CallCommand.self, BackupCommand.self, RestoreCommand.self, DoctorCommand.self, SandboxCommand.self,
            VaultCommand.self, ScheduleCommand.self, TrashCommand.self, MountCommand.self, WitnessCommand.self,
            MCPCommand.self,
        ])

    package init() {}

    /// Parses, runs and maps what went wrong to words and an exit code.
    package static func start() async {
        signal(SIGPIPE, SIG_IGN)
        do {
            var command = try await parseAsRootAsync()
            if var asynchronous = command as? any AsyncParsableCommand {
                try await asynchronous.run()
            } else {
                try command.run()
            }
        } catch let error as StoreError {
            Console.printError("error: \(error.message)")
            if let hint = error.hint { Console.printError("  - \(hint)") }
            exit(withError: KruxExit.unavailable)
        } catch let error as PolicyErrors {
            for diagnostic in error.diagnostics { Console.printError("error: \(diagnostic)") }
            exit(withError: KruxExit.badPolicy)
        } catch let error as ExitCode {
            exit(withError: error)
        } catch  where exitCode(for: error) == .failure {
            let structured = Engine.structured(error)
            Console.report(structured)
            exit(withError: KruxExit.code(structured))
        } catch {
            exit(withError: error)
        }
    }

    private static func parseAsRootAsync() async throws -> any ParsableCommand { try parseAsRoot() }
}
