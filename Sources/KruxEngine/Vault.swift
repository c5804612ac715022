import KruxCore
import KruxCrypto
import KruxRegistry
import KruxStore
import Synchronization

/// The key of the secrets while it is unlocked.
final class Vault: Sendable {
    private let key = Mutex<SecretBytes?>(nil)

    var isLocked: Bool { key.withLock { $0 == nil } }

    func lock() { key.withLock { $0 = nil } }

    static let lockedError = StructuredError(
        .vaultLocked, "the vault is locked",
        agent: "The secrets cannot be used until a person has unlocked them.",
        recovery: ["Ask your supervisor to run `kruxos vault unlock`."], retryable: true, retryAfter: 60)

    private static let missing = StructuredError(
        .notFound, "there is no vault yet", recovery: ["Make one with `kruxos vault init`."])

    /// The key, where the vault is unlocked.
    /// - Throws: `StructuredError` `.vaultLocked`.
    func opened() throws(StructuredError) -> SecretBytes {
        if let key = key.withLock({ $0 }) { return key }
        throw Self.lockedError
    }

    /// - Throws: `StructuredError` `.notFound` without a vault, `.unauthenticated` for another passphrase.
    func unlock(_ lock: VaultTable.Lock?, _ passphrase: SecretBytes) throws {
        let opened = try Self.open(lock, passphrase)
        key.withLock { $0 = opened }
    }

    static func open(_ lock: VaultTable.Lock?, _ passphrase: SecretBytes) throws -> SecretBytes {
        guard let lock else { throw missing }
        let wrapping = try lock.hash.key(of: passphrase)
        guard let key = try Seal.open(lock.sealedKey, key: wrapping, context: VaultTable.Lock.context) else {
            throw StructuredError(
                .unauthenticated, "this passphrase does not open the vault",
                recovery: ["Try again; nobody can open it without its passphrase."])
        }
        return key
    }

    /// A new lock around a key.
    static func seal(_ key: SecretBytes, _ passphrase: SecretBytes) throws -> VaultTable.Lock {
        let hash = PasswordHash.make()
        let wrapping = try hash.key(of: passphrase)
        return VaultTable.Lock(
            hash: hash, sealedKey: Seal.close(key, key: wrapping, context: VaultTable.Lock.context))
    }

    /// The value of a secret.
    /// - Throws: `StructuredError` `.vaultLocked`, `.notFound` for a revoked one, `.conflict` for one that does not open:
    ///   its name, scope or value was changed behind the gate's back.
    func value(of secret: StoredSecret) throws -> SecretBytes {
        let key = try opened()
        guard let sealed = secret.sealed else {
            throw StructuredError(
                .notFound, "the secret `\(secret.name)` is revoked", recovery: ["Ask your supervisor for another one."])
        }
        guard let value = try Seal.open(sealed, key: key, context: secret.context) else {
            throw StructuredError(
                .conflict,
                "the secret `\(secret.name)` does not open: what it may be used for, or its value, was changed",
                recovery: ["Revoke it and add it again: `kruxos vault add`."])
        }
        return value
    }
}
