import Foundation

/// `POST /v1/call` against the same server's empty JSON route, with wrk (Debian: `apt-get install wrk`) and the real
/// gateway, which is built beside this program.
enum HTTPBenchmark {
    private struct Figures {
        let requestsPerSecond: Double
        let p50Microseconds: Double
    }

    static func run(_ report: inout Report, seconds: Int) throws {
        print("http")
        let folder = URL(fileURLWithPath: CommandLine.arguments[0]).resolvingSymlinksInPath()
            .deletingLastPathComponent()
        let kruxos = folder.appendingPathComponent("kruxos").path
        guard FileManager.default.isExecutableFile(atPath: kruxos) else {
            throw BenchmarkError("there is no kruxos beside this program; build it with the same configuration")
        }
        let home = NSTemporaryDirectory() + "kruxos-bench-\(UUID().uuidString)"
        defer { try? FileManager.default.removeItem(atPath: home) }
        let created = try output(
            kruxos, ["agent", "create", "--name", "bench", "--purpose", "bench", "--home", home, "--json"])
        guard let token = field("token", in: created) else { throw BenchmarkError("no token in: \(created)") }
        let file = "\(home)/workspaces/bench/small.txt"
        try Data(repeating: 0x61, count: 1024).write(to: URL(fileURLWithPath: file))

        let gateway = Process()
        gateway.executableURL = URL(fileURLWithPath: kruxos)
        gateway.arguments = ["serve", "--home", home, "--port", "0", "--supervisor-port", "0"]
        let pipe = Pipe()
        gateway.standardOutput = pipe
        try gateway.run()
        defer {
            gateway.terminate()
            gateway.waitUntilExit()
        }
        var ready = ""
        while ready.split(separator: "\n").count < 3 {
            let data = pipe.fileHandleForReading.availableData
            if data.isEmpty { throw BenchmarkError("the gateway did not start") }
            ready += String(decoding: data, as: UTF8.self)
        }
        guard let url = ready.split(separator: "\n").first?.split(separator: " ").last.map(String.init) else {
            throw BenchmarkError("no address in: \(ready)")
        }
        let read = try script(
            home, "read", token, #"{"capability":"filesystem.read","arguments":{"path":"small.txt"}}"#)
        let effect = try script(
            home, "effect", token,
            #"{"capability":"filesystem.write","arguments":{"path":"out.txt","content":"some text"}}"#)

        for connections in [1, 32] {
            // Alternated, so that a drift of the machine meets all of them.
            var empty: [Figures] = []
            var reads: [Figures] = []
            var effects: [Figures] = []
            for _ in 0..<3 {
                empty.append(try wrk(url + "/health", nil, connections, seconds))
                reads.append(try wrk(url + "/v1/call", read, connections, seconds))
                effects.append(try wrk(url + "/v1/call", effect, connections, seconds))
            }
            func median(_ figures: [Figures]) -> Figures {
                Figures(
                    requestsPerSecond: figures.map(\.requestsPerSecond).quantile(0.5) ?? 0,
                    p50Microseconds: figures.map(\.p50Microseconds).quantile(0.5) ?? 0)
            }
            let (base, one, two) = (median(empty), median(reads), median(effects))
            let label = connections == 1 ? "1 connection" : "\(connections) connections"
            report.add(
                "empty JSON route, \(label)",
                "\(format(base.requestsPerSecond, 0))/s, p50 \(format(base.p50Microseconds, 0)) µs")
            for (name, figures, share, added) in [("filesystem.read", one, 0.5, 250.0), ("an effect", two, 0.3, 500.0)]
            {
                let ratio = figures.requestsPerSecond / base.requestsPerSecond
                let delay = figures.p50Microseconds - base.p50Microseconds
                let text =
                    "\(format(figures.requestsPerSecond, 0))/s (\(format(ratio))×), p50 \(format(figures.p50Microseconds, 0)) µs (+\(format(delay, 0)))"
                if connections == 1 {
                    report.add(
                        "\(name), \(label)", text, budget: "p50 ≤ empty + \(format(added, 0)) µs", met: delay <= added)
                } else {
                    report.add("\(name), \(label)", text, budget: "≥ \(share)× empty", met: ratio >= share)
                }
            }
        }
    }

    private static func script(_ home: String, _ name: String, _ token: String, _ body: String) throws -> String {
        let path = "\(home)/\(name).lua"
        let text = """
            wrk.method = "POST"
            wrk.body = '\(body)'
            wrk.headers["Content-Type"] = "application/json"
            wrk.headers["Authorization"] = "Bearer \(token)"
            """
        try Data(text.utf8).write(to: URL(fileURLWithPath: path))
        return path
    }

    private static func wrk(_ url: String, _ script: String?, _ connections: Int, _ seconds: Int) throws -> Figures {
        var arguments = ["wrk", "-t1", "-c\(connections)", "-d\(seconds)s", "--latency"]
        if let script { arguments += ["-s", script] }
        let text = try output("/usr/bin/env", arguments + [url])
        guard !text.contains("Non-2xx") else { throw BenchmarkError("calls failed:\n\(text)") }
        guard let line = text.split(separator: "\n").first(where: { $0.contains("Requests/sec") }),
            let rate = line.split(separator: " ").last.flatMap({ Double($0) }),
            let median = text.split(separator: "\n").first(where: { $0.contains("50%") })?.split(separator: " ").last
        else { throw BenchmarkError("wrk said:\n\(text)") }
        let number = Double(median.prefix { $0.isNumber || $0 == "." }) ?? 0
        let unit = median.drop { $0.isNumber || $0 == "." }
        return Figures(
            requestsPerSecond: rate, p50Microseconds: number * (unit == "us" ? 1 : unit == "ms" ? 1000 : 1_000_000))
    }

    private static func output(_ program: String, _ arguments: [String]) throws -> String {
        let process = Process()
        process.executableURL = URL(fileURLWithPath: program)
        process.arguments = arguments
        let pipe = Pipe()
        process.standardOutput = pipe
        try process.run()
        let data = pipe.fileHandleForReading.readDataToEndOfFile()
        process.waitUntilExit()
        guard process.terminationStatus == 0 else {
            throw BenchmarkError(
                "\(program) \(arguments.joined(separator: " ")) ended with \(process.terminationStatus)")
        }
        return String(decoding: data, as: UTF8.self)
    }

    private static func field(_ name: String, in json: String) -> String? {
        guard let range = json.firstRange(of: "\"\(name)\": \"") else { return nil }
        return String(json[range.upperBound...].prefix { $0 != "\"" })
    }
}
