import Foundation
import KruxCore
import KruxEngine
import KruxStore
import KruxTestSupport
import Logging
import Testing

/// What agents may keep, and what becomes of what they delete.
@Suite struct QuotaTests {
    private func with(_ body: (Engine, Home) async throws -> Void) async throws {
        try await withTemporaryFolder { folder in
            let home = Home(root: folder + "/home")
            try write("name: org\ncapabilities:\n  \"*\": { tier: autonomous }\n", to: "\(home.policies)/org.yaml")
            let engine = try Engine(home: home, log: Logger(label: "test"))
            _ = try await engine.operate(.agentCreate, ["name": "one", "purpose": "tests"], by: .supervisor("owner"))
            try await body(engine, home)
            try engine.close()
        }
    }

    private func call(_ engine: Engine, _ capability: String, _ arguments: JSONObject) async throws -> StructuredError
        .Kind?
    {
        let reply = await engine.call(
            CallRequest(capability: capability, arguments: arguments),
            by: try engine.caller(agentNamed: "one", via: "test"))
        if case .failed(let error) = reply { return error.kind }
        return nil
    }

    @Test func aWorkspaceHoldsWhatItMay() async throws {
        try await with { engine, _ in
            func write(_ name: String, _ size: Int) async throws -> StructuredError.Kind? {
                try await call(
                    engine, "filesystem.write",
                    ["path": .string(name), "content": .string(String(repeating: "x", count: size))])
            }
            #expect(try await write("before", 40) == nil)
            _ = try await engine.operate(
                .agentQuota, ["name": "one", "bytes": 100, "files": 4], by: .supervisor("owner"))
            #expect(try await write("a", 60) == nil)
            #expect(try await write("b", 1) == .storageFull)
            #expect(try await call(engine, "filesystem.append", ["path": "a", "content": "x"]) == .storageFull)
            #expect(try await call(engine, "filesystem.copy", ["source": "a", "destination": "c"]) == .storageFull)
            // In place of itself it takes no more room.
            #expect(try await write("a", 60) == nil)
            #expect(try await call(engine, "filesystem.delete", ["path": "before"]) == nil)
            #expect(try await write("b", 40) == nil)
            #expect(try await call(engine, "filesystem.mkdir", ["path": "d"]) == nil)
            // What is refused for another reason takes no room.
            for _ in 0..<10 {
                let again = try await call(engine, "filesystem.mkdir", ["path": "d"])
                #expect(again != .storageFull)
            }
            #expect(try await call(engine, "filesystem.mkdir", ["path": "e"]) == nil)
            #expect(try await call(engine, "filesystem.mkdir", ["path": "f"]) == .storageFull)
            // What a process leaves counts, and keeps the next from starting.
            let fill: JSONObject = ["command": "head", "args": ["-c", "500", "/dev/zero"], "cwd": "."]
            #expect(try await call(engine, "process.run", fill) == nil)
            #expect(
                try await call(engine, "process.run", ["command": "head -c 500 /dev/zero > big", "shell": true]) == nil)
            #expect(try await call(engine, "process.run", fill) == .storageFull)
            #expect(try await call(engine, "filesystem.delete", ["path": "big"]) == nil)
            #expect(try await call(engine, "process.run", fill) == nil)
            _ = try await engine.operate(.agentQuota, ["name": "one"], by: .supervisor("owner"))
            #expect(try await write("large", 5000) == nil)
        }
    }

    @Test func whatIsDeletedIsKeptForItsTime() async throws {
        try await with { engine, home in
            for name in ["a", "b"] {
                let path = JSONValue.string(name)
                let written = try await call(engine, "filesystem.write", ["path": path, "content": "x"])
                let deleted = try await call(engine, "filesystem.delete", ["path": path])
                #expect(written == nil && deleted == nil)
            }
            #expect(Engine.trash(of: home, agent: nil).map(\.path) == ["/workspace/one/a", "/workspace/one/b"])
            func empty(_ seconds: Int64) async throws -> Int64? {
                try await engine.operate(
                    .trashEmpty, ["older_than_seconds": .int(seconds)], by: .supervisor("owner"))["removed"]?.int
            }
            #expect(try await empty(3600) == 0)
            #expect(Engine.trash(of: home, agent: nil).count == 2)
            #expect(try await empty(0) == 2)
            #expect(Engine.trash(of: home, agent: nil).isEmpty)
            await #expect(throws: StructuredError.self) {
                _ = try await engine.operate(.trashKeep, ["days": 0], by: .supervisor("owner"))
            }
            #expect(try await engine.operate(.trashKeep, ["days": 7], by: .supervisor("owner"))["days"] == 7)
        }
    }

    /// What is there and of another type is not taken for what is not there.
    @Test func parametersOfAnotherTypeAreRefused() async throws {
        try await with { engine, _ in
            let set: JSONObject = ["name": "one", "bytes": 100, "files": 4]
            _ = try await engine.operate(.agentQuota, set, by: .supervisor("owner"))
            let wrong: [(Engine.OperatorCommand, JSONObject)] = [
                (.agentQuota, ["name": "one", "bytes": "6000"]), (.agentQuota, ["name": "one", "files": [1]]),
                (.agentQuota, ["name": "one", "bytes": .double(1.5)]), (.agentQuota, ["name": "one", "bytes": true]),
                (.agentQuota, ["name": 7]), (.trashEmpty, ["agent": true]), (.trashEmpty, ["agent": ["one"]]),
                (.trashEmpty, ["older_than_seconds": "7d"]), (.retentionSet, ["days": "x", "seconds": "x"]),
                (.mountAdd, ["agent": "one", "source": 1, "target": "/mnt/a", "read_only": false]),
                (.mountAdd, ["agent": "one", "source": "/srv", "target": "/mnt/a", "read_only": "yes"]),
                (.mountAdd, ["agent": "one", "source": "/usr\u{0}/share", "target": "/mnt/a", "read_only": true]),
                (.vaultInit, ["passphrase": 1]), (.vaultAdd, ["name": "x", "plain_http": "no"]),
                (.agentMode, ["name": "one", "mode": 1]), (.trashKeep, ["days": "30"]),
            ]
            for (command, parameters) in wrong {
                await #expect(throws: (any Error).self, "\(command) \(parameters)") {
                    try await engine.operate(command, parameters, by: .supervisor("owner"))
                }
            }
            #expect(
                try await call(
                    engine, "filesystem.write", ["path": "a", "content": .string(String(repeating: "x", count: 101))])
                    == .storageFull)
            // An age beyond every time is no age in the future.
            _ = try await call(engine, "filesystem.write", ["path": "b", "content": "x"])
            _ = try await call(engine, "filesystem.delete", ["path": "b"])
            for seconds in [JSONValue.maxInteger, 9_000_000_000_000] {
                let emptied = try await engine.operate(
                    .trashEmpty, ["older_than_seconds": .int(seconds)], by: .supervisor("owner"))
                #expect(emptied["removed"] == 0)
            }
        }
    }

    /// A clock that is far off for once makes nothing old; one that goes on does, in its time.
    @Test func aWrongClockEmptiesNoTrash() async throws {
        try await withTemporaryFolder { folder in
            let home = Home(root: folder + "/home")
            try write("name: org\ncapabilities:\n  \"*\": { tier: autonomous }\n", to: "\(home.policies)/org.yaml")
            let real = Engine.systemClock
            func open(daysAhead: Int64) throws -> Engine {
                let clock = WallClock(
                    now: { real.now().advanced(bySeconds: daysAhead * 86_400) }, monotonic: real.monotonic,
                    boot: real.boot)
                return try Engine(home: home, clock: clock, log: Logger(label: "test"))
            }
            /// What retention does at a start.
            func start(daysAhead: Int64, _ work: (Engine) async throws -> Void = { _ in }) async throws {
                let engine = try open(daysAhead: daysAhead)
                try await work(engine)
                let time = {
                    try ReadOnlyStore(path: home.database).read { tx in
                        try tx.first("SELECT value FROM meta WHERE key = 'retention_time'") { $0.text(0) }
                    }
                }
                let before = try time()
                let retention = Task { await engine.runRetention() }
                for _ in 0..<600 where try time() == before { try await Task.sleep(for: .milliseconds(10)) }
                retention.cancel()
                await retention.value
                try engine.close()
            }
            try await start(daysAhead: 0) { engine in
                _ = try await engine.operate(
                    .agentCreate, ["name": "one", "purpose": "tests"], by: .supervisor("owner"))
                _ = try await call(engine, "filesystem.write", ["path": "a", "content": "x"])
                #expect(try await call(engine, "filesystem.delete", ["path": "a"]) == nil)
            }
            for days: Int64 in [400, 400, 0, -3, 29] {
                try await start(daysAhead: days)
                #expect(Engine.trash(of: home, agent: "one").count == 1, "\(days)")
            }
            for days: Int64 in 30...60 { try await start(daysAhead: days) }
            #expect(Engine.trash(of: home, agent: "one").isEmpty)
        }
    }
}
