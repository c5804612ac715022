import KruxApprovals
import KruxCapabilities
package import KruxCore
package import KruxPolicy
import KruxRegistry
package import KruxStore

/// A rule that would have answered questions which a person always answered with yes.
package struct PolicySuggestion: Sendable {
    package let agent: String
    package let capability: String
    /// The rule's condition as YAML on one line.
    package let condition: String
    /// Requests it would have answered, all of which were approved.
    package let requests: [String]
    /// What it would do to the agent's own document.
    package let edit: PolicyEdit

    private static let approved: Set<ApprovalState> = [.approved, .executing, .succeeded, .failed, .unknown, .refused]
    /// Each candidate is compiled and decided; a person reads the first few.
    private static let mostCandidates = 200

    /// - Parameters:
    ///   - bundle: the sources of `policy`, which is in force.
    ///   - since: approvals from this time on; a rejection counts whenever it was.
    ///   - least: approvals it takes to call it a habit.
    package static func find(
        _ store: ReadOnlyStore, _ bundle: PolicyBundle, _ policy: CompiledPolicy, since: Timestamp, least: Int
    ) throws -> [PolicySuggestion] {
        let (requests, rejected, agents) = try store.read { tx in
            (
                try ApprovalQueue.list(tx, since: since, newest: 100_000),
                try ApprovalQueue.list(tx, state: .rejected, newest: 100_000), try AgentTable.all(tx)
            )
        }
        var groups: [String: [ApprovalRequest]] = [:]
        for request in requests where approved.contains(request.state) {
            groups["\(request.agent) \(request.capability)", default: []].append(request)
        }
        // Each patch is for the files as the ones before it leave them.
        var bundle = bundle
        var policy = policy
        var found: [PolicySuggestion] = []
        for (_, approved) in groups.sorted(by: { $0.key < $1.key }) {
            guard let first = approved.first, let declaration = Capabilities.catalogue[first.capability] else {
                continue
            }
            var search = Search(
                agent: first.agent, declaration: declaration, bundle: bundle, policy: policy,
                record: agents.first { $0.name.text == first.agent },
                rejected: rejected.filter { $0.agent == first.agent && $0.capability == first.capability })
            found += search.suggestions(approved, least: least)
            bundle = search.bundle
            policy = search.policy
        }
        return found
    }

    /// Suggestions for one agent and capability.
    private struct Search {
        let agent: String
        let declaration: CapabilityDeclaration
        /// As the suggestions so far leave them.
        private(set) var bundle: PolicyBundle
        private(set) var policy: CompiledPolicy
        let record: AgentRecord?
        let rejected: [ApprovalRequest]

        private func facts(_ request: ApprovalRequest, _ policy: CompiledPolicy) -> CallFacts? {
            guard let index = policy.index(of: declaration.name.text) else { return nil }
            var facts = CallFacts(
                agent: agent, capability: index, declaration: declaration, arguments: request.arguments,
                time: request.requestedAt)
            facts.role = record?.role
            facts.mode = record?.mode
            return facts
        }

        private func asks(_ request: ApprovalRequest, _ policy: CompiledPolicy) -> Bool {
            facts(request, policy).map { policy.decide($0).tier > .notify } ?? true
        }

        mutating func suggestions(_ requests: [ApprovalRequest], least: Int) -> [PolicySuggestion] {
            // What is not asked any more needs no rule.
            var left = requests.filter { asks($0, policy) }
            guard left.count >= least else { return [] }
            let stillRejected = rejected.filter { [policy] in asks($0, policy) }
            var found: [PolicySuggestion] = []
            for condition in conditions(left.compactMap { facts($0, policy) }).prefix(mostCandidates) {
                guard left.count >= least else { break }
                guard let (_, compiled) = edit(condition, left.count) else { continue }
                let answered = left.filter { !asks($0, compiled) }
                guard answered.count >= least, stillRejected.allSatisfy({ asks($0, compiled) }) else { continue }
                // The count in the reason is the one of what it answers.
                guard let (exact, changed) = edit(condition, answered.count) else { continue }
                found.append(
                    PolicySuggestion(
                        agent: agent, capability: declaration.name.text, condition: condition,
                        requests: answered.map(\.id), edit: exact))
                bundle = bundle.replacing(exact.file, with: exact.after) ?? bundle
                policy = changed
                let ids = Set(answered.map(\.id))
                left.removeAll { ids.contains($0.id) }
            }
            return found
        }

        /// The rule at the head of the agent's own document, with what would decide then.
        private func edit(_ condition: String, _ count: Int) -> (edit: PolicyEdit, compiled: CompiledPolicy)? {
            let own = bundle.agents[agent]
            let file = own?.file ?? "agents/\(agent).yaml"
            let rule = [
                "- capability: \(declaration.name.text)", "  tier: notify", "  condition: {\(condition)}",
                "  reason: \"Approved \(count == 1 ? "once" : "\(count) times"), never rejected\"",
            ]
            guard let after = PolicyEdit.inserting(rule, into: own?.text ?? []),
                let changed = bundle.replacing(file, with: after),
                let compiled = try? PolicyCompiler.compile(changed, catalogue: Capabilities.catalogue),
                compiled.brokenAgents[agent] == nil
            else { return nil }
            let edit = PolicyEdit(
                file: file, before: own?.text ?? [], after: after, tier: .notify,
                summary: "let \(agent) call \(declaration.name) with {\(condition)}, and be told")
            return (edit, compiled)
        }

        /// Conditions that some of the calls have in common, from narrow to wide.
        private func conditions(_ calls: [CallFacts]) -> [String] {
            var result: [String] = []
            func add(_ key: String, _ text: String) {
                let condition = "\(key): \(JSONValue.string(text).canonicalText)"
                if !result.contains(where: { $0.utf8Equals(condition) }) { result.append(condition) }
            }
            let lines = calls.compactMap { facts -> [String]? in
                if facts.lines.count == 1, case .words(let words, _) = facts.lines[0] { words } else { nil }
            }
            // The same line, then as many first words as calls have in common.
            for words in lines { add("command_glob", Pattern.literal(CommandLine.joined(words))) }
            let longest = lines.map(\.count).max() ?? 0
            for length in stride(from: longest, through: 2, by: -1) {
                for words in lines where words.count >= length {
                    let text = CommandLine.joined(Array(words.prefix(length)))
                    if ShellText.segments(of: text)?.count == 1 { add("command_prefix", text) }
                }
            }
            let paths = calls.flatMap { $0.paths.map { String(decoding: $0, as: UTF8.self) } }
            for path in paths { add("path_glob", Pattern.literal(path)) }
            // Folders below the workspace's own top, the deepest first.
            let folders = Set(
                paths.map(\.pathComponents).filter { $0.count > 3 }.map { $0.dropLast().map { "/" + $0 }.joined() })
            for folder in folders.sorted(by: { ($1.utf8.count, $0) < ($0.utf8.count, $1) }) {
                add("path_prefix", folder)
            }
            for address in calls.compactMap(\.address) {
                add("url_prefix", "\(address.scheme)://\(address.host):\(address.port)\(address.path)")
            }
            for host in calls.compactMap(\.host) { add("host", host) }
            for recipient in calls.flatMap(\.recipients) { add("recipient", recipient.text) }
            for domain in calls.flatMap(\.recipients).compactMap(\.domain) { add("recipient_domain", domain) }
            for key in calls.compactMap(\.key) { add("key_prefix", key) }
            return result
        }
    }
}
