import Foundation
import KruxCore
import KruxTestSupport
import Testing

/// `kruxos mount`, with and without a gateway.
@Suite struct MountCommandTests {
    private let policy = "name: org\ncapabilities:\n  \"*\": { tier: autonomous }\n"

    private func with(_ body: (Kruxos, String, String) async throws -> Void) async throws {
        try await withTemporaryFolder { folder in
            let kruxos = Kruxos(home: folder + "/home")
            let token = try kruxos.createAgent("coder")
            try write(policy, to: kruxos.home + "/policies/org.yaml")
            try write("hello\n", to: folder + "/site/index.html")
            // The agents' user of a root gateway is none of its.
            chmod(folder + "/site", 0o777)
            chmod(folder + "/site/index.html", 0o644)
            try await body(kruxos, token, folder + "/site")
        }
    }

    @Test func mountsAreAddedListedAndRemoved() async throws {
        try await with { kruxos, token, source in
            #expect(try kruxos.run("mount", "list").output == "Nothing is mounted.\n")
            let added = try kruxos.run(
                "mount", "add", "coder", "--source", source, "--target", "/mnt/site", "--read-only")
            #expect(added.output == "coder reads \(source) at /mnt/site.\n", "\(added)")
            let gateway = try RealGateway(kruxos)
            let agent = AgentClient(gateway: gateway, token: token)
            #expect(try agent.done("filesystem.read", ["path": "/mnt/site/index.html"])["content"] == "hello\n")
            #expect(
                try agent.call("filesystem.write", ["path": "/mnt/site/x", "content": ""])["error"]?["error_type"]
                    == "PermissionDenied")
            // In force at once, also from a folder named relative to where one is.
            #expect(
                try kruxos.run("mount", "remove", "coder", "/mnt/site").output == "coder no longer sees \(source).\n")
            #expect(
                try agent.call("filesystem.read", ["path": "/mnt/site/index.html"])["error"]?["error_type"]
                    == "OutsideWorkspace")
            let again = try Kruxos.execute(
                "/bin/sh",
                [
                    "-c",
                    "cd '\(source)/..' && '\(Kruxos.path)' mount add coder --source ./site --target /mnt/web --home '\(kruxos.home)'",
                ])
            #expect(again.output == "coder reads and writes \(source) at /mnt/web.\n", "\(again)")
            _ = try agent.done("filesystem.write", ["path": "/mnt/web/new.html", "content": "new"])
            #expect(try String(contentsOfFile: source + "/new.html", encoding: .utf8) == "new")
            let list = try kruxos.run("mount", "list").output
            #expect(
                list == """
                    Agent         Target              Access     Source
                    coder         /mnt/web            read-write \(source)

                    """, "\(list)")
            let json = try JSONParser.parse(try kruxos.run("mount", "list", "--agent", "coder", "--json").output)
            #expect(
                json == [
                    [
                        "agent": "coder", "target": "/mnt/web", "source": .string(source), "read_only": false,
                    ]
                ])
            let shown = try Kruxos.execute(
                Kruxos.path,
                ["sandbox", "run", "--home", kruxos.home, "--agent", "coder", "--", "cat", "/mnt/web/index.html"])
            #expect(shown.output == "hello\n", "\(shown)")
            #expect(gateway.stop() == 0)
            // A folder that is gone is told, and the gateway starts without it.
            rename(source, source + ".gone")
            let gone = try kruxos.run("mount", "list")
            #expect(gone.output.contains("(not there)") && gone.errors.contains("No such file or directory"))
            let without = try RealGateway(kruxos)
            let second = AgentClient(gateway: without, token: token)
            let missing = try second.call("filesystem.list", ["path": "/mnt/web"])
            #expect(missing["error"]?["error_type"] == "NotFound", "\(missing)")
            #expect(without.stop() == 0)
            for (arguments, words) in [
                (["add", "nobody", "--source", source + ".gone", "--target", "/mnt/a"], "no agent"),
                (["add", "coder", "--source", source, "--target", "/mnt/a"], "No such file or directory"),
                (["add", "coder", "--source", source + ".gone", "--target", "/srv/a"], "`/mnt/LABEL`"),
                (["add", "coder", "--source", kruxos.home, "--target", "/mnt/a"], "the gate's own files"),
                (["remove", "coder", "/mnt/none"], "nothing is mounted"),
            ] {
                let refused = try Kruxos.execute(Kruxos.path, ["mount"] + arguments + ["--home", kruxos.home])
                #expect(refused.code != 0 && refused.errors.contains(words), "\(arguments): \(refused)")
            }
            let rows = try kruxos.run("audit", "query", "--format", "jsonl").output
            #expect(rows.contains("mount added") && rows.contains("mount removed"))
        }
    }

    /// What was planted in a mount is put back after a crash, and what cannot be looked at any more is told.
    @Test(arguments: [true, false]) func whatACrashLeftInAMountIsPutBack(_ isThere: Bool) async throws {
        try await with { kruxos, token, source in
            #expect(try kruxos.run("mount", "add", "coder", "--source", source, "--target", "/mnt/site").code == 0)
            let first = try RealGateway(kruxos)
            let agent = AgentClient(gateway: first, token: token)
            let line = "mkdir -p a/.claude && echo x > a/.claude/settings.json && touch done && sleep 300"
            _ = try agent.done(
                "process.run", ["command": .string(line), "shell": true, "background": true, "cwd": "/mnt/site"])
            while !FileManager.default.fileExists(atPath: source + "/done") {
                try await Task.sleep(for: .milliseconds(20))
            }
            first.kill()
            if !isThere { rename(source, source + ".gone") }
            let second = try RealGateway(kruxos)
            #expect(!FileManager.default.fileExists(atPath: source + "/a/.claude"))
            let running = AgentClient(gateway: second, token: token)
            #expect(try running.done("process.run", ["command": "true"])["exit_code"] == 0)
            #expect(second.stop() == 0)
            let rows = try kruxos.run("audit", "query", "--agent", "coder", "--format", "jsonl").output
            #expect(rows.contains(isThere ? "/mnt/site/a/.claude was made" : "/mnt/site is not there"), "\(rows)")
        }
    }

    /// The gateway as an ordinary user's, whose rights it takes and gives: what agents do with modes hides nothing, changes
    /// nothing of the owner's and leaves nothing behind.
    @Test(.enabled(if: geteuid() == 0)) func modesOfFilesAreNoWayOut() async throws {
        try await withTemporaryFolder { folder in
            let user = ["/usr/bin/setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups"]
            let kruxos = Kruxos(home: folder + "/home")
            let token = try kruxos.createAgent("tester")
            try write(policy, to: kruxos.home + "/policies/org.yaml")
            let (victim, elsewhere) = (folder + "/victim", "/dev/shm/kruxos-modes-\(UUID().uuidString)")
            for path in [victim, elsewhere + "/src/closed"] {
                try FileManager.default.createDirectory(atPath: path, withIntermediateDirectories: true)
            }
            defer { try? FileManager.default.removeItem(atPath: elsewhere) }
            try write("x", to: elsewhere + "/src/closed/f")
            #expect(mkfifo(elsewhere + "/src/pipe", 0o600) == 0)
            _ = try Kruxos.execute("/bin/chown", ["-R", "65534:65534", folder, elsewhere])
            chmod(folder, 0o755)
            chmod(victim, 0o700)
            func own(_ arguments: String...) throws -> Kruxos.Result {
                try Kruxos.execute(user[0], user.dropFirst() + [Kruxos.path] + arguments + ["--home", kruxos.home])
            }
            func mode(_ path: String) -> Int {
                var status = stat()
                return lstat(path, &status) == 0 ? Int(status.st_mode & 0o7777) : -1
            }
            #expect(try own("mount", "add", "tester", "--source", elsewhere, "--target", "/mnt/e").code == 0)
            let gateway = try RealGateway(kruxos, wrapper: user)
            defer { gateway.stop() }
            let agent = AgentClient(gateway: gateway, token: token)
            func run(_ line: String, background: Bool = false) throws -> JSONValue {
                try agent.done(
                    "process.run", ["command": .string(line), "shell": true, "background": .bool(background)])
            }
            let workspace = kruxos.home + "/workspaces/tester"
            // A folder that is a link out half of the time.
            let flip = """
                import ctypes, os
                libc = ctypes.CDLL(None)
                os.makedirs("zz/d"); os.symlink("\(victim)", "zz/l"); open("ready", "w").close()
                while True:
                    try:
                        if not os.path.islink("zz/d"): os.chmod("zz/d", 0o277)
                    except OSError: pass
                    libc.syscall(316, -100, b"zz/d", -100, b"zz/l", 2)
                """
            let flipping = try agent.done(
                "process.run", ["command": "python3", "args": ["-c", .string(flip)], "background": true])
            while access(workspace + "/ready", F_OK) != 0 { try await Task.sleep(for: .milliseconds(10)) }
            for _ in 0..<40 {
                _ = try run("true")
                #expect(mode(victim) == 0o700)
            }
            _ = try agent.done("process.kill", ["process_id": flipping["process_id"] ?? .null])
            // Behind names that are no text, in folders that may not be written, at several depths.
            let hidden = try run(
                """
                N=$(printf 'n\\377'); mkdir -p ok/$N/.github/workflows ok/$N/.claude a/b/c/.git/hooks
                echo x > ok/$N/.github/workflows/x.yml; echo x > a/b/c/.git/hooks/pre-commit
                chmod 500 ok; chmod 100 a/b/c/.git; chmod 000 a/b/c; chmod 400 a/b; chmod 555 a
                """)
            #expect(hidden["put_back"]?.array?.isEmpty == false, "\(hidden)")
            #expect(try run("true")["put_back"]?.array?.isEmpty ?? true)
            let found = try Kruxos.execute("/usr/bin/find", [workspace, "-name", "x.yml", "-o", "-name", "pre-commit"])
            #expect(found.output.isEmpty, "\(found)")
            #expect(mode(workspace + "/ok") == 0o500 && mode(workspace + "/a/b/c") == 0)
            // A move that fails leaves the modes, and nothing at the other end.
            chmod(elsewhere + "/src/closed/f", 0)
            chmod(elsewhere + "/src/closed", 0)
            let moved = try agent.call("filesystem.move", ["source": "/mnt/e/src", "destination": "moved"])
            #expect(moved["error"]?["error_type"] == "WrongType", "\(moved)")
            #expect(mode(elsewhere + "/src/closed") == 0 && mode(elsewhere + "/src/closed/f") == 0)
            let names = try FileManager.default.contentsOfDirectory(atPath: workspace)
            #expect(!names.contains { $0.hasSuffix(".tmp") || $0 == "moved" }, "\(names)")
            // What is closed in the trash goes, too.
            _ = try run("mkdir -p big/in; echo x > big/in/f; chmod 000 big/in")
            _ = try agent.done("filesystem.delete", ["path": "big", "recursive": true])
            let emptied = try own("trash", "empty", "--yes")
            #expect(!emptied.output.contains("could not"), "\(emptied)")
            let trash = kruxos.home + "/workspaces/.trash/tester"
            #expect(try FileManager.default.contentsOfDirectory(atPath: trash).isEmpty)
        }
    }
}
