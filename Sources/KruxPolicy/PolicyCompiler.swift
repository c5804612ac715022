package import KruxCore
import KruxCrypto

/// Turns a bundle into a `CompiledPolicy`. Pure; O(rules × capabilities covered).
package struct PolicyCompiler {
    private let catalogue: Catalogue
    private let zones: [String: TimeZoneTable]
    private var records: [CompiledPolicy.RuleRecord] = []
    private var warnings: [PolicyDiagnostic] = []
    private var texts = ConditionSources()
    private var tables: [CompiledPolicy.RuleTable] = []
    /// Capabilities that a pattern covers.
    private var coverage: [String: [Int]] = [:]
    /// The tables of what agents extend, by the name of the first.
    private var inherited: [String: Int] = [:]
    private let names: [[UInt8]]
    /// Keys of conditions with the patterns for which they were checked.
    private var judged: Set<String> = []

    /// Compiles `bundle` against the capabilities' schemas.
    /// - Throws: every error of the system and organisation layers at once. An agent's own document that does not
    ///   compile blocks that agent only and stands in `brokenAgents`.
    package static func compile(_ bundle: PolicyBundle, catalogue: Catalogue) throws(PolicyErrors) -> CompiledPolicy {
        var compiler = PolicyCompiler(catalogue: catalogue, zones: bundle.zones)
        return try compiler.compile(bundle)
    }

    private init(catalogue: Catalogue, zones: [String: TimeZoneTable]) {
        self.catalogue = catalogue
        self.zones = zones
        names = catalogue.names.map { Array($0.utf8) }
    }

    private typealias Library = [String: Result<PolicyDocument, PolicyErrors>]

    private mutating func compile(_ bundle: PolicyBundle) throws(PolicyErrors) -> CompiledPolicy {
        var errors: [PolicyDiagnostic] = []
        let systemDocuments = (bundle.requirements + [bundle.system]).compactMap { read($0, &errors) }
        for document in systemDocuments {
            refuse(document.extends?.location, "`extends` has no place in the system layer", &errors)
            refuse(document.agent?.location, "`agent` belongs to an agent's own file", &errors)
            refuseOrganisationKeys(document, &errors)
            refuseAgentKeys(document, &errors)
        }
        let organisation = bundle.organisation.flatMap { read($0, &errors) }
        // Policies nobody uses may be broken: only the ones reached are compiled.
        var library: Library = [:]
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
        if let organisation { chain += lineage(organisation, library, &errors) }
        chain += lineage(named: bundle.active, at: nil, library, &errors)
        for document in chain {
            refuse(document.agent?.location, "`agent` belongs to an agent's own file", &errors)
            refuseAgentKeys(document, &errors)
        }
        guard errors.isEmpty, let active = chain.first(where: { $0.name.utf8Equals(bundle.active) }) else {
            throw PolicyErrors(errors.sorted { $0.location < $1.location })
        }

        if chain.lazy.compactMap(\.links).first == nil,
            let notifiers = chain.lazy.compactMap(\.notifiers).first,
            let asking = notifiers.value.first(where: { $0.answersAs != nil })
        {
            throw PolicyErrors([
                PolicyDiagnostic(
                    notifiers.location, "the notifier `\(asking.name)` says `answers_as`, and there are no `links`",
                    hint: "add `links: {base_url: https://…}`, or remove `answers_as`")
            ])
        }

        let system = systemDocuments.map {
            table([$0], .system, tightenOnly: true, defaults: $0.defaults, title: $0.file, &errors)
        }
        let tightenOnly = chain.lazy.compactMap(\.agentOverrides).first?.value != .withinSystem
        let defaults = chain.lazy.compactMap(\.defaults).first
        let organisationTable = table(
            chain, .organisation, tightenOnly: tightenOnly, defaults: defaults,
            title: chain.map(\.file).joined(separator: ", "), &errors)
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
            source: bundle.digest,
            active: .init(name: active.name, file: active.file, description: active.description),
            capabilities: catalogue.declarations.map { .init(name: $0.name.text, effect: $0.effect) },
            rules: records, warnings: warnings, brokenAgents: broken, tightenOnly: tightenOnly,
            grantsAllowed: chain.lazy.compactMap(\.grants).first?.value != PolicyDocument.Grants.none,
            maxPending: chain.lazy.compactMap(\.maxPending).first?.value,
            notifiers: chain.lazy.compactMap(\.notifiers).first?.value ?? [],
            links: chain.lazy.compactMap(\.links).first?.value,
            protected: Set((systemDocuments + chain).flatMap { $0.protected?.value ?? [] }).sorted(),
            roles: Dictionary(
                chain.flatMap(\.roles).map { ($0.name, $0.mode) }, uniquingKeysWith: { topmost, _ in topmost }),
            zones: zones, tables: tables, system: system, organisation: organisationTable, agents: agents,
            conditionSources: texts.sources, catalogue: catalogue)
    }

    /// A key that would say nothing where it stands is an error, not ignored.
    private func refuse(_ location: SourceLocation?, _ message: String, _ errors: inout [PolicyDiagnostic]) {
        if let location { errors.append(PolicyDiagnostic(location, message, hint: "remove it here")) }
    }

    private func refuseOrganisationKeys(_ document: PolicyDocument, _ errors: inout [PolicyDiagnostic]) {
        refuse(document.agentOverrides?.location, "`agent_overrides` belongs to the organisation layer", &errors)
        refuse(document.grants?.location, "`grants` belongs to the organisation layer", &errors)
        refuse(document.notifiers?.location, "`notifiers` belongs to the organisation layer", &errors)
        refuse(document.links?.location, "`links` belongs to the organisation layer", &errors)
        refuse(document.roles.first?.location, "`roles` belongs to the organisation layer", &errors)
    }

    private func refuseAgentKeys(_ document: PolicyDocument, _ errors: inout [PolicyDiagnostic]) {
        refuse(document.role?.location, "`role` belongs to an agent's own file", &errors)
        refuse(document.mode?.location, "`mode` belongs to an agent's own file", &errors)
    }

    private func read(_ source: PolicySource, _ errors: inout [PolicyDiagnostic]) -> PolicyDocument? {
        switch PolicyDocumentReader.read(source.text, file: source.file) {
        case .success(let document): return document
        case .failure(let failure):
            errors += failure.diagnostics
            return nil
        }
    }

    /// - Parameter location: where the name stands in a file; nil for the name of the active policy.
    private func lineage(
        named name: String, at location: SourceLocation?, _ library: Library, _ errors: inout [PolicyDiagnostic]
    ) -> [PolicyDocument] {
        switch library[name] {
        case .success(let document)?: return lineage(document, library, &errors)
        case .failure(let failure)?: errors += failure.diagnostics
        case nil: errors.append(missing(name, at: location, library))
        }
        return []
    }

    private func missing(_ name: String, at location: SourceLocation?, _ library: Library) -> PolicyDiagnostic {
        let hint =
            nearest(to: name, among: library.keys).map { "did you mean `\($0)`?" }
            ?? "there are: \(library.keys.sorted().joined(separator: ", "))"
        return PolicyDiagnostic(location ?? .nowhere, "no policy is named `\(name)`", hint: hint)
    }

    /// The document and what it extends, topmost first.
    private func lineage(
        _ document: PolicyDocument, _ library: Library, _ errors: inout [PolicyDiagnostic]
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
                errors.append(missing(parent.value, at: parent.location, library))
                return chain
            }
        }
        return chain
    }

    private mutating func agentLayer(
        _ agent: String, _ source: PolicySource, _ library: Library, _ errors: inout [PolicyDiagnostic]
    ) -> CompiledPolicy.AgentLayer? {
        guard let document = read(source, &errors) else { return nil }
        refuseOrganisationKeys(document, &errors)
        refuse(document.protected?.location, "`protected` belongs to the organisation layer", &errors)
        if let named = document.agent, !named.value.utf8Equals(agent) {
            errors.append(
                PolicyDiagnostic(
                    named.location,
                    "the file is for agent `\(named.value)` by its `agent:` and for `\(agent)` by its name",
                    hint: "rename the file to `agents/\(named.value).yaml` or change `agent:`"))
            return nil
        }
        let parents = lineage(document, library, &errors).dropFirst()
        guard errors.isEmpty else { return nil }
        var tightening: [Int] = []
        if let defaults = document.defaults {
            tightening.append(
                table(
                    [], .agent, tightenOnly: false, defaults: defaults, owner: document.name,
                    title: "\(document.file), defaults", &errors))
        }
        if let first = parents.first {
            if let known = inherited[first.name] {
                tightening.append(known)
            } else {
                let title = parents.map(\.file).joined(separator: ", ") + ", extended by agents"
                let made = table(
                    Array(parents), .agent, tightenOnly: false, defaults: parents.lazy.compactMap(\.defaults).first,
                    title: title, &errors)
                if errors.isEmpty { inherited[first.name] = made }
                tightening.append(made)
            }
        }
        let own = table([document], .agent, tightenOnly: false, defaults: nil, title: document.file, &errors)
        return CompiledPolicy.AgentLayer(
            own: own, tightening: tightening, role: document.role?.value, mode: document.mode?.value,
            maxPending: document.maxPending?.value)
    }

    private mutating func covered(by pattern: CapabilityPattern) -> [Int] {
        if let known = coverage[pattern.text] { return known }
        let stem = Array(pattern.text.utf8)
        let found = names.indices.filter {
            pattern.specificity == 100 ? names[$0] == stem : names[$0].starts(with: stem.dropLast())
        }
        coverage[pattern.text] = found
        return found
    }

    /// Builds a table and returns its index.
    private mutating func table(
        _ documents: [PolicyDocument], _ layer: PolicyLayer, tightenOnly: Bool, defaults: PolicyDocument.Default?,
        owner: String? = nil, title: String, _ errors: inout [PolicyDiagnostic]
    ) -> Int {
        var chains: [[Int32]] = Array(repeating: [], count: catalogue.count)
        // A chain is complete once an unconditional rule stands in it.
        var complete = Array(repeating: false, count: catalogue.count)
        for document in documents {
            for rule in [document.list, document.map].joined() {
                let covered = covered(by: rule.pattern)
                check(rule, covered, &errors)
                guard !covered.isEmpty else { continue }
                let index = Int32(records.count)
                records.append(
                    .init(
                        layer: layer, document: document.name, pattern: rule.pattern.text, tier: rule.tier,
                        reason: rule.reason, locked: rule.locked, isDefault: false, location: rule.location,
                        tierLocation: rule.tierLocation, conditions: rule.conditions, rateLimit: rule.rateLimit,
                        approval: rule.approval, sandbox: rule.sandbox))
                for capability in covered where !complete[capability] {
                    chains[capability].append(index)
                    if rule.conditions.isEmpty { complete[capability] = true }
                }
            }
        }
        if let defaults {
            let index = Int32(records.count)
            records.append(
                .init(
                    layer: layer,
                    document: owner ?? documents.first { $0.defaults?.location == defaults.location }?.name ?? "",
                    pattern: "defaults", tier: defaults.tier, reason: nil, locked: defaults.locked, isDefault: true,
                    location: defaults.location, tierLocation: defaults.tierLocation, conditions: [],
                    rateLimit: nil, approval: nil, sandbox: nil))
            for capability in chains.indices where !complete[capability] { chains[capability].append(index) }
        }
        tables.append(
            CompiledPolicy.RuleTable(
                chains: chains, title: title, records: records, tightenOnly: tightenOnly, zones: zones, texts: &texts))
        return tables.count - 1
    }

    /// A pattern that covers nothing is a warning; a condition that no covered capability can be judged by, an error.
    private mutating func check(_ rule: Rule, _ covered: [Int], _ errors: inout [PolicyDiagnostic]) {
        if covered.isEmpty {
            // The first few say enough.
            let hint =
                warnings.count < 20
                ? nearest(to: rule.pattern.text, among: catalogue.names).map { "did you mean `\($0)`?" } : nil
            warnings.append(
                PolicyDiagnostic(rule.location, "`\(rule.pattern.text)` covers no capability", hint: hint))
            return
        }
        if let sandbox = rule.sandbox, !covered.contains(where: { catalogue.declarations[$0].startsProcess }) {
            let connects = covered.contains { catalogue.declarations[$0].connects }
            if !connects || sandbox != SandboxSettings(addresses: sandbox.addresses) {
                errors.append(
                    PolicyDiagnostic(
                        rule.location,
                        "`sandbox` says how a process is confined, and `\(rule.pattern.text)` starts none",
                        hint: connects ? "only `addresses` has a meaning here" : "remove `sandbox`"))
            }
        }
        for (test, condition) in rule.conditions.flatMap(\.tests) {
            // Whether a capability has a path does not hang on which.
            let depends =
                if case .argument = test { true } else { test.reads == .circumstances || test.reads == .method }
            let key = "\(condition.key) \(rule.pattern.text)"
            if !depends, judged.contains(key) { continue }
            let typing = ConditionTyping(catalogue: catalogue, zones: zones)
            if let problem = typing.problem(test, condition.key, rule.pattern.text, covered) {
                errors.append(PolicyDiagnostic(condition.location, problem.message, hint: problem.hint))
            } else if !depends {
                judged.insert(key)
            }
        }
    }
}

extension SourceLocation {
    /// For what stands in no file.
    static let nowhere = SourceLocation(file: "", line: 0, column: 0)
}

/// Tests as written, by id.
struct ConditionSources {
    private(set) var sources: [JSONObject] = []

    mutating func id(of condition: Condition) -> Int32 {
        sources.append(condition.source)
        return Int32(sources.count - 1)
    }
}

extension CompiledPolicy.RuleTable {
    /// - Parameters:
    ///   - chains: for each capability the indices of its rules in `records`.
    ///   - tightenOnly: whether every rule, but not a default, binds.
    init(
        chains: [[Int32]], title: String, records: [CompiledPolicy.RuleRecord], tightenOnly: Bool,
        zones: [String: TimeZoneTable], texts: inout ConditionSources
    ) {
        var compiled: [Int32: CompiledPolicy.CompiledRule] = [:]
        var known: [[Int32]: Int32] = [:]
        var distinct: [[CompiledPolicy.CompiledRule]] = []
        var chainOf: [Int32] = []
        chainOf.reserveCapacity(chains.count)
        for chain in chains {
            if let index = known[chain] {
                chainOf.append(index)
                continue
            }
            var rules: [CompiledPolicy.CompiledRule] = []
            rules.reserveCapacity(chain.count)
            for index in chain {
                if let rule = compiled[index] {
                    rules.append(rule)
                    continue
                }
                let record = records[Int(index)]
                var conditions: [CompiledCondition] = []
                for condition in record.conditions { conditions.append(.init(condition, zones: zones, texts: &texts)) }
                let rule = CompiledPolicy.CompiledRule(
                    tier: record.tier,
                    binds: record.locked || (!record.isDefault && (record.tier == .blocked || tightenOnly)),
                    locked: record.locked, limited: record.rateLimit != nil, hasTerms: record.approval != nil,
                    sandbox: record.sandbox,
                    index: index, conditions: conditions)
                compiled[index] = rule
                rules.append(rule)
            }
            known[chain] = Int32(distinct.count)
            chainOf.append(Int32(distinct.count))
            distinct.append(rules)
        }
        self.init(chains: distinct, chainOf: chainOf, title: title, indexes: distinct.map(PathIndex.init))
    }
}

extension CompiledCondition {
    init(_ condition: Condition, zones: [String: TimeZoneTable], texts: inout ConditionSources) {
        switch condition.form {
        case .test(.timeBetween(let from, let until, let zone)):
            self = .test(
                .timeBetween(from: from, until: until, zone.with(zones)), id: texts.id(of: condition))
        case .test(.days(let days, let zone)):
            self = .test(.days(days, zone.with(zones)), id: texts.id(of: condition))
        case .test(let test): self = .test(test, id: texts.id(of: condition))
        case .all(let parts): self = .all(Self.list(parts, zones, &texts))
        case .any(let parts): self = .any(Self.list(parts, zones, &texts))
        case .not(let part): self = .not(CompiledCondition(part, zones: zones, texts: &texts))
        }
    }

    private static func list(_ parts: [Condition], _ zones: [String: TimeZoneTable], _ texts: inout ConditionSources)
        -> [CompiledCondition]
    {
        var result: [CompiledCondition] = []
        for part in parts { result.append(CompiledCondition(part, zones: zones, texts: &texts)) }
        return result
    }
}

extension Condition.Zone {
    fileprivate func with(_ zones: [String: TimeZoneTable]) -> Condition.Zone {
        Condition.Zone(name: name, table: zones[name] ?? (name == "UTC" ? .utc : nil))
    }
}
