import CSandbox
package import Foundation
import Glibc
import Synchronization

/// A program started with `posix_spawn`: no signal is blocked in it.
///
/// Not Foundation's `Process`: that copies 256 bytes of every entry of `/proc/self/fd` out of `readdir`'s buffer, the
/// last one's too, which ends a test run that has some 1,400 descriptors open.
package final class ChildProcess: Sendable {
    package enum Stream {
        case inherited
        /// The other end is the property of the stream's name.
        case pipe
        case file(String)
    }

    package let processIdentifier: pid_t
    // Handles close what they own once nothing holds them.
    private let ends: [FileHandle?]
    /// What `waitpid` said, once it has.
    private let status = Mutex<Int32?>(nil)

    package var input: FileHandle { end(0) }
    package var output: FileHandle { end(1) }
    package var errors: FileHandle { end(2) }

    private func end(_ number: Int) -> FileHandle {
        guard let handle = ends[number] else { preconditionFailure("stream \(number) is no pipe") }
        return handle
    }

    /// Starts `program`, a path.
    /// - Throws: `TestFailure` when it cannot be started.
    package init(
        _ program: String, _ arguments: [String], input: Stream = .inherited, output: Stream = .inherited,
        errors: Stream = .inherited
    ) throws {
        var actions = posix_spawn_file_actions_t()
        var attributes = posix_spawnattr_t()
        posix_spawn_file_actions_init(&actions)
        posix_spawnattr_init(&attributes)
        defer {
            posix_spawn_file_actions_destroy(&actions)
            posix_spawnattr_destroy(&attributes)
        }
        var ours: [FileHandle?] = []
        // They live until the child has its copies.
        var theirs: [FileHandle] = []
        for (number, stream) in zip(Int32(0)..., [input, output, errors]) {
            switch stream {
            case .inherited: ours.append(nil)
            case .file(let path):
                ours.append(nil)
                posix_spawn_file_actions_addopen(
                    &actions, number, path, number == 0 ? O_RDONLY : O_WRONLY | O_CREAT | O_APPEND, 0o600)
            case .pipe:
                var pair: [Int32] = [-1, -1]
                guard krux_pipe(&pair) == 0 else { throw TestFailure("no pipes are left") }
                let (reading, writing) = (FileHandle(owning: pair[0]), FileHandle(owning: pair[1]))
                ours.append(number == 0 ? writing : reading)
                theirs.append(number == 0 ? reading : writing)
                posix_spawn_file_actions_adddup2(&actions, number == 0 ? pair[0] : pair[1], number)
            }
        }
        var none = sigset_t()
        sigemptyset(&none)
        var all = sigset_t()
        sigfillset(&all)
        posix_spawnattr_setsigmask(&attributes, &none)
        posix_spawnattr_setsigdefault(&attributes, &all)
        posix_spawnattr_setflags(&attributes, Int16(POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF))
        var words = ([program] + arguments).map { strdup($0) } + [nil]
        defer { for word in words { free(word) } }
        var child: pid_t = 0
        let failure = withExtendedLifetime(theirs) {
            posix_spawn(&child, program, &actions, &attributes, &words, environ)
        }
        guard failure == 0 else {
            throw TestFailure("`\(program)` cannot be started: \(String(cString: strerror(failure)))")
        }
        processIdentifier = child
        ends = ours
    }

    package var isRunning: Bool { collect(WNOHANG) == nil }

    /// Its exit code, or the number of the signal that ended it.
    @discardableResult
    package func waitUntilExit() -> Int32 {
        let status = collect(0) ?? 0
        return status & 0x7F == 0 ? (status >> 8) & 0xFF : status & 0x7F
    }

    private func collect(_ options: Int32) -> Int32? {
        status.withLock { known in
            if known != nil { return known }
            var status: Int32 = 0
            var answer: pid_t
            repeat { answer = waitpid(processIdentifier, &status, options) } while answer < 0 && errno == EINTR
            guard answer != 0 else { return nil }
            precondition(answer == processIdentifier, "somebody else collected \(processIdentifier)")
            known = status
            return status
        }
    }

    /// Sends a signal, unless it is known to have ended.
    package func send(_ signal: Int32) {
        status.withLock { known in if known == nil { kill(processIdentifier, signal) } }
    }

    /// SIGTERM, and waits.
    @discardableResult
    package func terminate() -> Int32 {
        send(SIGTERM)
        return waitUntilExit()
    }

    /// Reads its output until `text` is in it, and returns what there was.
    package func read(until fits: (String) -> Bool) throws -> String {
        var said = ""
        while !fits(said) {
            let data = output.availableData
            if data.isEmpty { throw TestFailure("it ended after it said: \(said)") }
            said += String(decoding: data, as: UTF8.self)
        }
        return said
    }
}

extension FileHandle {
    fileprivate convenience init(owning descriptor: Int32) {
        self.init(fileDescriptor: descriptor, closeOnDealloc: true)
    }
}
