package import KruxCore
package import KruxCrypto

/// A policy bundle made ready to decide: for every capability the rules that can match it, in the order in which they
/// are asked. A decision reads nothing else.
package struct CompiledPolicy: Sendable {
    package let digest: Digest
    package let active: PolicyDocument
    /// Every rule of every document; decisions name rules by their index here.
    package let rules: [RuleRecord]
    package let warnings: [PolicyDiagnostic]
    /// Agents whose own document does not compile: they are blocked, with these errors.
    package let brokenAgents: [String: PolicyErrors]

    let system: [RuleTable]
    let organisation: RuleTable
    let tightenOnly: Bool
    let agents: [String: AgentLayer]

    /// What is known of a rule, for explanations and the record.
    package struct RuleRecord: Sendable {
        package let document: String
        package let pattern: String
        package let tier: Tier
        package let reason: String?
        package let locked: Bool
        package let isDefault: Bool
        package let location: SourceLocation
        package let conditions: [Condition]
    }

    /// Rules by capability index.
    struct RuleTable: Sendable {
        var chains: [[CompiledRule]]
    }

    struct CompiledRule: Sendable {
        let tier: Tier
        /// A lower layer cannot loosen this answer.
        let binds: Bool
        let index: Int32
        let conditions: [CompiledCondition]
    }

    /// A condition ready to be judged.
    enum CompiledCondition: Sendable {
        /// The directory's bytes, without a trailing slash.
        case pathPrefix([UInt8])
        case contentSize(Condition.Comparison, Int64)

        init(_ test: Condition.Test) {
            switch test {
            case .pathPrefix(let prefix): self = .pathPrefix(Array(prefix.utf8))
            case .contentSize(let comparison, let size): self = .contentSize(comparison, size)
            }
        }
    }

    struct AgentLayer: Sendable {
        /// The agent document's own rules, without its defaults.
        let own: RuleTable
        /// The agent document's defaults and what it extends: they only tighten.
        let tightening: [RuleTable]
    }
}

/// Turns a bundle into a `CompiledPolicy`. Pure; O(rules × capabilities covered).
package struct PolicyCompiler {
    private let catalogue: Catalogue
    private var records: [CompiledPolicy.RuleRecord] = []
    private var warnings: [PolicyDiagnostic] = []

    /// Compiles `bundle` against the capabilities' schemas.
    /// - Throws: every error of the system and organisation layers at once. An agent's own document that does not
    ///   compile blocks that agent only and stands in `brokenAgents`.
    package static func compile(_ bundle: PolicyBundle, catalogue: Catalogue) throws(PolicyErrors) -> CompiledPolicy {
        var compiler = PolicyCompiler(catalogue: catalogue)
        return try compiler.compile(bundle)
    }

    private init(catalogue: Catalogue) { self.catalogue = catalogue }

    private mutating func compile(_ bundle: PolicyBundle) throws(PolicyErrors) -> CompiledPolicy {
        var errors: [PolicyDiagnostic] = []
        let systemDocuments = (bundle.requirements + [bundle.system]).compactMap { read($0, &errors) }
        for document in systemDocuments {
            refuse(document.extends?.location, "`extends` has no place in the system layer", &errors)
            refuse(document.agentOverrides?.location, "`agent_overrides` belongs to the organisation layer", &errors)
            refuse(document.agent?.location, "`agent` belongs to an agent's own file", &errors)
        }
        let organisation = bundle.organisation.flatMap { read($0, &errors) }
        // Policies nobody uses may be broken: only the ones reached are compiled.
        var library: [String: Result<PolicyDocument, PolicyErrors>] = [:]
        for source in bundle.policies {
            let result = PolicyDocumentReader.read(source.text, file: source.file)
            let name: String
            switch result {
            case .success(let document): name = document.name
            case .failure: name = String(source.file.split(separator: ".").first ?? "")
            }
            if let twin = library[name], case .success(let other) = twin, case .success(let document) = result {
                errors.append(
                    PolicyDiagnostic(
                        SourceLocation(file: document.file, line: 1, column: 1),
                        "the name `\(name)` is taken by `\(other.file)`", hint: "give one of them another `name:`"))
                continue
            }
            library[name] = result
        }
        var chain: [PolicyDocument] = []
        let place = SourceLocation(file: organisation?.file ?? "policies", line: 1, column: 1)
        if let organisation { chain += lineage(organisation, library, &errors) }
        chain += lineage(named: bundle.active, at: place, library, &errors)
        for document in chain { refuse(document.agent?.location, "`agent` belongs to an agent's own file", &errors) }
        guard errors.isEmpty, let active = chain.first(where: { $0.name.utf8Equals(bundle.active) }) else {
            throw PolicyErrors(errors.sorted { $0.location < $1.location })
        }

        let system = systemDocuments.map { table([$0], tightenOnly: true, defaults: $0.defaults, &errors) }
        let tightenOnly = chain.lazy.compactMap(\.agentOverrides).first?.value != .withinSystem
        let defaults = chain.lazy.compactMap(\.defaults).first
        let organisationTable = table(chain, tightenOnly: tightenOnly, defaults: defaults, &errors)
        guard errors.isEmpty else { throw PolicyErrors(errors.sorted { $0.location < $1.location }) }

        var agents: [String: CompiledPolicy.AgentLayer] = [:]
        var broken: [String: PolicyErrors] = [:]
        for (agent, source) in bundle.agents.sorted(by: { $0.key < $1.key }) {
            var agentErrors: [PolicyDiagnostic] = []
            let layer = agentLayer(agent, source, library, &agentErrors)
            if let layer, agentErrors.isEmpty {
                agents[agent] = layer
            } else {
                broken[agent] = PolicyErrors(agentErrors)
            }
        }
        return CompiledPolicy(
            digest: bundle.digest, active: active, rules: records, warnings: warnings, brokenAgents: broken,
            system: system, organisation: organisationTable, tightenOnly: tightenOnly, agents: agents)
    }

    /// A key that would say nothing where it stands is an error, not ignored.
    private func refuse(_ location: SourceLocation?, _ message: String, _ errors: inout [PolicyDiagnostic]) {
        if let location { errors.append(PolicyDiagnostic(location, message, hint: "remove it here")) }
    }

    private func read(_ source: PolicySource, _ errors: inout [PolicyDiagnostic]) -> PolicyDocument? {
        switch PolicyDocumentReader.read(source.text, file: source.file) {
        case .success(let document): return document
        case .failure(let failure):
            errors += failure.diagnostics
            return nil
        }
    }

    private func lineage(
        named name: String, at location: SourceLocation, _ library: [String: Result<PolicyDocument, PolicyErrors>],
        _ errors: inout [PolicyDiagnostic]
    ) -> [PolicyDocument] {
        switch library[name] {
        case .success(let document)?: return lineage(document, library, &errors)
        case .failure(let failure)?:
            errors += failure.diagnostics
        case nil:
            let hint =
                nearest(to: name, among: library.keys).map { "did you mean `\($0)`?" }
                ?? "there are: \(library.keys.sorted().joined(separator: ", "))"
            errors.append(PolicyDiagnostic(location, "no policy is named `\(name)`", hint: hint))
        }
        return []
    }

    /// The document and what it extends, topmost first.
    private func lineage(
        _ document: PolicyDocument, _ library: [String: Result<PolicyDocument, PolicyErrors>],
        _ errors: inout [PolicyDiagnostic]
    ) -> [PolicyDocument] {
        var chain = [document]
        var next = document.extends
        while let parent = next {
            if chain.contains(where: { $0.name.utf8Equals(parent.value) }) {
                errors.append(
                    PolicyDiagnostic(parent.location, "`extends: \(parent.value)` leads back to the same policy"))
                return chain
            }
            switch library[parent.value] {
            case .success(let found)?:
                chain.append(found)
                next = found.extends
            case .failure(let failure)?:
                errors += failure.diagnostics
                return chain
            case nil:
                let hint =
                    nearest(to: parent.value, among: library.keys).map { "did you mean `\($0)`?" }
                    ?? "there are: \(library.keys.sorted().joined(separator: ", "))"
                errors.append(PolicyDiagnostic(parent.location, "no policy is named `\(parent.value)`", hint: hint))
                return chain
            }
        }
        return chain
    }

    private mutating func agentLayer(
        _ agent: String, _ source: PolicySource, _ library: [String: Result<PolicyDocument, PolicyErrors>],
        _ errors: inout [PolicyDiagnostic]
    ) -> CompiledPolicy.AgentLayer? {
        guard let document = read(source, &errors) else { return nil }
        refuse(document.agentOverrides?.location, "`agent_overrides` belongs to the organisation layer", &errors)
        if let named = document.agent, !named.value.utf8Equals(agent) {
            errors.append(
                PolicyDiagnostic(
                    named.location,
                    "the file is for agent `\(named.value)` by its `agent:` and for `\(agent)` by its name",
                    hint: "rename the file to `agents/\(named.value).yaml` or change `agent:`"))
            return nil
        }
        let parents = lineage(document, library, &errors).dropFirst()
        var tightening: [CompiledPolicy.RuleTable] = []
        if let defaults = document.defaults {
            tightening.append(table([], tightenOnly: false, defaults: defaults, document: document, &errors))
        }
        if !parents.isEmpty {
            let inherited = parents.lazy.compactMap(\.defaults).first
            tightening.append(table(Array(parents), tightenOnly: false, defaults: inherited, &errors))
        }
        return CompiledPolicy.AgentLayer(
            own: table([document], tightenOnly: false, defaults: nil, &errors), tightening: tightening)
    }

    private mutating func table(
        _ documents: [PolicyDocument], tightenOnly: Bool, defaults: PolicyDocument.Default?,
        document owner: PolicyDocument? = nil, _ errors: inout [PolicyDiagnostic]
    ) -> CompiledPolicy.RuleTable {
        var table = CompiledPolicy.RuleTable(chains: Array(repeating: [], count: catalogue.count))
        // A chain is complete once an unconditional rule stands in it.
        var complete = Array(repeating: false, count: catalogue.count)
        for document in documents {
            for rule in document.list + document.map {
                let covered = catalogue.declarations.indices.filter {
                    rule.pattern.matches(catalogue.declarations[$0].name.text)
                }
                check(rule, covered, &errors)
                guard !covered.isEmpty else { continue }
                let compiled = CompiledPolicy.CompiledRule(
                    tier: rule.tier, binds: rule.tier == .blocked || rule.locked || tightenOnly,
                    index: Int32(records.count), conditions: rule.conditions.map { .init($0.test) })
                records.append(
                    .init(
                        document: document.name, pattern: rule.pattern.text, tier: rule.tier, reason: rule.reason,
                        locked: rule.locked, isDefault: false, location: rule.location, conditions: rule.conditions))
                for index in covered where !complete[index] {
                    table.chains[index].append(compiled)
                    if rule.conditions.isEmpty { complete[index] = true }
                }
            }
        }
        if let defaults {
            let compiled = CompiledPolicy.CompiledRule(
                tier: defaults.tier, binds: defaults.locked, index: Int32(records.count), conditions: [])
            records.append(
                .init(
                    document: owner?.name ?? documents.first { $0.defaults?.location == defaults.location }?.name ?? "",
                    pattern: "defaults", tier: defaults.tier, reason: nil, locked: defaults.locked, isDefault: true,
                    location: defaults.location, conditions: []))
            for index in table.chains.indices where !complete[index] { table.chains[index].append(compiled) }
        }
        return table
    }

    /// A pattern that covers nothing is a warning; a condition that no covered capability can be judged by, an error.
    private mutating func check(_ rule: Rule, _ covered: [Int], _ errors: inout [PolicyDiagnostic]) {
        if covered.isEmpty {
            let hint = nearest(to: rule.pattern.text, among: catalogue.names).map { "did you mean `\($0)`?" }
            warnings.append(
                PolicyDiagnostic(rule.location, "`\(rule.pattern.text)` covers no capability", hint: hint))
            return
        }
        for condition in rule.conditions {
            let judged = covered.contains { index in
                let declaration = catalogue.declarations[index]
                switch condition.test {
                case .pathPrefix: return !declaration.pathArguments.isEmpty
                case .contentSize: return declaration.contentArgument != nil
                }
            }
            if !judged {
                errors.append(
                    PolicyDiagnostic(
                        condition.location,
                        "`\(condition.key)` can never be judged: `\(rule.pattern.text)` has no such argument",
                        hint: "put it on a capability such as `filesystem.write`"))
            }
        }
    }
}
