import CSandbox
import Foundation
import KruxCore

/// Why a process was not started.
package struct SandboxError: Error, Sendable, Equatable {
    package enum Code: Sendable, Equatable {
        /// The machine cannot give a layer of confinement.
        case unavailable
        case commandNotFound
        case notExecutable
        case badDirectory
        case exhausted
    }

    package let code: Code
    package let message: String
    package let hint: String?

    package init(_ code: Code, _ message: String, hint: String? = nil) {
        self.code = code
        self.message = message
        self.hint = hint
    }

    package static func == (a: SandboxError, b: SandboxError) -> Bool { a.code == b.code }

    init(report: krux_report, command: String) {
        self.init(step: report.step, code: report.error, command: command)
    }

    init(step: UInt32, code: Int32, command: String) {
        let reason = String(cString: strerror(code))
        switch krux_step(rawValue: step) {
        case KRUX_STEP_EXEC where code == ENOENT:
            self.init(
                .commandNotFound, "there is no program `\(command.prefix(200))` in the confined root",
                hint: "programs under /usr, /opt and the workspace can be run")
        case KRUX_STEP_EXEC:
            self.init(.notExecutable, "`\(command.prefix(200))` cannot be executed: \(reason)")
        case KRUX_STEP_DIRECTORY:
            self.init(.badDirectory, "the working directory cannot be entered: \(reason)")
        case KRUX_STEP_CLONE:
            self.init(
                .unavailable, "new namespaces cannot be had: \(reason)",
                hint:
                    "run the gateway in no chroot, and allow unprivileged user namespaces: sysctl user.max_user_namespaces, "
                    + "kernel.unprivileged_userns_clone or kernel.apparmor_restrict_unprivileged_userns")
        case KRUX_STEP_IDENTITY:
            self.init(
                .unavailable, "the user namespace cannot be set up: \(reason)",
                hint: "an AppArmor profile may restrict user namespaces")
        case KRUX_STEP_ROOT: self.init(.unavailable, "the confined root cannot be built: \(reason)")
        case KRUX_STEP_LIMITS: self.init(.unavailable, "resource limits cannot be set: \(reason)")
        case KRUX_STEP_LANDLOCK:
            self.init(
                .unavailable, "Landlock cannot be applied: \(reason)",
                hint: "a kernel of at least 5.13 with Landlock enabled (`lsm=landlock,…`) is needed")
        case KRUX_STEP_SECCOMP:
            self.init(
                .unavailable, "system calls cannot be filtered: \(reason)",
                hint: "a kernel with CONFIG_SECCOMP_FILTER is needed")
        case KRUX_STEP_FILES:
            self.init(
                .unavailable, "without namespaces nothing keeps it from the gate's own files",
                hint:
                    "best_effort needs namespaces; or Landlock, a gateway that is root, so that processes are another user, and a box other than full-access"
            )
        case KRUX_STEP_NETWORK: self.init(.unavailable, "the network cannot be set up: \(reason)")
        case KRUX_STEP_PRIVILEGES: self.init(.unavailable, "privileges cannot be dropped: \(reason)")
        default: self.init(.unavailable, "the launcher failed at step \(step): \(reason)")
        }
    }
}
