import Foundation
import KruxAudit
import KruxCapabilities
import KruxCore
import KruxEngine
import KruxStore
import KruxTestSupport
import Logging
import Synchronization
import Testing

/// Calls that are made later: at their time, once, decided then, and over restarts.
@Suite struct ScheduleTests {
    private final class Clock: Sendable {
        let offset = Mutex<Int64>(0)
        var wall: WallClock {
            let real = Engine.systemClock
            return WallClock(
                now: { [self] in
                    Timestamp(microseconds: real.now().microseconds + offset.withLock { $0 } * 1_000_000)
                }, monotonic: real.monotonic, boot: real.boot)
        }
    }

    private func open(_ home: Home, _ clock: Clock) throws -> Engine {
        try Engine(home: home, clock: clock.wall, log: Logger(label: "test"))
    }

    private func call(_ engine: Engine, _ capability: String, _ arguments: JSONObject) async throws -> JSONObject {
        let reply = await engine.call(
            CallRequest(capability: capability, arguments: arguments),
            by: try engine.caller(agentNamed: "one", via: "test"))
        guard case .succeeded(let data, _, _) = reply else { throw TestFailure("\(capability): \(reply)") }
        let (_, violations) = try #require(Capabilities.catalogue[capability]).output.validate(data)
        #expect(violations.isEmpty, "\(violations)")
        return data
    }

    /// While `body` runs, planned calls are made.
    private func running<R>(_ engine: Engine, _ body: () async throws -> R) async throws -> R {
        let task = Task { await engine.runSchedules() }
        let result: Result<R, any Error>
        do { result = .success(try await body()) } catch { result = .failure(error) }
        engine.drain()
        await task.value
        try engine.close()
        return try result.get()
    }

    private func waitUntil(_ holds: () async throws -> Bool) async throws {
        for _ in 0..<600 {
            if try await holds() { return }
            try await Task.sleep(for: .milliseconds(50))
        }
        throw TestFailure("it did not come about")
    }

    private func rows(_ home: Home, _ capability: String) throws -> [JSONValue] {
        let store = try ReadOnlyStore(path: home.database)
        defer { store.close() }
        return try store.read { tx in
            try tx.rows(
                "SELECT body FROM audit WHERE capability = ? AND phase = 'progress' ORDER BY seq", [.text(capability)]
            ) { try JSONParser.parse($0.text(0)) }
        }
    }

    private func home(_ folder: String) throws -> Home {
        let home = Home(root: folder + "/home")
        try write(
            "name: org\ncapabilities:\n  \"*\": { tier: autonomous }\n  filesystem.delete: { tier: blocked }\n",
            to: "\(home.policies)/org.yaml")
        return home
    }

    private func createAgent(_ engine: Engine) async throws {
        _ = try await engine.operate(.agentCreate, ["name": "one", "purpose": "tests"], by: .supervisor("owner"))
    }

    @Test func aCallIsMadeAtItsTimeAndOnce() async throws {
        try await withTemporaryFolder { folder in
            let home = try home(folder)
            let engine = try open(home, Clock())
            try await createAgent(engine)
            try await running(engine) {
                let planned = try await call(
                    engine, "scheduler.delay",
                    [
                        "seconds": 1, "capability": "filesystem.append",
                        "arguments": ["path": "log", "content": "x"],
                    ])
                #expect(planned["state"] == "waiting")
                let file = home.root + "/workspaces/one/log"
                try await waitUntil { FileManager.default.fileExists(atPath: file) }
                #expect(try await call(engine, "scheduler.cron_list", [:])["jobs"]?.array == [])
                #expect(FileManager.default.contents(atPath: file) == Data("x".utf8))
            }
            let told = try rows(home, "scheduler.delay")
            #expect(told.map { $0["detail"]?["event"] } == ["called"])
            #expect(try AuditVerifier.verify({ try ReadOnlyStore(path: home.database) }).isIntact)
        }
    }

    /// The gateway was stopped for a day: cron says how often it was missed, makes up for it once where that was asked for,
    /// and a call that was put off is made late.
    @Test func whatWasMissedIsRecorded() async throws {
        try await withTemporaryFolder { folder in
            let home = try home(folder)
            let clock = Clock()
            func plan(_ file: String, _ extra: JSONObject) -> JSONObject {
                var arguments: JSONObject = [
                    "capability": "filesystem.append",
                    "arguments": ["path": .string(file), "content": "x"],
                ]
                for member in extra.members { arguments[member.key] = member.value }
                return arguments
            }
            // Its lock goes with it.
            func before() async throws {
                let engine = try open(home, clock)
                try await createAgent(engine)
                _ = try await call(
                    engine, "scheduler.cron_create",
                    plan("skipped", ["schedule": "0 * * * *", "timezone": "Europe/Berlin"]))
                _ = try await call(
                    engine, "scheduler.cron_create", plan("caught", ["schedule": "0 * * * *", "catch_up": true]))
                _ = try await call(engine, "scheduler.delay", plan("late", ["seconds": 3600]))
                try engine.close()
            }
            try await before()
            clock.offset.withLock { $0 = 86_400 }
            let engine = try open(home, clock)
            let workspace = home.root + "/workspaces/one/"
            try await running(engine) {
                try await waitUntil {
                    ["caught", "late"].allSatisfy { FileManager.default.fileExists(atPath: workspace + $0) }
                }
                let jobs = try await call(engine, "scheduler.cron_list", [:])["jobs"]?.array ?? []
                #expect(jobs.compactMap { $0["missed"]?.int } == [24, 24], "\(jobs)")
                #expect(jobs.compactMap { $0["runs"]?.int } == [0, 1])
            }
            #expect(!FileManager.default.fileExists(atPath: workspace + "skipped"))
            #expect(FileManager.default.contents(atPath: workspace + "caught") == Data("x".utf8))
            let told = try rows(home, "scheduler.cron_create").compactMap { $0["detail"]?["event"]?.string }
            #expect(told.sorted() == ["called", "missed"])
            #expect(try rows(home, "scheduler.delay").first?["detail"]?["late_seconds"]?.int ?? 0 > 80_000)
        }
    }

    /// A rule that came since holds for what was planned before it.
    @Test func aPlannedCallIsDecidedWhenItIsMade() async throws {
        try await withTemporaryFolder { folder in
            let home = try home(folder)
            let engine = try open(home, Clock())
            try await createAgent(engine)
            try await running(engine) {
                _ = try await call(engine, "filesystem.write", ["path": "kept", "content": "x"])
                _ = try await call(
                    engine, "scheduler.delay",
                    ["seconds": 1, "capability": "filesystem.delete", "arguments": ["path": "kept"]])
                try await waitUntil { try !rows(home, "scheduler.delay").isEmpty }
                let store = try ReadOnlyStore(path: home.database)
                defer { store.close() }
                try await waitUntil {
                    try store.read { tx in
                        try tx.first(
                            "SELECT count(*) FROM audit WHERE capability = 'filesystem.delete' AND outcome = 'denied'"
                        ) { $0.int(0) }
                    } == 1
                }
            }
            #expect(FileManager.default.fileExists(atPath: home.root + "/workspaces/one/kept"))
        }
    }

    @Test func whatCannotBePlannedIsRefused() async throws {
        try await withTemporaryFolder { folder in
            let home = try home(folder)
            let engine = try open(home, Clock())
            try await createAgent(engine)
            let bad: [(String, JSONObject)] = [
                ("scheduler.cron_create", ["schedule": "0 0 30 2 *", "capability": "system.time"]),
                ("scheduler.cron_create", ["schedule": "61 * * * *", "capability": "system.time"]),
                (
                    "scheduler.cron_create",
                    ["schedule": "@daily", "timezone": "Mars/Base", "capability": "system.time"]
                ),
                ("scheduler.delay", ["seconds": 1, "capability": "filesystem.reed"]),
                ("scheduler.delay", ["seconds": 1, "capability": "filesystem.read", "arguments": ["pth": "x"]]),
                ("scheduler.cron_delete", ["job_id": "sc_001"]),
            ]
            for (capability, arguments) in bad {
                let reply = await engine.call(
                    CallRequest(capability: capability, arguments: arguments),
                    by: try engine.caller(agentNamed: "one", via: "test"))
                guard case .failed(let error) = reply else { throw TestFailure("\(arguments)") }
                #expect(!error.recoveryActions.isEmpty, "\(error)")
            }
            let planned = try await call(engine, "scheduler.delay", ["seconds": 60, "capability": "system.time"])
            let id = try #require(planned["job_id"]?.string)
            _ = try await engine.operate(.scheduleEnd, ["id": .string(id)], by: .supervisor("owner"))
            #expect(try await call(engine, "scheduler.cron_list", [:])["jobs"]?.array == [])
            try engine.close()
        }
    }

    /// Rows that no call wrote end by themselves, with a row of the record, and keep nobody else's from being made.
    @Test func aRowThatWasTamperedWithStopsNobody() async throws {
        try await withTemporaryFolder { folder in
            let home = Home(root: folder + "/home")
            try write("name: org\ncapabilities:\n  \"*\": { tier: autonomous }\n", to: "\(home.policies)/org.yaml")
            let clock = Clock()
            /// It is the writer as long as it is there.
            func plan() async throws -> [String] {
                let first = try open(home, clock)
                _ = try await first.operate(
                    .agentCreate, ["name": "one", "purpose": "tests"], by: .supervisor("owner"))
                var ids: [String] = []
                for _ in 0..<7 {
                    let made = try await call(
                        first, "scheduler.cron_create",
                        ["schedule": "0 0 1 1 *", "capability": "system.time"])
                    ids.append(try #require(made["job_id"]?.string))
                }
                try first.close()
                return ids
            }
            let ids = try await plan()
            let changes = [
                "next_run = -9223372036854775808", "next_run = 1, arguments = 'no JSON'",
                "next_run = 1, cron = '61 * * * *'",
                "next_run = 1, runs = 9223372036854775807, missed = 9223372036854775807",
                "next_run = 1, capability = 'no.such', zone = 'Nowhere/At_All'",
                "next_run = 1, created_at = -9223372036854775808",
            ]
            for (id, change) in zip(ids, changes) {
                let done = try Kruxos.execute(
                    "/usr/bin/sqlite3", [home.database, "UPDATE schedules SET \(change) WHERE id = '\(id)'"])
                #expect(done.code == 0, "\(done.errors)")
            }
            _ = try Kruxos.execute(
                "/usr/bin/sqlite3",
                [home.database, "UPDATE schedules SET cron = NULL, next_run = 1 WHERE id = '\(ids[6])'"])
            let second = try open(home, clock)
            try await running(second) {
                try await waitUntil {
                    try !rows(home, "scheduler.delay").isEmpty
                        && rows(home, "scheduler.cron_create").count >= 6
                }
                let listed = try await call(second, "scheduler.cron_list", [:])
                #expect(
                    listed["schedules"]?.array?.isEmpty == false || listed["jobs"]?.array?.isEmpty == false, "\(listed)"
                )
            }
            let told = try rows(home, "scheduler.cron_create").map(\.canonicalText).joined()
            #expect(told.contains("its arguments are no JSON") && told.contains("its five fields are no schedule"))
        }
    }
}
