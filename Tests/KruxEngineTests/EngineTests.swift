import Foundation
import KruxApprovals
import KruxAudit
import KruxCore
import KruxEngine
import KruxStore
import KruxTestSupport
import Logging
import Testing

/// An engine on a home of its own with one agent, under a policy that needs approval to delete.
struct EngineFixture {
    let engine: Engine

    static let policy = """
        agent: tester
        capabilities:
          filesystem.delete: { tier: approval_required, reason: "Deleting asks first" }
          process.run: { tier: approval_required }
          filesystem.append: { tier: blocked, reason: "Append is off" }
          filesystem.mkdir: { tier: notify }
        """

    static func with<R>(_ body: (EngineFixture) async throws -> R) async throws -> R {
        try await withTemporaryFolder { folder in
            let home = Home(root: folder + "/home")
            try write(policy, to: "\(home.policies)/agents/tester.yaml")
            let engine = try Engine(home: home, log: Logger(label: "test"))
            _ = try await engine.operate(
                .agentCreate, ["name": "tester", "purpose": "tests"], by: .supervisor("owner"))
            let result = try await body(EngineFixture(engine: engine))
            try engine.close()
            #expect(try AuditVerifier.verify({ try ReadOnlyStore(path: home.database) }).isIntact)
            return result
        }
    }

    func call(_ capability: String, _ arguments: JSONObject) async throws -> CallReply {
        await engine.call(
            CallRequest(capability: capability, arguments: arguments),
            by: try engine.caller(agentNamed: "tester", via: "test"))
    }

    func error(_ capability: String, _ arguments: JSONObject) async throws -> StructuredError {
        guard case .failed(let error) = try await call(capability, arguments) else { throw TestFailure("it succeeded") }
        return error
    }

    func ask(_ capability: String, _ arguments: JSONObject) async throws -> String {
        let reply = try await call(capability, arguments)
        return try #require(reply.pendingRequest, "\(reply)")
    }

    func decide(_ id: String, approve: Bool, run: Bool = true) async throws {
        _ = try engine.decideApproval(id, .init(approve: approve, reason: "because"), by: .supervisor("owner"))
        if approve, run { await engine.runApproved(id) }
    }

    func request(_ id: String) throws -> ApprovalRequest { try engine.store.read { try ApprovalQueue.require($0, id) } }

    func rows(_ change: (inout AuditFilter) -> Void = { _ in }) throws -> [AuditRecord] {
        var filter = AuditFilter()
        filter.agent = "tester"
        change(&filter)
        return try engine.store.read { try AuditQuery.rows($0, filter) }
    }

    var folder: String { "\(engine.home.root)/workspaces/tester" }
}

@Suite struct EngineTests {
    @Test func everyCallLeavesItsRows() async throws {
        try await EngineFixture.with { fixture in
            func added(_ capability: String, _ arguments: JSONObject) async throws -> [String] {
                let before = try fixture.rows().last?.seq ?? 0
                _ = try await fixture.call(capability, arguments)
                return try fixture.rows { $0.after = before }.map {
                    "\($0.text("phase") ?? "")/\($0.text("outcome") ?? "-")"
                }
            }
            #expect(
                try await added("filesystem.write", ["path": "a", "content": "x"]) == ["intent/-", "outcome/succeeded"])
            #expect(try await added("filesystem.read", ["path": "a"]) == ["outcome/succeeded"])
            #expect(try await added("filesystem.read", ["path": "b"]) == ["outcome/failed"])
            #expect(try await added("filesystem.read", ["path": "../b"]) == ["outcome/denied"])
            #expect(try await added("filesystem.read", ["pth": "b"]) == ["outcome/failed"])
            #expect(try await added("filesystem.append", ["path": "a", "content": "x"]) == ["outcome/denied"])
            #expect(try await added("no.such", [:]) == ["outcome/failed"])
            #expect(try await added("secrets.read_raw", ["name": "x"]) == ["outcome/denied"])
            #expect(try await added("scheduler.cron_delete", ["job_id": "sc_001"]) == ["outcome/failed"])
            #expect(try await added("filesystem.delete", ["path": "a"]) == ["approval/pending"])
            let effect = try fixture.rows { $0.capability = "filesystem.write" }
            #expect(effect[1].body?["intent"]?.int == effect[0].seq)
            #expect(effect[0].body?["decision"]?["tier"] == "autonomous")
            #expect(effect[0].body?["facts"]?["paths"] == ["/workspace/tester/a"])
        }
    }

    @Test func errorsSayWhatStandsInTheWay() async throws {
        try await EngineFixture.with { fixture in
            let blocked = try await fixture.error("filesystem.append", ["path": "a", "content": "x"])
            #expect(blocked.kind == .blocked && blocked.context["source"] == "agents/tester.yaml:5")
            #expect(blocked.agentDescription == "Append is off" && !blocked.recoveryActions.isEmpty)
            #expect(
                try await fixture.error("filesystem.raed", ["path": "a"]).recoveryActions.first
                    == "Did you mean `filesystem.read`?")

            #expect(try await fixture.error("secrets.export", [:]).kind == .blocked)
        }
    }

    @Test func anApprovedCallRunsOnce() async throws {
        try await EngineFixture.with { fixture in
            _ = try await fixture.call("filesystem.write", ["path": "a", "content": "x"])
            let id = try await fixture.ask("filesystem.delete", ["path": "a"])
            #expect(id == "ap_001")
            try await fixture.decide(id, approve: true)
            #expect(try fixture.request(id).state == .succeeded)
            _ = try await fixture.call("filesystem.write", ["path": "a", "content": "y"])
            await fixture.engine.runApproved(id)
            #expect(FileManager.default.fileExists(atPath: fixture.folder + "/a"), "it ran a second time")
            #expect(throws: StructuredError.self) {
                try fixture.engine.decideApproval(id, .init(approve: true), by: .supervisor("second"))
            }
            let rows = try fixture.rows { $0.request = id }.map { $0.text("outcome") ?? "intent" }
            #expect(rows == ["pending", "approved", "intent", "succeeded"])
        }
    }

    @Test func twoExecutionsAtOnceAreOne() async throws {
        try await EngineFixture.with { fixture in
            let id = try await fixture.ask("process.run", ["command": "sh", "args": ["-c", "echo x >> count"]])
            try await fixture.decide(id, approve: true, run: false)
            await withTaskGroup(of: Void.self) { group in
                for _ in 0..<8 { group.addTask { await fixture.engine.runApproved(id) } }
            }
            #expect(try String(contentsOfFile: fixture.folder + "/count", encoding: .utf8) == "x\n")
        }
    }

    @Test func aRejectedCallDoesNotRunAndSaysWhy() async throws {
        try await EngineFixture.with { fixture in
            _ = try await fixture.call("filesystem.write", ["path": "a", "content": "x"])
            let id = try await fixture.ask("filesystem.delete", ["path": "a"])
            async let waiting = fixture.engine.approval(
                id, of: try fixture.engine.caller(agentNamed: "tester", via: "test"), waitSeconds: 30)
            try await fixture.decide(id, approve: false)
            let request = try await waiting
            guard case .failed(let error)? = Engine.reply(of: request) else { throw TestFailure("no error") }
            #expect(error.kind == .approvalRejected && error.description.contains("because"))
            #expect(FileManager.default.fileExists(atPath: fixture.folder + "/a"))
        }
    }

    @Test func whatChangedAfterTheApprovalIsRefused() async throws {
        try await EngineFixture.with { fixture in
            // The script.
            _ = try await fixture.call("filesystem.write", ["path": "s.sh", "content": "echo good > result"])
            let script = try await fixture.ask("process.run", ["command": "sh", "args": ["s.sh"]])
            _ = try await fixture.call("filesystem.write", ["path": "s.sh", "content": "echo evil > result"])
            try await fixture.decide(script, approve: true)
            #expect(try fixture.request(script).state == .refused)
            #expect(!FileManager.default.fileExists(atPath: fixture.folder + "/result"))
            // Where a path leads; the two names look alike to Swift's own comparison.
            _ = try await fixture.call("filesystem.write", ["path": "caf\u{e9}", "content": "1"])
            _ = try await fixture.call("filesystem.write", ["path": "cafe\u{301}", "content": "2"])
            let path = try await fixture.ask("process.run", ["command": "cat", "args": ["x"], "cwd": "."])
            try await fixture.decide(path, approve: true)
            #expect(try fixture.request(path).state == .succeeded)
            // The policy.
            let policy = try await fixture.ask("filesystem.delete", ["path": "s.sh"])
            try write(
                "agent: tester\ncapabilities: { filesystem.delete: { tier: blocked } }",
                to: fixture.engine.home.policies + "/agents/tester.yaml")
            _ = try await fixture.engine.operate(.policyReload, [:], by: .supervisor("owner"))
            try await fixture.decide(policy, approve: true)
            #expect(try fixture.request(policy).state == .refused)
            #expect(FileManager.default.fileExists(atPath: fixture.folder + "/s.sh"))
            #expect(try fixture.rows { $0.outcome = .refused }.count == 2)
        }
    }

    @Test func aRevokedAgentsRequestIsRefused() async throws {
        try await EngineFixture.with { fixture in
            let id = try await fixture.ask("filesystem.delete", ["path": "a"])
            _ = try await fixture.engine.operate(.agentRevoke, ["name": "tester"], by: .supervisor("owner"))
            try await fixture.decide(id, approve: true)
            #expect(try fixture.request(id).state == .refused)
        }
    }

    @Test func agentsSeeAndDecideNothingOfOthers() async throws {
        try await EngineFixture.with { fixture in
            let id = try await fixture.ask("filesystem.delete", ["path": "a"])
            _ = try await fixture.engine.operate(
                .agentCreate, ["name": "other", "purpose": "x"], by: .supervisor("owner"))
            let other = try fixture.engine.caller(agentNamed: "other", via: "test")
            await #expect(throws: StructuredError.self) {
                try await fixture.engine.approval(id, of: other, waitSeconds: 0)
            }
            #expect(throws: StructuredError.self) { try fixture.engine.cancelApproval(id, by: other) }
            let name = try #require(AgentName("tester"))
            #expect(throws: StructuredError.self) {
                try fixture.engine.decideApproval(id, .init(approve: true), by: .agent(name))
            }
            #expect(try fixture.request(id).state == .pending)
        }
    }

    @Test func aPolicyThatDoesNotCompileChangesNothingAndIsSaid() async throws {
        try await EngineFixture.with { fixture in
            let file = fixture.engine.home.policies + "/agents/tester.yaml"
            try write("agent: tester\ncapabilities: { filesystem.delete: { teir: autonomous } }", to: file)
            let result = try await fixture.engine.operate(.policyReload, [:], by: .supervisor("owner"))
            #expect(result["problem"]?.string?.contains("agents/tester.yaml:2:38: unknown key `teir`") == true)
            #expect(!fixture.engine.isReady)
            #expect(try await fixture.error("filesystem.append", ["path": "a", "content": "x"]).kind == .blocked)
            try write("nonsense: true", to: fixture.engine.home.policies + "/org.yaml")
            await #expect(throws: (any Error).self) {
                try await fixture.engine.operate(.policyReload, [:], by: .supervisor("owner"))
            }
            #expect(try await fixture.error("filesystem.append", ["path": "a", "content": "x"]).kind == .blocked)
        }
    }

    @Test func notifyLeavesANotificationAndAnEvent() async throws {
        try await EngineFixture.with { fixture in
            var events = fixture.engine.events.subscribe().makeAsyncIterator()
            _ = try await fixture.call("filesystem.mkdir", ["path": "d"])
            let event = await events.next()
            #expect(event?.capability == "filesystem.mkdir" && event?.summary == "path=/workspace/tester/d")
            let unread = try fixture.engine.store.read {
                try $0.rows("SELECT summary FROM notifications WHERE read_at IS NULL") { $0.text(0) }
            }
            #expect(unread == ["path=/workspace/tester/d"])
        }
    }

    @Test func tokensWorkUntilRotatedOrRevoked() async throws {
        try await EngineFixture.with { fixture in
            let engine = fixture.engine
            func token(_ command: Engine.OperatorCommand) async throws -> String {
                let result = try await engine.operate(command, ["name": "tester"], by: .supervisor("owner"))
                return result["token"]?.string ?? ""
            }
            let first = try await token(.agentRotate)
            #expect(engine.authenticate(token: first, via: "test") != nil)
            #expect(engine.authenticate(token: String(first.dropLast()) + "x", via: "test") == nil)
            let second = try await token(.agentRotate)
            #expect(engine.authenticate(token: first, via: "test") == nil)
            #expect(engine.authenticate(token: second, via: "test") != nil)
            _ = try await token(.agentRevoke)
            #expect(engine.authenticate(token: second, via: "test") == nil)
            await #expect(throws: StructuredError.self) { try await token(.agentRotate) }
            let third = try await token(.agentRestore)
            #expect(engine.authenticate(token: second, via: "test") == nil)
            #expect(engine.authenticate(token: third, via: "test") != nil)
        }
    }
}
