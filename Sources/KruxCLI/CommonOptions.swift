import ArgumentParser
import Foundation
import KruxCore
import KruxEngine
import KruxStore

/// What every command takes.
struct CommonOptions: ParsableArguments {
    @Option(name: .long, help: "The home to use (default: $KRUXOS_HOME, else ~/.local/share/kruxos).")
    var home: String?

    @Flag(name: .long, help: "Use the system install: /var/lib/kruxos and /etc/kruxos.")
    var system = false

    @Flag(name: .long, help: "Print JSON.")
    var json = false

    func resolveHome() throws -> Home {
        try Home(explicit: home, system: system, environment: ProcessInfo.processInfo.environment)
    }

    /// The home's database for reading, beside a running gateway or without one.
    func openForReading() throws -> ReadOnlyStore { try ReadOnlyStore(path: try resolveHome().database) }
}

/// How a command ends, for scripts.
enum KruxExit {
    static let failed = ExitCode(1)
    static let pending = ExitCode(3)
    static let denied = ExitCode(4)
    static let verificationFailed = ExitCode(5)
    /// EX_UNAVAILABLE.
    static let unavailable = ExitCode(69)
    /// EX_CONFIG.
    static let badPolicy = ExitCode(78)

    static let help = """
        Exit codes: 0 done, 1 failed, 3 waits for approval, 4 denied by policy, 5 the record does not verify, \
        64 wrong usage, 69 gateway or home not available, 78 a policy does not compile.
        """

    /// The one place that maps errors to exit codes.
    static func code(_ error: StructuredError) -> ExitCode {
        if error.isPending { return pending }
        return switch error.kind {
        case .blocked, .rateLimited, .outsideWorkspace, .addressRefused, .approvalRejected, .approvalRefused: denied
        case .unavailable, .unauthenticated, .overloaded, .storageFull: unavailable
        default: failed
        }
    }
}
