import Foundation
import KruxCapabilities
import KruxCore
import KruxTestSupport

/// Capabilities run as the engine would run them, on a workspace of its own.
struct CapabilityFixture {
    let home: String
    let workspace: Workspace
    let context: CallContext

    /// The workspace's folder on disk.
    var folder: String { "\(home)/workspaces/tester" }

    static func with<R>(protected: [String] = [], _ body: (CapabilityFixture) async throws -> R) async throws -> R {
        try await withTemporaryFolder { home in
            try FileManager.default.createDirectory(atPath: home + "/workspaces", withIntermediateDirectories: true)
            return try await body(try CapabilityFixture(home: home, protected: protected))
        }
    }

    private init(home: String, protected: [String]) throws {
        self.home = home
        guard let agent = AgentName("tester") else { throw TestFailure("no name") }
        workspace = try Workspace(agent: agent, home: home)
        let now = Timestamp(microseconds: 1_774_794_000_000_000)
        context = CallContext(
            agent: agent, workspace: workspace, clock: WallClock(now: { now }, monotonic: { 0 }, boot: "test"),
            host: HostServices(
                version: "test", agent: { .init(name: "tester", purpose: "tests", createdAt: now) },
                session: { .init(id: "s_1", via: "test", startedAt: now, calls: 1) },
                policy: { .init(name: "p", digest: "d", description: nil) },
                offers: {
                    Capabilities.implemented.map {
                        .init(declaration: $0.declaration, tier: .notify, conditional: false)
                    }
                },
                health: { .init(status: "ok", findings: [], uptimeSeconds: 1) }),
            protected: ProtectedNames(protected), processes: ProcessTable(folder: home + "/outputs"))
    }

    /// Validates, canonicalises and runs; the output must fit its own schema.
    func call(_ name: String, _ arguments: JSONObject) async throws -> JSONObject {
        guard let capability = Capabilities.implemented.first(where: { $0.declaration.name.text == name }) else {
            throw TestFailure("no capability \(name)")
        }
        var (canonical, violations) = capability.declaration.input.validate(arguments)
        guard violations.isEmpty else { throw StructuredError(.invalidArguments, "\(violations)") }
        for property in capability.declaration.input.properties {
            let follows: Bool
            switch property.role {
            case .path(let followsLast, _): follows = followsLast
            case .workingDirectory: follows = true
            default: continue
            }
            if let text = canonical[property.name]?.string {
                canonical[property.name] = .string(try workspace.canonicalise(text, followsLast: follows).absolute)
            }
        }
        guard case .run(let run) = capability.work else { throw TestFailure("\(name) works on state") }
        let output = try await run(canonical, context)
        let (_, problems) = capability.declaration.output.validate(output)
        guard problems.isEmpty else { throw TestFailure("\(name)'s output does not fit its schema: \(problems)") }
        return output
    }

    func kind(_ name: String, _ arguments: JSONObject) async -> StructuredError.Kind? {
        do {
            _ = try await call(name, arguments)
            return nil
        } catch let error as StructuredError {
            return error.kind
        } catch {
            return .internalError
        }
    }
}
