import CSodium
import KruxCore

/// Bytes in memory that is locked, guarded and zeroed when the last holder lets go.
package final class SecretBytes: Sendable {
    private nonisolated(unsafe) let memory: UnsafeMutableRawPointer
    package let count: Int

    /// - Parameter fill: writes all of the bytes.
    /// - Throws: `StructuredError` `.unavailable` when no memory can be locked, or what `fill` throws.
    package init<E: Error>(
        count: Int, _ fill: (UnsafeMutableRawBufferPointer) throws(E) -> Void
    ) throws {
        guard Sodium.ready, let memory = sodium_malloc(max(1, count)) else {
            throw StructuredError(
                .unavailable, "no memory could be locked for a secret", recovery: ["Raise the limit: `ulimit -l`."])
        }
        do {
            try fill(UnsafeMutableRawBufferPointer(start: memory, count: count))
        } catch {
            sodium_free(memory)
            throw error
        }
        sodium_mprotect_readonly(memory)
        self.memory = memory
        self.count = count
    }

    package convenience init(_ bytes: some Collection<UInt8>) throws {
        try self.init(count: bytes.count) { (buffer) throws(Never) in buffer.copyBytes(from: bytes) }
    }

    /// New bytes that nobody can guess.
    package static func random(_ count: Int) throws -> SecretBytes {
        try SecretBytes(count: count) { (buffer) throws(Never) in
            if let start = buffer.baseAddress { randombytes_buf(start, buffer.count) }
        }
    }

    package func withBytes<R>(_ body: (UnsafeRawBufferPointer) throws -> R) rethrows -> R {
        try body(UnsafeRawBufferPointer(start: memory, count: count))
    }

    /// The first byte's place; there is one for an empty secret, too.
    func withPointer<R>(_ body: (UnsafePointer<UInt8>) throws -> R) rethrows -> R {
        try body(UnsafePointer(memory.assumingMemoryBound(to: UInt8.self)))
    }

    deinit { sodium_free(memory) }
}

/// Argon2id (RFC 9106) with what it takes to open something again.
package struct PasswordHash: Sendable, Equatable {
    package let salt: [UInt8]
    package let operations: Int64
    /// Bytes.
    package let memory: Int64

    package init(salt: [UInt8], operations: Int64, memory: Int64) {
        self.salt = salt
        self.operations = operations
        self.memory = memory
    }

    /// libsodium's "moderate" limits, 256 MiB and three passes, with a new salt.
    package static func make() -> PasswordHash {
        PasswordHash(
            salt: randomBytes(Int(crypto_pwhash_SALTBYTES)), operations: Int64(crypto_pwhash_OPSLIMIT_MODERATE),
            memory: Int64(crypto_pwhash_MEMLIMIT_MODERATE))
    }

    /// A key of 32 bytes.
    /// - Throws: `StructuredError` `.unavailable` without the memory, or for limits that are none.
    package func key(of passphrase: SecretBytes) throws -> SecretBytes {
        try SecretBytes(count: Seal.keyBytes) { (buffer) throws(StructuredError) in
            let code = passphrase.withPointer { text in
                guard salt.count == Int(crypto_pwhash_SALTBYTES), let out = buffer.baseAddress else { return Int32(-1) }
                return crypto_pwhash(
                    out.assumingMemoryBound(to: UInt8.self), UInt64(buffer.count),
                    UnsafeRawPointer(text).assumingMemoryBound(to: CChar.self), UInt64(passphrase.count), salt,
                    UInt64(clamping: operations), Int(clamping: memory),
                    crypto_pwhash_ALG_ARGON2ID13)
            }
            guard code == 0 else {
                throw StructuredError(
                    .unavailable, "the key could not be derived: \(memory >> 20) MiB of memory are needed",
                    recovery: ["Free some memory and try again."])
            }
        }
    }
}

/// XChaCha20-Poly1305 as `nonce ‖ ciphertext ‖ tag`.
package enum Seal {
    package static let keyBytes = Int(crypto_aead_xchacha20poly1305_ietf_KEYBYTES)
    private static let nonceBytes = Int(crypto_aead_xchacha20poly1305_ietf_NPUBBYTES)
    private static let tagBytes = Int(crypto_aead_xchacha20poly1305_ietf_ABYTES)

    /// - Parameter context: what the value belongs to; it opens with the same alone.
    package static func close(_ value: SecretBytes, key: SecretBytes, context: [UInt8]) -> [UInt8] {
        let nonce = randomBytes(nonceBytes)
        var sealed = [UInt8](repeating: 0, count: value.count + tagBytes)
        value.withPointer { bytes in
            key.withPointer { key in
                _ = crypto_aead_xchacha20poly1305_ietf_encrypt(
                    &sealed, nil, bytes, UInt64(value.count), context, UInt64(context.count), nil, nonce, key)
            }
        }
        return nonce + sealed
    }

    /// Nil when key, context or a single bit is another.
    package static func open(_ sealed: [UInt8], key: SecretBytes, context: [UInt8]) throws -> SecretBytes? {
        guard sealed.count >= nonceBytes + tagBytes, key.count == keyBytes else { return nil }
        struct Wrong: Error {}
        do {
            return try SecretBytes(count: sealed.count - nonceBytes - tagBytes) { (buffer) throws(Wrong) in
                let code = key.withPointer { key in
                    crypto_aead_xchacha20poly1305_ietf_decrypt(
                        buffer.baseAddress?.assumingMemoryBound(to: UInt8.self), nil, nil,
                        Array(sealed[nonceBytes...]), UInt64(sealed.count - nonceBytes), context,
                        UInt64(context.count), Array(sealed[..<nonceBytes]), key)
                }
                if code != 0 { throw Wrong() }
            }
        } catch is Wrong {
            return nil
        }
    }
}
