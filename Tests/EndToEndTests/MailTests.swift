import Foundation
import KruxCore
import KruxTestSupport
import Testing

/// Mail through dovecot and a real SMTP server, with TLS from the first byte and after STARTTLS.
@Suite struct MailTests {
    private func messages(_ agent: AgentClient, _ arguments: JSONObject = [:]) throws -> [JSONValue] {
        try agent.done("email.list", arguments)["messages"]?.array ?? []
    }

    private func with(_ body: (AgentClient, JSONValue) async throws -> Void) async throws {
        try await withTemporaryFolder { folder in
            // The servers' user passes through it.
            #expect(chmod(folder, 0o755) == 0)
            let peer = try PeerProcess("mail_servers.py", [folder + "/mail"], endsByItself: true)
            defer { peer.stop() }
            let servers = try JSONParser.parse(peer.firstLine)
            let policy = "name: org\ncapabilities:\n  \"*\": { tier: autonomous }\n"
            try await RealGateway.with(policies: ["org.yaml": policy]) { gateway, token in
                let agent = AgentClient(gateway: gateway, token: token)
                var secrets: [(name: String, value: String, options: [String])] = []
                for (name, imap, smtp) in [
                    ("mail", ("imaps", "imaps"), ("smtps", "smtps")),
                    ("upgraded", ("imap", "imap"), ("smtp", "submission")),
                    ("wrong", ("imaps", "imaps"), ("smtps", "smtps")),
                ] {
                    let (reads, sends) = (servers[imap.1]?.int ?? 0, servers[smtp.1]?.int ?? 0)
                    let account: JSONValue = [
                        "imap": .string("\(imap.0)://localhost:\(reads)"),
                        "smtp": .string("\(smtp.0)://localhost:\(sends)"),
                        "username": servers["user"] ?? .null,
                        "password": name == "wrong" ? "not-the-password" : servers["password"] ?? .null,
                        "from": "agent@mail.example", "ca_file": servers["ca"] ?? .null,
                    ]
                    secrets.append(
                        (
                            name, account.canonicalText,
                            [
                                "--capability", "email.*", "--host", "localhost:\(reads)", "--host",
                                "localhost:\(sends)",
                            ]
                        ))
                }
                try agent.addSecrets(secrets, in: folder)
                try await body(agent, servers)
                #expect(try gateway.kruxos.run("audit", "verify").code == 0)
            }
        }
    }

    private func waitUntil(_ holds: () throws -> Bool) async throws {
        for _ in 0..<300 {
            if try holds() { return }
            try await Task.sleep(for: .milliseconds(100))
        }
        throw TestFailure("it did not come about")
    }

    /// A server, or somebody on the way to it, who agrees to encrypt and goes on in the clear: nothing of it is believed, and
    /// nothing is said to it.
    @Test func nothingIsBelievedThatIsNotEncrypted() async throws {
        try await withTemporaryFolder { folder in
            let peer = try PeerProcess("mail_injector.py", [])
            defer { peer.stop() }
            let ports = peer.firstLine.split(separator: " ")
            try #require(ports.count == 4)
            let policy = "name: org\ncapabilities:\n  \"*\": { tier: autonomous }\n"
            try await RealGateway.with(policies: ["org.yaml": policy]) { gateway, token in
                let account =
                    "{\"imap\":\"imap://localhost:\(ports[0])\",\"smtp\":\"smtp://localhost:\(ports[1])\",\"username\":\"u\",\"password\":\"not-to-be-seen\",\"from\":\"a@b.example\"}"
                let agent = AgentClient(gateway: gateway, token: token)
                try agent.addSecrets(
                    [
                        (
                            "mail", account,
                            [
                                "--capability", "email.*", "--host", "localhost:\(ports[0])", "--host",
                                "localhost:\(ports[1])",
                            ]
                        )
                    ], in: folder)
                for _ in 0..<6 {
                    let list = try agent.call("email.list")
                    #expect(list["error"]?["error_type"] == "IOFailure", "\(list.canonicalText)")
                    let sent = try agent.call(
                        "email.send", ["to": ["c@d.example"], "subject": "x", "body": "x"])
                    #expect(sent["error"]?["error_type"] == "IOFailure", "\(sent.canonicalText)")
                }
                // One that never ends what it says fills no memory.
                try agent.addSecrets(
                    [
                        (
                            "endless", account.replacing(ports[0], with: ports[2]).replacing(ports[1], with: ports[3]),
                            [
                                "--capability", "email.*", "--host", "localhost:\(ports[2])", "--host",
                                "localhost:\(ports[3])",
                            ]
                        )
                    ], in: folder, isNew: false)
                for _ in 0..<4 {
                    let list = try agent.call("email.list", ["account": "endless"])
                    #expect(list["status"] == "failed", "\(list.canonicalText)")
                    let sent = try agent.call(
                        "email.send", ["account": "endless", "to": ["c@d.example"], "subject": "x", "body": "x"])
                    #expect(sent["status"] == "failed", "\(sent.canonicalText)")
                }
                let status = try String(
                    contentsOfFile: "/proc/\(gateway.process.processIdentifier)/status", encoding: .utf8)
                let peak = status.split(separator: "\n").first { $0.hasPrefix("VmHWM") }?.split(separator: " ")
                let kibibytes = try #require(peak.flatMap { $0.count > 1 ? Int($0[1]) : nil })
                #expect(kibibytes < 400 << 10, "\(status)")
            }
        }
    }

    @Test func mailIsReadSentHeldAndDeleted() async throws {
        try await with { agent, servers in
            // What is there is read without being marked as read.
            for _ in 0..<2 {
                let list = try messages(agent)
                #expect(list.count == 4)
                let known = try #require(list.first { $0["subject"] == "Grüße aus München – schönes Wochenende!" })
                #expect(known["from"] == "Jörg Müller <joerg@mail.example>" && known["unread"] == true)
                for message in list {
                    let read = try agent.done("email.read", ["message_id": message["message_id"] ?? .null])
                    #expect(read["header"] == message)
                    if message["subject"] == "Übersicht für Mai" {
                        #expect(read["attachments"]?.array?.compactMap { $0["name"]?.string } == ["Übersicht.pdf"])
                        #expect(read["body"]?.string?.contains("Die Übersicht für Mai liegt bei. Grüße!") == true)
                    }
                }
            }
            let found = try agent.done("email.search", ["query": "Übersicht"])
            #expect(found["total"] == 1, "\(found.canonicalText)")
            #expect(try agent.call("email.list", ["folder": "Nope"])["error"]?["error_type"] == "NotFound")
            #expect(try messages(agent, ["folder": "Entwürfe"]).isEmpty)
            // A draft is where drafts are, and says what was written.
            let draft = try agent.done(
                "email.draft",
                ["to": ["bob@mail.example"], "subject": "Grüße\r\nBcc: eve@mail.example", "body": "Hallo\n.\nEnde"])
            let saved = try agent.done("email.read", ["message_id": draft["message_id"] ?? .null])
            #expect(saved["header"]?["subject"] == "Grüße Bcc: eve@mail.example")
            #expect(saved["body"] == "Hallo\n.\nEnde")
            // Sent over both kinds of connection.
            for account in ["mail", "upgraded"] {
                let sent = try agent.done(
                    "email.send",
                    [
                        "account": .string(account), "to": ["bob@mail.example"], "subject": .string("By \(account)"),
                        "body": ".leading dot\n",
                    ])
                #expect(sent["state"] == "sent")
                try await waitUntil { try messages(agent).first?["subject"] == .string("By \(account)") }
                let arrived = try messages(agent, ["account": .string(account)])[0]
                let read = try agent.done(
                    "email.read", ["account": .string(account), "message_id": arrived["message_id"] ?? .null])
                #expect(read["body"]?.string?.hasPrefix(".leading dot") == true)
            }
            let refused = try agent.call(
                "email.send", ["to": ["refused@mail.example"], "subject": "x", "body": "x"])
            #expect(refused["error"]?["error_type"] == "Conflict", "\(refused.canonicalText)")
            for bad in ["bob", "bob@mail.example>\r\nRCPT TO:<eve@mail.example", "a b@mail.example", ""] {
                let reply = try agent.call("email.send", ["to": [.string(bad)], "subject": "x", "body": "x"])
                #expect(reply["error"]?["error_type"] == "InvalidArguments", "\(bad)")
            }
            let wrong = try agent.call("email.list", ["account": "wrong"])
            #expect(wrong["error"]?["error_type"] == "Unauthenticated", "\(wrong.canonicalText)")
            #expect(!wrong.canonicalText.contains("not-the-password"))
            // Held: one is taken back, one is sent in its time.
            func send(_ subject: String) throws -> JSONValue {
                try agent.done(
                    "email.send",
                    ["to": ["bob@mail.example"], "subject": .string(subject), "body": "x", "undo_for": 2])
            }
            let (back, kept) = (try send("Taken back"), try send("Held"))
            #expect(back["state"] == "held")
            #expect(try agent.done("email.delete", ["message_id": back["message_id"] ?? .null])["state"] == "cancelled")
            try await waitUntil { try messages(agent).first?["subject"] == "Held" }
            let late = try agent.call("email.delete", ["message_id": kept["message_id"] ?? .null])
            #expect(late["error"]?["error_type"] == "Conflict")
            #expect(try !messages(agent).contains { $0["subject"] == "Taken back" })
            // What policy comes to ask a person about meanwhile is not sent unasked.
            _ = try agent.done(
                "email.send",
                ["to": ["bob@mail.example"], "subject": "Unasked", "body": "x", "undo_for": 3])
            let asking =
                "name: org\ncapabilities:\n  \"*\": { tier: autonomous }\n  email.send: { tier: approval_required }\n"
            try await agent.setPolicy(asking, "email.send", is: "approval_required")
            try await waitUntil {
                try agent.gateway.kruxos.run("audit", "query", "--capability", "email.send", "--format", "jsonl").output
                    .contains("it needs approval since it was held")
            }
            #expect(try !messages(agent).contains { $0["subject"] == "Unasked" })
            // Into the bin, and then for good.
            let newest = try messages(agent)[0]
            let binned = try agent.done("email.delete", ["message_id": newest["message_id"] ?? .null])
            #expect(binned["state"] == "binned" && binned["folder"] == "Trash")
            let bin = try messages(agent, ["folder": "Trash"])
            #expect(bin.compactMap { $0["subject"]?.string } == ["Held"])
            #expect(
                try agent.done("email.delete", ["message_id": bin[0]["message_id"] ?? .null])["state"] == "deleted")
            #expect(try messages(agent, ["folder": "Trash"]).isEmpty)
        }
    }
}
