import Foundation
package import KruxCrypto
import Synchronization

/// `keys/head`: where the record stood after the last commit, so that a database that was put back is noticed.
///
///     kruxos/head/v1 <epoch, 20 digits> <seq, 20 digits> <leaf, 64 hex digits>\n
///
/// Overwritten in place without waiting for the disk: a power cut leaves an older head, and a database ahead of its head
/// is what a crash between the two looks like.
package struct RecordHead: Sendable, Equatable {
    package let epoch: Int64
    package let seq: Int64
    package let leaf: Digest

    package init(epoch: Int64, seq: Int64, leaf: Digest) {
        self.epoch = epoch
        self.seq = seq
        self.leaf = leaf
    }

    private static let prefix = "kruxos/head/v1"
    static let length = 14 + 1 + 20 + 1 + 20 + 1 + 64 + 1

    var text: String {
        func digits(_ number: Int64) -> String {
            let text = "\(number)"
            return String(repeating: "0", count: max(0, 20 - text.utf8.count)) + text
        }
        return "\(Self.prefix) \(digits(epoch)) \(digits(seq)) \(leaf.hex)\n"
    }

    init?(_ text: String) {
        let parts = text.dropLast().split(separator: " ", omittingEmptySubsequences: false)
        guard text.utf8.count == Self.length, text.last == "\n", parts.count == 4, parts[0] == Self.prefix,
            let epoch = Int64(parts[1]), let seq = Int64(parts[2]), let leaf = Digest(hex: String(parts[3]))
        else { return nil }
        self.init(epoch: epoch, seq: seq, leaf: leaf)
    }
}

package final class HeadFile: Sendable {
    package let path: String
    private let descriptor: Int32
    /// Whether the disk holds a head at all: the first one is waited for, or a power cut would leave an empty file.
    private let isOnDisk: Mutex<Bool>

    /// What the file of a home says; nil when there is none.
    /// - Throws: `AuditError` `.wrongHead` for a file that is no head.
    package static func read(home: String) throws -> RecordHead? {
        let path = home + "/keys/head"
        guard let data = FileManager.default.contents(atPath: path) else {
            if access(path, F_OK) == 0 { throw unreadable(path, "\(String(cString: strerror(errno)))") }
            return nil
        }
        // Made and not written yet.
        if data.isEmpty { return nil }
        guard let head = RecordHead(String(decoding: data, as: UTF8.self)) else {
            throw unreadable(path, "it is damaged")
        }
        return head
    }

    private static func unreadable(_ path: String, _ why: String) -> AuditError {
        AuditError(
            .wrongHead, "`\(path)` cannot be read: \(why)",
            hint: "after looking at what happened, `kruxos restore --accept` goes on in a new epoch")
    }

    /// Opens the file, making it if needed.
    init(home: String) throws {
        path = home + "/keys/head"
        var status = stat()
        let isNew = lstat(path, &status) != 0
        isOnDisk = Mutex(!isNew && status.st_size == RecordHead.length)
        descriptor = open(path, O_WRONLY | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0o600)
        guard descriptor >= 0 else {
            throw AuditError(.lostKey, "cannot write `\(path)`: \(String(cString: strerror(errno)))")
        }
        if isNew {
            let folder = open(home + "/keys", O_RDONLY | O_DIRECTORY | O_CLOEXEC)
            if folder >= 0 {
                fsync(folder)
                close(folder)
            }
        }
    }

    /// Returns why it could not be written.
    func write(_ head: RecordHead) -> String? {
        var text = head.text
        let count = text.withUTF8 { pwrite(descriptor, $0.baseAddress, $0.count, 0) }
        guard count == RecordHead.length else { return String(cString: strerror(errno)) }
        return isOnDisk.withLock { isOnDisk in
            if !isOnDisk, fsync(descriptor) != 0 { return String(cString: strerror(errno)) }
            isOnDisk = true
            return nil
        }
    }

    deinit { close(descriptor) }
}
