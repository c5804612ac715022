import Foundation

/// The real binary, run as a user would.
package struct Kruxos: Sendable {
    package let home: String

    package init(home: String) { self.home = home }

    /// The executable that was built beside the tests.
    package static let path: String = {
        let tests = (try? FileManager.default.destinationOfSymbolicLink(atPath: "/proc/self/exe")) ?? ""
        return (tests as NSString).deletingLastPathComponent + "/kruxos"
    }()

    package struct Result: Sendable {
        package let code: Int32
        package let output: String
        package let errors: String
    }

    /// Runs a command on the home to its end.
    @discardableResult
    package func run(_ arguments: String..., input: String? = nil) throws -> Result {
        try Self.execute(Self.path, arguments + ["--home", home], input: input)
    }

    package static func execute(_ program: String, _ arguments: [String], input: String? = nil) throws -> Result {
        let process = try ChildProcess(program, arguments, input: .pipe, output: .pipe, errors: .pipe)
        if let input { try process.input.write(contentsOf: Data(input.utf8)) }
        try process.input.close()
        // Both at once: a full pipe would stop the program.
        nonisolated(unsafe) var errorData = Data()
        let done = DispatchSemaphore(value: 0)
        Thread.detachNewThread {
            errorData = process.errors.readDataToEndOfFile()
            done.signal()
        }
        let data = process.output.readDataToEndOfFile()
        done.wait()
        return Result(
            code: process.waitUntilExit(), output: String(decoding: data, as: UTF8.self),
            errors: String(decoding: errorData, as: UTF8.self))
    }

    /// Creates an agent and returns its token.
    package func createAgent(_ name: String) throws -> String {
        let result = try run("agent", "create", "--name", name, "--purpose", "tests", "--json")
        guard result.code == 0, let token = result.output.firstMatch(of: /"token": "([0-9a-f]{64})"/)?.1 else {
            throw TestFailure("no agent: \(result.output)\(result.errors)")
        }
        return String(token)
    }
}

package struct TestFailure: Error, CustomStringConvertible {
    package let description: String
    package init(_ description: String) { self.description = description }
}

/// A running gateway on ports of its own.
package final class RealGateway: @unchecked Sendable {
    // @unchecked: used by one test, which starts and stops it.
    package let kruxos: Kruxos
    package let process: ChildProcess
    package private(set) var agentsURL = ""
    package private(set) var supervisorsURL = ""

    /// Starts it and returns once it says that every listener is up.
    /// - Parameter wrapper: a program to run it under, such as strace with its arguments.
    package init(_ kruxos: Kruxos, wrapper: [String] = []) throws {
        self.kruxos = kruxos
        let serve = [Kruxos.path, "serve", "--home", kruxos.home, "--port", "0", "--supervisor-port", "0"]
        let line = wrapper + serve
        let log = kruxos.home + "/test.log"
        guard FileManager.default.createFile(atPath: log, contents: nil) else { throw TestFailure("no log") }
        process = try ChildProcess(line[0], Array(line.dropFirst()), output: .pipe, errors: .file(log))
        let ready: String
        do {
            ready = try process.read { $0.count(where: { $0 == "\n" }) >= 3 }
        } catch {
            throw TestFailure(
                "the gateway did not start: \((try? String(contentsOfFile: log, encoding: .utf8)) ?? "\(error)")")
        }
        for line in ready.split(separator: "\n") {
            let words = line.split(separator: " ")
            if words.first == "agents" { agentsURL = String(words.last ?? "") }
            if words.first == "supervisors" { supervisorsURL = String(words.last ?? "") }
        }
    }

    /// SIGTERM, and its exit code.
    @discardableResult
    package func stop() -> Int32 { process.terminate() }

    package func kill() {
        process.send(SIGKILL)
        process.waitUntilExit()
    }

    /// A gateway with one agent, for as long as `body` runs.
    package static func with<R>(
        agent: String = "tester", policies: [String: String] = [:], _ body: (RealGateway, String) async throws -> R
    ) async throws -> R {
        try await withTemporaryFolder { folder in
            let kruxos = Kruxos(home: folder + "/home")
            let token = try kruxos.createAgent(agent)
            for (file, text) in policies { try write(text, to: "\(kruxos.home)/policies/\(file)") }
            let gateway = try RealGateway(kruxos)
            defer { if gateway.process.isRunning { gateway.stop() } }
            return try await body(gateway, token)
        }
    }
}

/// The Python with the official `mcp` client: `KRUXOS_TEST_PYTHON`, else `.venv/bin/python` of the checkout.
package enum Peer {
    package static let python: String = {
        if let chosen = ProcessInfo.processInfo.environment["KRUXOS_TEST_PYTHON"] { return chosen }
        return FileManager.default.currentDirectoryPath + "/.venv/bin/python"
    }()

    /// Runs `peers/<name>` to its end; its output on failure is the test's message.
    @discardableResult
    package static func run(_ name: String, _ arguments: [String], file: String = #filePath) throws -> String {
        let folder = (file as NSString).deletingLastPathComponent + "/peers/"
        guard FileManager.default.isExecutableFile(atPath: python) else {
            throw TestFailure("there is no `\(python)`: create it with `.ci/setup`, or set KRUXOS_TEST_PYTHON")
        }
        let result = try Kruxos.execute(python, [folder + name] + arguments)
        if result.code != 0 { throw TestFailure("\(name) failed:\n\(result.output)\n\(result.errors)") }
        return result.output
    }
}

/// A peer that serves until it is stopped, and has said one line by then.
package final class PeerProcess: @unchecked Sendable {
    // @unchecked: used by one test, which starts and stops it.
    private let process: ChildProcess
    package let firstLine: String

    private let endsByItself: Bool

    /// - Parameter endsByItself: once its standard input is closed.
    package init(_ name: String, _ arguments: [String], endsByItself: Bool = false, file: String = #filePath) throws {
        self.endsByItself = endsByItself
        let folder = (file as NSString).deletingLastPathComponent + "/peers/"
        // Some serve as long as their input is open.
        process = try ChildProcess(Peer.python, [folder + name] + arguments, input: .pipe, output: .pipe)
        firstLine = String(try process.read { $0.hasSuffix("\n") }.dropLast())
    }

    package func stop() {
        try? process.input.close()
        if !endsByItself { process.send(SIGKILL) }
        process.waitUntilExit()
    }
}
