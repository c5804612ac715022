import Foundation
import Glibc
import KruxCapabilities
import KruxCore
import KruxEngine
import KruxSandbox
import KruxTestSupport
import Logging
import Testing

/// Folders of the machine beside an agent's workspace: on the workspace's own file system, and on another.
@Suite struct MountTests {
    static let places = [NSTemporaryDirectory(), "/dev/shm/"]
    private let owner = Principal.supervisor("owner")

    /// An engine with the agent `one`, and a folder of files beside its home.
    private func with(_ place: String = places[0], _ body: (Engine, Home, String) async throws -> Void) async throws {
        try await withTemporaryFolder { folder in
            let source = place + "kruxos-mount-\(UUID().uuidString)"
            try write("first\n", to: source + "/read.me")
            defer { try? FileManager.default.removeItem(atPath: source) }
            // The agents' user of a root gateway is none of the folder's.
            chmod(source, 0o777)
            let home = Home(root: folder + "/home")
            try write(
                """
                name: org
                protected: [".github/workflows", ".git/hooks", ".git/config"]
                capabilities: { "*": { tier: autonomous } }
                """, to: "\(home.policies)/org.yaml")
            let engine = try Engine(home: home, log: Logger(label: "test"))
            for name in ["one", "two"] {
                _ = try await engine.operate(
                    .agentCreate, ["name": .string(name), "purpose": "tests"], by: owner)
            }
            try await body(engine, home, (source as NSString).resolvingSymlinksInPath)
            try engine.close()
        }
    }

    @discardableResult
    private func mount(
        _ engine: Engine, _ source: String, _ target: String = "/mnt/src", readOnly: Bool = false
    ) async throws -> JSONObject {
        try await engine.operate(
            .mountAdd,
            [
                "agent": "one", "source": .string(source), "target": .string(target), "read_only": .bool(readOnly),
            ], by: owner)
    }

    private func ask(_ engine: Engine, _ capability: String, _ arguments: JSONObject, agent: String = "one")
        async throws -> CallReply
    {
        await engine.call(
            CallRequest(capability: capability, arguments: arguments),
            by: try engine.caller(agentNamed: agent, via: "test"))
    }

    private func call(_ engine: Engine, _ capability: String, _ arguments: JSONObject) async throws -> JSONObject {
        switch try await ask(engine, capability, arguments) {
        case .succeeded(let data, _, _): return data
        case .failed(let error): throw error
        }
    }

    private func kind(_ engine: Engine, _ capability: String, _ arguments: JSONObject, agent: String = "one")
        async throws -> StructuredError.Kind?
    {
        if case .failed(let error) = try await ask(engine, capability, arguments, agent: agent) { return error.kind }
        return nil
    }

    /// Gives a folder to the agents' user, where the gateway is root.
    private func giveAway(_ folder: String) throws {
        guard geteuid() == 0 else { return }
        for name in [""] + (try FileManager.default.subpathsOfDirectory(atPath: folder)) {
            lchown(folder + "/" + name, Confinement.agentUser, Confinement.agentUser)
        }
    }

    private func text(_ path: String) -> String? { try? String(contentsOfFile: path, encoding: .utf8) }

    /// Everything below a folder: its path, kind, mode, time, link's target or content.
    private func tree(_ folder: String) throws -> [String] {
        try FileManager.default.subpathsOfDirectory(atPath: folder).sorted().map { name in
            var status = stat()
            lstat(folder + "/" + name, &status)
            let link = try? FileManager.default.destinationOfSymbolicLink(atPath: folder + "/" + name)
            let content = status.st_mode & S_IFMT == S_IFREG ? text(folder + "/" + name) ?? "-" : ""
            return "\(name) \(String(status.st_mode, radix: 8)) \(status.st_mtim.tv_sec) \(link ?? content)"
        }
    }

    @Test(arguments: places) func itsFilesAreReadAndWritten(_ place: String) async throws {
        try await with(place) { engine, home, source in
            let added = try await mount(engine, source)
            #expect(added["source"]?.string == source)
            let seen = try await call(engine, "agent.whoami", [:])
            #expect(seen["mounts"]?.array?.map { $0["path"]?.string } == ["/mnt/src"])
            #expect(try await call(engine, "filesystem.read", ["path": "/mnt/src/read.me"])["content"] == "first\n")
            _ = try await call(
                engine, "filesystem.write",
                ["path": "/mnt/src/a/b.txt", "content": "one two", "create_parents": true])
            _ = try await call(engine, "filesystem.append", ["path": "/mnt/src/a/b.txt", "content": " three"])
            _ = try await call(
                engine, "filesystem.edit", ["path": "/mnt/src/a/./../a/b.txt", "expected": "two", "replacement": "2"])
            #expect(text(source + "/a/b.txt") == "one 2 three")
            let listed = try await call(engine, "filesystem.list", ["path": "/mnt/src"])
            #expect(listed["entries"]?.array?.compactMap { $0["path"]?.string } == ["/mnt/src/a", "/mnt/src/read.me"])
            let found = try await call(engine, "filesystem.search_content", ["path": "/mnt/src", "query": "three"])
            #expect("\(found)".contains("/mnt/src/a/b.txt"))
            // Copied both ways.
            _ = try await call(
                engine, "filesystem.copy", ["source": "/mnt/src/a", "destination": "copy", "recursive": true])
            _ = try await call(
                engine, "filesystem.copy", ["source": "copy/b.txt", "destination": "/mnt/src/back.txt"])
            #expect(text("\(home.root)/workspaces/one/copy/b.txt") == "one 2 three")
            #expect(text(source + "/back.txt") == "one 2 three")
            // The record names the place that policy decided on.
            let decided = try await kind(engine, "filesystem.read", ["path": "/mnt/src/../src/read.me"])
            #expect(decided == .outsideWorkspace)
        }
    }

    @Test(arguments: places) func whatIsMovedOrDeletedKeepsAllThatItIs(_ place: String) async throws {
        try await with(place) { engine, home, source in
            try await mount(engine, source)
            let workspace = "\(home.root)/workspaces/one"
            for name in ["x", "y"] { try write(name, to: "\(source)/tree/deep/\(name)") }
            chmod(source + "/tree/deep/x", 0o751)
            chmod(source + "/tree/deep", 0o500)
            symlink("deep/x", source + "/tree/link")
            symlink("/etc/passwd", source + "/tree/outward")
            // A name that is no text.
            let nameless: [CChar] = Array((source + "/tree/").utf8CString.dropLast()) + [-1, -2, 0]
            close(open(nameless, O_CREAT | O_WRONLY, 0o644))
            for path in ["tree/deep/x", "tree/deep/y", "tree/link", "tree"] {
                let times = [timespec(tv_sec: 1_000_000, tv_nsec: 5), timespec(tv_sec: 1_100_000, tv_nsec: 7)]
                utimensat(AT_FDCWD, "\(source)/\(path)", times, AT_SYMLINK_NOFOLLOW)
            }
            let before = try tree(source + "/tree")
            _ = try await call(engine, "filesystem.move", ["source": "/mnt/src/tree", "destination": "here"])
            #expect(try tree(workspace + "/here") == before)
            #expect(access(source + "/tree", F_OK) != 0)
            _ = try await call(engine, "filesystem.move", ["source": "here", "destination": "/mnt/src/there"])
            #expect(try tree(source + "/there") == before)
            #expect(access(workspace + "/here", F_OK) != 0)
            let deleted = try await call(engine, "filesystem.delete", ["path": "/mnt/src/there", "recursive": true])
            #expect(access(source + "/there", F_OK) != 0)
            let id = try #require(deleted["trash_id"])
            _ = try await call(engine, "filesystem.restore", ["trash_id": id])
            #expect(try tree(source + "/there") == before)
            // Something that is there is not written over.
            try write("kept", to: workspace + "/kept")
            let refused = try await kind(
                engine, "filesystem.move", ["source": "kept", "destination": "/mnt/src/read.me"])
            #expect(refused == .alreadyExists)
            #expect(text(source + "/read.me") == "first\n" && text(workspace + "/kept") == "kept")
            _ = try await call(
                engine, "filesystem.move", ["source": "kept", "destination": "/mnt/src/read.me", "overwrite": true])
            #expect(text(source + "/read.me") == "kept")
            // No trace of the way.
            #expect(try FileManager.default.contentsOfDirectory(atPath: source).sorted() == ["read.me", "there"])
        }
    }

    /// A pipe cannot be taken to another file system: then all of it stays.
    @Test func whatCannotBeCopiedStaysWhole() async throws {
        try await with(Self.places[1]) { engine, home, source in
            try await mount(engine, source)
            try write("x", to: source + "/tree/a")
            mkfifo(source + "/tree/z", 0o600)
            let deleted = try await kind(engine, "filesystem.delete", ["path": "/mnt/src/tree", "recursive": true])
            #expect(deleted == .wrongType)
            let moved = try await kind(engine, "filesystem.move", ["source": "/mnt/src/tree", "destination": "t"])
            #expect(moved == .wrongType)
            #expect(try FileManager.default.contentsOfDirectory(atPath: source + "/tree").sorted() == ["a", "z"])
            #expect(Engine.trash(of: home, agent: nil).isEmpty)
            #expect(try FileManager.default.contentsOfDirectory(atPath: "\(home.root)/workspaces/one").isEmpty)
        }
    }

    /// Files come about while a folder is taken to another file system: each is at one end or the other.
    @Test func whatComesMeanwhileIsNotLost() async throws {
        try await with(Self.places[1]) { engine, home, source in
            try await mount(engine, source)
            for number in 0..<2000 { try write("\(number)", to: "\(source)/tree/\(number % 20)/old-\(number)") }
            nonisolated(unsafe) var made: [String] = []
            let writer = Beside {
                guard made.count < 5000 else { return }
                let name = "\(made.count % 20)/new-\(made.count)"
                let file = open("\(source)/tree/\(name)", O_CREAT | O_WRONLY, 0o644)
                if file >= 0 {
                    close(file)
                    made.append(name)
                }
            }
            let reply = try await ask(engine, "filesystem.delete", ["path": "/mnt/src/tree", "recursive": true])
            let times = try writer.stop()
            let id = try #require(
                {
                    switch reply {
                    case .succeeded(let data, _, _): data["trash_id"]?.string
                    case .failed(let error): error.context["trash_id"]?.string
                    }
                }(), "\(reply)")
            let trash = "\(home.root)/workspaces/.trash/one/\(id)/entry/"
            let lost = (made + (0..<2000).map { "\($0 % 20)/old-\($0)" }).filter { name in
                access(trash + name, F_OK) != 0 && access("\(source)/tree/\(name)", F_OK) != 0
            }
            #expect(lost.isEmpty && times > 0)
        }
    }

    @Test(arguments: places) func aReadOnlyMountIsNotChanged(_ place: String) async throws {
        try await with(place) { engine, home, source in
            try write("inside", to: source + "/folder/file")
            _ = try Kruxos.execute("/usr/bin/git", ["init", "-q", source + "/repo"])
            let before = try tree(source)
            try giveAway(source)
            try await mount(engine, source, readOnly: true)
            try write("mine", to: "\(home.root)/workspaces/one/mine")
            let attempts: [(String, JSONObject)] = [
                ("filesystem.write", ["path": "/mnt/src/new", "content": "x"]),
                ("filesystem.write", ["path": "/mnt/src/read.me", "content": "x", "overwrite": true]),
                ("filesystem.append", ["path": "/mnt/src/read.me", "content": "x"]),
                ("filesystem.append", ["path": "/mnt/src/new", "content": "x"]),
                ("filesystem.edit", ["path": "/mnt/src/read.me", "expected": "first", "replacement": "x"]),
                ("filesystem.mkdir", ["path": "/mnt/src/new"]),
                ("filesystem.mkdir", ["path": "/mnt/src/new/er", "parents": true]),
                ("filesystem.delete", ["path": "/mnt/src/read.me"]),
                ("filesystem.move", ["source": "/mnt/src/read.me", "destination": "x"]),
                ("filesystem.move", ["source": "mine", "destination": "/mnt/src/x"]),
                ("filesystem.copy", ["source": "mine", "destination": "/mnt/src/x"]),
                ("filesystem.copy", ["source": "mine", "destination": "/mnt/src/read.me", "overwrite": true]),
                ("git.init", ["path": "/mnt/src/new-repo"]),
            ]
            for (capability, arguments) in attempts {
                #expect(try await kind(engine, capability, arguments) == .blocked, "\(capability) \(arguments)")
            }
            let deleted = try await call(engine, "filesystem.delete", ["path": "mine"])
            let restored = try await kind(
                engine, "filesystem.restore", ["trash_id": try #require(deleted["trash_id"]), "path": "/mnt/src/x"])
            #expect(restored == .blocked)
            for script in [
                "echo x > /mnt/src/new", "echo x >> /mnt/src/read.me", "rm /mnt/src/read.me", "mkdir /mnt/src/d",
                "chmod 777 /mnt/src/read.me", "touch /mnt/src/read.me", "mv /mnt/src/folder /mnt/src/g",
                "ln /mnt/src/read.me /mnt/src/hard", "mount -o remount,rw /mnt/src && echo x > /mnt/src/new",
            ] {
                let ended = try await call(
                    engine, "process.run", ["command": "sh", "args": ["-c", .string(script)], "cwd": "/mnt/src"])
                #expect(ended["exit_code"] != 0, "\(script): \(ended)")
            }
            let committed = try await kind(
                engine, "git.commit", ["path": "/mnt/src/repo", "message": "x", "all": true])
            #expect(committed != nil)
            _ = try await call(engine, "git.status", ["path": "/mnt/src/repo"])
            #expect(try tree(source) == before)
            // What it may be is the source of a copy.
            _ = try await call(engine, "filesystem.copy", ["source": "/mnt/src/read.me", "destination": "copy"])
        }
    }

    @Test(arguments: places) func processesAndGitWorkInIt(_ place: String) async throws {
        try await with(place) { engine, _, source in
            try giveAway(source)
            try await mount(engine, source)
            let ran = try await call(
                engine, "process.run",
                ["command": "sh", "args": ["-c", "pwd; cat read.me; echo made > made"], "cwd": "/mnt/src"])
            #expect(ran["stdout"] == "/mnt/src\nfirst\n", "\(ran)")
            #expect(text(source + "/made") == "made\n")
            // Not what lies beside it on the machine.
            let beside = try await call(
                engine, "process.run",
                ["command": "sh", "args": ["-c", .string("ls /mnt; ls /mnt/src/..; ls \(source)")], "cwd": "/mnt/src"])
            #expect(beside["stdout"] == "src\nsrc\n", "\(beside)")
            let other = await engine.call(
                CallRequest(capability: "process.run", arguments: ["command": "ls", "args": ["/mnt"]]),
                by: try engine.caller(agentNamed: "two", via: "test"))
            guard case .succeeded(let data, _, _) = other else { throw TestFailure("\(other)") }
            #expect(data["exit_code"] != 0)
            #expect(
                try await kind(engine, "filesystem.read", ["path": "/mnt/src/read.me"], agent: "two")
                    == .outsideWorkspace)
            _ = try await call(engine, "git.init", ["path": "/mnt/src/repo"])
            _ = try await call(engine, "filesystem.write", ["path": "/mnt/src/repo/f", "content": "x"])
            _ = try await call(engine, "git.commit", ["path": "/mnt/src/repo", "message": "one", "files": ["f"]])
            let log = try Kruxos.execute(
                "/usr/bin/git", ["-c", "safe.directory=*", "-C", source + "/repo", "log", "--format=%s"])
            #expect(log.output == "one\n")
        }
    }

    /// A link in a mount, or a folder swapped for one, leads nowhere else.
    @Test func nothingLeadsOut() async throws {
        try await with { engine, home, source in
            try await mount(engine, source)
            try write("secret", to: home.root + "/../secret")
            symlink(home.root + "/../secret", source + "/absolute")
            symlink("../" + (home.root as NSString).lastPathComponent, source + "/relative")
            symlink("/workspace/one", source + "/workspace")
            symlink("/etc", source + "/etc")
            for path in ["absolute", "relative", "workspace/x", "etc/passwd", "../x", "a/../../x"] {
                let (read, written) = (
                    try await kind(engine, "filesystem.read", ["path": .string("/mnt/src/" + path)]),
                    try await kind(
                        engine, "filesystem.write",
                        ["path": .string("/mnt/src/" + path), "content": "x", "overwrite": true])
                )
                #expect(read != nil && read != .ioFailure, "\(path)")
                #expect(written != nil, "\(path)")
            }
            for path in ["/mnt", "/mnt/", "/mnt/other/x", "/mnt/./x", "/mnt/../etc/passwd", "/mnt//srcx"] {
                #expect(
                    try await kind(engine, "filesystem.stat", ["path": .string(path)]) == .outsideWorkspace, "\(path)")
            }
            // A tight race between a folder and a link out.
            mkdir(source + "/real", 0o755)
            try write("inside", to: source + "/real/passwd")
            symlink("/etc", source + "/link")
            let swapper = Beside {
                rename(source + "/real", source + "/swap")
                rename(source + "/link", source + "/real")
                rename(source + "/real", source + "/link")
                rename(source + "/swap", source + "/real")
            }
            for _ in 0..<500 {
                if case .succeeded(let data, _, _) = try await ask(
                    engine, "filesystem.read", ["path": "/mnt/src/real/passwd"])
                {
                    #expect(data["content"] == "inside")
                }
            }
            #expect(try swapper.stop() > 0)
        }
    }

    @Test func onlyFoldersOfFilesAreMounted() async throws {
        try await with { engine, home, source in
            try write("x", to: source + "/proj/.git/hooks/x")
            try write("x", to: source + "/file")
            symlink(source, source + "-link")
            defer { unlink(source + "-link") }
            let refused: [(String, String, StructuredError.Kind)] = [
                ("/", "/mnt/a", .invalidArguments), ("/proc", "/mnt/a", .invalidArguments),
                ("/proc/self", "/mnt/a", .notFound), ("/sys/kernel", "/mnt/a", .invalidArguments),
                ("/dev", "/mnt/a", .invalidArguments), ("/dev/shm", "/mnt/a", .invalidArguments),
                ("/run", "/mnt/a", .invalidArguments), (home.root, "/mnt/a", .invalidArguments),
                (home.root + "/workspaces/two", "/mnt/a", .invalidArguments),
                ((home.root as NSString).deletingLastPathComponent, "/mnt/a", .invalidArguments),
                (source + "/file", "/mnt/a", .notFound), (source + "/none", "/mnt/a", .notFound),
                (source + "-link", "/mnt/a", .notFound), ("relative", "/mnt/a", .invalidArguments),
                (source + "/../x", "/mnt/a", .invalidArguments), (source + "/", "/mnt/a", .invalidArguments),
                (source + "/proj/.git/hooks", "/mnt/a", .invalidArguments),
                (source + "/proj/.git", "/mnt/a", .invalidArguments), (source, "/mnt", .invalidArguments),
                (source, "/mnt/", .invalidArguments), (source, "/mnt/a/b", .invalidArguments),
                (source, "/mnt/..", .invalidArguments), (source, "/mnt/.a", .invalidArguments),
                (source, "/workspace/one", .invalidArguments), (source, "mnt/a", .invalidArguments),
                (source, "/mnt/a b", .invalidArguments),
                (source, "/mnt/" + String(repeating: "a", count: 65), .invalidArguments),
            ]
            for (from, target, kind) in refused {
                let error = await #expect(throws: StructuredError.self, "\(from) \(target)") {
                    try await mount(engine, from, target)
                }
                #expect(
                    error?.kind == kind && error?.recoveryActions.isEmpty == false,
                    "\(from) \(target): \(String(describing: error))")
            }
            try await mount(engine, source + "/proj", "/mnt/proj")
            for (from, kind) in [
                (source, StructuredError.Kind.conflict), (source + "/proj", .conflict),
            ] {
                let error = await #expect(throws: StructuredError.self) { try await mount(engine, from, "/mnt/again") }
                #expect(error?.kind == kind)
            }
            let same = await #expect(throws: StructuredError.self) {
                try await mount(engine, "/usr/share", "/mnt/proj")
            }
            #expect(same?.kind == .alreadyExists)
            for number in 1..<Mount.most {
                try write("x", to: "\(source)-\(number)/x")
                try await mount(engine, "\(source)-\(number)", "/mnt/m\(number)")
            }
            defer {
                for number in 1...Mount.most { try? FileManager.default.removeItem(atPath: "\(source)-\(number)") }
            }
            try write("x", to: "\(source)-\(Mount.most)/x")
            let full = await #expect(throws: StructuredError.self) {
                try await mount(engine, "\(source)-\(Mount.most)", "/mnt/more")
            }
            #expect(full?.kind == .tooLarge)
            // As many as there can be are shown.
            let shown = try await call(engine, "process.run", ["command": "ls", "args": ["/mnt"]])
            #expect(shown["stdout"]?.string?.split(separator: "\n").count == Mount.most)
        }
    }

    @Test func policyDecidesByTheMountedPath() async throws {
        try await with { engine, home, source in
            try write("x", to: source + "/private/a")
            try write(
                """
                name: org
                capabilities:
                  "*": { tier: autonomous }
                  filesystem.read:
                    tier: autonomous
                    rules: [{ condition: { path_prefix: /mnt/src/private }, tier: blocked }]
                """, to: "\(home.policies)/org.yaml")
            _ = try await engine.operate(.policyReload, [:], by: owner)
            try await mount(engine, source)
            #expect(try await kind(engine, "filesystem.read", ["path": "/mnt/src/read.me"]) == nil)
            #expect(try await kind(engine, "filesystem.read", ["path": "/mnt/src/private/a"]) == .blocked)
            #expect(try await kind(engine, "filesystem.read", ["path": "/mnt/src/./private/a"]) == .blocked)
        }
    }

    /// What decides how tools behave is protected in a mount as in a workspace, and put back after a process.
    @Test(arguments: places) func whatIsProtectedStaysAsItIs(_ place: String) async throws {
        try await with(place) { engine, home, source in
            try write("owner's", to: source + "/deep/.github/workflows/ci.yml")
            try giveAway(source)
            try await mount(engine, source)
            for (capability, arguments) in [
                (
                    "filesystem.write",
                    ["path": "/mnt/src/deep/.github/workflows/ci.yml", "content": "x", "overwrite": true]
                ),
                ("filesystem.move", ["source": "/mnt/src/deep/.github", "destination": "away"]),
                ("filesystem.delete", ["path": "/mnt/src/deep/.github", "recursive": true]),
                ("filesystem.write", ["path": "/mnt/src/new/.git/hooks/x", "content": "x", "create_parents": true]),
            ] as [(String, JSONObject)] {
                #expect(try await kind(engine, capability, arguments) == .blocked, "\(capability)")
            }
            let script = """
                echo agent > deep/.github/workflows/ci.yml; mv deep/.github deep/gone
                mkdir -p deep/.github/workflows .git/hooks; echo more > deep/.github/workflows/more.yml
                echo run > .git/hooks/post-commit
                """
            let ended = try await call(
                engine, "process.run", ["command": "sh", "args": ["-c", .string(script)], "cwd": "/mnt/src"])
            #expect(ended["put_back"]?.array?.count == 2, "\(ended)")
            #expect(text(source + "/deep/.github/workflows/ci.yml") == "owner's")
            #expect(access(source + "/.git/hooks", F_OK) != 0)
            #expect(access(source + "/deep/.github/workflows/more.yml", F_OK) != 0)
            #expect(Engine.trash(of: home, agent: "one").count >= 2)
        }
    }

    /// A mount that comes while a process runs is held from the next on; one that goes is put back all the same.
    @Test func mountsComeAndGoWhileProcessesRun() async throws {
        try await with { engine, _, source in
            try write("owner's", to: source + "/.github/workflows/ci.yml")
            try giveAway(source)
            let long = try await call(
                engine, "process.run", ["command": "sleep", "args": ["600"], "background": true])
            try await mount(engine, source)
            let script = "mv /mnt/src/.github /mnt/src/gone; sleep 600"
            let second = try await call(
                engine, "process.run", ["command": "sh", "args": ["-c", .string(script)], "background": true])
            while access(source + "/gone", F_OK) != 0 { try await Task.sleep(for: .milliseconds(10)) }
            _ = try await engine.operate(.mountRemove, ["agent": "one", "target": "/mnt/src"], by: owner)
            #expect(try await kind(engine, "filesystem.read", ["path": "/mnt/src/read.me"]) == .outsideWorkspace)
            for process in [second, long] {
                _ = try await call(engine, "process.kill", ["process_id": try #require(process["process_id"])])
            }
            while text(source + "/.github/workflows/ci.yml") != "owner's" {
                try await Task.sleep(for: .milliseconds(10))
            }
            let later = try await call(engine, "process.run", ["command": "ls", "args": ["/mnt"]])
            #expect(later["exit_code"] != 0)
        }
    }

    /// The folder that is there counts; one that is not keeps nothing else from working.
    @Test func aFolderThatWasReplacedOrIsGone() async throws {
        try await with { engine, home, source in
            try await mount(engine, source)
            #expect(try await call(engine, "filesystem.read", ["path": "/mnt/src/read.me"])["content"] == "first\n")
            rename(source, source + ".old")
            defer { try? FileManager.default.removeItem(atPath: source + ".old") }
            #expect(try await kind(engine, "filesystem.read", ["path": "/mnt/src/read.me"]) == .notFound)
            #expect(try await call(engine, "process.run", ["command": "true"])["exit_code"] == 0)
            try write("second", to: source + "/read.me")
            chmod(source, 0o777)
            #expect(try await call(engine, "filesystem.read", ["path": "/mnt/src/read.me"])["content"] == "second")
            let shown = try await call(engine, "process.run", ["command": "ls", "args": ["/mnt/src"]])
            #expect(shown["stdout"] == "read.me\n")
            // A link in its place is not followed.
            rename(source, source + ".new")
            defer { try? FileManager.default.removeItem(atPath: source + ".new") }
            symlink(home.root, source)
            #expect(try await kind(engine, "filesystem.list", ["path": "/mnt/src"]) == .notFound)
            #expect(try await call(engine, "process.run", ["command": "ls", "args": ["/mnt"]])["exit_code"] != 0)
        }
    }

    @Test func aQuotaCountsTheWorkspaceAlone() async throws {
        try await with(Self.places[1]) { engine, _, source in
            try await mount(engine, source)
            _ = try await engine.operate(.agentQuota, ["name": "one", "bytes": 100], by: owner)
            let large = String(repeating: "x", count: 90)
            for name in ["a", "b"] {
                _ = try await call(
                    engine, "filesystem.write", ["path": .string("/mnt/src/" + name), "content": .string(large)])
            }
            _ = try await call(engine, "filesystem.move", ["source": "/mnt/src/a", "destination": "a"])
            let second = try await kind(engine, "filesystem.move", ["source": "/mnt/src/b", "destination": "b"])
            #expect(second == .storageFull)
            #expect(text(source + "/b") == large)
            _ = try await call(engine, "filesystem.move", ["source": "a", "destination": "/mnt/src/a"])
            _ = try await call(engine, "filesystem.move", ["source": "/mnt/src/b", "destination": "b"])
        }
    }

    /// Where the gateway is root, what it writes belongs to whom the folder belongs to.
    @Test(.enabled(if: geteuid() == 0)) func filesKeepTheirOwner() async throws {
        try await with { engine, _, source in
            chown(source, 1234, 1235)
            chown(source + "/read.me", 1236, 1237)
            try await mount(engine, source)
            _ = try await call(
                engine, "filesystem.write", ["path": "/mnt/src/d/new", "content": "x", "create_parents": true])
            _ = try await call(engine, "filesystem.append", ["path": "/mnt/src/log", "content": "x"])
            _ = try await call(
                engine, "filesystem.write", ["path": "/mnt/src/read.me", "content": "x", "overwrite": true])
            _ = try await call(engine, "process.run", ["command": "true"])
            for (name, user) in [("d", 1234), ("d/new", 1234), ("log", 1234), ("read.me", 1236), ("", 1234)] {
                var status = stat()
                stat(source + "/" + name, &status)
                #expect(Int(status.st_uid) == user && Int(status.st_gid) == user + 1, "\(name)")
            }
        }
    }

    /// Holes, hard links, attributes and folders that are closed to their owner go along.
    @Test func oddTreesGoToAnotherFileSystemAndBack() async throws {
        try await with(Self.places[1]) { engine, home, source in
            try await mount(engine, source)
            let workspace = "\(home.root)/workspaces/one"
            try write("pair", to: source + "/tree/one")
            link(source + "/tree/one", source + "/tree/two")
            let hole = open(source + "/tree/hole", O_CREAT | O_RDWR, 0o600)
            #expect(ftruncate(hole, 8 << 30) == 0 && pwrite(hole, "end", 3, 5 << 30) == 3)
            close(hole)
            try write("x", to: source + "/tree/closed/deep/file")
            chmod(source + "/tree/closed/deep/file", 0)
            chmod(source + "/tree/closed/deep", 0)
            chmod(source + "/tree/closed", 0o500)
            chmod(source + "/tree", 0o500)
            // Where both file systems keep what users write beside a file, it goes along.
            func attribute(_ what: String, _ path: String) throws -> String? {
                let done = try Kruxos.execute(
                    "/usr/bin/python3", ["-c", "import os, sys; print(\(what))", path])
                return done.code == 0 ? done.output : nil
            }
            let set = "os.setxattr(sys.argv[1], 'user.kept', b'yes')"
            try write("x", to: workspace + "/probe")
            let isKept = try attribute(set, source + "/tree/one") != nil && attribute(set, workspace + "/probe") != nil
            _ = try await call(engine, "filesystem.move", ["source": "/mnt/src/tree", "destination": "here"])
            #expect(access(source + "/tree", F_OK) != 0)
            #expect(text(workspace + "/here/one") == "pair" && text(workspace + "/here/two") == "pair")
            if isKept {
                #expect(try attribute("os.getxattr(sys.argv[1], 'user.kept')", workspace + "/here/one") == "b'yes'\n")
            }
            var status = stat()
            stat(workspace + "/here/hole", &status)
            #expect(status.st_size == 8 << 30 && status.st_blocks < 1 << 16, "\(status.st_blocks)")
            for (path, mode) in [("", 0o500), ("/closed", 0o500)] {
                stat(workspace + "/here" + path, &status)
                #expect(Int(status.st_mode & 0o777) == mode, "\(path)")
            }
            _ = try await call(engine, "filesystem.move", ["source": "here", "destination": "/mnt/src/back"])
            #expect(access(workspace + "/here", F_OK) != 0)
            let deleted = try await call(engine, "filesystem.delete", ["path": "/mnt/src/back", "recursive": true])
            _ = try await call(engine, "filesystem.restore", ["trash_id": try #require(deleted["trash_id"])])
            #expect(text(source + "/back/two") == "pair")
            _ = try Kruxos.execute("/bin/chmod", ["-R", "u+rwX", source + "/back"])
            #expect(text(source + "/back/closed/deep/file") == "x")
        }
    }

    /// A disk is not filled to its end by what is deleted elsewhere, and nothing is taken that does not fit.
    @Test(.enabled(if: geteuid() == 0)) func whatDoesNotFitStays() async throws {
        try await with { engine, home, source in
            let small = source + "-small"
            mkdir(small, 0o777)
            defer { rmdir(small) }
            guard try Kruxos.execute("/bin/mount", ["-t", "tmpfs", "-o", "size=4m", "tmpfs", small]).code == 0 else {
                return
            }
            defer { _ = try? Kruxos.execute("/bin/umount", [small]) }
            try await mount(engine, small)
            for number in 0..<8 {
                try write(String(repeating: "x", count: 1 << 20), to: "\(home.root)/workspaces/one/tree/\(number)")
            }
            let moved = try await kind(engine, "filesystem.move", ["source": "tree", "destination": "/mnt/src/tree"])
            #expect(moved == .storageFull)
            #expect(try FileManager.default.contentsOfDirectory(atPath: small).isEmpty)
            #expect(try FileManager.default.contentsOfDirectory(atPath: "\(home.root)/workspaces/one/tree").count == 8)
        }
    }

    /// What a crash left of a copy goes; what it was copied from is whole.
    @Test func whatACrashLeftHalfCopiedGoes() async throws {
        try await with(Self.places[1]) { engine, home, source in
            try await mount(engine, source)
            let trash = "\(home.root)/workspaces/.trash/one"
            try write("{}", to: trash + "/tr_0123456789abcdef/info.json")
            try write("half", to: trash + "/tr_0123456789abcdef/part/deep/file")
            try write("half", to: source + "/.kruxos-aa.tmp/deep/file")
            try write("/mnt/src/.kruxos-aa.tmp", to: trash + "/part-1")
            // What a note names that is no copy of the gate's stays, and so does one that nobody can look at now.
            try write("/mnt/src/read.me", to: trash + "/part-2")
            try write("/mnt/away/.kruxos-bb.tmp", to: trash + "/part-3")
            #expect(Trash.incomplete(home: home.root) == ["one"])
            let workspace = try Workspace(agent: try #require(AgentName("one")), home: home.root)
            workspace.setMounts([Mount(label: "src", source: source, isReadOnly: false)])
            try Trash(workspace: workspace).removeIncomplete()
            #expect(try FileManager.default.contentsOfDirectory(atPath: source) == ["read.me"])
            #expect(try FileManager.default.contentsOfDirectory(atPath: trash) == ["part-3"])
        }
    }

    /// By no way of mounting is a file of the gate's seen, nor what is mounted from elsewhere.
    @Test(.enabled(if: geteuid() == 0)) func whatIsMountedElsewhereIsNotSeen() async throws {
        try await with { engine, home, source in
            for name in ["keys", "outer/inner", "proc", "later"] {
                try FileManager.default.createDirectory(atPath: source + "/" + name, withIntermediateDirectories: true)
            }
            func bind(_ from: String, _ to: String) throws -> Bool {
                try Kruxos.execute("/bin/mount", ["--bind", from, source + "/" + to]).code == 0
            }
            guard try bind("\(home.root)/keys", "keys") else { return }
            defer { for name in ["keys", "outer/inner", "proc", "later"] { umount2(source + "/" + name, 2) } }
            #expect(try bind(home.root, "outer/inner"))
            #expect(try Kruxos.execute("/bin/mount", ["-t", "proc", "proc", source + "/proc"]).code == 0)
            for name in ["keys", "outer", "outer/inner", "outer/inner/keys", "proc", ""] {
                await #expect(throws: StructuredError.self, "\(name)") {
                    try await mount(engine, source + (name.isEmpty ? "" : "/" + name))
                }
            }
            for name in ["keys", "outer/inner", "proc"] { #expect(umount2(source + "/" + name, 0) == 0) }
            // What comes later is not passed through, and the mount is not shown to processes.
            try await mount(engine, source)
            try giveAway(source)
            #expect(try bind("\(home.root)/keys", "later"))
            for path in ["later/head", "later"] {
                let read = try await kind(engine, "filesystem.list", ["path": .string("/mnt/src/" + path)])
                #expect(read == .outsideWorkspace || read == .notFound, "\(path): \(String(describing: read))")
            }
            let shown = try await call(engine, "process.run", ["command": "ls", "args": ["/mnt"]])
            #expect(shown["exit_code"] != 0)
            let moved = try await kind(engine, "filesystem.delete", ["path": "/mnt/src/later", "recursive": true])
            #expect(moved != nil)
            #expect(access("\(home.root)/keys/head", F_OK) == 0)
        }
    }

    /// An agent cannot put another folder in the place of another agent's.
    @Test func mountsOfTwoAgentsStandApart() async throws {
        try await with { engine, _, source in
            try write("x", to: source + "/inner/x")
            func add(_ agent: String, _ from: String, _ target: String, readOnly: Bool) async throws {
                _ = try await engine.operate(
                    .mountAdd,
                    [
                        "agent": .string(agent), "source": .string(from), "target": .string(target),
                        "read_only": .bool(readOnly),
                    ], by: owner)
            }
            try await add("one", source, "/mnt/a", readOnly: false)
            let below = await #expect(throws: StructuredError.self) {
                try await add("two", source + "/inner", "/mnt/a", readOnly: true)
            }
            #expect(below?.kind == .conflict)
            // The same for both, and in a read-only one.
            try await add("two", source, "/mnt/same", readOnly: false)
            _ = try await engine.operate(.mountRemove, ["agent": "one", "target": "/mnt/a"], by: owner)
            _ = try await engine.operate(.mountRemove, ["agent": "two", "target": "/mnt/same"], by: owner)
            try await add("one", source, "/mnt/a", readOnly: true)
            try await add("two", source + "/inner", "/mnt/a", readOnly: false)
            _ = try await engine.operate(.mountRemove, ["agent": "one", "target": "/mnt/a"], by: owner)
            let above = await #expect(throws: StructuredError.self) {
                try await add("one", source, "/mnt/b", readOnly: false)
            }
            #expect(above?.kind == .conflict)
        }
    }

    /// A process hides what it plants by taking rights away from its own user; the owner's closed folders stay closed.
    @Test func whatIsClosedIsLookedInto() async throws {
        try await with { engine, _, source in
            try write("x", to: source + "/mine/a/b")
            try write("owner's", to: source + "/shut/.github/workflows/ci.yml")
            try giveAway(source)
            for path in ["/mine/a", "/shut/.github/workflows", "/shut"] { chmod(source + path, 0) }
            try await mount(engine, source)
            let script = """
                cd /mnt/src; mkdir -p p/q/.github/workflows r/.github/workflows s/.github
                echo x > p/q/.github/workflows/ci.yml; echo x > r/.github/workflows/ci.yml; ln -s /etc s/.github/workflows
                chmod 000 p/q/.github/workflows p/q/.github p/q p; chmod 400 r/.github; chmod 600 r; chmod 100 s
                chmod 755 shut shut/.github/workflows; echo evil > shut/.github/workflows/ci.yml; chmod 500 shut/.github/workflows
                chmod 000 shut; chmod 000 /workspace/one
                """
            let ended = try await call(engine, "process.run", ["command": .string(script), "shell": true])
            #expect(ended["put_back"]?.array?.count == 4, "\(ended)")
            _ = try Kruxos.execute("/bin/chmod", ["u+rwx", source + "/shut", source + "/shut/.github/workflows"])
            #expect(text(source + "/shut/.github/workflows/ci.yml") == "owner's")
            var status = stat()
            stat(source + "/mine/a", &status)
            #expect(status.st_mode & 0o777 == 0)
            for path in ["/p", "/r", "/s"] {
                _ = try Kruxos.execute("/bin/chmod", ["-R", "u+rwX", source + path])
            }
            for path in ["/p/q/.github/workflows", "/r/.github/workflows", "/s/.github/workflows"] {
                var link = stat()
                #expect(lstat(source + path, &link) != 0, "\(path)")
            }
            #expect(text(source + "/mine/a/b") != nil || geteuid() != 0)
            #expect(try await call(engine, "process.run", ["command": "true"])["exit_code"] == 0)
        }
    }

    /// Rows that no command wrote mount nothing.
    @Test func rowsThatWereTamperedWithMountNothing() async throws {
        try await with { engine, home, source in
            try await mount(engine, source)
            let rows =
                [
                    ("../tmp", source), ("..", source), ("a/b", source), ("", source), ("home", home.root),
                    ("keys", "\(home.root)/keys"), ("relative", "etc"), ("dots", "\(source)/../.."), ("root", "/"),
                    ("empty", ""), ("file", "\(source)/read.me"),
                ].map { "('two', '\($0.0)', '\($0.1)', 0)" } + ["('two', 'nul', '/usr' || char(0) || '/x', 0)"]
            let done = try Kruxos.execute(
                "/usr/bin/sqlite3", [home.database, "INSERT INTO mounts VALUES \(rows.joined(separator: ", "))"])
            #expect(done.code == 0, "\(done.errors)")
            let known = await engine.call(
                CallRequest(capability: "agent.whoami", arguments: [:]),
                by: try engine.caller(agentNamed: "two", via: "test"))
            guard case .succeeded(let data, _, _) = known else { throw TestFailure("\(known)") }
            for mount in data["mounts"]?.array ?? [] {
                let path = try #require(mount["path"]?.string)
                #expect(path.split(separator: "/").count == 2 && !path.contains(".."), "\(path)")
                #expect(try await kind(engine, "filesystem.list", ["path": .string(path)], agent: "two") == .notFound)
            }
            let ran = await engine.call(
                CallRequest(capability: "process.run", arguments: ["command": "ls", "args": ["/mnt"]]),
                by: try engine.caller(agentNamed: "two", via: "test"))
            guard case .succeeded(let shown, _, _) = ran else { throw TestFailure("\(ran)") }
            #expect(shown["exit_code"] != 0 && shown["stdout"] == "", "\(shown)")
        }
    }
}
