package import KruxApprovals
package import KruxAudit
import KruxCapabilities
package import KruxCore
import KruxPolicies
import KruxPolicy
import KruxRegistry
import KruxStore
import KruxCrypto

/// What a supervisor can do, as one set of commands with JSON in and out: the gateway offers them on its control
/// socket, and the command line runs them itself when no gateway does.
extension Engine {
    package enum OperatorCommand: String, Sendable, CaseIterable {
        case agentCreate = "agent.create"
        case agentRotate = "agent.rotate"
        case agentRevoke = "agent.revoke"
        case agentRestore = "agent.restore"
        case agentResume = "agent.resume"
        case approvalDecide = "approval.decide"
        case approvalRetry = "approval.retry"
        case grantCreate = "grant.create"
        case grantRevoke = "grant.revoke"
        case supervisorAdd = "supervisor.add"
        case supervisorRevoke = "supervisor.revoke"
        case policySet = "policy.set"
        case policyReload = "policy.reload"
        case policyActivate = "policy.activate"
        case agentMode = "agent.mode"
        case agentRole = "agent.role"
        case sessionList = "session.list"
        case sessionChange = "session.change"
        case notificationsRead = "notifications.read"
        case auditCheckpoint = "audit.checkpoint"
        case auditPrune = "audit.prune"
        case retentionSet = "retention.set"
        case anchorAdd = "anchor.add"
        case anchorRemove = "anchor.remove"
        case anchorSend = "anchor.send"
        case vaultInit = "vault.init"
        case vaultUnlock = "vault.unlock"
        case vaultLock = "vault.lock"
        case vaultPassphrase = "vault.passphrase"
        case vaultAdd = "vault.add"
        case vaultRotate = "vault.rotate"
        case vaultRevoke = "vault.revoke"
        case scheduleEnd = "schedule.end"
        case agentQuota = "agent.quota"
        case mountAdd = "mount.add"
        case mountRemove = "mount.remove"
        case trashEmpty = "trash.empty"
        case trashKeep = "trash.keep"
        case call = "call"
        case status = "status"
    }

    /// - Throws: an error that `structured` turns into the caller's.
    package func operate(_ command: OperatorCommand, _ parameters: JSONObject, by principal: Principal) async throws
        -> JSONObject
    {
        let input = OperatorInput(parameters)
        let principal = try acting(input, principal)
        switch command {
        case .agentCreate: return try createAgent(input, by: principal)
        case .agentRotate, .agentRevoke, .agentRestore: return try changeAgent(command, input, by: principal)
        case .agentResume: return try resumeAgent(input, by: principal)
        case .auditCheckpoint: return try await checkpointJSON()
        case .auditPrune: return try prune(input, by: principal)
        case .retentionSet: return try setRetention(input, by: principal)
        case .anchorAdd: return try addAnchor(input, by: principal)
        case .anchorRemove: return try removeAnchor(input, by: principal)
        case .anchorSend: return try await sendAnchors(input)
        case .approvalDecide:
            let answer = Answer(
                approve: try input.flag("approve"), reason: try input.optionalText("reason"),
                arguments: try input.optionalObject("arguments"), segments: try input.optionalInts("segments"),
                seen: try input.optionalText("seen"))
            let request = try decideApproval(try input.text("id"), answer, by: principal)
            let votes = try store.read { try ApprovalQueue.votes($0, request.id) }
            return Self.json(forSupervisor: request, redactor, votes: votes).adding([
                ("checkpoint", .optional(audit.newestCheckpoint?.note))
            ])
        case .approvalRetry: return try await retryApproval(try input.text("id"), by: principal)
        case .grantCreate: return try createGrant(input, by: principal)
        case .grantRevoke: return try revokeGrant(input, by: principal)
        case .supervisorAdd: return try addSupervisor(input, by: principal)
        case .supervisorRevoke: return try revokeSupervisor(input, by: principal)
        case .policySet: return try setActivePolicy(try input.text("name"), by: principal)
        case .policyActivate: return try activatePolicy(try input.optionalInt("version"), by: principal)
        case .agentMode: return try setMode(input, by: principal)
        case .agentRole: return try setRole(input, by: principal)
        case .sessionList: return sessionsJSON
        case .sessionChange: return try changeSession(input, by: principal)
        case .policyReload: return try setActivePolicy(nil, by: principal)
        case .notificationsRead: return try readNotifications(through: try input.int("through"))
        case .vaultInit, .vaultUnlock, .vaultLock, .vaultPassphrase, .vaultAdd, .vaultRotate, .vaultRevoke:
            return try operateVault(command, input, by: principal)
        case .agentQuota: return try setQuota(input, by: principal)
        case .mountAdd: return try addMount(input, by: principal)
        case .mountRemove: return try removeMount(input, by: principal)
        case .trashEmpty: return try emptyTrash(input, by: principal)
        case .trashKeep: return try setTrashDays(input, by: principal)
        case .scheduleEnd: return try endSchedule(input, by: principal)
        case .call:
            let caller = try caller(agentNamed: try input.text("agent"), via: "operator")
            let (request, wait) = try CallRequest.decode(parameters, also: ["agent"])
            return Self.json(await call(request, by: caller, waitSeconds: Double(wait)))
        case .status: return statusJSON
        }
    }

    /// A call that, when it needs approval, waits for its end up to `waitSeconds`.
    package func call(_ request: CallRequest, by caller: Caller, waitSeconds: Double) async -> CallReply {
        let reply = await call(request, by: caller)
        guard waitSeconds > 0, let id = reply.pendingRequest else { return reply }
        do {
            return Self.reply(of: try await approval(id, of: caller, waitSeconds: waitSeconds)) ?? reply
        } catch {
            return .failed(Self.structured(error))
        }
    }

    /// `{status: succeeded, data, tier, seq}` or `{status: pending | failed, error}`.
    package static func json(_ reply: CallReply) -> JSONObject {
        switch reply {
        case .succeeded(let data, let tier, let seq):
            return [
                "status": "succeeded", "data": .object(data), "tier": .string(tier.name), "audit_seq": .int(seq),
            ]
        case .failed(let error):
            let status = error.isPending ? "pending" : "failed"
            return ["status": .string(status), "error": error.json]
        }
    }

    // MARK: Agents

    private func createAgent(_ input: OperatorInput, by principal: Principal) throws -> JSONObject {
        let text = try input.text("name")
        guard let name = AgentName(text) else {
            throw StructuredError(
                .invalidArguments, "`\(text.prefix(80))` is no agent name", recovery: ["Use \(AgentName.rule)."])
        }
        let purpose = try input.text("purpose")
        guard (1...1000).contains(purpose.utf8.count), !purpose.utf8.contains(where: { $0 < 32 }) else {
            throw StructuredError(
                .invalidArguments, "a purpose is one line of 1 to 1000 bytes",
                recovery: ["Say in a sentence what the agent is for."])
        }
        let role = try checkedRole(try input.optionalText("role"))
        let token = AgentToken.make()
        // The folder first: an agent without one could not work, a folder without an agent harms nobody.
        _ = try workspace(name)
        let now = clock.now()
        try change(
            "agent created", agent: name.text, by: principal, now: now,
            detail: ["purpose": .string(purpose), "role": .optional(role)]
        ) { try AgentTable.create($0, name: name, purpose: purpose, role: role, token: token, now: now) }
        return try agentJSON(name.text).adding([
            ("token", .string(token.text)), ("root_key", .optional(newRootKey?.bytes.hex)),
        ])
    }

    private func changeAgent(_ command: OperatorCommand, _ input: OperatorInput, by principal: Principal) throws
        -> JSONObject
    {
        let record = try store.read { try AgentTable.require($0, try input.text("name")) }
        let name = record.name
        let now = clock.now()
        func refuse(_ text: String, _ way: String) -> StructuredError {
            StructuredError(.conflict, "the agent `\(name)` \(text)", recovery: ["Run `kruxos agent \(way) \(name)`."])
        }
        switch command {
        case .agentRevoke:
            if record.status == .revoked { throw refuse("is revoked already", "restore") }
            try change("agent revoked", agent: name.text, by: principal, now: now) {
                try AgentTable.revoke($0, name, now: now)
            }
            processes.end(of: name)
            stateChanged()
            return try agentJSON(name.text)
        case .agentRestore where record.status == .active: throw refuse("is not revoked", "rotate")
        case .agentRotate where record.status == .revoked: throw refuse("is revoked", "restore")
        default:
            let token = AgentToken.make()
            let action = command == .agentRestore ? "agent restored" : "agent token rotated"
            try change(action, agent: name.text, by: principal, now: now) {
                try AgentTable.setToken($0, name, token: token, now: now)
            }
            return try agentJSON(name.text).adding([("token", .string(token.text))])
        }
    }

    private func resumeAgent(_ input: OperatorInput, by principal: Principal) throws -> JSONObject {
        let record = try store.read { try AgentTable.require($0, try input.text("name")) }
        guard record.isSuspended else {
            throw StructuredError(
                .conflict, "the agent `\(record.name)` is not suspended", recovery: ["See `kruxos agent list`."])
        }
        let name = record.name
        try change("agent resumed", agent: name.text, by: principal, now: clock.now()) {
            try AgentTable.resume($0, name)
        }
        return try agentJSON(name.text)
    }

    /// A change of the registry with its row, durable together, then in force.
    func change(
        _ action: String, agent: String?, by principal: Principal, now: Timestamp, detail: JSONObject = [:],
        _ work: @escaping @Sendable (WriteTx) throws -> Void
    ) throws {
        var body = AuditBody(time: now, phase: .admin, principal: principal)
        body.agent = agent
        body.members = [("detail", .object(detail.adding([("action", .string(action))])))]
        let bytes = body.canonicalBytes()
        let audit = audit
        try store.writer.writeAndWait { tx in
            try work(tx)
            try audit.append(bytes, tx)
        }
        agents.reload(try store.read(AgentTable.all))
    }

    private func agentJSON(_ name: String) throws -> JSONObject {
        let record = try store.read { try AgentTable.require($0, name) }
        return record.json.adding([
            ("folder", .string("\(home.root)/workspaces/\(name)")),
            (
                "effective_mode",
                .string(
                    policy.compiled.mode(
                        ofAgent: name, role: record.role, mode: record.mode
                    ).rawValue)
            ),
        ])
    }

    // MARK: Supervisors

    /// Who acts: the machine's owner, or the supervisor whose token came with the command.
    private func acting(_ input: OperatorInput, _ principal: Principal) throws -> Principal {
        guard let value = input.value("supervisor_token") else { return principal }
        return try authenticate(supervisor: value.string ?? "")
    }

    /// - Throws: `StructuredError` `.unauthenticated`; an agent's token is none.
    package func authenticate(supervisor token: String) throws -> Principal {
        guard let found = try store.read({ try SupervisorTable.authenticate($0, AgentToken(text: token)) }) else {
            throw StructuredError(
                .unauthenticated, "this is no supervisor's token",
                recovery: ["The owner makes one with `kruxos supervisor add NAME`."])
        }
        return .supervisor(found.name)
    }

    private func addSupervisor(_ input: OperatorInput, by principal: Principal) throws -> JSONObject {
        let name = try input.text("name")
        let role = try input.optionalText("role")
        for text in [name, role].compactMap({ $0 }) where !SupervisorName.isValid(text) {
            throw StructuredError(
                .invalidArguments, "`\(text.prefix(80))` is no name", recovery: ["Use \(SupervisorName.rule)."])
        }
        if let known = try store.read({ try SupervisorTable.find($0, name) }), known.revokedAt == nil {
            throw StructuredError(
                .alreadyExists, "there is a supervisor `\(name)` already",
                recovery: ["For a new token, revoke the old one first: `kruxos supervisor revoke \(name)`."])
        }
        let token = AgentToken.make()
        let now = clock.now()
        try change(
            "supervisor added", agent: nil, by: principal, now: now,
            detail: ["supervisor": .string(name), "role": .optional(role)]
        ) {
            try SupervisorTable.put($0, name: name, role: role, token: token, now: now)
        }
        try reloadGrants()
        return try store.read { try SupervisorTable.require($0, name) }.json.adding([("token", .string(token.text))])
    }

    private func revokeSupervisor(_ input: OperatorInput, by principal: Principal) throws -> JSONObject {
        let name = try input.text("name")
        let found = try store.read { try SupervisorTable.require($0, name) }
        guard found.revokedAt == nil else {
            throw StructuredError(
                .conflict, "the supervisor `\(name)` is revoked already", recovery: ["See `kruxos supervisor list`."])
        }
        let now = clock.now()
        try change("supervisor revoked", agent: nil, by: principal, now: now, detail: ["supervisor": .string(name)]) {
            try SupervisorTable.revoke($0, name, now: now)
            try $0.execute(
                "DELETE FROM approval_links WHERE principal = ?", [.text(Principal.supervisor(name).text)])
        }
        try reloadGrants()
        return try store.read { try SupervisorTable.require($0, name) }.json
    }

    // MARK: Policy

    private func setActivePolicy(_ name: String?, by principal: Principal) throws -> JSONObject {
        let loaded = try changePolicy(name, by: principal)
        return policyJSON(loaded.policy).adding([
            ("problem", .optional(loaded.problem)), ("changed", .bool(loaded.changed)),
        ])
    }

    /// An earlier version by its number; without one, the version that was in force before.
    private func activatePolicy(_ number: Int64?, by principal: Principal) throws -> JSONObject {
        let wanted: Int64
        if let number {
            wanted = number
        } else {
            wanted = try previousVersion()
        }
        guard let version = try store.read({ try PolicyVersions.find($0, wanted) }) else {
            throw StructuredError(
                .notFound, "there is no policy version \(wanted)", recovery: ["List them with `kruxos policy history`."]
            )
        }
        let (loaded, replaced) = try activateVersion(version, by: principal)
        return policyJSON(loaded.policy).adding([
            ("problem", .optional(loaded.problem)), ("changed", .bool(loaded.changed)), ("files", .strings(replaced)),
            ("restored", .int(wanted)),
        ])
    }

    /// The version in force before the current one that said something else, by the record.
    private func previousVersion() throws -> Int64 {
        let current = policy
        let earlier = try store.read { tx in
            try tx.rows(
                "SELECT json_extract(body, '$.detail.version') FROM audit WHERE phase = 'policy' AND json_extract(body, '$.detail.action') = 'activated' AND json_extract(body, '$.detail.version') <> ? ORDER BY seq DESC LIMIT 100",
                [.int(current.version)]
            ) { $0.int(0) }
        }
        for number in earlier {
            // The same documents compiled anew, as after an upgrade, are no step back.
            let version = try store.read { try PolicyVersions.find($0, number) }
            if let version, version.bundle != current.bundle { return number }
        }
        throw StructuredError(
            .notFound, "no other policy has been in force", recovery: ["See `kruxos policy history`."])
    }

    // MARK: Modes, roles and sessions

    private func setMode(_ input: OperatorInput, by principal: Principal) throws -> JSONObject {
        let record = try store.read { try AgentTable.require($0, try input.text("name")) }
        let name = record.name
        let mode = try Self.mode(try input.optionalText("mode"))
        try change(
            "agent mode set", agent: name.text, by: principal, now: clock.now(),
            detail: ["mode": .optional(mode?.rawValue), "previous": .optional(record.mode?.rawValue)]
        ) { try AgentTable.setMode($0, name, mode) }
        return try agentJSON(name.text)
    }

    private static func mode(_ text: String?) throws -> Mode? {
        guard let text else { return nil }
        if let mode = Mode(name: text) { return mode }
        let hint = nearest(to: text, among: Mode.names).map { "Did you mean `\($0)`?" }
        throw StructuredError(
            .invalidArguments, "`\(text.prefix(64))` is no mode",
            recovery: [hint, "Use explore, ask or auto."].compactMap { $0 })
    }

    private func setRole(_ input: OperatorInput, by principal: Principal) throws -> JSONObject {
        let record = try store.read { try AgentTable.require($0, try input.text("name")) }
        let name = record.name
        let role = try checkedRole(try input.optionalText("role"))
        try change(
            "agent role set", agent: name.text, by: principal, now: clock.now(),
            detail: ["role": .optional(role), "previous": .optional(record.role)]
        ) { try AgentTable.setRole($0, name, role) }
        return try agentJSON(name.text)
    }

    /// A role that neither KruxOS nor the organisation knows is refused: it would only ever ask.
    private func checkedRole(_ role: String?) throws -> String? {
        guard let role else { return nil }
        let known = Set(Mode.ofRole.keys).union(policy.compiled.roles.keys).sorted()
        if known.contains(where: { $0.utf8Equals(role) }) { return role }
        let hint = nearest(to: role, among: known).map { "Did you mean `\($0)`?" }
        throw StructuredError(
            .invalidArguments, "`\(role.prefix(64))` is no role",
            recovery: [
                hint,
                "There are: \(known.joined(separator: ", ")). Add others with `roles:` in the organisation's policy.",
            ].compactMap { $0 })
    }

    private var sessionsJSON: JSONObject {
        let now = clock.now()
        let live = sessions.all.filter {
            now < $0.lastSeenAt.advanced(bySeconds: SessionTable.idleSeconds)
        }
        return ["sessions": .array(live.sorted { $0.startedAt < $1.startedAt }.map { .object(Self.json($0)) })]
    }

    private static func json(_ session: Session) -> JSONObject {
        [
            "id": .string(session.id), "agent": .string(session.agent.text), "via": .string(session.via),
            "label": .optional(session.label), "mode": .optional(session.mode?.rawValue),
            "started_at": .string(session.startedAt.rfc3339), "last_seen_at": .string(session.lastSeenAt.rfc3339),
            "calls": .int(session.calls),
        ]
    }

    /// Sets `label`, `mode` or both of a live session; an empty text takes them away.
    private func changeSession(_ input: OperatorInput, by principal: Principal) throws -> JSONObject {
        let id = try input.text("id")
        let label = try input.optionalText("label")
        if let label, label.utf8.count > 64 || label.utf8.contains(where: { $0 < 32 }) {
            throw StructuredError(
                .invalidArguments, "a label is one line of at most 64 bytes", recovery: ["Choose a shorter one."])
        }
        let modeText = try input.optionalText("mode")
        let mode = try Self.mode(modeText.flatMap { $0.isEmpty ? nil : $0 })
        guard let before = sessions.session(id) else {
            throw StructuredError(
                .notFound, "there is no live session `\(id.prefix(64))`", recovery: ["See `kruxos agent sessions`."])
        }
        var after = before
        if let label { after.label = label.isEmpty ? nil : label }
        if modeText != nil { after.mode = mode }
        let changed = after
        var body = AuditBody(time: clock.now(), phase: .admin, principal: principal)
        body.agent = before.agent.text
        body.session = id
        body.members = [
            (
                "detail",
                [
                    "action": "session changed", "label": .optional(changed.label),
                    "mode": .optional(changed.mode?.rawValue), "previous_label": .optional(before.label),
                    "previous_mode": .optional(before.mode?.rawValue),
                ]
            )
        ]
        let bytes = body.canonicalBytes()
        let audit = audit
        try store.writer.writeAndWait { tx in
            try SessionTable.store(tx, changed)
            try audit.append(bytes, tx)
        }
        // In force once it is durable; calls made meanwhile keep their count.
        let live = sessions.change(id) { session in
            session.label = changed.label
            session.mode = changed.mode
        }
        return Self.json(live ?? changed)
    }

    private func policyJSON(_ policy: ActivePolicy) -> JSONObject {
        [
            "name": .string(policy.compiled.active.name), "version": .int(policy.version),
            "digest": .string(policy.digest.hex),
            "source": .string("\(home.policies)/\(policy.compiled.active.file)"),
            "warnings": .strings(policy.compiled.warnings.map(\.description)),
            "blocked_agents": .strings(policy.compiled.brokenAgents.keys.sorted()),
        ]
    }

    // MARK: Notifications and status

    private func readNotifications(through seq: Int64) throws -> JSONObject {
        let now = clock.now()
        let count = try store.writer.writeAndWait { tx in
            try tx.execute(
                "UPDATE notifications SET read_at = ? WHERE read_at IS NULL AND seq <= ?",
                [.int(now.microseconds), .int(seq)])
        }
        return ["marked": .int(Int64(count))]
    }

    private var statusJSON: JSONObject {
        let health = health
        var findings = health.findings
        let policy = policy
        for (notifier, problem) in (try? store.read { try Deliveries.problems($0) }) ?? [] {
            findings.append("the notifier `\(notifier)` cannot tell anybody: \(problem)")
        }
        if let files = try? folder.bundle(active: policy.bundle.active, system: BuiltInPolicies.system),
            files != policy.bundle
        {
            findings.append(
                "the policy files differ from what is in force: `kruxos config set policy \(policy.bundle.active)` reads them"
            )
        }
        return [
            "version": .string(Self.version), "home": .string(home.root), "health": .string(health.status),
            "findings": .strings(findings), "uptime_seconds": .int(health.uptimeSeconds),
            "policy": .object(policyJSON(policy)),
            "agents": .int(Int64(agents.all.filter { $0.status == .active }.count)),
        ]
    }

    /// A request as a supervisor sees it, redacted.
    package static func json(
        forSupervisor request: ApprovalRequest, _ redactor: Redactor?, votes: [ApprovalVote] = []
    ) -> JSONObject {
        func redacted(_ object: JSONObject) -> JSONObject { redactor.map { $0.redact(object) } ?? object }
        return [
            "id": .string(request.id), "state": .string(request.state.rawValue), "agent": .string(request.agent),
            "session": .string(request.session), "capability": .string(request.capability),
            "arguments": .object(redacted(request.arguments)),
            "original_arguments": request.original.map { .object(redacted($0)) } ?? .null,
            "purpose": .optional(request.purpose), "shown": .object(request.shown),
            "terms": .array(request.terms.map { .object($0.json) }),
            "agreed": .array(
                votes.map {
                    [
                        "by": .string($0.principal), "at": .string($0.at.rfc3339), "reason": .optional($0.reason),
                    ]
                }), "expires_at": .optional(request.expiresAt?.rfc3339), "retry_of": .optional(request.retryOf),
            "like": .string(request.kin), "seen": .string(request.bindingDigest.hex),
            "binding": .object(request.binding), "decision": .object(request.decision),
            "requested_at": .string(request.requestedAt.rfc3339), "decided_at": .optional(request.decidedAt?.rfc3339),
            "decided_by": .optional(request.decidedBy), "decision_reason": .optional(request.decisionReason),
            "finished_at": .optional(request.finishedAt?.rfc3339),
            "error": request.result?["error"] ?? .null,
        ]
    }
}
