import Foundation
import KruxCore
import KruxTestSupport
import Testing

/// The policy commands of the real binary; what the user's documents print is compared word for word.
@Suite(.serialized) struct PolicyCommandTests {
    private static let custom = """
        name: my-custom-policy
        version: "1.0"
        description: "Custom policy for the data team"

        defaults:
          tier: notify

        capabilities:
          # Category-level defaults
          filesystem.*:
            tier: autonomous

          # Capability-level overrides
          filesystem.delete:
            tier: approval_required
            reason: "File deletion requires approval"

          filesystem.write:
            tier: notify

          process.*:
            tier: approval_required
            reason: "All process execution needs human review"

          secrets.*:
            tier: blocked
            reason: "Agents cannot access secrets directly"

          email.send:
            tier: notify
            rate_limit:
              max: 10
              window: 3600  # 1 hour
              on_exceed: approval_required

          agent.*: { tier: autonomous }
          alerts.*: { tier: autonomous }
          comms.*: { tier: notify }
          git.*: { tier: notify }
          scheduler.*: { tier: notify }
          state.*: { tier: autonomous }
          system.*: { tier: autonomous }
        """

    private static let deployBot = """
        # Per-agent policy
        agent: deploy-bot
        extends: team-moderate

        capabilities:
          process.run:
            tier: autonomous  # Deploy bot can run processes without approval
            reason: "Deployment automation has pre-approved process access"

          git.*:
            tier: autonomous
        """

    /// `filesystem.delete` stands on line 15, where the document has it.
    private static let teamModerate = """
        # A small team's policy.
        #
        name: team-moderate
        version: "1.0"
        description: "Reads autonomous, writes notify"
        agent_overrides: within_system

        defaults:
          tier: notify

        capabilities:
          filesystem.read:
            tier: autonomous

          filesystem.delete:
            tier: approval_required
        """

    @Test func theDocumentsOutputsAreWordForWord() async throws {
        try await withTemporaryFolder { folder in
            let kruxos = Kruxos(home: folder + "/home")
            _ = try kruxos.createAgent("my-agent")
            try write(Self.deployBot, to: "\(kruxos.home)/policies/agents/deploy-bot.yaml")
            try write(Self.teamModerate, to: "\(kruxos.home)/policies/team-moderate.yaml")
            try write(Self.custom, to: folder + "/my-policy.yaml")
            let validated = try kruxos.run("config", "validate", folder + "/my-policy.yaml")
            #expect(
                validated.output == """
                    Policy 'my-custom-policy' is valid.

                      Capabilities covered: 84/84
                      Default tier: notify
                      Agent overrides: 1 (deploy-bot)
                      Rate limits: 1 (email.send)

                      Warnings:
                        - No explicit rule for network.* (using default: notify)

                    """)
            let set = try kruxos.run("config", "set", "policy", "team-moderate")
            let shown = "Active policy: team-moderate\nSource: \(kruxos.home)/policies/team-moderate.yaml\n"
            #expect(set.output == shown && set.code == 0)
            #expect(try kruxos.run("config", "show", "policy").output == shown)
            #expect(
                try kruxos.run(
                    "config", "check-policy", "--agent", "my-agent", "--capability", "filesystem.delete"
                ).output == """
                    Agent:       my-agent
                    Capability:  filesystem.delete
                    Tier:        approval_required
                    Source:      team-moderate.yaml (line 15)
                    Hierarchy:   system(allowed) → org(approval_required) → agent(no override)

                    """)
        }
    }

    @Test func theSchemaAndTheReaderAgree() async throws {
        print(try Peer.run("policy_schema.py", [Kruxos.path]))
    }

    @Test func theTemplatesPassTheirSuites() async throws {
        try await withTemporaryFolder { folder in
            let kruxos = Kruxos(home: folder + "/home")
            _ = try kruxos.createAgent("a")
            for name in ["personal-permissive", "team-moderate", "enterprise-restrictive"] {
                let file = "\(kruxos.home)/policies/suites/\(name).test.yaml"
                let junit = folder + "/\(name).xml"
                let result = try kruxos.run("policy", "test", file, "--junit", junit, "--uncovered")
                #expect(result.code == 0, "\(result)")
                #expect(try String(contentsOfFile: junit, encoding: .utf8).contains("failures=\"0\""))
                // Every rule but the defaults, which no capability of today reaches.
                let uncovered = result.output.split(separator: "\n").filter { $0.contains("not covered") }
                #expect(uncovered.allSatisfy { $0.contains("defaults →") }, "\(uncovered)")
            }
        }
    }

    @Test func aSuiteFailsWithItsPlaceAndAWrongOneIsRefused() async throws {
        try await withTemporaryFolder { folder in
            let kruxos = Kruxos(home: folder + "/home")
            _ = try kruxos.createAgent("a")
            try write(
                """
                agents:
                  bot: |
                    capabilities: { filesystem.delete: { tier: autonomous } }
                policy: team-moderate
                tests:
                  - name: a lock holds against the agent's own file
                    agent: bot
                    capability: filesystem.delete
                    arguments: { path: x }
                    tier: approval_required
                  - name: this one is wrong
                    capability: filesystem.read
                    arguments: { path: x }
                    tier: blocked
                    rule: filesystem.delete
                """, to: folder + "/suite.yaml")
            let failed = try kruxos.run("policy", "test", folder + "/suite.yaml", "--json")
            #expect(failed.code == 1)
            #expect(
                failed.output.contains("\"passed\": true") && failed.output.contains("expected blocked, got autonomous")
            )
            try write(
                "tests:\n  - { name: x, capability: filesystem.raed, tier: maybe, arguments: { pth: 1 }, klock: 1 }",
                to: folder + "/broken.yaml")
            let broken = try kruxos.run("policy", "test", folder + "/broken.yaml")
            #expect(broken.code == 78)
            for part in ["did you mean `filesystem.read`?", "`maybe` is no tier", "did you mean `clock`?", ":2:"] {
                #expect(broken.errors.contains(part), "\(broken.errors)")
            }
        }
    }

    /// A file that is saved while agents call is in force within the budget, and nothing is answered in between.
    @Test func aRunningGatewayFollowsItsFiles() async throws {
        try await RealGateway.with(policies: [
            "agents/tester.yaml": "capabilities: { filesystem.mkdir: { tier: autonomous } }"
        ]) { gateway, _ in
            let kruxos = gateway.kruxos
            let file = "\(kruxos.home)/policies/agents/tester.yaml"
            func tier() throws -> String {
                let result = try kruxos.run(
                    "config", "check-policy", "--agent", "tester", "--capability", "filesystem.mkdir", "--json")
                return String(result.output.firstMatch(of: /"tier": "([a-z_]+)"/)?.1 ?? "-")
            }
            #expect(try tier() == "autonomous")
            var slowest = Duration.zero
            for wanted in ["blocked", "notify", "approval_required", "autonomous"] {
                try write("capabilities: { filesystem.mkdir: { tier: \(wanted) } }", to: file + ".new")
                #expect(rename(file + ".new", file) == 0)
                let clock = ContinuousClock()
                let start = clock.now
                while try tier() != wanted {
                    guard clock.now - start < .seconds(10) else { throw TestFailure("never \(wanted)") }
                }
                slowest = max(slowest, clock.now - start)
            }
            print("reload: at most \(slowest), the command that looks included")
            try write("capabilities: { filesystem.mkdir: { tier: sometimes } }", to: file)
            while try !kruxos.run("status").output.contains("sometimes") {}
            #expect(try tier() == "autonomous")
            #expect(try kruxos.run("notifications", "--json").output.contains("`sometimes` is no tier"))
            #expect(try kruxos.run("audit", "query", "--json").output.contains("refused"))
        }
    }

    @Test func explainFindsTheSmallestEditAndItApplies() async throws {
        try await withTemporaryFolder { folder in
            let kruxos = Kruxos(home: folder + "/home")
            _ = try kruxos.createAgent("a")
            let policies = "\(kruxos.home)/policies"
            try write(
                """
                capabilities:
                  filesystem.write:
                    rules:
                      - condition: { path_prefix: /workspace/a/out }
                        tier: autonomous
                    tier: blocked
                """, to: "\(policies)/agents/a.yaml")
            _ = try kruxos.run("config", "set", "policy", "personal-permissive")
            let call = ["--agent", "a", "--capability", "filesystem.write", "path=notes/x", "content=hello"]
            let result = try Kruxos.execute(
                Kruxos.path, ["policy", "explain", "--want", "autonomous", "--home", kruxos.home] + call)
            #expect(result.code == 0 && result.output.contains("path_prefix: /workspace/a/out: false"), "\(result)")
            let patch = String(
                result.output[(result.output.firstRange(of: "--- ")?.lowerBound ?? result.output.endIndex)...])
            let applied = try Kruxos.execute("/usr/bin/env", ["patch", "-p1", "-d", policies], input: patch)
            #expect(applied.code == 0, "\(applied) \(patch)")
            _ = try kruxos.run("config", "set", "policy", "personal-permissive")
            let after = try Kruxos.execute(Kruxos.path, ["config", "check-policy", "--home", kruxos.home] + call)
            #expect(after.output.contains("Tier:        autonomous"), "\(after) \(patch)")
        }
    }

    @Test func canFindsACallOrSaysThatThereIsNone() async throws {
        try await withTemporaryFolder { folder in
            let kruxos = Kruxos(home: folder + "/home")
            _ = try kruxos.createAgent("a")
            try write(
                """
                rules:
                  - capability: network.http_request
                    tier: autonomous
                    conditions:
                      host: "*.example.com"
                      method: GET
                      time_between: { from: "09:00", to: "17:00", zone: Europe/Berlin }
                      days: { on: [sat], zone: Europe/Berlin }
                      session: { label: deploy, age_lt: 1h }
                      arguments: { timeout_seconds: { gt: 30, lte: 31 } }
                  - { capability: network.http_request, tier: blocked }
                """, to: "\(kruxos.home)/policies/agents/a.yaml")
            _ = try kruxos.run("config", "set", "policy", "personal-permissive")
            let found = try kruxos.run("policy", "can", "--agent", "a", "--capability", "network.http_request")
            #expect(found.code == 0, "\(found)")
            for part in ["some.example.com", "method=GET", "timeout_seconds=31", "session labelled deploy", "at 20"] {
                #expect(found.output.contains(part), "\(found.output)")
            }
            let none = try kruxos.run(
                "policy", "can", "--agent", "a", "--capability", "network.http_request", "--where", "method=POST")
            #expect(none.code == 4 && none.output.hasPrefix("No: "), "\(none)")
        }
    }

    /// What a foreign file says moves no cursor and fakes no line.
    @Test func controlCharactersOfAPolicyAreShownNotSent() async throws {
        try await withTemporaryFolder { folder in
            let kruxos = Kruxos(home: folder + "/home")
            _ = try kruxos.createAgent("a")
            try write(
                """
                name: "ev\\e[31mil"
                description: "d\\e]0;t\\a"
                rules:
                  - { capability: filesystem.read, tier: blocked, reason: "r\\e]0;x\\aq" }
                  - { capability: "*", tier: notify, condition: { session: { label: "l\\e[2J" } } }
                defaults: { tier: notify }
                """, to: "\(kruxos.home)/policies/evil.yaml")
            let name = "ev\u{1b}[31mil"
            let call = ["--agent", "a", "--capability", "filesystem.read"]
            for arguments in [
                ["config", "validate", "\(kruxos.home)/policies/evil.yaml"], ["policy", "list"],
                ["config", "set", "policy", name], ["config", "show", "policy"], ["config", "check-policy"] + call,
                ["policy", "explain", "--all"] + call, ["policy", "lint"], ["policy", "history"], ["status"],
                ["policy", "can", "--agent", "a", "--capability", "git.push"],
            ] {
                let result = try Kruxos.execute(Kruxos.path, arguments + ["--home", kruxos.home])
                #expect(!(result.output + result.errors).utf8.contains(0x1B), "\(arguments)")
                #expect(result.code < 64, "\(arguments): \(result)")
            }
        }
    }
}
