import KruxCapabilities
import KruxCore
import KruxPolicies
import KruxPolicy

/// A policy made of texts, and calls against it.
struct PolicyFixture {
    let compiled: CompiledPolicy

    init(
        active: String? = nil, organisation: String? = nil, agents: [String: String] = [:], requirements: String? = nil,
        template: String = "team-moderate"
    ) throws(PolicyErrors) {
        var policies = BuiltInPolicies.templates.map { PolicySource(file: $0.file, text: $0.text) }
        if let active { policies.append(PolicySource(file: "active.yaml", text: Array(active.utf8))) }
        compiled = try PolicyCompiler.compile(
            PolicyBundle(
                system: PolicySource(file: "system.yaml", text: BuiltInPolicies.system),
                requirements: requirements.map { [PolicySource(file: "requirements.yaml", text: Array($0.utf8))] }
                    ?? [],
                organisation: organisation.map { PolicySource(file: "org.yaml", text: Array($0.utf8)) },
                active: active == nil ? template : "active", policies: policies,
                agents: agents.mapValues { PolicySource(file: "agents/x.yaml", text: Array($0.utf8)) }),
            catalogue: Capabilities.catalogue)
    }

    func decide(
        _ capability: String, agent: String = "a", paths: [String] = [], size: Int64? = nil, below: Bool = false
    ) -> Decision {
        guard let index = Capabilities.catalogue.index(of: capability) else { preconditionFailure("no \(capability)") }
        return compiled.decide(
            CallFacts(agent: agent, capability: index, paths: paths, contentSize: size, reachesBelow: below))
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
