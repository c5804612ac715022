import ArgumentParser
import KruxCore
import KruxEngine

struct TrashCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "trash", abstract: "What agents deleted, and what was put aside from protected places.",
        discussion:
            "Kept for \(Engine.usualTrashDays) days unless `trash keep` says otherwise; agents bring back what is theirs with filesystem.restore.",
        subcommands: [List.self, Empty.self, Keep.self])

    struct List: AsyncParsableCommand {
        static let configuration = CommandConfiguration(abstract: "List it, oldest first.")
        @OptionGroup var common: CommonOptions
        @Option(help: "Of this agent alone.") var agent: String?

        mutating func run() async throws {
            let things = Engine.trash(of: try common.resolveHome(), agent: agent)
            if common.json { return Console.print(.array(things.map { .object($0.json) })) }
            if things.isEmpty { return Console.print("The trash is empty.") }
            var table = Table([
                .init("Id", width: 20), .init("Agent", width: 14), .init("Deleted", width: 20), .init("From"),
            ])
            table.rows = things.map { [$0.id, $0.agent, $0.deletedAt?.short ?? "-", Console.visible($0.path)] }
            Console.printTable(table.text)
        }
    }

    struct Empty: AsyncParsableCommand {
        static let configuration = CommandConfiguration(abstract: "Remove what is old for good.")
        @OptionGroup var common: CommonOptions
        @Option(help: "Of this agent alone.") var agent: String?
        @Option(help: "Only what was deleted this long ago, such as 7d.") var olderThan: String?
        @Flag(help: "Do not ask.") var yes = false

        mutating func run() async throws {
            var seconds: Int64 = 0
            if let olderThan {
                guard let duration = HumanDuration(olderThan) else {
                    throw ValidationError("`\(olderThan)` is no duration; write it like 7d or 12h")
                }
                seconds = duration.seconds
            }
            let question = "Remove " + (agent.map { "what \($0) deleted" } ?? "everything in the trash") + " for good?"
            guard yes || Console.isTerminal && Console.ask(question) else {
                throw StructuredError(
                    .invalidRequest, "nothing was removed", recovery: ["Say `--yes` to remove it without being asked."])
            }
            let result = try await OperatorClient(home: try common.resolveHome()).run(
                .trashEmpty, ["agent": .optional(agent), "older_than_seconds": .int(seconds)])
            if common.json { return Console.print(.object(result)) }
            Console.print("\(result["removed"]?.int ?? 0) removed.")
            if let failed = result["failed"]?.int, failed > 0 {
                Console.print("\(failed) could not be removed; gateway.log says why.")
            }
        }
    }

    struct Keep: AsyncParsableCommand {
        static let configuration = CommandConfiguration(abstract: "How many days deleted things are kept.")
        @OptionGroup var common: CommonOptions
        @Argument(help: "Days.") var days: Int64

        mutating func run() async throws {
            let result = try await OperatorClient(home: try common.resolveHome()).run(
                .trashKeep, ["days": .int(days)])
            if common.json { return Console.print(.object(result)) }
            Console.print("What agents delete is kept for \(days) days.")
        }
    }
}
