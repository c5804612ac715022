import Foundation
import KruxCore
import KruxTestSupport
import Testing

/// The record while something else happens to it: pruning, verifying, lost keys, files that are none.
@Suite struct EvidenceUnderWayTests {
    private func rows(_ kruxos: Kruxos, _ filter: String...) throws -> [JSONValue] {
        let result = try Kruxos.execute(
            Kruxos.path, ["audit", "query", "--json", "--home", kruxos.home] + filter)
        return try #require(try JSONParser.parse(result.output).array, "\(result.errors)")
    }

    /// What a call was is needed until it has ended: a crash afterwards must still know it.
    @Test func aCallUnderWayIsNotPruned() async throws {
        try await RealGateway.with(policies: [
            "agents/tester.yaml": "capabilities:\n  process.run:\n    tier: autonomous\n"
        ]) { gateway, token in
            let kruxos = gateway.kruxos
            let url = gateway.agentsURL
            let call = Beside {
                _ = try Kruxos.execute(
                    "/usr/bin/curl",
                    [
                        "-s", "-m", "60", "-H", "Authorization: Bearer \(token)", "-H",
                        "Content-Type: application/json", url + "/v1/call", "-d",
                        #"{"capability":"process.run","arguments":{"command":"sleep","args":["50"]}}"#,
                    ])
            }
            while try rows(kruxos, "--capability", "process.run", "--phase", "intent").isEmpty {}
            let pruned = try kruxos.run("audit", "prune", "--older-than", "0s", "--yes")
            #expect(pruned.code == 0, "\(pruned.output)\(pruned.errors)")
            gateway.kill()
            _ = try call.stop()
            let again = try RealGateway(kruxos)
            defer { again.stop() }
            let told = try rows(kruxos, "--capability", "process.run")
            let intent = try #require(told.first { $0["phase"]?.string == "intent" }, "\(told)")
            let outcome = try #require(told.first { $0["phase"]?.string == "outcome" }, "\(told)")
            #expect(outcome["outcome"]?.string == "unknown" && outcome["intent"] == intent["seq"], "\(told)")
            #expect(intent["arguments"]?["command"]?.string == "sleep", "\(told)")
            #expect(try kruxos.run("audit", "verify").code == 0)
        }
    }

    @Test func aRecordIsVerifiedWhileItIsPrunedAndGoesOn() async throws {
        try await RealGateway.with { gateway, token in
            let kruxos = gateway.kruxos
            let url = gateway.agentsURL
            let calls = Beside {
                let reply = try Kruxos.execute(
                    "/usr/bin/curl",
                    [
                        "-s", "-m", "20", "-H", "Authorization: Bearer \(token)", "-H",
                        "Content-Type: application/json",
                        url + "/v1/call", "-d",
                        #"{"capability":"filesystem.write","arguments":{"path":"f","content":"x"}}"#,
                    ])
                #expect(reply.output.contains("audit_seq"), "\(reply.output)")
            }
            let pruning = Beside {
                let pruned = try kruxos.run("audit", "prune", "--older-than", "0s", "--yes")
                #expect(pruned.code == 0, "\(pruned.output)\(pruned.errors)")
            }
            for _ in 0..<30 {
                let verified = try kruxos.run("audit", "verify")
                #expect(verified.code == 0, "\(verified.output)\(verified.errors)")
            }
            let times = (try calls.stop(), try pruning.stop())
            #expect(times.0 > 3 && times.1 > 3, "\(times)")
            #expect(try kruxos.run("audit", "verify").output.contains("pruned"))
            #expect(try Peer.run("verify_record.py", [kruxos.home + "/kruxos.db"]).hasPrefix("OK"))
        }
    }

    @Test func aLostCheckpointKeyIsToldAndAcceptedAsANewEpoch() async throws {
        try await withTemporaryFolder { folder in
            let kruxos = Kruxos(home: folder + "/home")
            _ = try kruxos.createAgent("a")
            let keys = kruxos.home + "/keys"
            let names = try FileManager.default.contentsOfDirectory(atPath: keys)
            let name = try #require(names.first { $0.hasPrefix("checkpoint") }, "\(names)")
            try FileManager.default.removeItem(atPath: "\(keys)/\(name)")
            let refused = try kruxos.run("agent", "create", "--name", "b", "--purpose", "p")
            #expect(refused.code != 0 && refused.errors.contains("restore --accept"), "\(refused.errors)")
            let accepted = try kruxos.run("restore", "--accept", "--yes")
            #expect(accepted.output.contains("Epoch 2 has begun"), "\(accepted.output)\(accepted.errors)")
            #expect(try kruxos.run("agent", "create", "--name", "b", "--purpose", "p").code == 0)
            let verified = try kruxos.run("audit", "verify")
            #expect(verified.code == 0, "\(verified.output)\(verified.errors)")
        }
    }

    /// Nobody writes into the pipe: who opens it to read would wait for ever.
    @Test func aPipeIsNoRecord() async throws {
        try await withTemporaryFolder { folder in
            let kruxos = Kruxos(home: folder + "/home")
            _ = try kruxos.createAgent("a")
            let pipe = folder + "/pipe"
            #expect(mkfifo(pipe, 0o600) == 0)
            for arguments in [
                ["audit", "verify", "--db", pipe], ["audit", "query", "--db", pipe],
                ["audit", "verify", "--anchors", pipe], ["audit", "verify-receipt", pipe], ["restore", pipe, "--yes"],
            ] {
                let result = try Kruxos.execute(
                    "/usr/bin/timeout",
                    ["20", Kruxos.path] + arguments + (arguments[1] == "verify-receipt" ? [] : ["--home", kruxos.home]))
                #expect(result.code != 0 && result.code != 124, "\(arguments): \(result.output)")
                #expect(result.errors.contains(pipe), "\(arguments): \(result.errors)")
            }
        }
    }
}
