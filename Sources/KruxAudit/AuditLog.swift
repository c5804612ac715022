package import KruxCore
package import KruxCrypto
package import KruxStore

/// The head of the chain and the key that extends it. Rows are appended inside the caller's transaction, so a change
/// and its row are durable together or not at all.
package final class AuditLog: TransactionParticipant, @unchecked Sendable {
    // @unchecked: `append` and the transaction callbacks run on the writer's thread only, and `bootstrap` before any
    // other writer exists.
    private struct Head {
        var seq: Int64
        var leaf: Digest
    }

    package let installID: String
    package let epoch: Int64
    package private(set) var publicKey: PublicKey?
    private let originDigest: Digest
    private let keys: KeyFiles
    private var key: SigningKeyBox?
    private var keyID = Digest.zero
    private var committed: Head
    private var working: Head

    /// Reads where the chain stands. A fresh file has no install id yet: `bootstrap` gives it one.
    /// - Throws: `AuditError` `.lostKey` when the private key is missing.
    package init(_ tx: any ReadTx, home: String) throws {
        keys = KeyFiles(home: home)
        installID =
            try tx.first("SELECT value FROM meta WHERE key = 'install_id'") { $0.text(0) } ?? randomBytes(16).hex
        epoch = try tx.first("SELECT coalesce(max(epoch), 1) FROM keys") { $0.int(0) } ?? 1
        originDigest = sha256(Array(RowFormat.origin(installID: installID, epoch: epoch).utf8))
        let last = try tx.first("SELECT seq, prev, key_id, body_hash, sig, epoch FROM audit ORDER BY seq DESC LIMIT 1")
        {
            row in (row.int(0), row.blob(1), row.blob(2), row.blob(3), row.blob(4), row.int(5))
        }
        if let (seq, prev, keyID, bodyHash, signature, rowEpoch) = last {
            guard let prev = Digest(prev), let keyID = Digest(keyID), let bodyHash = Digest(bodyHash), rowEpoch == epoch
            else {
                throw AuditError(.inconsistent, "row \(seq) cannot be continued", hint: "run `kruxos audit verify`")
            }
            let head = RowFormat.head(
                originDigest: originDigest, epoch: epoch, seq: seq, prev: prev, keyID: keyID, bodyHash: bodyHash)
            committed = Head(seq: seq, leaf: RowFormat.leaf(head: head, signature: signature))
        } else {
            committed = Head(seq: 0, leaf: .zero)
        }
        working = committed
        let bytes = try tx.first(
            "SELECT public_key FROM keys WHERE purpose = 'row' AND epoch = ? ORDER BY created_at DESC LIMIT 1",
            [.int(epoch)]
        ) { $0.blob(0) }
        if let publicKey = bytes.flatMap(PublicKey.init) {
            key = SigningKeyBox(try keys.rowKey(publicKey))
            keyID = publicKey.id
            self.publicKey = publicKey
        }
    }

    /// Gives a fresh file its install id, its first key and its first row. Does nothing on any other.
    package func bootstrap(_ writer: Writer, now: Timestamp) throws {
        guard key == nil else { return }
        let publicKey = try keys.createRowKey()
        key = SigningKeyBox(try keys.rowKey(publicKey))
        keyID = publicKey.id
        self.publicKey = publicKey
        try writer.writeAndWait { [self] tx in
            try tx.execute("INSERT INTO meta (key, value) VALUES ('install_id', ?)", [.text(installID)])
            try tx.execute(
                "INSERT INTO keys (key_id, purpose, epoch, public_key, created_at) VALUES (?, 'row', ?, ?, ?)",
                [.blob(keyID.bytes), .int(epoch), .blob(publicKey.bytes), .int(now.microseconds)])
            var body = AuditBody(time: now, phase: .key, principal: .system)
            body.members = [
                (
                    "detail",
                    [
                        "action": "created", "install_id": .string(installID), "epoch": .int(epoch),
                        "public_key": .string(publicKey.bytes.hex), "key_id": .string(keyID.hex),
                    ]
                )
            ]
            try append(body.canonicalBytes(), tx)
        }
    }

    /// Signs and stores one row. Call it on the writer's thread, inside a transaction.
    /// - Parameter body: canonical JSON, stored as it is.
    /// - Returns: the row's `seq`.
    @discardableResult
    package func append(_ body: [UInt8], _ tx: WriteTx) throws -> Int64 {
        guard let key else { throw AuditError(.lostKey, "there is no signing key") }
        let seq = working.seq + 1
        let bodyHash = sha256(body)
        let head = RowFormat.head(
            originDigest: originDigest, epoch: epoch, seq: seq, prev: working.leaf, keyID: keyID, bodyHash: bodyHash)
        let signature = key.sign(head)
        try tx.execute(
            "INSERT INTO audit (seq, epoch, key_id, prev, body_hash, sig, body) VALUES (?, ?, ?, ?, ?, ?, ?)",
            [
                .int(seq), .int(epoch), .blob(keyID.bytes), .blob(working.leaf.bytes), .blob(bodyHash.bytes),
                .blob(signature), .text(String(decoding: body, as: UTF8.self)),
            ])
        working = Head(seq: seq, leaf: RowFormat.leaf(head: head, signature: signature))
        return seq
    }

    package func transactionCommitted() { committed = working }
    package func transactionRolledBack() { working = committed }

    /// The row appended last in the running transaction. On the writer's thread only.
    package var lastAppended: Int64 { working.seq }

    /// The last durable row's number; 0 for none. On the writer's thread, or when nothing writes.
    package var lastSeq: Int64 { committed.seq }
}

/// Gives a noncopyable key a place in a class.
private final class SigningKeyBox {
    private let key: SigningKey
    init(_ key: consuming SigningKey) { self.key = key }
    func sign(_ bytes: [UInt8]) -> Signature { key.sign(bytes) }
}
