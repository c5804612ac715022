package import KruxCore
package import KruxCrypto
package import KruxStore

/// The C2SP witness protocol (c2sp.org/tlog-witness), `add-checkpoint`, without its transport.
///
///     old <size>\n
///     <consistency proof, a base64 hash per line>\n
///     \n
///     <checkpoint, a signed note>
package struct WitnessRequest: Sendable {
    package let old: Int64
    package let proof: [Digest]
    package let note: SignedNote
    package let checkpoint: Checkpoint

    package init(old: Int64, proof: [Digest], note: SignedNote, checkpoint: Checkpoint) {
        self.old = old
        self.proof = proof
        self.note = note
        self.checkpoint = checkpoint
    }

    package var text: String {
        "old \(old)\n" + proof.map { Base64.encode($0.bytes) + "\n" }.joined() + "\n" + note.encoded
    }

    /// Nil for a body that is none.
    package init?(_ text: String) {
        let lines = text.split(separator: "\n", omittingEmptySubsequences: false)
        guard let end = lines.firstIndex(of: ""), end >= 1, end <= 64, lines[0].hasPrefix("old "),
            let old = Checkpoint.size(lines[0].dropFirst(4))
        else { return nil }
        let proof = lines[1..<end].compactMap { Base64.decode(String($0)).flatMap { Digest($0) } }
        guard proof.count == end - 1, let note = SignedNote(lines[(end + 1)...].joined(separator: "\n")),
            let checkpoint = Checkpoint(note.text)
        else { return nil }
        self.init(old: old, proof: proof, note: note, checkpoint: checkpoint)
    }
}

/// Other installations' logs: the largest tree seen of each, and the rule that it only grows.
package enum Witness {
    package struct Log: Sendable {
        package let verifier: NoteKey
        package let size: Int64
        package let note: SignedNote?
        package let seenAt: Timestamp?
    }

    /// An HTTP reply.
    package struct Reply: Sendable, Equatable {
        package let status: Int
        package let body: String
        package let contentType: String

        package static func plain(_ status: Int, _ body: String) -> Reply { Reply(status, body) }

        init(_ status: Int, _ body: String, contentType: String = "text/plain; charset=utf-8") {
            self.status = status
            self.body = body
            self.contentType = contentType
        }
    }

    package static func logs(_ tx: any ReadTx) throws -> [Log] {
        try tx.rows("SELECT verifier, size, note, seen_at FROM witnessed ORDER BY origin") { row in
            guard let verifier = NoteKey(verifier: row.text(0)) else {
                throw StoreError(.corrupt, "the table of witnessed logs holds a key that is none")
            }
            return Log(
                verifier: verifier, size: row.int(1), note: row.optionalText(2).flatMap { SignedNote($0) },
                seenAt: row.optionalInt(3).map(Timestamp.init(microseconds:)))
        }
    }

    package static func add(_ tx: WriteTx, _ verifier: NoteKey) throws {
        let known = try logs(tx).first { $0.verifier.name == verifier.name }
        if let known {
            throw StructuredError(
                .alreadyExists,
                known.verifier == verifier
                    ? "the log `\(verifier.name)` is witnessed already"
                    : "the log `\(verifier.name)` is witnessed with another key",
                recovery: ["See `kruxos witness log list`."])
        }
        try tx.execute(
            "INSERT INTO witnessed (origin, verifier) VALUES (?, ?)", [.text(verifier.name), .text(verifier.verifier)])
    }

    package static func remove(_ tx: WriteTx, _ origin: String) throws {
        guard try tx.execute("DELETE FROM witnessed WHERE origin = ?", [.text(origin)]) == 1 else {
            throw StructuredError(
                .notFound, "no log `\(origin.prefix(200))` is witnessed", recovery: ["See `kruxos witness log list`."])
        }
    }

    /// `add-checkpoint`: judges, remembers and cosigns in one transaction, so that two requests cannot both move the
    /// log, and nothing is answered that a crash could take back.
    package static func addCheckpoint(
        _ tx: WriteTx, _ body: String, witness: NoteKey, key: borrowing SigningKey, now: Timestamp
    ) throws -> Reply {
        guard let request = WitnessRequest(body) else { return Reply(400, "this is no add-checkpoint request\n") }
        let checkpoint = request.checkpoint
        guard let log = try logs(tx).first(where: { $0.verifier.name == checkpoint.origin }) else {
            return Reply(404, "this log is not witnessed here\n")
        }
        guard request.note.isSigned(by: log.verifier) else {
            return Reply(403, "the checkpoint is not signed by the log's key\n")
        }
        guard request.old <= checkpoint.size else {
            return Reply(400, "the old size is larger than the checkpoint's\n")
        }
        guard request.old == log.size else {
            return Reply(409, "\(log.size)\n", contentType: "text/x.tlog.size")
        }
        let grows: Bool
        let before = log.note.flatMap { Checkpoint($0.text)?.root } ?? MerkleTree.emptyRoot
        if request.old == 0 {
            grows = request.proof.isEmpty && (checkpoint.size > 0 || checkpoint.root == MerkleTree.emptyRoot)
        } else {
            grows = MerkleTree.verifiesConsistency(
                from: request.old, to: checkpoint.size, firstRoot: before, secondRoot: checkpoint.root,
                proof: request.proof)
        }
        guard grows else { return Reply(422, "the checkpoint is not consistent with the one seen before\n") }
        let line = witness.sign(request.note.text, with: key, seconds: now.microseconds / 1_000_000)
        let kept = SignedNote(
            text: request.note.text,
            lines: request.note.lines.filter { $0.name == log.verifier.name && $0.keyID == log.verifier.id } + [line])
        try tx.execute(
            "UPDATE witnessed SET size = ?, note = ?, seen_at = ? WHERE origin = ?",
            [.int(checkpoint.size), .text(kept.encoded), .int(now.microseconds), .text(checkpoint.origin)])
        return Reply(200, line.text)
    }

    /// `GET <prefix>/<SHA-256 of the origin in hex>/checkpoint`.
    package static func latest(_ tx: any ReadTx, originHash: String) throws -> Reply {
        for log in try logs(tx) where sha256(Array(log.verifier.name.utf8)).hex == originHash {
            if let note = log.note { return Reply(200, note.encoded) }
        }
        return Reply(404, "nothing was cosigned for this log\n")
    }
}
