import Foundation
import KruxCapabilities
import KruxCore
import KruxTestSupport
import Testing

/// What decides how tools outside the gate behave is not an agent's to change, by whatever way.
@Suite struct ProtectedTests {
    private static let names = [".git/hooks", ".git/config", ".claude", ".bashrc"]

    private func with(_ body: (CapabilityFixture) async throws -> Void) async throws {
        try await CapabilityFixture.with(protected: Self.names) { fixture in
            let folder = fixture.folder
            try write("#!/bin/sh\n", to: folder + "/.git/hooks/pre-commit")
            try write("[core]\n", to: folder + "/.git/config")
            try write("ref\n", to: folder + "/.git/HEAD")
            try write("{}", to: folder + "/deep/er/.claude/settings.json")
            try write("evil", to: folder + "/mine/hooks/pre-commit")
            try await body(fixture)
        }
    }

    @Test func filesystemCapabilitiesRefuseIt() async throws {
        try await with { fixture in
            let refused: [(String, JSONObject)] = [
                ("filesystem.write", ["path": ".git/hooks/post-commit", "content": "x"]),
                ("filesystem.write", ["path": "deep/er/.claude/settings.json", "content": "x"]),
                ("filesystem.write", ["path": "new/.bashrc", "content": "x", "create_parents": true]),
                ("filesystem.write", ["path": ".git/../.git/config", "content": "x"]),
                ("filesystem.append", ["path": ".git/config", "content": "x"]),
                ("filesystem.mkdir", ["path": ".claude"]),
                ("filesystem.mkdir", ["path": "a/.claude/b", "parents": true]),
                ("filesystem.delete", ["path": ".git/config"]),
                ("filesystem.delete", ["path": ".git", "recursive": true]),
                ("filesystem.move", ["source": ".git", "destination": ".old"]),
                ("filesystem.move", ["source": ".git/hooks", "destination": "h"]),
                ("filesystem.move", ["source": "mine", "destination": "deep/.git"]),
                ("filesystem.move", ["source": "mine/hooks", "destination": "deep/.git/hooks"]),
                ("filesystem.move", ["source": "mine/hooks/pre-commit", "destination": ".bashrc"]),
                ("filesystem.copy", ["source": "mine", "destination": ".git", "recursive": true]),
                ("filesystem.copy", ["source": "mine/hooks", "destination": ".claude", "recursive": true]),
                ("filesystem.copy", ["source": "mine/hooks/pre-commit", "destination": ".git/hooks/x"]),
            ]
            for (name, arguments) in refused {
                #expect(await fixture.kind(name, arguments) == .blocked, "\(name) \(arguments)")
            }
            // What is beside it is the agent's, and whole folders keep what they protect.
            _ = try await fixture.call("filesystem.write", ["path": ".git/HEAD", "content": "ref2"])
            _ = try await fixture.call("filesystem.read", ["path": ".git/config"])
            _ = try await fixture.call("filesystem.move", ["source": "deep", "destination": "deeper"])
            _ = try await fixture.call(
                "filesystem.copy", ["source": "deeper", "destination": "deep", "recursive": true])
            let gone = try await fixture.call("filesystem.delete", ["path": "mine", "recursive": true])
            let trash = try #require(gone["trash_id"])
            #expect(await fixture.kind("filesystem.restore", ["trash_id": trash, "path": "deep/.git"]) == .blocked)
            #expect(await fixture.kind("filesystem.restore", ["trash_id": trash, "path": ".claude"]) == .blocked)
            _ = try await fixture.call("filesystem.restore", ["trash_id": trash])
        }
    }

    /// Each line is what a program does; afterwards everything is as it was.
    @Test(arguments: [
        "echo evil > .git/hooks/pre-commit", "echo evil > .git/hooks/new", "echo evil >> .git/config",
        "mv .git .x && mkdir -p .git/hooks && echo evil > .git/hooks/pre-commit",
        "mv .git/hooks .git/h; mkdir .git/hooks; echo evil > .git/hooks/pre-commit", "rm -rf .git",
        "mkdir .claude && echo evil > .claude/settings.json", "echo evil > deep/.bashrc",
        "echo evil > deep/er/.claude/settings.json", "rm -r deep/er/.claude", "ln -s /tmp deep/.claude",
        "mv deep/er deep/re && mkdir deep/er && cp -r mine deep/er/.claude", "chmod 4777 deep/er/.claude/settings.json",
        "mv mine .git2 && mkdir -p sub/.git && mv .git2/hooks sub/.git/hooks",
    ])
    func whatAProcessChangesIsPutBack(_ script: String) async throws {
        try await with { fixture in
            func state() throws -> String {
                try Kruxos.execute(
                    "/bin/sh",
                    [
                        "-c",
                        #"cd "$0" && find . \( -path '*/.git/hooks' -o -path '*/.git/config' -o -name .claude -o -name .bashrc \) -print0 | sort -z | xargs -0 -I{} find {} -printf '%p %y %m %l\n' -type f -exec cat {} \;"#,
                        fixture.folder,
                    ]
                ).output
            }
            let before = try state()
            #expect(before.contains("pre-commit") && before.contains("settings.json"))
            let result = try await fixture.call("process.run", ["command": "sh", "args": ["-c", .string(script)]])
            let after = try state()
            #expect(after == before, "\(result)")
            #expect(result["put_back"]?.array != nil || result["exit_code"] != 0, "\(result)")
        }
    }

    @Test func whatIsNotProtectedIsLeftAlone() async throws {
        try await with { fixture in
            let result = try await fixture.call(
                "process.run",
                [
                    "command": "sh",
                    "args": ["-c", "echo x > .git/HEAD; mkdir -p a/b; echo y > a/b/c; cat .git/hooks/*"],
                ])
            #expect(
                result["put_back"]?.array == nil && result["exit_code"] == 0 && result["stdout"] == "#!/bin/sh\n",
                "\(result)")
            #expect(try String(contentsOfFile: fixture.folder + "/a/b/c", encoding: .utf8) == "y\n")
        }
    }

    /// One that starts while another runs does not take the other's changes for what was there.
    @Test func overlappingProcessesShareWhatWasThere() async throws {
        try await with { fixture in
            async let slow = fixture.call(
                "process.run",
                [
                    "command": "sh",
                    "args": [
                        "-c",
                        "mkdir .claude; echo evil > .claude/x; touch made; while [ ! -e go ]; do sleep 0.05; done",
                    ],
                ])
            while !FileManager.default.fileExists(atPath: fixture.folder + "/made") { usleep(10_000) }
            let quick = try await fixture.call("process.run", ["command": "touch", "args": ["go"]])
            let first = try await slow
            #expect(!FileManager.default.fileExists(atPath: fixture.folder + "/.claude"), "\(first) \(quick)")
        }
    }
}
