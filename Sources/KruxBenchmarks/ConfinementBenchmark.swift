import Foundation
import KruxSandbox

/// What confinement costs: `/bin/true` in the box, by plain fork and exec, and in bubblewrap's, in turns.
enum ConfinementBenchmark {
    private static let rounds = 300

    static func run(_ report: inout Report) async throws {
        let folder = NSTemporaryDirectory() + "kruxos-bench-\(UUID().uuidString)"
        try FileManager.default.createDirectory(atPath: folder, withIntermediateDirectories: true)
        defer { try? FileManager.default.removeItem(atPath: folder) }
        if let user = Confinement.processUser { _ = chown(folder, user, user) }
        let workspace = open(folder, O_DIRECTORY | O_RDONLY | O_CLOEXEC)
        defer { close(workspace) }
        let launch = ConfinedProcess.Launch(
            arguments: ["/bin/true"], environment: ["PATH": ConfinedProcess.searchPath], workspace: workspace,
            workspacePath: "/workspace/bench", directory: "", timeoutSeconds: 60, outputLimit: 1 << 20,
            confinement: Confinement())
        // As much as bubblewrap does of the same: namespaces, read-only system, a private /tmp, /dev and /proc.
        let bubblewrap = "/usr/bin/bwrap"
        let wrapped =
            [bubblewrap, "--unshare-all", "--die-with-parent", "--new-session", "--ro-bind", "/usr", "/usr"]
            + ["--symlink", "usr/bin", "/bin", "--symlink", "usr/lib", "/lib", "--symlink", "usr/lib64", "/lib64"]
            + ["--ro-bind", "/etc", "/etc", "--proc", "/proc", "--dev", "/dev", "--tmpfs", "/tmp"]
            + ["--bind", folder, "/workspace", "--chdir", "/workspace", "/bin/true"]
        let hasBubblewrap = access(bubblewrap, X_OK) == 0
        var confined: [Double] = []
        var plain: [Double] = []
        var others: [Double] = []
        for _ in 0..<rounds {
            var start = ContinuousClock.now
            guard try await ConfinedProcess.run(launch).ending == .exited(0) else {
                throw BenchmarkError("the box failed")
            }
            confined.append((.now - start) / .microseconds(1))
            start = .now
            try spawn(["/bin/true"])
            plain.append((.now - start) / .microseconds(1))
            guard hasBubblewrap else { continue }
            start = .now
            try spawn(wrapped)
            others.append((.now - start) / .microseconds(1))
        }
        report.add("/bin/true by fork and exec, p50", "\(format(plain.quantile(0.5) ?? 0, 0)) µs")
        report.add("/bin/true confined, p50", "\(format(confined.quantile(0.5) ?? 0, 0)) µs")
        if hasBubblewrap {
            let ratio = (confined.quantile(0.5) ?? 0) / (others.quantile(0.5) ?? 1)
            report.add("/bin/true in bubblewrap, p50", "\(format(others.quantile(0.5) ?? 0, 0)) µs")
            report.add("confined by bubblewrap", "\(format(ratio))×", budget: "≤ 1.5×", met: ratio <= 1.5)
        }
    }

    private static func spawn(_ arguments: [String]) throws {
        var words = arguments.map { strdup($0) } + [nil]
        defer { for word in words { free(word) } }
        var child: pid_t = 0
        var status: Int32 = 0
        guard posix_spawn(&child, arguments[0], nil, nil, &words, environ) == 0, waitpid(child, &status, 0) == child,
            status == 0
        else { throw BenchmarkError("\(arguments[0]) failed") }
    }
}
