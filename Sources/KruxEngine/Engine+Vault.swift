import KruxAudit
import KruxCapabilities
import KruxCore
import KruxCrypto
import KruxRegistry
import KruxStore

/// Secrets: kept by supervisors, used by name.
extension Engine {
    /// - Parameter command: one of `vault.*`.
    func operateVault(_ command: OperatorCommand, _ input: OperatorInput, by principal: Principal) throws -> JSONObject
    {
        switch command {
        case .vaultInit: return try initVault(input, by: principal)
        case .vaultUnlock:
            let passphrase = try Self.passphrase(input)
            do {
                try vault.unlock(try store.read(VaultTable.lock), passphrase)
            } catch let error as StructuredError where error.kind == .unauthenticated {
                try change("vault not unlocked", agent: nil, by: principal, now: clock.now()) { _ in }
                throw error
            }
            try change("vault unlocked", agent: nil, by: principal, now: clock.now()) { _ in }
            try hideSecrets()
            return vaultJSON
        case .vaultLock:
            let wasLocked = vault.isLocked
            vault.lock()
            try hideSecrets()
            if !wasLocked { try change("vault locked", agent: nil, by: principal, now: clock.now()) { _ in } }
            return vaultJSON
        case .vaultPassphrase: return try changePassphrase(input, by: principal)
        case .vaultAdd: return try addSecret(input, by: principal)
        case .vaultRotate: return try rotateSecret(input, by: principal)
        case .vaultRevoke: return try revokeSecret(input, by: principal)
        default: throw StructuredError(.internalError, "\(command.rawValue) is no command of the vault")
        }
    }

    private var vaultJSON: JSONObject { ["locked": .bool(vault.isLocked)] }

    /// The text of a parameter, in locked memory from here on.
    private static func secret(_ input: OperatorInput, _ name: String) throws -> SecretBytes {
        guard let bytes = Base64.decode(try input.text(name)) else {
            throw StructuredError(.invalidArguments, "the parameter `\(name)` must be base64")
        }
        return try SecretBytes(bytes)
    }

    private static func passphrase(_ input: OperatorInput, _ name: String = "passphrase") throws -> SecretBytes {
        let passphrase = try secret(input, name)
        guard passphrase.count > 0 else {
            throw StructuredError(.invalidArguments, "the passphrase is empty", recovery: ["Choose a longer one."])
        }
        return passphrase
    }

    private static let shortestPassphrase = 8

    private func initVault(_ input: OperatorInput, by principal: Principal) throws -> JSONObject {
        guard try store.read(VaultTable.lock) == nil else {
            throw StructuredError(
                .alreadyExists, "there is a vault already",
                recovery: ["Unlock it with `kruxos vault unlock`, or change its passphrase: `kruxos vault passphrase`."]
            )
        }
        let passphrase = try newPassphrase(input)
        let key = try SecretBytes.random(Seal.keyBytes)
        let lock = try Vault.seal(key, passphrase)
        let now = clock.now()
        try change("vault made", agent: nil, by: principal, now: now) { try VaultTable.setLock($0, lock, now: now) }
        try vault.unlock(lock, passphrase)
        return vaultJSON
    }

    private func newPassphrase(_ input: OperatorInput) throws -> SecretBytes {
        let passphrase = try Self.passphrase(input)
        guard passphrase.count >= Self.shortestPassphrase else {
            throw StructuredError(
                .invalidArguments, "a passphrase needs at least \(Self.shortestPassphrase) bytes",
                recovery: ["Choose a longer one, such as five words."])
        }
        return passphrase
    }

    private func changePassphrase(_ input: OperatorInput, by principal: Principal) throws -> JSONObject {
        let key = try Vault.open(try store.read(VaultTable.lock), try Self.passphrase(input, "current"))
        let lock = try Vault.seal(key, try newPassphrase(input))
        let now = clock.now()
        try change("vault passphrase changed", agent: nil, by: principal, now: now) {
            try $0.forEach("PRAGMA secure_delete = ON", []) { _ in true }
            try VaultTable.setLock($0, lock, now: now)
        }
        return vaultJSON
    }

    /// The vault's key; where it is locked, a passphrase that came with the command opens it for that command alone.
    private func key(_ input: OperatorInput) throws -> SecretBytes {
        guard vault.isLocked, try input.optionalText("passphrase") != nil else { return try vault.opened() }
        return try Vault.open(try store.read(VaultTable.lock), try Self.passphrase(input))
    }

    private func value(_ input: OperatorInput) throws -> SecretBytes {
        let value = try Self.secret(input, "value")
        guard (1...(64 << 10)).contains(value.count) else {
            throw StructuredError(
                .invalidArguments, "a secret has 1 to 65536 bytes", recovery: ["Give the value on standard input."])
        }
        return value
    }

    private func addSecret(_ input: OperatorInput, by principal: Principal) throws -> JSONObject {
        let name = try input.text("name")
        guard SupervisorName.isValid(name) else {
            throw StructuredError(
                .invalidArguments, "`\(name.prefix(80))` is no name", recovery: ["Use \(SupervisorName.rule)."])
        }
        let scope = try self.scope(input)
        let known = try store.read { try VaultTable.find($0, name) }
        if let known, known.sealed != nil {
            throw StructuredError(
                .alreadyExists, "there is a secret `\(name)` already",
                recovery: [
                    "Give it a new value with `kruxos vault rotate \(name)`.",
                    "For another scope, revoke it first: `kruxos vault revoke \(name)`.",
                ])
        }
        return try put(
            "secret added", name, scope, version: (known?.version ?? 0) + 1, try value(input), try key(input),
            by: principal)
    }

    private func put(
        _ action: String, _ name: String, _ scope: SecretScope, version: Int64, _ value: SecretBytes,
        _ key: SecretBytes, by principal: Principal
    ) throws -> JSONObject {
        let sealed = Seal.close(value, key: key, context: StoredSecret.context(name, scope, version))
        let now = clock.now()
        try change(
            action, agent: nil, by: principal, now: now,
            detail: ["name": .string(name), "version": .int(version), "scope": .object(scope.json)]
        ) { tx in
            try tx.forEach("PRAGMA secure_delete = ON", []) { _ in true }
            try VaultTable.put(tx, name: name, scope: scope, version: version, sealed: sealed, now: now)
        }
        try hideSecrets()
        return try store.read { try VaultTable.require($0, name) }.json.adding([
            ("is_short", .bool(value.count < SecretValues.shortestInReplies))
        ])
    }

    private func rotateSecret(_ input: OperatorInput, by principal: Principal) throws -> JSONObject {
        let secret = try store.read { try VaultTable.require($0, try input.text("name")) }
        guard secret.sealed != nil else {
            throw StructuredError(
                .conflict, "the secret `\(secret.name)` is revoked", recovery: ["Add it again: `kruxos vault add`."])
        }
        return try put(
            "secret rotated", secret.name, secret.scope, version: secret.version + 1, try value(input),
            try key(input), by: principal)
    }

    private func revokeSecret(_ input: OperatorInput, by principal: Principal) throws -> JSONObject {
        let secret = try store.read { try VaultTable.require($0, try input.text("name")) }
        guard secret.sealed != nil else {
            throw StructuredError(.conflict, "the secret `\(secret.name)` is revoked already")
        }
        let now = clock.now()
        try change(
            "secret revoked", agent: nil, by: principal, now: now,
            detail: ["name": .string(secret.name), "version": .int(secret.version)]
        ) { tx in
            try tx.forEach("PRAGMA secure_delete = ON", []) { _ in true }
            try VaultTable.put(
                tx, name: secret.name, scope: secret.scope, version: secret.version, sealed: nil, now: now)
        }
        try hideSecrets()
        return try store.read { try VaultTable.require($0, secret.name) }.json
    }

    /// Nothing is allowed that is not named.
    private func scope(_ input: OperatorInput) throws -> SecretScope {
        let capabilities = try input.optionalTexts("capabilities")
        let catalogue = Capabilities.catalogue
        guard !capabilities.isEmpty else {
            throw StructuredError(
                .invalidArguments, "a secret needs at least one capability that may use it",
                recovery: ["Name them with `--capability network.credentialed_request`."])
        }
        for pattern in capabilities
        where !catalogue.names.contains(where: {
            pattern.hasSuffix(".*") ? $0.hasPrefix(pattern.dropLast()) : $0.utf8Equals(pattern)
        }) {
            let hint = nearest(to: pattern, among: catalogue.names).map { "Did you mean `\($0)`?" }
            throw StructuredError(
                .invalidArguments, "there is no capability `\(pattern.prefix(100))`",
                recovery: [hint, "See `kruxos capabilities list`."].compactMap { $0 })
        }
        let hosts = try input.optionalTexts("hosts").map { text in
            guard let host = HostPattern(text) else {
                throw StructuredError(
                    .invalidArguments, "`\(text.prefix(100))` is no host",
                    recovery: ["Write `api.example.com`, `*.example.com` or `example.com:8443`, without a scheme."])
            }
            return host
        }
        let agents = try input.optionalTexts("agents")
        for agent in agents { _ = try store.read { try AgentTable.require($0, agent) } }
        return SecretScope(
            agents: agents.isEmpty ? nil : agents, capabilities: capabilities, hosts: hosts,
            allowsPlainHTTP: try input.optionalFlag("plain_http") ?? false)
    }

    // MARK: Use

    /// Every value that is known now is hidden in records and replies.
    private func hideSecrets() throws {
        guard !vault.isLocked else { return try secretValues.set([]) }
        var values: [SecretBytes] = []
        for secret in try store.read(VaultTable.all) where secret.sealed != nil {
            // One that was tampered with says so when it is used.
            guard let value = try? vault.value(of: secret) else { continue }
            values.append(value)
            // Of an account, the password by itself.
            guard let account = value.withBytes({ try? JSONParser.parse([UInt8]($0)) })?.object else { continue }
            for member in account.members where Redactor.isSecretLike(member.key) {
                if let text = member.value.string { values.append(try SecretBytes(Array(text.utf8))) }
            }
        }
        try secretValues.set(values)
    }

    /// A secret for one use.
    /// - Parameter address: where it is sent; nil for a use that stays here.
    /// - Throws: `StructuredError` `.vaultLocked`, `.notFound`, `.blocked` for a use that its scope does not cover.
    func secret(_ name: String, for agent: AgentName, capability: String, to address: WebAddress?)
        throws(StructuredError) -> SecretBytes
    {
        do {
            let found = try store.read { try VaultTable.find($0, name) }
            // One that is not for this agent looks like none.
            guard let secret = found, secret.scope.covers(agent: agent.text) else {
                throw StructuredError(
                    .notFound, "there is no secret `\(name.prefix(64))` for you",
                    recovery: ["See secrets.list for those there are."])
            }
            func refuse(_ text: String) -> StructuredError {
                StructuredError(
                    .blocked, "the secret `\(name)` \(text)",
                    recovery: ["See secrets.list for what it is for.", "Ask your supervisor if you need more."],
                    context: ["secret": .string(name)])
            }
            guard secret.scope.covers(capability: capability) else { throw refuse("is not for \(capability)") }
            if let address {
                guard secret.scope.hosts.contains(where: { $0.matches(address.host, address.port) }) else {
                    throw refuse("may not be sent to \(address.host):\(address.port)")
                }
                guard address.scheme == "https" || secret.scope.allowsPlainHTTP else {
                    throw refuse("may not be sent without encryption")
                }
            }
            return try vault.value(of: secret)
        } catch {
            throw Self.structured(error)
        }
    }

    /// What an agent may use, by name.
    func secrets(of agent: AgentName) throws(StructuredError) -> [HostServices.SecretProfile] {
        do {
            return try store.read(VaultTable.all).filter { $0.sealed != nil && $0.scope.covers(agent: agent.text) }.map
            {
                HostServices.SecretProfile(
                    name: $0.name, capabilities: $0.scope.capabilities, hosts: $0.scope.hosts.map(\.text),
                    version: $0.version, changedAt: $0.changedAt)
            }
        } catch {
            throw Self.structured(error)
        }
    }
}
