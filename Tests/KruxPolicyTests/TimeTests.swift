import KruxCore
import KruxPolicy
import Testing

/// Wall clocks, with Berlin's changes of 2026: forward on 29 March, back on 25 October, both at 01:00 UTC.
@Suite struct TimeTests {
    private static let berlin = TimeZoneTable(
        name: "Europe/Berlin",
        changes: [
            .init(from: 0, offset: 3600), .init(from: 1_774_746_000, offset: 7200),
            .init(from: 1_792_890_000, offset: 3600),
        ])

    @Test(arguments: [
        ("2026-03-29T00:59:59Z", 119, 6), ("2026-03-29T01:00:00Z", 180, 6), ("2026-10-25T00:59:59Z", 179, 6),
        ("2026-10-25T01:00:00Z", 120, 6), ("2026-11-20T23:30:00Z", 30, 5), ("1969-12-31T23:30:00Z", 30, 3),
    ])
    func aTableTellsTheTimeToTheSecond(_ text: String, _ minute: Int64, _ weekday: Int64) throws {
        let time = try #require(Timestamp(parsing: text))
        #expect(Self.berlin.minuteOfDay(time) == minute)
        #expect(Self.berlin.weekday(time) == weekday)
    }

    @Test func windowsPassMidnightAndEndBeforeTheirEnd() throws {
        let policy = try PolicyFixture(
            active: """
                capabilities:
                  system.time:
                    rules:
                      - condition: { time_between: { from: "22:00", to: "06:00", zone: Europe/Berlin } }
                        tier: blocked
                      - condition: { days: { on: [sat, sun], zone: Europe/Berlin } }
                        tier: notify
                    tier: autonomous
                """, zones: [Self.berlin])
        func tier(_ text: String) throws -> Tier {
            let time = try #require(Timestamp(parsing: text))
            return policy.decide("system.time", [:]) { $0.time = time }.tier
        }
        #expect(try tier("2026-07-15T19:59:59Z") == .autonomous)
        #expect(try tier("2026-07-15T20:00:00Z") == .blocked)
        #expect(try tier("2026-07-16T03:59:59Z") == .blocked)
        #expect(try tier("2026-07-16T04:00:00Z") == .autonomous)
        #expect(try tier("2026-07-18T10:00:00Z") == .notify)
        #expect(try tier("2026-07-17T22:00:00Z") == .blocked, "Saturday there, and night")
    }

    @Test func aZoneIsPartOfTheBundleAndItsDigest() throws {
        let text =
            "capabilities: { system.time: { rules: [{ condition: { days: { on: [mon], zone: Mars/Olympus } }, tier: notify }] } }"
        #expect(errors(text).first?.contains("no time zone is named `Mars/Olympus`") == true)
        let one = try PolicyFixture(
            active: text, zones: [TimeZoneTable(name: "Mars/Olympus", changes: [.init(from: 0, offset: 0)])])
        let other = try PolicyFixture(
            active: text, zones: [TimeZoneTable(name: "Mars/Olympus", changes: [.init(from: 0, offset: 60)])])
        #expect(one.bundle.digest != other.bundle.digest && one.compiled.form != other.compiled.form)
        #expect(one.bundle.namedZones == ["Mars/Olympus"])
        #expect(PolicyBundle(json: one.bundle.json) == one.bundle)
    }
}

@Suite struct PolicyToolTests {
    @Test func lintFindsWhatDoesNothing() throws {
        let policy = try PolicyFixture(
            active: """
                agent_overrides: tighten_only
                defaults: { tier: notify }
                rules:
                  - { capability: "filesystem.*", tier: notify, locked: true }
                  - { capability: filesystem.read, tier: autonomous }
                  - { capability: email.send, tier: notify, condition: { recipient: a@b.example } }
                  - { capability: email.send, tier: blocked, conditions: { recipient: a@b.example, recipient_domain: b.example } }
                  - { capability: no.such, tier: notify }
                  - { capability: git.push, tier: blocked, locked: true }
                """, agents: ["a": "capabilities: { git.push: { tier: autonomous } }"])
        let found = PolicyLint.findings(policy.compiled)
        func has(_ kind: PolicyLint.Kind, _ line: Int, _ file: String = "active.yaml") -> Bool {
            found.contains { $0.kind == kind && $0.location.line == line && $0.location.file == file }
        }
        #expect(has(.needlessLock, 4) && has(.unreachable, 5) && has(.shadowed, 7) && has(.compiler, 8))
        #expect(has(.needlessLock, 9) && has(.relaxation, 1, "agents/x.yaml") && has(.defaultOnly, 2))
        #expect(found.count == 7, "\(found)")
    }

    @Test func explanationsNameEveryRuleAndItsConditions() throws {
        let policy = try PolicyFixture(
            active: """
                capabilities:
                  filesystem.write:
                    rules:
                      - { condition: { path_prefix: /workspace/a/x, content_size_lt: 5 }, tier: autonomous }
                      - { condition: { content_size_lt: 5 }, tier: notify }
                      - { condition: { content_size_gte: 5 }, tier: blocked }
                    tier: approval_required
                """)
        let explanation = policy.compiled.explain(
            policy.facts("filesystem.write", ["path": "/workspace/a/y", "content": "abc"]))
        let table = try #require(explanation.tables.first { $0.layer == .organisation })
        #expect(table.rules.map(\.outcome) == [.noMatch, .matched, .notReached, .notReached])
        #expect(table.rules[0].conditions.map(\.truth) == [.no, .yes])
        #expect(explanation.decision.tier == .notify)
    }

    @Test func everyProposedEditDoesWhatItSays() throws {
        let seed = UInt64.random(in: 0..<1 << 53)
        var generator = PolicyGenerator(seed: seed)
        var found = 0
        for _ in 0..<60 {
            let model = generator.bundle()
            let bundle = EquivalenceTests.bundle(model)
            let policy = try PolicyCompiler.compile(bundle, catalogue: PolicyFixture.catalogue)
            let call = generator.call(for: model)
            let facts = try EquivalenceTests.facts(call, policy)
            guard
                let edit = PolicyEdit.nearest(
                    bundle, policy, facts, capability: call.capability, wanted: nil, catalogue: PolicyFixture.catalogue)
            else { continue }
            found += 1
            let changed = try #require(bundle.replacing(edit.file, with: edit.after))
            let after = try PolicyCompiler.compile(changed, catalogue: PolicyFixture.catalogue)
            #expect(after.decide(facts).tier == edit.tier && edit.tier != policy.decide(facts).tier, "seed \(seed)")
            #expect(edit.patch.hasPrefix("--- ") && edit.cost > 0)
        }
        #expect(found > 30, "seed \(seed)")
    }

    /// What `can` finds is a call that gets the tier; what it calls exactly impossible, no generated call gets.
    @Test func aSearchIsRightInBothDirections() throws {
        let seed = UInt64.random(in: 0..<1 << 53)
        var generator = PolicyGenerator(seed: seed)
        var possible = 0
        var impossible = 0
        for _ in 0..<60 {
            let model = generator.bundle()
            let policy = try PolicyCompiler.compile(EquivalenceTests.bundle(model), catalogue: PolicyFixture.catalogue)
            for name in ["filesystem.write", "process.run", "email.send", "network.http_request"] {
                let declaration = try #require(PolicyFixture.catalogue[name])
                let facts = CallFacts(
                    agent: "ada", capability: try #require(policy.index(of: name)), declaration: declaration,
                    arguments: [:], complete: false, time: Timestamp(microseconds: 1_767_225_600_000_000))
                let search = PolicySearch.run(policy, facts, declaration: declaration, upTo: .notify)
                if let witness = search.witness {
                    possible += 1
                    #expect(witness.decision.tier <= .notify, "seed \(seed)")
                } else if search.isExact {
                    impossible += 1
                    for _ in 0..<200 {
                        var call = generator.call(for: model)
                        // Calls that a gateway can meet: paths in the workspace; recipients and command lines that are
                        // those of the arguments; defaults filled in.
                        guard call.capability == name, call.agent == "ada", name != "email.send",
                            call.paths.allSatisfy({ "\($0)/".hasPrefix("/workspace/ada/") })
                        else { continue }
                        if name == "process.run", case .text(let command)? = call.arguments["command"] {
                            var words = [command]
                            if case .list(let elements)? = call.arguments["args"] {
                                words += elements
                            }
                            call.lines = [words]
                        }
                        for property in declaration.input.properties where call.arguments[property.name] == nil {
                            switch property.defaultValue {
                            case .string(let text)?: call.arguments[property.name] = .text(text)
                            case .int(let number)?: call.arguments[property.name] = .int(number)
                            case .bool(let flag)?: call.arguments[property.name] = .bool(flag)
                            default: break
                            }
                        }
                        call.mode = nil
                        call.role = nil
                        call.grant = false
                        let tier = policy.decide(try EquivalenceTests.facts(call, policy)).tier
                        #expect(tier > .notify, "seed \(seed): \(name) \(call)\n\(EquivalenceTests.text(model))")
                    }
                }
            }
        }
        #expect(possible > 20 && impossible > 5, "seed \(seed): \(possible) \(impossible)")
    }

    @Test(arguments: [
        ("", "a\n", "--- /dev/null\n+++ b/f\n@@ -0,0 +1,1 @@\n+a\n"),
        ("a\n", "", "--- a/f\n+++ /dev/null\n@@ -1,1 +0,0 @@\n-a\n"),
        ("a\nb\nc\n", "a\nx\nc\n", "--- a/f\n+++ b/f\n@@ -1,3 +1,3 @@\n a\n-b\n+x\n c\n"),
        ("a", "a\n", "--- a/f\n+++ b/f\n@@ -1,1 +1,1 @@\n-a\n\\ No newline at end of file\n+a\n"),
        ("a\n", "a\n", ""),
        (
            (0..<30).map { "\($0)\n" }.joined(), (0..<30).map { $0 == 3 || $0 == 25 ? "x\n" : "\($0)\n" }.joined(),
            "--- a/f\n+++ b/f\n@@ -1,7 +1,7 @@\n 0\n 1\n 2\n-3\n+x\n 4\n 5\n 6\n@@ -23,7 +23,7 @@\n 22\n 23\n 24\n-25\n+x\n 26\n 27\n 28\n"
        ),
    ])
    func aDiffIsWhatPatchTakes(_ before: String, _ after: String, _ expected: String) {
        #expect(unifiedDiff(Array(before.utf8), Array(after.utf8), file: "f") == expected)
    }
}
