package import KruxCore
package import KruxCrypto
package import KruxStore

/// Somewhere checkpoints are sent.
package struct AnchorTarget: Sendable {
    package enum Kind: Sendable, Equatable {
        /// Appended to a file.
        case file(path: String)
        /// A program that gets the checkpoint on its standard input.
        case command(arguments: [String])
        /// A C2SP witness by its submission prefix and verifier key; its cosignature is kept.
        case witness(url: String, verifier: NoteKey)
    }

    package let number: Int64
    package let kind: Kind
    package let everySeconds: Int64
    /// The last checkpoint that arrived.
    package let sent: (epoch: Int64, size: Int64, at: Timestamp)?
    package let failingSince: Timestamp?
    package let problem: String?

    package var json: JSONObject {
        let (name, target, verifier) = AnchorTable.columns(kind)
        return [
            "number": .int(number), "kind": .string(name), "target": .string(target), "verifier": .optional(verifier),
            "every_seconds": .int(everySeconds), "sent_epoch": .optional(sent?.epoch),
            "sent_size": .optional(sent?.size),
            "sent_at": .optional(sent?.at.rfc3339), "failing_since": .optional(failingSince?.rfc3339),
            "problem": .optional(problem),
        ]
    }
}

package enum AnchorTable {
    static func columns(_ kind: AnchorTarget.Kind) -> (kind: String, target: String, verifier: String?) {
        switch kind {
        case .file(let path): ("file", path, nil)
        case .command(let arguments): ("command", JSONValue.strings(arguments).canonicalText, nil)
        case .witness(let url, let verifier): ("witness", url, verifier.verifier)
        }
    }

    package static func all(_ tx: any ReadTx) throws -> [AnchorTarget] {
        try tx.rows(
            "SELECT number, kind, target, verifier, every_seconds, sent_epoch, sent_size, sent_at, failing_since, problem FROM anchors ORDER BY number"
        ) { row in
            let target = row.text(2)
            let kind: AnchorTarget.Kind
            switch row.text(1) {
            case "file": kind = .file(path: target)
            case "command":
                let parsed = (try? JSONParser.parse(target))?.array?.compactMap(\.string) ?? []
                guard !parsed.isEmpty else { throw StoreError(.corrupt, "anchor \(row.int(0)) cannot be read") }
                kind = .command(arguments: parsed)
            default:
                guard let verifier = row.optionalText(3).flatMap({ NoteKey(verifier: $0) }) else {
                    throw StoreError(.corrupt, "anchor \(row.int(0)) cannot be read")
                }
                kind = .witness(url: target, verifier: verifier)
            }
            var sent: (epoch: Int64, size: Int64, at: Timestamp)?
            if let epoch = row.optionalInt(5), let size = row.optionalInt(6), let at = row.optionalInt(7) {
                sent = (epoch, size, Timestamp(microseconds: at))
            }
            return AnchorTarget(
                number: row.int(0), kind: kind, everySeconds: row.int(4), sent: sent,
                failingSince: row.optionalInt(8).map(Timestamp.init(microseconds:)), problem: row.optionalText(9))
        }
    }

    package static func add(_ tx: WriteTx, _ kind: AnchorTarget.Kind, everySeconds: Int64, now: Timestamp) throws
        -> Int64
    {
        let (name, target, verifier) = columns(kind)
        if try tx.first("SELECT 1 FROM anchors WHERE target = ?", [.text(target)], { $0.int(0) }) != nil {
            throw StructuredError(
                .alreadyExists, "checkpoints go there already", recovery: ["See `kruxos audit anchor list`."])
        }
        let number = try tx.first("SELECT coalesce(max(number), 0) + 1 FROM anchors") { $0.int(0) } ?? 1
        try tx.execute(
            "INSERT INTO anchors (number, kind, target, verifier, every_seconds, created_at) VALUES (?, ?, ?, ?, ?, ?)",
            [
                .int(number), .text(name), .text(target), .optional(verifier), .int(everySeconds),
                .int(now.microseconds),
            ])
        return number
    }

    package static func remove(_ tx: WriteTx, _ number: Int64) throws {
        guard try tx.execute("DELETE FROM anchors WHERE number = ?", [.int(number)]) == 1 else {
            throw StructuredError(
                .notFound, "there is no anchor \(number)", recovery: ["See `kruxos audit anchor list`."])
        }
    }

    package static func arrived(
        _ tx: WriteTx, _ number: Int64, epoch: Int64, size: Int64, cosignature: SignedNote.Line?, now: Timestamp
    ) throws {
        try tx.execute(
            "UPDATE anchors SET sent_epoch = ?, sent_size = ?, sent_at = ?, failing_since = NULL, problem = NULL WHERE number = ?",
            [.int(epoch), .int(size), .int(now.microseconds), .int(number)])
    }

    /// Keeps a checkpoint with the cosignatures it got.
    package static func keep(_ tx: WriteTx, _ note: SignedNote, epoch: Int64, size: Int64) throws {
        let known = try tx.first(
            "SELECT note FROM checkpoints WHERE epoch = ? AND size = ?", [.int(epoch), .int(size)]
        ) { $0.text(0) }
        var merged = note
        if let known = known.flatMap({ SignedNote($0) }), known.text == note.text {
            merged.lines = known.lines + note.lines.filter { !known.lines.contains($0) }
        }
        try tx.execute(
            "INSERT INTO checkpoints (epoch, size, note, cosigned) VALUES (?, ?, ?, 1) ON CONFLICT (epoch, size) DO UPDATE SET note = excluded.note, cosigned = 1",
            [.int(epoch), .int(size), .text(merged.encoded)])
    }

    package static func failed(_ tx: WriteTx, _ number: Int64, _ problem: String, now: Timestamp) throws {
        try tx.execute(
            "UPDATE anchors SET problem = ?, failing_since = coalesce(failing_since, ?) WHERE number = ?",
            [.text(String(problem.prefix(500))), .int(now.microseconds), .int(number)])
    }

    /// The proof that the tree of an epoch only grew between two sizes.
    package static func consistency(_ tx: any ReadTx, epoch: Int64, from old: Int64, to size: Int64) throws -> [Digest]
    {
        let installID = try tx.first("SELECT value FROM meta WHERE key = 'install_id'") { $0.text(0) } ?? ""
        let firstSeq = try tx.first("SELECT first_seq FROM epochs WHERE epoch = ?", [.int(epoch)]) { $0.int(0) } ?? 1
        let tree = TileTree(tx, installID: installID, epoch: epoch, firstSeq: firstSeq, size: size)
        return try MerkleTree.consistency(from: old, to: size, tree)
    }
}

/// The keys by which an epoch is known elsewhere.
package struct EpochKeys: Sendable {
    package let epoch: Int64
    /// The first row key.
    package let root: PublicKey
    package let checkpoint: NoteKey?

    package static func all(_ tx: any ReadTx) throws -> [EpochKeys] {
        let installID = try tx.first("SELECT value FROM meta WHERE key = 'install_id'") { $0.text(0) } ?? ""
        let epochs = try tx.rows(
            "SELECT epochs.epoch, keys.public_key FROM epochs JOIN audit ON audit.seq = first_seq JOIN keys ON keys.key_id = audit.key_id ORDER BY epochs.epoch"
        ) { ($0.int(0), $0.blob(1)) }
        return try epochs.compactMap { epoch, bytes in
            guard let root = PublicKey(bytes) else { return nil }
            let checkpoint =
                try tx.first(
                    "SELECT public_key FROM keys WHERE epoch = ? AND purpose = 'checkpoint'", [.int(epoch)]
                ) { PublicKey($0.blob(0)) } ?? nil
            let origin = RowFormat.origin(installID: installID, epoch: epoch)
            return EpochKeys(
                epoch: epoch, root: root,
                checkpoint: checkpoint.map { NoteKey(name: origin, kind: .note, publicKey: $0) })
        }
    }
}
