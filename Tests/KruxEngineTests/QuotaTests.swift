import Foundation
import KruxCore
import KruxEngine
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
}
