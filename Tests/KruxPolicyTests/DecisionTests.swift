import CAllocations
import KruxCapabilities
import KruxCore
import KruxPolicy
import Testing

@Suite struct DecisionTests {
    @Test func theMostSpecificPatternWinsWhereverItStands() throws {
        let policy = try PolicyFixture(
            active: """
                capabilities:
                  "*": { tier: blocked }
                  state.shared.get: { tier: autonomous }
                  state.*: { tier: approval_required }
                  state.shared.*: { tier: notify }
                """)
        #expect(policy.tier("state.shared.get") == .autonomous)
        #expect(policy.tier("state.shared.set") == .notify)
        #expect(policy.tier("state.session.set") == .approvalRequired)
        #expect(policy.tier("filesystem.read") == .blocked)
    }

    @Test func inAListTheFirstMatchWins() throws {
        let policy = try PolicyFixture(
            active: """
                rules:
                  - { capability: "filesystem.*", tier: notify }
                  - { capability: "filesystem.read", tier: blocked }
                capabilities:
                  filesystem.read: { tier: approval_required }
                  system.time: { tier: autonomous }
                """)
        #expect(policy.tier("filesystem.read") == .notify)
        #expect(policy.tier("system.time") == .autonomous)
    }

    @Test func anEntryWithoutMatchingRuleFallsToTheNextLessSpecific() throws {
        let policy = try PolicyFixture(
            active: """
                capabilities:
                  filesystem.write:
                    rules:
                      - { condition: { path_prefix: /workspace/a/tmp }, tier: autonomous }
                  filesystem.*: { tier: approval_required }
                """)
        #expect(policy.tier("filesystem.write", paths: ["/workspace/a/tmp/x"]) == .autonomous)
        #expect(policy.tier("filesystem.write", paths: ["/workspace/a/x"]) == .approvalRequired)
    }

    @Test func aBlockedRuleAboveCannotBeLoosenedBelow() throws {
        let policy = try PolicyFixture(
            active: """
                agent_overrides: within_system
                capabilities:
                  git.push: { tier: blocked }
                  git.*: { tier: approval_required }
                defaults: { tier: blocked }
                """, agents: ["a": "capabilities: { \"*\": { tier: autonomous } }"])
        #expect(policy.tier("git.push") == .blocked)
        #expect(policy.tier("git.pull") == .autonomous)
        #expect(policy.tier("email.read") == .autonomous, "a default does not bind")
        #expect(policy.tier("secrets.export") == .blocked)
    }

    @Test func lockedDefaultsBind() throws {
        let policy = try PolicyFixture(
            active: "agent_overrides: within_system\ndefaults: { tier: approval_required, locked: true }",
            agents: ["a": "capabilities: { \"*\": { tier: autonomous } }"])
        #expect(policy.tier("email.read") == .approvalRequired)
    }

    @Test func withoutAWordOnAgentsTheyOnlyTighten() throws {
        let policy = try PolicyFixture(
            active: "capabilities: { \"*\": { tier: notify } }",
            agents: ["a": "capabilities: { git.push: { tier: autonomous }, git.pull: { tier: blocked } }"])
        #expect(policy.tier("git.push") == .notify)
        #expect(policy.tier("git.pull") == .blocked)
    }

    @Test func whatAnAgentExtendsOnlyTightens() throws {
        let policy = try PolicyFixture(
            active: "agent_overrides: within_system\ncapabilities: { \"*\": { tier: notify } }",
            agents: [
                "a": "extends: enterprise-restrictive", "b": "defaults: { tier: approval_required }",
                "c": "extends: personal-permissive",
            ])
        #expect(policy.tier("filesystem.write", agent: "a") == .approvalRequired)
        #expect(policy.tier("filesystem.read", agent: "a") == .notify)
        #expect(policy.tier("filesystem.read", agent: "b") == .approvalRequired)
        #expect(policy.tier("filesystem.read", agent: "c") == .notify)
    }

    @Test func requirementsBindLikeTheSystemLayer() throws {
        let policy = try PolicyFixture(
            active: "agent_overrides: within_system\ncapabilities: { \"*\": { tier: autonomous } }",
            agents: ["a": "capabilities: { \"*\": { tier: autonomous } }"],
            requirements: "capabilities: { network.*: { tier: approval_required } }")
        #expect(policy.tier("network.download") == .approvalRequired)
        #expect(policy.decide("network.download").layer == .system)
        #expect(policy.tier("secrets.export") == .blocked)
        #expect(policy.tier("git.push") == .autonomous)
    }

    @Test func whatCannotBeJudgedTakesTheStricterSide() throws {
        let text = """
            capabilities:
              filesystem.read:
                rules:
                  - { condition: { path_prefix: /workspace/a/secret }, tier: approval_required }
                tier: autonomous
              filesystem.write:
                rules:
                  - { conditions: { path_prefix: /workspace/a/tmp, content_size_lt: 10 }, tier: autonomous }
                tier: notify
            """
        let policy = try PolicyFixture(active: text)
        #expect(policy.tier("filesystem.read") == .approvalRequired)
        #expect(policy.decide("filesystem.read").indeterminate)
        #expect(policy.tier("filesystem.write", paths: ["/workspace/a/tmp/x"]) == .notify)
        // One false condition settles it, whatever the other is.
        #expect(!policy.decide("filesystem.write", paths: ["/workspace/a/x"]).indeterminate)
        // An agent's rule that cannot be judged does not loosen.
        let agent = try PolicyFixture(
            active: "agent_overrides: within_system\ncapabilities: { \"*\": { tier: approval_required } }",
            agents: [
                "a":
                    "rules: [{ capability: filesystem.read, tier: autonomous, conditions: { path_prefix: /workspace/a } }]"
            ])
        #expect(agent.tier("filesystem.read") == .approvalRequired)
        #expect(agent.tier("filesystem.read", paths: ["/workspace/a/x"]) == .autonomous)
    }

    @Test(arguments: [
        ("lt", 9, true), ("lt", 10, false), ("lte", 10, true), ("lte", 11, false), ("gt", 10, false), ("gt", 11, true),
        ("gte", 9, false), ("gte", 10, true),
    ])
    func contentSizeComparesDecodedBytes(_ comparison: String, _ size: Int64, _ holds: Bool) throws {
        let policy = try PolicyFixture(
            active: """
                capabilities:
                  filesystem.write:
                    rules: [{ condition: { content_size_\(comparison): 10 }, tier: notify }]
                    tier: blocked
                """)
        #expect(policy.tier("filesystem.write", size: size) == (holds ? .notify : .blocked))
    }

    @Test(arguments: [
        ("/workspace/a", "/workspace/a", true), ("/workspace/a/b", "/workspace/a", true),
        ("/workspace/ab", "/workspace/a", false), ("/workspace", "/workspace/a", false), ("/x", "", true),
        ("/workspace/\u{212A}", "/workspace/K", false), ("/workspace/e\u{301}/x", "/workspace/\u{e9}", false),
    ])
    func pathsCompareByWholeComponentsAndBytes(_ path: String, _ directory: String, _ under: Bool) {
        #expect(pathIsUnder(Array(path.utf8), Array(directory.utf8)) == under)
    }

    @Test func aRuleForAFolderHoldsForACallOnTheFolderAbove() throws {
        let policy = try PolicyFixture(
            active: """
                capabilities:
                  filesystem.*:
                    rules: [{ condition: { path_prefix: /workspace/a/top/secret }, tier: blocked }]
                    tier: autonomous
                """)
        let above = ["/workspace/a/top", "/workspace/a/other"]
        #expect(policy.decide("filesystem.move", paths: above, below: true).tier == .blocked)
        #expect(policy.decide("filesystem.copy", paths: above).tier == .autonomous)
        #expect(policy.decide("filesystem.move", paths: ["/workspace/a/to"], below: true).tier == .autonomous)
    }

    @Test func theTopmostWordOnAgentOverridesDecides() throws {
        let agents = ["a": "capabilities: { filesystem.delete: { tier: autonomous } }"]
        let loose = try PolicyFixture(agents: agents, template: "personal-permissive")
        #expect(loose.tier("filesystem.delete") == .autonomous)
        let tight = try PolicyFixture(
            organisation: "agent_overrides: tighten_only", agents: agents, template: "personal-permissive")
        #expect(tight.tier("filesystem.delete") == .notify)
    }

    @Test func anAgentWhoseFileDoesNotCompileIsBlockedAndOthersAreNot() throws {
        let policy = try PolicyFixture(agents: [
            "a": "capabilities: { filesystem.read: { tier: maybe } }", "b": "rules: []",
        ])
        #expect(policy.tier("filesystem.read", agent: "a") == .blocked)
        #expect(policy.tier("filesystem.read", agent: "b") == .autonomous)
        #expect(policy.compiled.brokenAgents["a"]?.diagnostics.count == 1)
    }

    @Test func toolsAreHiddenOnlyWhenEveryCallIsBlocked() throws {
        let policy = try PolicyFixture(
            active: """
                agent_overrides: within_system
                capabilities:
                  filesystem.write:
                    rules: [{ condition: { path_prefix: /workspace/a }, tier: notify }]
                    tier: blocked
                  filesystem.append: { tier: blocked }
                  filesystem.read: { tier: autonomous }
                defaults: { tier: blocked }
                """,
            agents: ["a": "capabilities: { filesystem.append: { tier: autonomous }, git.push: { tier: notify } }"])
        func hidden(_ name: String) throws -> Bool {
            policy.compiled.blocksEveryCall(policy.facts(name, [:]))
        }
        #expect(try !hidden("filesystem.write"))
        #expect(try hidden("filesystem.append"))
        #expect(try !hidden("filesystem.read"))
        #expect(try hidden("filesystem.delete"))
        #expect(try !hidden("git.push"))
        #expect(try hidden("secrets.read_raw"))
    }

    /// Of every matching rule that says something of the box the strictest stands, whichever rule gave the tier.
    @Test(arguments: [
        ("", "", SandboxSettings()),
        ("sandbox: full-access", "", SandboxSettings(files: .fullAccess)),
        ("", "sandbox: full-access", SandboxSettings(files: .fullAccess)),
        ("sandbox: workspace-write", "sandbox: full-access", SandboxSettings()),
        ("sandbox: full-access", "sandbox: read-only", SandboxSettings(files: .readOnly)),
        ("sandbox: { require: best_effort }", "sandbox: { require: best_effort }", SandboxSettings(isBestEffort: true)),
        ("sandbox: { require: best_effort }", "sandbox: { require: all }", SandboxSettings()),
    ])
    func theStrictestBoxStands(_ organisation: String, _ agent: String, _ expected: SandboxSettings) throws {
        func rule(_ sandbox: String) -> String {
            "capabilities:\n  process.run: { tier: notify\(sandbox.isEmpty ? "" : ", " + sandbox) }"
        }
        let policy = try PolicyFixture(
            active: "agent_overrides: within_system\n" + rule(organisation), agents: ["a": rule(agent)])
        let decision = policy.decide("process.run", ["command": "true"])
        #expect(decision.sandbox == expected)
        // The stored form says the same.
        let again = try CompiledPolicy(form: policy.compiled.form, catalogue: PolicyFixture.catalogue)
        #expect(
            again.decide(policy.facts("process.run", ["command": "true"])).sandbox == expected
                && again.protected.contains(".git/hooks"))
    }

    /// Nobody below loosens the box of an organisation that only lets agents tighten; what may not hold loosens nothing;
    /// and each command of a line is judged by itself.
    @Test func aBoxIsLoosenedOnlyByWhatSurelyHoldsForAll() throws {
        let rule =
            "process.run: { rules: [{ condition: { command: id }, tier: notify, sandbox: full-access }], tier: notify }"
        let policy = try PolicyFixture(active: "capabilities:\n  \(rule)")
        func files(_ command: String) -> SandboxSettings.Files {
            policy.decide("process.run", ["command": .string(command), "shell": true]).sandbox.files
        }
        #expect(files("id") == .fullAccess && files("id -u && id") == .fullAccess)
        for line in ["id; head /etc/shadow", "$(echo head) /etc/shadow", "id | $X", "whoami", "X=1 id; ls"] {
            #expect(files(line) == .workspaceWrite, "\(line)")
        }
        let loosened = "capabilities:\n  process.run: { tier: notify, sandbox: full-access }"
        for (organisation, expected) in [
            ("agent_overrides: tighten_only\ndefaults: { tier: notify }", SandboxSettings.Files.workspaceWrite),
            ("agent_overrides: tighten_only\n" + loosened, .fullAccess),
            ("agent_overrides: within_system\ndefaults: { tier: notify }", .fullAccess),
            ("agent_overrides: within_system\noverrides: [{ capability: process.run, tier: notify }]", .workspaceWrite),
        ] {
            let policy = try PolicyFixture(active: organisation, agents: ["a": loosened])
            #expect(policy.decide("process.run", ["command": "id"]).sandbox.files == expected, "\(organisation)")
        }
        let required = try PolicyFixture(
            active: loosened, requirements: "capabilities:\n  process.*: { tier: autonomous, sandbox: read-only }")
        #expect(required.decide("process.run", ["command": "id"]).sandbox.files == .readOnly)
    }

    @Test func bundlesKeepTheirDigestThroughStorage() throws {
        let bundle = PolicyBundle(
            system: PolicySource(file: "system.yaml", text: Array("name: s".utf8)), active: "a",
            policies: [PolicySource(file: "a.yaml", text: Array("name: a\n# é".utf8))],
            agents: ["x": PolicySource(file: "agents/x.yaml", text: Array("rules: []".utf8))])
        let stored = try #require(PolicyBundle(json: try JSONParser.parse(bundle.json.canonicalText)))
        #expect(stored == bundle && stored.digest == bundle.digest)
    }

    @Test func theUsualDecisionAllocatesNothing() throws {
        let policy = try PolicyFixture(
            active: """
                agent_overrides: within_system
                defaults: { tier: notify }
                rules:
                \((0..<100).map { "- {capability: filesystem.write, tier: autonomous, condition: {path_prefix: /workspace/a/p\($0)}}" }.joined(separator: "\n"))
                - {capability: filesystem.write, tier: blocked, condition: {content_size_gt: 100}}
                """, agents: ["a": "capabilities: { process.run: { tier: notify } }"])
        let facts = policy.facts("filesystem.write", ["path": "/workspace/a/p77/x", "content": "text"])
        let other = policy.facts("filesystem.read", ["path": "/workspace/a/x"])
        var tiers: [Tier] = [.notify, .notify]
        for _ in 0..<3 { tiers = [policy.compiled.decide(facts).tier, policy.compiled.decide(other).tier] }
        let before = krux_allocations()
        let first = policy.compiled.decide(facts).tier
        let second = policy.compiled.decide(other).tier
        let allocations = krux_allocations() - before
        #expect([first, second] == tiers && tiers == [.autonomous, .notify])
        #if DEBUG
            // What an unoptimised build's closures take, however many rules there are.
            #expect(allocations <= 5)
        #else
            #expect(allocations == 0)
        #endif
        // The counter counts.
        let copy = [first, second] + tiers
        #expect(krux_allocations() > before && copy.count == 4)
    }
}
