package import KruxCore

/// Tests of a policy, as a YAML file:
///
///     policy: team-moderate              # the policy to test as the active one; the one in force if absent
///     organisation: |                    # optional: the text of an org.yaml for these tests
///     agents:                            # optional: texts of agents' own documents for these tests
///       deploy-bot: |
///         capabilities: { process.run: { tier: autonomous } }
///     tests:
///       - name: reads run
///         agent: my-agent                # `my-agent` if absent
///         capability: filesystem.read
///         arguments: { path: notes.txt }
///         clock: 2026-03-02T10:00:00Z    # 2026-01-01T00:00:00Z if absent
///         calls: 3                       # admitted so far in every rate window
///         role: dev
///         mode: ask
///         session: { label: deploy, age: 5m, calls: 3 }
///         tier: autonomous
///         rule: filesystem.read          # or `defaults`, or `team-moderate.yaml:15`
package struct PolicySuite: Sendable {
    package struct Case: Sendable {
        package let name: String
        package let agent: String
        package let capability: String
        package let arguments: JSONObject
        package let clock: Timestamp
        package let calls: Int64
        package let role: String?
        package let mode: Mode?
        package let session: CallFacts.SessionFacts
        package let tier: Tier
        package let rule: String?
        package let location: SourceLocation
    }

    package struct Result: Sendable {
        package let name: String
        package let location: SourceLocation
        /// What is wrong; empty when the policy answers as expected.
        package let failures: [String]
    }

    package struct Report: Sendable {
        package let results: [Result]
        /// Rules that answered in some test, of all rules that can.
        package let covered: Set<SourceLocation>
        package let rules: [CompiledPolicy.RuleRecord]

        package var uncovered: [CompiledPolicy.RuleRecord] { rules.filter { !covered.contains($0.location) } }
    }

    package let file: String
    package let policy: String?
    package let organisation: PolicySource?
    package let agents: [String: PolicySource]
    package let cases: [Case]

    /// - Throws: every mistake of the file at once.
    package static func read(_ bytes: [UInt8], file: String, catalogue: Catalogue) throws(PolicyErrors) -> PolicySuite {
        let root: YAMLNode
        let mistakes: [PolicyDiagnostic]
        do throws(PolicyDiagnostic) { (root, mistakes) = try YAMLReader.read(bytes, file: file) } catch {
            throw PolicyErrors([error])
        }
        var reader = SuiteReader(file: file, catalogue: catalogue, nodes: NodeReader(mistakes: mistakes))
        let suite = reader.suite(root)
        guard let suite, reader.nodes.mistakes.isEmpty else {
            throw PolicyErrors(reader.nodes.mistakes.sorted { $0.location < $1.location })
        }
        return suite
    }

    /// Decides every case under `bundle`, with the suite's own documents in it.
    /// - Throws: what is wrong with the policies.
    package func run(_ bundle: PolicyBundle, catalogue: Catalogue) throws(PolicyErrors) -> Report {
        var bundle = bundle
        if let policy { bundle.active = policy }
        if let organisation { bundle.organisation = organisation }
        for (agent, source) in agents { bundle.agents[agent] = source }
        let compiled = try PolicyCompiler.compile(bundle, catalogue: catalogue)
        let broken = agents.keys.sorted().compactMap { compiled.brokenAgents[$0] }
        if let first = broken.first { throw first }
        var covered: Set<SourceLocation> = []
        var results: [Result] = []
        for test in cases {
            guard let index = compiled.index(of: test.capability), let declaration = catalogue[test.capability] else {
                continue
            }
            let call = CallDescription(agent: test.agent, declaration: declaration, arguments: test.arguments)
            var facts = CallFacts(
                agent: test.agent, capability: index, declaration: declaration, arguments: call.arguments,
                complete: call.isComplete, time: test.clock)
            facts.role = test.role
            facts.mode = test.mode
            facts.session = test.session
            let explanation = compiled.explain(facts)
            for table in explanation.tables where !table.skipped {
                for rule in table.rules where rule.outcome == .matched {
                    covered.insert(compiled.rules[rule.rule].location)
                }
            }
            let decision = compiled.limited(explanation.decision) { rule in
                compiled.rules[Int(rule)].rateLimit.map { test.calls >= $0.max } ?? false
            }
            results.append(
                Result(name: test.name, location: test.location, failures: test.failures(decision, compiled)))
        }
        let tables = Set(cases.map(\.agent)).flatMap { compiled.tables(for: $0) }
        let asked = Set(tables.flatMap { compiled.tables[$0].chains.joined().map { Int($0.index) } })
        var places: Set<SourceLocation> = []
        let rules = asked.sorted().map { compiled.rules[$0] }.filter { places.insert($0.location).inserted }
        return Report(results: results, covered: covered, rules: rules)
    }
}

extension PolicySuite.Case {
    fileprivate func failures(_ decision: Decision, _ policy: CompiledPolicy) -> [String] {
        var failures: [String] = []
        let record = decision.rule.map { policy.rules[$0] }
        let place =
            record.map { "`\($0.pattern)` at \($0.location.file):\($0.location.line)" } ?? decision.cause.rawValue
        if decision.tier != tier { failures.append("expected \(tier.name), got \(decision.tier.name) by \(place)") }
        if let rule {
            let fits =
                record.map { record in
                    record.pattern.utf8Equals(rule)
                        || "\(record.location.file):\(record.location.line)".utf8Equals(rule)
                } ?? false
            if !fits { failures.append("expected the rule `\(rule)`, got \(place)") }
        }
        return failures
    }
}

private struct SuiteReader {
    let file: String
    let catalogue: Catalogue
    var nodes: NodeReader

    private static let caseKeys = [
        "name", "agent", "capability", "arguments", "clock", "calls", "role", "mode", "session", "tier", "rule",
    ]

    mutating func suite(_ root: YAMLNode) -> PolicySuite? {
        guard let pairs = nodes.pairs(root, "a test suite") else { return nil }
        var policy: String?
        var organisation: PolicySource?
        var agents: [String: PolicySource] = [:]
        var cases: [PolicySuite.Case] = []
        for (keyNode, value) in pairs {
            guard let key = nodes.word(keyNode) else { continue }
            switch key {
            case "policy": policy = nodes.text(value, key)
            case "organisation":
                organisation = nodes.text(value, key).map { PolicySource(file: "org.yaml", text: Array($0.utf8)) }
            case "agents":
                for (name, text) in nodes.pairs(value, "`agents`") ?? [] {
                    guard let agent = nodes.word(name), let text = nodes.text(text, agent) else { continue }
                    if AgentName(agent) == nil { nodes.fail(name, "`\(agent)` is no agent name", hint: AgentName.rule) }
                    agents[agent] = PolicySource(file: "agents/\(agent).yaml", text: Array(text.utf8))
                }
            case "tests":
                for element in nodes.elements(value, "`tests`") ?? [] {
                    if let test = test(element) { cases.append(test) }
                }
            default: nodes.unknown(keyNode, key, known: ["policy", "organisation", "agents", "tests"])
            }
        }
        if !pairs.contains(where: { nodes.word($0.key) == "tests" }) { nodes.fail(root, "the suite has no `tests`") }
        return PolicySuite(file: file, policy: policy, organisation: organisation, agents: agents, cases: cases)
    }

    private mutating func test(_ node: YAMLNode) -> PolicySuite.Case? {
        guard let pairs = nodes.pairs(node, "a test") else { return nil }
        var values: [String: YAMLNode] = [:]
        for (key, value) in pairs {
            guard let word = nodes.word(key) else { continue }
            if Self.caseKeys.contains(word) {
                values[word] = value
            } else {
                nodes.unknown(key, word, known: Self.caseKeys)
            }
        }
        for key in ["name", "capability", "tier"] where values[key] == nil {
            nodes.fail(node, "the test has no `\(key)`")
        }
        func text(_ key: String) -> String? { values[key].flatMap { nodes.text($0, key) } }
        let name = text("name") ?? ""
        let agent = text("agent") ?? "my-agent"
        var declaration: CapabilityDeclaration?
        if let capability = text("capability"), let node = values["capability"] {
            declaration = catalogue[capability]
            if declaration == nil {
                nodes.fail(
                    node, "there is no capability `\(capability)`",
                    hint: nearest(to: capability, among: catalogue.names).map { "did you mean `\($0)`?" })
            }
        }
        let tier = values["tier"].flatMap { nodes.tier($0) }
        let mode = values["mode"].flatMap { nodes.mode($0) }
        var clock = Timestamp(microseconds: 1_767_225_600_000_000)
        if let node = values["clock"], let text = nodes.text(node, "clock") {
            if let time = Timestamp(parsing: text) {
                clock = time
            } else {
                nodes.fail(node, "`\(text)` is no time", hint: "such as `2026-03-02T10:00:00Z`")
            }
        }
        let calls =
            values["calls"].flatMap { nodes.integer($0, "calls", 0...JSONValue.maxInteger, "a number from 0") } ?? 0
        let session = values["session"].map { self.session($0) } ?? .init(label: nil, ageSeconds: 0, calls: 0)
        let arguments = values["arguments"].map { self.arguments($0, declaration) } ?? [:]
        guard let declaration, let tier else { return nil }
        return PolicySuite.Case(
            name: name, agent: agent, capability: declaration.name.text, arguments: arguments, clock: clock,
            calls: calls, role: text("role"), mode: mode, session: session, tier: tier, rule: text("rule"),
            location: node.location)
    }

    private mutating func session(_ node: YAMLNode) -> CallFacts.SessionFacts {
        var session = CallFacts.SessionFacts(label: nil, ageSeconds: 0, calls: 0)
        for (key, value) in nodes.pairs(node, "`session`") ?? [] {
            switch nodes.word(key) {
            case "label"?: session.label = nodes.text(value, "label")
            case "age"?: session.ageSeconds = nodes.seconds(value, "age", atMost: 365 * 86_400) ?? 0
            case "calls"?:
                session.calls = nodes.integer(value, "calls", 0...JSONValue.maxInteger, "a number from 0") ?? 0
            case let word?: nodes.unknown(key, word, known: ["label", "age", "calls"])
            case nil: continue
            }
        }
        return session
    }

    /// Arguments must fit the capability's schema, but for those that are left out.
    private mutating func arguments(_ node: YAMLNode, _ declaration: CapabilityDeclaration?) -> JSONObject {
        guard let pairs = nodes.pairs(node, "`arguments`"), let object = node.json.object else { return [:] }
        guard let declaration else { return object }
        let (_, violations) = declaration.input.validate(object)
        for violation in violations where violation.message != "is missing" {
            let key = pairs.first { nodes.word($0.key).map { violation.pointer.hasPrefix("/\($0)") } ?? false }
            nodes.fail(key?.key ?? node, "\(declaration.name): \(violation.pointer) \(violation.message)")
        }
        return object
    }
}
