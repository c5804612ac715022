import KruxAudit
import KruxCapabilities
import KruxCore
import KruxPolicy
import KruxRegistry
import KruxStore
import Synchronization

/// What agents keep in the product's own state: looked at on a snapshot, changed in the transaction of the record's row.
extension Engine {
    /// A change of the product's own state, in the transaction of its only row.
    func change(
        _ change: Change, _ prepared: Prepared, _ decision: Decision, _ context: CallContext, _ record: CallRecord
    ) async throws -> CallReply {
        try requireSound()
        let arguments = prepared.arguments
        try await waitForState(of: context.agent, seconds: try change.patience(arguments)) { [store] in
            try store.read { try change.isReady(arguments, context, $0) }
        }
        let (seq, result) = try await write(
            record, isFirst: true, isTold: decision.tier == .notify, notice: try change.notice(arguments),
            applying(change, arguments, context, record, intent: nil))
        stateChanged()
        if decidedCapability(record).hasPrefix("scheduler.") { schedulesDue.changed() }
        switch result {
        case .success(let data): return .succeeded(data, tier: decision.tier, seq: seq)
        case .failure(let error): return .failed(error)
        }
    }

    /// Makes a change and the row that says how it ended, in one transaction; one that fails leaves only the row.
    func applying(
        _ change: Change, _ arguments: JSONObject, _ context: CallContext, _ record: CallRecord, intent: Int64?
    ) -> @Sendable (WriteTx) throws -> (AuditBody, Result<JSONObject, StructuredError>) {
        { [self] tx in
            let result: Result<JSONObject, StructuredError>
            do {
                result = .success(redactor.hidingValues(try tx.attempt { try change.apply(arguments, context, tx) }))
            } catch let error as StructuredError {
                result = .failure(error)
            }
            let failure: StructuredError? = if case .failure(let error) = result { error } else { nil }
            var body = record.body(
                .outcome, outcome: failure == nil ? .succeeded : .failed, self, error: failure,
                result: try? result.get())
            body.intent = intent
            return (body, result)
        }
    }

    /// Does what a capability does outside of the product's state, or looks at that.
    func perform(_ capability: AnyCapability, _ arguments: JSONObject, _ context: CallContext)
        async throws(StructuredError) -> JSONObject
    {
        do {
            return redactor.hidingValues(try await performed(capability, arguments, context))
        } catch {
            throw redactor.hidingValues(Self.structured(error))
        }
    }

    private func performed(_ capability: AnyCapability, _ arguments: JSONObject, _ context: CallContext) async throws
        -> JSONObject
    {
        switch capability.work {
        case .run(let run): return try await run(arguments, context)
        case .look(let look, let patience):
            var seen: JSONObject?
            try await waitForState(of: context.agent, seconds: try patience(arguments)) { [store] in
                seen = try store.read { try look(arguments, context, $0, false) }
                return seen != nil
            }
            if let seen { return seen }
            guard let last = try store.read({ try look(arguments, context, $0, true) }) else {
                throw StructuredError(.internalError, "a look came to nothing")
            }
            return last
        case .change:
            throw StructuredError(.internalError, "a change of state was to be done outside of a transaction")
        }
    }

    /// Returns when `isReady` says so, or the time is over.
    /// - Throws: what `isReady` throws; `StructuredError` `.unauthenticated` for an agent that was revoked meanwhile.
    private func waitForState(of agent: AgentName, seconds: Int64, _ isReady: () throws -> Bool) async throws {
        guard seconds > 0 else { return }
        let deadline = ContinuousClock.now + .seconds(seconds)
        while true {
            let known = stateVersion.withLock { $0 }
            let left = (deadline - .now) / .milliseconds(1)
            guard agents.agent(named: agent.text)?.status == .active else {
                throw StructuredError(
                    .unauthenticated, "the agent `\(agent)` was revoked while it waited",
                    recovery: ["Ask your supervisor."])
            }
            if try isReady() || left <= 0 || isDraining.withLock({ $0 }) || Task.isCancelled { return }
            await waiters.wait(for: Self.stateWaiters, seconds: left / 1000) { [self] in
                stateVersion.withLock { $0 } != known
            }
        }
    }

    /// What no request is called.
    private static let stateWaiters = "state"

    private func decidedCapability(_ record: CallRecord) -> String { record.prepared?.declaration.name.text ?? "" }

    func stateChanged() {
        stateVersion.withLock { $0 += 1 }
        waiters.wake(Self.stateWaiters)
    }
}
