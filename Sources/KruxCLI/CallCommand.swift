import ArgumentParser
import KruxStore
import KruxCapabilities
import KruxCore
import KruxEngine
import KruxRegistry

struct CallCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "call", abstract: "Make one call as an agent, through the gate.",
        discussion: "Decided and recorded like any other. Example: kruxos call filesystem.read path=notes.txt")

    @OptionGroup var common: CommonOptions
    @Argument(help: "The capability.") var capability: String
    @Argument(help: "Arguments as key=value; a value is read as the type its schema names.") var pairs: [String] = []
    @Option(help: "The agent to call as; needed when there are several.") var agent: String?
    @Option(help: "All arguments as one JSON object.") var arguments: String?
    @Option(help: "Seconds to wait when a person must approve.") var wait: Int64 = 0

    mutating func run() async throws {
        let input = try parseArguments()
        let home = try common.resolveHome()
        let name = try agent ?? onlyAgent()
        let result = try await OperatorClient(home: home).run(
            .call,
            [
                "agent": .string(name), "capability": .string(capability), "arguments": .object(input),
                "wait": .int(wait),
            ])
        if common.json { Console.print(.object(result)) }
        if let error = result["error"].flatMap(StructuredError.init(json:)) {
            if !common.json { Console.report(error) }
            throw KruxExit.code(error)
        }
        if !common.json { Console.print(result["data"] ?? .null) }
    }

    private func onlyAgent() throws -> String {
        let active = try common.openForReading().read(AgentTable.all).filter { $0.status == .active }
        guard active.count == 1 else {
            throw ValidationError(
                active.isEmpty
                    ? "there is no active agent; create one with `kruxos agent create`"
                    : "there are several agents; name one with --agent: \(active.map(\.name.text).joined(separator: ", "))"
            )
        }
        return active[0].name.text
    }

    func parseArguments() throws -> JSONObject {
        var object = JSONObject()
        if let arguments {
            do {
                guard let given = try JSONParser.parse(arguments).object else {
                    throw ValidationError("--arguments must be a JSON object")
                }
                object = given
            } catch let failure as JSONParser.Failure {
                throw ValidationError("--arguments is no JSON: \(failure)")
            }
        }
        let schema = Capabilities.catalogue[capability]?.input
        for pair in pairs {
            guard let mark = pair.firstIndex(of: "="), mark != pair.startIndex else {
                throw ValidationError("`\(pair)` is not key=value")
            }
            let key = String(pair[..<mark])
            let text = String(pair[pair.index(after: mark)...])
            object[key] = try Self.value(text, schema?.property(key)?.type, key)
        }
        return object
    }

    /// The text as its schema's type; what does not fit goes as it is, and the gate says what is wrong.
    private static func value(_ text: String, _ type: SchemaType?, _ key: String) throws -> JSONValue {
        switch type {
        case .integer?: return Int64(text).map(JSONValue.int) ?? .string(text)
        case .boolean?: return text == "true" ? true : text == "false" ? false : .string(text)
        case .array?, .object?, .map?, .any?:
            if let value = try? JSONParser.parse(text) { return value }
            if case .array? = type { return .array([.string(text)]) }
            return .string(text)
        default: return .string(text)
        }
    }
}
