import KruxAudit
import KruxCapabilities
import KruxCore
import KruxPolicies
import KruxPolicy
import KruxRegistry
import KruxStore
import KruxCrypto

/// Puts the files of the policy folder in force, or keeps what was in force when they do not compile.
struct PolicyLoader {
    let folder: PolicyFolder
    let store: Store
    let audit: AuditLog

    static let firstPolicy = "personal-permissive"

    /// At start-up: the stored version, unless the files say something else that compiles.
    func load(now: Timestamp) throws -> (policy: Engine.ActivePolicy, problem: String?) {
        let stored = try store.read(PolicyVersions.current)
        do {
            return try activate(nil, over: stored, by: .system, now: now)
        } catch {
            guard let stored else { throw error }
            let compiled = try PolicyCompiler.compile(stored.bundle, catalogue: Capabilities.catalogue)
            return (
                Engine.ActivePolicy(compiled: compiled, bundle: stored.bundle, version: stored.version), "\(error)"
            )
        }
    }

    /// Compiles the folder with `name` (or the policy in force) as the active policy, and stores it with its row.
    func activate(
        _ name: String?, over stored: PolicyVersion?, by principal: Principal, now: Timestamp
    ) throws -> (policy: Engine.ActivePolicy, problem: String?) {
        var bundle = try folder.bundle(
            active: name ?? stored?.bundle.active ?? Self.firstPolicy, system: BuiltInPolicies.system)
        var compiled = try PolicyCompiler.compile(bundle, catalogue: Capabilities.catalogue)
        // The files' own errors, whatever takes their place.
        let broken = compiled.brokenAgents.sorted { $0.key < $1.key }.map(\.value.description)
        let problem = broken.isEmpty ? nil : broken.joined(separator: "\n")
        if let stored {
            // An agent whose file broke keeps the rules it had.
            var kept = false
            for agent in compiled.brokenAgents.keys {
                guard let before = stored.bundle.agents[agent], before != bundle.agents[agent] else { continue }
                bundle.agents[agent] = before
                kept = true
            }
            if kept { compiled = try PolicyCompiler.compile(bundle, catalogue: Capabilities.catalogue) }
            if compiled.digest == stored.bundle.digest {
                return (
                    Engine.ActivePolicy(compiled: compiled, bundle: stored.bundle, version: stored.version), problem
                )
            }
        }
        let digest = compiled.digest
        let finalBundle = bundle
        let audit = audit
        let version = try store.writer.writeAndWait { tx in
            let version = try PolicyVersions.activate(tx, finalBundle, digest: digest, by: principal, now: now)
            var body = AuditBody(time: now, phase: .policy, principal: principal)
            body.members = [
                (
                    "detail",
                    [
                        "action": "activated", "policy": .string(finalBundle.active), "version": .int(version),
                        "digest": .string(digest.hex), "previous": .optional(stored.map { $0.bundle.digest.hex }),
                    ]
                )
            ]
            try audit.append(body.canonicalBytes(), tx)
            return version
        }
        return (Engine.ActivePolicy(compiled: compiled, bundle: bundle, version: version), problem)
    }
}
