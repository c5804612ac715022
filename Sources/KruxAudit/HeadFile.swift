import Foundation
import Glibc
package import KruxCrypto

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

package final class HeadFile: @unchecked Sendable {
    // @unchecked: written on the writer's thread only, or before there is one.
    package let path: String
    private let folder: String
    private var descriptor: Int32 = -1
    private var identity = stat()

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

    /// Makes the file if needed.
    init(home: String) throws {
        folder = home + "/keys"
        path = folder + "/head"
        if let failure = open() { throw AuditError(.lostKey, "cannot write `\(path)`: \(failure)") }
    }

    /// Opens what lies under the path now. Returns why it cannot.
    private func open() -> String? {
        if descriptor >= 0 { close(descriptor) }
        descriptor = Glibc.open(path, O_WRONLY | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0o600)
        guard descriptor >= 0, fstat(descriptor, &identity) == 0 else { return String(cString: strerror(errno)) }
        return nil
    }

    /// Whether the path still leads to the file that is written: a folder that was copied back is another.
    private var isThere: Bool {
        var status = stat()
        return descriptor >= 0 && lstat(path, &status) == 0 && status.st_ino == identity.st_ino
            && status.st_dev == identity.st_dev
    }

    /// Returns why it could not be written. The first head is waited for, or a power cut would leave an empty file.
    func write(_ head: RecordHead) -> String? {
        var isNew = identity.st_size != RecordHead.length
        if !isThere {
            if let failure = open() { return failure }
            isNew = true
        }
        var text = head.text
        let count = text.withUTF8 { pwrite(descriptor, $0.baseAddress, $0.count, 0) }
        guard count == RecordHead.length else { return String(cString: strerror(errno)) }
        if isNew {
            let directory = Glibc.open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC)
            defer { if directory >= 0 { close(directory) } }
            guard fsync(descriptor) == 0, directory >= 0, fsync(directory) == 0 else {
                return String(cString: strerror(errno))
            }
            identity.st_size = RecordHead.length
        }
        return nil
    }

    deinit { if descriptor >= 0 { close(descriptor) } }
}
