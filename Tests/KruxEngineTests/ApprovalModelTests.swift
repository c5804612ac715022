import Foundation
import KruxApprovals
import KruxAudit
import KruxCore
import KruxEngine
import KruxStore
import KruxTestSupport
import Logging
import Testing

/// Agents, supervisors, crashes, restarts and restores in random order, against a small model that says what may be.
@Suite struct ApprovalModelTests {
    /// What the model knows of one request.
    private struct Expected {
        enum State: String {
            case pending, approved, done, rejected, cancelled, expired, refused, unknown
        }
        var state = State.pending
        let agent: String
        /// Its own file: appended to, or deleted.
        let file: String
        let deletes: Bool
        /// How often it may have run.
        var runs = 0
        /// Somebody changed what it is bound to.
        var changed = false
        /// The answer that a wait got; every later one must get the same.
        var answer: JSONObject?
        var expiresAt: Int64?
    }

    private static let policy = """
        capabilities:
          filesystem.append: { tier: approval_required }
          filesystem.delete: { tier: approval_required, expires: 1h }
        """

    @Test func noOrderOfEventsRunsARequestTwiceOrUnasked() async throws {
        let steps = Int(ProcessInfo.processInfo.environment["KRUXOS_TEST_STEPS"] ?? "") ?? 2000
        let seed = ProcessInfo.processInfo.environment["SEED"].flatMap { UInt64($0) } ?? .random(in: 0...UInt64.max)
        print("seed", seed)
        var random = SeededGenerator(seed: seed)
        var done = 0
        // A new home now and then: its record is verified at the end.
        while done < steps {
            let count = min(5000, steps - done)
            try await withTemporaryFolder { folder in
                var run = try await Run(folder, seed: seed)
                for _ in 0..<count { try await run.step(&random) }
                try await run.end()
            }
            done += count
        }
    }

    private struct Run {
        let home: Home
        let backup: String
        let clock = TestClock()
        let seed: UInt64
        let agents = ["one", "two"]
        private static let log = Logger(label: "test") { _ in SwiftLogNoOpLogHandler() }
        private var current: Engine?
        private var engine: Engine {
            get throws { try #require(current) }
        }
        var requests: [String: Expected] = [:]
        var order: [String] = []
        var files = 0
        /// What the model held when the backup was made.
        var saved: Set<String>?

        init(_ folder: String, seed: UInt64) async throws {
            home = Home(root: folder + "/home")
            backup = folder + "/backup.db"
            self.seed = seed
            for agent in agents { try write(ApprovalModelTests.policy, to: "\(home.policies)/agents/\(agent).yaml") }
            let engine = try Engine(home: home, clock: clock.clock, log: Self.log)
            current = engine
            for agent in agents {
                _ = try await engine.operate(
                    .agentCreate, ["name": .string(agent), "purpose": "tests"], by: .supervisor("owner"))
            }
        }

        private func state(_ id: String) throws -> ApprovalState {
            try engine.store.read { try ApprovalQueue.require($0, id) }.state
        }

        private func path(_ expected: Expected) -> String {
            "\(home.root)/workspaces/\(expected.agent)/\(expected.file)"
        }

        private func caller(_ name: String) throws -> Caller { try engine.caller(agentNamed: name, via: "test") }

        /// A request, mostly one that is not over.
        private func pick(_ random: inout SeededGenerator) -> String? {
            let open = order.suffix(40).filter { [.pending, .approved].contains(requests[$0]?.state) }
            if Int.random(in: 0..<4, using: &random) > 0, let id = open.randomElement(using: &random) { return id }
            return order.randomElement(using: &random)
        }

        mutating func step(_ random: inout SeededGenerator) async throws {
            clock.pass(seconds: Double(Int.random(in: 0...20, using: &random)))
            expire()
            switch Int.random(in: 0..<100, using: &random) {
            case 0..<30: try await ask(&random)
            case 30..<55: try decide(&random)
            case 55..<62: try cancel(&random)
            case 62..<82: try await run(&random)
            case 82..<92: try await look(&random)
            case 92..<95: try change(&random)
            case 95..<97: try await crash(&random)
            case 97..<98: clock.pass(seconds: 1800)
            case 98..<99: try await crash(&random, whileRunning: true)
            default: try await backUpOrRestore(&random)
            }
        }

        private mutating func expire() {
            let now = clock.clock.now().microseconds
            for id in order.suffix(200) {
                if let expected = requests[id], expected.state == .pending, let at = expected.expiresAt, at <= now {
                    requests[id]?.state = .expired
                }
            }
        }

        private mutating func ask(_ random: inout SeededGenerator) async throws {
            files += 1
            let agent = agents[Int.random(in: 0...1, using: &random)]
            var expected = Expected(
                agent: agent, file: "f\(files)", deletes: Bool.random(using: &random), expiresAt: nil)
            if expected.deletes {
                try write("first", to: path(expected))
                expected.expiresAt = clock.clock.now().microseconds + 3_600_000_000
            }
            let reply = try await engine.call(
                CallRequest(
                    capability: expected.deletes ? "filesystem.delete" : "filesystem.append",
                    arguments: expected.deletes
                        ? ["path": .string(expected.file)] : ["path": .string(expected.file), "content": "+"]),
                by: try caller(agent))
            if case .failed(let error) = reply, error.kind == .overloaded { return }
            let id = try #require(reply.pendingRequest, "seed \(seed): \(reply)")
            #expect(requests[id] == nil, "seed \(seed): the id \(id) was given twice")
            requests[id] = expected
            order.append(id)
        }

        private mutating func decide(_ random: inout SeededGenerator) throws {
            guard let id = pick(&random), let expected = requests[id] else { return }
            let approve = Int.random(in: 0..<4, using: &random) > 0
            var isTaken = false
            do {
                _ = try engine.decideApproval(
                    id, .init(approve: approve), by: .supervisor(Bool.random(using: &random) ? "alice" : "bob"))
                isTaken = true
            } catch let error as StructuredError {
                #expect(error.kind == .conflict, "seed \(seed), \(id): \(error)")
            }
            #expect(
                isTaken == (expected.state == .pending), "seed \(seed), \(id) in \(expected.state): taken \(isTaken)")
            if isTaken { requests[id]?.state = approve ? .approved : .rejected }
        }

        private mutating func cancel(_ random: inout SeededGenerator) throws {
            guard let id = pick(&random), let expected = requests[id] else { return }
            let by = agents[Int.random(in: 0...1, using: &random)]
            var isTaken = false
            do {
                _ = try engine.cancelApproval(id, by: try caller(by))
                isTaken = true
            } catch let error as StructuredError {
                #expect([.conflict, .notFound].contains(error.kind), "seed \(seed), \(id): \(error)")
            }
            #expect(isTaken == (expected.state == .pending && by == expected.agent), "seed \(seed), \(id) by \(by)")
            if isTaken { requests[id]?.state = .cancelled }
        }

        /// The gateway runs it, several times at once.
        private mutating func run(_ random: inout SeededGenerator) async throws {
            guard let id = pick(&random), let expected = requests[id] else { return }
            let engine = try engine
            let times = Int.random(in: 1...3, using: &random)
            await withTaskGroup(of: Void.self) { group in
                for _ in 0..<times { group.addTask { await engine.runApproved(id) } }
            }
            guard expected.state == .approved else { return }
            requests[id]?.state = expected.changed && expected.deletes ? .refused : .done
            if !(expected.changed && expected.deletes) { requests[id]?.runs += 1 }
            try check(id)
            // What was deleted once is there again: a second time would be seen.
            if expected.deletes, !expected.changed { try write("second", to: path(expected)) }
        }

        /// A wait gets the stored answer, the same every time.
        private mutating func look(_ random: inout SeededGenerator) async throws {
            guard let id = pick(&random), let expected = requests[id] else { return }
            let request = try await engine.approval(id, of: try caller(expected.agent), waitSeconds: 0)
            try check(id)
            guard request.state.isFinal else { return }
            var answer = Engine.json(forAgent: request)
            answer["decided_at"] = nil
            if let before = expected.answer {
                #expect(answer == before, "seed \(seed), \(id): another answer")
            } else {
                requests[id]?.answer = answer
            }
        }

        private mutating func change(_ random: inout SeededGenerator) throws {
            guard let id = pick(&random), let expected = requests[id], expected.deletes,
                [.pending, .approved].contains(expected.state)
            else { return }
            try write("changed \(files)", to: path(expected))
            requests[id]?.changed = true
        }

        /// The process dies: what was being written is lost, what was written stays.
        private mutating func crash(_ random: inout SeededGenerator, whileRunning: Bool = false) async throws {
            var hit: String?
            if whileRunning,
                let id = order.suffix(40).filter({ requests[$0]?.state == .approved }).randomElement(using: &random)
            {
                hit = id
                let engine = try engine
                let delay = UInt32.random(in: 0...1500, using: &random)
                async let running: Void = engine.runApproved(id)
                usleep(delay)
                try engine.store.close()
                engine.drain()
                await running
            } else {
                let engine = try engine
                try engine.store.close()
                engine.drain()
            }
            try await reopen()
            guard let id = hit, let expected = requests[id] else { return }
            switch try state(id) {
            case .approved: break
            case .succeeded:
                requests[id]?.state = .done
                requests[id]?.runs += 1
                if expected.deletes { try write("second", to: path(expected)) }
            case .refused:
                #expect(expected.changed, "seed \(seed), \(id)")
                requests[id]?.state = .refused
            case .unknown:
                requests[id]?.state = .unknown
                requests[id]?.runs += 1
                // It ran or it did not; from now on it does not.
                try write("second", to: path(expected))
                requests[id]?.runs = -1
            case let other: Issue.record("seed \(seed), \(id) is \(other) after a crash")
            }
        }

        private mutating func reopen(restore: Engine.Restore? = nil) async throws {
            // The lock goes with the engine that died, once its last task has.
            current = nil
            for _ in 0..<5000 {
                do {
                    current = try Engine(home: home, clock: clock.clock, log: Self.log, restore: restore)
                    return
                } catch let error as StoreError where error.code == .locked {
                    try await Task.sleep(for: .milliseconds(1))
                }
            }
            throw TestFailure("the home stays locked")
        }

        private mutating func backUpOrRestore(_ random: inout SeededGenerator) async throws {
            guard saved != nil, Int.random(in: 0..<3, using: &random) == 0 else {
                try? FileManager.default.removeItem(atPath: backup)
                try ReadOnlyStore(path: home.database).copy(to: backup)
                saved = Set(order)
                return
            }
            try engine.close()
            for suffix in ["", "-wal", "-shm"] { try? FileManager.default.removeItem(atPath: home.database + suffix) }
            try FileManager.default.copyItem(atPath: backup, toPath: home.database)
            try await reopen(restore: .init(principal: .supervisor("owner"), detail: [:]))
            for agent in agents {
                _ = try await engine.operate(.agentResume, ["name": .string(agent)], by: .supervisor("owner"))
            }
            // What was made since is forgotten, what was open is over; nothing runs again.
            let known = saved ?? []
            saved = nil
            for id in order where !known.contains(id) { requests[id] = nil }
            order.removeAll { !known.contains($0) }
            for id in order {
                guard let state = try? state(id), state.isFinal else {
                    Issue.record("seed \(seed), \(id) is still open after a restore")
                    continue
                }
                requests[id]?.answer = nil
                requests[id]?.state =
                    switch state {
                    case .cancelled: .cancelled
                    case .unknown: .unknown
                    case .succeeded, .failed: .done
                    case .rejected: .rejected
                    case .expired: .expired
                    default: .refused
                    }
                try await engine.runApproved(id)
            }
        }

        /// The store says what the model says, and the disk shows no more than that.
        private func check(_ id: String) throws {
            guard let expected = requests[id] else { return }
            let state = try state(id)
            let fits =
                switch expected.state {
                case .pending: state == .pending
                case .approved: state == .approved
                case .done: state == .succeeded || state == .failed
                case .rejected: state == .rejected
                case .cancelled: state == .cancelled
                // It is written when somebody looks.
                case .expired: state == .expired || state == .pending
                case .refused: state == .refused
                case .unknown: state == .unknown
                }
            #expect(fits, "seed \(seed), \(id): \(state) where the model says \(expected.state)")
            guard expected.runs >= 0 else { return }
            let content = FileManager.default.contents(atPath: path(expected)).map {
                String(decoding: $0, as: UTF8.self)
            }
            if expected.deletes {
                let isGone = content == nil
                #expect(!isGone || expected.runs > 0, "seed \(seed), \(id) ran without an answer")
            } else {
                #expect(
                    (content ?? "").count == expected.runs, "seed \(seed), \(id) ran \((content ?? "").count) times")
            }
        }

        mutating func end() async throws {
            for id in order { try check(id) }
            // Whatever ran once was put back, and what is unknown never runs: it is still there.
            for (id, expected) in requests where expected.deletes && (expected.runs != 0 || expected.state == .unknown)
            {
                #expect(FileManager.default.fileExists(atPath: path(expected)), "seed \(seed), \(id) ran twice")
            }
            try engine.close()
            let (database, root) = (home.database, home.root)
            var options = AuditVerifier.Options()
            options.home = root
            let verdict = try AuditVerifier.verify({ try ReadOnlyStore(path: database) }, options)
            #expect(verdict.isIntact, "seed \(seed): \(verdict.text)")
        }
    }
}
