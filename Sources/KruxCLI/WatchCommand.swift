import ArgumentParser
import KruxGateway
import KruxCore
import KruxEngine

struct WatchCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "watch", abstract: "Show notifications and requests as they happen.",
        discussion: "Needs a running gateway; ends with it, or with Ctrl-C.")

    @OptionGroup var common: CommonOptions
    @Option(help: "Only this agent.") var agent: String?
    @Option(help: "Only this capability; `filesystem.*` for all below.") var capability: String?

    mutating func run() async throws {
        guard let connection = try OperatorClient.connect(try common.resolveHome()) else {
            throw StructuredError(
                .unavailable, "no gateway runs for this home", recovery: ["Start one with `kruxos serve`."])
        }
        _ = try OperatorClient.ask(
            connection, "watch", ["agent": .optional(agent), "capability": .optional(capability)])
        while let line = connection.read() {
            let event = try JSONParser.parse(line)
            if common.json {
                Console.print(event.canonicalText)
                continue
            }
            let time = event["time"]?.string.flatMap(Timestamp.init(parsing:))?.short ?? "-"
            let words = ["approval": "waits for approval as ", "reminder": "still waits for approval as "]
            let request =
                words[event["kind"]?.string ?? ""].flatMap { word in
                    event["request_id"]?.string.map { "\(word)\($0)  " }
                } ?? ""
            let parts = [time, event["agent"]?.string ?? "-", event["capability"]?.string ?? "-"]
            Console.print(
                Console.visible(parts.joined(separator: "  ") + "  " + request + (event["summary"]?.string ?? "")))
        }
    }
}
