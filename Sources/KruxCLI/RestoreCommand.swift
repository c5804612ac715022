import ArgumentParser
import Foundation
import KruxAudit
import KruxCore
import KruxEngine
import KruxStore

struct RestoreCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "restore", abstract: "Put a backup in the place of the database.",
        discussion: """
            The file is verified first, and the old database is kept beside the new one. A file that is older than what \
            this home has recorded goes on in a new epoch. --accept does the same for a file that was put there by hand.
            """)

    @OptionGroup var common: CommonOptions
    @Argument(help: "The backup.") var file: String?
    @Flag(help: "Go on with the database that lies in the home already.") var accept = false
    @Flag(help: "Do not ask.") var yes = false

    mutating func run() async throws {
        guard (file != nil) != accept else { throw ValidationError("give a backup, or --accept") }
        let home = try common.resolveHome()
        if try OperatorClient.connect(home) != nil {
            throw StructuredError(
                .unavailable, "a gateway runs for this home", recovery: ["Stop it first, then restore."])
        }
        let path = file ?? home.database
        // As what lies in the home may have a log beside it.
        let opener: () throws -> ReadOnlyStore = { [accept] in try ReadOnlyStore(path: path, immutable: !accept) }
        let verdict = try AuditVerifier.verify(opener)
        if !verdict.isIntact, !verdict.isOnlyUnvouched {
            throw StructuredError(
                .ioFailure, "`\(path)` does not verify, so it is not restored: \(verdict.text)",
                recovery: ["Use another backup."])
        }
        let (identity, last) = try opener().read { tx in
            (
                try tx.first("SELECT value FROM meta WHERE key = 'install_id'") { $0.text(0) } ?? "",
                try tx.first("SELECT max(time) FROM audit") { $0.optionalInt(0) } ?? nil
            )
        }
        let before = try? ReadOnlyStore(path: home.database).read {
            try $0.first("SELECT value FROM meta WHERE key = 'install_id'") { $0.text(0) }
        }
        let needsEpoch = try RestoreOperation.needsEpoch(home: home, opener)
        if !common.json {
            let time = last.map { Timestamp(microseconds: $0).rfc3339 } ?? "-"
            Console.print("\(path): \(verdict.rows) rows up to \(time), kruxos/\(identity)")
            if let before = before ?? nil, before != identity {
                Console.print("It is the record of another installation than the one that is here (kruxos/\(before)).")
            }
            for root in verdict.roots where root.ground == nil {
                Console.print(
                    "Epoch \(root.epoch), from row \(root.firstSeq), begins with keys that nobody vouches for.")
            }
            if needsEpoch {
                Console.print("It is not the newest state of this home, or its keys are not here. If you restore it:")
                for line in Engine.restoreConsequences { Console.print("  - \(line)") }
            } else {
                Console.print("It is the newest state of this home: nothing is lost, and nothing else changes.")
            }
        }
        if !yes {
            guard Console.isTerminal else { throw ValidationError("nobody can be asked here; add --yes") }
            guard Console.ask("Restore it?") else { throw KruxExit.failed }
        }
        let result = try RestoreOperation(home: home, log: OperatorClient.log).run(
            file: file, needsEpoch: needsEpoch, by: .supervisor(OperatorClient.user))
        if common.json { return Console.print(.object(result)) }
        if let aside = result["kept"]?.string { Console.print("The old database is kept as \(aside)") }
        if let key = result["root_key"]?.string {
            Console.print("Epoch \(result["epoch"]?.int ?? 0) has begun. Root key: \(key)")
        }
        let suspended = result["suspended"]?.array?.compactMap(\.string) ?? []
        if !suspended.isEmpty {
            Console.print(
                "Suspended: \(suspended.joined(separator: ", ")); `kruxos agent resume NAME` lets them go on.")
        }
    }
}
