package import KruxCore
package import KruxCrypto

/// A policy bundle made ready to decide: for every capability the rules that can match it, in the order in which they
/// are asked. A decision reads nothing else.
package struct CompiledPolicy: Sendable {
    /// SHA-256 of the bundle it was compiled from.
    package let source: Digest
    package let active: Active
    /// The capabilities it was compiled against; facts name them by position.
    package let capabilities: [Capability]
    /// Every rule of every document that is asked; decisions name rules by their index here.
    package let rules: [RuleRecord]
    package let warnings: [PolicyDiagnostic]
    /// Agents whose own document does not compile: they are blocked, with these errors.
    package let brokenAgents: [String: PolicyErrors]
    /// Whether an organisation's rule always binds the agent's.
    package let tightenOnly: Bool
    package let grantsAllowed: Bool
    /// Requests of one agent that may wait at once, by the organisation; nil for `usualMaxPending`.
    package let maxPending: Int64?
    package let notifiers: [NotifierSettings]
    package let links: LinkSettings?
    /// Names in a workspace that no agent changes, at any depth.
    package let protected: [String]
    /// What the organisation says of roles.
    package let roles: [String: Mode]

    let zones: [String: TimeZoneTable]
    let tables: [RuleTable]
    /// Indices of tables.
    let system: [Int]
    let organisation: Int
    let agents: [String: AgentLayer]
    /// Tests as written, by their id.
    let conditionSources: [JSONObject]
    /// For each capability its list arguments that a condition reads by name.
    let listArguments: [[String]]
    /// For each capability what its arguments are read by.
    let hiddenReads: [[(reads: Condition.Test.Reads, name: String)]]
    private let indices: [String: Int]

    init(
        source: Digest, active: Active, capabilities: [Capability], rules: [RuleRecord], warnings: [PolicyDiagnostic],
        brokenAgents: [String: PolicyErrors], tightenOnly: Bool, grantsAllowed: Bool, maxPending: Int64?,
        notifiers: [NotifierSettings], links: LinkSettings?, protected: [String], roles: [String: Mode],
        zones: [String: TimeZoneTable], tables: [RuleTable], system: [Int], organisation: Int,
        agents: [String: AgentLayer], conditionSources: [JSONObject], catalogue: Catalogue
    ) {
        self.source = source
        self.active = active
        self.capabilities = capabilities
        self.rules = rules
        self.warnings = warnings
        self.brokenAgents = brokenAgents
        self.tightenOnly = tightenOnly
        self.grantsAllowed = grantsAllowed
        self.maxPending = maxPending
        self.notifiers = notifiers
        self.links = links
        self.protected = protected
        self.roles = roles
        self.zones = zones
        self.tables = tables
        self.system = system
        self.organisation = organisation
        self.agents = agents
        self.conditionSources = conditionSources
        indices = Dictionary(
            capabilities.enumerated().map { ($1.name, $0) }, uniquingKeysWith: { first, _ in first })
        let named = Set(
            rules.flatMap { $0.conditions.flatMap(\.tests) }.compactMap { test, _ -> String? in
                if case .argument(let name, let test) = test {
                    if case .exists = test { return nil }
                    return name
                }
                return nil
            })
        listArguments = capabilities.map { capability in
            catalogue[capability.name]?.input.properties.filter { property in
                if case .array = property.type { named.contains(property.name) } else { false }
            }.map(\.name) ?? []
        }
        let kinds: [Condition.Test.Reads] = [.paths, .line, .host, .url, .method, .port, .recipients, .key]
        hiddenReads = capabilities.map { capability in
            guard let declaration = catalogue[capability.name] else { return [] }
            return kinds.flatMap { kind in
                declaration.arguments(readBy: kind).flatMap {
                    property -> [(reads: Condition.Test.Reads, name: String)] in
                    // A command line is the program, its words and its variables.
                    if case .command(let words, let shell, let environment) = property.role {
                        return [property.name, words, shell, environment].map { (kind, $0) }
                    }
                    return [(kind, property.name)]
                }
            }
        }
    }

    package func index(of capability: String) -> Int? { indices[capability] }

    /// What records name a test by.
    func text(ofTest id: Int32) -> String { conditionSources[Int(id)].canonicalText }

    package struct Active: Sendable, Equatable {
        package let name: String
        package let file: String
        package let description: String?
    }

    package struct Capability: Sendable, Equatable {
        package let name: String
        package let effect: EffectClass

        package init(name: String, effect: EffectClass) {
            self.name = name
            self.effect = effect
        }
    }

    /// What is known of a rule, for explanations and the record.
    package struct RuleRecord: Sendable {
        package let layer: PolicyLayer
        package let document: String
        package let pattern: String
        package let tier: Tier
        package let reason: String?
        package let locked: Bool
        package let isDefault: Bool
        package let location: SourceLocation
        /// Where the tier's word stands.
        package let tierLocation: SourceLocation
        package let conditions: [Condition]
        package let rateLimit: RateLimit?
        package let approval: ApprovalTerms?
        package let sandbox: SandboxSettings?

        /// The calls of an agent that the rule's limit counts.
        package func window(of agent: String) -> RateWindow {
            RateWindow(agent: agent, layer: layer, document: document, pattern: pattern)
        }
    }

    /// One table is asked as a whole: a document with what it extends, or an agent's own rules.
    struct RuleTable: Sendable {
        /// Chains that some capability has; most capabilities share one.
        var chains: [[CompiledRule]]
        /// For each capability the index of its chain.
        var chainOf: [Int32]
        /// What it stands for, in words.
        var title: String
        /// For each chain, where it is long.
        var indexes: [PathIndex?]

        @inline(__always)
        func chain(_ capability: Int) -> [CompiledRule] { chains[Int(chainOf[capability])] }
    }

    struct CompiledRule: Sendable {
        let tier: Tier
        /// A lower layer cannot loosen this answer.
        let binds: Bool
        /// Neither a lower layer nor a grant can.
        let locked: Bool
        let limited: Bool
        /// Has terms for its questions.
        let hasTerms: Bool
        let sandbox: SandboxSettings?
        let index: Int32
        let conditions: [CompiledCondition]
    }

    struct AgentLayer: Sendable {
        /// The agent document's own rules, without its defaults.
        let own: Int
        /// The agent document's defaults and what it extends: they only tighten.
        let tightening: [Int]
        let role: String?
        let mode: Mode?
        let maxPending: Int64?
    }

    package static let usualMaxPending: Int64 = 100

    /// Requests of the agent that may wait at once: its own document only tightens.
    package func maxPending(ofAgent name: String) -> Int64 {
        let most = maxPending ?? Self.usualMaxPending
        return min(most, agents[name]?.maxPending ?? most)
    }

    /// The mode a call runs in: the one set for its session or agent, else the agent document's, else the role's.
    package func mode(_ facts: CallFacts) -> Mode {
        mode(ofAgent: facts.agent, role: facts.role, mode: facts.mode)
    }

    /// The mode an agent's calls run in, its sessions' own aside.
    /// - Parameters: role and mode as the registry has them.
    package func mode(ofAgent name: String, role: String?, mode: Mode?) -> Mode {
        let layer = agents[name]
        return mode ?? layer?.mode ?? self.mode(ofRole: role ?? layer?.role)
    }

    /// A role that nobody knows asks.
    package func mode(ofRole role: String?) -> Mode {
        guard let role else { return .auto }
        return roles[role] ?? Mode.ofRole[role] ?? .ask
    }
}

/// What a rate limit counts: the calls of an agent under a pattern of a document of a layer. Windows keep their count
/// when the policy around them changes.
package struct RateWindow: Sendable, Hashable {
    package let agent: String
    package let layer: PolicyLayer
    package let document: String
    package let pattern: String

    package init(agent: String, layer: PolicyLayer, document: String, pattern: String) {
        self.agent = agent
        self.layer = layer
        self.document = document
        self.pattern = pattern
    }
}

package enum PolicyLayer: String, Sendable, CaseIterable {
    case system, organisation, agent
}
