import Foundation
import KruxCapabilities
import KruxCore
import KruxTestSupport
import Testing

/// `process.run` on the real kernel: what it gives, and what stays out of reach.
@Suite struct ProcessTests {
    private func shell(_ fixture: CapabilityFixture, _ script: String, timeout: Int64 = 30) async throws -> JSONObject {
        try await fixture.call(
            "process.run", ["command": "sh", "args": ["-c", .string(script)], "timeout_seconds": .int(timeout)])
    }

    @Test func aProgramRunsInTheWorkspace() async throws {
        try await CapabilityFixture.with { fixture in
            try write("data", to: fixture.folder + "/sub/in")
            let result = try await fixture.call(
                "process.run",
                [
                    "command": "sh", "args": ["-c", "pwd; cat in; echo out > out; echo err >&2; echo $X; exit 7"],
                    "cwd": "sub", "env": ["X": "y z"],
                ])
            #expect(result["stdout"] == "/workspace/tester/sub\ndatay z\n" && result["stderr"] == "err\n")
            #expect(result["exit_code"] == 7 && result["timed_out"] == false && result["truncated"] == false)
            #expect(try String(contentsOfFile: fixture.folder + "/sub/out", encoding: .utf8) == "out\n")
            try write("#!/bin/sh\necho script $1\n", to: fixture.folder + "/s.sh")
            #expect(chmod(fixture.folder + "/s.sh", 0o755) == 0)
            #expect(
                try await fixture.call("process.run", ["command": "./s.sh", "args": ["one"]])["stdout"]
                    == "script one\n")
            #expect(await fixture.kind("process.run", ["command": "no-such-program"]) == .notFound)
            #expect(await fixture.kind("process.run", ["command": "true", "cwd": "nothing"]) == .notFound)
            #expect(await fixture.kind("process.run", ["command": "a\0b"]) == .invalidArguments)
        }
    }

    @Test func aProcessThatTakesTooLongDiesWithItsChildren() async throws {
        try await CapabilityFixture.with { fixture in
            let started = ContinuousClock.now
            let result = try await shell(fixture, "trap '' TERM; (sleep 600; touch late) & sleep 600", timeout: 1)
            #expect(result["timed_out"] == true && result["exit_code"] == -1 && result["signal"] == 9, "\(result)")
            #expect(ContinuousClock.now - started < .seconds(300), "not the 600 s of its children")
            // What is left in the background ends with the call.
            let left = try await shell(fixture, "(sleep 600 & ) ; echo done")
            #expect(left["stdout"] == "done\n" && left["timed_out"] == false)
        }
    }

    @Test func aBackgroundProcessIsFollowedAndEnded() async throws {
        try await CapabilityFixture.with(protected: [".claude"]) { fixture in
            let started = try await fixture.call(
                "process.run",
                [
                    "command": "sh", "background": true,
                    "args": [
                        "-c",
                        "trap '' TERM; mkdir .claude; echo begun; while [ ! -e go ]; do sleep 0.02; done; echo on; sleep 600",
                    ],
                ])
            #expect(started["state"] == "running" && started["exit_code"]?.int == nil, "\(started)")
            let id = try #require(started["process_id"])
            func logs(_ more: JSONObject = [:]) async throws -> JSONObject {
                var arguments = more
                arguments["process_id"] = id
                return try await fixture.call("process.logs", arguments)
            }
            while try await logs()["content"] != "begun\n" {}
            let listed = try await fixture.call("process.list", [:])
            #expect(listed["processes"]?.array?.map { $0["state"]?.string } == ["running"], "\(listed)")
            try write("", to: fixture.folder + "/go")
            while try await logs()["content"] != "begun\non\n" {}
            let page = try await logs(["offset": 6, "limit": 2])
            #expect(page["content"] == "on" && page["next_offset"] == 8 && page["running"] == true)
            let usage = try await fixture.call("process.monitor", ["process_id": id])
            #expect((usage["memory_bytes"]?.int ?? 0) > 100_000 && usage["stdout_bytes"] == 9, "\(usage)")
            // It ignores SIGTERM, so it is killed a second later.
            let killed = try await fixture.call("process.kill", ["process_id": id, "kill_after_seconds": 1])
            #expect(killed["process"]?["state"] == "ended" && killed["process"]?["signal"] == 9, "\(killed)")
            #expect(await fixture.kind("process.kill", ["process_id": id]) == .conflict)
            await fixture.context.processes.stop()
            #expect(!FileManager.default.fileExists(atPath: fixture.folder + "/.claude"))
            let end = try await logs()
            #expect(end["running"] == false && end["next_offset"]?.int == nil && end["content"] == "begun\non\n")
            for wrong in ["pr_000000000000", "", "../../x", "pr_/../x"] {
                let kind = await fixture.kind("process.logs", ["process_id": .string(wrong)])
                #expect(kind == .notFound || kind == .invalidArguments, "\(wrong)")
            }
        }
    }

    /// Signals reach the program; what it makes of them is its own.
    @Test func aSignalReachesTheProgram() async throws {
        try await CapabilityFixture.with { fixture in
            let started = try await fixture.call(
                "process.run",
                [
                    "command": "sh", "background": true,
                    "args": ["-c", "trap 'echo caught; exit 3' INT; echo ready; while :; do sleep 0.02; done"],
                ])
            let id = try #require(started["process_id"])
            while try await fixture.call("process.logs", ["process_id": id])["content"] != "ready\n" {}
            let ended = try await fixture.call("process.kill", ["process_id": id, "signal": "INT"])
            #expect(ended["process"]?["exit_code"] == 3, "\(ended)")
            #expect(try await fixture.call("process.logs", ["process_id": id])["content"] == "ready\ncaught\n")
        }
    }

    /// The whole output is kept beside what is given back, and characters are not cut in two.
    @Test func cutOutputIsPagedThrough() async throws {
        try await CapabilityFixture.with { fixture in
            let result = try await fixture.call(
                "process.run",
                [
                    "command": "python3", "args": ["-c", "print('äöü€𝄞' * 40000, end='')"], "max_output_bytes": 10,
                ])
            #expect(result["truncated"] == true && result["stdout"]?.string?.utf8.count ?? 99 < 20, "\(result)")
            var text = ""
            var offset: Int64? = 0
            while let next = offset {
                let page = try await fixture.call(
                    "process.logs",
                    ["process_id": try #require(result["process_id"]), "offset": .int(next), "limit": 7001])
                text += page["content"]?.string ?? ""
                offset = page["next_offset"]?.int
            }
            #expect(text == String(repeating: "äöü€𝄞", count: 40000))
        }
    }

    @Test func outputIsCapped() async throws {
        try await CapabilityFixture.with { fixture in
            let result = try await fixture.call(
                "process.run",
                ["command": "sh", "args": ["-c", "head -c 3000000 /dev/zero | tr '\\0' a"], "max_output_bytes": 1000])
            #expect(result["stdout"]?.string?.utf8.count == 1000)
            #expect(result["stdout_bytes"] == 3_000_000 && result["truncated"] == true)
        }
    }

    /// Each prints `leak` if it works.
    @Test(arguments: [
        "cat /etc/shadow && echo leak", "ls / | grep -x home && echo leak", "ls /root /home 2>/dev/null && echo leak",
        "echo x > /usr/leak && echo leak", "echo x > /etc/leak && echo leak", "echo x > /leak && echo leak",
        "mkdir /workspace/other && echo leak", "ls /workspace | grep -v tester && echo leak",
        "mknod d c 1 3 && echo leak", "mount -t tmpfs t /tmp && echo leak", "chroot . true && echo leak",
        "kill -9 1 && echo leak",
        "cat /proc/1/environ && echo leak", "cat /proc/1/mem && echo leak",
        "ls -d /proc/[0-9]*/ | wc -l | grep -E '^[0-9]{3,}' && echo leak",
        "ls /proc/self/fd | grep -E '^([4-9]|[0-9]{2,})$' && echo leak",
        "grep -E 'Cap(Prm|Eff|Bnd):' /proc/self/status | grep -v 0000000000000000 && echo leak",
        "grep 'NoNewPrivs:.*0' /proc/self/status && echo leak", "env | grep -E 'KRUXOS_HOME|SECRET' && echo leak",
        "cat /proc/keys | grep _ses | grep -v -e '_ses: empty' | grep owner && echo leak",
        "test -S /run/dbus/system_bus_socket && echo leak", "ls /run /var 2>/dev/null && echo leak",
    ])
    func confinementHolds(_ script: String) async throws {
        try await CapabilityFixture.with { fixture in
            setenv("SECRET_OF_THE_OWNER", "x", 1)
            let result = try await shell(fixture, script)
            #expect(result["stdout"]?.string?.contains("leak") == false, "\(result)")
        }
    }

    @Test func theNetworkIsOutOfReach() async throws {
        try await CapabilityFixture.with { fixture in
            let listener = socket(AF_INET, Int32(SOCK_STREAM.rawValue), 0)
            defer { close(listener) }
            var address = sockaddr_in()
            address.sin_family = sa_family_t(AF_INET)
            address.sin_addr.s_addr = UInt32(0x7F00_0001).bigEndian
            var length = socklen_t(MemoryLayout<sockaddr_in>.size)
            let port = withUnsafeMutablePointer(to: &address) { pointer in
                pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) { raw -> UInt16 in
                    bind(listener, raw, length)
                    listen(listener, 1)
                    getsockname(listener, raw, &length)
                    return UInt16(bigEndian: pointer.pointee.sin_port)
                }
            }
            let result = try await fixture.call(
                "process.run",
                ["command": "bash", "args": ["-c", .string("exec 3<>/dev/tcp/127.0.0.1/\(port) && echo leak")]])
            #expect(result["stdout"] == "" && result["exit_code"] != 0)
        }
    }

    @Test func anApprovalIsBoundToTheFilesItNames() async throws {
        try await CapabilityFixture.with { fixture in
            try write("echo one", to: fixture.folder + "/s.sh")
            let run = try #require(Capabilities.implemented.first { $0.declaration.name.text == "process.run" })
            let arguments = run.declaration.input.validate([
                "command": "sh", "args": ["s.sh"], "cwd": "/workspace/tester",
            ]).0
            let before = try run.binding(arguments, fixture.context)
            #expect(before["files"]?.object?.keys == ["/workspace/tester/s.sh"])
            try write("echo two", to: fixture.folder + "/s.sh")
            #expect(try run.binding(arguments, fixture.context) != before)
        }
    }
}
