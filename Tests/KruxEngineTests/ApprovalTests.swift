import Foundation
import KruxApprovals
import KruxAudit
import KruxCapabilities
import KruxCore
import KruxCrypto
import KruxEngine
import KruxRegistry
import KruxStore
import KruxTestSupport
import Logging
import Testing

extension PolicyHome {
    var folder: String { "\(home.root)/workspaces/tester" }

    static func ask(
        _ engine: Engine, _ capability: String, _ arguments: JSONObject, reason: String? = nil
    ) async throws -> String {
        let reply = await engine.call(
            CallRequest(capability: capability, arguments: arguments, purpose: reason),
            by: try engine.caller(agentNamed: "tester", via: "test"))
        return try #require(reply.pendingRequest, "\(reply)")
    }

    static func request(_ engine: Engine, _ id: String) throws -> ApprovalRequest {
        try engine.store.read { try ApprovalQueue.require($0, id) }
    }

    @discardableResult
    static func accept(
        _ engine: Engine, _ id: String, _ answer: Engine.Answer = .init(approve: true), by name: String = "owner"
    ) async throws -> ApprovalRequest {
        let request = try engine.decideApproval(id, answer, by: .supervisor(name))
        if request.state == .approved { await engine.runApproved(id) }
        return try Self.request(engine, id)
    }
}

/// What a person is asked, what they may answer, and what becomes of it.
@Suite struct ApprovalTests {
    private static let policy = """
        capabilities:
          filesystem.delete: { tier: approval_required, reason: "Deleting asks first" }
          filesystem.write: { tier: approval_required }
          filesystem.append: { tier: autonomous }
          process.run:
            rules:
              - { tier: blocked, condition: { command: [rm, shred] }, reason: "Never" }
              - { tier: autonomous, condition: { command: [true, git] } }
            tier: approval_required
        """

    private func rows(_ engine: Engine, _ id: String) throws -> [AuditRecord] {
        try engine.store.read {
            var filter = AuditFilter()
            filter.request = id
            return try AuditQuery.rows($0, filter)
        }
    }

    @Test func aWriteIsShownAsADiffAndRefusedWhenTheFileIsAnother() async throws {
        try await PolicyHome.with(Self.policy) { fixture in
            try await fixture.engine { engine in
                try write("one\ntwo\nthree\n", to: fixture.folder + "/a")
                let content: JSONObject = ["path": "a", "content": "one\n2\nthree\nfour\n"]
                let id = try await PolicyHome.ask(engine, "filesystem.write", content, reason: "It was wrong")
                let request = try PolicyHome.request(engine, id)
                #expect(request.purpose == "It was wrong")
                #expect(request.shown["effect"] == "Replaces /workspace/tester/a (14 bytes become 17)")
                #expect(
                    request.shown["preview"]?["lines"]?.array?.compactMap(\.string) == [
                        "--- /workspace/tester/a", "+++ /workspace/tester/a", "@@ -1,3 +1,4 @@", " one", "-two", "+2",
                        " three",
                        "+four",
                    ])
                // Somebody else writes the file before the answer runs.
                try write("one\ntwo\nthree!\n", to: fixture.folder + "/a")
                let refused = try await PolicyHome.accept(engine, id)
                #expect(refused.state == .refused)
                let text = refused.result?["error"]?["description"]?.string ?? ""
                #expect(text.contains("content of /workspace/tester/a"), "\(text)")
                #expect(try String(contentsOfFile: fixture.folder + "/a", encoding: .utf8) == "one\ntwo\nthree!\n")
                let again = try await PolicyHome.ask(engine, "filesystem.write", content)
                #expect(try await PolicyHome.accept(engine, again).state == .succeeded)
            }
        }
    }

    @Test func aFolderIsShownFileByFileAndRefusedWhenItGrew() async throws {
        try await PolicyHome.with(Self.policy) { fixture in
            try await fixture.engine { engine in
                try write("x", to: fixture.folder + "/old/a")
                try write("xy", to: fixture.folder + "/old/b/c")
                let call: JSONObject = ["path": "old", "recursive": true]
                let id = try await PolicyHome.ask(engine, "filesystem.delete", call)
                let shown = try PolicyHome.request(engine, id).shown
                #expect(
                    shown["effect"]?.string?.hasPrefix(
                        "Moves to the trash the folder /workspace/tester/old (3 below, 3 bytes)") == true, "\(shown)")
                #expect(
                    shown["preview"]?["lines"]?.array?.compactMap(\.string) == [
                        "/workspace/tester/old/a", "/workspace/tester/old/b/", "/workspace/tester/old/b/c",
                    ])
                try write("new", to: fixture.folder + "/old/b/d")
                #expect(try await PolicyHome.accept(engine, id).state == .refused)
                #expect(FileManager.default.fileExists(atPath: fixture.folder + "/old/b/d"))
                let again = try await PolicyHome.ask(engine, "filesystem.delete", call)
                #expect(try await PolicyHome.accept(engine, again).state == .succeeded)
            }
        }
    }

    /// Between the answer and the execution: each of these changes, and nothing runs.
    @Test(arguments: ["script", "target", "blocked", "agent", "unrelated"]) func whatChangesInBetweenIsSeen(
        _ change: String
    ) async throws {
        try await PolicyHome.with(Self.policy) { fixture in
            try await fixture.engine { engine in
                try write("#!/bin/sh\necho ran > ran\n", to: fixture.folder + "/run.sh")
                chmod(fixture.folder + "/run.sh", 0o755)
                try write("1", to: fixture.folder + "/one")
                try write("2", to: fixture.folder + "/two")
                let id =
                    change == "target"
                    ? try await PolicyHome.ask(engine, "filesystem.write", ["path": "one", "content": "x"])
                    : try await PolicyHome.ask(engine, "process.run", ["command": "./run.sh"])
                _ = try engine.decideApproval(id, .init(approve: true), by: .supervisor("owner"))
                switch change {
                case "script":
                    try write("#!/bin/sh\necho stolen > ran\n", to: fixture.folder + "/run.sh")
                    chmod(fixture.folder + "/run.sh", 0o755)
                case "target":
                    try FileManager.default.removeItem(atPath: fixture.folder + "/one")
                    try FileManager.default.createSymbolicLink(
                        atPath: fixture.folder + "/one", withDestinationPath: "two")
                case "blocked":
                    try write(
                        "capabilities:\n  process.run: { tier: blocked, reason: Not today }\n",
                        to: "\(fixture.home.policies)/agents/tester.yaml")
                    _ = try await engine.operate(.policyReload, [:], by: .supervisor("owner"))
                case "agent": _ = try await engine.operate(.agentRevoke, ["name": "tester"], by: .supervisor("owner"))
                default:
                    try write(
                        Self.policy.replacing("Deleting asks first", with: "Deleting always asks"),
                        to: "\(fixture.home.policies)/agents/tester.yaml")
                    _ = try await engine.operate(.policyReload, [:], by: .supervisor("owner"))
                }
                await engine.runApproved(id)
                let request = try PolicyHome.request(engine, id)
                let ran = FileManager.default.fileExists(atPath: fixture.folder + "/ran")
                if change == "unrelated" {
                    #expect(request.state == .succeeded && ran, "\(request)")
                    return
                }
                #expect(request.state == .refused && !ran, "\(request)")
                let text = request.result?["error"]?["description"]?.string ?? ""
                let expected = [
                    "script": "content of /workspace/tester/run.sh", "blocked": "Not today", "agent": "revoked",
                    "target": "/workspace/tester/two",
                ]
                #expect(text.contains(expected[change] ?? "?"), "\(text)")
                #expect(try rows(engine, id).map { $0.text("outcome") } == ["pending", "approved", "refused"])
            }
        }
    }

    @Test func otherArgumentsAreDecidedAgainAndBothAreRecorded() async throws {
        try await PolicyHome.with(Self.policy) { fixture in
            try await fixture.engine { engine in
                let id = try await PolicyHome.ask(engine, "process.run", ["command": "make", "args": ["install"]])
                let blocked = await #expect(throws: StructuredError.self) {
                    try await PolicyHome.accept(
                        engine, id, .init(approve: true, arguments: ["command": "rm", "args": ["-rf", "."]]))
                }
                #expect(blocked?.kind == .blocked)
                #expect(throws: StructuredError.self) {
                    try engine.decideApproval(
                        id, .init(approve: true, arguments: ["comand": "true"]), by: .supervisor("owner"))
                }
                #expect(try PolicyHome.request(engine, id).state == .pending, "it still waits")
                let ended = try await PolicyHome.accept(
                    engine, id, .init(approve: true, arguments: ["command": "echo", "args": ["checked"]]))
                #expect(ended.state == .succeeded && ended.original?["command"] == "make")
                #expect(ended.result?["data"]?["stdout"] == "checked\n")
                let row = try #require(try rows(engine, id).first { $0.text("outcome") == "approved" })
                #expect(row.body?["arguments"]?["command"] == "echo")
                #expect(row.body?["edited"]?["arguments"]?["command"] == "make")
                #expect(Engine.json(forAgent: ended)["changed_arguments"]?["command"] == "echo")
            }
        }
    }

    @Test func someCommandsOfALineRunAndTheOthersFailWhereTheyStand() async throws {
        try await PolicyHome.with(Self.policy) { fixture in
            try await fixture.engine { engine in
                let line = "echo one; echo two && echo three || echo four; echo five"
                let id = try await PolicyHome.ask(engine, "process.run", ["command": .string(line), "shell": true])
                let shown = try PolicyHome.request(engine, id).shown["segments"]?.array ?? []
                #expect(
                    shown.compactMap { $0["text"]?.string } == [
                        "echo one", "echo two", "echo three", "echo four", "echo five",
                    ])
                #expect(shown.allSatisfy { $0["tier"] == "approval_required" })
                #expect(throws: StructuredError.self) {
                    try engine.decideApproval(id, .init(approve: true, segments: [6]), by: .supervisor("owner"))
                }
                let ended = try await PolicyHome.accept(engine, id, .init(approve: true, segments: [1, 3, 4, 5]))
                #expect(ended.result?["data"]?["stdout"] == "one\nfour\nfive\n", "\(ended.result ?? [:])")
                #expect(Engine.json(forAgent: ended)["refused_segments"] == ["echo two"])
                let plain = try await PolicyHome.ask(engine, "process.run", ["command": "make"])
                #expect(throws: StructuredError.self) {
                    try engine.decideApproval(plain, .init(approve: true, segments: [1]), by: .supervisor("owner"))
                }
            }
        }
    }

    @Test func segmentsCarryTheirOwnVerdicts() async throws {
        try await PolicyHome.with(Self.policy) { fixture in
            try await fixture.engine { engine in
                let id = try await PolicyHome.ask(
                    engine, "process.run", ["command": "git status && make test", "shell": true])
                let shown = try PolicyHome.request(engine, id).shown["segments"]?.array ?? []
                #expect(shown.compactMap { $0["tier"]?.string } == ["autonomous", "approval_required"], "\(shown)")
            }
        }
    }

    @Test func whoIsAskedMustAnswerAndSoManyOfThem() async throws {
        let policy = """
            capabilities:
              filesystem.delete: { tier: approval_required, approvers: [alice, "role:security"], quorum: 2 }
              filesystem.write: { tier: approval_required, approvers: alice }
            """
        try await PolicyHome.with(policy) { fixture in
            try await fixture.engine { engine in
                for (name, role) in [("alice", nil), ("bob", "security"), ("carol", "ops")] as [(String, String?)] {
                    let added = try await engine.operate(
                        .supervisorAdd, ["name": .string(name), "role": .optional(role)], by: .supervisor("owner"))
                    #expect(added["token"]?.string?.count == 64)
                }
                try write("x", to: fixture.folder + "/a")
                let id = try await PolicyHome.ask(engine, "filesystem.delete", ["path": "a"])
                for name in ["owner", "carol"] {
                    let error = #expect(throws: StructuredError.self) {
                        try engine.decideApproval(id, .init(approve: true), by: .supervisor(name))
                    }
                    #expect(error?.description.contains("alice or anybody with role security") == true)
                }
                #expect(try await PolicyHome.accept(engine, id, by: "alice").state == .pending)
                let twice = #expect(throws: StructuredError.self) {
                    try engine.decideApproval(id, .init(approve: true), by: .supervisor("alice"))
                }
                #expect(twice?.kind == .conflict)
                let ended = try await PolicyHome.accept(engine, id, by: "bob")
                #expect(ended.state == .succeeded && ended.decidedBy == "supervisor:alice, supervisor:bob")
                #expect(
                    try rows(engine, id).map { $0.text("outcome") ?? "-" } == [
                        "pending", "pending", "approved", "-", "succeeded",
                    ])
                // Anybody may say no, and a token says who acts.
                let other = try await PolicyHome.ask(engine, "filesystem.delete", ["path": "b"])
                let rejected = try engine.decideApproval(other, .init(approve: false), by: .supervisor("carol"))
                #expect(rejected.state == .rejected)
                let third = try await PolicyHome.ask(engine, "filesystem.write", ["path": "c", "content": "c"])
                _ = try await engine.operate(.supervisorRevoke, ["name": "alice"], by: .supervisor("owner"))
                await #expect(
                    throws: StructuredError(
                        .unauthenticated, "this is no supervisor's token",
                        recovery: ["The owner makes one with `kruxos supervisor add NAME`."])
                ) {
                    _ = try await engine.operate(
                        .approvalDecide,
                        [
                            "id": .string(third), "approve": true,
                            "supervisor_token": .string(String(repeating: "0", count: 64)),
                        ],
                        by: .supervisor("owner"))
                }
                // An agent decides nothing, whichever way it comes.
                for name in ["tester"] {
                    let agent = try #require(AgentName(name))
                    #expect(throws: StructuredError.self) {
                        try engine.decideApproval(third, .init(approve: true), by: .agent(agent))
                    }
                }
            }
        }
    }

    @Test func theTermsOfEveryRuleThatAsksMustBeMet() async throws {
        try await PolicyHome.with(
            "capabilities:\n  filesystem.write: { tier: approval_required, approvers: alice }\n"
        ) { fixture in
            try write(
                """
                name: org
                capabilities:
                  filesystem.write: { tier: approval_required, approvers: bob, locked: true }
                """, to: "\(fixture.home.policies)/org.yaml")
            try await fixture.engine { engine in
                let id = try await PolicyHome.ask(engine, "filesystem.write", ["path": "a", "content": "x"])
                #expect(
                    try PolicyHome.request(engine, id).terms.map(\.approvers).sorted { $0[0] < $1[0] } == [
                        ["alice"], ["bob"],
                    ])
                #expect(throws: StructuredError.self) {
                    try engine.decideApproval(id, .init(approve: true), by: .supervisor("carol"))
                }
                #expect(try await PolicyHome.accept(engine, id, by: "alice").state == .pending)
                #expect(try await PolicyHome.accept(engine, id, by: "bob").state == .succeeded)
            }
        }
    }

    @Test func timeEndsARequestAndRemindsOfIt() async throws {
        try await PolicyHome.with(
            "capabilities:\n  filesystem.write: { tier: approval_required, expires: 1h, remind_after: 10m }\n"
        ) { fixture in
            try await fixture.engine { engine in
                let id = try await PolicyHome.ask(engine, "filesystem.write", ["path": "a", "content": "x"])
                fixture.clock.pass(seconds: 601)
                let due = try await engine.store.writer.write {
                    try ApprovalQueue.takeReminders($0, at: fixture.clock.clock.now())
                }
                #expect(due.map(\.id) == [id])
                let again = try await engine.store.writer.write {
                    try ApprovalQueue.takeReminders($0, at: fixture.clock.clock.now())
                }
                #expect(again.isEmpty)
                fixture.clock.pass(seconds: 3000)
                let late = #expect(throws: StructuredError.self) {
                    try engine.decideApproval(id, .init(approve: true), by: .supervisor("owner"))
                }
                #expect(late?.kind == .conflict)
                let request = try PolicyHome.request(engine, id)
                #expect(request.state == .expired)
                guard case .failed(let error)? = Engine.reply(of: request) else { throw TestFailure("no answer") }
                #expect(error.kind == .approvalExpired)
                #expect(try rows(engine, id).map { $0.text("outcome") } == ["pending", "expired"])
                let retried = try await engine.operate(.approvalRetry, ["id": .string(id)], by: .supervisor("owner"))
                let second = try PolicyHome.request(engine, retried["id"]?.string ?? "")
                #expect(
                    second.state == .pending && second.retryOf == id && second.shown["before"]?["state"] == "expired")
                #expect(try rows(engine, second.id).first?.body?["principal"] == "supervisor:owner")
                await #expect(throws: StructuredError.self) {
                    try await engine.operate(.approvalRetry, ["id": .string(id)], by: .supervisor("owner"))
                }
                #expect(try await PolicyHome.accept(engine, second.id).state == .succeeded)
            }
        }
    }

    @Test func aFloodIsOneGroupAndHasAnEnd() async throws {
        try await PolicyHome.with(
            "max_pending: 5\ncapabilities:\n  filesystem.write: { tier: approval_required }\n  filesystem.read: { tier: approval_required }\n"
        ) { fixture in
            try await fixture.engine { engine in
                var ids: [String] = []
                for number in 0..<5 {
                    ids.append(
                        try await PolicyHome.ask(
                            engine, "filesystem.write", ["path": .string("d/\(number)"), "content": "x"]))
                }
                let kin = Set(try ids.map { try PolicyHome.request(engine, $0).kin })
                #expect(kin.count == 1)
                let reply = try await PolicyHome.call(engine, "filesystem.write", ["path": "d/6", "content": "x"])
                guard case .failed(let error) = reply else { throw TestFailure("it went on") }
                #expect(error.kind == .overloaded && error.context["max_pending"] == 5 && error.retryable)
                _ = try engine.decideApproval(ids[0], .init(approve: false), by: .supervisor("owner"))
                let other = try await PolicyHome.ask(engine, "filesystem.read", ["path": "d/6"])
                #expect(try !kin.contains(PolicyHome.request(engine, other).kin))
                let caller = try engine.caller(agentNamed: "tester", via: "test")
                #expect(
                    try engine.approvals(of: caller, all: false, limit: 10).map(\.id) == [other]
                        + ids.dropFirst().reversed())
                #expect(try engine.approvals(of: caller, all: true, limit: 10).count == 6)
            }
        }
    }

    /// Other arguments are asked under their own terms, and nobody grants what was taken out.
    @Test func anEditDoesNotGetAroundWhoIsAsked() async throws {
        let policy = """
            capabilities:
              process.run:
                rules:
                  - { tier: approval_required, approvers: [alice, bob], quorum: 2, condition: { command: touch } }
                tier: approval_required
            """
        try await PolicyHome.with(policy) { fixture in
            try await fixture.engine { engine in
                let id = try await PolicyHome.ask(engine, "process.run", ["command": "echo", "args": ["hi"]])
                let touch: JSONObject = ["command": "touch", "args": ["important"]]
                let error = #expect(throws: StructuredError.self) {
                    try engine.decideApproval(id, .init(approve: true, arguments: touch), by: .supervisor("owner"))
                }
                #expect(error?.kind == .blocked)
                let seen = try PolicyHome.request(engine, id).bindingDigest.hex
                let changed = try engine.decideApproval(
                    id, .init(approve: true, arguments: touch), by: .supervisor("alice"))
                #expect(changed.state == .pending && changed.terms.first?.quorum == 2)
                // Who looked at the old one does not answer the new one.
                let stale = #expect(throws: StructuredError.self) {
                    try engine.decideApproval(id, .init(approve: true, seen: seen), by: .supervisor("bob"))
                }
                #expect(stale?.kind == .conflict)
                // Whoever was shut out meanwhile does not count.
                _ = try await engine.operate(.supervisorAdd, ["name": "alice"], by: .supervisor("owner"))
                _ = try await engine.operate(.supervisorRevoke, ["name": "alice"], by: .supervisor("owner"))
                #expect(try await PolicyHome.accept(engine, id, by: "bob").state == .pending)
                #expect(!FileManager.default.fileExists(atPath: fixture.folder + "/important"))
                let other = try await PolicyHome.ask(engine, "process.run", ["command": "echo", "args": ["rm"]])
                _ = try await PolicyHome.accept(
                    engine, other, .init(approve: true, arguments: ["command": "echo", "args": ["kept"]]))
                await #expect(throws: StructuredError.self, "what was taken out is not granted") {
                    try await engine.operate(
                        .grantCreate, ["request": .string(other), "conditions": [["command_glob": "echo rm"]]],
                        by: .supervisor("owner"))
                }
            }
        }
    }

    /// A request that was made before the policy asked more people.
    @Test func termsThatCameSinceHold() async throws {
        try await PolicyHome.with(Self.policy) { fixture in
            try await fixture.engine { engine in
                let id = try await PolicyHome.ask(engine, "process.run", ["command": "echo"])
                try write(
                    "capabilities:\n  process.run: { tier: approval_required, approvers: alice }\n",
                    to: "\(fixture.home.policies)/agents/tester.yaml")
                _ = try await engine.operate(.policyReload, [:], by: .supervisor("owner"))
                #expect(throws: StructuredError.self) {
                    try engine.decideApproval(id, .init(approve: true), by: .supervisor("owner"))
                }
                #expect(try await PolicyHome.accept(engine, id, by: "alice").state == .succeeded)
            }
        }
    }

    /// However a line names a script, it is the one that was approved.
    @Test(
        arguments: [
            ["command": "bash", "args": ["-c", "./run.sh --prod"]], ["command": "cd sub && ./dep.sh", "shell": true],
            ["command": "sh './my s.sh'", "shell": true], ["command": "env", "args": ["-C", "sub", "./dep.sh"]],
            ["command": "sh", "args": ["run.sh"]],
        ] as [JSONObject]) func aScriptIsBoundHoweverItIsNamed(_ call: JSONObject) async throws
    {
        try await PolicyHome.with("capabilities:\n  process.run: { tier: approval_required }\n") { fixture in
            try await fixture.engine { engine in
                for name in ["run.sh", "sub/dep.sh", "my s.sh"] {
                    try write("#!/bin/sh\ntrue\n", to: "\(fixture.folder)/\(name)")
                    chmod("\(fixture.folder)/\(name)", 0o755)
                }
                let id = try await PolicyHome.ask(engine, "process.run", call)
                _ = try engine.decideApproval(id, .init(approve: true), by: .supervisor("owner"))
                for name in ["run.sh", "sub/dep.sh", "my s.sh"] {
                    try write("#!/bin/sh\necho evil > evil\n", to: "\(fixture.folder)/\(name)")
                }
                await engine.runApproved(id)
                #expect(try PolicyHome.request(engine, id).state == .refused)
            }
        }
    }

    @Test func whatIsShownHidesSecretsAsAWhole() async throws {
        try await PolicyHome.with(Self.policy) { fixture in
            try await fixture.engine { engine in
                let key = "-----BEGIN PRIVATE KEY-----\nMIIEowIBAAKCAQEA\nc2VjcmV0bGluZTAw\n-----END PRIVATE KEY-----\n"
                let id = try await PolicyHome.ask(
                    engine, "filesystem.write", ["path": "k", "content": .string("a\n" + key)])
                let shown = try PolicyHome.request(engine, id).shown.canonicalText
                #expect(!shown.contains("MIIE") && !shown.contains("c2VjcmV0"), "\(shown)")
                let line = try await PolicyHome.ask(
                    engine, "process.run", ["command": "echo a; make --token tk_99887766", "shell": true])
                #expect(!(try PolicyHome.request(engine, line).shown.canonicalText.contains("tk_9988")))
                let cd = try await PolicyHome.ask(engine, "process.run", ["command": "cd b; make", "shell": true])
                #expect(throws: StructuredError.self, "the others would run elsewhere") {
                    _ = try engine.decideApproval(cd, .init(approve: true, segments: [2]), by: .supervisor("owner"))
                }
            }
        }
    }
}

/// Answers given in advance.
@Suite struct GrantTests {
    private static let policy = """
        capabilities:
          process.run:
            rules:
              - { tier: blocked, condition: { command: shred } }
              - { tier: approval_required, locked: true, condition: { command_prefix: git push } }
            tier: approval_required
          filesystem.write: { tier: approval_required }
        """

    private func tier(_ engine: Engine, _ capability: String, _ arguments: JSONObject) async throws -> String {
        switch try await PolicyHome.call(engine, capability, arguments) {
        case .succeeded(_, let tier, _): tier.name
        case .failed(let error): error.kind.rawValue
        }
    }

    @Test func aGrantAnswersWhatItSaysAndNothingElse() async throws {
        try await PolicyHome.with(Self.policy) { fixture in
            try await fixture.engine { engine in
                let call: JSONObject = ["command": "echo", "args": ["a"]]
                let id = try await PolicyHome.ask(engine, "process.run", call)
                await #expect(throws: StructuredError.self, "a grant follows an approval") {
                    try await engine.operate(
                        .grantCreate, ["request": .string(id), "conditions": [["command": "echo"]]],
                        by: .supervisor("owner"))
                }
                #expect(try await PolicyHome.accept(engine, id).state == .succeeded)
                let made = try await engine.operate(
                    .grantCreate, ["request": .string(id), "conditions": [["command_glob": "echo a*"]]],
                    by: .supervisor("owner"))
                #expect(made["id"] == "gr_001" && made["session"]?.string != nil)
                #expect(try await tier(engine, "process.run", call) == "notify")
                #expect(try await tier(engine, "process.run", ["command": "echo", "args": ["b"]]) == "ApprovalPending")
                // A line with one command that it does not cover is asked as a whole.
                #expect(
                    try await tier(engine, "process.run", ["command": "echo a; true", "shell": true])
                        == "ApprovalPending")
                #expect(
                    try await tier(engine, "process.run", ["command": "echo a$(id)", "shell": true])
                        == "PermissionDenied")
                let row = try engine.store.read {
                    var filter = AuditFilter()
                    filter.phase = .intent
                    return try AuditQuery.rows($0, filter)
                }.last
                #expect(row?.body?["decision"]?["grant"] == "gr_001" && row?.body?["decision"]?["cause"] == "grant")
                #expect(row?.body?["facts"]?["grant"] == true)
                #expect(try engine.store.read { try GrantTable.require($0, "gr_001") }.used == 1)
                _ = try await engine.operate(.grantRevoke, ["id": "gr_001"], by: .supervisor("owner"))
                #expect(try await tier(engine, "process.run", call) == "ApprovalPending")
            }
        }
    }

    @Test func neitherALockNorABlockIsBeaten() async throws {
        try await PolicyHome.with(Self.policy) { fixture in
            try await fixture.engine { engine in
                let id = try await PolicyHome.ask(engine, "process.run", ["command": "git", "args": ["push"]])
                _ = try await PolicyHome.accept(engine, id)
                _ = try await engine.operate(
                    .grantCreate,
                    [
                        "request": .string(id), "conditions": [["command": ["git", "shred"]]], "scope": "agent",
                        "permanent": true,
                    ],
                    by: .supervisor("owner"))
                #expect(
                    try await tier(engine, "process.run", ["command": "git", "args": ["push"]]) == "ApprovalPending")
                #expect(
                    try await tier(engine, "process.run", ["command": "shred", "args": ["x"]]) == "PermissionDenied")
                #expect(try await tier(engine, "process.run", ["command": "git", "args": ["status"]]) == "notify")
            }
        }
    }

    @Test func aGrantEndsWithItsUsesItsTimeAndItsSession() async throws {
        try await PolicyHome.with(Self.policy) { fixture in
            try await fixture.engine { engine in
                func granted(_ path: String, _ terms: JSONObject) async throws {
                    let id = try await PolicyHome.ask(
                        engine, "filesystem.write", ["path": .string(path), "content": "x"])
                    _ = try await PolicyHome.accept(engine, id)
                    var parameters: JSONObject = [
                        "request": .string(id), "conditions": [["path_glob": .string("/workspace/tester/\(path)")]],
                    ]
                    for member in terms.members { parameters[member.key] = member.value }
                    _ = try await engine.operate(.grantCreate, parameters, by: .supervisor("owner"))
                }
                func tries(_ path: String) async throws -> String {
                    try await tier(engine, "filesystem.write", ["path": .string(path), "content": "y"])
                }
                try await granted("uses", ["scope": "agent", "uses": 2])
                try await granted("time", ["scope": "agent", "seconds": 600])
                try await granted("session", [:])
                let open = try await PolicyHome.ask(engine, "filesystem.write", ["path": "open", "content": "x"])
                _ = try await PolicyHome.accept(engine, open)
                await #expect(throws: StructuredError.self, "no end is given") {
                    try await engine.operate(
                        .grantCreate,
                        ["request": .string(open), "conditions": [["path_glob": "/workspace/**"]], "scope": "agent"],
                        by: .supervisor("owner"))
                }
                await #expect(throws: StructuredError.self, "no condition is given") {
                    try await engine.operate(
                        .grantCreate, ["request": .string(open), "conditions": [], "scope": "agent", "uses": 1],
                        by: .supervisor("owner"))
                }
                for expected in ["notify", "notify", "ApprovalPending"] { #expect(try await tries("uses") == expected) }
                #expect(try await tries("time") == "notify")
                #expect(try await tries("session") == "notify")
                fixture.clock.pass(seconds: 601)
                #expect(try await tries("time") == "ApprovalPending")
                #expect(try await tries("session") == "notify")
                // Another session of the same agent.
                fixture.clock.pass(seconds: 3600)
                #expect(try await tries("session") == "ApprovalPending")
            }
            // Uses are counted on the disk.
            try await fixture.engine { engine in
                let used = try engine.store.read { try GrantTable.require($0, "gr_001") }.used
                let last = try await tier(engine, "filesystem.write", ["path": "uses", "content": "z"])
                #expect(used == 2 && last == "ApprovalPending")
            }
        }
    }

    /// A use that many calls want at once is had by as many as there are.
    @Test func usesAreNeverOverdrawn() async throws {
        try await PolicyHome.with(Self.policy) { fixture in
            try await fixture.engine { engine in
                let id = try await PolicyHome.ask(engine, "filesystem.write", ["path": "a", "content": "x"])
                _ = try await PolicyHome.accept(engine, id)
                _ = try await engine.operate(
                    .grantCreate,
                    [
                        "request": .string(id), "conditions": [["path_prefix": "/workspace/tester"]], "scope": "agent",
                        "uses": 7,
                    ], by: .supervisor("owner"))
                let granted = try await withThrowingTaskGroup(of: Bool.self) { group in
                    for number in 0..<40 {
                        group.addTask {
                            try await tier(
                                engine, "filesystem.write", ["path": .string("f\(number)"), "content": "x"]) == "notify"
                        }
                    }
                    return try await group.reduce(0) { $0 + ($1 ? 1 : 0) }
                }
                #expect(granted == 7)
                #expect(try engine.store.read { try GrantTable.require($0, "gr_001") }.used == 7)
            }
        }
    }

    @Test func whatSeveralMustAgreeToNobodyGrants() async throws {
        let policy = """
            capabilities:
              filesystem.write: { tier: approval_required, quorum: 2 }
              filesystem.append: { tier: approval_required, approvers: alice }
            """
        try await PolicyHome.with(policy) { fixture in
            try await fixture.engine { engine in
                let id = try await PolicyHome.ask(engine, "filesystem.write", ["path": "a", "content": "x"])
                _ = try await PolicyHome.accept(engine, id, by: "alice")
                _ = try await PolicyHome.accept(engine, id, by: "bob")
                let conditions: JSONValue = [["path_prefix": "/workspace/tester"]]
                await #expect(throws: StructuredError.self) {
                    try await engine.operate(
                        .grantCreate, ["request": .string(id), "conditions": conditions], by: .supervisor("alice"))
                }
                let other = try await PolicyHome.ask(engine, "filesystem.append", ["path": "a", "content": "x"])
                _ = try await PolicyHome.accept(engine, other, by: "alice")
                await #expect(throws: StructuredError.self) {
                    try await engine.operate(
                        .grantCreate, ["request": .string(other), "conditions": conditions], by: .supervisor("owner"))
                }
                _ = try await engine.operate(
                    .grantCreate, ["request": .string(other), "conditions": conditions], by: .supervisor("alice"))
                #expect(try await tier(engine, "filesystem.append", ["path": "a", "content": "y"]) == "notify")
            }
        }
    }

    @Test func theNarrowestGrantIsProposedWithWhatItWouldHaveAnswered() async throws {
        try await PolicyHome.with("capabilities:\n  process.run: { tier: approval_required }\n") { fixture in
            try await fixture.engine { engine in
                var ids: [String] = []
                for words in [["a"], ["a"], ["b"], ["*"]] {
                    ids.append(
                        try await PolicyHome.ask(
                            engine, "process.run", ["command": "echo", "args": .strings(words)]))
                }
                for id in ids { _ = try await PolicyHome.accept(engine, id) }
                let version = try #require(try engine.store.read(PolicyVersions.current))
                let policy = try version.policy(Capabilities.catalogue)
                func propose(_ id: String, _ condition: String? = nil) throws -> Engine.GrantProposal {
                    try Engine.proposeGrant(
                        engine.store, for: id, condition: condition, policy: policy,
                        redactor: try Redactor(key: KeyFiles(home: fixture.home.root).digestKey()),
                        now: fixture.clock.clock.now())
                }
                let narrow = try propose(ids[0])
                #expect(narrow.calls == 2 && narrow.text.contains("command_glob: echo a"), "\(narrow)")
                // What looks like a pattern stands for itself.
                #expect(try propose(ids[3]).calls == 1)
                #expect(try propose(ids[0], "command: echo").calls == 4)
                #expect(throws: StructuredError.self) { try propose(ids[0], "command: ls") }
                #expect(throws: StructuredError.self) { try propose(ids[0], "comand: echo") }
                // A shell's text is itself as a whole; a program behind another is nothing that a pattern can hold.
                let shell = try await PolicyHome.ask(engine, "process.run", ["command": "cd d && rm x", "shell": true])
                #expect(try propose(shell).text.contains("command: cd d && rm x"))
                let wrapped = try await PolicyHome.ask(
                    engine, "process.run", ["command": "env", "args": ["-C", "d", "rm", "x"]])
                #expect(throws: StructuredError.self) { try propose(wrapped) }
                let variables = try await PolicyHome.ask(
                    engine, "process.run", ["command": "date", "env": ["TZ": "UTC"]])
                #expect(throws: StructuredError.self) { try propose(variables) }
            }
        }
    }

    /// The parts of a line do something else alone, in another folder, or in another order.
    @Test func aGrantedLineIsThatLine() async throws {
        try await PolicyHome.with("capabilities:\n  process.run: { tier: approval_required }\n") { fixture in
            try await fixture.engine { engine in
                let line: JSONObject = ["command": "cd build && rm -rf out", "shell": true]
                let id = try await PolicyHome.ask(engine, "process.run", line)
                _ = try await PolicyHome.accept(engine, id)
                let version = try #require(try engine.store.read(PolicyVersions.current))
                let proposal = try Engine.proposeGrant(
                    engine.store, for: id, condition: nil, policy: try version.policy(Capabilities.catalogue),
                    redactor: try Redactor(key: KeyFiles(home: fixture.home.root).digestKey()),
                    now: fixture.clock.clock.now())
                _ = try await engine.operate(
                    .grantCreate, ["request": .string(id), "conditions": proposal.conditions], by: .supervisor("owner"))
                #expect(try await tier(engine, "process.run", line) == "notify")
                for other in [
                    ["command": "rm", "args": ["-rf", "out"]], ["command": "rm -rf out", "shell": true],
                    ["command": "cd build && rm -rf out", "shell": true, "cwd": "/workspace/tester/build"],
                    ["command": "cd build && rm -rf out", "shell": true, "env": ["LC_ALL": "C"]],
                ] as [JSONObject] {
                    try FileManager.default.createDirectory(
                        atPath: fixture.folder + "/build", withIntermediateDirectories: true)
                    #expect(try await tier(engine, "process.run", other) == "ApprovalPending", "\(other)")
                }
            }
        }
    }

    /// Loading grants anew does not forget uses that are on their way to the disk.
    @Test func aGrantOfOneUseAnswersOnceWhileOthersAreMade() async throws {
        try await PolicyHome.with(Self.policy) { fixture in
            try await fixture.engine { engine in
                let id = try await PolicyHome.ask(engine, "filesystem.write", ["path": "a", "content": "x"])
                _ = try await PolicyHome.accept(engine, id)
                for round in 0..<5 {
                    let made = try await engine.operate(
                        .grantCreate,
                        [
                            "request": .string(id), "conditions": [["path_prefix": "/workspace/tester"]],
                            "scope": "agent",
                            "uses": 1,
                        ], by: .supervisor("owner"))
                    let answered = try await withThrowingTaskGroup(of: Bool.self) { group in
                        for number in 0..<8 {
                            group.addTask {
                                try await tier(
                                    engine, "filesystem.write",
                                    ["path": .string("f\(round).\(number)"), "content": "x"])
                                    == "notify"
                            }
                            group.addTask {
                                _ = try await engine.operate(
                                    .supervisorAdd, ["name": .string("s\(round).\(number)")], by: .supervisor("owner"))
                                return false
                            }
                        }
                        return try await group.reduce(0) { $0 + ($1 ? 1 : 0) }
                    }
                    #expect(answered == 1, "round \(round)")
                    let name = made["id"]?.string ?? ""
                    #expect(try engine.store.read { try GrantTable.require($0, name) }.used == 1)
                }
            }
        }
    }
}
