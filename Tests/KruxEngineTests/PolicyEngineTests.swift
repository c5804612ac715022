import Foundation
import KruxApprovals
import KruxAudit
import KruxCapabilities
import KruxCore
import KruxEngine
import KruxPolicy
import KruxRegistry
import KruxStore
import KruxTestSupport
import Logging
import Synchronization
import Testing

/// A clock that a test sets, wall and monotonic each by itself.
final class TestClock: Sendable {
    private let times = Mutex((wall: Int64(1_767_225_600_000_000), monotonic: Int64(1_000_000)))

    var clock: WallClock {
        WallClock(
            now: { [self] in Timestamp(microseconds: times.withLock { $0.wall }) },
            monotonic: { [self] in times.withLock { $0.monotonic } }, boot: "test")
    }

    var elapsed: Int64 { times.withLock { $0.monotonic } }

    /// Time passes.
    func pass(seconds: Double) {
        let microseconds = Int64(seconds * 1_000_000)
        times.withLock {
            $0.wall += microseconds
            $0.monotonic += microseconds
        }
    }

    /// Somebody sets the clock.
    func step(seconds: Int64) { times.withLock { $0.wall += seconds * 1_000_000 } }
}

/// A home under a policy, for engines that come and go.
struct PolicyHome {
    let home: Home
    let clock: TestClock

    static func with(_ agentPolicy: String, _ body: (PolicyHome) async throws -> Void) async throws {
        try await withTemporaryFolder { folder in
            let home = Home(root: folder + "/home")
            try write(agentPolicy, to: "\(home.policies)/agents/tester.yaml")
            let fixture = PolicyHome(home: home, clock: TestClock())
            try await fixture.engine { engine in
                _ = try await engine.operate(
                    .agentCreate, ["name": "tester", "purpose": "tests"], by: .supervisor("owner"))
            }
            try await body(fixture)
            let store = try ReadOnlyStore(path: home.database)
            #expect(try AuditVerifier.verify({ try ReadOnlyStore(path: home.database) }).isIntact)
            // Whatever was recorded is what its policy decides.
            let replay = try PolicyReplay.run(store, candidate: nil, since: Timestamp(microseconds: 0))
            #expect(replay.disagreements.isEmpty && replay.indeterminate == 0, "\(replay)")
        }
    }

    func engine<R>(_ body: (Engine) async throws -> R) async throws -> R {
        let engine = try Engine(home: home, clock: clock.clock, log: Logger(label: "test"))
        let result: Result<R, any Error>
        do { result = .success(try await body(engine)) } catch { result = .failure(error) }
        try engine.close()
        return try result.get()
    }

    static func call(_ engine: Engine, _ capability: String, _ arguments: JSONObject) async throws -> CallReply {
        await engine.call(
            CallRequest(capability: capability, arguments: arguments),
            by: try engine.caller(agentNamed: "tester", via: "test"))
    }

    static func kind(_ reply: CallReply) -> StructuredError.Kind? {
        if case .failed(let error) = reply { error.kind } else { nil }
    }
}

@Suite struct RateLimitTests {
    private static let policy = """
        capabilities:
          filesystem.stat: { tier: autonomous, rate_limit: { max: 7, window: 60 } }
          filesystem.list: { tier: notify, rate_limit: { max: 2, window: 1h, on_exceed: approval_required } }
        """

    /// Eight clients at once, a restart in the middle, a clock that is set back and forth: the admitted calls are never
    /// more than the limit in any window of time that has really passed.
    @Test func neverOneMoreThanTheLimitInAnyWindow() async throws {
        try await PolicyHome.with(Self.policy) { fixture in
            var times: [Int64] = []
            var calls = 0
            for round in 0..<6 {
                try await fixture.engine { engine in
                    for burst in 0..<4 {
                        let clock = fixture.clock
                        times += await withTaskGroup(of: Int64?.self) { group in
                            for _ in 0..<8 {
                                group.addTask {
                                    let reply = try? await PolicyHome.call(engine, "filesystem.stat", ["path": "."])
                                    switch reply.map(PolicyHome.kind) {
                                    case .some(nil): return clock.elapsed
                                    case .some(.rateLimited): return nil
                                    case let other:
                                        Issue.record("\(String(describing: other))")
                                        return nil
                                    }
                                }
                            }
                            return await group.reduce(into: []) { if let time = $1 { $0.append(time) } }
                        }
                        calls += 8
                        fixture.clock.pass(seconds: [3.5, 11, 20, 29.999999][burst])
                        fixture.clock.step(seconds: [-3600, 7, -30, 100_000][(round + burst) % 4])
                    }
                }
            }
            #expect(times.count >= 14 && times.count < calls)
            for start in times {
                #expect(times.count { $0 >= start && $0 < start + 60_000_000 } <= 7)
            }
        }
    }

    @Test func aWindowFreesAsItSlides() async throws {
        try await PolicyHome.with(Self.policy) { fixture in
            try await fixture.engine { engine in
                for _ in 0..<7 {
                    let kind1 = PolicyHome.kind(try await PolicyHome.call(engine, "filesystem.stat", ["path": "."]))
                    #expect(kind1 == nil)
                    fixture.clock.pass(seconds: 1)
                }
                guard case .failed(let error) = try await PolicyHome.call(engine, "filesystem.stat", ["path": "."])
                else {
                    throw TestFailure("the eighth was admitted")
                }
                #expect(error.kind == .rateLimited && error.retryAfter == 53 && error.retryable)
                #expect(error.context["max"] == 7 && error.context["window_seconds"] == 60)
                fixture.clock.pass(seconds: 52.999)
                #expect(
                    PolicyHome.kind(try await PolicyHome.call(engine, "filesystem.stat", ["path": "."])) == .rateLimited
                )
                fixture.clock.pass(seconds: 0.001)
                let kind2 = PolicyHome.kind(try await PolicyHome.call(engine, "filesystem.stat", ["path": "."]))
                #expect(kind2 == nil)
                #expect(
                    PolicyHome.kind(try await PolicyHome.call(engine, "filesystem.stat", ["path": "."])) == .rateLimited
                )
            }
        }
    }

    @Test func beyondTheLimitAPersonIsAskedAndApprovedCallsDoNotCount() async throws {
        try await PolicyHome.with(Self.policy) { fixture in
            try await fixture.engine { engine in
                for _ in 0..<2 {
                    let kind3 = PolicyHome.kind(try await PolicyHome.call(engine, "filesystem.list", [:]))
                    #expect(kind3 == nil)
                }
                let reply = try await PolicyHome.call(engine, "filesystem.list", [:])
                #expect(PolicyHome.kind(reply) == .rateLimited)
                let id = try #require(reply.pendingRequest)
                guard case .failed(let error) = reply else { return }
                #expect(error.retryAfter == 3600)
                _ = try engine.decideApproval(id, .init(approve: true), by: .supervisor("owner"))
                await engine.runApproved(id)
                let caller = try engine.caller(agentNamed: "tester", via: "test")
                let ended = try await engine.approval(id, of: caller, waitSeconds: 0)
                #expect(ended.state == .succeeded)
                fixture.clock.pass(seconds: 3600)
                for _ in 0..<2 {
                    let kind4 = PolicyHome.kind(try await PolicyHome.call(engine, "filesystem.list", [:]))
                    #expect(kind4 == nil)
                }
            }
        }
    }

    @Test func aWindowKeepsItsCountWhenThePolicyChanges() async throws {
        try await PolicyHome.with(Self.policy) { fixture in
            func admitted(_ engine: Engine) async throws -> Bool {
                PolicyHome.kind(try await PolicyHome.call(engine, "filesystem.stat", ["path": "."])) == nil
            }
            func change(_ limit: String, _ engine: Engine) async throws {
                try write(
                    "capabilities: { filesystem.stat: { tier: autonomous, rate_limit: \(limit) } }",
                    to: "\(fixture.home.policies)/agents/tester.yaml")
                _ = try await engine.operate(.policyReload, [:], by: .supervisor("owner"))
            }
            try await fixture.engine { engine in
                for _ in 0..<7 { #expect(try await admitted(engine)) }
                fixture.clock.pass(seconds: 200)
                // The window of a minute is empty, the one of ten is not; memory held the former only.
                #expect(try await admitted(engine))
                try await change("{ max: 8, window: 10m }", engine)
                #expect(try await !admitted(engine))
                try await change("{ max: 9, window: 10m }", engine)
                #expect(try await admitted(engine))
                #expect(try await !admitted(engine))
            }
        }
    }

    @Test func concurrentCallsFillAWindowExactly() async throws {
        try await PolicyHome.with(Self.policy) { fixture in
            try await fixture.engine { engine in
                let admitted = await withTaskGroup(of: Bool.self) { group in
                    for _ in 0..<64 {
                        group.addTask {
                            let reply = try? await PolicyHome.call(engine, "filesystem.stat", ["path": "."])
                            return reply.map { PolicyHome.kind($0) == nil } ?? false
                        }
                    }
                    return await group.reduce(0) { $0 + ($1 ? 1 : 0) }
                }
                #expect(admitted == 7)
            }
        }
    }
}

@Suite struct ModeTests {
    @Test func aModeTightensWhateverChangesSomething() async throws {
        try await PolicyHome.with("capabilities: { \"*\": { tier: autonomous } }") { fixture in
            try await fixture.engine { engine in
                var folders = 0
                func kinds() async throws -> [StructuredError.Kind?] {
                    folders += 1
                    return [
                        PolicyHome.kind(try await PolicyHome.call(engine, "filesystem.list", [:])),
                        PolicyHome.kind(
                            try await PolicyHome.call(engine, "filesystem.mkdir", ["path": .string("d\(folders)")])),
                    ]
                }
                func set(_ mode: JSONValue) async throws {
                    _ = try await engine.operate(
                        .agentMode, ["name": "tester", "mode": mode], by: .supervisor("owner"))
                }
                #expect(try await kinds() == [nil, nil])
                try await set("ask")
                #expect(try await kinds() == [nil, .approvalPending])
                try await set("safe")
                #expect(try await kinds() == [nil, .blocked])
                // A session's own mode stands before the agent's.
                let session = try engine.caller(agentNamed: "tester", via: "test").session.id
                _ = try await engine.operate(
                    .sessionChange, ["id": .string(session), "mode": "auto"], by: .supervisor("owner"))
                #expect(try await kinds() == [nil, nil])
                _ = try await engine.operate(
                    .sessionChange, ["id": .string(session), "mode": ""], by: .supervisor("owner"))
                #expect(try await kinds() == [nil, .blocked])
                try await set(.null)
                _ = try await engine.operate(.agentRole, ["name": "tester", "role": "qa"], by: .supervisor("owner"))
                #expect(try await kinds() == [nil, .blocked])
                await #expect(throws: StructuredError.self) {
                    _ = try await engine.operate(
                        .agentRole, ["name": "tester", "role": "wizard"], by: .supervisor("owner"))
                }
                await #expect(throws: StructuredError.self) { try await set("askk") }
            }
            // It is kept over a restart.
            try await fixture.engine { engine in
                let kind5 = PolicyHome.kind(try await PolicyHome.call(engine, "filesystem.mkdir", ["path": "e"]))
                #expect(kind5 == .blocked)
            }
        }
    }

    @Test func aSessionsLabelAgeAndCallsCanBeAskedFor() async throws {
        let policy = """
            capabilities:
              filesystem.mkdir:
                rules:
                  - condition: { session: { label: deploy, age_lt: 10m, calls_lt: 5 } }
                    tier: autonomous
                tier: blocked
            """
        try await PolicyHome.with(policy) { fixture in
            try await fixture.engine { engine in
                func kind() async throws -> StructuredError.Kind? {
                    PolicyHome.kind(try await PolicyHome.call(engine, "filesystem.mkdir", ["path": "d"]))
                }
                #expect(try await kind() == .blocked)
                let session = try engine.caller(agentNamed: "tester", via: "test").session.id
                _ = try await engine.operate(
                    .sessionChange, ["id": .string(session), "label": "deploy"], by: .supervisor("owner"))
                for _ in 0..<3 { #expect(try await kind() != .blocked) }
                #expect(try await kind() == .blocked, "five calls were before it, one of them this test's own look")
            }
        }
    }

    @Test func toolsThatAModeBlocksAreNotOffered() async throws {
        try await PolicyHome.with("mode: explore\ncapabilities: { \"*\": { tier: autonomous } }") { fixture in
            try await fixture.engine { engine in
                let names = engine.offered(to: try engine.caller(agentNamed: "tester", via: "test")).map(
                    \.declaration.name.text)
                #expect(names.contains("filesystem.read") && !names.contains("filesystem.write"))
            }
        }
    }
}

@Suite struct PolicyChangeTests {
    private static func waitUntil(_ what: String, _ body: () throws -> Bool) async throws -> Duration {
        let clock = ContinuousClock()
        let start = clock.now
        while try !body() {
            guard clock.now - start < .seconds(10) else { throw TestFailure("never: \(what)") }
            try await Task.sleep(for: .milliseconds(1))
        }
        return clock.now - start
    }

    private static func policyRows(_ home: Home) throws -> [(action: String, outcome: String?)] {
        try ReadOnlyStore(path: home.database).read { tx in
            try tx.rows(
                "SELECT json_extract(body, '$.detail.action'), outcome FROM audit WHERE phase = 'policy' ORDER BY seq"
            ) { ($0.text(0), $0.optionalText(1)) }
        }
    }

    @Test func aChangedFileIsInForceWithoutAWord() async throws {
        try await PolicyHome.with("capabilities: { filesystem.mkdir: { tier: autonomous } }") { fixture in
            let file = "\(fixture.home.policies)/agents/tester.yaml"
            try await fixture.engine { engine in
                engine.watchPolicies()
                func tier() throws -> Tier? {
                    engine.offered(to: try engine.caller(agentNamed: "tester", via: "test"))
                        .first { $0.declaration.name.text == "filesystem.mkdir" }?.tier
                }
                #expect(try tier() == .autonomous)
                // Written in place.
                try Data("capabilities: { filesystem.mkdir: { tier: notify } }".utf8).write(
                    to: URL(fileURLWithPath: file))
                _ = try await Self.waitUntil("in place") { try tier() == .notify }
                // As editors do: a swap file, a new file, a rename over the old one.
                try write("junk", to: "\(fixture.home.policies)/agents/.tester.yaml.swp")
                try write("capabilities: { filesystem.mkdir: { tier: approval_required } }", to: file + "~")
                rename(file + "~", file)
                _ = try await Self.waitUntil("renamed") { try tier() == .approvalRequired }
                // A mistake keeps what was in force, says so, and is on record once.
                try write("capabilities: { filesystem.mkdir: { tier: sometimes } }", to: file)
                _ = try await Self.waitUntil("refused") { !engine.isReady }
                #expect(try tier() == .approvalRequired)
                try write("# still\ncapabilities: { filesystem.mkdir: { tier: sometimes } }", to: file)
                try write("capabilities: { filesystem.mkdir: { tier: autonomous } }", to: file)
                _ = try await Self.waitUntil("mended") { try tier() == .autonomous }
                #expect(engine.isReady)
                // A mistake in the organisation's own file.
                try write("defaults: { tier: maybe }", to: "\(fixture.home.policies)/org.yaml")
                _ = try await Self.waitUntil("org refused") { !engine.isReady }
                #expect(try tier() == .autonomous)
                unlink("\(fixture.home.policies)/org.yaml")
                _ = try await Self.waitUntil("org gone") { engine.isReady }
                // A folder that is put in the place of the old one.
                rename("\(fixture.home.policies)/agents", "\(fixture.home.policies)/agents-old")
                try write(
                    "capabilities: { filesystem.mkdir: { tier: notify } }",
                    to: "\(fixture.home.policies)/new/tester.yaml")
                rename("\(fixture.home.policies)/new", "\(fixture.home.policies)/agents")
                _ = try await Self.waitUntil("replaced folder") { try tier() == .notify }
                try write("capabilities: { filesystem.mkdir: { tier: blocked } }", to: file)
                _ = try await Self.waitUntil("in the new folder") { try tier() == nil }
            }
            let rows = try Self.policyRows(fixture.home)
            #expect(rows.count { $0.action == "refused" && $0.outcome == "failed" } >= 2)
            #expect(rows.count { $0.action == "activated" } >= 6)
        }
    }

    @Test func anEarlierVersionComesBackWithItsFiles() async throws {
        try await PolicyHome.with("capabilities: { filesystem.mkdir: { tier: autonomous } }") { fixture in
            let file = "\(fixture.home.policies)/agents/tester.yaml"
            let first = try String(contentsOfFile: file, encoding: .utf8)
            try await fixture.engine { engine in
                let before = try #require(try engine.store.read(PolicyVersions.current)?.version)
                try write("capabilities: { filesystem.mkdir: { tier: blocked } }", to: file)
                try write("name: extra\ndefaults: { tier: notify }", to: "\(fixture.home.policies)/extra.yaml")
                _ = try await engine.operate(.policySet, ["name": "extra"], by: .supervisor("owner"))
                let result = try await engine.operate(.policyActivate, [:], by: .supervisor("owner"))
                #expect(result["version"]?.int == before && result["name"] == "personal-permissive")
                #expect(try String(contentsOfFile: file, encoding: .utf8) == first)
                #expect(!FileManager.default.fileExists(atPath: "\(fixture.home.policies)/extra.yaml"))
                let aside = try #require(
                    try FileManager.default.contentsOfDirectory(atPath: "\(fixture.home.policies)/.replaced").first)
                #expect(
                    try String(
                        contentsOfFile: "\(fixture.home.policies)/.replaced/\(aside)/extra.yaml", encoding: .utf8
                    )
                    .hasPrefix("name: extra"))
                // And forward again.
                _ = try await engine.operate(.policyActivate, [:], by: .supervisor("owner"))
                #expect(FileManager.default.fileExists(atPath: "\(fixture.home.policies)/extra.yaml"))
                await #expect(throws: StructuredError.self) {
                    _ = try await engine.operate(.policyActivate, ["version": 99], by: .supervisor("owner"))
                }
            }
        }
    }

    @Test func aStoredPolicyThatWasChangedIsNotUsed() async throws {
        for change in [
            "UPDATE policy_versions SET compiled = CAST(replace(CAST(compiled AS TEXT), 'notify', 'autonomous') AS BLOB)",
            "UPDATE policy_versions SET bundle = replace(bundle, 'tier: notify', 'tier: autonomous')",
        ] {
            try await PolicyHome.with("capabilities: { filesystem.mkdir: { tier: notify } }") { fixture in
                let copy = fixture.home.root + "/copy.db"
                try FileManager.default.copyItem(atPath: fixture.home.database, toPath: copy)
                try tamper(copy, change)
                let store = try ReadOnlyStore(path: copy)
                #expect(throws: StoreError(.corrupt, "")) {
                    _ = try store.read(PolicyVersions.current)?.policy(Capabilities.catalogue)
                }
            }
        }
    }

    @Test func aRateClockOfAForeignHandIsNotBelieved() async throws {
        try await PolicyHome.with(
            "capabilities: { system.time: { tier: autonomous, rate_limit: { max: 1, window: 60 } } }"
        ) {
            fixture in
            try tamper(
                fixture.home.database,
                "UPDATE meta SET value = 'test 9223372036854775807' WHERE key = 'rate_clock'; INSERT INTO rate_calls VALUES ('tester', 'agent', 'tester', 'system.time', 9223372036854775807, 1)"
            )
            try await fixture.engine { engine in
                let first = PolicyHome.kind(try await PolicyHome.call(engine, "system.time", [:]))
                let second = PolicyHome.kind(try await PolicyHome.call(engine, "system.time", [:]))
                #expect(first == .rateLimited || first == nil)
                #expect(second == .rateLimited)
            }
        }
    }

    @Test func theStoredBytesDecide() async throws {
        try await PolicyHome.with("capabilities: { filesystem.mkdir: { tier: notify } }") { fixture in
            let store = try ReadOnlyStore(path: fixture.home.database)
            let version = try #require(try store.read(PolicyVersions.current))
            let form = try #require(version.compiled)
            let policy = try CompiledPolicy(form: form, catalogue: Capabilities.catalogue)
            #expect(policy.form == form)
            #expect(try PolicyCompiler.compile(version.bundle, catalogue: Capabilities.catalogue).form == form)
        }
    }
}

@Suite struct ReplayTests {
    private static let policy = """
        capabilities:
          filesystem.write:
            rules:
              - condition: { arguments: { content: { matches: ".*secret.*" } } }
                tier: blocked
              - condition: { content_size_gte: 100 }
                tier: notify
            tier: autonomous
          process.run:
            rules:
              - condition: { command_prefix: [git status, ls] }
                tier: autonomous
            tier: approval_required
          filesystem.stat: { tier: autonomous, rate_limit: { max: 2, window: 60 } }
        """

    private static func run(_ fixture: PolicyHome) async throws {
        try await fixture.engine { engine in
            for content in [
                "x", String(repeating: "y", count: 5000), "a secret", String(repeating: "secret", count: 1000),
            ] {
                _ = try await PolicyHome.call(engine, "filesystem.write", ["path": "a", "content": .string(content)])
            }
            for _ in 0..<3 { _ = try await PolicyHome.call(engine, "filesystem.stat", ["path": "a"]) }
            _ = try await PolicyHome.call(engine, "process.run", ["command": "make", "args": ["all"]])
            _ = try await PolicyHome.call(engine, "process.run", ["command": "ls; git status", "shell": true])
            _ = try await PolicyHome.call(
                engine, "process.run",
                ["command": "git", "args": ["status", .string(String(repeating: "z", count: 3000))]])
        }
    }

    /// `PolicyHome.with` replays every record under its own policies; here values are hidden from the record.
    @Test func theRecordAgreesWithItsPolicyEvenWhereValuesAreHidden() async throws {
        try await PolicyHome.with(Self.policy) { fixture in
            try await Self.run(fixture)
            let rows = try ReadOnlyStore(path: fixture.home.database).read {
                try AuditQuery.rows($0, AuditFilter())
            }.compactMap { $0.body?["facts"]?["hidden"] }
            #expect(rows.count >= 3, "the record hides long values")
            #expect(rows.contains { $0["judged"]?.object?.isEmpty == false })
        }
    }

    @Test func aRecordThatWasDecidedOtherwiseIsFound() async throws {
        try await PolicyHome.with(Self.policy) { fixture in
            try await Self.run(fixture)
            let copy = fixture.home.root + "/copy.db"
            try FileManager.default.copyItem(atPath: fixture.home.database, toPath: copy)
            let text =
                "UPDATE audit SET body = json_set(body, '$.decision.tier', 'notify') WHERE capability = 'filesystem.stat'"
            try tamper(copy, text)
            let replay = try PolicyReplay.run(
                ReadOnlyStore(path: copy), candidate: nil, since: Timestamp(microseconds: 0))
            #expect(replay.disagreements.count == 3)
        }
    }

    @Test func aCandidateShowsWhatWouldChange() async throws {
        try await PolicyHome.with(Self.policy) { fixture in
            try await Self.run(fixture)
            let store = try ReadOnlyStore(path: fixture.home.database)
            var bundle = try #require(try store.read(PolicyVersions.current)).bundle
            bundle.agents["tester"] = PolicySource(
                file: "agents/tester.yaml",
                text: Array(
                    """
                    capabilities:
                      filesystem.write:
                        rules:
                          - condition: { arguments: { content: { matches: ".*other.*" } } }
                            tier: blocked
                        tier: autonomous
                      process.run: { tier: autonomous }
                    """.utf8))
            let candidate = try PolicyCompiler.compile(bundle, catalogue: Capabilities.catalogue)
            let replay = try PolicyReplay.run(store, candidate: candidate, since: Timestamp(microseconds: 0))
            #expect(
                replay.changes.contains {
                    $0.capability == "process.run" && $0.from == .approvalRequired && $0.to == .autonomous
                })
            #expect(
                replay.changes.contains {
                    $0.capability == "filesystem.write" && $0.from == .blocked && $0.to == .autonomous
                })
            // It asks of content that the record does not show something that nobody judged then.
            #expect(replay.indeterminate == 2)
        }
    }

    @Test func whatWasAlwaysApprovedIsProposedAndWhatWasEverRejectedIsNot() async throws {
        try await PolicyHome.with("capabilities: { process.run: { tier: approval_required } }") { fixture in
            try await fixture.engine { engine in
                func ask(_ words: [String], approve: Bool) async throws {
                    let reply = try await PolicyHome.call(
                        engine, "process.run",
                        ["command": .string(words[0]), "args": .strings(Array(words.dropFirst()))])
                    let id = try #require(reply.pendingRequest)
                    _ = try engine.decideApproval(id, .init(approve: approve), by: .supervisor("owner"))
                }
                for target in ["all", "test", "docs"] { try await ask(["make", "-C", "src", target], approve: true) }
                for branch in ["a", "b", "c"] { try await ask(["git", "push", "origin", branch], approve: true) }
                try await ask(["git", "push", "origin", "main"], approve: false)
                try await ask(["rm", "x"], approve: true)
            }
            let store = try ReadOnlyStore(path: fixture.home.database)
            let version = try #require(try store.read(PolicyVersions.current))
            let found = try PolicySuggestion.find(
                store, version.bundle, try version.policy(Capabilities.catalogue), since: Timestamp(microseconds: 0),
                least: 3)
            #expect(found.map(\.condition) == ["command_prefix: \"make -C src\""])
            #expect(found.first?.requests.count == 3)
            // The patch is one that compiles and answers.
            let edit = try #require(found.first?.edit)
            #expect(edit.patch.contains("+  - capability: process.run"))
        }
    }
}
