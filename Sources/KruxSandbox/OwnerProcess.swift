import CSandbox
import Foundation
import Glibc

/// A program of the owner's own, started unconfined because the owner configured it: an anchor's command, a notifier.
/// Never anything an agent named.
package enum OwnerProcess {
    package struct Result: Sendable {
        package let code: Int32
        /// The end of what it said, for a person.
        package let errors: String
    }

    /// Runs a program to its end with `input` on its standard input, in a process group of its own. Blocks the calling
    /// thread.
    /// - Parameter timeoutSeconds: after it the group is killed.
    /// - Throws: `SandboxError` when it cannot start, or runs too long.
    package static func run(_ arguments: [String], input: String, timeoutSeconds: Int) throws(SandboxError) -> Result {
        guard let name = arguments.first, !name.isEmpty else {
            throw SandboxError(.commandNotFound, "a command names a program")
        }
        var toChild: [Int32] = [-1, -1]
        var fromChild: [Int32] = [-1, -1]
        guard krux_pipe(&toChild) == 0, krux_pipe(&fromChild) == 0
        else {
            for descriptor in toChild + fromChild where descriptor >= 0 { close(descriptor) }
            throw SandboxError(.exhausted, "no pipes are left")
        }
        var actions = posix_spawn_file_actions_t()
        var attributes = posix_spawnattr_t()
        posix_spawn_file_actions_init(&actions)
        posix_spawnattr_init(&attributes)
        defer {
            posix_spawn_file_actions_destroy(&actions)
            posix_spawnattr_destroy(&attributes)
        }
        posix_spawn_file_actions_adddup2(&actions, toChild[0], STDIN_FILENO)
        posix_spawn_file_actions_addopen(&actions, STDOUT_FILENO, "/dev/null", O_WRONLY, 0)
        posix_spawn_file_actions_adddup2(&actions, fromChild[1], STDERR_FILENO)
        posix_spawnattr_setpgroup(&attributes, 0)
        resetSignals(&attributes, and: POSIX_SPAWN_SETPGROUP)
        var argv: [UnsafeMutablePointer<CChar>?] = arguments.map { strdup($0) } + [nil]
        defer { for argument in argv { free(argument) } }
        var pid: pid_t = 0
        let failure = posix_spawnp(&pid, name, &actions, &attributes, &argv, environ)
        close(toChild[0])
        close(fromChild[1])
        guard failure == 0 else {
            close(toChild[1])
            close(fromChild[0])
            throw SandboxError(.commandNotFound, "`\(name)` cannot be started: \(String(cString: strerror(failure)))")
        }
        defer { close(fromChild[0]) }
        return try converse(
            pid, name: name, input: Array(input.utf8), to: toChild[1], from: fromChild[0],
            deadline: .now() + .seconds(timeoutSeconds), timeoutSeconds: timeoutSeconds)
    }

    /// A thread of ours may block signals or ignore SIGPIPE; the program begins like one from a shell.
    private static func resetSignals(_ attributes: inout posix_spawnattr_t, and flags: Int32) {
        var none = sigset_t()
        var all = sigset_t()
        sigemptyset(&none)
        sigfillset(&all)
        posix_spawnattr_setsigmask(&attributes, &none)
        posix_spawnattr_setsigdefault(&attributes, &all)
        posix_spawnattr_setflags(&attributes, Int16(flags | POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF))
    }

    /// Runs a program at the terminal, in the foreground, and returns its exit code; such as the owner's editor.
    /// - Throws: `SandboxError` when it cannot start.
    package static func runAtTerminal(_ arguments: [String]) throws(SandboxError) -> Int32 {
        var attributes = posix_spawnattr_t()
        posix_spawnattr_init(&attributes)
        defer { posix_spawnattr_destroy(&attributes) }
        resetSignals(&attributes, and: 0)
        var argv: [UnsafeMutablePointer<CChar>?] = arguments.map { strdup($0) } + [nil]
        defer { for argument in argv { free(argument) } }
        let name = arguments.first ?? ""
        var pid: pid_t = 0
        // Control-C is for the program.
        let interrupt = signal(SIGINT, SIG_IGN)
        let quit = signal(SIGQUIT, SIG_IGN)
        defer {
            signal(SIGINT, interrupt)
            signal(SIGQUIT, quit)
        }
        let failure = posix_spawnp(&pid, name, nil, &attributes, &argv, environ)
        guard failure == 0 else {
            throw SandboxError(.commandNotFound, "`\(name)` cannot be started: \(String(cString: strerror(failure)))")
        }
        var status: Int32 = 0
        while waitpid(pid, &status, 0) < 0, errno == EINTR {}
        return status & 0x7F == 0 ? (status >> 8) & 0xFF : 128 + (status & 0x7F)
    }

    /// Feeds and listens until the program itself has ended; what it left behind may keep its descriptors.
    private static func converse(
        _ pid: pid_t, name: String, input: [UInt8], to: Int32, from: Int32, deadline: DispatchTime, timeoutSeconds: Int
    ) throws(SandboxError) -> Result {
        for descriptor in [to, from] { _ = fcntl(descriptor, F_SETFL, fcntl(descriptor, F_GETFL) | O_NONBLOCK) }
        var rest = input[...]
        var writer: Int32 = to
        defer { if writer >= 0 { close(writer) } }
        var said: [UInt8] = []
        var status: Int32 = 0
        while true {
            if writer >= 0 {
                let count = rest.withUnsafeBytes { write(writer, $0.baseAddress, $0.count) }
                if count > 0 { rest = rest.dropFirst(count) }
                // Whether it reads its input or not, its exit code tells.
                if rest.isEmpty || count < 0 && errno != EAGAIN && errno != EINTR {
                    close(writer)
                    writer = -1
                }
            }
            var buffer = [UInt8](repeating: 0, count: 4096)
            let count = read(from, &buffer, buffer.count)
            if count > 0 { said = (said + buffer[..<count]).suffix(2000) }
            let ended = waitpid(pid, &status, WNOHANG)
            if ended == pid { break }
            if DispatchTime.now() > deadline {
                kill(-pid, SIGKILL)
                waitpid(pid, &status, 0)
                throw SandboxError(
                    .exhausted, "`\(name)` did not end within \(timeoutSeconds) s and was killed with all it started")
            }
            var polled = [pollfd(fd: from, events: Int16(POLLIN), revents: 0)]
            // At the end of its output only its end is waited for.
            if count == 0 { usleep(10_000) } else { poll(&polled, 1, 20) }
        }
        let code = status & 0x7F == 0 ? (status >> 8) & 0xFF : 128 + (status & 0x7F)
        let text = String(decoding: said, as: UTF8.self).trimmingCharacters(in: .whitespacesAndNewlines)
        return Result(code: code, errors: text)
    }
}
