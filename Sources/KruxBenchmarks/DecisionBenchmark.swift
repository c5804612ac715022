import CAllocations
import Foundation
import KruxCapabilities
import KruxCore
import KruxPolicies
import KruxPolicy

/// Deciding, in process, under policies of growing size.
enum DecisionBenchmark {
    static func run(_ report: inout Report) throws {
        print("decision")
        var hundred: Double?
        for (rules, agents) in [(10, 1), (100, 1), (10_000, 1), (10_000, 1000)] {
            let bundle = bundle(rules: rules, agents: agents)
            var compileTimes: [UInt64] = []
            var compiled: CompiledPolicy?
            for _ in 0..<7 {
                // Taking the one before apart is not compiling.
                compiled = nil
                let start = nanoseconds()
                compiled = try PolicyCompiler.compile(bundle, catalogue: Capabilities.catalogue)
                compileTimes.append(nanoseconds() - start)
            }
            guard let policy = compiled else { return }
            let compileMilliseconds = Double(compileTimes.quantile(0.5) ?? 0) / 1e6
            let calls = calls(agents: agents)
            var samples: [UInt64] = []
            samples.reserveCapacity(calls.count * 4)
            var blocked = 0
            for round in 0..<5 {
                for call in calls {
                    let start = nanoseconds()
                    let decision = policy.decide(call)
                    let elapsed = nanoseconds() - start
                    if decision.tier == .blocked { blocked += 1 }
                    if round > 0 { samples.append(elapsed) }
                }
            }
            let allocated = krux_allocations()
            for call in calls { if policy.decide(call).tier == .blocked { blocked += 1 } }
            let perDecision = Double(krux_allocations() - allocated) / Double(calls.count)
            report.add(
                "allocations, \(rules) rules, \(agents) agents", "\(format(perDecision, 2)) a decision", budget: "0",
                met: perDecision == 0)
            // The clock's own cost is in every sample; take the median of empty ones off.
            var empty: [UInt64] = []
            for _ in 0..<10_000 {
                let start = nanoseconds()
                empty.append(nanoseconds() - start)
            }
            let overhead = Double(empty.quantile(0.5) ?? 0)
            let p50 = max(0, Double(samples.quantile(0.5) ?? 0) - overhead) / 1000
            let p99 = max(0, Double(samples.quantile(0.99) ?? 0) - overhead) / 1000
            let name = "decision, \(rules) rules, \(agents) agents"
            if rules == 100 {
                hundred = p50
                report.add("\(name), p50", "\(format(p50, 3)) µs", budget: "≤ 1 µs", met: p50 <= 1)
                report.add("\(name), p99", "\(format(p99, 3)) µs", budget: "≤ 5 µs", met: p99 <= 5)
            } else {
                let budgeted = rules > 100 && agents > 1
                let budget = budgeted ? "≤ 2× 100 rules" : ""
                report.add(
                    "\(name), p50", "\(format(p50, 3)) µs", budget: budget,
                    met: budgeted ? p50 <= 2 * (hundred ?? 0) : nil)
                report.add("\(name), p99", "\(format(p99, 3)) µs")
            }
            let large = rules >= 10_000
            report.add(
                "compile, \(rules) rules, \(agents) agents",
                "\(format(compileMilliseconds, 1)) ms (\(blocked) blocked)",
                budget: large ? "≤ 50 ms" : "", met: large ? compileMilliseconds <= 50 : nil)
            if rules == 100 { try rivals(bundle, policy, &report) }
        }
    }

    /// The same 100 rules and calls decided by Cedar and casbin, when `KRUXOS_RIVALS_PYTHON` names a Python that has
    /// what `Benchmarks/rivals/requirements.txt` lists.
    private static func rivals(_ bundle: PolicyBundle, _ policy: CompiledPolicy, _ report: inout Report) throws {
        guard let python = ProcessInfo.processInfo.environment["KRUXOS_RIVALS_PYTHON"] else { return }
        let calls = calls(agents: 1).prefix(5000)
        let json: JSONValue = [
            "default": "notify",
            "rules": .array(
                policy.rules.filter { !$0.isDefault && $0.document == "bench" }.map { rule in
                    [
                        "capability": .string(rule.pattern), "tier": .string(rule.tier.name),
                        "path_prefix": .string(
                            String(decoding: rule.conditions.first.map { prefix($0) } ?? [], as: UTF8.self)),
                    ]
                }),
            "calls": .array(
                calls.map {
                    [
                        "agent": .string($0.agent), "capability": .string(policy.capabilities[$0.capability].name),
                        "path": .string(String(decoding: $0.paths[0], as: UTF8.self)),
                    ]
                }), "tiers": .array(calls.map { .string(policy.decide($0).tier.name) }),
        ]
        let file = NSTemporaryDirectory() + "kruxos-rivals.json"
        try Data(json.canonicalBytes()).write(to: URL(fileURLWithPath: file))
        let process = Process()
        process.executableURL = URL(fileURLWithPath: python)
        process.arguments = ["Benchmarks/rivals/compare.py", file]
        let output = Pipe()
        process.standardOutput = output
        try process.run()
        let text = String(decoding: output.fileHandleForReading.readDataToEndOfFile(), as: UTF8.self)
        process.waitUntilExit()
        for line in text.split(separator: "\n") {
            let parts = line.split(separator: ":", maxSplits: 1)
            report.add("the same 100 rules, \(parts[0])", parts.count > 1 ? String(parts[1].dropFirst()) : "")
        }
    }

    private static func prefix(_ condition: Condition) -> [UInt8] {
        if case .test(.pathPrefix(let directories)) = condition.form { return directories.first ?? [] }
        return []
    }

    /// `rules` conditional rules: all in the organisation's document, or 100 there and the rest in the agents' own.
    private static func bundle(rules: Int, agents: Int) -> PolicyBundle {
        let names = Capabilities.catalogue.names
        let files = names.filter { $0.hasPrefix("filesystem.") && !$0.hasSuffix("restore") }
        func list(_ count: Int, _ seed: Int) -> String {
            (0..<count).map { index in
                let number = index + seed
                let tier = ["autonomous", "notify", "approval_required"][number % 3]
                let prefix = "/workspace/a\(number % 97)/p\(number)"
                return
                    "- {capability: \(files[number % files.count]), tier: \(tier), condition: {path_prefix: \(prefix)}}"
            }.joined(separator: "\n")
        }
        let policy = """
            name: bench
            agent_overrides: within_system
            defaults: { tier: notify }
            rules:
            \(list(agents == 1 ? rules : 100, 0))
            """
        var documents: [String: PolicySource] = [:]
        if agents > 1 {
            for agent in 0..<agents {
                let text = "agent: agent-\(agent)\nrules:\n\(list((rules - 100) / agents, agent))"
                documents["agent-\(agent)"] = PolicySource(file: "agents/agent-\(agent).yaml", text: Array(text.utf8))
            }
        }
        return PolicyBundle(
            system: PolicySource(file: "system.yaml", text: BuiltInPolicies.system), active: "bench",
            policies: [PolicySource(file: "bench.yaml", text: Array(policy.utf8))], agents: documents)
    }

    private static func calls(agents: Int) -> [CallFacts] {
        let files = Capabilities.catalogue.declarations.enumerated().filter { $1.name.text.hasPrefix("filesystem.") }
        return (0..<20_000).map { number in
            let (index, declaration) = files[number % files.count]
            var facts = CallFacts(
                agent: "agent-\(number % agents)", capability: index, declaration: declaration, arguments: [:],
                time: Timestamp(microseconds: Int64(number)))
            facts.paths = [Array("/workspace/a\(number % 97)/p\(number % 211)/Sources/file-\(number).swift".utf8)]
            facts.contentSize = Int64(number)
            return facts
        }
    }
}
