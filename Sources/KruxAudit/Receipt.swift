import Foundation
import KruxCore
package import KruxCrypto
package import KruxStore

/// One row with the proof that it is in the record: C2SP `tlog-proof@v1` (c2sp.org/tlog-proof), followed by a line and
/// the row itself, so that nothing else is needed to check it.
///
///     c2sp.org/tlog-proof@v1
///     extra <base64 of the JSON below>
///     index <row's index in its epoch's tree>
///     <inclusion proof, a base64 hash per line>
///
///     <checkpoint: origin, size, root>
///
///     — <origin> <signature>
///
/// The extra data is canonical JSON: `{"v":1,"epoch","row":ROW,"key_row":ROW,"checkpoint_key"}`, a ROW being
/// `{"seq","prev","key","sig","body"}` with hash, public key and signature in hex and the body as text. `key_row` is the
/// row that brought the checkpoint key, signed by the epoch's root key. None of it is believed: the leaf is computed from
/// `row`, the proof binds the leaf to the checkpoint, and `key_row` binds the checkpoint's key to the root key.
package struct Receipt: Sendable {
    static let firstLine = "c2sp.org/tlog-proof@v1"

    package struct Row: Sendable {
        package let seq: Int64
        package let prev: Digest
        package let key: PublicKey
        package let signature: [UInt8]
        package let body: String

        init?(_ json: JSONValue?) {
            guard let json, json.object?.count == 5, let seq = json["seq"]?.int, seq >= 1,
                let prev = json["prev"]?.string.flatMap({ Digest(hex: $0) }),
                let key = json["key"]?.string.flatMap({ [UInt8](hex: $0) }).flatMap({ PublicKey($0) }),
                let signature = json["sig"]?.string.flatMap({ [UInt8](hex: $0) }), let body = json["body"]?.string
            else { return nil }
            (self.seq, self.prev, self.key, self.signature, self.body) = (seq, prev, key, signature, body)
        }

        init(seq: Int64, prev: Digest, key: PublicKey, signature: [UInt8], body: String) {
            (self.seq, self.prev, self.key, self.signature, self.body) = (seq, prev, key, signature, body)
        }

        var json: JSONValue {
            [
                "seq": .int(seq), "prev": .string(prev.hex), "key": .string(key.bytes.hex),
                "sig": .string(signature.hex), "body": .string(body),
            ]
        }

        /// Nil unless the signature is right.
        func leaf(origin: String, epoch: Int64) -> Digest? {
            let head = RowFormat.head(
                originDigest: sha256(Array(origin.utf8)), epoch: epoch, seq: seq, prev: prev, keyID: key.id,
                bodyHash: sha256(Array(body.utf8)))
            return key.verifies(signature, head) ? RowFormat.leaf(head: head, signature: signature) : nil
        }
    }

    package let epoch: Int64, index: Int64
    package let row: Row
    /// The row that brought the checkpoint key; its own key is the epoch's root.
    package let keyRow: Row
    package let checkpointKey: PublicKey
    package let proof: [Digest]
    package let note: SignedNote

    /// The receipt of a row, by the newest checkpoint of its epoch that covers it, a cosigned one if there is one.
    /// - Throws: `AuditError` `.notFound` for a row that is not there or was pruned.
    package static func make(_ tx: any ReadTx, seq: Int64) throws -> Receipt {
        let installID = try tx.first("SELECT value FROM meta WHERE key = 'install_id'") { $0.text(0) } ?? ""
        let epoch = try tx.first("SELECT epoch FROM audit WHERE seq = ?", [.int(seq)]) { $0.int(0) }
        guard let epoch else {
            throw AuditError(.notFound, "there is no row \(seq)", hint: "see `kruxos audit query`")
        }
        func bad() -> AuditError {
            AuditError(.inconsistent, "row \(seq) cannot be proved", hint: "run `kruxos audit verify`")
        }
        let keys = try tx.rows("SELECT purpose, public_key FROM keys WHERE epoch = ?", [.int(epoch)]) {
            ($0.text(0), PublicKey($0.blob(1)))
        }
        func row(_ seq: Int64) throws -> Row {
            let found = try tx.first("SELECT prev, key_id, sig, body FROM audit WHERE seq = ?", [.int(seq)]) {
                ($0.blob(0), $0.blob(1), $0.blob(2), $0.optionalText(3))
            }
            guard let (prev, keyID, signature, body) = found, let prev = Digest(prev),
                let key = keys.compactMap(\.1).first(where: { $0.id.bytes == keyID })
            else { throw bad() }
            guard let body else {
                throw AuditError(
                    .notFound, "the body of row \(seq) was pruned, so a receipt would show nothing",
                    hint: "a receipt made before still verifies")
            }
            return Row(seq: seq, prev: prev, key: key, signature: signature, body: body)
        }
        let keySeq = try tx.first(
            "SELECT seq FROM audit WHERE phase IN ('key', 'prune') AND epoch = ? AND json_extract(body, '$.detail.checkpoint_key') IS NOT NULL ORDER BY seq LIMIT 1",
            [.int(epoch)]
        ) { $0.int(0) }
        guard let checkpointKey = keys.first(where: { $0.0 == "checkpoint" })?.1, let keySeq,
            let firstSeq = try tx.first("SELECT first_seq FROM epochs WHERE epoch = ?", [.int(epoch)], { $0.int(0) })
        else { throw bad() }
        let index = seq - firstSeq
        let newest = try tx.first(
            "SELECT note FROM checkpoints WHERE epoch = ? AND size > ? ORDER BY cosigned DESC, size DESC LIMIT 1",
            [.int(epoch), .int(index)]
        ) { $0.text(0) }
        guard let note = newest.flatMap({ SignedNote($0) }), let checkpoint = Checkpoint(note.text) else {
            throw AuditError(
                .notFound, "no checkpoint covers row \(seq) yet",
                hint: "one is signed within a second while the gateway runs; for a copy, make it anew")
        }
        let tree = TileTree(tx, installID: installID, epoch: epoch, firstSeq: firstSeq, size: checkpoint.size)
        let proof = try MerkleTree.inclusion(index: index, size: checkpoint.size, tree)
        return Receipt(
            epoch: epoch, index: index, row: try row(seq), keyRow: try row(keySeq), checkpointKey: checkpointKey,
            proof: proof, note: note)
    }

    private init(
        epoch: Int64, index: Int64, row: Row, keyRow: Row, checkpointKey: PublicKey, proof: [Digest], note: SignedNote
    ) {
        self.epoch = epoch
        self.index = index
        self.row = row
        self.keyRow = keyRow
        self.checkpointKey = checkpointKey
        self.proof = proof
        self.note = note
    }

    package var text: String {
        let extra: JSONValue = [
            "v": 1, "epoch": .int(epoch), "row": row.json, "key_row": keyRow.json,
            "checkpoint_key": .string(checkpointKey.bytes.hex),
        ]
        let lines =
            [Self.firstLine, "extra \(Base64.encode(extra.canonicalBytes()))", "index \(index)"]
            + proof.map { Base64.encode($0.bytes) }
        return lines.joined(separator: "\n") + "\n\n" + note.encoded
    }

    private static func bad(_ why: String) -> AuditError {
        AuditError(.inconsistent, "this is no receipt: \(why)", hint: "make one with `kruxos audit receipt SEQ`")
    }

    /// - Throws: `AuditError` `.inconsistent` for anything but a receipt, byte for byte.
    package init(_ text: String) throws {
        guard let end = text.range(of: "\n\n") else { throw Self.bad("it has no checkpoint") }
        let lines = text[..<end.lowerBound].split(separator: "\n", omittingEmptySubsequences: false).map(String.init)
        guard lines.count >= 3, lines[0] == Self.firstLine else { throw Self.bad("its first line is another") }
        guard lines[1].hasPrefix("extra "), let extraBytes = Base64.decode(String(lines[1].dropFirst(6))),
            let extra = try? JSONParser.parse(extraBytes), extra.canonicalBytes() == extraBytes
        else { throw Self.bad("the row is not in it") }
        guard lines[2].hasPrefix("index "), let index = Checkpoint.size(lines[2].dropFirst(6)) else {
            throw Self.bad("its index cannot be read")
        }
        let proof = lines[3...].compactMap { Base64.decode($0).flatMap { Digest($0) } }
        guard proof.count == lines.count - 3, proof.count <= 63 else { throw Self.bad("its proof cannot be read") }
        guard let note = SignedNote(String(text[end.upperBound...])), Checkpoint(note.text) != nil else {
            throw Self.bad("its checkpoint cannot be read")
        }
        guard extra["v"]?.int == 1, let epoch = extra["epoch"]?.int, epoch >= 1, let row = Row(extra["row"]),
            let keyRow = Row(extra["key_row"]),
            let checkpointKey = extra["checkpoint_key"]?.string.flatMap({ [UInt8](hex: $0) }).flatMap({ PublicKey($0) })
        else { throw Self.bad("the row in it cannot be read") }
        self.init(
            epoch: epoch, index: index, row: row, keyRow: keyRow, checkpointKey: checkpointKey, proof: proof, note: note
        )
        guard self.text == text else { throw Self.bad("it is not written as receipts are") }
    }

    package struct Verified: Sendable {
        package let checkpoint: Checkpoint
        /// The name, and the time in seconds since 1970.
        package let witnesses: [(name: String, seconds: Int64)]
        /// Whether the epoch's root key, or the checkpoint key, was known to the caller.
        package let isTrusted: Bool
    }

    /// Checks row, proof, checkpoint and the checkpoint's key.
    /// - Parameters:
    ///   - trusted: root or checkpoint keys known from elsewhere; empty to take the receipt's own.
    ///   - witnesses: whose cosignatures count; each must be there.
    /// - Throws: `AuditError` `.inconsistent` that says what is wrong.
    package func verify(trusted: [PublicKey], witnesses: [NoteKey]) throws -> Verified {
        func fail(_ why: String) -> AuditError { AuditError(.inconsistent, "the receipt does not verify: \(why)") }
        guard let checkpoint = Checkpoint(note.text) else { throw fail("its checkpoint cannot be read") }
        let origin = checkpoint.origin
        let parts = origin.split(separator: "/", omittingEmptySubsequences: false)
        guard parts.count == 3, parts[0] == "kruxos", parts[2] == "\(epoch)" else {
            throw fail("the checkpoint is not of the row's epoch")
        }
        guard let parsed = try? JSONParser.parse(row.body), parsed.canonicalText == row.body, parsed.object != nil
        else {
            throw fail("the row's body is no canonical JSON")
        }
        guard let leaf = row.leaf(origin: origin, epoch: epoch) else { throw fail("the row's signature is wrong") }
        guard
            MerkleTree.verifiesInclusion(
                index: index, size: checkpoint.size, leaf: leaf, proof: proof, root: checkpoint.root)
        else { throw fail("the row is not in the checkpoint's tree") }
        guard note.isSigned(by: NoteKey(name: origin, kind: .note, publicKey: checkpointKey)) else {
            throw fail("the checkpoint's signature is wrong")
        }
        guard keyRow.leaf(origin: origin, epoch: epoch) != nil,
            let detail = try? JSONParser.parse(keyRow.body)["detail"],
            detail["checkpoint_key"]?.string == checkpointKey.bytes.hex, detail["epoch"]?.int == epoch
        else { throw fail("its root key did not sign the checkpoint's key") }
        guard trusted.isEmpty || trusted.contains(keyRow.key) || trusted.contains(checkpointKey) else {
            throw fail("its root key \(keyRow.key.bytes.hex) is none that you trust")
        }
        var found: [(String, Int64)] = []
        for witness in witnesses {
            guard let seconds = note.cosigned(by: witness) else {
                throw fail("the witness `\(witness.name)` has not signed it")
            }
            found.append((witness.name, seconds))
        }
        return Verified(checkpoint: checkpoint, witnesses: found, isTrusted: !trusted.isEmpty)
    }
}
