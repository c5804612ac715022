import KruxCapabilities
import KruxCore
import KruxPolicies
import KruxPolicy
import Testing

/// The policies of the user's documents, with the tiers they are documented to give.
@Suite struct DocumentedPolicyTests {
    @Test func basicStructure() throws {
        let policy = try PolicyFixture(
            active: """
                name: active
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
                """)
        #expect(policy.tier("filesystem.read") == .autonomous)
        #expect(policy.tier("filesystem.write") == .notify)
        #expect(policy.tier("filesystem.delete") == .approvalRequired)
        #expect(policy.tier("process.run") == .approvalRequired)
        #expect(policy.tier("secrets.use") == .blocked)
        #expect(policy.tier("network.http_request") == .notify)
        let decision = policy.decide("filesystem.delete")
        let rule = try #require(decision.rule.map { policy.compiled.rules[$0] })
        #expect(rule.location.description == "active.yaml:14:3")
        #expect(rule.reason == "File deletion requires approval")
    }

    @Test func conditionalRules() throws {
        let policy = try PolicyFixture(
            active: """
                capabilities:
                  filesystem.write:
                    rules:
                      # Small files are autonomous
                      - condition:
                          content_size_lt: 10240  # 10 KB
                        tier: autonomous

                      # Large files need approval
                      - condition:
                          content_size_gte: 10240
                        tier: approval_required
                        reason: "Large file writes need review"
                """)
        #expect(policy.tier("filesystem.write", size: 10239) == .autonomous)
        #expect(policy.tier("filesystem.write", size: 10240) == .approvalRequired)
        // Neither can be judged, and past them nothing allows it.
        #expect(policy.tier("filesystem.write", size: nil) == .blocked)
        #expect(policy.tier("filesystem.read") == .blocked)
    }

    @Test func agentOverridesRelaxWithinWhatTheSystemAllows() throws {
        let policy = try PolicyFixture(
            agents: [
                "deploy-bot": """
                agent: deploy-bot
                extends: team-moderate

                capabilities:
                  process.run:
                    tier: autonomous  # Deploy bot can run processes without approval
                    reason: "Deployment automation has pre-approved process access"

                  git.*:
                    tier: autonomous
                """
            ])
        #expect(policy.tier("process.run", agent: "deploy-bot") == .autonomous)
        #expect(policy.tier("process.run", agent: "other") == .approvalRequired)
        #expect(policy.tier("git.push", agent: "deploy-bot") == .autonomous)
        #expect(policy.tier("filesystem.delete", agent: "deploy-bot") == .approvalRequired)
        #expect(policy.tier("secrets.read_raw", agent: "deploy-bot") == .blocked)
    }

    private static let bookkeeper = """
        # policies/agents/bookkeeper.yaml
        rules:
          # Can read and process emails autonomously
          - capability: "email.list"
            tier: autonomous
          - capability: "email.read"
            tier: autonomous
          # Email sends require approval
          - capability: "email.send"
            tier: approval_required
            reason: "All outgoing emails require review"
          # Can use shared state freely
          - capability: "state.shared.*"
            tier: notify
          # No access to code or filesystem outside workspace
          - capability: "git.*"
            tier: blocked
          - capability: "filesystem.*"
            tier: autonomous
            conditions:
              path_prefix: "/workspace/bookkeeper/"
          - capability: "filesystem.*"
            tier: blocked
            reason: "Cannot access files outside workspace"
        """

    @Test func agentSpecificPolicy() throws {
        let policy = try PolicyFixture(agents: ["bookkeeper": Self.bookkeeper])
        let inside = ["/workspace/bookkeeper/books/2026.csv"]
        #expect(policy.tier("email.list", agent: "bookkeeper") == .autonomous)
        #expect(policy.tier("email.send", agent: "bookkeeper") == .approvalRequired)
        #expect(policy.tier("state.shared.set", agent: "bookkeeper") == .notify)
        #expect(policy.tier("git.commit", agent: "bookkeeper") == .blocked)
        #expect(policy.tier("filesystem.write", agent: "bookkeeper", paths: inside) == .autonomous)
        #expect(policy.tier("filesystem.write", agent: "bookkeeper", paths: ["/workspace/other/x"]) == .blocked)
        #expect(policy.tier("filesystem.write", agent: "bookkeeper", paths: ["/workspace/bookkeeper-2/x"]) == .blocked)
        #expect(policy.tier("filesystem.write", agent: "bookkeeper", paths: ["/workspace/bookkeeper"]) == .autonomous)
        // One of two paths outside decides.
        #expect(policy.tier("filesystem.copy", agent: "bookkeeper", paths: inside + ["/workspace/x"]) == .blocked)
        // The organisation locks deletion, wherever the file lies.
        #expect(policy.tier("filesystem.delete", agent: "bookkeeper", paths: inside) == .approvalRequired)
        let decision = policy.decide("filesystem.read", agent: "bookkeeper", paths: ["/workspace/x"])
        #expect(decision.rule.flatMap { policy.compiled.rules[$0].reason } == "Cannot access files outside workspace")
    }

    @Test func organisationDefaultsStandAboveTheTemplate() throws {
        let policy = try PolicyFixture(
            organisation: """
                defaults:
                  tier: notify # Default: execute but notify supervisor
                overrides:
                  # All agents can read their own state
                  - capability: "state.persistent.*"
                    tier: autonomous
                  # Destructive operations always need approval
                  - capability: "filesystem.delete"
                    tier: approval_required
                  - capability: "process.kill"
                    tier: approval_required
                """,
            agents: [
                "a":
                    "capabilities:\n  filesystem.delete: { tier: autonomous }\n  state.persistent.set: { tier: blocked }"
            ],
            template: "personal-permissive")
        #expect(policy.tier("state.persistent.set", agent: "b") == .autonomous)
        #expect(
            policy.tier("state.persistent.set") == .blocked, "an override locks from loosening, not from tightening")
        #expect(policy.tier("filesystem.delete") == .approvalRequired)
        #expect(policy.tier("process.kill") == .approvalRequired)
        #expect(policy.tier("filesystem.read") == .autonomous)
    }

    @Test func theListExampleStandsAlone() throws {
        let policy = try PolicyFixture(
            active: """
                rules:
                  - capability: "filesystem.read"
                    tier: autonomous
                    conditions:
                      path_prefix: "/workspace/agent-name/"
                """)
        #expect(policy.tier("filesystem.read", paths: ["/workspace/agent-name/x"]) == .autonomous)
        #expect(policy.tier("filesystem.read", paths: ["/workspace/agent-names/x"]) == .blocked)
    }

    @Test func rateLimits() throws {
        let policy = try PolicyFixture(
            active: """
                capabilities:
                  email.send:
                    tier: notify
                    rate_limit:
                      max: 10
                      window: 3600  # 1 hour
                      on_exceed: approval_required
                    reason: "Email sending is rate-limited"
                """)
        let decision = policy.decide("email.send", ["to": ["a@b.example"], "subject": "", "body": ""])
        #expect(decision.tier == .notify)
        let rule = try #require(decision.limits.first)
        #expect(
            policy.compiled.rules[Int(rule)].rateLimit
                == RateLimit(max: 10, windowSeconds: 3600, onExceed: .approvalRequired))
        let limited = policy.compiled.limited(decision) { _ in true }
        #expect(limited.tier == .approvalRequired && limited.cause == .rateLimit)
        #expect(policy.compiled.limited(decision) { _ in false } == decision)
    }

    @Test(arguments: BuiltInPolicies.templates.map(\.file))
    func templatesCompileAndCoverEverything(_ file: String) throws {
        let name = String(file.dropLast(5))
        let policy = try PolicyFixture(template: name)
        #expect(policy.compiled.warnings.isEmpty)
        for declaration in Capabilities.catalogue.declarations {
            let decision = policy.decide(declaration.name.text)
            #expect(decision.rule != nil, "\(declaration.name) has no rule")
            #expect(!decision.indeterminate)
        }
        #expect(policy.tier("secrets.read_raw") == .blocked)
        #expect(policy.tier("secrets.export") == .blocked)
    }

    @Test func templatesKeepTheirPromises() throws {
        let personal = try PolicyFixture(template: "personal-permissive")
        let team = try PolicyFixture(template: "team-moderate")
        let enterprise = try PolicyFixture(template: "enterprise-restrictive")
        for declaration in Capabilities.catalogue.declarations {
            let name = declaration.name.text
            let tiers = [personal, team, enterprise].map { $0.tier(name) }
            #expect(tiers[0] <= tiers[2], "\(name): personal is stricter than enterprise")
            if declaration.effect == .read, !name.hasPrefix("email.") {
                #expect(tiers[1] <= .notify, "\(name): team asks for a read")
            } else if name.hasPrefix("filesystem.") || name.hasPrefix("git.") || name.hasPrefix("process.") {
                #expect(tiers[2] >= .approvalRequired, "\(name): enterprise lets a write pass")
            }
        }
        // Locks of team-moderate hold against an agent's own file; enterprise-restrictive tightens only.
        let loose = ["a": "capabilities: { \"*\": { tier: autonomous } }"]
        let teamLoose = try PolicyFixture(agents: loose)
        #expect(teamLoose.tier("filesystem.delete") == .approvalRequired)
        #expect(teamLoose.tier("process.kill") == .approvalRequired)
        #expect(teamLoose.tier("process.run") == .autonomous)
        let enterpriseLoose = try PolicyFixture(agents: loose, template: "enterprise-restrictive")
        #expect(enterpriseLoose.tier("process.run") == .approvalRequired)
        #expect(enterpriseLoose.tier("filesystem.write") == .approvalRequired)
    }
}
