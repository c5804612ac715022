import Foundation
import KruxApprovals
package import KruxAudit
package import KruxCapabilities
package import KruxCore
package import KruxCrypto
import KruxPolicies
import KruxPolicy
import KruxRegistry
package import KruxSandbox
package import KruxStore
package import Logging
import Synchronization

/// The gate: the only place where a call is authenticated, validated, decided, approved, run and recorded. One exists
/// per home at a time, because it holds the writer's lock. It never opens a socket.
package final class Engine: Sendable {
    package static let version = "0.1.0"
    /// Below this much free disk no new effect begins, so that outcomes always fit.
    static let reservedBytes: Int64 = 64 << 20

    /// A compiled policy and the version it is stored as.
    final class ActivePolicy: Sendable {
        let compiled: CompiledPolicy
        let bundle: PolicyBundle
        let version: Int64
        /// What records name it by.
        let digest: Digest

        init(compiled: CompiledPolicy, bundle: PolicyBundle, version: Int64, digest: Digest) {
            self.compiled = compiled
            self.bundle = bundle
            self.version = version
            self.digest = digest
        }
    }

    package let home: Home
    package let clock: WallClock
    package let events = EventHub()
    package let store: Store
    let log: Logger
    let audit: AuditLog
    let redactor: Redactor
    let secretValues: SecretValues
    let vault = Vault()
    /// Limits on all that an agent's processes use together; nil where the machine gives none.
    let groups: ControlGroups?
    let agents = AgentDirectory()
    let sessions = SessionTable()
    let waiters = ApprovalWaiters()
    let grants = GrantBook()
    let due = DueSignal()
    let deliveriesDue = DueSignal()
    let schedulesDue = DueSignal()
    /// Schedules whose call is under way.
    let running = Mutex<Set<String>>([])
    let folder: PolicyFolder
    let windows: RateWindows
    let startedAt: Timestamp
    /// Whether the record began with this opening.
    private let isNew: Bool
    /// The root key of a record that has just begun: to be told to its owner once, and kept elsewhere.
    package var newRootKey: PublicKey? { isNew ? audit.publicKey : nil }
    /// One change of the policy at a time.
    let policyChange = Mutex(())
    private let lock: WriterLock
    private let workspaces = Mutex<[String: Workspace]>([:])
    /// What agents' processes run, and have run lately.
    let processes: ProcessTable
    private let guarded = Mutex<[String: ProtectedFiles]>([:])
    private let active: Mutex<ActivePolicy>
    /// Why the files in the policy folder are not in force.
    private let policyProblem = Mutex<String?>(nil)
    let checkpointSigned = CheckpointSignal()
    /// Outcomes that wait for the record to be writable again.
    let unrecorded = Mutex(0)
    let isDraining = Mutex(false)
    /// Goes up with each change of agents' state.
    let stateVersion = Mutex(0)
    /// When each anchor was last tried, by the monotonic clock in seconds.
    let lastTried = Mutex<[Int64: Int64]>([:])
    let watcher = Mutex<FolderWatcher?>(nil)

    package static let systemClock = WallClock(
        now: { Timestamp(microseconds: microseconds(CLOCK_REALTIME)) },
        // Goes on while the machine sleeps, as windows do.
        monotonic: { microseconds(CLOCK_BOOTTIME) }, boot: bootID)

    /// The kernel's name for this run of the machine; one of this process's own where there is none to read.
    private static let bootID: String = {
        let read = (try? String(contentsOfFile: "/proc/sys/kernel/random/boot_id", encoding: .utf8)) ?? ""
        let id = read.filter { $0.isHexDigit || $0 == "-" }
        return id.isEmpty ? "process-\(randomBytes(8).hex)" : id
    }()

    private static func microseconds(_ clock: clockid_t) -> Int64 {
        var time = timespec()
        clock_gettime(clock, &time)
        return Int64(time.tv_sec) * 1_000_000 + Int64(time.tv_nsec) / 1000
    }

    /// Opens a home, making it if needed: takes the writer's lock, migrates, loads the policy, and records what a crash
    /// has left open.
    /// - Throws: `StoreError` `.locked` when another process is the writer; `StructuredError`, `PolicyErrors` and
    ///   `AuditError` for a home that cannot be used.
    /// - Parameter restore: goes on with a database that was put back, in a new epoch; what follows from that is done
    ///   in its transaction.
    package init(
        home: Home, clock: WallClock = Engine.systemClock, log: Logger, rotation: AuditLog.Rotation = .init(),
        restore: Restore? = nil, groups: ControlGroups? = nil
    ) throws {
        self.home = home
        self.groups = groups
        self.clock = clock
        processes = ProcessTable(folder: home.root + "/outputs")
        self.log = log
        try Store.checkBeforeWriting(home.database)
        try home.create()
        lock = try WriterLock(home: home.root)
        try Self.requireDatabase(home, restore)
        let signal = checkpointSigned
        var opened: AuditLog?
        let store = try Store(home: home.root, log: log) { tx in
            let audit = try AuditLog(
                tx, home: home.root, clock: clock, rotation: rotation, accepting: restore != nil)
            audit.onCheckpoint = { signal.yield() }
            opened = audit
            return [audit]
        }
        self.store = store
        guard let audit = opened else { throw StoreError(.stopped, "the record was not opened") }
        self.audit = audit
        let now = clock.now()
        startedAt = now
        folder = PolicyFolder(path: home.policies)
        do {
            if let restore { try Self.beginEpoch(store.writer, audit, restore, now: now) }
            isNew = audit.lastSeq == 0
            try audit.begin(store.writer, now: now)
            let agents = agents
            secretValues = SecretValues(isOwnToken: { agents.authenticate($0) != nil })
            redactor = Redactor(key: try KeyFiles(home: home.root).digestKey(), secrets: secretValues)
            try folder.create(templates: BuiltInPolicies.templates, suites: BuiltInPolicies.suites)
            let loaded = try PolicyLoader(folder: folder, store: store, audit: audit).load(now: now)
            active = Mutex(loaded.policy)
            if let problem = loaded.problem {
                policyProblem.withLock { $0 = problem }
                log.error("policy files are not in force", metadata: ["problem": "\(problem)"])
            }
            agents.reload(try store.read(AgentTable.all))
            let grants = grants
            try grants.reload(store, log: log)
            let sessions = sessions
            try store.read { try sessions.resume($0, now: now) }
            windows = try store.read {
                try RateWindows($0, wall: now.microseconds, boot: clock.boot, monotonic: clock.monotonic)
            }
            let windows = windows
            try store.writer.writeAndWait { try windows.storeAnchor($0) }
            try Recovery(store: store, audit: audit).run(now: now)
            try recoverProcesses(now: now)
            try recoverMail(now: now)
        } catch {
            try? store.close()
            throw error
        }
    }

    /// Ends every wait and stream, so that a server can stop; calls in flight go on.
    package func drain() {
        events.finish()
        checkpointSigned.finish()
        isDraining.withLock { $0 = true }
        waiters.drain()
        due.changed()
        deliveriesDue.changed()
        schedulesDue.changed()
    }

    /// For a command that opens the gate for itself: no process outlives a call.
    package func refuseBackgroundProcesses() { processes.refuseBackground() }

    /// Ends the processes that run in the background, and records that.
    package func endProcesses() async { await processes.stop() }

    /// Ends cleanly: the file alone is complete afterwards.
    package func close() throws {
        watcher.withLock { $0 }?.stop()
        drain()
        let sessions = sessions.all
        let last = audit.lastSeq
        let audit = audit
        try store.writer.writeAndWait { tx in
            for session in sessions { try SessionTable.store(tx, session) }
            // What has no outcome now gets one at the next start.
            try Recovery.markComplete(tx, through: try Recovery.firstOpen(tx).map { $0 - 1 } ?? last)
            audit.wantCheckpoint()
        }
        if let newest = audit.newestCheckpoint { appendLocally(newest.note) }
        try store.close()
        groups?.end()
    }

    var policy: ActivePolicy { active.withLock { $0 } }
    func setPolicy(_ policy: ActivePolicy, problem: String?) {
        active.withLock { $0 = policy }
        policyProblem.withLock { $0 = problem }
    }

    var problem: String? {
        get { policyProblem.withLock { $0 } }
        set { policyProblem.withLock { $0 = newValue } }
    }

    /// What is protected in an agent's workspace, held while processes run there.
    func protectedFiles(_ agent: AgentName) throws(StructuredError) -> ProtectedFiles {
        let workspace = try workspace(agent)
        return guarded.withLock { guarded in
            if let known = guarded[agent.text] { return known }
            let made = ProtectedFiles(workspace: workspace, ledger: home.protected)
            guarded[agent.text] = made
            return made
        }
    }

    /// Where an agent's processes are counted together.
    func group(of agent: String) -> ControlGroup? {
        do throws(SandboxError) { return try groups?.group(agent) } catch {
            log.error("no cgroup limits", metadata: ["agent": "\(agent)", "why": "\(error.message)"])
            return nil
        }
    }

    func workspace(_ agent: AgentName) throws(StructuredError) -> Workspace {
        if let known = workspaces.withLock({ $0[agent.text] }) { return known }
        let opened = try Workspace(agent: agent, home: home.root)
        do {
            opened.setQuota(try quota(of: agent.text))
            opened.setMounts(try mounts(of: agent.text))
        } catch {
            throw Self.structured(error)
        }
        return workspaces.withLock { workspaces in
            if let known = workspaces[agent.text] { return known }
            workspaces[agent.text] = opened
            return opened
        }
    }

    /// Whether nothing keeps the gate from its work.
    package var isReady: Bool { problems.isEmpty }

    /// What keeps the gate from its work, in words that anybody may hear.
    package enum Problem: String, Sendable {
        case diskFull = "disk_full"
        case recordNotWritable = "record_not_writable"
        case headNotWritable = "record_head_not_writable"
        case signingKeyMissing = "signing_key_missing"
        case policyDoesNotCompile = "policy_does_not_compile"
        case agentBlocked = "agent_blocked_by_broken_policy"
    }

    package var problems: [Problem] {
        var problems: [Problem] = []
        if home.freeBytes < Self.reservedBytes { problems.append(.diskFull) }
        if store.writer.problem != nil || unrecorded.withLock({ $0 }) > 0 { problems.append(.recordNotWritable) }
        switch audit.trouble {
        case .keyMissing: problems.append(.signingKeyMissing)
        case .headNotWritable: problems.append(.headNotWritable)
        case nil: break
        }
        if problem != nil { problems.append(.policyDoesNotCompile) }
        if !policy.compiled.brokenAgents.isEmpty { problems.append(.agentBlocked) }
        return problems
    }

    /// What keeps the gate from its work.
    package var health: HostServices.Health {
        var findings: [String] = []
        if home.freeBytes < Self.reservedBytes { findings.append("less than 64 MiB of disk is free: no effect begins") }
        if let problem = store.writer.problem {
            findings.append("the record cannot be written, so nothing runs: \(problem)")
        }
        if let trouble = audit.trouble { findings.append("no effect begins: \(trouble.text)") }
        if let problem = policyProblem.withLock({ $0 }) {
            findings.append("a policy file does not compile, and what was in force before stays: \(problem)")
        }
        for agent in policy.compiled.brokenAgents.keys.sorted() {
            findings.append("the policy of agent `\(agent)` does not compile: the agent is blocked")
        }
        return HostServices.Health(
            status: findings.isEmpty ? "ok" : "degraded", findings: findings,
            uptimeSeconds: max(0, (clock.now().microseconds - startedAt.microseconds) / 1_000_000))
    }

    /// Errors of lower rooms as the caller is told them.
    package static func structured(_ error: any Error) -> StructuredError {
        switch error {
        case let error as StructuredError: return error
        case let error as StoreError:
            let kind: StructuredError.Kind
            switch error.code {
            case .storageFull: kind = .storageFull
            case .stopped, .locked: kind = .unavailable
            default: kind = .ioFailure
            }
            return StructuredError(
                kind, error.message, agent: "The gate cannot write its record, so nothing was done.",
                recovery: error.hint.map { [$0] } ?? ["Try again later."], retryable: true)
        case let error as AuditError:
            let kind: StructuredError.Kind =
                switch error.code {
                case .notFound: .notFound
                case .invalidFilter: .invalidArguments
                default: .unavailable
                }
            if kind != .unavailable {
                return StructuredError(kind, error.message, recovery: error.hint.map { [$0] } ?? [])
            }
            return StructuredError(
                .unavailable, error.message, agent: "The gate cannot sign its record, so nothing was done.",
                recovery: error.hint.map { [$0] } ?? [], retryable: true)
        case let error as PolicyErrors:
            return StructuredError(
                .invalidRequest, error.description, recovery: ["Mend the file and try again."])
        default: return StructuredError(.internalError, "\(error)")
        }
    }
}
