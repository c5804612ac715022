import Foundation
import Glibc
import KruxCore
import KruxSandbox
import KruxTestSupport
import Testing

/// Limits on all processes of an agent: what is claimed, and when nothing is.
@Suite struct ControlGroupTests {
    /// A tree of plain files that looks like a mounted cgroup2, with the gateway in `service`.
    private func with(
        controllers: String = "cpu io memory pids\n", procs: String = "100\n101\n",
        _ body: (String, ControlGroups.View) throws -> Void
    ) async throws {
        try await withTemporaryFolder { folder in
            let service = folder + "/a b/service"
            for (file, text) in [
                ("cgroup.controllers", controllers), ("cgroup.procs", procs), ("cgroup.type", "domain\n"),
                ("cgroup.subtree_control", ""), ("gateway/cgroup.procs", ""), ("kruxos-x/cgroup.subtree_control", ""),
                ("kruxos-x/coder/memory.max", "max\n"), ("kruxos-x/coder/memory.swap.max", "max\n"),
                ("kruxos-x/coder/pids.max", "max\n"),
            ] { try write(text, to: service + "/" + file) }
            let mounts = """
                22 1 0:21 / /proc rw - proc proc rw
                30 1 0:26 /slice \(folder.replacing(" ", with: "\\040"))/a\\040b rw,nosuid shared:4 - cgroup2 cgroup2 rw

                """
            try body(
                service,
                ControlGroups.View(membership: "1:memory:/x\n0::/slice/service\n", mounts: mounts) {
                    $0 == 100 || $0 == 101
                })
        }
    }

    private func text(_ path: String) -> String? { try? String(contentsOfFile: path, encoding: .utf8) }

    @Test func theGatewayMakesRoomAndLimitsWhatIsBelow() async throws {
        try await with { service, view in
            try ControlGroups.probe(view: view)
            #expect(text(service + "/cgroup.subtree_control") == "")
            let limits = ControlGroups.Limits(memoryBytes: 1 << 30, processes: 99)
            let groups = try ControlGroups.claim("kruxos-x", limits: limits, view: view)
            // Each is one write, of which a plain file keeps the beginning.
            #expect(text(service + "/gateway/cgroup.procs") == "101")
            #expect(text(service + "/cgroup.subtree_control") == "+memory +pids +cpu")
            #expect(text(service + "/kruxos-x/cgroup.subtree_control") == "+memory +pids +cpu")
            let group = try groups.group("coder")
            let again = try groups.group("coder")
            #expect(again === group)
            #expect(text(service + "/kruxos-x/coder/memory.max") == "1073741824")
            #expect(text(service + "/kruxos-x/coder/memory.swap.max")?.hasPrefix("0") == true)
            #expect(text(service + "/kruxos-x/coder/pids.max")?.hasPrefix("99") == true)
            #expect(group.outOfMemoryKills == 0)
            try write("low 0\noom 4\noom_kill 3\n", to: service + "/kruxos-x/coder/memory.events")
            #expect(group.outOfMemoryKills == 3)
        }
    }

    @Test func nothingOfOthersIsTouched() async throws {
        // A shell's group: the shell is in it, too.
        try await with(procs: "100\n7\n") { service, view in
            let refused = #expect(throws: SandboxError.self) { try ControlGroups.claim("kruxos-x", view: view) }
            #expect(refused?.message == "process 7 is in the gateway's cgroup, too" && refused?.hint != nil)
            #expect(throws: SandboxError.self) { try ControlGroups.probe(view: view) }
            #expect(text(service + "/gateway/cgroup.procs") == "")
            #expect(text(service + "/cgroup.subtree_control") == "")
        }
        try await with(controllers: "hugetlb rdma\n") { service, view in
            let refused = #expect(throws: SandboxError.self) { try ControlGroups.claim("kruxos-x", view: view) }
            #expect(refused?.message.contains("neither memory nor processes") == true)
            #expect(text(service + "/gateway/cgroup.procs") == "")
        }
        // What the group's path says is not below what is mounted here.
        for membership in ["0::/other\n", "0::/slice/../../x\n", "0::/sliced\n", "4:memory:/x\n", ""] {
            try await with { service, view in
                var view = view
                view.membership = membership
                #expect(throws: SandboxError.self) { try ControlGroups.claim("kruxos-x", view: view) }
                #expect(text(service + "/cgroup.subtree_control") == "")
            }
        }
        for mounts in ["", "30 1 0:26 /slice\n", "30 1 0:26 / /x rw -\n", "- cgroup2\n"] {
            try await with { _, view in
                var view = view
                view.mounts = mounts
                #expect(throws: SandboxError.self) { try ControlGroups.claim("kruxos-x", view: view) }
            }
        }
    }

    /// A group of this machine's, where it lets us make one.
    private static let real: String? = {
        let mounts = (try? String(contentsOfFile: "/proc/self/mountinfo", encoding: .utf8)) ?? ""
        let point = mounts.split(separator: "\n").first { $0.contains(" - cgroup2 ") }?.split(separator: " ")[4]
        let own = (try? String(contentsOfFile: "/proc/self/cgroup", encoding: .utf8)) ?? ""
        guard let point, let path = own.split(separator: "\n").first(where: { $0.hasPrefix("0::") })?.dropFirst(3)
        else { return nil }
        let folder = "\(point)\(path == "/" ? "" : path)/kruxos-test-\(getpid())"
        return mkdir(folder, 0o755) == 0 ? folder : nil
    }()

    @Test(.enabled(if: real != nil)) func aProcessIsStartedInItsGroup() async throws {
        let folder = try #require(Self.real)
        defer { rmdir(folder) }
        let name = (folder as NSString).lastPathComponent
        for isIn in [true, false] {
            let group = isIn ? ControlGroup(descriptor: open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC)) : nil
            let result = try await withTemporaryFolder { workspace in
                // The agents' user of a root gateway.
                chmod(workspace, 0o755)
                let descriptor = open(workspace, O_RDONLY | O_DIRECTORY | O_CLOEXEC)
                defer { close(descriptor) }
                return try await ConfinedProcess.run(
                    .init(
                        arguments: ["sh", "-c", "(cat /proc/self/cgroup)"], environment: [:], workspace: descriptor,
                        workspacePath: "/workspace/tester", directory: "", timeoutSeconds: 30, outputLimit: 4096,
                        confinement: Confinement(group: group)))
            }
            let said = String(decoding: result.standardOutput.kept, as: UTF8.self)
            #expect(said.contains("0::") && said.contains("/\(name)\n") == isIn, "\(said)")
            #expect(result.layers.contains(.cgroup) == isIn)
            #expect(result.layers.contains([.namespaces, .landlock, .seccomp]))
        }
        // One that is gone keeps nothing from running, and does not count as held.
        let gone = folder + "/gone"
        #expect(mkdir(gone, 0o755) == 0)
        let descriptor = open(gone, O_RDONLY | O_DIRECTORY | O_CLOEXEC)
        #expect(rmdir(gone) == 0)
        try await withTemporaryFolder { workspace in
            chmod(workspace, 0o755)
            let folder = open(workspace, O_RDONLY | O_DIRECTORY | O_CLOEXEC)
            defer { close(folder) }
            let result = try await ConfinedProcess.run(
                .init(
                    arguments: ["true"], environment: [:], workspace: folder, workspacePath: "/workspace/tester",
                    directory: "", timeoutSeconds: 30, outputLimit: 4096,
                    confinement: Confinement(group: ControlGroup(descriptor: descriptor))))
            #expect(result.ending == .exited(0) && !result.layers.contains(.cgroup))
        }
    }

    /// What is mounted where is told by bytes, with every name that a folder can have.
    @Test func mountPointsAreRead() {
        let points = MountPoints(
            """
            22 1 8:1 / / rw,relatime - ext4 /dev/sda1 rw
            23 22 8:2 /sub/dir /data\\040disk rw shared:1 - ext4 /dev/sda2 rw
            24 23 0:5 / /data\\040disk/\u{301}in rw - tmpfs tmpfs rw
            nonsense
            25 22 8:3 / /x - ext4
            """)
        #expect(points.points.count == 4)
        #expect(points.place("/data disk/a/b").map { [$0.device, $0.path] } == ["8:2", "/sub/dir/a/b"])
        #expect(points.place("/data disks/a").map { [$0.device, $0.path] } == ["8:1", "/data disks/a"])
        #expect(points.place("/data disk").map { [$0.device, $0.path] } == ["8:2", "/sub/dir"])
        #expect(points.place("/data disk/\u{301}in/f").map { [$0.device, $0.path] } == ["0:5", "/f"])
        #expect(points.below("/data disk") == ["/data disk/\u{301}in"])
        #expect(points.below("/data") == [] && points.below("/x") == [])
        #expect(MountPoints("").place("/a") == nil)
    }
}
