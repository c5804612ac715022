import KruxAudit
import KruxCapabilities
import KruxCore
import KruxCrypto
import KruxPolicy
import KruxRegistry
import KruxSandbox
import KruxStore

/// A call within a call: `secrets.use` makes one that gets a secret its caller never sees.
extension Engine {
    /// - Parameter approval: the request under which a person has approved the outer call.
    func nested(_ caller: Caller, approval: String?) -> NestedCalls {
        NestedCalls(
            look: { [self] capability, arguments throws(StructuredError) in
                let prepared = try prepareNested(capability, arguments, caller)
                let decision = policy.compiled.decide(prepared.facts)
                if decision.tier == .blocked { throw blocked(decision, policy.compiled, prepared) }
                let implementation = try implementation(prepared)
                let context = try context(caller, prepared, decision)
                return NestedCalls.Look(
                    binding: try implementation.binding(prepared.arguments, context),
                    preview: try implementation.preview(prepared.arguments, context))
            },
            run: { [self] call async throws(StructuredError) in try await run(call, approval, caller) })
    }

    private func prepareNested(_ capability: String, _ arguments: JSONObject, _ caller: Caller)
        throws(StructuredError) -> Prepared
    {
        guard !capability.hasPrefix("secrets.") else {
            throw StructuredError(
                .invalidArguments, "no call of \(capability.prefix(64)) gets a secret",
                recovery: ["Name the capability that needs it, such as process.run."])
        }
        return try prepare(CallRequest(capability: capability, arguments: arguments), caller)
    }

    /// Decided, recorded and run like any other call; what a person has approved of the outer one holds for it.
    private func run(_ call: NestedCalls.Call, _ approval: String?, _ caller: Caller) async throws(StructuredError)
        -> JSONObject
    {
        let request = CallRequest(capability: call.capability, arguments: call.arguments)
        var record = CallRecord(caller: caller, request: request, started: clock.now())
        record.approval = approval
        let capability: AnyCapability
        let arguments: JSONObject
        let context: CallContext
        let intent: Int64
        do {
            let prepared = try prepareNested(call.capability, call.arguments, caller)
            record.prepared = prepared
            let policy = policy
            let decided = try decide(prepared.facts, policy.compiled)
            let decision = decided.decision
            record.decision = (decision, policy)
            record.standings = decided.standings
            record.reservation = decided.reservation
            if decision.tier == .blocked { throw blocked(decision, policy.compiled, prepared, decided.standings) }
            guard decision.tier <= .notify || approval != nil else {
                throw StructuredError(
                    .blocked, "\(call.capability) needs approval, and no person has approved this use of a secret",
                    recovery: ["Ask your supervisor to give secrets.use the tier `approval_required`."],
                    context: decision.json(policy.compiled))
            }
            capability = try implementation(prepared)
            let value = try secret(
                call.secret, for: caller.agent.name, capability: call.capability, to: prepared.facts.address)
            let hosts = try store.read { try VaultTable.require($0, call.secret) }.scope.hosts
            if prepared.declaration.connects, prepared.facts.address == nil {
                throw StructuredError(
                    .blocked, "\(call.capability) does not say where it would send the secret",
                    recovery: ["Use network.credentialed_request."])
            }
            guard let text = value.withBytes({ String(validating: $0, as: UTF8.self) }) else {
                throw StructuredError(
                    .wrongType, "the secret `\(call.secret)` is no text", recovery: ["Use another secret."])
            }
            // In the arguments that run, and in none that are written.
            arguments = try Self.fill(prepared.arguments, call.place[...], text)
            var inner = try self.context(caller, prepared, decision)
            inner.carried = hosts
            // The process reaches what its rule and the secret both name.
            let box = inner.confinement.settings
            if prepared.declaration.startsProcess {
                guard box.files != .fullAccess else {
                    throw StructuredError(
                        .blocked, "a process that reaches the whole network gets no secret",
                        recovery: ["Ask your supervisor for a rule with another `sandbox`."])
                }
                inner.confinement.settings.hosts =
                    box.tightened(by: SandboxSettings(files: box.files, hosts: hosts)).hosts
            }
            context = inner
            try requireSound()
            intent = try await write(record.body(.intent, outcome: nil, self), record)
        } catch {
            let failure = Self.structured(error)
            do {
                try await write(record.body(.outcome, outcome: record.outcome(failure), self, error: failure), record)
            } catch {
                throw Self.structured(error)
            }
            throw failure
        }
        return try await finishEffect(capability, arguments, context, record, intent: intent).get().0
    }

    private static func fill(_ object: JSONObject, _ place: ArraySlice<String>, _ text: String)
        throws(StructuredError) -> JSONObject
    {
        var object = object
        guard let name = place.first, let member = object[name] else {
            throw StructuredError(.internalError, "the argument that gets the secret is gone")
        }
        object[name] =
            place.count == 1 ? .string(text) : .object(try fill(member.object ?? [:], place.dropFirst(), text))
        return object
    }
}
