import KruxAudit
import KruxCapabilities
import KruxCore
import KruxCrypto
import KruxPolicies
import KruxPolicy
import KruxRegistry
import KruxStore
import Logging
import Synchronization

/// Puts the files of the policy folder in force, or keeps what was in force when they do not compile. What decides is
/// always read from the stored bytes.
struct PolicyLoader {
    let folder: PolicyFolder
    let store: Store
    let audit: AuditLog

    static let firstPolicy = "personal-permissive"

    struct Loaded {
        let policy: Engine.ActivePolicy
        /// Why some file is not in force.
        let problem: String?
        /// Whether this is another version than before.
        let changed: Bool
    }

    /// At start-up: the stored version, unless the files say something else that compiles.
    func load(now: Timestamp) throws -> Loaded {
        let stored = try store.read(PolicyVersions.current)
        do {
            return try activate(nil, over: stored, by: .system, now: now)
        } catch {
            guard let stored else { throw error }
            try recordRefusal(Engine.structured(error).description, over: stored.digest, by: .system, now: now)
            return Loaded(
                policy: Engine.ActivePolicy(
                    compiled: try stored.policy(Capabilities.catalogue), bundle: stored.bundle,
                    version: stored.version, digest: stored.digest), problem: Engine.structured(error).description,
                changed: false)
        }
    }

    /// Compiles the folder with `name` (or the policy in force) as the active policy, and stores it with its row.
    func activate(_ name: String?, over stored: PolicyVersion?, by principal: Principal, now: Timestamp) throws
        -> Loaded
    {
        let bundle = try folder.bundle(
            active: name ?? stored?.bundle.active ?? Self.firstPolicy, system: BuiltInPolicies.system)
        return try activate(bundle, over: stored, by: principal, now: now)
    }

    func activate(
        _ files: PolicyBundle, over stored: PolicyVersion?, by principal: Principal, now: Timestamp
    ) throws -> Loaded {
        var bundle = files
        if let stored, stored.bundle == bundle, let policy = try current(stored) {
            let broken = policy.compiled.brokenAgents
            return Loaded(policy: policy, problem: Self.problem(broken), changed: false)
        }
        var compiled = try PolicyCompiler.compile(bundle, catalogue: Capabilities.catalogue)
        // The files' own errors, whatever takes their place.
        let problem = Self.problem(compiled.brokenAgents)
        if let stored {
            // An agent whose file broke keeps the rules it had.
            var kept = false
            for agent in compiled.brokenAgents.keys {
                guard let before = stored.bundle.agents[agent], before != bundle.agents[agent] else { continue }
                bundle.agents[agent] = before
                kept = true
            }
            if kept {
                bundle = TimeZones.resolved(bundle)
                compiled = try PolicyCompiler.compile(bundle, catalogue: Capabilities.catalogue)
            }
            if stored.bundle == bundle, let policy = try current(stored) {
                return Loaded(policy: policy, problem: problem, changed: false)
            }
        }
        let form = compiled.form
        // What is stored must be what decides, before it is in force.
        let read = try CompiledPolicy(form: form, catalogue: Capabilities.catalogue)
        guard read.form == form else {
            throw StructuredError(.internalError, "the compiled policy does not read back as it was written")
        }
        let digest = sha256(form)
        let finalBundle = bundle
        let audit = audit
        let version = try store.writer.writeAndWait { tx in
            let version = try PolicyVersions.activate(tx, finalBundle, compiled: form, by: principal, now: now)
            var body = AuditBody(time: now, phase: .policy, principal: principal)
            body.members = [
                (
                    "detail",
                    [
                        "action": "activated", "policy": .string(finalBundle.active), "version": .int(version),
                        "digest": .string(digest.hex), "previous": .optional(stored.map { $0.digest.hex }),
                    ]
                )
            ]
            try audit.append(body.canonicalBytes(), tx)
            return version
        }
        return Loaded(
            policy: Engine.ActivePolicy(
                compiled: read, bundle: bundle, version: version, digest: digest), problem: problem, changed: true)
    }

    /// The stored version ready to decide; nil when it must be compiled again because capabilities have changed since.
    private func current(_ stored: PolicyVersion) throws -> Engine.ActivePolicy? {
        guard let form = stored.compiled,
            let compiled = try? CompiledPolicy(form: form, catalogue: Capabilities.catalogue),
            compiled.capabilities
                == Capabilities.catalogue.declarations.map({ .init(name: $0.name.text, effect: $0.effect) })
        else { return nil }
        return Engine.ActivePolicy(
            compiled: compiled, bundle: stored.bundle, version: stored.version, digest: stored.digest)
    }

    private static func problem(_ broken: [String: PolicyErrors]) -> String? {
        let texts = broken.sorted { $0.key < $1.key }.map(\.value.description)
        return texts.isEmpty ? nil : texts.joined(separator: "\n")
    }

    /// A row that says which files were not put in force and why, and a notification of it.
    func recordRefusal(_ problem: String, over digest: Digest, by principal: Principal, now: Timestamp) throws {
        let audit = audit
        let cut = String(problem.prefix(4000))
        try store.writer.writeAndWait { tx in
            var body = AuditBody(time: now, phase: .policy, principal: principal)
            body.outcome = .failed
            body.members = [
                (
                    "detail",
                    ["action": "refused", "in_force": .string(digest.hex), "problem": .string(cut)]
                )
            ]
            let seq = try audit.append(body.canonicalBytes(), tx)
            try tx.execute(
                "INSERT INTO notifications (seq, time, agent, capability, outcome, summary) VALUES (?, ?, '-', 'policy', 'failed', ?)",
                [.int(seq), .int(now.microseconds), .text(String(cut.prefix(300)))])
        }
    }
}

extension Engine {
    /// Reads the policy files anew and puts them in force; what was in force stays when they do not compile, and a row
    /// says so either way.
    /// - Parameter name: the policy to make active; nil for the one that is.
    func changePolicy(_ name: String?, by principal: Principal) throws -> PolicyLoader.Loaded {
        try policyChange.withLock { _ in
            let loader = PolicyLoader(folder: folder, store: store, audit: audit)
            let stored = try store.read(PolicyVersions.current)
            let loaded: PolicyLoader.Loaded
            do {
                loaded = try loader.activate(name, over: stored, by: principal, now: clock.now())
            } catch {
                // A name that a person mistyped is that person's to hear, not a state of the files.
                if name == nil { try refused(Engine.structured(error).description, loader, by: principal) }
                throw error
            }
            try take(loaded, loader, by: principal)
            return loaded
        }
    }

    /// Puts the version of that number in force again, and its files back into the folder.
    func activateVersion(_ version: PolicyVersion, by principal: Principal) throws -> (PolicyLoader.Loaded, [String]) {
        try policyChange.withLock { _ in
            let loader = PolicyLoader(folder: folder, store: store, audit: audit)
            let stored = try store.read(PolicyVersions.current)
            // The system layer is the machine's and the binary's; no version brings an old one back.
            let now = try folder.bundle(active: version.bundle.active, system: BuiltInPolicies.system)
            var bundle = version.bundle
            bundle.system = now.system
            bundle.requirements =
                now.requirements.filter { $0.file.isAbsolutePath }
                + version.bundle.requirements.filter { !$0.file.isAbsolutePath }
            bundle = TimeZones.resolved(bundle)
            // Before a file is touched, it must be clear that the stored texts are whole, and that they compile.
            if version.compiled != nil { _ = try version.policy(Capabilities.catalogue) }
            _ = try PolicyCompiler.compile(bundle, catalogue: Capabilities.catalogue)
            let replaced = try folder.write(bundle, now: clock.now())
            let loaded = try loader.activate(bundle, over: stored, by: principal, now: clock.now())
            try take(loaded, loader, by: principal)
            return (loaded, replaced)
        }
    }

    private func take(_ loaded: PolicyLoader.Loaded, _ loader: PolicyLoader, by principal: Principal) throws {
        let known = problem
        setPolicy(loaded.policy, problem: loaded.problem)
        if let problem = loaded.problem, problem != known { try announce(problem, loader, by: principal) }
    }

    private func refused(_ text: String, _ loader: PolicyLoader, by principal: Principal) throws {
        let known = problem
        problem = text
        // Told once, not for every save of a half-written file with the same mistake.
        if text != known { try announce(text, loader, by: principal) }
    }

    private func announce(_ text: String, _ loader: PolicyLoader, by principal: Principal) throws {
        let now = clock.now()
        try loader.recordRefusal(text, over: policy.digest, by: principal, now: now)
        log.error("policy files are not in force", metadata: ["problem": "\(text)"])
        events.publish(
            GateEvent(
                kind: .alert, time: now, agent: "-", capability: "policy",
                summary: "policy files are not in force: \(text)", request: nil))
    }

    /// Watches the policy files from now on; a change that compiles is in force within 100 ms.
    package func watchPolicies() {
        let started = FolderWatcher(folders: folder.watched) { [weak self] in
            guard let self else { return }
            do {
                let loaded = try changePolicy(nil, by: .system)
                if loaded.changed {
                    log.notice("policy files changed", metadata: ["version": "\(loaded.policy.version)"])
                }
            } catch {
                // It is on record and in `health`.
                log.debug("the change is not in force", metadata: ["reason": "\(Engine.structured(error).description)"])
            }
        }
        if started == nil {
            log.error(
                "policy files are not watched: no inotify instance is left; `kruxos config set policy` reads them")
        }
        watcher.withLock { $0 = started }
    }
}
