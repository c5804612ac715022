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
import Testing

/// How often a person is asked over a working day of a coding agent, under `team-moderate`.
@Suite struct QuestionTests {
    private struct Step {
        let capability: String
        let arguments: JSONObject
        let isDangerous: Bool
    }

    private static func trace() throws -> [Step] {
        let path = (#filePath as NSString).deletingLastPathComponent + "/traces/coding.jsonl"
        return try String(contentsOfFile: path, encoding: .utf8).split(separator: "\n").map { line in
            let json = try JSONParser.parse(String(line))
            return Step(
                capability: json["capability"]?.string ?? "", arguments: json["arguments"]?.object ?? [:],
                isDangerous: json["dangerous"]?.bool ?? false)
        }
    }

    private struct Day {
        var asked = 0
        /// Dangerous calls that were neither asked nor refused.
        var slipped: [String] = []
        var suggestions: [PolicySuggestion] = []
    }

    /// A day: the person approves what is not dangerous and rejects what is.
    /// - Parameters:
    ///   - grants: whether each approval is granted for the session, by its narrowest pattern.
    ///   - own: the agent's own document.
    private func day(grants: Bool, own: String?) async throws -> Day {
        try await withTemporaryFolder { folder in
            let home = Home(root: folder + "/home")
            if let own { try write(own, to: "\(home.policies)/agents/tester.yaml") }
            let engine = try Engine(home: home, clock: TestClock().clock, log: Logger(label: "test"))
            let owner = Principal.supervisor("owner")
            _ = try await engine.operate(.agentCreate, ["name": "tester", "purpose": "Writes code"], by: owner)
            _ = try await engine.operate(.policySet, ["name": "team-moderate"], by: owner)
            let version = try #require(try engine.store.read(PolicyVersions.current))
            let policy = try version.policy(Capabilities.catalogue)
            let redactor = try Redactor(key: KeyFiles(home: home.root).digestKey())
            var day = Day()
            for step in try Self.trace() {
                let reply = try await PolicyHome.call(engine, step.capability, step.arguments)
                guard let id = reply.pendingRequest else {
                    if step.isDangerous, case .succeeded = reply { day.slipped.append("\(step)") }
                    continue
                }
                day.asked += 1
                _ = try engine.decideApproval(id, .init(approve: !step.isDangerous), by: owner)
                if step.isDangerous { continue }
                await engine.runApproved(id)
                guard grants,
                    let proposal = try? Engine.proposeGrant(
                        engine.store, for: id, condition: nil, policy: policy, redactor: redactor,
                        now: engine.clock.now())
                else { continue }
                _ = try await engine.operate(
                    .grantCreate, ["request": .string(id), "conditions": proposal.conditions], by: owner)
            }
            let since = Timestamp(microseconds: 0)
            day.suggestions = try PolicySuggestion.find(
                ReadOnlyStore(path: home.database), version.bundle, policy, since: since, least: 2)
            try engine.close()
            #expect(try AuditVerifier.verify({ try ReadOnlyStore(path: home.database) }).isIntact)
            return day
        }
    }

    @Test func fewerQuestionsAndNoneTheLessForWhatIsDangerous() async throws {
        let steps = try Self.trace()
        #expect(steps.count >= 150 && steps.count { $0.isDangerous } >= 10)
        let plain = try await day(grants: false, own: nil)
        let granted = try await day(grants: true, own: nil)
        // Each suggestion is an edit of the document as the one before leaves it.
        let last = try #require(plain.suggestions.last?.edit.after)
        let suggested = try await day(grants: false, own: String(decoding: last, as: UTF8.self))
        print(
            "questions in \(steps.count) calls: \(plain.asked) under team-moderate, \(granted.asked) with session grants, \(suggested.asked) with `policy suggest` applied (\(plain.suggestions.count) rules)"
        )
        for (name, day) in [("plain", plain), ("granted", granted), ("suggested", suggested)] {
            #expect(day.slipped.isEmpty, "\(name): \(day.slipped)")
        }
        #expect(granted.asked < plain.asked * 2 / 3 && suggested.asked < plain.asked * 2 / 3)
    }
}
