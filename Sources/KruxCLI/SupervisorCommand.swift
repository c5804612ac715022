import ArgumentParser
import KruxCore
import KruxEngine
import KruxStore
import KruxRegistry

struct SupervisorCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "supervisor", abstract: "People who may answer, besides this machine's owner.",
        discussion: """
            Rules name them, or their role, with `approvers:`. A supervisor answers with their token in \
            KRUXOS_SUPERVISOR_TOKEN, or over the supervisors' port. The owner needs no token; an entry under the owner's \
            name gives them a role.
            """, subcommands: [Add.self, List.self, Revoke.self])

    struct Add: AsyncParsableCommand {
        static let configuration = CommandConfiguration(abstract: "Add a supervisor; the token is shown once.")
        @OptionGroup var common: CommonOptions
        @Argument(help: "Their name.") var name: String
        @Option(help: "Their role, for `approvers: role:NAME`.") var role: String?

        mutating func run() async throws {
            let result = try await OperatorClient(home: try common.resolveHome()).run(
                .supervisorAdd, ["name": .string(name), "role": .optional(role)])
            if common.json { return Console.print(.object(result)) }
            Console.print("Supervisor \(name) added.")
            Console.print("Token (shown once): \(result["token"]?.string ?? "-")")
        }
    }

    struct List: AsyncParsableCommand {
        static let configuration = CommandConfiguration(abstract: "List supervisors.")
        @OptionGroup var common: CommonOptions

        mutating func run() async throws {
            let supervisors = try common.openForReading().read(SupervisorTable.all)
            if common.json { return Console.print(.array(supervisors.map { .object($0.json) })) }
            if supervisors.isEmpty { return Console.print("No supervisors but this machine's owner.") }
            var table = Table([
                .init("Name", width: 14), .init("Role", width: 12), .init("Status", width: 9), .init("Added"),
            ])
            table.rows = supervisors.map {
                [$0.name, $0.role ?? "-", $0.revokedAt == nil ? "active" : "revoked", $0.createdAt.short]
            }
            Console.printTable(table.text)
        }
    }

    struct Revoke: AsyncParsableCommand {
        static let configuration = CommandConfiguration(abstract: "Shut a supervisor out; their token is forgotten.")
        @OptionGroup var common: CommonOptions
        @Argument(help: "Their name.") var name: String

        mutating func run() async throws {
            let result = try await OperatorClient(home: try common.resolveHome()).run(
                .supervisorRevoke, ["name": .string(name)])
            if common.json { return Console.print(.object(result)) }
            Console.print("Supervisor \(name) revoked.")
        }
    }
}
