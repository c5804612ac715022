import Foundation
import KruxCore
import KruxTestSupport
import Testing

/// Audit, backup, restore, doctor and witness as a user runs them.
@Suite struct EvidenceCommandTests {
    private func call(_ gateway: RealGateway, _ token: String, _ body: String) throws -> JSONValue {
        let result = try Kruxos.execute(
            "/usr/bin/curl",
            [
                "-s", "-m", "20", "-H", "Authorization: Bearer \(token)", "-H", "Content-Type: application/json",
                gateway.agentsURL + "/v1/call", "-d", body,
            ])
        return try JSONParser.parse(result.output)
    }

    private func write(_ gateway: RealGateway, _ token: String, _ path: String) throws -> JSONValue {
        try call(
            gateway, token,
            "{\"capability\":\"filesystem.write\",\"arguments\":{\"path\":\"\(path)\",\"content\":\"x\"}}")
    }

    private func json(_ result: Kruxos.Result) throws -> JSONValue { try JSONParser.parse(result.output) }

    /// A database as each released version left it: upgraded after a backup, verified, and gone on with.
    @Test(arguments: [1, 2, 3, 4, 5]) func aReleasedDatabaseIsBroughtUpToDate(_ schema: Int) async throws {
        try await withTemporaryFolder { folder in
            let home = folder + "/home"
            try FileManager.default.createDirectory(atPath: home, withIntermediateDirectories: true)
            let released = (#filePath as NSString).deletingLastPathComponent + "/released/schema-\(schema).tar.gz"
            let unpacked = try Kruxos.execute("/usr/bin/tar", ["-C", home, "-xzf", released])
            try #require(unpacked.code == 0, "\(unpacked.errors)")
            let kruxos = Kruxos(home: home)
            let before = try kruxos.run("audit", "verify", "--db", home + "/kruxos.db")
            #expect(before.output.contains("275 rows verified") && before.code == 0, "\(before.output)\(before.errors)")
            let token = try json(kruxos.run("agent", "rotate", "coder", "--json"))["token"]?.string ?? ""
            let backup = "\(home)/backups/before-schema-6.db"
            #expect(try kruxos.run("audit", "verify", "--db", backup).output.contains("275 rows verified"))
            // The workspace is no part of the database.
            try KruxTestSupport.write("f3", to: home + "/workspaces/coder/f3")
            let gateway = try RealGateway(kruxos)
            #expect(try write(gateway, token, "after")["audit_seq"]?.int != nil)
            // What was approved before the upgrade ran once, now.
            let ended = try Kruxos.execute(
                "/usr/bin/curl",
                [
                    "-s", "-m", "20", "-H", "Authorization: Bearer \(token)",
                    gateway.agentsURL + "/v1/approvals/ap_003?wait=15",
                ])
            #expect(try json(ended)["state"]?.string == "succeeded", "\(ended.output)")
            gateway.stop()
            let after = try kruxos.run("audit", "verify", "--json")
            #expect(try json(after)["verdict"]?.string == "ANCHORED", "\(after.output)")
            #expect(try Peer.run("verify_record.py", [home + "/kruxos.db"]).hasPrefix("OK"))
        }
    }

    @Test func aReceiptConvincesWithoutTheDatabase() async throws {
        try await RealGateway.with { gateway, token in
            let kruxos = gateway.kruxos
            let seq = try #require(try write(gateway, token, "a")["audit_seq"]?.int)
            let receipt = kruxos.home + "/receipt"
            #expect(try kruxos.run("audit", "receipt", "\(seq)", "--out", receipt).code == 0)
            let root = try #require(try json(kruxos.run("audit", "key", "--json")).array?.first?["root_key"]?.string)
            let verified = try Kruxos.execute(
                Kruxos.path, ["audit", "verify-receipt", receipt, "--trust", root, "--json"])
            #expect(try json(verified)["trusted"]?.bool == true && verified.code == 0)
            let other = String(repeating: "ab", count: 32)
            let refused = try Kruxos.execute(Kruxos.path, ["audit", "verify-receipt", receipt, "--trust", other])
            #expect(refused.code == 5 && refused.output.hasPrefix("FAILED"))
            let told = try kruxos.run("audit", "verify", "--anchors", receipt, "--trust", root)
            #expect(told.code == 0, "\(told.output)")
        }
    }

    /// An approval's answer carries a checkpoint that covers it.
    @Test func anAnswerCarriesACheckpoint() async throws {
        try await RealGateway.with(policies: [
            "agents/tester.yaml": "capabilities:\n  filesystem.write:\n    tier: approval_required\n"
        ]) {
            gateway, token in
            _ = try gateway.kruxos.run("config", "set", "policy", "personal-permissive")
            let id = try #require(try write(gateway, token, "a")["error"]?["context"]?["request_id"]?.string)
            let answer = try json(gateway.kruxos.run("approve", "accept", id, "--json"))
            let note = try #require(answer["checkpoint"]?.string ?? answer.array?.first?["checkpoint"]?.string)
            let size = try #require(note.split(separator: "\n").dropFirst().first.flatMap { Int64($0) })
            let rows = try json(
                gateway.kruxos.run("audit", "query", "--request", id, "--outcome", "approved", "--json"))
            #expect(rows.array?.first?["seq"]?.int ?? .max <= size)
        }
    }

    @Test func aBackupRestoresToANewEpochInWhichNothingRunsAgain() async throws {
        try await RealGateway.with(policies: [
            "agents/tester.yaml": "capabilities:\n  filesystem.write:\n    tier: approval_required\n"
        ]) {
            gateway, token in
            let kruxos = gateway.kruxos
            _ = try kruxos.run("config", "set", "policy", "personal-permissive")
            let first = try write(gateway, token, "a")["error"]?["context"]?["request_id"]?.string
            let second = try write(gateway, token, "b")["error"]?["context"]?["request_id"]?.string
            #expect(first == "ap_001" && second == "ap_002")
            let backup = kruxos.home + "/../backup.db"
            let made = try kruxos.run("backup", backup)
            #expect(made.code == 0 && made.output.contains("verified"), "\(made.output)\(made.errors)")
            _ = try kruxos.run("approve", "accept", "ap_001")
            #expect(try kruxos.run("restore", backup, "--yes").errors.contains("a gateway runs"))
            gateway.stop()
            let asked = try kruxos.run("restore", backup)
            #expect(
                asked.code == 64 && asked.output.contains("every agent is suspended"), "\(asked.output)\(asked.errors)")
            let restored = try kruxos.run("restore", backup, "--yes")
            #expect(
                restored.code == 0 && restored.output.contains("Epoch 2 has begun"),
                "\(restored.output)\(restored.errors)")
            let again = try RealGateway(kruxos)
            defer { again.stop() }
            #expect(try write(again, token, "c")["error"]?["error_type"]?.string == "Unauthenticated")
            for id in ["ap_001", "ap_002"] {
                #expect(try json(kruxos.run("approve", "show", id, "--json"))["state"]?.string == "cancelled")
            }
            #expect(try kruxos.run("agent", "resume", "tester").code == 0)
            #expect(try write(again, token, "c")["error"]?["context"]?["request_id"]?.string == "ap_2_001")
            #expect(try kruxos.run("audit", "verify").code == 0)
            #expect(
                try FileManager.default.contentsOfDirectory(atPath: kruxos.home).contains("kruxos.db.before-restore-1"))
        }
    }

    @Test func aFileThatIsNoBackupIsNotRestored() async throws {
        try await withTemporaryFolder { folder in
            let kruxos = Kruxos(home: folder + "/home")
            _ = try kruxos.createAgent("a")
            #expect(try kruxos.run("backup", folder + "/good").code == 0)
            let before = try kruxos.run("audit", "query", "--format", "csv").output
            try KruxTestSupport.write("no database", to: folder + "/text")
            var bytes = try Data(contentsOf: URL(fileURLWithPath: folder + "/good"))
            try bytes.prefix(bytes.count / 2).write(to: URL(fileURLWithPath: folder + "/half"))
            bytes.replaceSubrange(8192..<40_960, with: Data(repeating: 7, count: 40_960 - 8192))
            try bytes.write(to: URL(fileURLWithPath: folder + "/damaged"))
            for name in ["text", "half", "damaged", "missing"] {
                let result = try kruxos.run("restore", "\(folder)/\(name)", "--yes")
                #expect(result.code != 0 && result.errors.contains("rror:"), "\(name): \(result.output)")
            }
            #expect(try kruxos.run("audit", "query", "--format", "csv").output == before)
            // The newest state changes nothing.
            let same = try kruxos.run("restore", folder + "/good", "--yes")
            #expect(same.output.contains("nothing is lost"), "\(same.output)\(same.errors)")
            #expect(try kruxos.run("agent", "list").output.contains("active"))
        }
    }

    @Test func checkpointsReachAFileACommandAndAWitnessThatRefusesAFork() async throws {
        try await RealGateway.with { gateway, token in
            let kruxos = gateway.kruxos
            let folder = kruxos.home + "/.."
            let witness = Kruxos(home: folder + "/witness")
            let verifier = try #require(
                try json(kruxos.run("audit", "key", "--json")).array?.first?["verifier"]?.string)
            #expect(try witness.run("witness", "log", "add", verifier).code == 0)
            let process = try ChildProcess(
                Kruxos.path,
                ["witness", "serve", "--home", witness.home, "--port", "0", "--name", "witness.example/w1"],
                output: .pipe)
            defer { process.terminate() }
            let said = try process.read { $0.count(where: { $0 == "\n" }) >= 2 }
            let words = said.split(whereSeparator: { $0 == " " || $0 == "\n" }).map(String.init)
            let (url, key) = (words[1], words[3])
            #expect(try kruxos.run("audit", "anchor", "add", "--witness", url, "--key", key).code == 0)
            #expect(try kruxos.run("audit", "anchor", "add", "--file", folder + "/anchor").code == 0)
            #expect(try kruxos.run("audit", "anchor", "add", "--command", "cat > \(folder)/command").code == 0)
            #expect(try kruxos.run("audit", "anchor", "add", "--command", "exit 3").code == 0)
            #expect(try kruxos.run("audit", "anchor", "add", "--file", folder + "/anchor").code == 1)
            _ = try write(gateway, token, "a")
            for _ in 0..<2 {
                let sent = try kruxos.run("audit", "anchor", "send", "--json")
                let anchors = try #require(try json(sent).array)
                #expect(sent.code == 1 && anchors.count == 4, "\(sent.output)\(sent.errors)")
                for anchor in anchors.prefix(3) {
                    #expect(anchor["problem"]?.string == nil && anchor["sent_size"]?.int != nil)
                }
                #expect(anchors[3]["problem"]?.string?.contains("ended with 3") == true)
                _ = try write(gateway, token, "b")
            }
            let verified = try kruxos.run(
                "audit", "verify", "--json", "--anchors", folder + "/anchor", folder + "/command", "--witness", key)
            let told = try json(verified)
            #expect(verified.code == 0, "\(verified.output)\(verified.errors)")
            #expect(
                told["anchors"]?.array?.contains { $0["witnesses"]?.array == [.string("witness.example/w1")] } == true,
                "\(verified.output)")
            // A fork: the same keys go on from an earlier state of the file.
            gateway.stop()
            let (database, head) = (kruxos.home + "/kruxos.db", kruxos.home + "/keys/head")
            let kept = try [database, head].map { try Data(contentsOf: URL(fileURLWithPath: $0)) }
            _ = try kruxos.run("agent", "create", "--name", "x", "--purpose", "p")
            #expect(try kruxos.run("audit", "anchor", "send", "1").code == 0)
            for (path, data) in zip([database, head], kept) { try data.write(to: URL(fileURLWithPath: path)) }
            for name in ["y", "z", "w"] { _ = try kruxos.run("agent", "create", "--name", name, "--purpose", "p") }
            let fork = try kruxos.run("audit", "anchor", "send", "1")
            #expect(fork.code == 1 && fork.output.contains("not the one it has seen"), "\(fork.output)\(fork.errors)")
        }
    }

    @Test func pruningForgetsTheContentAndKeepsTheProof() async throws {
        try await RealGateway.with(policies: [
            "agents/tester.yaml": "capabilities:\n  process.run: { tier: approval_required }\n"
        ]) { gateway, token in
            let kruxos = gateway.kruxos
            let secret = "the-content-nobody-may-find-again"
            let seq = try #require(
                try call(
                    gateway, token,
                    "{\"capability\":\"filesystem.write\",\"arguments\":{\"path\":\"a\",\"content\":\"\(secret)\"}}")[
                        "audit_seq"]?.int)
            let receipt = kruxos.home + "/receipt"
            _ = try kruxos.run("audit", "receipt", "\(seq)", "--out", receipt)
            // What was asked for, and what people said to it.
            for word in ["hello", "bye"] {
                let asked = try call(
                    gateway, token,
                    #"{"capability":"process.run","arguments":{"command":"echo","args":["\#(secret)","\#(word)"]}}"#)
                let id = try #require(asked["error"]?["context"]?["request_id"]?.string, "\(asked)")
                let accepted = try kruxos.run("approve", "accept", id, "--reason", secret)
                try #require(accepted.code == 0, "\(accepted.output)\(accepted.errors)")
                _ = try Kruxos.execute(
                    "/usr/bin/curl",
                    [
                        "-sS", "-H", "Authorization: Bearer \(token)",
                        gateway.agentsURL + "/v1/approvals/\(id)?wait=20",
                    ])
            }
            #expect(try kruxos.run("approve", "list", "--all", "--limit", "1").output.contains("--limit shows more"))
            #expect(try kruxos.run("audit", "query", "--json").output.contains(secret))
            let pruned = try kruxos.run("audit", "prune", "--older-than", "0s", "--yes")
            #expect(pruned.code == 0 && pruned.output.contains("forgotten"), "\(pruned.output)\(pruned.errors)")
            gateway.stop()
            for file in ["kruxos.db", "kruxos.db-wal"] {
                let data = (try? Data(contentsOf: URL(fileURLWithPath: "\(kruxos.home)/\(file)"))) ?? Data()
                #expect(data.range(of: Data(secret.utf8)) == nil, "\(file)")
            }
            let verified = try kruxos.run("audit", "verify")
            #expect(verified.code == 0 && verified.output.contains("bodies were pruned"), "\(verified.output)")
            #expect(try kruxos.run("audit", "verify", "--anchors", receipt).code == 0)
            #expect(try Kruxos.execute(Kruxos.path, ["audit", "verify-receipt", receipt]).code == 0)
            #expect(try kruxos.run("audit", "receipt", "\(seq)").errors.contains("was pruned"))
            #expect(try kruxos.run("audit", "show", "\(seq)").output.contains("pruned"))
            #expect(try Peer.run("verify_record.py", [kruxos.home + "/kruxos.db"]).contains("OK"))
            // A body that no prune row covers is missed.
            _ = try kruxos.run("agent", "create", "--name", "x", "--purpose", "p")
            try tamper(
                kruxos.home + "/kruxos.db", "UPDATE audit SET body = NULL WHERE seq = (SELECT max(seq) FROM audit)")
            #expect(try kruxos.run("audit", "verify").output.contains("no prune row covers it"))
        }
    }

    /// A copy on another machine: no home, no keys, no gateway.
    @Test func everythingIsReadFromACopyAlone() async throws {
        try await RealGateway.with { gateway, token in
            let kruxos = gateway.kruxos
            for name in ["a", "b|c=d\\\"e"] {
                _ = try call(
                    gateway, token, #"{"capability":"filesystem.write","arguments":{"path":"\#(name)","content":"x"}}"#)
            }
            _ = try call(gateway, token, #"{"capability":"filesystem.read","arguments":{"path":"../../etc/passwd"}}"#)
            gateway.stop()
            let copy = kruxos.home + "/../copy.db"
            try FileManager.default.copyItem(atPath: kruxos.home + "/kruxos.db", toPath: copy)
            try FileManager.default.setAttributes([.posixPermissions: 0o400], ofItemAtPath: copy)
            func run(_ arguments: String...) throws -> String {
                let result = try Kruxos.execute(Kruxos.path, arguments + ["--db", copy, "--home", "/nonexistent"])
                #expect(result.code == 0, "\(arguments): \(result.output)\(result.errors)")
                return result.output
            }
            let rows = try #require(try JSONParser.parse(run("audit", "query", "--json")).array)
            #expect(rows.count == 8)
            #expect(try run("audit", "query", "--limit", "3", "--format", "csv").split(separator: "\r\n").count == 4)
            let pages = try stride(from: Int64(0), to: 8, by: 3).map { after in
                try run("audit", "query", "--after", "\(after)", "--limit", "3", "--format", "jsonl")
            }
            #expect(try pages.joined() == run("audit", "query", "--format", "jsonl"))
            let cef = try run("audit", "query", "--format", "cef").split(separator: "\n")
            #expect(cef.count == 8 && cef.allSatisfy { $0.hasPrefix("CEF:0|KruxOS|kruxos|") })
            #expect(cef.contains { $0.contains("b|c\\=d") }, "\(cef)")
            for line in try run("audit", "query", "--format", "ocsf").split(separator: "\n") {
                #expect(try JSONParser.parse(String(line))["class_uid"]?.int == 6003)
            }
            let read = try run("audit", "query", "--capability", "filesystem.read", "--format", "ocsf")
            #expect(try JSONParser.parse(read.trimmingCharacters(in: .newlines))["type_uid"]?.int == 600_302)
            #expect(try run("audit", "stats").contains("filesystem.write"))
            let stats = try JSONParser.parse(run("audit", "stats", "--json"))
            #expect(stats["calls"]?.int == 3 && stats["by_outcome"]?["denied"]?.int == 1)
            let sessions = rows.compactMap { $0["session"]?.string }
            let session = sessions.first ?? "none"
            let story = try run("audit", "replay", session)
            #expect(
                story.contains("did filesystem.write path=/workspace/tester/a") && story.contains("was refused"),
                "\(story)")
            #expect(try run("audit", "show", "5").contains("Signature:   right"))
            #expect(try run("audit", "export").split(separator: "\n").count == 8)
            #expect(try run("audit", "verify").contains("UNANCHORED (8 rows"))
            #expect(try run("audit", "key").contains("Root key: "))
            #expect(try run("audit", "receipt", "5").hasPrefix("c2sp.org/tlog-proof@v1\n"))
        }
    }

    @Test func theDoctorFindsWhatIsWrong() async throws {
        try await withTemporaryFolder { folder in
            let kruxos = Kruxos(home: folder + "/home")
            _ = try kruxos.createAgent("a")
            func check(_ name: String) throws -> JSONValue? {
                let result = try kruxos.run("doctor", "--json")
                let worst = try json(result)["checks"]?.array?.filter { $0["check"]?.string == name } ?? []
                return worst.first { $0["level"]?.string != "ok" } ?? worst.first
            }
            let healthy = try kruxos.run("doctor")
            #expect(healthy.code == 0 && healthy.output.contains("0 problems"), "\(healthy.output)")
            for library in ["sqlite", "libsodium", "libyaml"] {
                let version = try check(library)?["detail"]?.string ?? ""
                #expect(version.firstMatch(of: /^[0-9]+\.[0-9]+\.[0-9]+/) != nil, "\(library) \(version)")
            }
            chmod(kruxos.home + "/keys", 0o755)
            #expect(try check("permissions")?["fix"]?.string?.contains("chmod") == true)
            chmod(kruxos.home + "/keys", 0o700)
            try KruxTestSupport.write("x", to: kruxos.home + "/stranger")
            #expect(try check("files")?["detail"]?.string?.contains("stranger") == true)
            let head = try String(contentsOfFile: kruxos.home + "/keys/head", encoding: .utf8)
            try KruxTestSupport.write(
                head.replacing(" 00000000000000000003 ", with: " 00000000000000000009 "), to: kruxos.home + "/keys/head"
            )
            #expect(try check("head")?["level"]?.string == "problem")
            let refused = try kruxos.run("agent", "create", "--name", "b", "--purpose", "p")
            #expect(refused.code == 69 && refused.errors.contains("restore --accept"), "\(refused.errors)")
            try KruxTestSupport.write(head, to: kruxos.home + "/keys/head")
            try tamper(kruxos.home + "/kruxos.db", "CREATE TABLE theirs (x)")
            #expect(try check("schema")?["level"]?.string == "problem")
        }
    }

    private func ready(_ gateway: RealGateway) throws {
        let deadline = ContinuousClock.now + .seconds(10)
        while try !Kruxos.execute("/usr/bin/curl", ["-s", gateway.agentsURL + "/health"]).output.contains("\"ok\"") {
            try #require(ContinuousClock.now < deadline, "it does not recover by itself")
            usleep(50_000)
        }
    }

    /// The key goes while the gateway runs, and comes back.
    @Test func aLostKeyStopsEffectsUntilItIsBack() async throws {
        try await RealGateway.with { gateway, token in
            let keys = gateway.kruxos.home + "/keys"
            #expect(rename(keys, keys + ".away") == 0)
            let refused = try write(gateway, token, "a")["error"] ?? .null
            #expect(refused["error_type"]?.string == "Unavailable" && refused["retryable"]?.bool == true, "\(refused)")
            let health = try Kruxos.execute("/usr/bin/curl", ["-s", gateway.agentsURL + "/health"])
            #expect(health.output.contains("signing_key_missing"), "\(health.output)")
            #expect(!FileManager.default.fileExists(atPath: gateway.kruxos.home + "/workspaces/tester/a"))
            #expect(rename(keys + ".away", keys) == 0)
            try ready(gateway)
            #expect(try write(gateway, token, "a")["audit_seq"]?.int != nil)
            // Copied back instead of moved: another folder, and a head that goes on.
            _ = try Kruxos.execute("/bin/cp", ["-a", keys, keys + ".copy"])
            try FileManager.default.removeItem(atPath: keys)
            #expect(rename(keys + ".copy", keys) == 0)
            _ = try write(gateway, token, "b")
            try ready(gateway)
            let seq = try #require(try write(gateway, token, "c")["audit_seq"]?.int)
            let head = try String(contentsOfFile: keys + "/head", encoding: .utf8).split(separator: " ")
            #expect(Int64(head[2]) == seq, "\(head)")
            #expect(gateway.stop() == 0)
            #expect(try gateway.kruxos.run("audit", "verify").code == 0)
        }
    }
}
