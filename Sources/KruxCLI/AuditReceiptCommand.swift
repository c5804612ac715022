import ArgumentParser
import Foundation
import KruxAudit
import KruxCore
import KruxCrypto
import KruxEngine
import KruxStore

extension AuditCommand {
    struct Receipt: AsyncParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Write a proof that a row is in the record, which anybody can check without it.",
            discussion: "The format is C2SP tlog-proof@v1. A receipt that is kept elsewhere is an anchor, too.")
        @OptionGroup var common: CommonOptions
        @OptionGroup var source: Source
        @Argument(help: "The row's number.") var seq: Int64
        @Option(help: "The file to write (default: standard output).") var out: String?

        mutating func run() async throws {
            // The gateway signs a checkpoint that covers every row there is.
            if source.db == nil, let connection = try OperatorClient.connect(try common.resolveHome()) {
                _ = try OperatorClient.ask(connection, Engine.OperatorCommand.auditCheckpoint.rawValue, [:])
            }
            let seq = seq
            let receipt = try source.open(common).read { try KruxAudit.Receipt.make($0, seq: seq) }
            guard let out else { return FileHandle.standardOutput.write(Data(receipt.text.utf8)) }
            do { try Data(receipt.text.utf8).write(to: URL(fileURLWithPath: out), options: .atomic) } catch {
                throw StructuredError(
                    .ioFailure, "cannot write `\(out)`: \(error.localizedDescription)",
                    recovery: ["Choose another file."])
            }
            Console.print("Receipt of row \(seq) written to \(Console.visible(out))")
        }
    }

    struct VerifyReceipt: AsyncParsableCommand {
        static let configuration = CommandConfiguration(
            commandName: "verify-receipt", abstract: "Check a receipt; needs no database, home or gateway.")
        @OptionGroup var known: Known
        @Flag(name: .long, help: "Print JSON.") var json = false
        @Argument(help: "The receipt, or - for standard input.") var file: String

        mutating func run() async throws {
            let data =
                file == "-"
                ? FileHandle.standardInput.readDataToEndOfFile() : FileManager.default.contents(atPath: file)
            guard let data, data.count <= 64 << 20 else {
                throw ValidationError("the receipt `\(file)` cannot be read")
            }
            let receipt: KruxAudit.Receipt
            let verified: KruxAudit.Receipt.Verified
            do {
                guard let text = String(data: data, encoding: .utf8) else {
                    throw AuditError(.inconsistent, "this is no receipt: it is no UTF-8")
                }
                receipt = try KruxAudit.Receipt(text)
                verified = try receipt.verify(trusted: try known.keys(), witnesses: try known.witnesses())
            } catch let error as AuditError {
                if json {
                    Console.print(["verdict": "FAILED", "reason": .string(error.message)])
                } else {
                    Console.print("FAILED: \(Console.visible(error.message))")
                }
                throw KruxExit.verificationFailed
            }
            let body = try JSONParser.parse(receipt.row.body)
            if json {
                return Console.print([
                    "verdict": "VERIFIED", "row": .int(receipt.row.seq), "epoch": .int(receipt.epoch),
                    "origin": .string(verified.checkpoint.origin), "size": .int(verified.checkpoint.size),
                    "root_key": .string(receipt.keyRow.key.bytes.hex), "trusted": .bool(verified.isTrusted),
                    "witnesses": .array(
                        verified.witnesses.map { ["name": .string($0.name), "time": .int($0.seconds)] }), "body": body,
                ])
            }
            Console.print(
                "VERIFIED: row \(receipt.row.seq) is in \(verified.checkpoint.origin) of \(verified.checkpoint.size) rows"
            )
            let key = receipt.keyRow.key.bytes.hex
            Console.print(
                verified.isTrusted
                    ? "Root key \(key) (trusted by you)"
                    : "Root key \(key) (not pinned: compare it with what you were told, or give it as --trust)")
            for witness in verified.witnesses {
                let time = Timestamp(microseconds: witness.seconds * 1_000_000)
                Console.print("Cosigned by \(witness.name) at \(time.rfc3339)")
            }
            let unchecked = receipt.note.lines.count - 1 - verified.witnesses.count
            if unchecked > 0 {
                Console.print(
                    "\(unchecked) other signatures on the checkpoint were not checked: name their keys with --witness")
            }
            Console.print(body.prettyText())
        }
    }

    struct Key: AsyncParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Print the root key of the record and the verifier key of its checkpoints.",
            discussion:
                "Keep the root key elsewhere: `audit verify --trust` pins it. A witness is given the verifier key.")
        @OptionGroup var common: CommonOptions
        @OptionGroup var source: Source

        mutating func run() async throws {
            let keys = try source.open(common).read { try EpochKeys.all($0) }
            if common.json {
                return Console.print(
                    .array(
                        keys.map {
                            [
                                "epoch": .int($0.epoch), "root_key": .string($0.root.bytes.hex),
                                "verifier": .optional($0.checkpoint?.verifier),
                            ]
                        }))
            }
            for key in keys {
                if keys.count > 1 { Console.print("Epoch \(key.epoch)") }
                Console.print("Root key: \(key.root.bytes.hex)")
                if let verifier = key.checkpoint?.verifier { Console.print("Verifier: \(verifier)") }
            }
        }
    }

    struct Checkpoint: AsyncParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Print the newest checkpoint, to be kept elsewhere as an anchor.")
        @OptionGroup var common: CommonOptions
        @OptionGroup var source: Source

        mutating func run() async throws {
            if source.db == nil, let connection = try OperatorClient.connect(try common.resolveHome()) {
                _ = try OperatorClient.ask(connection, Engine.OperatorCommand.auditCheckpoint.rawValue, [:])
            }
            let note = try source.open(common).read {
                try $0.first("SELECT note FROM checkpoints ORDER BY epoch DESC, size DESC LIMIT 1") { $0.text(0) }
            }
            guard let note else {
                throw AuditError(.notFound, "the record has no checkpoint yet", hint: "start the gateway")
            }
            if common.json { return Console.print(["checkpoint": .string(note)]) }
            FileHandle.standardOutput.write(Data(note.utf8))
        }
    }

    struct Anchor: AsyncParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Choose where checkpoints are sent.", subcommands: [Add.self, List.self, Remove.self, Send.self])

        struct Add: AsyncParsableCommand {
            static let configuration = CommandConfiguration(
                abstract: "Send each checkpoint to a file, a command or a witness.",
                discussion: """
                    --file appends to a file, best one on another machine. --command runs a program of yours with the \
                    checkpoint on its standard input. --witness submits to a C2SP witness and keeps its cosignature.
                    """)
            @OptionGroup var common: CommonOptions
            @Option(help: "A file to append to.") var file: String?
            @Option(help: "A shell command that reads the checkpoint.") var command: String?
            @Option(help: "A witness's submission prefix, such as https://witness.example/w1.") var witness: String?
            @Option(help: "The witness's verifier key.") var key: String?
            @Option(help: "How often at most, when there is something new: 10s, 5m, 1h …") var every = "5m"

            mutating func run() async throws {
                guard [file, command, witness].compactMap({ $0 }).count == 1 else {
                    throw ValidationError("give one of --file, --command and --witness")
                }
                guard (witness == nil) == (key == nil) else {
                    throw ValidationError("--witness and --key belong together")
                }
                guard let interval = HumanDuration(every) else {
                    throw ValidationError("--every `\(every)` is no duration; write 10s, 5m or 1h")
                }
                let target: (String, String)
                if let file {
                    target = (
                        "file", file.hasPrefix("/") ? file : FileManager.default.currentDirectoryPath + "/" + file
                    )
                } else if let command {
                    target = ("command", JSONValue.strings(["/bin/sh", "-c", command]).canonicalText)
                } else {
                    target = ("witness", witness ?? "")
                }
                let result = try await OperatorClient(home: try common.resolveHome()).run(
                    .anchorAdd,
                    [
                        "kind": .string(target.0), "target": .string(target.1), "verifier": .optional(key),
                        "every_seconds": .int(interval.seconds),
                    ])
                if common.json { return Console.print(.object(result)) }
                Console.print(
                    "Anchor \(result["number"]?.int ?? 0) added; `kruxos audit anchor send` tries it now.")
            }
        }

        struct List: AsyncParsableCommand {
            static let configuration = CommandConfiguration(abstract: "List anchors and how far they are.")
            @OptionGroup var common: CommonOptions

            mutating func run() async throws {
                Anchor.show(try common.openForReading().read(AnchorTable.all).map(\.json), json: common.json)
            }
        }

        struct Remove: AsyncParsableCommand {
            static let configuration = CommandConfiguration(abstract: "Stop sending checkpoints somewhere.")
            @OptionGroup var common: CommonOptions
            @Argument(help: "The anchor's number.") var number: Int64

            mutating func run() async throws {
                let result = try await OperatorClient(home: try common.resolveHome()).run(
                    .anchorRemove, ["number": .int(number)])
                if common.json { return Console.print(.object(result)) }
                Console.print("Anchor \(number) removed.")
            }
        }

        struct Send: AsyncParsableCommand {
            static let configuration = CommandConfiguration(abstract: "Send the newest checkpoint now.")
            @OptionGroup var common: CommonOptions
            @Argument(help: "The anchor's number; all without one.") var number: Int64?

            mutating func run() async throws {
                let result = try await OperatorClient(home: try common.resolveHome()).run(
                    .anchorSend, ["number": .optional(number)])
                let anchors = (result["anchors"]?.array ?? []).compactMap(\.object)
                Anchor.show(anchors, json: common.json)
                let tried = anchors.filter { number == nil || $0["number"]?.int == number }
                if tried.contains(where: { $0["problem"]?.string != nil }) { throw KruxExit.failed }
                if let number, tried.isEmpty {
                    throw StructuredError(
                        .notFound, "there is no anchor \(number)", recovery: ["See `kruxos audit anchor list`."])
                }
            }
        }

        static func show(_ anchors: [JSONObject], json: Bool) {
            if json { return Console.print(.array(anchors.map { .object($0) })) }
            if anchors.isEmpty {
                return Console.print(
                    "No anchors: checkpoints are kept in this home only. Add one with `kruxos audit anchor add`.")
            }
            var table = Table([
                .init("No."), .init("Kind"), .init("Every"), .init("Sent"), .init("Rows"), .init("Target"),
                .init("Problem"),
            ])
            table.rows = anchors.map { anchor in
                [
                    "\(anchor["number"]?.int ?? 0)", anchor["kind"]?.string ?? "-",
                    HumanDuration.short(anchor["every_seconds"]?.int ?? 0),
                    anchor["sent_at"]?.string.flatMap(Timestamp.init(parsing:))?.short ?? "never",
                    anchor["sent_size"]?.int.map { "\($0)" } ?? "-", anchor["target"]?.string ?? "-",
                    anchor["problem"]?.string ?? "",
                ]
            }
            Console.print(table.text)
        }
    }

    struct Prune: AsyncParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Forget the bodies of old calls; proofs still verify.",
            discussion: """
                What calls asked for and got is overwritten in the file; that they were made stays, with its hash and \
                signature. A signed row says what was forgotten and by whom. Nothing brings it back. Changes of \
                policies, agents and keys are kept.
                """)
        @OptionGroup var common: CommonOptions
        @Option(help: "How old: 30d, 90d, 52w …") var olderThan: String
        @Flag(help: "Do not ask.") var yes = false

        mutating func run() async throws {
            guard let age = HumanDuration(olderThan) else {
                throw ValidationError("--older-than `\(olderThan)` is no duration; write 90d")
            }
            if !yes {
                guard Console.isTerminal else { throw ValidationError("nobody can be asked here; add --yes") }
                guard Console.ask("Forget what calls older than \(HumanDuration.short(age.seconds)) asked for and got?")
                else { throw KruxExit.failed }
            }
            let result = try await OperatorClient(home: try common.resolveHome()).run(
                .auditPrune, ["older_than_seconds": .int(age.seconds)])
            if common.json { return Console.print(.object(result)) }
            let bodies = result["bodies"]?.int ?? 0
            Console.print(
                bodies == 0
                    ? "Nothing is older than \(olderThan)."
                    : "\(bodies) bodies up to row \(result["through"]?.int ?? 0) forgotten; row \(result["audit_seq"]?.int ?? 0) says so."
            )
        }
    }
}
