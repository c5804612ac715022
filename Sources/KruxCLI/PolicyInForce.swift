import ArgumentParser
import KruxCapabilities
import KruxCore
import KruxEngine
import KruxPolicy
import KruxRegistry
import KruxStore

/// The policy of a home, read from the bytes the gateway decides by.
struct PolicyInForce {
    let home: Home
    let store: ReadOnlyStore
    let version: PolicyVersion
    let policy: CompiledPolicy

    init(_ common: CommonOptions) throws {
        home = try common.resolveHome()
        store = try common.openForReading()
        guard let version = try store.read(PolicyVersions.current) else {
            throw StructuredError(.notFound, "no policy is in force yet", recovery: ["Start the gateway once."])
        }
        self.version = version
        policy = try version.policy(Capabilities.catalogue)
    }

    /// - Throws: `StructuredError` with the nearest name.
    func capability(_ name: String) throws -> (index: Int, declaration: CapabilityDeclaration) {
        guard let declaration = Capabilities.catalogue[name], let index = policy.index(of: name) else {
            let hint = nearest(to: name, among: Capabilities.catalogue.names).map { "Did you mean `\($0)`?" }
            throw StructuredError(
                .unknownCapability, "there is no capability `\(name)`",
                recovery: [hint ?? "Agents list them with agent.capabilities."])
        }
        return (index, declaration)
    }

    /// The facts of a call as a person describes it on the command line.
    /// - Parameters:
    ///   - texts: `key=value` for each argument that is given.
    ///   - time: of the call.
    func facts(
        agent: String, capability: String, _ texts: [String], time: Timestamp,
        session: CallFacts.SessionFacts? = nil
    )
        throws -> (facts: CallFacts, known: Bool)
    {
        let (_, declaration) = try self.capability(capability)
        guard let index = policy.index(of: capability) else {
            throw StructuredError(.unknownCapability, "the policy was compiled without `\(capability)`")
        }
        let arguments = try CommandLineArguments.parse(texts, declaration)
        let call = CallDescription(agent: agent, declaration: declaration, arguments: arguments)
        var facts = CallFacts(
            agent: agent, capability: index, declaration: declaration, arguments: call.arguments,
            complete: call.isComplete, time: time)
        let record = try store.read { try AgentTable.find($0, agent) }
        facts.session = session
        facts.role = record?.role
        facts.mode = record?.mode
        return (facts, record != nil)
    }
}

/// When a call is made and in what session, for the commands that decide one.
struct Circumstances: ParsableArguments {
    @Option(help: "The time of the call, RFC 3339; now if absent.") var at: String?
    @Option(help: "The label of its session.") var sessionLabel: String?
    @Option(help: "The age of its session: 90s, 15m, 1h, 7d.") var sessionAge: String?
    @Option(help: "Calls of its session before this one.") var sessionCalls: Int64?

    func time() throws -> Timestamp {
        guard let at else { return Engine.systemClock.now() }
        if let time = Timestamp(parsing: at) { return time }
        throw ValidationError("`\(at)` is no time: write it like 2026-03-02T10:00:00Z")
    }

    /// Nil when nothing is said of it, so that conditions on it cannot be judged.
    func session() throws -> CallFacts.SessionFacts? {
        if sessionLabel == nil, sessionAge == nil, sessionCalls == nil { return nil }
        var age: Int64 = 0
        if let sessionAge {
            // The age of a new session is 0, which is no duration.
            guard let seconds = sessionAge == "0s" ? 0 : HumanDuration(sessionAge)?.seconds else {
                throw ValidationError("`\(sessionAge)` is no duration: write it like 90s, 15m, 1h or 7d")
            }
            age = seconds
        }
        guard sessionCalls ?? 0 >= 0 else { throw ValidationError("--session-calls must not be negative") }
        return .init(label: sessionLabel, ageSeconds: age, calls: sessionCalls ?? 0)
    }
}

/// `key=value` arguments by a capability's schema.
enum CommandLineArguments {
    static func parse(_ texts: [String], _ declaration: CapabilityDeclaration) throws -> JSONObject {
        var object = JSONObject()
        for text in texts {
            guard let mark = text.firstIndex(of: "=") else {
                throw StructuredError(
                    .invalidArguments, "`\(text)` is no `key=value`", recovery: ["Write it like `path=notes.txt`."])
            }
            let key = String(text[..<mark])
            guard let property = declaration.input.property(key) else {
                let names = declaration.input.properties.map(\.name)
                let hint = nearest(to: key, among: names).map { "Did you mean `\($0)`?" }
                throw StructuredError(
                    .invalidArguments, "\(declaration.name) has no argument `\(key)`",
                    recovery: [hint ?? (names.isEmpty ? "It has none." : "It has: \(names.joined(separator: ", ")).")])
            }
            object[key] = try value(String(text[text.index(after: mark)...]), property)
        }
        let (_, violations) = declaration.input.validate(object)
        let wrong = violations.filter { $0.message != "is missing" }
        guard wrong.isEmpty else {
            throw StructuredError(
                .invalidArguments,
                "arguments of \(declaration.name) do not fit: "
                    + wrong.map { "\($0.pointer) \($0.message)" }.joined(separator: "; "))
        }
        return object
    }

    private static func value(_ text: String, _ property: Property) throws -> JSONValue {
        switch property.type {
        case .string, .choice: return .string(text)
        case .integer: return Int64(text).map(JSONValue.int) ?? .string(text)
        case .boolean: return text == "true" ? true : text == "false" ? false : .string(text)
        case .array where !text.hasPrefix("["):
            return .strings(text.split(separator: " ").map(String.init))
        case .array, .object, .map, .any:
            do { return try JSONParser.parse(text) } catch {
                throw StructuredError(
                    .invalidArguments, "`\(property.name)` needs JSON: \(error)",
                    recovery: ["Write it like `\(property.name)=[\"a\",\"b\"]`, in quotes for the shell."])
            }
        }
    }
}
