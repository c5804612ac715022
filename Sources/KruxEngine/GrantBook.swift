import KruxApprovals
import KruxCapabilities
import KruxCore
import KruxPolicy
import KruxRegistry
import KruxStore
import Logging
import Synchronization

/// The grants that live, ready to be asked; and the supervisors, whose roles say which questions a grant may answer.
final class GrantBook: Sendable {
    private struct Entry {
        var grant: Grant
        let pattern: GrantPattern
    }

    private struct State {
        var byAgent: [String: [Entry]] = [:]
        var roles: [String: String] = [:]
    }

    private let state = Mutex(State())
    /// Held from reading to taking over: an older look never replaces a newer one.
    private let reloading = Mutex(())

    /// - Throws: what reading throws. A grant whose conditions this version cannot read answers nothing.
    func reload(_ store: Store, log: Logger) throws {
        try reloading.withLock { _ in try store.read { try take(over: $0, log: log) } }
    }

    private func take(over tx: any ReadTx, log: Logger) throws {
        var byAgent: [String: [Entry]] = [:]
        for grant in try GrantTable.notEnded(tx) {
            guard let declaration = Capabilities.catalogue[grant.capability] else { continue }
            do throws(PolicyErrors) {
                let pattern = try GrantPattern(
                    grant.conditions, capability: declaration, catalogue: Capabilities.catalogue, source: grant.id)
                byAgent[grant.agent, default: []].append(Entry(grant: grant, pattern: pattern))
            } catch {
                log.error("a grant cannot be read", metadata: ["grant": "\(grant.id)", "reason": "\(error)"])
            }
        }
        // One that may answer as often as asked comes first, so that counted ones last.
        for agent in byAgent.keys {
            byAgent[agent]?.sort { ($0.grant.uses ?? 0, $0.grant.number) < ($1.grant.uses ?? 0, $1.grant.number) }
        }
        let roles = try SupervisorTable.all(tx).filter { $0.revokedAt == nil }.map { ($0.name, $0.role ?? "") }
        let loaded = byAgent
        state.withLock {
            // Uses that are not written yet count.
            let counted = Dictionary(
                $0.byAgent.values.flatMap { $0 }.map { ($0.grant.number, $0.grant.used) }, uniquingKeysWith: max)
            $0.byAgent = loaded.mapValues { entries in
                entries.map { entry in
                    var entry = entry
                    entry.grant.used = max(entry.grant.used, counted[entry.grant.number] ?? 0)
                    return entry
                }
            }
            $0.roles = Dictionary(roles, uniquingKeysWith: { first, _ in first })
        }
    }

    /// A live grant that answers for the call, counted as used.
    /// - Parameter terms: of the rules that ask; what several must agree to, nobody grants in advance.
    func take(
        _ facts: CallFacts, capability: String, session: String, terms: [ApprovalTerms], _ policy: CompiledPolicy
    ) -> Grant? {
        state.withLock { state in
            guard var entries = state.byAgent[facts.agent] else { return nil }
            let roles = state.roles
            guard
                let index = entries.firstIndex(where: { entry in
                    let grant = entry.grant
                    return grant.capability.utf8Equals(capability) && grant.isLive(at: facts.time)
                        && (grant.session.map { $0.utf8Equals(session) } ?? true)
                        && terms.allSatisfy { Self.answers($0, grant, roles) } && entry.pattern.covers(facts, policy)
                })
            else { return nil }
            entries[index].grant.used += 1
            state.byAgent[facts.agent] = entries
            return entries[index].grant
        }
    }

    private static func answers(_ terms: ApprovalTerms, _ grant: Grant, _ roles: [String: String]) -> Bool {
        terms.missing(
            after: grant.agreed.map { principal in
                let name = String(principal.drop { $0 != ":" }.dropFirst())
                return Approver(name: name, role: roles[name])
            }) == 0
    }

    /// The call did not happen.
    func release(_ grant: Grant) {
        state.withLock { state in
            guard let index = state.byAgent[grant.agent]?.firstIndex(where: { $0.grant.number == grant.number }) else {
                return
            }
            state.byAgent[grant.agent]?[index].grant.used -= 1
        }
    }
}
