import Foundation

/// A program of the owner's own, started unconfined because the owner configured it: an anchor's command, a notifier.
/// Never anything an agent named.
package enum OwnerProcess {
    package struct Result: Sendable {
        package let code: Int32
        /// The end of what it said, for a person.
        package let errors: String
    }

    /// Runs a program to its end with `input` on its standard input. Blocks the calling thread.
    /// - Parameter timeoutSeconds: after it the program is killed.
    /// - Throws: `SandboxError` when it cannot start, or runs too long.
    package static func run(_ arguments: [String], input: String, timeoutSeconds: Int) throws(SandboxError) -> Result {
        guard let name = arguments.first else {
            throw SandboxError(.commandNotFound, "a command names a program")
        }
        let process = Process()
        process.executableURL = URL(fileURLWithPath: name.contains("/") ? name : "/usr/bin/env")
        process.arguments = name.contains("/") ? Array(arguments.dropFirst()) : arguments
        let stdin = Pipe()
        let stderr = Pipe()
        process.standardInput = stdin
        process.standardOutput = FileHandle.nullDevice
        process.standardError = stderr
        let ended = DispatchSemaphore(value: 0)
        process.terminationHandler = { _ in ended.signal() }
        do { try process.run() } catch {
            throw SandboxError(.commandNotFound, "`\(name)` cannot be started: \(error.localizedDescription)")
        }
        // A program that does not read, or has gone, is no error of ours: its exit code tells.
        let reader = stdin.fileHandleForWriting
        Thread.detachNewThread {
            try? reader.write(contentsOf: Data(input.utf8))
            try? reader.close()
        }
        let said = Tail()
        stderr.fileHandleForReading.readabilityHandler = { handle in
            let data = handle.availableData
            if data.isEmpty { handle.readabilityHandler = nil } else { said.append(data) }
        }
        defer { stderr.fileHandleForReading.readabilityHandler = nil }
        guard ended.wait(timeout: .now() + .seconds(timeoutSeconds)) == .success else {
            kill(process.processIdentifier, SIGKILL)
            throw SandboxError(.exhausted, "`\(name)` did not end within \(timeoutSeconds) s and was killed")
        }
        return Result(code: process.terminationStatus, errors: said.text)
    }

    private final class Tail: @unchecked Sendable {
        // @unchecked: guarded by `lock`.
        private let lock = NSLock()
        private var data = Data()

        func append(_ more: Data) {
            lock.lock()
            data.append(more)
            data = Data(data.suffix(2000))
            lock.unlock()
        }

        var text: String {
            lock.lock()
            defer { lock.unlock() }
            return String(decoding: data, as: UTF8.self).trimmingCharacters(in: .whitespacesAndNewlines)
        }
    }
}
