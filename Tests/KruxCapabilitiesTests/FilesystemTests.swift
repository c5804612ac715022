import Foundation
import KruxCapabilities
import KruxCore
import KruxCrypto
import KruxTestSupport
import Testing

@Suite struct FilesystemTests {
    @Test func filesAreWrittenReadCopiedMovedAndFound() async throws {
        try await CapabilityFixture.with { fixture in
            let written = try await fixture.call(
                "filesystem.write", ["path": "a/b/c.txt", "content": "héllo", "create_parents": true])
            #expect(written["created"] == true && written["bytes"] == 6)
            #expect(written["path"] == "/workspace/tester/a/b/c.txt")
            let read = try await fixture.call(
                "filesystem.read", ["path": "/workspace/tester/a/./b//c.txt", "checksum": true])
            #expect(read["content"] == "héllo" && read["sha256"] == .string(sha256(Array("héllo".utf8)).hex))
            // A page that would end inside a character ends before it.
            let page = try await fixture.call("filesystem.read", ["path": "a/b/c.txt", "limit": 2])
            #expect(page["content"] == "h" && page["next_offset"] == 1)
            let appended = try await fixture.call("filesystem.append", ["path": "a/b/c.txt", "content": "!"])
            #expect(appended["size"] == 7)
            _ = try await fixture.call("filesystem.copy", ["source": "a", "destination": "copy", "recursive": true])
            _ = try await fixture.call("filesystem.move", ["source": "a/b/c.txt", "destination": "moved.txt"])
            #expect(await fixture.kind("filesystem.read", ["path": "a/b/c.txt"]) == .notFound)
            let found = try await fixture.call("filesystem.search", ["pattern": "*.txt"])
            #expect(
                found["matches"]?.array?.compactMap { $0["path"]?.string } == [
                    "/workspace/tester/copy/b/c.txt", "/workspace/tester/moved.txt",
                ])
            let listed = try await fixture.call("filesystem.list", ["depth": 3, "limit": 2])
            #expect(listed["truncated"] == true)
            let rest = try await fixture.call(
                "filesystem.list", ["depth": 3, "after": listed["entries"]?.array?.last?["path"] ?? ""])
            #expect(rest["entries"]?.array?.count == 4 && rest["truncated"] == false)
            #expect(try await fixture.call("filesystem.mkdir", ["path": "x/y", "parents": true])["created"] == 2)
            #expect(await fixture.kind("filesystem.mkdir", ["path": "x"]) == .alreadyExists)
            #expect(
                await fixture.kind("filesystem.write", ["path": "moved.txt", "content": "", "overwrite": false])
                    == .alreadyExists)
            #expect(try await fixture.call("filesystem.stat", ["path": "nothing"])["exists"] == false)
        }
    }

    @Test func bytesPassAsBase64() async throws {
        try await CapabilityFixture.with { fixture in
            _ = try await fixture.call("filesystem.write", ["path": "b", "content": "AP8A", "encoding": "base64"])
            #expect(await fixture.kind("filesystem.read", ["path": "b"]) == .wrongType)
            #expect(
                try await fixture.call("filesystem.read", ["path": "b", "encoding": "base64"])["content"] == "AP8A")
            #expect(
                await fixture.kind("filesystem.write", ["path": "b", "content": "%%", "encoding": "base64"])
                    == .invalidArguments)
            _ = try await fixture.call("filesystem.write", ["path": "empty", "content": "", "encoding": "base64"])
            #expect(try await fixture.call("filesystem.read", ["path": "empty"])["content"] == "")
        }
    }

    @Test func whatIsDeletedComesBack() async throws {
        try await CapabilityFixture.with { fixture in
            _ = try await fixture.call("filesystem.write", ["path": "d/x", "content": "1", "create_parents": true])
            #expect(await fixture.kind("filesystem.delete", ["path": "d"]) == .conflict)
            let gone = try await fixture.call("filesystem.delete", ["path": "d", "recursive": true])
            #expect(await fixture.kind("filesystem.read", ["path": "d/x"]) == .notFound)
            let id = try #require(gone["trash_id"])
            _ = try await fixture.call("filesystem.mkdir", ["path": "d"])
            #expect(await fixture.kind("filesystem.restore", ["trash_id": id]) == .alreadyExists)
            _ = try await fixture.call("filesystem.restore", ["trash_id": id, "path": "e"])
            #expect(try await fixture.call("filesystem.read", ["path": "e/x"])["content"] == "1")
            for bad: JSONValue in ["tr_0000000000000000", "../..", "tr_../../../../..x", id] {
                #expect(await fixture.kind("filesystem.restore", ["trash_id": bad]) == .notFound)
            }
            #expect(await fixture.kind("filesystem.delete", ["path": ".", "recursive": true]) == .invalidArguments)
        }
    }

    /// Paths that must not leave the workspace, whatever is planted in it. U+0301 and U+0600 join a slash into one
    /// `Character`.
    @Test(arguments: [
        "..", "../x", "a/../../x", "/", "/etc/passwd", "/workspace", "/workspace/tester2/x",
        "/workspace/tester/../other/x",
        "out/secret", "out/../out/secret", "absolute/passwd", "deep/../../x", "proc/root/etc/passwd", "nothing/../../x",
        "\u{301}/../../x", "a\u{301}/../../../x", "\u{600}/../../x", "nothing/../../\u{301}x", "p\u{600}/secret",
        "/\u{301}etc/passwd", "/workspace/tester\u{301}/x", "/workspace/tester/\u{301}/../../../x",
    ])
    func noPathReachesOutside(_ path: String) async throws {
        try await CapabilityFixture.with { fixture in
            try write("secret", to: fixture.home + "/outside/secret")
            let manager = FileManager.default
            try manager.createDirectory(atPath: fixture.folder + "/a", withIntermediateDirectories: true)
            for (link, target) in [
                ("out", "../../outside"), ("absolute", "/etc"), ("deep", "a"), ("proc", "/proc/self"),
                ("p\u{600}", fixture.home + "/outside"),
            ] {
                try manager.createSymbolicLink(atPath: "\(fixture.folder)/\(link)", withDestinationPath: target)
            }
            let before = try manager.subpathsOfDirectory(atPath: fixture.home).filter {
                !$0.hasPrefix("workspaces/tester/")
            }.sorted()
            let calls: [(String, JSONObject)] = [
                ("filesystem.read", ["path": .string(path)]), ("filesystem.list", ["path": .string(path)]),
                ("filesystem.write", ["path": .string(path), "content": "x", "create_parents": true]),
                ("filesystem.append", ["path": .string(path), "content": "x"]),
                ("filesystem.mkdir", ["path": .string(path), "parents": true]),
                ("filesystem.mkdir", ["path": .string(path)]),
                ("filesystem.copy", ["source": .string(path), "destination": "stolen", "recursive": true]),
                ("filesystem.move", ["source": .string(path), "destination": "stolen"]),
                ("filesystem.move", ["source": "a", "destination": .string(path)]),
                ("process.run", ["command": "true", "cwd": .string(path)]),
            ]
            for (name, arguments) in calls {
                // An odd name may be a plain new one inside; what counts is that nothing outside is read or changed.
                let kind = await fixture.kind(name, arguments)
                let content = (try? await fixture.call(name, arguments))?["content"]
                #expect(content != "secret" && kind != .internalError, "\(name)")
            }
            let after = try manager.subpathsOfDirectory(atPath: fixture.home).filter {
                !$0.hasPrefix("workspaces/tester/")
            }.sorted()
            #expect(after == before, "something outside the workspace changed")
            #expect(try String(contentsOfFile: fixture.home + "/outside/secret", encoding: .utf8) == "secret")
            #expect(!manager.fileExists(atPath: fixture.folder + "/stolen"))
        }
    }

    @Test func linksInsideAreFollowedToTheirCanonicalPath() async throws {
        try await CapabilityFixture.with { fixture in
            try write("here", to: fixture.folder + "/real/f")
            try FileManager.default.createSymbolicLink(atPath: fixture.folder + "/link", withDestinationPath: "real")
            let read = try await fixture.call("filesystem.read", ["path": "link/../link/f"])
            #expect(read["path"] == "/workspace/tester/real/f" && read["content"] == "here")
            // Deleting a link deletes the link.
            _ = try await fixture.call("filesystem.delete", ["path": "link"])
            #expect(FileManager.default.fileExists(atPath: fixture.folder + "/real/f"))
        }
    }

    @Test func hardLinksPipesAndDevicesAreRefused() async throws {
        try await CapabilityFixture.with { fixture in
            try write("secret", to: fixture.home + "/outside")
            #expect(link(fixture.home + "/outside", fixture.folder + "/hard") == 0)
            #expect(mkfifo(fixture.folder + "/pipe", 0o600) == 0)
            for name in ["filesystem.read", "filesystem.write", "filesystem.append", "filesystem.copy"] {
                for file: JSONValue in ["hard", "pipe"] {
                    let arguments: JSONObject =
                        name == "filesystem.copy"
                        ? ["source": file, "destination": "c"]
                        : name == "filesystem.read" ? ["path": file] : ["path": file, "content": "x"]
                    let kind = await fixture.kind(name, arguments)
                    #expect(kind == .outsideWorkspace || kind == .wrongType, "\(name) \(file)")
                }
            }
            #expect(try String(contentsOfFile: fixture.home + "/outside", encoding: .utf8) == "secret")
        }
    }

    /// A folder is exchanged for a link to the outside while calls run: between the decision and the opening, too.
    @Test func aRaceForALinkIsLostByTheRacer() async throws {
        try await CapabilityFixture.with { fixture in
            try write("outside", to: fixture.home + "/outside/f")
            try write("inside", to: fixture.folder + "/d/f")
            try FileManager.default.createSymbolicLink(
                atPath: fixture.folder + "/l", withDestinationPath: "../../outside")
            let folder = fixture.folder
            let racer = Beside {
                rename("\(folder)/d", "\(folder)/t")
                rename("\(folder)/l", "\(folder)/d")
                rename("\(folder)/d", "\(folder)/l")
                rename("\(folder)/t", "\(folder)/d")
            }
            var read = 0
            for number in 0..<3000 {
                if let content = (try? await fixture.call("filesystem.read", ["path": "d/f"]))?["content"] {
                    #expect(content == "inside")
                    read += 1
                }
                _ = try? await fixture.call("filesystem.write", ["path": .string("d/g\(number % 5)"), "content": "x"])
            }
            let races = try racer.stop()
            #expect(read > 0 && races > 1000, "\(read) read, \(races) races")
            #expect(try FileManager.default.contentsOfDirectory(atPath: fixture.home + "/outside") == ["f"])
        }
    }

    @Test func aPassageIsReplacedOnceOrNotAtAll() async throws {
        try await CapabilityFixture.with { fixture in
            try write("one\ntwo\ntwo\n", to: fixture.folder + "/a")
            let edited = try await fixture.call(
                "filesystem.edit", ["path": "a", "expected": "one\n", "replacement": "eins\n"])
            #expect(edited["replaced"] == 1)
            #expect(edited["diff"] == "@@ -1,3 +1,3 @@\n-one\n+eins\n two\n two")
            #expect(
                await fixture.kind("filesystem.edit", ["path": "a", "expected": "two", "replacement": "x"]) == .conflict
            )
            #expect(
                await fixture.kind("filesystem.edit", ["path": "a", "expected": "none", "replacement": "x"])
                    == .conflict)
            #expect(try String(contentsOfFile: fixture.folder + "/a", encoding: .utf8) == "eins\ntwo\ntwo\n")
            let all = try await fixture.call(
                "filesystem.edit", ["path": "a", "expected": "two", "replacement": "twotwo", "all": true])
            #expect(all["replaced"] == 2)
            #expect(try String(contentsOfFile: fixture.folder + "/a", encoding: .utf8) == "eins\ntwotwo\ntwotwo\n")
            // A passage that overlaps itself is found from the start.
            try write("aaaa", to: fixture.folder + "/b")
            _ = try await fixture.call("filesystem.edit", ["path": "b", "expected": "aaa", "replacement": ""])
            #expect(try String(contentsOfFile: fixture.folder + "/b", encoding: .utf8) == "a")
            #expect(
                await fixture.kind("filesystem.edit", ["path": "c", "expected": "a", "replacement": ""]) == .notFound)
        }
    }

    @Test func linesAreFoundByTheirContent() async throws {
        try await CapabilityFixture.with { fixture in
            try write("first\nneedle here\n", to: fixture.folder + "/a.txt")
            try write("Needle.+\nno", to: fixture.folder + "/sub/b.txt")
            try write("needle\0binary", to: fixture.folder + "/sub/c.bin")
            func find(_ arguments: JSONObject) async throws -> [String] {
                try await fixture.call("filesystem.search_content", arguments)["matches"]?.array?.map {
                    "\($0["path"]?.string ?? "")#\($0["line"]?.int ?? 0)"
                } ?? []
            }
            let (a, b) = ("/workspace/tester/a.txt", "/workspace/tester/sub/b.txt")
            #expect(try await find(["query": "needle"]) == ["\(a)#2"])
            #expect(try await find(["query": "needle", "ignore_case": true]) == ["\(a)#2", "\(b)#1"])
            #expect(try await find(["query": ".+"]) == ["\(b)#1"])
            #expect(try await find(["query": "E.+", "ignore_case": true]) == ["\(b)#1"])
            #expect(try await find(["query": "^n", "regex": true]) == ["\(a)#2", "\(b)#2"])
            #expect(try await find(["query": "n", "path": "sub/b.txt"]) == ["\(b)#2"])
            let cut = try await fixture.call("filesystem.search_content", ["query": "n", "limit": 1])
            #expect(cut["truncated"] == true && cut["matches"]?.array?.count == 1)
            #expect(try await fixture.call("filesystem.search_content", ["query": "x"])["skipped"] == 1)
            #expect(
                await fixture.kind("filesystem.search_content", ["query": "(", "regex": true]) == .invalidArguments)
            #expect(await fixture.kind("filesystem.search_content", ["query": "a\nb"]) == .invalidArguments)
            // Neither counts in counts nor back-references take time or memory.
            for query in ["(((a{1,200}){1,200}){1,200})", "(a*)*\\1\\1b"] {
                #expect(
                    await fixture.kind("filesystem.search_content", ["query": .string(query), "regex": true])
                        == .invalidArguments)
            }
            #expect(try await find(["query": "(a*)*(b|e)+dle", "regex": true]) == ["\(a)#2", "\(b)#1"])
        }
    }

    @Test func aWatchSeesWhatChanges() async throws {
        try await CapabilityFixture.with { fixture in
            try write("x", to: fixture.folder + "/sub/deep/old")
            async let seen = fixture.call("filesystem.watch", ["path": ".", "timeout_seconds": 60])
            // Until the watch has begun nothing is seen, so it is done again and again.
            let worker = Beside {
                let name = UUID().uuidString
                try write(name, to: fixture.folder + "/sub/deep/old")
                try write("z", to: fixture.folder + "/sub/new-\(name)")
                usleep(20_000)
            }
            let changes = try await seen
            let kinds = Set(
                (changes["changes"]?.array ?? []).map {
                    "\($0["kind"]?.string ?? "") \($0["path"]?.string?.hasSuffix("old") ?? false)"
                })
            #expect(changes["timed_out"] == false && kinds.isSubset(of: ["changed true", "created false"]), "\(kinds)")
            #expect(!kinds.isEmpty)
            _ = try worker.stop()
            let quiet = try await fixture.call("filesystem.watch", ["path": "sub/deep/old2", "timeout_seconds": 1])
            #expect(quiet["timed_out"] == true && quiet["changes"] == [])
        }
    }
}
