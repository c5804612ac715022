import Foundation
package import KruxCrypto

/// Private keys as files of 32 raw bytes under `keys/`, 0600: `row-<first 16 hex digits of the key id>.key` and
/// `digest.key`.
package struct KeyFiles: Sendable {
    private let folder: String

    package init(home: String) { folder = home + "/keys" }

    private func path(row keyID: Digest) -> String { "\(folder)/row-\(keyID.hex.prefix(16)).key" }

    /// Makes a new row key and returns its public half once the private one is on the disk.
    package func createRowKey() throws -> PublicKey {
        var seed = randomBytes(32)
        defer { zero(&seed) }
        guard let key = SigningKey(seed: seed) else { throw AuditError(.lostKey, "no memory for a signing key") }
        try write(seed, to: path(row: key.publicKey.id))
        return key.publicKey
    }

    package func rowKey(_ publicKey: PublicKey) throws -> SigningKey {
        let path = path(row: publicKey.id)
        guard var seed = read(path) else {
            throw AuditError(
                .lostKey, "the signing key `\(path)` is missing",
                hint: "put the keys folder back beside the database; without it nothing can be recorded")
        }
        defer { zero(&seed) }
        guard let key = SigningKey(seed: seed), key.publicKey == publicKey else {
            throw AuditError(.lostKey, "`\(path)` is not the key that the record names")
        }
        return key
    }

    /// Whether the private half of the key lies here.
    package func holds(_ publicKey: PublicKey) -> Bool {
        do {
            _ = try rowKey(publicKey)
            return true
        } catch {
            return false
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
