import Foundation
import KruxCore
import KruxCrypto
import KruxTestSupport
import Testing

/// People are reached where a policy says, and answer from there.
@Suite struct NotifierTests {
    /// `peers/receiver.py`, and what it received.
    private final class Receiver {
        private let process: ChildProcess
        private var text = ""
        private(set) var messages: [JSONValue] = []
        let web: Int64, mail: Int64

        init() throws {
            let path = (#filePath as NSString).deletingLastPathComponent + "/peers/receiver.py"
            process = try ChildProcess(Peer.python, [path], input: .pipe, output: .pipe)
            let ports = try JSONParser.parse(try process.read { $0.contains("\n") })
            web = try #require(ports["web"]?.int)
            mail = try #require(ports["mail"]?.int)
        }

        /// Reads until a message fits.
        func wait(_ what: String, _ fits: (JSONValue) -> Bool) throws -> JSONValue {
            while true {
                if let found = messages.first(where: fits) { return found }
                let data = process.output.availableData
                try #require(!data.isEmpty, "\(what) did not come: \(messages)")
                text += String(decoding: data, as: UTF8.self)
                while let end = text.firstIndex(of: "\n") {
                    messages.append(try JSONParser.parse(String(text[..<end])))
                    text = String(text[text.index(after: end)...])
                }
            }
        }

        func end() throws {
            try process.input.close()
            process.waitUntilExit()
        }
    }

    private func curl(_ arguments: String...) throws -> String {
        try Kruxos.execute("/usr/bin/curl", ["-s", "-m", "30"] + arguments).output
    }

    private func ask(_ gateway: RealGateway, _ token: String, _ word: String) throws -> String {
        let reply = try curl(
            "-H", "Authorization: Bearer \(token)", "-H", "Content-Type: application/json",
            gateway.agentsURL + "/v1/call",
            "-d",
            #"{"capability":"process.run","arguments":{"command":"echo","args":["\#(word)"]},"reason":"<b>because</b>"}"#
        )
        return try #require(try JSONParser.parse(reply)["error"]?["context"]?["request_id"]?.string, "\(reply)")
    }

    private func use(_ policy: String, _ gateway: RealGateway) throws {
        try write(policy, to: gateway.kruxos.home + "/policies/org.yaml")
        let set = try gateway.kruxos.run("config", "set", "policy", "personal-permissive")
        try #require(set.code == 0, "\(set.errors)")
    }

    @Test func everyWayReachesAPersonAndALinkAnswersOnce() async throws {
        try await RealGateway.with(policies: [
            "agents/tester.yaml": "capabilities:\n  process.run: { tier: approval_required, reason: Ask first }\n"
        ]) { gateway, token in
            let kruxos = gateway.kruxos
            let receiver = try Receiver()
            defer { try? receiver.end() }
            let secret = "a secret of another length"
            try write(secret + "\n", to: kruxos.home + "/../secret")
            let folder = kruxos.home + "/.."
            try use(
                """
                name: org
                links: { base_url: "\(gateway.supervisorsURL)", valid_for: 10m }
                notifiers:
                  hook: { kind: webhook, url: "http://127.0.0.1:\(receiver.web)/hook", secret_file: "\(folder)/secret", answers_as: alice }
                  phone: { kind: ntfy, url: "http://127.0.0.1:\(receiver.web)/topic", answers_as: alice }
                  post: { kind: email, server: "smtp://127.0.0.1:\(receiver.mail)", from: gate@example.com, to: [a@example.com, b@example.com] }
                  tell: { kind: command, command: [/bin/sh, -c, "cat >> \(folder)/told"] }
                  later: { kind: command, command: [/bin/sh, -c, "cat >> \(folder)/later"], after: 1h }
                """, gateway)
            let id = try ask(gateway, token, "hello")
            let phone = try receiver.wait("ntfy") { $0["path"] == "/topic" }
            #expect(phone["headers"]?["title"] == "tester asks: process.run" && phone["headers"]?["priority"] == "high")
            #expect(phone["body"]?.string?.contains("\(id) waits: tester  process.run  command=echo hello") == true)
            let link = try #require(phone["headers"]?["click"]?.string)
            let mail = try receiver.wait("mail") { $0["kind"] == "mail" }
            #expect(mail["to"]?.array?.count == 2 && mail["from"]?.string?.contains("gate@example.com") == true)
            #expect(mail["data"]?.array?.contains("Subject: tester asks: process.run") == true, "\(mail)")
            // Refused once, it is tried again, and signed as others verify it.
            _ = try receiver.wait("the refused one") { $0["kind"] == "refused" }
            let hook = try receiver.wait("the webhook") { $0["kind"] == "http" && $0["path"] == "/hook" }
            let signature = try #require(hook["headers"]?["kruxos-signature"]?.string)
            let parts = signature.split(separator: ",").map { $0.split(separator: "=", maxSplits: 1)[1] }
            let signed = Array("\(parts[0]).\(hook["body"]?.string ?? "")".utf8)
            #expect(parts[1] == hmacSHA256(signed, secret: Array(secret.utf8)).hex)
            let told = try JSONParser.parse(
                String(contentsOfFile: folder + "/told", encoding: .utf8).trimmingCharacters(in: .newlines))
            #expect(told["events"]?.array?.first?["request"]?.string == id)
            #expect(!FileManager.default.fileExists(atPath: folder + "/later"))
            // Looking is not answering, and only this machine's names are heard.
            for _ in 0..<2 {
                let page = try curl("-i", link)
                #expect(page.hasPrefix("HTTP/1.1 200") && page.contains("text/html") && page.contains("no-referrer"))
                #expect(
                    page.contains("&lt;b&gt;because&lt;/b&gt;") && !page.contains("<b>") && page.contains("Ask first"))
            }
            #expect(try curl("-H", "Host: evil.example", link).contains("is not this machine"))
            #expect(
                try curl("-X", "POST", "-H", "Origin: https://evil.example", "-d", "decision=approve", link).contains(
                    "is refused"))
            #expect(try curl("-d", "decision=maybe", link).contains("neither approve nor reject"))
            #expect(try curl(link.dropLast() + "x").contains("this link is none"))
            #expect(try kruxos.run("approve", "show", id, "--json").output.contains("\"pending\""))
            #expect(try curl("-d", "decision=approve&reason=from+the+train", link).contains("\(id) is approved"))
            let ended = try JSONParser.parse(
                curl("-H", "Authorization: Bearer \(token)", gateway.agentsURL + "/v1/approvals/\(id)?wait=20"))
            #expect(ended["data"]?["stdout"] == "hello\n", "\(ended)")
            #expect(try kruxos.run("approve", "show", id).output.contains("by supervisor:alice"))
            for again in [link, try #require(try JSONParser.parse(hook["body"]?.string ?? "")["link"]?.string)] {
                let page = try curl("-d", "decision=reject", again)
                #expect(page.contains("Not answered"), "\(page)")
            }
            #expect(try kruxos.run("audit", "verify").code == 0)
        }
    }

    /// A notifier that is down loses nothing, over a restart neither; it shows in `status`, and comes when it can.
    @Test func whatCouldNotBeToldIsToldLater() async throws {
        try await RealGateway.with(policies: [
            "agents/tester.yaml": "capabilities:\n  process.run: { tier: approval_required }\n"
        ]) { gateway, token in
            let kruxos = gateway.kruxos
            let folder = kruxos.home + "/.."
            try use(
                """
                name: org
                notifiers:
                  tell: { kind: command, command: [/bin/sh, -c, "test -e \(folder)/up && cat >> \(folder)/told"], batch: 5s }
                """, gateway)
            for word in ["a", "b"] { _ = try ask(gateway, token, word) }
            while try !kruxos.run("status").output.contains("the notifier `tell` cannot tell anybody") {}
            gateway.kill()
            try write("", to: folder + "/up")
            let again = try RealGateway(kruxos)
            defer { again.stop() }
            while !FileManager.default.fileExists(atPath: folder + "/told") { usleep(50_000) }
            var text = ""
            while !text.hasSuffix("\n") { text = try String(contentsOfFile: folder + "/told", encoding: .utf8) }
            let told = try JSONParser.parse(text.trimmingCharacters(in: .newlines))
            #expect(told["title"] == "2 requests wait" && told["events"]?.array?.count == 2, "\(text)")
        }
    }

    /// In quiet hours nobody is told; the message waits for their end.
    @Test func quietHoursHoldMessages() async throws {
        try await RealGateway.with(policies: [
            "agents/tester.yaml": "capabilities:\n  process.run: { tier: approval_required }\n"
        ]) { gateway, token in
            let folder = gateway.kruxos.home + "/.."
            // By the machine's clock, from two hours ago to two hours from now.
            let hour = Calendar(identifier: .gregorian).component(.hour, from: Date())
            func clock(_ hour: Int) -> String {
                let text = "\((hour + 24) % 24)"
                return (text.count == 1 ? "0" : "") + text + ":00"
            }
            try use(
                """
                name: org
                notifiers:
                  quiet: { kind: command, command: [/bin/sh, -c, "cat >> \(folder)/quiet"], quiet: "\(clock(hour - 2))-\(clock(hour + 3))" }
                  tell: { kind: command, command: [/bin/sh, -c, "cat >> \(folder)/told"], quiet: "\(clock(hour + 5))-\(clock(hour + 6))" }
                """, gateway)
            let id = try ask(gateway, token, "hello")
            func due() throws -> [Substring] {
                try Kruxos.execute(
                    "/usr/bin/sqlite3",
                    [
                        gateway.kruxos.home + "/kruxos.db",
                        "SELECT notifier, request, (due_at / 1000000 - unixepoch()) / 3600 FROM deliveries",
                    ]
                ).output.split(separator: "\n")
            }
            // The one is told, the other's delivery stands postponed.
            while !FileManager.default.fileExists(atPath: folder + "/told") { usleep(20_000) }
            while try due().map({ $0.hasPrefix("quiet|\(id)|1") || $0.hasPrefix("quiet|\(id)|2") }) != [true] {
                usleep(20_000)
            }
            #expect(!FileManager.default.fileExists(atPath: folder + "/quiet"))
        }
    }

    /// What a link's page is sent by whoever found it: refused, the server lives, and the request waits on.
    @Test func hostileFormsAnswerNothing() async throws {
        try await RealGateway.with(policies: [
            "agents/tester.yaml": "capabilities:\n  process.run: { tier: approval_required }\n"
        ]) { gateway, token in
            let folder = gateway.kruxos.home + "/.."
            try use(
                """
                name: org
                links: { base_url: "\(gateway.supervisorsURL)" }
                notifiers:
                  tell: { kind: command, command: [/bin/sh, -c, "cat > \(folder)/new; mv \(folder)/new \(folder)/told"], answers_as: alice }
                """, gateway)
            let id = try ask(gateway, token, "<script>alert(1)</script>")
            while !FileManager.default.fileExists(atPath: folder + "/told") { usleep(20_000) }
            let told = try JSONParser.parse(
                String(contentsOfFile: folder + "/told", encoding: .utf8).trimmingCharacters(in: .newlines))
            let link = try #require(told["link"]?.string)
            let long = String(repeating: "a", count: 20_000)
            try write(long, to: folder + "/long")
            for form in [
                "", "decision", "decision=", "decision=APPROVE", "decision=approve&decision=reject", "=approve",
                "decision=approve%00", "%", "decision=%ff%fe", "&&&&", "decision[]=approve", #"{"decision":"approve"}"#,
                "reason=approve", "x=" + String(repeating: "&decision=", count: 1000), "@" + folder + "/long",
            ] {
                let page = try curl("--data-binary", form, link)
                #expect(page.contains("Not answered"), "\(form.prefix(50)): \(page.prefix(300))")
            }
            for arguments in [
                ["-X", "PUT"], ["-X", "DELETE"], ["-I"], ["-F", "decision=approve"],
                ["-H", "Origin: null", "-d", "decision=approve"],
                ["-H", "Host: evil.example", "-d", "decision=approve"],
            ] {
                let page = try Kruxos.execute("/usr/bin/curl", ["-s", "-i", "-m", "30"] + arguments + [link]).output
                #expect(page.hasPrefix("HTTP/1.1 4"), "\(arguments): \(page.prefix(300))")
            }
            for other in [
                link + "/", link + "%20", link + "/../" + link.suffix(64), String(link.dropLast(64)), link.uppercased(),
                String(link.dropLast(64)) + String(repeating: "0", count: 64),
                String(link.dropLast(64)) + String(repeating: "%2e", count: 200),
            ] {
                let page = try curl("--path-as-is", "-d", "decision=approve", other)
                #expect(!page.contains("is approved"), "\(other): \(page.prefix(300))")
            }
            let shown = try gateway.kruxos.run("approve", "show", id, "--json").output
            #expect(shown.contains("\"pending\""), "\(shown)")
            // As a phone's browser shows it: what the agent wrote is text.
            let page = try Kruxos.execute(
                "/usr/bin/chromium",
                [
                    "--headless=new", "--no-sandbox", "--disable-gpu", "--user-data-dir=\(folder)/browser",
                    "--timeout=20000", "--dump-dom", link,
                ])
            #expect(page.output.contains("&lt;script&gt;alert(1)&lt;/script&gt;"), "\(page.output)\(page.errors)")
            #expect(page.output.contains("Approve</button>") && !page.output.contains("<script"), "\(page.output)")
            #expect(try curl("-d", "decision=reject&reason=100%25+no", link).contains("\(id) is rejected"))
            #expect(try gateway.kruxos.run("approve", "show", id).output.contains("100% no"))
        }
    }

    /// The supervisors' port takes supervisors' tokens, and nobody else's.
    @Test func supervisorsAnswerOverTheirPort() async throws {
        try await RealGateway.with(policies: [
            "agents/tester.yaml":
                "capabilities:\n  process.run: { tier: approval_required, approvers: [\"role:security\"] }\n"
        ]) { gateway, token in
            let kruxos = gateway.kruxos
            func add(_ name: String, _ role: String) throws -> String {
                let added = try kruxos.run("supervisor", "add", name, "--role", role, "--json")
                return try #require(try JSONParser.parse(added.output)["token"]?.string, "\(added.errors)")
            }
            let alice = try add("alice", "security")
            let bob = try add("bob", "builder")
            let first = try ask(gateway, token, "one")
            let second = try ask(gateway, token, "two")
            func port(_ token: String?, _ path: String, _ body: String? = nil) throws -> JSONValue {
                let who = token.map { ["-H", "Authorization: Bearer \($0)"] } ?? []
                let said = try Kruxos.execute(
                    "/usr/bin/curl",
                    ["-s", "-m", "30"] + who + (body.map { ["-d", $0] } ?? []) + [gateway.supervisorsURL + path]
                ).output
                return try JSONParser.parse(said)
            }
            let list = "/v1/approvals"
            for stranger in [nil, token, "", "x", alice + "0", String(alice.dropLast())] {
                for path in [list, list + "/" + first, "/", "/v1/nothing"] {
                    #expect(try port(stranger, path)["error"]?["error_type"] == "Unauthenticated")
                }
                #expect(
                    try port(stranger, list + "/" + first, #"{"approve":true,"supervisor_token":"\#(alice)"}"#)[
                        "error"]?[
                            "error_type"] == "Unauthenticated")
            }
            let waiting = try port(bob, list)["approvals"]?.array
            #expect(waiting?.map { $0["id"]?.string } == [first, second])
            #expect(try port(bob, list + "?agent=nobody")["approvals"]?.array?.isEmpty == true)
            #expect(try port(bob, list + "?limit=1&all=true")["approvals"]?.array?.count == 1)
            for query in ["?limit=0", "?limit=1001", "?all=yes", "?x=1", "?limit=1&limit=2", "?agent=%ff", "?limit"] {
                #expect(try port(bob, list + query)["error"]?["error_type"] == "InvalidRequest", "\(query)")
            }
            let seen = try #require(try port(alice, list + "/" + first)["seen"]?.string)
            for body in ["", "[]", "{}", #"{"approve":"yes"}"#, #"{"approve":true,"segments":"1"}"#, "{"] {
                #expect(try port(alice, list + "/" + first, body)["error"]?.object != nil, "\(body)")
            }
            // Bob is not asked, whoever he says he is; he may say no.
            let forged = try port(
                bob, list + "/" + first, #"{"approve":true,"id":"\#(first)","supervisor_token":"\#(alice)"}"#)
            #expect(forged["error"]?["error_type"] == "PermissionDenied", "\(forged)")
            let stale = try port(
                alice, list + "/" + first, #"{"approve":true,"seen":"\#(String(repeating: "0", count: 64))"}"#)
            #expect(stale["error"]?["error_type"] == "Conflict", "\(stale)")
            let answered = try port(alice, list + "/" + first, #"{"approve":true,"seen":"\#(seen)","id":"\#(second)"}"#)
            #expect(answered["id"]?.string == first && answered["decided_by"] == "supervisor:alice", "\(answered)")
            let ended = try JSONParser.parse(
                curl("-H", "Authorization: Bearer \(token)", gateway.agentsURL + "/v1/approvals/\(first)?wait=20"))
            #expect(ended["data"]?["stdout"] == "one\n", "\(ended)")
            #expect(try port(bob, list + "/" + second, #"{"approve":false,"reason":"no"}"#)["state"] == "rejected")
            #expect(try port(alice, list + "/" + first + "/retry", "{}")["error"]?["error_type"] == "Conflict")
            _ = try kruxos.run("supervisor", "revoke", "alice")
            #expect(try port(alice, list)["error"]?["error_type"] == "Unauthenticated")
            #expect(try kruxos.run("audit", "verify").code == 0)
        }
    }

    /// Tasks, lists and withdrawals, with the official client.
    @Test func tasksEndWithTheResult() async throws {
        try await RealGateway.with(policies: [
            "agents/tester.yaml": "capabilities:\n  filesystem.delete: { tier: approval_required }\n"
        ]) { gateway, token in
            _ = try Peer.run("mcp_tasks.py", [Kruxos.path, gateway.kruxos.home, gateway.agentsURL, token])
        }
    }
}
