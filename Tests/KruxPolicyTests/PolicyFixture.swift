import KruxCapabilities
import KruxCore
import KruxPolicies
import KruxPolicy

/// A policy made of texts, and calls against it.
struct PolicyFixture {
    static let catalogue = Capabilities.catalogue
    let bundle: PolicyBundle
    let compiled: CompiledPolicy

    init(
        active: String? = nil, organisation: String? = nil, agents: [String: String] = [:], requirements: String? = nil,
        template: String = "team-moderate", zones: [TimeZoneTable] = []
    ) throws(PolicyErrors) {
        var policies = BuiltInPolicies.templates.map { PolicySource(file: $0.file, text: $0.text) }
        if let active { policies.append(PolicySource(file: "active.yaml", text: Array(active.utf8))) }
        var bundle = PolicyBundle(
            system: PolicySource(file: "system.yaml", text: BuiltInPolicies.system),
            requirements: requirements.map { [PolicySource(file: "requirements.yaml", text: Array($0.utf8))] }
                ?? [],
            organisation: organisation.map { PolicySource(file: "org.yaml", text: Array($0.utf8)) },
            active: active == nil ? template : "active", policies: policies,
            agents: agents.mapValues { PolicySource(file: "agents/x.yaml", text: Array($0.utf8)) })
        for zone in zones { bundle.zones[zone.name] = zone }
        self.bundle = bundle
        compiled = try PolicyCompiler.compile(bundle, catalogue: Capabilities.catalogue)
    }

    func decide(
        _ capability: String, agent: String = "a", paths: [String] = [], size: Int64? = nil, below: Bool = false
    ) -> Decision {
        guard let index = Capabilities.catalogue.index(of: capability) else { preconditionFailure("no \(capability)") }
        var facts = CallFacts(
            agent: agent, capability: index, declaration: Capabilities.catalogue.declarations[index], arguments: [:],
            complete: false, time: Timestamp(microseconds: 1_767_225_600_000_000))
        facts.paths = paths.map { Array($0.utf8) }
        facts.contentSize = size
        facts.reachesBelow = below
        return compiled.decide(facts)
    }

    /// A call with these arguments, its circumstances set by `change`.
    func decide(
        _ capability: String, agent: String = "a", _ arguments: JSONObject,
        _ change: (inout CallFacts) -> Void = { _ in }
    ) -> Decision {
        compiled.decide(facts(capability, agent: agent, arguments, change))
    }

    func facts(
        _ capability: String, agent: String = "a", _ arguments: JSONObject,
        _ change: (inout CallFacts) -> Void = { _ in }
    ) -> CallFacts {
        guard let index = Capabilities.catalogue.index(of: capability) else { preconditionFailure("no \(capability)") }
        let declaration = Capabilities.catalogue.declarations[index]
        var facts = CallFacts(
            agent: agent, capability: index, declaration: declaration,
            arguments: declaration.input.validate(arguments).0, time: Timestamp(microseconds: 1_767_225_600_000_000))
        change(&facts)
        return facts
    }

    func tier(_ capability: String, agent: String = "a", paths: [String] = [], size: Int64? = nil) -> Tier {
        decide(capability, agent: agent, paths: paths, size: size).tier
    }
}

/// The errors of a text as the active policy.
func errors(_ text: String) -> [String] {
    do throws(PolicyErrors) {
        _ = try PolicyFixture(active: text)
        return []
    } catch {
        return error.diagnostics.map(\.description)
    }
}
