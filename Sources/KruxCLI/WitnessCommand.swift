import ArgumentParser
import Foundation
import KruxAudit
import KruxCore
import KruxCrypto
import KruxEngine
import KruxGateway
import KruxStore

struct WitnessCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "witness", abstract: "Cosign the checkpoints of other installations.",
        discussion: """
            A witness remembers the largest tree it has seen of each log and signs only what has grown from it. It runs \
            in a home of its own, best on a machine of its own: `kruxos witness serve --home DIR`. It speaks C2SP \
            tlog-witness, so other logs can use it, too.
            """, subcommands: [Serve.self, Key.self, Log.self])

    /// The witness's name and key. The name is chosen once.
    struct Identity {
        let verifier: NoteKey

        static let nameKey = "witness_name"

        init(_ tx: any ReadTx, home: Home) throws {
            let name = try tx.first("SELECT value FROM meta WHERE key = ?", [.text(Self.nameKey)]) { $0.text(0) }
            guard let name else {
                throw StructuredError(
                    .notFound, "this home is no witness yet",
                    recovery: ["Start it once: kruxos witness serve --name NAME"])
            }
            let key = try KeyFiles(home: home.root).witnessKey()
            verifier = NoteKey(name: name, kind: .cosignature, publicKey: key.publicKey)
        }
    }

    /// The home's store for a change; the running witness has it, and is asked to stop first.
    static func change<R: Sendable>(_ home: Home, _ work: @escaping @Sendable (WriteTx) throws -> R) throws -> R {
        try home.create()
        let lock = try WriterLock(home: home.root)
        let store = try Store(home: home.root, log: OperatorClient.log)
        let result = Result { try store.writer.writeAndWait(work) }
        try store.close()
        _ = consume lock
        return try result.get()
    }

    struct Serve: AsyncParsableCommand {
        static let configuration = CommandConfiguration(abstract: "Run the witness until it is stopped.")
        @OptionGroup var common: CommonOptions
        @Option(help: "The address it is bound to.") var host = "127.0.0.1"
        @Option(help: "The port; 0 for any.") var port = 7900
        @Option(help: "Its name, a schema-less URL such as witness.example/w1; chosen once.") var name: String?

        mutating func run() async throws {
            guard (0...65535).contains(port) else { throw ValidationError("a port is a number from 0 to 65535") }
            let home = try common.resolveHome()
            try home.create()
            let lock = try WriterLock(home: home.root)
            let store = try Store(home: home.root, log: OperatorClient.log)
            let verifier: NoteKey
            do {
                try adopt(store)
                verifier = try store.read { try Identity($0, home: home) }.verifier
                let server = WitnessServer(
                    store: store, verifier: verifier, key: try KeyFiles(home: home.root).witnessKey(),
                    now: { Engine.systemClock.now().microseconds }, log: OperatorClient.log)
                try await server.run(host: host, port: port) { url in
                    Console.print("witness      \(url)")
                    Console.print("verifier     \(verifier.verifier)")
                }
            } catch {
                try store.close()
                throw error
            }
            try store.close()
            _ = consume lock
        }

        private func adopt(_ store: Store) throws {
            let known = try store.read { tx in
                try tx.first("SELECT value FROM meta WHERE key = ?", [.text(Identity.nameKey)]) { $0.text(0) }
            }
            if let known, name == nil || name == known { return }
            if let known {
                throw StructuredError(
                    .conflict, "this witness is called `\(known)`", recovery: ["Leave --name out, or use another home."]
                )
            }
            let chosen = name ?? "kruxos-witness/\(randomBytes(8).hex)"
            guard NoteKey.isName(chosen), chosen.utf8.count <= 200 else {
                throw ValidationError("--name `\(chosen.prefix(80))` is no name: no spaces and no `+`")
            }
            try store.writer.writeAndWait { tx in
                try tx.execute(
                    "INSERT INTO meta (key, value) VALUES (?, ?)", [.text(Identity.nameKey), .text(chosen)])
            }
        }
    }

    struct Key: AsyncParsableCommand {
        static let configuration = CommandConfiguration(abstract: "Print the witness's verifier key.")
        @OptionGroup var common: CommonOptions

        mutating func run() async throws {
            let home = try common.resolveHome()
            let verifier = try common.openForReading().read { try Identity($0, home: home) }.verifier.verifier
            if common.json { return Console.print(["verifier": .string(verifier)]) }
            Console.print(verifier)
        }
    }

    struct Log: AsyncParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Choose whose checkpoints are cosigned.", subcommands: [Add.self, List.self, Remove.self])

        struct Add: AsyncParsableCommand {
            static let configuration = CommandConfiguration(
                abstract: "Witness a log, by its verifier key (`kruxos audit key` there).",
                discussion: "Done while the witness is stopped.")
            @OptionGroup var common: CommonOptions
            @Argument(help: "Its verifier key.") var verifier: String

            mutating func run() async throws {
                guard let key = NoteKey(verifier: verifier), key.kind == .note else {
                    throw ValidationError("`\(verifier.prefix(80))` is no log's verifier key, `<origin>+<id>+<key>`")
                }
                try WitnessCommand.change(try common.resolveHome()) { try Witness.add($0, key) }
                if common.json { return Console.print(["origin": .string(key.name)]) }
                Console.print("\(key.name) is witnessed.")
            }
        }

        struct List: AsyncParsableCommand {
            static let configuration = CommandConfiguration(abstract: "List the logs and how far they are.")
            @OptionGroup var common: CommonOptions

            mutating func run() async throws {
                let logs = try common.openForReading().read(Witness.logs)
                if common.json {
                    return Console.print(
                        .array(
                            logs.map {
                                [
                                    "origin": .string($0.verifier.name), "verifier": .string($0.verifier.verifier),
                                    "size": .int($0.size), "seen_at": .optional($0.seenAt?.rfc3339),
                                ]
                            }))
                }
                var table = Table([.init("Size"), .init("Seen"), .init("Log")])
                table.rows = logs.map { ["\($0.size)", $0.seenAt?.short ?? "never", $0.verifier.name] }
                Console.print(logs.isEmpty ? "No logs. Add one with `kruxos witness log add`." : table.text)
            }
        }

        struct Remove: AsyncParsableCommand {
            static let configuration = CommandConfiguration(
                abstract: "Stop witnessing a log; what was seen of it is forgotten.")
            @OptionGroup var common: CommonOptions
            @Argument(help: "Its origin.") var origin: String

            mutating func run() async throws {
                let origin = origin
                try WitnessCommand.change(try common.resolveHome()) { try Witness.remove($0, origin) }
                Console.print("\(origin) is not witnessed any more.")
            }
        }
    }
}
