import KruxAudit
import KruxCapabilities
package import KruxCore
import KruxCrypto
package import KruxPolicy
import KruxRegistry
package import KruxStore

/// Recorded calls decided again: under a candidate policy, or under the policy that decided them, which must agree
/// with the record to the last call.
package struct PolicyReplay: Sendable {
    /// Calls whose tier would be another one, for one rule and one pair of tiers.
    package struct Change: Sendable {
        package let from: Tier
        package let to: Tier
        /// The rule of the candidate that gives the new tier: `pattern (file line)`.
        package let rule: String
        package let capability: String
        package var calls: Int
        /// Rows of the first few.
        package var examples: [Int64]
    }

    package var decided = 0
    package var same = 0
    package var changes: [Change] = []
    /// Calls that asked something of a value which the record does not show.
    package var indeterminate = 0
    /// Rows without facts: of a version that did not keep them, or of a call that was refused before a decision.
    package var withoutFacts = 0
    /// With no candidate: rows where the policy's own decision is not the recorded one.
    package var disagreements: [Int64] = []

    private struct Row: Sendable {
        let seq: Int64
        let agent: String, capability: String, tier: String
        let phase: String
        let request: String?
        let intent: Int64?
        let body: String
    }

    /// - Parameters:
    ///   - candidate: nil decides each call under the version that decided it.
    ///   - since: rows from this time on.
    package static func run(
        _ store: ReadOnlyStore, candidate: CompiledPolicy?, since: Timestamp
    ) throws -> PolicyReplay {
        var replay = PolicyReplay()
        var versions: [String: CompiledPolicy] = [:]
        var index: [String: Int] = [:]
        var after: Int64 = 0
        // Pages, so that no snapshot is held long.
        while true {
            let from = after
            let rows = try store.read { tx in
                try tx.rows(
                    "SELECT seq, agent, capability, tier, phase, request, intent, body FROM audit WHERE seq > ? AND time >= ? AND phase IN ('intent', 'outcome', 'approval') AND tier IS NOT NULL AND agent IS NOT NULL AND capability IS NOT NULL ORDER BY seq LIMIT 500",
                    [.int(from), .int(since.microseconds)]
                ) {
                    Row(
                        seq: $0.int(0), agent: $0.text(1), capability: $0.text(2), tier: $0.text(3), phase: $0.text(4),
                        request: $0.optionalText(5), intent: $0.optionalInt(6), body: $0.optionalText(7) ?? "")
                }
            }
            guard let last = rows.last else { break }
            after = last.seq
            for row in rows {
                // An outcome tells the end of what its intent's row decided; a supervisor's answer decides nothing.
                if row.intent != nil { continue }
                let body = try JSONParser.parse(row.body)
                if row.phase == "approval", body["outcome"]?.string != "pending" { continue }
                guard let facts = body["facts"]?.object, let digest = facts["policy"]?.string,
                    let recorded = Tier(name: row.tier), facts["time"] != nil
                else {
                    replay.withoutFacts += 1
                    continue
                }
                let policy: CompiledPolicy
                if let candidate {
                    policy = candidate
                } else if let known = versions[digest] {
                    policy = known
                } else {
                    guard let hash = Digest(hex: digest),
                        let version = try store.read({ try PolicyVersions.find($0, digest: hash) })
                    else {
                        replay.disagreements.append(row.seq)
                        continue
                    }
                    policy = try version.policy(Capabilities.catalogue)
                    versions[digest] = policy
                }
                replay.decide(row, recorded, body, facts, policy, isCandidate: candidate != nil, &index)
            }
        }
        replay.changes.sort { ($1.calls, $0.capability, $0.rule) < ($0.calls, $1.capability, $1.rule) }
        return replay
    }

    private mutating func decide(
        _ row: Row, _ recorded: Tier, _ body: JSONValue, _ factsJSON: JSONObject, _ policy: CompiledPolicy,
        isCandidate: Bool, _ index: inout [String: Int]
    ) {
        guard
            let facts = RecordedFacts.facts(
                agent: row.agent, capability: row.capability, arguments: body["arguments"] ?? .null, factsJSON, policy)
        else {
            indeterminate += 1
            return
        }
        decided += 1
        var decision = policy.decide(facts)
        var unclear = policy.dependsOnHidden(facts)
        // What a person approved is not limited again.
        if row.request == nil || row.phase == "approval" {
            let rates = factsJSON["rates"]?.array ?? []
            decision = policy.limited(decision) { rule in
                let record = policy.rules[Int(rule)]
                guard let limit = record.rateLimit else { return false }
                let standing = rates.first {
                    $0["layer"]?.string == record.layer.rawValue && $0["document"]?.string == record.document
                        && $0["pattern"]?.string == record.pattern && $0["window"]?.int == limit.windowSeconds
                }
                guard let calls = standing?["calls"]?.int else {
                    // Nobody counted for this limit then.
                    unclear = true
                    return false
                }
                return calls >= limit.max
            }
        }
        if unclear {
            decided -= 1
            indeterminate += 1
        } else if decision.tier == recorded {
            same += 1
        } else if isCandidate {
            let rule = decision.rule.map { policy.rules[$0] }
            let text =
                rule.map { "\($0.pattern) (\($0.location.file) line \($0.location.line))" } ?? decision.cause.rawValue
            let key = "\(recorded.name) \(decision.tier.name) \(row.capability) \(text)"
            if let place = index[key] {
                changes[place].calls += 1
                if changes[place].examples.count < 5 { changes[place].examples.append(row.seq) }
            } else {
                index[key] = changes.count
                changes.append(
                    Change(
                        from: recorded, to: decision.tier, rule: text, capability: row.capability, calls: 1,
                        examples: [row.seq]))
            }
        } else {
            disagreements.append(row.seq)
        }
    }
}
