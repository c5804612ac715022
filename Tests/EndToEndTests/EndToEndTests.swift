import Foundation
import KruxCore
import KruxTestSupport
import Testing

/// The real binary on a real file and real sockets, with real peers.
@Suite(.serialized) struct EndToEndTests {
    private static let policy = [
        "agents/tester.yaml": """
        agent: tester
        capabilities:
          filesystem.delete: { tier: approval_required, reason: "Deleting asks first" }
          filesystem.append: { tier: blocked }
        """
    ]

    @Test(arguments: ["http", "stdio"], ["2026-07-28", "legacy", "auto"])
    func theOfficialMCPClientWorksThroughTheGate(_ transport: String, _ mode: String) async throws {
        try await RealGateway.with(policies: Self.policy) { gateway, token in
            try Peer.run(
                "mcp_walkthrough.py",
                [transport, mode, Kruxos.path, gateway.kruxos.home, gateway.agentsURL, token, "tester"])
            #expect(gateway.stop() == 0)
        }
    }

    /// How far a long call has come is told, and it can be taken back, by the session that made it alone.
    @Test func longCallsTellAndCanBeTakenBack() async throws {
        let policy = "name: org\ncapabilities:\n  \"*\": { tier: autonomous }\n"
        try await RealGateway.with(policies: ["org.yaml": policy]) { gateway, token in
            let other = try gateway.kruxos.createAgent("other")
            print(
                try Peer.run(
                    "mcp_long_calls.py", [Kruxos.path, gateway.kruxos.home, gateway.agentsURL, token, other]))
            #expect(gateway.stop() == 0)
        }
    }

    /// Hundreds of ways out of the box, tried for real: whole, without each layer that holds them, and by each such layer
    /// alone. A root gateway's box, and where the tests are root an ordinary user's as well.
    @Test func nothingGetsOutOfTheBox() async throws {
        try await withTemporaryFolder { folder in
            // Other users pass through it.
            #expect(chmod(folder, 0o755) == 0)
            print(try Peer.run("escapes.py", [Kruxos.path, folder + "/own"]))
            if geteuid() == 0 {
                print(try Peer.run("escapes.py", [Kruxos.path, folder + "/other", "nobody"]))
            }
        }
    }

    /// What the gate connects to on an agent's behalf, and what a process reaches through its proxy, against real servers
    /// in a network of its own: redirects, names that change their address, metadata services, and what they answer.
    @Test(.enabled(if: geteuid() == 0)) func theNetworkIsReachedAsRulesSay() async throws {
        try await withTemporaryFolder { folder in
            print(try Peer.run("network.py", [Kruxos.path, folder]))
        }
    }

    @Test func hostileInputGetsAStructuredErrorAndALiveServer() async throws {
        try await RealGateway.with(policies: Self.policy) { gateway, token in
            try Peer.run("hostile_input.py", [gateway.agentsURL, token])
            #expect(gateway.process.isRunning)
            #expect(try gateway.kruxos.run("audit", "verify").code == 0)
        }
    }

    /// Neither the gateway's own PATH nor an agent's decides what a program's name means, and the person who is asked
    /// sees what it is.
    @Test func aNameMeansTheInstalledProgram() async throws {
        try await withTemporaryFolder { folder in
            let kruxos = Kruxos(home: folder + "/home")
            let token = try kruxos.createAgent("tester")
            try write(
                "capabilities:\n  process.run: { rules: [{ condition: { command: uname }, tier: autonomous }], tier: approval_required }\n",
                to: kruxos.home + "/policies/agents/tester.yaml")
            let gateway = try RealGateway(kruxos, wrapper: ["/usr/bin/env", "PATH=.:/workspace/tester:/usr/bin:/bin"])
            defer { gateway.stop() }
            let workspace = kruxos.home + "/workspaces/tester"
            for name in ["uname", "only-here"] {
                try write("#!/bin/sh\necho the agent\n", to: "\(workspace)/\(name)")
                #expect(chmod("\(workspace)/\(name)", 0o755) == 0)
            }
            func run(_ arguments: String) throws -> JSONValue {
                let reply = try Kruxos.execute(
                    "/usr/bin/curl",
                    [
                        "-sS", "-H", "Authorization: Bearer \(token)", "-d",
                        "{\"capability\":\"process.run\",\"arguments\":\(arguments)}", gateway.agentsURL + "/v1/call",
                    ])
                return try JSONParser.parse(reply.output)
            }
            #expect(try run(#"{"command":"uname"}"#)["data"]?["stdout"] == "Linux\n")
            for (arguments, what) in [
                (#"{"command":"uname","env":{"PATH":"/workspace/tester"}}"#, "Runs uname (/usr/bin/uname)"),
                (#"{"command":"only-here"}"#, "Runs only-here (which is not installed)"),
            ] {
                let asked = try run(arguments)
                let id = try #require(asked["error"]?["context"]?["request_id"]?.string, "\(asked)")
                let shown = try kruxos.run("approve", "show", id, "--full").output
                #expect(shown.contains(what), "\(shown)")
                _ = try kruxos.run("approve", "accept", id)
                let ended = try Kruxos.execute(
                    "/usr/bin/curl",
                    [
                        "-sS", "-H", "Authorization: Bearer \(token)",
                        gateway.agentsURL + "/v1/approvals/\(id)?wait=20",
                    ]
                ).output
                #expect(!ended.contains("the agent"), "\(ended)")
                #expect(ended.contains("Linux") || ended.contains("NotFound"), "\(ended)")
            }
        }
    }

    /// 50 in CI; `KRUXOS_TEST_KILLS` asks for more.
    @Test func nothingIsLostUnderKills() async throws {
        try await withTemporaryFolder { folder in
            let kruxos = Kruxos(home: folder + "/home")
            let token = try kruxos.createAgent("tester")
            let rounds = ProcessInfo.processInfo.environment["KRUXOS_TEST_KILLS"] ?? "50"
            print(try Peer.run("kill_loop.py", [Kruxos.path, kruxos.home, token, "tester", rounds]))
        }
    }

    /// Promise 2, by system calls: one durable commit for a read, two for an effect, none more.
    @Test func everyRowIsOnTheDiskBeforeItsReply() async throws {
        try await withTemporaryFolder { folder in
            let kruxos = Kruxos(home: folder + "/home")
            let token = try kruxos.createAgent("tester")
            let trace = folder + "/trace"
            let gateway = try RealGateway(
                kruxos, wrapper: ["/usr/bin/strace", "-f", "-qq", "-e", "trace=fdatasync,writev", "-o", trace])
            func call(_ capability: String, _ arguments: String) throws {
                let result = try Kruxos.execute(
                    "/usr/bin/env",
                    [
                        "curl", "-sS", "-f", "-H", "Authorization: Bearer \(token)", "-H",
                        "Content-Type: application/json",
                        "-d", "{\"capability\":\"\(capability)\",\"arguments\":\(arguments)}",
                        gateway.agentsURL + "/v1/call",
                    ])
                #expect(result.code == 0, "\(result)")
            }
            /// Commits between the last two replies.
            func commits() throws -> Int {
                let lines = try String(contentsOfFile: trace, encoding: .utf8).split(separator: "\n")
                let replies = lines.indices.filter {
                    lines[$0].contains("writev(") && lines[$0].contains("HTTP/1.1 200")
                }
                guard replies.count >= 2 else { return -1 }
                return lines[replies[replies.count - 2]..<replies[replies.count - 1]].count {
                    $0.contains("fdatasync(")
                }
            }
            try call("filesystem.write", "{\"path\":\"a\",\"content\":\"x\"}")
            try call("filesystem.read", "{\"path\":\"a\"}")
            #expect(try commits() == 1)
            try call("filesystem.write", "{\"path\":\"a\",\"content\":\"y\"}")
            #expect(try commits() == 2)
            // strace passes the signal on to nobody: the gateway is its child.
            _ = try Kruxos.execute("/usr/bin/env", ["pkill", "-TERM", "-f", "serve --home \(kruxos.home)"])
            gateway.process.waitUntilExit()
        }
    }

    @Test func anApprovalGivenWhileTheGatewayIsDownRunsWhenItStarts() async throws {
        try await withTemporaryFolder { folder in
            let kruxos = Kruxos(home: folder + "/home")
            _ = try kruxos.createAgent("tester")
            try write(Self.policy["agents/tester.yaml"] ?? "", to: kruxos.home + "/policies/agents/tester.yaml")
            #expect(try kruxos.run("call", "filesystem.write", "path=a", "content=x").code == 0)
            let asked = try kruxos.run("call", "filesystem.delete", "path=a")
            #expect(asked.code == 3 && asked.errors.contains("ap_001"), "\(asked)")
            let list = try kruxos.run("approve", "list").output
            #expect(
                list.hasPrefix(
                    "ID       Agent       Capability        Parameters                    Requested\nap_001   tester      filesystem.delete path=/workspace/tester/a"
                ))
            #expect(try kruxos.run("approve", "accept", "ap_001", "--reason", "fine").code == 0)
            #expect(try kruxos.run("approve", "accept", "ap_001").code == 1)
            #expect(FileManager.default.fileExists(atPath: kruxos.home + "/workspaces/tester/a"))
            let gateway = try RealGateway(kruxos)
            let result = try kruxos.run("approve", "show", "ap_001")
            gateway.stop()
            #expect(result.output.contains("Rule:       filesystem.delete → approval_required"))
            #expect(try kruxos.run("approve", "show", "ap_001").output.contains("State:      succeeded"))
            #expect(!FileManager.default.fileExists(atPath: kruxos.home + "/workspaces/tester/a"))
        }
    }

    @Test func theCommandLineSaysWhatIsWrong() async throws {
        try await withTemporaryFolder { folder in
            let kruxos = Kruxos(home: folder + "/home")
            #expect(try kruxos.run("audit", "query").code == 69)
            _ = try kruxos.createAgent("tester")
            let cases: [([String], Int32, String)] = [
                (["agent", "create", "--name", "Bad Name", "--purpose", "x"], 1, "is no agent name"),
                (["agent", "create", "--name", "tester", "--purpose", "x"], 1, "exists already"),
                (["agent", "show", "testr"], 1, "Did you mean `tester`?"),
                (["agent", "restore", "tester"], 1, "is not revoked"),
                (["approve", "accept", "ap_999"], 1, "no approval request"),
                (["audit", "query", "--last", "soon"], 64, "no duration"),
                (["audit", "query", "--outcome", "denyed"], 64, "did you mean `denied`?"),
                (["call", "filesystem.raed", "path=x"], 1, "Did you mean `filesystem.read`?"),
                (["call", "filesystem.read", "path"], 64, "is not key=value"),
                (["call", "secrets.export"], 4, "is blocked by system.yaml"),
                (["call", "filesystem.read", "path=../x"], 4, "leads outside the workspace"),
                (["config", "set", "policy", "nope"], 78, "no policy is named"),
                (["watch"], 69, "no gateway runs"),
                (["serve", "--port", "99999"], 64, "0 to 65535"),
            ]
            for (arguments, code, message) in cases {
                let result = try Kruxos.execute(Kruxos.path, arguments + ["--home", kruxos.home])
                #expect(result.code == code, "\(arguments): \(result)")
                #expect(result.errors.contains(message), "\(arguments): \(result.errors)")
            }
            let gateway = try RealGateway(kruxos)
            #expect(try kruxos.run("status").output.contains("running (ok)"))
            #expect(try Kruxos.execute(Kruxos.path, ["serve", "--home", kruxos.home]).code == 69)
            // A call that runs when the gateway is stopped is still answered.
            let slow = try ChildProcess(
                Kruxos.path,
                ["call", "process.run", "command=sleep", "args=[\"1\"]", "--home", kruxos.home],
                output: .pipe)
            while try !kruxos.run("audit", "query", "--capability", "process.run").output.contains("intent") {}
            #expect(gateway.stop() == 0)
            #expect(String(decoding: slow.output.readDataToEndOfFile(), as: UTF8.self).contains("exit_code"))
            #expect(slow.waitUntilExit() == 0)
        }
    }

    /// `docs/capabilities.md` is what `kruxos capabilities docs` prints.
    @Test func theCatalogueInTheDocumentsIsCurrent() throws {
        let root =
            ((((#filePath as NSString).deletingLastPathComponent) as NSString).deletingLastPathComponent as NSString)
            .deletingLastPathComponent
        let kept = try String(contentsOfFile: root + "/docs/capabilities.md", encoding: .utf8)
        let printed = try Kruxos.execute(Kruxos.path, ["capabilities", "docs"])
        #expect(
            printed.code == 0 && printed.output == kept,
            "write it anew: kruxos capabilities docs > docs/capabilities.md")
        let list = try Kruxos.execute(Kruxos.path, ["capabilities", "list", "git", "--json"])
        #expect(try JSONParser.parse(list.output).array?.count == 10)
        let show = try Kruxos.execute(Kruxos.path, ["capabilities", "show", "filesystem.edit"])
        #expect(show.output.contains("`expected`") && show.output.contains("Conflict"))
        let wrong = try Kruxos.execute(Kruxos.path, ["capabilities", "show", "filesystem.edti"])
        #expect(wrong.code != 0 && wrong.errors.contains("Did you mean `filesystem.edit`?"))
    }

    @Test func everyCommandSurvivesWrongValues() async throws {
        try await withTemporaryFolder { folder in
            let kruxos = Kruxos(home: folder + "/home")
            _ = try kruxos.createAgent("a")
            try Peer.run("hostile_commands.py", [Kruxos.path, kruxos.home])
        }
    }

    @Test func aZygoteThatDiedIsReplaced() async throws {
        try await RealGateway.with { gateway, _ in
            func echo(_ text: String) throws -> Kruxos.Result {
                try gateway.kruxos.run("call", "process.run", "command=echo", "args=[\"\(text)\"]")
            }
            #expect(try echo("one").output.contains("one\\n"))
            let killed = try Kruxos.execute(
                "/usr/bin/env", ["pkill", "-KILL", "-P", "\(gateway.process.processIdentifier)", "kruxos-zygote"])
            #expect(killed.code == 0)
            #expect(try echo("two").output.contains("two\\n"))
        }
    }

    @Test func quickstartSetsEverythingUp() async throws {
        try await withTemporaryFolder { folder in
            let kruxos = Kruxos(home: folder + "/home")
            let result = try kruxos.run("quickstart", "--port", "0", "--supervisor-port", "0", "--yes")
            _ = try Kruxos.execute("/usr/bin/env", ["pkill", "-TERM", "-f", "serve --home \(kruxos.home)"])
            #expect(result.code == 0, "\(result)")
            for text in [
                "Hello from behind the gate", "OutsideWorkspace", "waits for you as ap_001", "→ succeeded",
                "UNANCHORED", "\"mcpServers\"",
            ] {
                #expect(result.output.contains(text), "\(result.output)")
            }
        }
    }
}
