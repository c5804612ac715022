import Foundation
import KruxCapabilities
import KruxCore
import KruxTestSupport
import Testing

/// `git.*` on real repositories, and what the machine's git says of them.
@Suite struct GitTests {
    /// git as the machine's owner would run it on the agent's repository.
    private func git(_ fixture: CapabilityFixture, _ arguments: String...) throws -> String {
        let result = try Kruxos.execute(
            "/usr/bin/git",
            ["-C", fixture.folder, "-c", "safe.directory=*", "-c", "core.quotePath=false"] + arguments)
        try #require(result.code == 0, "\(arguments): \(result.errors)")
        return result.output.trimmingCharacters(in: .whitespacesAndNewlines)
    }

    @Test func aDayInARepository() async throws {
        try await CapabilityFixture.with(protected: [".git/hooks", ".git/config", ".github/workflows"]) { fixture in
            let made = try await fixture.call("git.init", [:])
            #expect(made["path"] == "/workspace/tester" && made["put_back"]?.array == nil)
            #expect(try git(fixture, "symbolic-ref", "HEAD") == "refs/heads/main")
            for name in ["a.txt", "ü mlaut.txt"] { try write("one\n", to: "\(fixture.folder)/\(name)") }
            let first = try await fixture.call("git.commit", ["message": "First", "files": ["a.txt", "ü mlaut.txt"]])
            #expect(try git(fixture, "rev-parse", "HEAD") == first["commit"]?.string)
            #expect(first["files"] == ["a.txt", "ü mlaut.txt"])
            #expect(try git(fixture, "log", "-1", "--format=%an <%ae> %s") == "tester <tester@kruxos.invalid> First")
            try write("two\n", to: fixture.folder + "/a.txt")
            try write("new", to: fixture.folder + "/b.txt")
            let status = try await fixture.call("git.status", [:])
            #expect(status["branch"] == "main" && status["commit"] == first["commit"])
            #expect(
                status["changes"] == [
                    ["path": "a.txt", "staged": ".", "unstaged": "M"],
                    ["path": "b.txt", "staged": "?", "unstaged": "?"],
                ])
            let diff = try await fixture.call("git.diff", [:])
            #expect(try diff["text"]?.string?.trimmingCharacters(in: .newlines) == git(fixture, "diff"))
            _ = try await fixture.call("git.branch", ["action": "create", "name": "work"])
            _ = try await fixture.call("git.checkout", ["revision": "work"])
            _ = try await fixture.call("git.commit", ["message": "Second\n\nwith a body", "all": true])
            let log = try await fixture.call("git.log", [:])
            #expect(log["commits"]?.array?.map { $0["message"]?.string } == ["Second\n\nwith a body", "First"])
            #expect(log["commits"]?.array?.first?["parents"]?.array?.first == first["commit"])
            let branches = try await fixture.call("git.branch", [:])
            #expect(branches["branches"]?.array?.map { $0["name"]?.string } == ["main", "work"])
            #expect(branches["branches"]?.array?.map { $0["current"]?.bool } == [false, true])
            _ = try await fixture.call("git.checkout", ["revision": "main"])
            #expect(await fixture.kind("git.branch", ["action": "delete", "name": "work"]) == .conflict)
            _ = try await fixture.call("git.branch", ["action": "delete", "name": "work", "force": true])
            #expect(try git(fixture, "branch", "--format=%(refname:short)") == "main")
            #expect(try git(fixture, "fsck", "--strict").isEmpty)
        }
    }

    @Test func wrongCallsSayWhatIsWrong() async throws {
        try await CapabilityFixture.with { fixture in
            #expect(await fixture.kind("git.status", [:]) == .notFound)
            _ = try await fixture.call("git.init", [:])
            #expect(await fixture.kind("git.commit", ["message": "nothing"]) == .conflict)
            #expect(await fixture.kind("git.checkout", ["revision": "nothing"]) == .conflict)
            for option in ["--upload-pack=x", "-x", "a b", "a\nb"] {
                #expect(await fixture.kind("git.checkout", ["revision": .string(option)]) == .invalidArguments)
                #expect(await fixture.kind("git.diff", ["revision": .string(option)]) == .invalidArguments)
            }
            #expect(await fixture.kind("git.branch", ["action": "create"]) == .invalidArguments)
            #expect(await fixture.kind("git.commit", ["message": "x", "files": ["../../../etc/passwd"]]) == .conflict)
            // A folder above the workspace is no repository of it.
            #expect(await fixture.kind("git.status", ["path": ".."]) == .outsideWorkspace)
        }
    }

    /// What a repository's own settings would start changes nothing, whatever they name.
    @Test(arguments: [
        "core.fsmonitor=touch /workspace/tester/leak; echo", "core.hooksPath=/workspace/tester/hooks",
        "diff.external=/workspace/tester/leak.sh", "core.pager=/workspace/tester/leak.sh",
        "core.editor=/workspace/tester/leak.sh", "core.sshCommand=/workspace/tester/leak.sh",
        "gpg.program=/workspace/tester/leak.sh", "commit.gpgSign=true",
        "filter.x.clean=/workspace/tester/leak.sh", "diff.x.textconv=/workspace/tester/leak.sh",
        "diff.x.command=/workspace/tester/leak.sh", "alias.status=!touch leak",
        "core.attributesFile=/workspace/tester/attributes", "include.path=/workspace/tester/included",
    ])
    func aRepositorysSettingsStartNothing(_ setting: String) async throws {
        try await CapabilityFixture.with { fixture in
            _ = try await fixture.call("git.init", [:])
            try write("one\n", to: fixture.folder + "/a")
            _ = try await fixture.call("git.commit", ["message": "m", "files": ["a"]])
            let script = "#!/bin/sh\ntouch /workspace/tester/leak\ncat\n"
            for name in ["leak.sh", "hooks/pre-commit", "hooks/post-checkout", "hooks/reference-transaction"] {
                try write(script, to: "\(fixture.folder)/\(name)")
                #expect(chmod("\(fixture.folder)/\(name)", 0o755) == 0)
            }
            try write("* filter=x diff=x\n", to: fixture.folder + "/.gitattributes")
            try write("* filter=x diff=x\n", to: fixture.folder + "/attributes")
            try write("[core]\n\tfsmonitor = /workspace/tester/leak.sh\n", to: fixture.folder + "/included")
            let parts = setting.split(separator: "=", maxSplits: 1).map(String.init)
            _ = try git(fixture, "config", parts[0], parts[1])
            try write("two\n", to: fixture.folder + "/a")
            for (name, arguments) in [
                ("git.status", [:]), ("git.diff", [:]), ("git.log", [:]), ("git.branch", [:]),
            ] as [(String, JSONObject)] {
                _ = try? await fixture.call(name, arguments)
                #expect(!FileManager.default.fileExists(atPath: fixture.folder + "/leak"), "\(name)")
            }
            // What changes the repository may run its filters, which an agent could run anyhow; no hook, no settings else.
            if !setting.hasPrefix("filter"), !setting.hasPrefix("core.attributes") {
                for (name, arguments) in [
                    ("git.commit", ["message": "n", "all": true]), ("git.checkout", ["revision": "b", "create": true]),
                ] as [(String, JSONObject)] {
                    _ = try? await fixture.call(name, arguments)
                    #expect(!FileManager.default.fileExists(atPath: fixture.folder + "/leak"), "\(name)")
                }
            }
        }
    }
}
