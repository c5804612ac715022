import ArgumentParser
import Foundation
import KruxAudit
import KruxCore
import KruxCrypto
import KruxEngine
import KruxStore
import Synchronization

extension AuditCommand {
    /// What somebody knows from elsewhere.
    struct Known: ParsableArguments {
        @Option(
            name: .long, parsing: .singleValue,
            help: "A root key kept elsewhere (`kruxos audit key`), in hex; may be given several times.")
        var trust: [String] = []

        @Option(name: .long, parsing: .singleValue, help: "The verifier key of a witness whose cosignatures count.")
        var witness: [String] = []

        func keys() throws -> [PublicKey] {
            try trust.map { text in
                // A verifier key of a log is its checkpoint key.
                if let note = NoteKey(verifier: text), note.kind == .note { return note.publicKey }
                guard let key = [UInt8](hex: text).flatMap({ PublicKey($0) }) else {
                    throw ValidationError(
                        "--trust `\(text.prefix(80))` is no key; `kruxos audit key` prints it: 64 hex digits")
                }
                return key
            }
        }

        func witnesses() throws -> [NoteKey] {
            try witness.map { text in
                guard let key = NoteKey(verifier: text), key.kind == .cosignature else {
                    throw ValidationError(
                        "--witness `\(text.prefix(80))` is no cosigner's verifier key, `<name>+<id>+<key>`")
                }
                return key
            }
        }
    }

    struct Verify: AsyncParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Check every row: chain, tree, hashes, signatures, keys, columns and schema.",
            discussion: """
                ANCHORED: every row is vouched for by a checkpoint that was kept elsewhere. UNANCHORED: what is there \
                holds together, but nothing proves that the last rows are there. FAILED: the first row that is wrong, \
                and why. In its own home a record is also compared with keys/head and checkpoints.log.
                """)
        @OptionGroup var common: CommonOptions
        @OptionGroup var source: Source
        @OptionGroup var known: Known
        @Option(parsing: .upToNextOption, help: "Files of checkpoints kept elsewhere, or receipts.")
        var anchors: [String] = []
        @Option(
            name: .customLong("from"),
            help: "Check bodies and signatures from this row on; chain and tree are checked throughout.")
        var from: Int64?
        @Option(name: .customLong("to"), help: "Check bodies and signatures up to this row.") var through: Int64?

        mutating func run() async throws {
            var options = AuditVerifier.Options()
            options.trust = try known.keys()
            options.witnesses = try known.witnesses()
            if let from, from < 1 { throw ValidationError("--from is a row's number, from 1 on") }
            if let through, through < (from ?? 1) { throw ValidationError("--to lies before --from") }
            (options.from, options.through) = (from, through)
            for path in anchors { options.anchors.append(try Self.anchor(path)) }
            if source.db == nil {
                let home = try common.resolveHome()
                options.home = home.root
                let local = Engine.localAnchor(home)
                if access(local, F_OK) == 0 { options.anchors.append(try Self.anchor(local)) }
            }
            let bar = ProgressBar("verifying")
            if !common.json { options.progress = { bar.show($0, of: $1) } }
            let opener = try source.opener(common)
            let last = try opener().read { try $0.first("SELECT coalesce(max(seq), 0) FROM audit") { $0.int(0) } } ?? 0
            if let from, from > last { throw ValidationError("--from lies beyond the last row, \(last)") }
            let verdict = try AuditVerifier.verify(opener, options)
            bar.clear()
            if common.json { Console.print(Self.json(verdict)) } else { Self.show(verdict, known) }
            if !verdict.isIntact { throw KruxExit.verificationFailed }
        }

        static func anchor(_ path: String) throws -> AnchorFile {
            guard let data = FileManager.default.contents(atPath: path) else {
                throw ValidationError("the anchor file `\(path)` cannot be read")
            }
            return try AnchorFile(source: path, text: String(decoding: data, as: UTF8.self))
        }

        static func json(_ verdict: AuditVerdict) -> JSONValue {
            [
                "verdict": .string(verdict.word), "rows": .int(verdict.rows), "unanchored": .int(verdict.unanchored),
                "pruned": .int(verdict.pruned), "failed_row": .optional(verdict.firstFailure?.seq),
                "reason": .optional(verdict.firstFailure?.reason),
                "public_key": .optional(verdict.publicKey?.bytes.hex),
                "roots": .array(
                    verdict.roots.map {
                        [
                            "epoch": .int($0.epoch), "first_row": .int($0.firstSeq), "key": .string($0.key.bytes.hex),
                            "believed_because": .optional($0.ground?.rawValue),
                        ]
                    }),
                "anchors": .array(
                    verdict.anchors.map {
                        ["source": .string($0.source), "row": .int($0.seq), "witnesses": .strings($0.witnesses)]
                    }),
            ]
        }

        static func show(_ verdict: AuditVerdict, _ known: Known) {
            if verdict.isIntact {
                let rows = verdict.range.map { "rows \($0.lowerBound) to \($0.upperBound) of \(verdict.rows)" }
                Console.print(
                    "\(rows ?? "\(verdict.rows) rows") verified, signed by \(verdict.publicKey?.bytes.hex ?? "-")")
                for root in verdict.roots {
                    let ground =
                        switch root.ground {
                        case .unpinned: "not pinned: keep it elsewhere and give it as --trust"
                        case .trusted: "trusted by you"
                        case .vouched: "vouched for by the epoch before"
                        case .home: "held by this home"
                        case .named: "named by the next epoch as what was restored"
                        case nil: "-"
                        }
                    Console.print(
                        "epoch \(root.epoch) from row \(root.firstSeq), root key \(root.key.bytes.hex) (\(ground))")
                }
                if verdict.pruned > 0 { Console.print("\(verdict.pruned) bodies were pruned, as the record says") }
                for (source, anchors) in Dictionary(grouping: verdict.anchors, by: \.source).sorted(by: {
                    $0.key < $1.key
                }) {
                    let last = anchors.map(\.seq).max() ?? 0
                    let witnesses = Set(anchors.flatMap(\.witnesses)).sorted()
                    Console.print(
                        "\(anchors.count) \(anchors.count == 1 ? "checkpoint" : "checkpoints") in \(Console.visible(source)), up to row \(last)"
                            + (witnesses.isEmpty ? "" : ", cosigned by \(witnesses.joined(separator: ", "))"))
                }
            }
            Console.print(Console.visible(verdict.text))
        }
    }
}

/// A line on the terminal that says how far something is; nothing where there is no terminal.
final class ProgressBar: Sendable {
    private let title: String
    private let isShown = isatty(STDERR_FILENO) == 1
    private let last = Mutex(-1)

    init(_ title: String) { self.title = title }

    func show(_ done: Int64, of all: Int64) {
        guard isShown, all > 0 else { return }
        let percent = Int(done * 100 / all)
        let isNew = last.withLock { last in
            defer { last = percent }
            return last != percent
        }
        guard isNew else { return }
        let filled = percent * 30 / 100
        let bar = String(repeating: "█", count: filled) + String(repeating: "░", count: 30 - filled)
        FileHandle.standardError.write(Data("\r\(title) \(bar) \(percent)% (\(done) of \(all))".utf8))
    }

    func clear() {
        guard isShown, last.withLock({ $0 >= 0 }) else { return }
        FileHandle.standardError.write(Data("\r\u{1B}[2K".utf8))
    }
}
