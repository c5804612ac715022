import ArgumentParser
import Foundation
import KruxCapabilities
import KruxCore
import KruxEngine
import KruxSandbox
import KruxStore

struct MountCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "mount", abstract: "Folders of the machine that an agent sees beside its workspace.",
        discussion: """
            An agent names what is in them as /mnt/LABEL/PATH, and so do policies. Its rules, protected names and the \
            trash are those of the workspace; its quota is not.
            Example: kruxos mount add coder --source ~/projects/site --target /mnt/site
            """,
        subcommands: [Add.self, List.self, Remove.self])

    struct Add: AsyncParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Mount a folder, from the agent's next call on.",
            discussion: """
                No folder of the machine's own (/proc, /dev, /run), none of the gate's, and none that another mount of \
                the agent holds. Where the gateway runs as root, agents' processes run as a user of their own \
                (\(Confinement.agentUser)): give that user access to what they are to change.
                """)
        @OptionGroup var common: CommonOptions
        @Argument(help: "The agent.") var agent: String
        @Option(help: ArgumentHelp("The folder.", valueName: "folder")) var source: String
        @Option(help: ArgumentHelp("Where the agent sees it.", valueName: "/mnt/LABEL")) var target: String
        @Flag(help: "It may be read and not changed.") var readOnly = false

        mutating func run() async throws {
            guard let path = realpath(source, nil) else {
                throw StructuredError(
                    .notFound, "there is no folder `\(source)`: \(String(cString: strerror(errno)))",
                    recovery: ["Name a folder that is there."])
            }
            defer { free(path) }
            let result = try await OperatorClient(home: try common.resolveHome()).run(
                .mountAdd,
                [
                    "agent": .string(agent), "source": .string(String(cString: path)), "target": .string(target),
                    "read_only": .bool(readOnly),
                ])
            if common.json { return Console.print(.object(result)) }
            let verb = readOnly ? "reads" : "reads and writes"
            Console.print(
                "\(agent) \(verb) \(Console.visible(result["source"]?.string ?? "")) at \(result["target"]?.string ?? "")."
            )
        }
    }

    struct List: AsyncParsableCommand {
        static let configuration = CommandConfiguration(abstract: "List what is mounted.")
        @OptionGroup var common: CommonOptions
        @Option(help: "For this agent alone.") var agent: String?

        mutating func run() async throws {
            let (agent, home) = (agent, try common.resolveHome())
            let mounts = try common.openForReading().read { try MountTable.all($0, agent: agent) }
            let rows = mounts.map { entry -> (json: JSONObject, problem: String?) in
                do throws(StructuredError) {
                    close(try entry.mount.open(home: home.root))
                    return (Engine.json(entry.mount, of: entry.agent), nil)
                } catch {
                    return (Engine.json(entry.mount, of: entry.agent), error.description)
                }
            }
            if common.json {
                return Console.print(
                    .array(
                        rows.map { row in
                            var json = row.json
                            if let problem = row.problem { json["problem"] = .string(problem) }
                            return .object(json)
                        }))
            }
            if rows.isEmpty { return Console.print("Nothing is mounted.") }
            var table = Table([
                .init("Agent", width: 14), .init("Target", width: 20), .init("Access", width: 11), .init("Source"),
            ])
            table.rows = zip(mounts, rows).map { entry, row in
                [
                    entry.agent, entry.mount.target, entry.mount.isReadOnly ? "read-only" : "read-write",
                    Console.visible(entry.mount.source) + (row.problem == nil ? "" : " (not there)"),
                ]
            }
            Console.printTable(table.text)
            for problem in rows.compactMap(\.problem) { Console.printError("warning: \(Console.visible(problem))") }
        }
    }

    struct Remove: AsyncParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Take a mount away; the folder and what is in it stay.",
            discussion: "What already runs keeps it until it ends; `kruxos agent revoke` ends everything.")
        @OptionGroup var common: CommonOptions
        @Argument(help: "The agent.") var agent: String
        @Argument(help: "Where the agent sees it: /mnt/LABEL.") var target: String

        mutating func run() async throws {
            let result = try await OperatorClient(home: try common.resolveHome()).run(
                .mountRemove, ["agent": .string(agent), "target": .string(target)])
            if common.json { return Console.print(.object(result)) }
            Console.print("\(agent) no longer sees \(Console.visible(result["source"]?.string ?? "")).")
        }
    }
}
