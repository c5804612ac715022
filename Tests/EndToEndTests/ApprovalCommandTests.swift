import Foundation
import KruxCore
import KruxTestSupport
import Testing

/// Approvals as the documents show them, at the command line, over HTTP and on a terminal.
@Suite struct ApprovalCommandTests {
    private func call(_ gateway: RealGateway, _ token: String, _ body: String) throws -> JSONValue {
        let result = try Kruxos.execute(
            "/usr/bin/curl",
            [
                "-s", "-m", "60", "-H", "Authorization: Bearer \(token)", "-H", "Content-Type: application/json",
                gateway.agentsURL + "/v1/call", "-d", body,
            ])
        return try JSONParser.parse(result.output)
    }

    private func get(_ gateway: RealGateway, _ token: String, _ path: String) throws -> JSONValue {
        try JSONParser.parse(
            Kruxos.execute(
                "/usr/bin/curl", ["-s", "-m", "60", "-H", "Authorization: Bearer \(token)", gateway.agentsURL + path]
            ).output)
    }

    private static let restart =
        #"{"capability":"process.run","arguments":{"command":"systemctl","args":["restart","myapp"]}}"#
    private static let policy = """
        extends: team-moderate
        capabilities:
          process.run:
            rules:
              - condition: { command: systemctl }
                tier: approval_required
                reason: "Service management commands require supervisor approval"
            tier: approval_required
        """

    /// The two requests of the documents, as old as they are there.
    private func documented<R>(_ body: (RealGateway, String) async throws -> R) async throws -> R {
        try await withTemporaryFolder { folder in
            let kruxos = Kruxos(home: folder + "/home")
            let token = try kruxos.createAgent("my-agent")
            let other = try kruxos.createAgent("deploy-bot")
            for agent in ["my-agent", "deploy-bot"] {
                try write(Self.policy, to: "\(kruxos.home)/policies/agents/\(agent).yaml")
            }
            _ = try kruxos.run("config", "set", "policy", "team-moderate")
            let gateway = try RealGateway(kruxos)
            defer { if gateway.process.isRunning { gateway.stop() } }
            try write("x", to: kruxos.home + "/workspaces/deploy-bot/old-build/a")
            try FileManager.default.createDirectory(
                atPath: kruxos.home + "/workspaces/my-agent", withIntermediateDirectories: true)
            _ = try call(gateway, token, Self.restart)
            _ = try call(
                gateway, other,
                #"{"capability":"filesystem.delete","arguments":{"path":"/workspace/deploy-bot/old-build/","recursive":true}}"#
            )
            return try await body(gateway, token)
        }
    }

    private func age(_ kruxos: Kruxos, _ id: String, minutes: Int) throws {
        try tamper(
            kruxos.home + "/kruxos.db",
            "UPDATE approvals SET requested_at = requested_at - \(minutes) * 60000000 WHERE id = '\(id)'")
    }

    @Test func theDocumentsCommandsPrintWhatTheDocumentsShow() async throws {
        try await documented { gateway, token in
            let kruxos = gateway.kruxos
            #expect(gateway.stop() == 0)
            try age(kruxos, "ap_001", minutes: 2)
            try age(kruxos, "ap_002", minutes: 5)
            // The document's path is of a workspace without agents' folders.
            #expect(
                try kruxos.run("approve", "list").output == """
                    ID       Agent       Capability        Parameters                    Requested
                    ap_001   my-agent    process.run       command=systemctl restart     2m ago
                    ap_002   deploy-bot  filesystem.delete path=/workspace/deploy-bot/o… 5m ago

                    """)
            let time = try #require(
                try JSONParser.parse(kruxos.run("approve", "show", "ap_001", "--json").output)["requested_at"]?.string)
            #expect(
                try kruxos.run("approve", "show", "ap_001").output == """
                    Request:    ap_001
                    Agent:      my-agent
                    Capability: process.run
                    Parameters:
                      command: systemctl
                      args:    ["restart", "myapp"]
                    Requested:  \(time.prefix(10)) \(time.dropFirst(11).prefix(8))
                    Policy:     team-moderate
                    Rule:       process.run → approval_required
                    Reason:     Service management commands require supervisor approval

                    """)
            // Answered while the gateway is down.
            let accepted = try kruxos.run("approve", "accept", "ap_001", "--reason", "Scheduled maintenance window")
            #expect(accepted.output == "ap_001 approved\n" && accepted.code == 0)
            let rejected = try kruxos.run("approve", "reject", "ap_002", "--reason", "Keep old builds until next week")
            #expect(rejected.output == "ap_002 rejected\n" && rejected.code == 0)
            #expect(try kruxos.run("approve", "list").output == "No pending requests.\n")
            let history = try kruxos.run(
                "audit", "query", "--capability", "process.run", "--outcome", "approved", "--last", "7d")
            #expect(history.output.contains("ap_001: Scheduled maintenance window"), "\(history.output)")
            let again = try kruxos.run("approve", "reject", "ap_001")
            #expect(again.code == 1 && again.errors.contains("`ap_001` is approved already, decided by supervisor:"))
            // It runs when the gateway next does, and a wait gets it.
            let next = try RealGateway(kruxos)
            defer { next.stop() }
            let ended = try get(next, token, "/v1/approvals/ap_001?wait=30")
            #expect(["succeeded", "failed"].contains(ended["state"]?.string), "\(ended)")
        }
    }

    /// The documents' Python program, as the requests it makes.
    @Test func aWaitThatRunsOutLeavesTheRequestAndTheNextOneGetsTheResult() async throws {
        try await RealGateway.with(policies: [
            "agents/tester.yaml": "capabilities:\n  process.run: { tier: approval_required }\n"
        ]) { gateway, token in
            let kruxos = gateway.kruxos
            let asked = try call(
                gateway, token,
                #"{"capability":"process.run","arguments":{"command":"echo","args":["deployed"]},"reason":"Release 7"}"#
            )
            #expect(asked["error"]?["error_type"]?.string == "ApprovalPending")
            let id = try #require(asked["error"]?["context"]?["request_id"]?.string)
            let waited = try get(gateway, token, "/v1/approvals/\(id)?wait=1")
            #expect(waited["state"]?.string == "pending")
            #expect(try get(gateway, token, "/v1/approvals")["approvals"]?.array?.count == 1)
            #expect(try kruxos.run("approve", "show", id).output.contains("Purpose:    Release 7\n"))
            gateway.kill()
            let second = try RealGateway(kruxos)
            #expect(try kruxos.run("approve", "accept", id).code == 0)
            let ended = try get(second, token, "/v1/approvals/\(id)?wait=300")
            #expect(ended["data"]?["stdout"]?.string == "deployed\n", "\(ended)")
            second.stop()
            let third = try RealGateway(kruxos)
            defer { third.stop() }
            #expect(try get(third, token, "/v1/approvals/\(id)?wait=300") == ended, "the same answer every time")
            #expect(try get(third, token, "/v1/approvals")["approvals"]?.array?.isEmpty == true)
            #expect(try get(third, token, "/v1/approvals?all=true")["approvals"]?.array?.count == 1)
        }
    }

    @Test func grantsAndBulkAnswersAtTheCommandLine() async throws {
        try await RealGateway.with(policies: [
            "agents/tester.yaml": "capabilities:\n  process.run: { tier: approval_required }\n"
        ]) { gateway, token in
            let kruxos = gateway.kruxos
            func echo(_ word: String) throws -> JSONValue {
                try call(
                    gateway, token,
                    #"{"capability":"process.run","arguments":{"command":"echo","args":["\#(word)"]}}"#)
            }
            for word in ["a", "b", "c"] { _ = try echo(word) }
            let listed = try kruxos.run("approve", "list").output
            #expect(listed.split(separator: "\n").count == 4, "other words are other requests: \(listed)")
            _ = try echo("a")
            #expect(try kruxos.run("approve", "list").output.contains("ap_001+1"))
            #expect(try kruxos.run("approve", "list", "--each").output.split(separator: "\n").count == 5)
            let asked = try kruxos.run("approve", "accept", "--all", "--agent", "tester")
            #expect(asked.code == 64 && asked.errors.contains("--yes"), "\(asked)")
            let like = try kruxos.run("approve", "accept", "ap_001", "--like", "--yes")
            #expect(like.output.hasSuffix("ap_001 approved\nap_004 approved\n"), "\(like.output)")
            let granted = try kruxos.run("approve", "accept", "ap_002", "--always", "--for", "1h", "--yes")
            #expect(
                granted.output.contains("In the last 30 days it would have answered 1 call:")
                    && granted.output.contains("gr_001 granted: tester may call process.run"), "\(granted)")
            #expect(try echo("b")["tier"]?.string == "notify")
            #expect(try kruxos.run("grants", "list").output.contains("gr_001"))
            let explained = try kruxos.run(
                "policy", "explain", "--agent", "tester", "--capability", "process.run", "command=echo", "args=[\"b\"]")
            #expect(explained.output.contains("Grant:       gr_001 with command_glob: echo b"), "\(explained)")
            #expect(explained.output.contains("→ notify"))
            #expect(try kruxos.run("grants", "show", "gr_001").output.contains("Used:       1 ×"))
            #expect(try kruxos.run("grants", "revoke", "gr_001").output == "gr_001 revoked\n")
            #expect(try echo("b")["error"]?["error_type"]?.string == "ApprovalPending")
            #expect(try kruxos.run("grants", "list").output == "No grants live.\n")
            let rest = try kruxos.run("approve", "reject", "--all", "--capability", "process.*", "--yes")
            #expect(rest.code == 0 && rest.output.contains("ap_003 rejected"), "\(rest)")
            for (arguments, word) in [
                (["approve", "accept"], "name requests, or --all"),
                (["approve", "show", "ap_999"], "no approval request"),
                (["approve", "accept", "ap_003", "--uses", "3"], "need --always"),
                (["grants", "revoke", "gr_9"], "no grant"),
                (["approve", "retry", "ap_001"], "only what did not surely succeed"),
                (["supervisor", "add", "a b"], "is no name"),
            ] {
                let result = try Kruxos.execute(Kruxos.path, arguments + ["--home", kruxos.home])
                #expect(result.code != 0 && result.errors.contains(word), "\(arguments): \(result)")
            }
        }
    }

    /// An editor is any program; here one that writes another word.
    @Test func anEditedRequestRunsAsItWasEdited() async throws {
        try await RealGateway.with(policies: [
            "agents/tester.yaml": "capabilities:\n  process.run: { tier: approval_required }\n"
        ]) { gateway, token in
            let kruxos = gateway.kruxos
            _ = try call(
                gateway, token, #"{"capability":"process.run","arguments":{"command":"echo","args":["wrong"]}}"#)
            func accept(_ editor: String) throws -> Kruxos.Result {
                try Kruxos.execute(
                    "/usr/bin/env",
                    [
                        "-u", "VISUAL", "EDITOR=\(editor)", Kruxos.path, "approve", "accept", "ap_001", "--edit",
                        "--home", kruxos.home,
                    ])
            }
            #expect(try accept("true").output.contains("Nothing was changed"))
            #expect(try accept("false").errors.contains("the editor ended with 1"))
            #expect(try accept("sed -i s/{//").errors.contains("is kept in"))
            #expect(try kruxos.run("approve", "list").output.contains("ap_001"))
            #expect(try accept("sed -i s/wrong/right/").output == "ap_001 approved\n")
            let ended = try get(gateway, token, "/v1/approvals/ap_001?wait=30")
            #expect(ended["data"]?["stdout"]?.string == "right\n")
            #expect(ended["changed_arguments"]?["args"]?.array == ["right"])
            #expect(try kruxos.run("approve", "show", "ap_001").output.contains("(changed by a supervisor)"))
        }
    }

    // MARK: The screen

    /// A terminal of 80 × 24 in tmux that runs a command.
    private final class Screen {
        let socket: String
        init(_ folder: String, _ command: String, columns: Int = 80, rows: Int = 24) throws {
            socket = folder + "/tmux"
            // The server stays, and must hold nothing by which its end is noticed.
            let closing = "for fd in /proc/$$/fd/*; do fd=${fd##*/}; [ $fd -le 2 ] || eval \"exec $fd>&-\"; done; "
            let made = try Kruxos.execute(
                "/bin/bash",
                [
                    "-c", closing + "exec tmux \"$@\" >/dev/null 2>&1 </dev/null", "tmux", "-u", "-S", socket, "-f",
                    "/dev/null",
                    "new-session", "-d", "-x", "\(columns)", "-y", "\(rows)", "-e", "LC_ALL=C.UTF-8", "-e",
                    "EDITOR=sed -i s/one/two/", "-e", "VISUAL=", command + "; echo ended with $?; exec sleep 1000",
                ])
            try #require(made.code == 0, "\(made.errors)")
        }

        func tmux(_ arguments: String...) throws -> String {
            try Kruxos.execute("/usr/bin/tmux", ["-u", "-S", socket] + arguments).output
        }

        func press(_ keys: String...) throws {
            for key in keys { _ = try tmux("send-keys", key) }
        }

        /// What is shown once it fits, without what differs from run to run.
        func shows(_ isRight: (String) -> Bool) throws -> String {
            let deadline = ContinuousClock.now + .seconds(60)
            var text = ""
            while ContinuousClock.now < deadline {
                text = try tmux("capture-pane", "-p").replacing(/[0-9]+s ago/, with: "0s ago")
                    .replacing(/[0-9]{4}-[0-9]{2}-[0-9]{2} [0-9:]{8}/, with: "2026-01-01 00:00:00")
                    // Not every machine has it.
                    .replacing("systemctl (which is not installed)", with: "systemctl (/usr/bin/systemctl)")
                if isRight(text) { return text }
                usleep(30_000)
            }
            throw TestFailure("the screen shows:\n\(text)")
        }

        func end() throws { _ = try tmux("kill-server") }
    }

    @Test func theScreenShowsWhatWaitsAndDoesWhatIsPressed() async throws {
        try await documented { gateway, token in
            let kruxos = gateway.kruxos
            let screen = try Screen(
                kruxos.home + "/..", "\(Kruxos.path) approve watch --quiet --home \(kruxos.home)")
            defer { try? screen.end() }
            let first = try screen.shows { $0.contains("q quit") }
            #expect(
                first == """
                    Approvals: 2 wait
                      ID       Agent       Capability        Parameters                    Requested
                    > ap_001   my-agent    process.run       command=systemctl restart     0s ago
                      ap_002   deploy-bot  filesystem.delete path=/workspace/deploy-bot/o… 0s ago
                    ────────────────────────────────────────────────────────────────────────────────
                    Request:    ap_001
                    Agent:      my-agent
                    Capability: process.run
                    Parameters:
                      command: systemctl
                      args:    ["restart", "myapp"]
                    Requested:  2026-01-01 00:00:00
                    Policy:     team-moderate
                    Rule:       process.run → approval_required
                    Reason:     Service management commands require supervisor approval
                    Effect:     Runs systemctl (/usr/bin/systemctl) in /workspace/my-agent,
                    confined to the workspace and without network, for at most 60 s






                    a approve  r reject  e edit  g grant  ↑↓ select  PgUp/PgDn  / filter  q quit

                    """)
            try screen.press("Down")
            let second = try screen.shows { $0.contains("> ap_002") }
            #expect(second.contains("  /workspace/deploy-bot/old-build/a\n"), "\(second)")
            // Another request arrives, and the window shrinks.
            _ = try call(gateway, token, #"{"capability":"process.run","arguments":{"command":"echo","args":["one"]}}"#)
            _ = try screen.shows { $0.contains("Approvals: 3 wait") && $0.contains("ap_003") }
            _ = try screen.tmux("resize-window", "-x", "50", "-y", "14")
            let small = try screen.shows {
                $0.split(separator: "\n").allSatisfy { $0.count <= 50 } && $0.contains("> ap_002")
            }
            #expect(small.split(separator: "\n", omittingEmptySubsequences: false).count == 15)
            _ = try screen.tmux("resize-window", "-x", "80", "-y", "24")
            _ = try screen.shows { $0.contains("q quit") }
            // Rejected with a reason, corrected while it is written.
            try screen.press("r", "Keep it!", "BSpace")
            _ = try screen.shows { $0.contains("Reject ap_002, because: Keep it█") }
            try screen.press("Enter")
            _ = try screen.shows { $0.contains("ap_002 rejected") && $0.contains("Approvals: 2 wait") }
            #expect(try kruxos.run("approve", "show", "ap_002").output.contains("Because:    Keep it\n"))
            // Filtered, edited in an editor, approved.
            try screen.press("/", "echo")
            _ = try screen.shows { $0.contains("Approvals: 2 wait, 1 with `echo`") }
            try screen.press("Enter")
            usleep(800_000)
            try screen.press("e")
            _ = try screen.shows { $0.contains("ap_003 approved") }
            let ended = try get(gateway, token, "/v1/approvals/ap_003?wait=30")
            #expect(ended["data"]?["stdout"]?.string == "two\n", "\(ended)")
            try screen.press("Escape")
            _ = try screen.shows { $0.contains("> ap_001") }
            usleep(800_000)
            try screen.press("g")
            _ = try screen.shows { $0.contains("Approve and grant ap_001 for:") && $0.contains("would be granted") }
            try screen.press("s")
            _ = try screen.shows { $0.contains("gr_001 granted") && $0.contains("Approvals: nothing waits") }
            try screen.press("q")
            let left = try screen.shows { $0.contains("ended with 0") }
            #expect(!left.contains("Approvals:"), "the screen is as it was: \(left)")
            #expect(try kruxos.run("audit", "verify").code == 0)
        }
    }

    /// Whatever ends it, the terminal is as it was: echo, lines and cursor.
    @Test(arguments: ["TERM", "HUP", "INT", "C-c"]) func theTerminalIsRestored(_ way: String) async throws {
        try await documented { gateway, _ in
            let kruxos = gateway.kruxos
            let pid = kruxos.home + "/../pid"
            let screen = try Screen(
                kruxos.home + "/..",
                "sh -c 'echo $$ > \(pid); exec \(Kruxos.path) approve watch --home \(kruxos.home)'; stty -a | grep -o ' -*icanon\\| -*echo '"
            )
            defer { try? screen.end() }
            _ = try screen.shows { $0.contains("q quit") }
            if way == "C-c" {
                try screen.press("C-c")
            } else {
                let number = try String(contentsOfFile: pid, encoding: .utf8).trimmingCharacters(
                    in: .whitespacesAndNewlines)
                _ = try Kruxos.execute("/bin/kill", ["-\(way)", number])
            }
            let after = try screen.shows { $0.contains("ended with") }
            #expect(after.contains(" icanon") && after.contains(" echo"), "\(after)")
            #expect(try screen.tmux("display-message", "-p", "#{cursor_flag} #{alternate_on}") == "1 0\n")
        }
    }

    /// Where there is no terminal, a line for each thing that happens.
    @Test func withoutATerminalEachEventIsALine() async throws {
        try await documented { gateway, token in
            let kruxos = gateway.kruxos
            let process = try ChildProcess(
                Kruxos.path, ["approve", "watch", "--home", kruxos.home], output: .pipe)
            defer { process.terminate() }
            var said = ""
            func until(_ text: String) throws {
                while !said.contains(text) {
                    let data = process.output.availableData
                    try #require(!data.isEmpty, "\(said)")
                    said += String(decoding: data, as: UTF8.self)
                }
            }
            try until("waits  ap_002  deploy-bot  filesystem.delete")
            _ = try call(gateway, token, #"{"capability":"process.run","arguments":{"command":"echo","args":["one"]}}"#)
            try until("new  ap_003  my-agent  process.run  command=echo one")
            _ = try kruxos.run("approve", "reject", "ap_003")
            try until("answered  ap_003  my-agent  process.run  ap_003 is rejected")
        }
    }
}
