import CSodium
import KruxCore

/// An Ed25519 signature (RFC 8032), 64 bytes.
package typealias Signature = [UInt8]

/// An Ed25519 public key.
package struct PublicKey: Sendable, Hashable {
    package let bytes: [UInt8]

    package init?(_ bytes: [UInt8]) {
        guard bytes.count == Int(crypto_sign_PUBLICKEYBYTES) else { return nil }
        self.bytes = bytes
    }

    /// SHA-256 of the key, its identity in rows.
    package var id: Digest { sha256(bytes) }

    /// Whether `signature` is this key's over `message`.
    package func verifies(_ signature: [UInt8], _ message: some ContiguousBytesView) -> Bool {
        guard signature.count == Int(crypto_sign_BYTES) else { return false }
        return message.withBytesView { view in
            crypto_sign_verify_detached(
                signature, view.bindMemory(to: UInt8.self).baseAddress, UInt64(view.count), bytes) == 0
        }
    }
}

/// An Ed25519 private key in locked memory that is zeroed when the key goes.
package struct SigningKey: ~Copyable {
    private let secret: UnsafeMutablePointer<UInt8>
    package let publicKey: PublicKey

    /// From a 32-byte seed; nil for another length or without memory to lock.
    package init?(seed: [UInt8]) {
        guard Sodium.ready, seed.count == Int(crypto_sign_SEEDBYTES),
            let memory = sodium_malloc(Int(crypto_sign_SECRETKEYBYTES))
        else { return nil }
        let secret = memory.assumingMemoryBound(to: UInt8.self)
        var publicBytes = [UInt8](repeating: 0, count: Int(crypto_sign_PUBLICKEYBYTES))
        guard crypto_sign_seed_keypair(&publicBytes, secret, seed) == 0, let key = PublicKey(publicBytes) else {
            sodium_free(memory)
            return nil
        }
        sodium_mprotect_readonly(memory)
        self.secret = secret
        self.publicKey = key
    }

    package func sign(_ message: some ContiguousBytesView) -> Signature {
        var signature = Signature(repeating: 0, count: Int(crypto_sign_BYTES))
        message.withBytesView { view in
            _ = crypto_sign_detached(
                &signature, nil, view.bindMemory(to: UInt8.self).baseAddress, UInt64(view.count), secret)
        }
        return signature
    }

    deinit { sodium_free(secret) }
}

/// Random bytes from the operating system.
package func randomBytes(_ count: Int) -> [UInt8] {
    precondition(Sodium.ready)
    var bytes = [UInt8](repeating: 0, count: count)
    randombytes_buf(&bytes, count)
    return bytes
}

/// Overwrites bytes that held a secret.
package func zero(_ bytes: inout [UInt8]) { sodium_memzero(&bytes, bytes.count) }

package enum Sodium {
    /// libsodium's one-time set-up; thread-safe by its own documentation.
    package static let ready: Bool = sodium_init() >= 0

    /// Of the library that is linked.
    package static var version: String { String(cString: sodium_version_string()) }
}
