import Foundation
import KruxCore
import KruxCrypto
import KruxTestSupport
import Testing

/// People are reached where a policy says, and answer from there.
@Suite struct NotifierTests {
    /// `peers/receiver.py`, and what it received.
    private final class Receiver {
        private let process = Process()
        private let output = Pipe()
        private let input = Pipe()
        private var text = ""
        private(set) var messages: [JSONValue] = []
        let web: Int64, mail: Int64

        init() throws {
            let path = (#filePath as NSString).deletingLastPathComponent + "/peers/receiver.py"
            process.executableURL = URL(fileURLWithPath: Peer.python)
            process.arguments = [path]
            process.standardOutput = output
            process.standardInput = input
            try process.run()
            var said = ""
            while !said.contains("\n") {
                let data = output.fileHandleForReading.availableData
                try #require(!data.isEmpty)
                said += String(decoding: data, as: UTF8.self)
            }
            let ports = try JSONParser.parse(said)
            web = try #require(ports["web"]?.int)
            mail = try #require(ports["mail"]?.int)
        }

        /// Reads until a message fits.
        func wait(_ what: String, _ fits: (JSONValue) -> Bool) throws -> JSONValue {
            while true {
                if let found = messages.first(where: fits) { return found }
                let data = output.fileHandleForReading.availableData
                try #require(!data.isEmpty, "\(what) did not come: \(messages)")
                text += String(decoding: data, as: UTF8.self)
                while let end = text.firstIndex(of: "\n") {
                    messages.append(try JSONParser.parse(String(text[..<end])))
                    text = String(text[text.index(after: end)...])
                }
            }
        }

        func end() throws {
            try input.fileHandleForWriting.close()
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
}
