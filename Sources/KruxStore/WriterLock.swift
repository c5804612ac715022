import Foundation

/// The right to write: an exclusive `flock` on `kruxos.lock`, held for as long as this value lives. The lock file is
/// never unlinked, or two processes could hold two of them.
package struct WriterLock: ~Copyable {
    private let descriptor: Int32

    /// Takes the lock or says that another process has it.
    package init(home: String) throws {
        let path = home + "/kruxos.lock"
        let descriptor = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0o600)
        guard descriptor >= 0 else {
            throw StoreError(.inputOutput, "cannot open `\(path)`: \(String(cString: strerror(errno)))")
        }
        guard flock(descriptor, LOCK_EX | LOCK_NB) == 0 else {
            let code = errno
            close(descriptor)
            if code == EWOULDBLOCK {
                throw StoreError(
                    .locked, "another kruxos process is the writer of `\(home)`",
                    hint: "a running gateway takes commands over its socket; is it just starting or stopping?")
            }
            throw StoreError(.inputOutput, "cannot lock `\(path)`: \(String(cString: strerror(code)))")
        }
        self.descriptor = descriptor
    }

    /// Given up, not only closed: a program that is being started just now has a copy of the descriptor until it executes.
    deinit {
        flock(descriptor, LOCK_UN)
        close(descriptor)
    }
}
