import Foundation
package import KruxCrypto
import Synchronization

/// Private keys as files of 32 raw bytes under `keys/`, 0600: `row-<first 16 hex digits of the key id>.key`,
/// `checkpoint-<the same>.key`, `witness.key` and `digest.key`.
package struct KeyFiles: Sendable {
    package enum Purpose: String, Sendable, CaseIterable {
        /// Signs rows; replaced every day.
        case row
        /// Signs the checkpoints of an epoch, and the first row of the next one.
        case checkpoint
    }

    package let folder: String

    package init(home: String) { folder = home + "/keys" }

    private func name(_ purpose: Purpose, _ keyID: Digest) -> String {
        "\(purpose.rawValue)-\(keyID.hex.prefix(16)).key"
    }

    package func path(_ purpose: Purpose, _ publicKey: PublicKey) -> String {
        "\(folder)/\(name(purpose, publicKey.id))"
    }

    /// Makes a new key and returns its public half once the private one is on the disk.
    package func create(_ purpose: Purpose) throws -> PublicKey {
        var seed = randomBytes(32)
        defer { zero(&seed) }
        guard let key = SigningKey(seed: seed) else { throw AuditError(.lostKey, "no memory for a signing key") }
        try write(seed, to: path(purpose, key.publicKey))
        return key.publicKey
    }

    package func key(_ purpose: Purpose, _ publicKey: PublicKey) throws -> SigningKey {
        let path = path(purpose, publicKey)
        guard var seed = read(path) else {
            throw AuditError(
                .lostKey, "the signing key `\(path)` is missing",
                hint:
                    "put the keys folder back beside the database; if it is lost for good, `kruxos restore --accept` goes on with new keys in a new epoch"
            )
        }
        defer { zero(&seed) }
        guard let key = SigningKey(seed: seed), key.publicKey == publicKey else {
            throw AuditError(.lostKey, "`\(path)` is not the key that the record names")
        }
        return key
    }

    /// Whether the private half of the key lies here.
    package func holds(_ purpose: Purpose, _ publicKey: PublicKey) -> Bool {
        do {
            _ = try key(purpose, publicKey)
            return true
        } catch {
            return false
        }
    }

    /// Overwrites and removes every key of a purpose but the one given. What a file system keeps of overwritten blocks
    /// is beyond it.
    package func erase(_ purpose: Purpose, except publicKey: PublicKey) throws {
        let kept = name(purpose, publicKey.id)
        for file in try FileManager.default.contentsOfDirectory(atPath: folder)
        where file.hasPrefix("\(purpose.rawValue)-") && file != kept {
            let path = "\(folder)/\(file)"
            let descriptor = open(path, O_WRONLY | O_CLOEXEC | O_NOFOLLOW)
            if descriptor >= 0 {
                let zeroes = [UInt8](repeating: 0, count: 32)
                _ = pwrite(descriptor, zeroes, 32, 0)
                fsync(descriptor)
                close(descriptor)
            }
            guard unlink(path) == 0 || errno == ENOENT else {
                throw AuditError(.lostKey, "cannot remove `\(path)`: \(String(cString: strerror(errno)))")
            }
        }
    }

    /// The key of argument digests, made when it is not there yet.
    package func digestKey() throws -> Digest {
        let path = "\(folder)/digest.key"
        if let bytes = read(path), let key = Digest(bytes) { return key }
        let bytes = randomBytes(32)
        try write(bytes, to: path)
        guard let key = Digest(bytes) else { throw AuditError(.lostKey, "cannot make a digest key") }
        return key
    }

    /// The key this installation cosigns with as a witness, made when it is not there yet.
    package func witnessKey() throws -> SigningKey {
        let path = "\(folder)/witness.key"
        var seed = read(path) ?? []
        if seed.isEmpty {
            seed = randomBytes(32)
            try write(seed, to: path)
        }
        defer { zero(&seed) }
        guard let key = SigningKey(seed: seed) else { throw AuditError(.lostKey, "`\(path)` is no key") }
        return key
    }

    /// `holds`, remembered as long as the file is the same one by inode, size and time.
    func stillHolds(_ purpose: Purpose, _ publicKey: PublicKey) -> Bool {
        var status = stat()
        guard lstat(path(purpose, publicKey), &status) == 0 else { return false }
        let mark = [
            Int(status.st_ino), Int(status.st_size), status.st_ctim.tv_sec, Int(status.st_ctim.tv_nsec),
        ]
        if seen.marks.withLock({ $0[publicKey.id] }) == mark { return true }
        guard holds(purpose, publicKey) else { return false }
        seen.marks.withLock { $0[publicKey.id] = mark }
        return true
    }

    private final class Seen: Sendable {
        let marks = Mutex<[Digest: [Int]]>([:])
    }
    private let seen = Seen()

    func exists(_ path: String) -> Bool { access(path, F_OK) == 0 }

    private func read(_ path: String) -> [UInt8]? {
        guard let data = FileManager.default.contents(atPath: path) else { return nil }
        return [UInt8](data)
    }

    private func write(_ bytes: [UInt8], to path: String) throws {
        func fail() -> AuditError {
            AuditError(.lostKey, "cannot write `\(path)`: \(String(cString: strerror(errno)))")
        }
        let temporary = path + ".new"
        let descriptor = open(temporary, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0o600)
        guard descriptor >= 0 else { throw fail() }
        defer { close(descriptor) }
        guard Foundation.write(descriptor, bytes, bytes.count) == bytes.count, fsync(descriptor) == 0,
            rename(temporary, path) == 0
        else { throw fail() }
        let directory = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC)
        guard directory >= 0 else { throw fail() }
        defer { close(directory) }
        guard fsync(directory) == 0 else { throw fail() }
    }
}
