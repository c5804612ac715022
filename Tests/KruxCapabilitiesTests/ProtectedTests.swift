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
                ("filesystem.write", ["path": "sub/.git", "content": "gitdir: ../x", "create_parents": true]),
                ("filesystem.append", ["path": "new/.git", "content": "gitdir: ../x"]),
                ("filesystem.move", ["source": "mine/hooks/pre-commit", "destination": "mine/.git"]),
                ("filesystem.copy", ["source": "mine/hooks/pre-commit", "destination": "mine/.git"]),
                ("git.init", ["path": ".claude"]), ("git.init", ["path": "a/.git/hooks/x"]),
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
        "mkdir x; mv .git/HEAD x; mv .git y; ln -s x .git",
        "mkdir -p x/hooks; echo evil > x/hooks/pre-commit; mkdir sub; ln -s ../x sub/.git",
        "mkdir sub; echo 'gitdir: ../x' > sub/.git", "rm -rf deep; ln -s nowhere deep", "rm -rf deep; echo x > deep",
        "d=$(printf 'p\\377'); mkdir -p $d/.claude; echo evil > $d/.claude/x",
        "mkdir .claude; echo evil > .claude/x; mkdir q; chmod 000 q",
        "mkdir -p q/.claude; echo evil > q/.claude/x; chmod 000 q",
        "mkdir .claude; echo evil > .claude/x; exec python3 -c 'import os\nfor _ in range(1100): os.mkdir(\"d\"); os.chdir(\"d\")'",
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
            // And the next one can run, and finds nothing to put back.
            let next = try await fixture.call("process.run", ["command": "true"])
            #expect(next["put_back"]?.array == nil && next["exit_code"] == 0, "\(next)")
            #expect(try state() == before)
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
            while !FileManager.default.fileExists(atPath: fixture.folder + "/made") {
                try await Task.sleep(for: .milliseconds(10))
            }
            let quick = try await fixture.call("process.run", ["command": "touch", "args": ["go"]])
            let first = try await slow
            #expect(!FileManager.default.fileExists(atPath: fixture.folder + "/.claude"), "\(first) \(quick)")
        }
    }

    /// What else runs while git makes a repository plants nothing under its name.
    @Test func onlyGitsOwnSettingsComeWithARepository() async throws {
        try await with { fixture in
            async let slow = fixture.call(
                "process.run",
                [
                    "command": "sh",
                    "args": [
                        "-c",
                        "mkdir -p new/.claude new/.git/hooks; echo evil | tee new/.claude/x new/.git/hooks/pre-commit; touch made; while [ ! -e go ]; do sleep 0.02; done",
                    ],
                ])
            while !FileManager.default.fileExists(atPath: fixture.folder + "/made") {
                try await Task.sleep(for: .milliseconds(10))
            }
            _ = try await fixture.call("git.init", ["path": "new"])
            try write("", to: fixture.folder + "/go")
            _ = try await slow
            let left = try Kruxos.execute(
                "/usr/bin/find", [fixture.folder + "/new", "-name", "pre-commit", "-o", "-name", ".claude"])
            #expect(left.output.isEmpty, "\(left.output)")
        }
    }

    /// A person's own change of the list, while something runs, takes nothing of theirs away.
    @Test func aListThatChangesMeanwhileCountsAfterwards() async throws {
        try await with { fixture in
            try write("precious", to: fixture.folder + "/keep/data")
            _ = try fixture.context.protectedFiles.begin(ProtectedNames(Self.names))
            _ = try fixture.context.protectedFiles.begin(ProtectedNames(Self.names + ["keep"]))
            #expect(fixture.context.protectedFiles.end(at: fixture.context.clock.now()) == [])
            #expect(fixture.context.protectedFiles.end(at: fixture.context.clock.now()) == [])
            _ = try fixture.context.protectedFiles.begin(ProtectedNames(Self.names + ["keep"]))
            try write("changed", to: fixture.folder + "/keep/data")
            #expect(fixture.context.protectedFiles.end(at: fixture.context.clock.now()).count == 1)
            #expect(try String(contentsOfFile: fixture.folder + "/keep/data", encoding: .utf8) == "precious")
        }
    }

    /// Folders that come and go while they are looked at, as a build's do, are neither set aside nor in anybody's way.
    @Test func whatComesAndGoesIsLeftAlone() async throws {
        try await with { fixture in
            let folder = fixture.folder
            try write("kept", to: folder + "/busy/kept")
            let worker = Beside {
                for number in 0..<40 { try write("x", to: "\(folder)/busy/gone/\(number)/deep/er/file") }
                try FileManager.default.removeItem(atPath: folder + "/busy/gone")
            }
            for _ in 0..<60 {
                let result = try await fixture.call("process.run", ["command": "true"])
                #expect(result["put_back"]?.array == nil && result["exit_code"] == 0, "\(result)")
            }
            #expect(try worker.stop() > 0)
            #expect(try String(contentsOfFile: folder + "/busy/kept", encoding: .utf8) == "kept")
        }
    }
}
