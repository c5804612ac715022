import Foundation
import KruxCapabilities
import KruxCore
import KruxPolicy
import Testing

/// The compiled policy against a second evaluator that was written from the documents alone.
@Suite struct EquivalenceTests {
    /// `KRUXOS_TEST_PAIRS` and `KRUXOS_TEST_SEED` choose how many pairs of policy and call, and which.
    private static let environment = ProcessInfo.processInfo.environment
    private static let pairs = environment["KRUXOS_TEST_PAIRS"].flatMap(Int.init) ?? 40_000
    private static let seed = environment["KRUXOS_TEST_SEED"].flatMap(UInt64.init) ?? UInt64.random(in: 0..<1 << 53)
    private static let callsPerPolicy = 200

    @Test func theCompiledPolicyDecidesAsTheDocumentsSay() throws {
        let seed = Self.seed
        print("equivalence: seed \(seed), \(Self.pairs) pairs")
        var generator = PolicyGenerator(seed: seed)
        var done = 0
        var tiers: [Tier: Int] = [:]
        while done < Self.pairs {
            let bundle = generator.bundle()
            let evaluator = NaiveEvaluator(bundle)
            let compiled: CompiledPolicy
            do {
                // The stored bytes decide, so they are what is tested.
                let form = try PolicyCompiler.compile(Self.bundle(bundle), catalogue: Capabilities.catalogue).form
                compiled = try CompiledPolicy(form: form, catalogue: Capabilities.catalogue)
                #expect(compiled.form == form, "seed \(seed)")
            } catch {
                Issue.record("seed \(seed), pair \(done): \(error)\n\(Self.text(bundle))")
                return
            }
            #expect(compiled.brokenAgents.isEmpty, "seed \(seed): \(compiled.brokenAgents)")
            for _ in 0..<Self.callsPerPolicy {
                let call = generator.call(for: bundle)
                let facts = try Self.facts(call, compiled)
                let expected = evaluator.decide(call)
                let decision = compiled.decide(facts)
                let windows = Set(
                    decision.limits.map { index in
                        let window = compiled.rules[Int(index)].window(of: call.agent)
                        return NaiveWindow(
                            agent: window.agent, layer: window.layer.rawValue, document: window.document,
                            pattern: window.pattern)
                    })
                let full = generator.subset(of: expected.windows)
                let limited = compiled.limited(decision) { index in
                    let window = compiled.rules[Int(index)].window(of: call.agent)
                    return full.contains(
                        NaiveWindow(
                            agent: window.agent, layer: window.layer.rawValue, document: window.document,
                            pattern: window.pattern))
                }
                let expectedLimited = full.isEmpty ? expected.tier : evaluator.decide(call, full: full)
                guard decision.tier.name == expected.tier.rawValue, windows == expected.windows,
                    limited.tier.name == expectedLimited.rawValue
                else {
                    Issue.record(
                        """
                        seed \(seed), pair \(done): compiled \(decision.tier.name), \(limited.tier.name) limited, \(windows)
                        documents \(expected.tier.rawValue), \(expectedLimited.rawValue) limited, \(expected.windows)
                        \(call)
                        \(Self.text(bundle))
                        """)
                    return
                }
                tiers[decision.tier, default: 0] += 1
                done += 1
            }
        }
        #expect(tiers.values.allSatisfy { $0 > done / 50 } && tiers.count == 4, "every tier occurs: \(tiers)")
    }

    /// No document of an agent or the organisation makes an answer looser than the system layer; neither a rule that is
    /// blocked, added anywhere, nor a lock, set on any rule, loosens an answer.
    @Test func addingBlocksAndLocksNeverLoosens() throws {
        let seed = Self.seed
        var generator = PolicyGenerator(seed: seed &+ 1)
        var random = SplitMix64(seed: seed)
        var tightened = 0
        for _ in 0..<max(40, Self.pairs / 1000) {
            let model = generator.bundle()
            let policy = try PolicyCompiler.compile(Self.bundle(model), catalogue: Capabilities.catalogue)
            var bare = Self.bundle(model)
            bare.organisation = nil
            bare.agents = [:]
            bare.policies = [
                PolicySource(file: "bare.yaml", text: Array("name: bare\ndefaults: {tier: autonomous}".utf8))
            ]
            bare.active = "bare"
            let system = try PolicyCompiler.compile(bare, catalogue: Capabilities.catalogue)
            let changed = Self.stricter(model, &random)
            let stricter = try PolicyCompiler.compile(Self.bundle(changed), catalogue: Capabilities.catalogue)
            for _ in 0..<60 {
                let call = generator.call(for: model)
                let facts = try Self.facts(call, policy)
                let before = policy.decide(facts)
                let after = stricter.decide(facts)
                var plain = facts
                plain.mode = .auto
                #expect(before.tier >= system.decide(plain).tier, "seed \(seed): \(call)\n\(Self.text(model))")
                if after.tier > before.tier { tightened += 1 }
                #expect(
                    after.tier >= before.tier,
                    "seed \(seed): \(call)\n\(Self.text(model))\nafter\n\(Self.text(changed))")
            }
        }
        #expect(tightened > 0)
    }

    /// The bundle with one more blocked rule somewhere, or one more lock.
    private static func stricter(_ model: NaiveBundle, _ random: inout SplitMix64) -> NaiveBundle {
        var changed = model
        func change(_ document: inout NaiveDocument) {
            var rule = NaiveRule(
                pattern: ["filesystem.*", "*", "email.send"].randomElement(using: &random) ?? "*", tier: .blocked)
            if Bool.random(using: &random) {
                rule.conditions = [.session(label: nil, ageBelowMinutes: 10, callsBelow: nil)]
            }
            switch Int.random(in: 0..<3, using: &random) {
            case 0: document.rules.insert(rule, at: Int.random(in: 0...document.rules.count, using: &random))
            case 1: document.overrides.insert(rule, at: Int.random(in: 0...document.overrides.count, using: &random))
            default:
                for index in document.rules.indices { document.rules[index].locked = true }
                for index in document.map.indices { document.map[index].own?.locked = true }
                document.defaults?.locked = true
            }
        }
        if Bool.random(using: &random), let agent = changed.agents.keys.sorted().randomElement(using: &random) {
            if var document = changed.agents[agent] {
                change(&document)
                changed.agents[agent] = document
            }
        } else if let index = changed.policies.firstIndex(where: { $0.name == changed.active }) {
            change(&changed.policies[index])
        }
        return changed
    }

    /// A long chain is asked by folders; rule by rule it says the same.
    @Test func aLongChainAnswersAsItsRulesInOrder() throws {
        let seed = Self.seed
        var random = SplitMix64(seed: seed)
        for _ in 0..<20 {
            func folder() -> String {
                let depth = Int.random(in: 0...5, using: &random)
                return (0..<depth).map { _ in "/" + ["a", "b", "c", "ab"][Int.random(in: 0..<4, using: &random)] }
                    .joined()
            }
            let rules = (0..<300).map { index -> String in
                let tier = Tier.allCases[Int.random(in: 0..<4, using: &random)].name
                let path = "path_prefix: [\"/w\(folder())\", \"/w\(folder())\"]"
                let size = "content_size_lt: \(Int.random(in: 0..<20, using: &random))"
                let condition = [path, size, "\(path), \(size)"][Int.random(in: 0..<3, using: &random)]
                return
                    "- {capability: \(index % 7 == 0 ? "filesystem.*" : "filesystem.write"), tier: \(tier), condition: {\(condition)}}"
            }
            let policy = try PolicyFixture(active: "rules:\n\(rules.joined(separator: "\n"))\ndefaults: {tier: notify}")
            for _ in 0..<300 {
                let facts = policy.facts("filesystem.write", ["path": .string("/w\(folder())/x"), "content": ""]) {
                    $0.contentSize =
                        Int.random(in: 0..<5, using: &random) == 0 ? nil : Int64.random(in: 0..<20, using: &random)
                }
                let asked = policy.compiled.explain(facts).tables.first { $0.layer == .organisation }
                #expect(policy.compiled.decide(facts).organisation == asked?.tier, "seed \(seed)")
            }
        }
    }

    static func bundle(_ model: NaiveBundle) -> PolicyBundle {
        func source(_ document: NaiveDocument, _ file: String) -> PolicySource {
            PolicySource(file: file, text: Array(document.yaml.utf8))
        }
        var bundle = PolicyBundle(
            system: source(model.system, "system.yaml"),
            requirements: model.requirements.map { [source($0, "requirements.yaml")] } ?? [],
            organisation: model.organisation.map { source($0, "org.yaml") }, active: model.active,
            policies: model.policies.map { source($0, "\($0.name).yaml") },
            agents: Dictionary(
                uniqueKeysWithValues: model.agents.map { ($0.key, source($0.value, "agents/\($0.key).yaml")) }))
        bundle.zones["Asia/Kolkata"] = TimeZoneTable(
            name: "Asia/Kolkata", changes: [.init(from: 0, offset: 19_800)])
        return bundle
    }

    static func text(_ model: NaiveBundle) -> String {
        var documents = [("system", model.system)]
        if let requirements = model.requirements { documents.append(("requirements", requirements)) }
        if let organisation = model.organisation { documents.append(("org", organisation)) }
        documents += model.policies.map { ($0.name == model.active ? "active" : "policy", $0) }
        documents += model.agents.sorted { $0.key < $1.key }.map { ("agent \($0.key)", $0.value) }
        return documents.map { "--- \($0.0)\n\($0.1.yaml)" }.joined(separator: "\n")
    }

    static func facts(_ call: NaiveCall, _ policy: CompiledPolicy) throws -> CallFacts {
        let index = try #require(policy.index(of: call.capability))
        let declaration = try #require(Capabilities.catalogue[call.capability])
        var facts = CallFacts(
            agent: call.agent, capability: index, declaration: declaration, arguments: [:],
            time: Timestamp(microseconds: call.time * 1_000_000))
        facts.arguments = JSONObject(
            call.arguments.map { name, value -> (String, JSONValue) in
                switch value {
                case .text(let text): (name, .string(text))
                case .int(let number): (name, .int(number))
                case .bool(let flag): (name, .bool(flag))
                case .list(let texts): (name, .strings(texts))
                }
            })
        facts.role = call.role
        facts.mode = call.mode.flatMap(Mode.init(name:))
        facts.session = .init(label: call.sessionLabel, ageSeconds: call.sessionAge, calls: call.sessionCalls)
        facts.grant = call.grant
        facts.paths = call.paths.map { Array($0.utf8) }
        facts.reachesBelow = call.reachesBelow
        facts.contentSize = call.contentSize
        facts.lines = call.lines.map { $0.map { .words($0) } ?? .opaque }
        facts.address = call.url.flatMap { WebAddress("\($0.scheme)://\($0.host):\($0.port)\($0.path)") }
        facts.host = call.host
        facts.port = call.port
        facts.method = call.method
        facts.recipients = call.recipients.map(CallFacts.Recipient.init)
        facts.key = call.key
        facts.keyReachesBelow = call.keyReachesBelow
        return facts
    }
}
