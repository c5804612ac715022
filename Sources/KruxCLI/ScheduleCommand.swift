import ArgumentParser
import KruxCapabilities
import KruxCore
import KruxEngine
import KruxStore

struct ScheduleCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "schedule", abstract: "Calls that agents have planned.",
        discussion: "They are made while the gateway runs, as calls like any other; `audit query` shows each.",
        subcommands: [List.self, End.self])

    struct List: AsyncParsableCommand {
        static let configuration = CommandConfiguration(abstract: "List what will be called.")
        @OptionGroup var common: CommonOptions
        @Option(help: "Of this agent alone.") var agent: String?

        mutating func run() async throws {
            let agent = agent
            let schedules = try common.openForReading().read { try ScheduleTable.all($0, agent: agent) }
            if common.json {
                return Console.print(
                    .array(
                        schedules.map {
                            var json = $0.json
                            json["agent"] = .string($0.agent)
                            return .object(json)
                        }))
            }
            if schedules.isEmpty { return Console.print("Nothing is planned.") }
            var table = Table([
                .init("Id", width: 7), .init("Agent", width: 14), .init("Next", width: 17),
                .init("Schedule", width: 20),
                .init("Zone", width: 14), .init("Runs", width: 5), .init("Missed", width: 6), .init("Call"),
            ])
            table.rows = schedules.map { schedule in
                [
                    schedule.id, schedule.agent, schedule.nextRun?.short ?? "-", schedule.cron ?? "once",
                    schedule.zone ?? "-", "\(schedule.runs)", "\(schedule.missed)",
                    Console.visible("\(schedule.capability) \(JSONValue.object(schedule.arguments).canonicalText)"),
                ]
            }
            Console.printTable(table.text)
        }
    }

    struct End: AsyncParsableCommand {
        static let configuration = CommandConfiguration(abstract: "End a schedule.")
        @OptionGroup var common: CommonOptions
        @Argument(help: "Its id.") var id: String

        mutating func run() async throws {
            let result = try await OperatorClient(home: try common.resolveHome()).run(
                .scheduleEnd, ["id": .string(id)])
            if common.json { return Console.print(.object(result)) }
            Console.print("Schedule \(id) ended.")
        }
    }
}
