import Foundation
import KruxAudit
import KruxCapabilities
import KruxCore
import KruxEngine
import KruxStore
import KruxTestSupport
import Logging
import Testing

/// What agents keep and tell each other: in the gate's one file, in the transaction of its record.
@Suite struct StateTests {
    /// Two agents on one engine; replies must fit their schema.
    private struct Two {
        let engine: Engine

        static func with<R>(_ policy: String = "", _ body: (Two) async throws -> R) async throws -> R {
            try await withTemporaryFolder { folder in
                let home = Home(root: folder + "/home")
                try write(
                    "name: org\ndefaults: { tier: autonomous }\n" + policy, to: "\(home.policies)/org.yaml")
                let engine = try Engine(home: home, log: Logger(label: "test"))
                for name in ["one", "two"] {
                    _ = try await engine.operate(
                        .agentCreate, ["name": .string(name), "purpose": "tests"], by: .supervisor("owner"))
                }
                let result = try await body(Two(engine: engine))
                try engine.close()
                #expect(try AuditVerifier.verify({ try ReadOnlyStore(path: home.database) }).isIntact)
                return result
            }
        }

        func reply(_ agent: String, _ capability: String, _ arguments: JSONObject = [:]) async throws -> CallReply {
            await engine.call(
                CallRequest(capability: capability, arguments: arguments),
                by: try engine.caller(agentNamed: agent, via: "test"))
        }

        @discardableResult
        func call(_ agent: String, _ capability: String, _ arguments: JSONObject = [:]) async throws -> JSONObject {
            let reply = try await reply(agent, capability, arguments)
            guard case .succeeded(let data, _, _) = reply else { throw TestFailure("\(capability): \(reply)") }
            let declaration = try #require(Capabilities.catalogue[capability])
            let (_, violations) = declaration.output.validate(data)
            #expect(violations.isEmpty, "\(capability): \(violations)")
            return data
        }

        func kind(_ agent: String, _ capability: String, _ arguments: JSONObject) async throws -> StructuredError.Kind?
        {
            guard case .failed(let error) = try await reply(agent, capability, arguments) else { return nil }
            return error.kind
        }
    }

    @Test(arguments: ["session", "persistent", "shared"])
    func aValueIsKeptChangedAndForgotten(_ place: String) async throws {
        try await Two.with { two in
            func call(_ verb: String, _ arguments: JSONObject) async throws -> JSONObject {
                try await two.call("one", "state.\(place).\(verb)", arguments)
            }
            #expect(try await two.kind("one", "state.\(place).get", ["key": "a"]) == .notFound)
            #expect(try await call("set", ["key": "a", "value": ["x": [1, "ü"]]])["version"] == 1)
            #expect(try await call("get", ["key": "a"])["value"] == ["x": [1, "ü"]])
            #expect(try await call("set", ["key": "a", "value": "other", "version": 1])["version"] == 2)
            #expect(
                try await two.kind("one", "state.\(place).set", ["key": "a", "value": 3, "version": 1]) == .conflict)
            #expect(
                try await two.kind("one", "state.\(place).set", ["key": "b", "value": 3, "version": 1]) == .conflict)
            #expect(try await call("get", ["key": "a"])["value"] == "other")
            #expect(try await call("set", ["key": "b", "value": 3, "version": 0])["version"] == 1)
            #expect(try await call("delete", ["key": "a"])["version"] == 3)
            #expect(try await call("delete", ["key": "a"])["existed"] == false)
            // The next one goes on counting: a reader of version 2 cannot mistake it.
            #expect(try await call("set", ["key": "a", "value": "again"])["version"] == 4)
            let history = try await call("history", ["key": "a"])["entries"]?.array ?? []
            #expect(history.map { $0["version"]?.int } == [4, 3, 2, 1])
            #expect(history.map { $0["value"] ?? .null } == ["again", .null, "other", ["x": [1, "ü"]]])
            for key in ["c/1", "c/2", "c", "d"] {
                _ = try await call("set", ["key": .string(key), "value": ["who": .string(key)]])
            }
            func keys(_ verb: String, _ arguments: JSONObject) async throws -> [String?] {
                try await call(verb, arguments)["entries"]?.array?.map { $0["key"]?.string } ?? []
            }
            #expect(try await keys("list", [:]) == ["a", "b", "c", "c/1", "c/2", "d"])
            #expect(try await keys("list", ["prefix": "c/"]) == ["c/1", "c/2"])
            #expect(try await keys("list", ["limit": 2]) == ["a", "b"])
            #expect(try await keys("query", ["field": "/who", "equals": "c/2"]) == ["c/2"])
            #expect(try await keys("query", ["field": "", "equals": 3]) == ["b"])
            #expect(
                try await two.kind("one", "state.\(place).query", ["field": "who", "equals": 1]) == .invalidArguments)
            let large = JSONValue.string(String(repeating: "x", count: 1 << 20))
            #expect(try await two.kind("one", "state.\(place).set", ["key": "e", "value": large]) == .tooLarge)
            // Another agent sees it only where it is shared.
            let other = try await two.kind("two", "state.\(place).get", ["key": "a"])
            #expect(other == (place == "shared" ? nil : .notFound))
        }
    }

    /// Whoever read the same version, one of them wins, and the record says which.
    @Test func noUpdateOfSharedStateIsLost() async throws {
        try await Two.with { two in
            try await two.call("one", "state.shared.set", ["key": "n", "value": 0])
            try await withThrowingTaskGroup(of: Void.self) { group in
                for agent in ["one", "two", "one", "two"] {
                    group.addTask {
                        for _ in 0..<25 {
                            while true {
                                let entry = try await two.call(agent, "state.shared.get", ["key": "n"])
                                let next = (entry["value"]?.int ?? 0) + 1
                                let version = try #require(entry["version"])
                                let set: JSONObject = ["key": "n", "value": .int(next), "version": version]
                                if try await two.kind(agent, "state.shared.set", set) == nil { break }
                            }
                        }
                    }
                }
                try await group.waitForAll()
            }
            let end = try await two.call("one", "state.shared.get", ["key": "n"])
            #expect(end["value"] == 100 && end["version"] == 101)
            // A change and its row are one transaction: no intent, and as many successes as versions.
            let rows = try two.engine.store.read { try AuditQuery.rows($0, AuditFilter()) }.filter {
                $0.body?["capability"] == "state.shared.set"
            }
            #expect(rows.allSatisfy { $0.body?["phase"] == "outcome" && $0.body?["intent"]?.int == nil })
            #expect(rows.count { $0.body?["outcome"] == "succeeded" } == 101)
        }
    }

    @Test func aWatchAnswersWhenAKeyChanges() async throws {
        try await Two.with { two in
            let nothing = try await two.call("one", "state.shared.watch", ["key": "k", "timeout_seconds": 1])
            #expect(nothing["changed"] == false && nothing["entry"]?.object == nil)
            async let seen = two.call("one", "state.shared.watch", ["key": "k", "timeout_seconds": 60])
            try await two.call("two", "state.shared.set", ["key": "k", "value": "now"])
            let entry = try await seen
            #expect(entry["changed"] == true && entry["entry"]?["updated_by"] == "two")
            let known = try await two.call("one", "state.shared.watch", ["key": "k", "version": 0])
            #expect(known["changed"] == true)
        }
    }

    @Test func messagesWaitUntilTheyAreDealtWith() async throws {
        try await Two.with { two in
            #expect(try await two.kind("one", "comms.send", ["to": "nobody", "message": "x"]) == .notFound)
            let sent = try await two.call("one", "comms.send", ["to": "two", "message": "hello"])
            for turn in 1...2 {
                let got = try await two.call("two", "comms.receive")
                #expect(got["messages"]?.array?.map { $0["message"]?.string } == ["hello"])
                #expect(got["messages"]?.array?.first?["deliveries"]?.int == Int64(turn))
            }
            // Nobody deals with another's.
            let id = try #require(sent["message_id"])
            #expect(try await two.call("one", "comms.receive", ["acknowledge": [id]])["acknowledged"] == 0)
            let done = try await two.call("two", "comms.receive", ["acknowledge": [id]])
            #expect(done["acknowledged"] == 1 && done["messages"] == [])
            #expect(try await two.call("one", "comms.broadcast", ["topic": "t", "message": "x"])["recipients"] == 0)
            for agent in ["one", "two"] { try await two.call(agent, "comms.subscribe", ["topic": "t"]) }
            async let waiting = two.call("two", "comms.receive", ["wait_seconds": 60])
            #expect(try await two.call("one", "comms.broadcast", ["topic": "t", "message": "all"])["recipients"] == 1)
            let got = try await waiting
            #expect(got["messages"]?.array?.first?["topic"] == "t", "\(got)")
            let left = try await two.call("two", "comms.subscribe", ["topic": "t", "end": true])
            #expect(left["topics"] == [])
            #expect(try await two.call("one", "comms.broadcast", ["topic": "t", "message": "x"])["recipients"] == 0)
        }
    }

    @Test func anAlertReachesPeople() async throws {
        try await Two.with { two in
            let sent = try await two.call("one", "alerts.send", ["message": "the disk fills", "severity": "critical"])
            #expect(sent["alert_id"] == "al_001")
            let told = try two.engine.store.read { try $0.rows("SELECT summary FROM notifications") { $0.text(0) } }
            #expect(told == ["critical: the disk fills"])
            #expect(try await two.kind("two", "alerts.acknowledge", ["alert_id": "al_001"]) == .notFound)
            #expect(try await two.call("two", "alerts.list")["alerts"] == [])
            let first = try await two.call("one", "alerts.acknowledge", ["alert_id": "al_001"])
            let second = try await two.call("one", "alerts.acknowledge", ["alert_id": "al_001"])
            #expect(first["acknowledged"] == true && first == second)
            #expect(try await two.call("one", "alerts.list", ["open": true])["alerts"] == [])
            #expect(try await two.call("one", "alerts.list")["alerts"]?.array?.count == 1)
        }
    }

    /// An approved change ends with its request in one transaction; one that fails ends the request as failed.
    @Test func anApprovedChangeIsMadeOnce() async throws {
        try await Two.with("capabilities: { state.shared.set: { tier: approval_required } }\n") { two in
            var ids: [String] = []
            for version in [0, 0] {
                let reply = try await two.reply(
                    "one", "state.shared.set", ["key": "k", "value": 1, "version": .int(Int64(version))])
                ids.append(try #require(reply.pendingRequest))
            }
            for id in ids {
                _ = try two.engine.decideApproval(id, .init(approve: true), by: .supervisor("owner"))
                await two.engine.runApproved(id)
                await two.engine.runApproved(id)
            }
            let states = try two.engine.store.read {
                try $0.rows("SELECT state FROM approvals ORDER BY number") { $0.text(0) }
            }
            #expect(states == ["succeeded", "failed"])
            #expect(try await two.call("two", "state.shared.get", ["key": "k"])["version"] == 1)
        }
    }

    @Test func aBriefingTellsWhatHappened() async throws {
        try await Two.with("capabilities: { state.shared.delete: { tier: approval_required } }\n") { two in
            let quiet = try await two.call("one", "agent.briefing", ["since": "2090-01-01T00:00:00Z"])
            #expect(quiet["summary"] == "Nothing has happened.")
            for key in ["a", "b"] { _ = try await two.reply("one", "state.shared.delete", ["key": .string(key)]) }
            _ = try two.engine.decideApproval(
                "ap_001", .init(approve: false, reason: "Not now"), by: .supervisor("owner"))
            try await two.call("two", "comms.send", ["to": "one", "message": "hi"])
            try await two.call("one", "alerts.send", ["message": "x"])
            let told = try await two.call("one", "agent.briefing")
            #expect(told["pending_approvals"] == 1 && told["unread_messages"] == 1 && told["open_alerts"] == 1)
            #expect(
                told["requests"] == [
                    [
                        "request_id": "ap_001", "capability": "state.shared.delete", "state": "rejected",
                        "reason": "Not now",
                    ]
                ])
            #expect(try await two.kind("one", "agent.briefing", ["since": "yesterday"]) == .invalidArguments)
            let metrics = try await two.call("one", "system.metrics")
            #expect((metrics["cores"]?.int ?? 0) > 0 && (metrics["memory_free_bytes"]?.int ?? 0) > 0)
        }
    }
}
