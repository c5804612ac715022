package import KruxCore
package import KruxCrypto
package import KruxStore
import Synchronization

/// The head of the chain, the tree over it and the keys that extend both. Rows are appended inside the caller's
/// transaction, so a change and its row are durable together or not at all; full tiles, checkpoints and key rotations
/// are the last word in the same transaction.
package final class AuditLog: TransactionParticipant, @unchecked Sendable {
    // @unchecked: `append`, `checkpoint`, `beginEpoch` and the transaction callbacks run on the writer's thread only,
    // `begin` before any other writer exists. What other threads read is in `shared`.
    private struct State {
        var epoch: Int64
        var originDigest: Digest
        var seq: Int64
        var leaf: Digest
        var tree = MerkleFrontier()
        var key: KeyPair?
        var checkpointKey: KeyPair?
        /// The row from which `key` signs, and since when.
        var keySince: Int64 = 0
        var keyMadeAt: Int64 = 0
        /// The size of the newest checkpoint, and when by the monotonic clock it was signed.
        var checkpointSize: Int64 = 0
        var checkpointAt: Int64?
        /// Somebody has been promised a checkpoint of this transaction.
        var checkpointWanted = false
    }

    /// What other threads may ask.
    private struct Shared {
        var publicKey: PublicKey?
        var checkpointKey: PublicKey?
        var checkpoint: (note: String, epoch: Int64, size: Int64)?
        /// Why `keys/head` cannot be written.
        var headProblem: String?
    }

    /// Rows and time after which the row key is replaced.
    package struct Rotation: Sendable {
        package var rows: Int64
        package var seconds: Int64
        package init(rows: Int64 = 100_000, seconds: Int64 = 86_400) {
            self.rows = rows
            self.seconds = seconds
        }
    }

    /// Least time between two checkpoints, in microseconds.
    private static let checkpointInterval: Int64 = 1_000_000

    package let installID: String
    private let keys: KeyFiles
    private let clock: WallClock
    private let rotation: Rotation
    private let headFile: HeadFile
    private let headBefore: RecordHead?
    private var committed: State
    private var working: State
    private let shared = Mutex(Shared())
    /// Called on the writer's thread when a checkpoint has become durable. Set before there is a writer.
    package var onCheckpoint: () -> Void = {}

    /// Reads where the chain stands. A fresh file has no install id yet: `begin` gives it one.
    /// - Parameter accepting: take the file as it is, to go on with it in a new epoch: neither its head nor its keys
    ///   must be there.
    /// - Throws: `AuditError` `.lostKey` when a private key is missing, `.wrongHead` when the file is behind what
    ///   `keys/head` has seen, or on another branch.
    package init(
        _ tx: any ReadTx, home: String, clock: WallClock, rotation: Rotation = Rotation(), accepting: Bool = false
    ) throws {
        keys = KeyFiles(home: home)
        self.clock = clock
        self.rotation = rotation
        let keys = keys
        let installID =
            try tx.first("SELECT value FROM meta WHERE key = 'install_id'") { $0.text(0) } ?? randomBytes(16).hex
        self.installID = installID
        let epoch = try tx.first("SELECT coalesce(max(epoch), 1) FROM keys") { $0.int(0) } ?? 1
        var state = State(
            epoch: epoch, originDigest: RowFormat.originDigest(installID: installID, epoch: epoch), seq: 0, leaf: .zero)
        let last = try tx.first("SELECT seq, epoch FROM audit ORDER BY seq DESC LIMIT 1") { ($0.int(0), $0.int(1)) }
        let firstSeq = try tx.first("SELECT first_seq FROM epochs WHERE epoch = ?", [.int(epoch)]) { $0.int(0) }
        if let (seq, rowEpoch) = last {
            guard rowEpoch == epoch, let leaf = try Self.leaf(tx, installID, seq) else {
                throw AuditError(.inconsistent, "row \(seq) cannot be continued", hint: "run `kruxos audit verify`")
            }
            (state.seq, state.leaf) = (seq, leaf)
            if let firstSeq {
                let size = seq - firstSeq + 1
                let tree = TileTree(tx, installID: installID, epoch: epoch, firstSeq: firstSeq, size: size)
                state.tree = MerkleFrontier(size: size, edge: try tree.edge())
            }
        }
        do { headBefore = try HeadFile.read(home: home) } catch {
            if !accepting { throw error }
            headBefore = nil
        }
        // Which key signs now is told by the last row that brought one, not by clocks.
        let keyRow = try Self.lastKeyRow(tx)
        let current = keyRow.flatMap { [UInt8](hex: $0.keyID) }
        func pair(_ purpose: KeyFiles.Purpose) throws -> (KeyPair, madeAt: Int64)? {
            let found = try tx.first(
                "SELECT public_key, created_at FROM keys WHERE purpose = ? AND epoch = ? AND key_id = coalesce(?, key_id) ORDER BY created_at DESC LIMIT 1",
                [.text(purpose.rawValue), .int(epoch), purpose == .row ? current.map { .blob($0) } ?? .null : .null]
            ) { ($0.blob(0), $0.int(1)) }
            guard let found, let publicKey = PublicKey(found.0) else { return nil }
            return (KeyPair(try keys.key(purpose, publicKey)), found.1)
        }
        if accepting {
            // The checkpoint key vouches for the next epoch, if it is still there.
            state.checkpointKey = try? pair(.checkpoint)?.0
        } else {
            try Self.check(headBefore, tx, installID, epoch: epoch, seq: state.seq, marked: firstSeq != nil, home: home)
            if let keyRow { state.keySince = keyRow.seq }
            if let (key, madeAt) = try pair(.row) { (state.key, state.keyMadeAt) = (key, madeAt) }
            state.checkpointKey = try pair(.checkpoint)?.0
        }
        headFile = try HeadFile(home: home)
        let newest = try tx.first(
            "SELECT size, note FROM checkpoints WHERE epoch = ? ORDER BY size DESC LIMIT 1", [.int(epoch)]
        ) { ($0.int(0), $0.text(1)) }
        if let (size, note) = newest {
            state.checkpointSize = size
            committed = state
            working = state
            shared.withLock { $0.checkpoint = (note, epoch, size) }
        } else {
            committed = state
            working = state
        }
        shared.withLock {
            $0.publicKey = state.key?.publicKey
            $0.checkpointKey = state.checkpointKey?.publicKey
        }
    }

    private static func lastKeyRow(_ tx: any ReadTx) throws -> (seq: Int64, keyID: String)? {
        try tx.first(
            "SELECT seq, json_extract(body, '$.detail.key_id') FROM audit WHERE phase IN ('key', 'prune') AND phase = 'key' AND json_extract(body, '$.detail.key_id') IS NOT NULL ORDER BY seq DESC LIMIT 1"
        ) { ($0.int(0), $0.text(1)) }
    }

    /// A row's leaf, computed from the row; nil without such a row.
    static func leaf(_ tx: any ReadTx, _ installID: String, _ seq: Int64) throws -> Digest? {
        let row = try tx.first(
            "SELECT epoch, prev, key_id, body_hash, sig FROM audit WHERE seq = ?", [.int(seq)]
        ) { ($0.int(0), $0.blob(1), $0.blob(2), $0.blob(3), $0.blob(4)) }
        guard let (epoch, prev, keyID, bodyHash, signature) = row, let prev = Digest(prev), let keyID = Digest(keyID),
            let bodyHash = Digest(bodyHash)
        else { return nil }
        let head = RowFormat.head(
            originDigest: RowFormat.originDigest(installID: installID, epoch: epoch), epoch: epoch, seq: seq,
            prev: prev, keyID: keyID, bodyHash: bodyHash)
        return RowFormat.leaf(head: head, signature: signature)
    }

    /// Whether a file is the newest state of a home, with the keys that go on with it.
    /// - Throws: `AuditError` `.wrongHead` or `.lostKey` that says what is not.
    package static func requireContinuable(_ tx: any ReadTx, home: String) throws {
        let installID = try tx.first("SELECT value FROM meta WHERE key = 'install_id'") { $0.text(0) } ?? ""
        let epoch = try tx.first("SELECT coalesce(max(epoch), 1) FROM keys") { $0.int(0) } ?? 1
        let seq = try tx.first("SELECT coalesce(max(seq), 0) FROM audit") { $0.int(0) } ?? 0
        let isPlanted = try tx.first("PRAGMA user_version") { $0.int(0) } ?? 0 >= 3
        let marked =
            try isPlanted && tx.first("SELECT 1 FROM epochs WHERE epoch = ?", [.int(epoch)]) { $0.int(0) } != nil
        try check(
            try HeadFile.read(home: home), tx, installID, epoch: epoch, seq: seq, marked: marked, home: home,
            hasEpochs: isPlanted)
        let keys = KeyFiles(home: home)
        let row = try lastKeyRow(tx).flatMap { [UInt8](hex: $0.keyID) }
        for (purpose, id) in [(KeyFiles.Purpose.row, row), (.checkpoint, nil)] {
            let found =
                try tx.first(
                    "SELECT public_key FROM keys WHERE purpose = ? AND epoch = ? AND key_id = coalesce(?, key_id) LIMIT 1",
                    [.text(purpose.rawValue), .int(epoch), id.map { .blob($0) } ?? .null]
                ) { PublicKey($0.blob(0)) } ?? nil
            if let found { _ = try keys.key(purpose, found) }
        }
    }

    /// Where the file itself ends; nil for an empty one.
    package static func head(_ tx: any ReadTx) throws -> RecordHead? {
        let installID = try tx.first("SELECT value FROM meta WHERE key = 'install_id'") { $0.text(0) } ?? ""
        let last = try tx.first("SELECT seq, epoch FROM audit ORDER BY seq DESC LIMIT 1") { ($0.int(0), $0.int(1)) }
        guard let (seq, epoch) = last, let leaf = try leaf(tx, installID, seq) else { return nil }
        return RecordHead(epoch: epoch, seq: seq, leaf: leaf)
    }

    /// Refuses a file that is not the one `keys/head` has seen last, or one that followed it.
    private static func check(
        _ head: RecordHead?, _ tx: any ReadTx, _ installID: String, epoch: Int64, seq: Int64, marked: Bool,
        home: String,
        hasEpochs: Bool = true
    ) throws {
        let hint =
            "put the newest kruxos.db back; if it is lost, `kruxos restore --accept` goes on with this one in a new epoch and says what that means"
        guard let head else {
            // Files from before heads were kept have none.
            if !marked { return }
            throw AuditError(
                .wrongHead, "`\(home)/keys/head` is missing, so nobody knows whether this file is the newest",
                hint: hint)
        }
        if head.seq == 0 { return }
        if let leaf = try leaf(tx, installID, head.seq), leaf == head.leaf { return }
        // A crash between a new epoch's commit and the head that tells of it.
        let replaced =
            !hasEpochs
            ? nil
            : try tx.first(
                "SELECT json_extract(body, '$.detail.replaces') FROM audit JOIN epochs ON seq = first_seq WHERE epochs.epoch = ?",
                [.int(epoch)]
            ) { $0.optionalText(0) }
        if let replaced = replaced ?? nil, replaced == "\(head.epoch)/\(head.seq)/\(head.leaf.hex)" { return }
        throw AuditError(
            .wrongHead,
            seq < head.seq
                ? "the database ends at row \(seq), but row \(head.seq) was recorded in this home: it was put back, or lost rows"
                : "row \(head.seq) of the database is not the one recorded in this home: it is another branch of the record",
            hint: hint)
    }

    // MARK: Beginnings

    /// Gives a fresh file its install id, its first keys and its first row; gives a file from before trees were kept
    /// its tiles and its checkpoint key. Does nothing on any other, but removes keys that a crash left behind.
    package func begin(_ writer: Writer, now: Timestamp) throws {
        if committed.key == nil {
            guard committed.seq == 0 else {
                throw AuditError(.inconsistent, "the record names no key", hint: "run `kruxos audit verify`")
            }
            try writer.writeAndWait { [self] tx in
                try tx.execute("INSERT INTO meta (key, value) VALUES ('install_id', ?)", [.text(installID)])
                try firstRow(tx, now: now, action: "created", by: .system, also: [:])
            }
        } else if committed.checkpointKey == nil {
            try writer.writeAndWait { [self] tx in
                try tx.execute(
                    "INSERT INTO epochs (epoch, first_seq) SELECT ?, min(seq) FROM audit WHERE epoch = ?",
                    [.int(working.epoch), .int(working.epoch)])
                try plant(tx)
                let publicKey = try keys.create(.checkpoint)
                working.checkpointKey = KeyPair(try keys.key(.checkpoint, publicKey))
                try insertKey(tx, .checkpoint, publicKey, now: now)
                try append(
                    keyBody(now: now, by: .system, ["action": "checkpoint key created"], row: nil, publicKey), tx)
                working.checkpointWanted = true
            }
        }
        if let key = committed.key { try keys.erase(.row, except: key.publicKey) }
        if let key = committed.checkpointKey { try keys.erase(.checkpoint, except: key.publicKey) }
        writeHead()
    }

    /// Leaves for rows that were written before there was a tree.
    private func plant(_ tx: WriteTx) throws {
        var last: Int64 = 0
        while true {
            let rows = try tx.rows(
                "SELECT seq, prev, key_id, body_hash, sig FROM audit WHERE seq > ? AND epoch = ? ORDER BY seq LIMIT 4096",
                [.int(last), .int(working.epoch)]
            ) { ($0.int(0), $0.blob(1), $0.blob(2), $0.blob(3), $0.blob(4)) }
            for (seq, prev, keyID, bodyHash, signature) in rows {
                guard let prev = Digest(prev), let keyID = Digest(keyID), let bodyHash = Digest(bodyHash) else {
                    throw AuditError(.inconsistent, "row \(seq) cannot be read", hint: "run `kruxos audit verify`")
                }
                let head = RowFormat.head(
                    originDigest: working.originDigest, epoch: working.epoch, seq: seq, prev: prev, keyID: keyID,
                    bodyHash: bodyHash)
                working.tree.append(RowFormat.leaf(head: head, signature: signature))
                last = seq
            }
            try storeTiles(tx)
            if rows.isEmpty { return }
        }
    }

    /// Goes on with a file that was put back: a new epoch with its own keys, origin and tree. Its first row names the
    /// last checkpoint the file knows and what `keys/head` had seen, and is vouched for by the checkpoint key of the
    /// epoch before, when that key is still there.
    package func beginEpoch(_ tx: WriteTx, now: Timestamp, by principal: Principal, detail: JSONObject = [:]) throws {
        let known = try tx.first("SELECT 1 FROM epochs WHERE epoch = ?", [.int(working.epoch)]) { $0.int(0) }
        if known == nil, working.seq > 0 {
            // A file from before trees were kept.
            try tx.execute(
                "INSERT INTO epochs (epoch, first_seq) SELECT ?, min(seq) FROM audit WHERE epoch = ?",
                [.int(working.epoch), .int(working.epoch)])
            try plant(tx)
        }
        let before = working
        var also = detail
        also["previous"] = [
            "epoch": .int(before.epoch), "last_seq": .int(before.seq), "last_leaf": .string(before.leaf.hex),
            "checkpoint": .optional(shared.withLock { $0.checkpoint?.note }),
        ]
        if let head = headBefore { also["replaces"] = .string("\(head.epoch)/\(head.seq)/\(head.leaf.hex)") }
        // A number that a restore has used before is never used again: two trees would have one origin.
        let epoch = max(before.epoch, headBefore?.epoch ?? 0) + 1
        working = State(
            epoch: epoch, originDigest: RowFormat.originDigest(installID: installID, epoch: epoch), seq: before.seq,
            leaf: .zero)
        try firstRow(tx, now: now, action: "epoch begun", by: principal, also: also, voucher: before.checkpointKey)
    }

    private func firstRow(
        _ tx: WriteTx, now: Timestamp, action: String, by principal: Principal, also: JSONObject,
        voucher: KeyPair? = nil
    ) throws {
        let row = try keys.create(.row)
        let checkpoint = try keys.create(.checkpoint)
        working.key = KeyPair(try keys.key(.row, row))
        working.checkpointKey = KeyPair(try keys.key(.checkpoint, checkpoint))
        working.keySince = working.seq + 1
        working.keyMadeAt = now.microseconds
        working.checkpointWanted = true
        try tx.execute(
            "INSERT INTO epochs (epoch, first_seq) VALUES (?, ?)", [.int(working.epoch), .int(working.seq + 1)])
        try insertKey(tx, .row, row, now: now)
        try insertKey(tx, .checkpoint, checkpoint, now: now)
        var detail = also
        detail["action"] = .string(action)
        if let voucher {
            detail["voucher"] = .string(
                voucher.sign(
                    RowFormat.voucher(installID: installID, epoch: working.epoch, row: row, checkpoint: checkpoint)
                ).hex)
        }
        try append(keyBody(now: now, by: principal, detail, row: row, checkpoint), tx)
    }

    private func insertKey(_ tx: WriteTx, _ purpose: KeyFiles.Purpose, _ publicKey: PublicKey, now: Timestamp) throws {
        try tx.execute(
            "INSERT INTO keys (key_id, purpose, epoch, public_key, created_at) VALUES (?, ?, ?, ?, ?)",
            [
                .blob(publicKey.id.bytes), .text(purpose.rawValue), .int(working.epoch), .blob(publicKey.bytes),
                .int(now.microseconds),
            ])
    }

    private func keyBody(
        now: Timestamp, by principal: Principal, _ detail: JSONObject, row: PublicKey?, _ checkpoint: PublicKey?
    ) -> [UInt8] {
        var detail = detail
        detail["install_id"] = .string(installID)
        detail["epoch"] = .int(working.epoch)
        if let row {
            detail["public_key"] = .string(row.bytes.hex)
            detail["key_id"] = .string(row.id.hex)
        }
        if let checkpoint { detail["checkpoint_key"] = .string(checkpoint.bytes.hex) }
        var body = AuditBody(time: now, phase: .key, principal: principal)
        body.members = [("detail", .object(detail))]
        return body.canonicalBytes()
    }

    // MARK: Rows

    /// Signs and stores one row. Call it on the writer's thread, inside a transaction.
    /// - Parameter body: canonical JSON, stored as it is.
    /// - Returns: the row's `seq`.
    @discardableResult
    package func append(_ body: [UInt8], _ tx: WriteTx) throws -> Int64 {
        guard let key = working.key else { throw AuditError(.lostKey, "there is no signing key") }
        let seq = working.seq + 1
        let bodyHash = sha256(body)
        let head = RowFormat.head(
            originDigest: working.originDigest, epoch: working.epoch, seq: seq, prev: working.leaf, keyID: key.id,
            bodyHash: bodyHash)
        let signature = key.sign(head)
        try tx.execute(
            "INSERT INTO audit (seq, epoch, key_id, prev, body_hash, sig, body) VALUES (?, ?, ?, ?, ?, ?, ?)",
            [
                .int(seq), .int(working.epoch), .blob(key.id.bytes), .blob(working.leaf.bytes), .blob(bodyHash.bytes),
                .blob(signature), .text(String(decoding: body, as: UTF8.self)),
            ])
        working.seq = seq
        working.leaf = RowFormat.leaf(head: head, signature: signature)
        working.tree.append(working.leaf)
        return seq
    }

    /// Has this transaction's rows covered by a checkpoint that is signed with them.
    package func wantCheckpoint() { working.checkpointWanted = true }

    package func transactionWillCommit(_ tx: WriteTx) throws {
        guard working.seq > committed.seq || working.tree.size > working.checkpointSize else { return }
        try rotateIfDue(tx)
        try storeTiles(tx)
        let now = clock.monotonic()
        let isDue = working.checkpointAt.map { now - $0 >= Self.checkpointInterval || now < $0 } ?? true
        if isDue || working.checkpointWanted { try signCheckpoint(tx, at: now) }
    }

    private func storeTiles(_ tx: WriteTx) throws {
        for tile in working.tree.takeFullTiles() {
            try tx.execute(
                "INSERT INTO tiles (epoch, level, number, hashes) VALUES (?, ?, ?, ?)",
                [.int(working.epoch), .int(Int64(tile.level)), .int(tile.number), .blob(tile.bytes)])
        }
    }

    /// Signs what the transaction will have made of the tree. Nobody sees it before it is durable.
    private func signCheckpoint(_ tx: WriteTx, at now: Int64) throws {
        guard let key = working.checkpointKey, working.tree.size > 0 else { return }
        working.checkpointWanted = false
        working.checkpointAt = now
        guard working.tree.size > working.checkpointSize else { return }
        let origin = RowFormat.origin(installID: installID, epoch: working.epoch)
        let text = Checkpoint(origin: origin, size: working.tree.size, root: working.tree.root).text
        let noteKey = NoteKey(name: origin, kind: .note, publicKey: key.publicKey)
        let note = SignedNote(
            text: text,
            lines: [SignedNote.Line(name: origin, keyID: noteKey.id, signature: key.sign(Array(text.utf8)))])
        try tx.execute("DELETE FROM checkpoints WHERE epoch = ? AND cosigned = 0", [.int(working.epoch)])
        try tx.execute(
            "INSERT INTO checkpoints (epoch, size, note) VALUES (?, ?, ?)",
            [.int(working.epoch), .int(working.tree.size), .text(note.encoded)])
        working.checkpointSize = working.tree.size
        pendingNote = note.encoded
    }
    private var pendingNote: String?

    /// The row that brings the next key is the last one the old key signs. Files on both sides of the commit are put
    /// right at the next start: a key that no row brought is removed, and so is one that was replaced.
    private func rotateIfDue(_ tx: WriteTx) throws {
        let now = clock.now()
        guard working.key != nil, working.seq > committed.seq, working.epoch == committed.epoch else { return }
        let age = now.microseconds - working.keyMadeAt
        guard working.seq - working.keySince >= rotation.rows || age >= rotation.seconds * 1_000_000 else { return }
        let next = try keys.create(.row)
        let pair = KeyPair(try keys.key(.row, next))
        try insertKey(tx, .row, next, now: now)
        try append(keyBody(now: now, by: .system, ["action": "rotated"], row: next, nil), tx)
        working.key = pair
        working.keySince = working.seq
        working.keyMadeAt = now.microseconds
    }

    package func transactionCommitted() {
        let replaced = committed.key?.id != working.key?.id ? working.key : nil
        let newEpoch = committed.epoch != working.epoch
        let grown = working.seq > committed.seq
        committed = working
        if let note = pendingNote {
            pendingNote = nil
            shared.withLock { $0.checkpoint = (note, committed.epoch, committed.checkpointSize) }
            onCheckpoint()
        }
        if grown || isHeadBehind { writeHead() }
        if let replaced {
            shared.withLock {
                $0.publicKey = replaced.publicKey
                $0.checkpointKey = committed.checkpointKey?.publicKey
            }
            eraseReplaced(checkpointsToo: newEpoch)
        }
    }

    package func transactionRolledBack() {
        working = committed
        pendingNote = nil
    }

    /// A replaced key that cannot be removed now is tried again when it is quiet, and at the next start.
    private func eraseReplaced(checkpointsToo: Bool) {
        do {
            if let key = committed.key { try keys.erase(.row, except: key.publicKey) }
            if checkpointsToo, let key = committed.checkpointKey { try keys.erase(.checkpoint, except: key.publicKey) }
            mustErase = false
        } catch {
            mustErase = true
        }
    }
    private var mustErase = false
    private var isHeadBehind = false

    package var hasTrouble: Bool { mustErase || isHeadBehind }

    package func prepareQuietTransaction() -> Bool {
        if mustErase { eraseReplaced(checkpointsToo: true) }
        if isHeadBehind { writeHead() }
        guard committed.tree.size > committed.checkpointSize else { return false }
        working.checkpointWanted = true
        return true
    }

    private func writeHead() {
        guard committed.seq > 0 else { return }
        let failure = headFile.write(RecordHead(epoch: committed.epoch, seq: committed.seq, leaf: committed.leaf))
        isHeadBehind = failure != nil
        shared.withLock { $0.headProblem = failure.map { "`\(headFile.path)` cannot be written: \($0)" } }
    }

    /// The row appended last in the running transaction. On the writer's thread only.
    package var lastAppended: Int64 { working.seq }

    /// The last durable row's number; 0 for none. On the writer's thread, or when nothing writes.
    package var lastSeq: Int64 { committed.seq }

    package var epoch: Int64 { committed.epoch }

    // MARK: What other threads ask

    /// The key that signs rows now.
    package var publicKey: PublicKey? { shared.withLock { $0.publicKey } }

    /// The newest durable checkpoint, a signed note, with its epoch and size.
    package var newestCheckpoint: (note: String, epoch: Int64, size: Int64)? { shared.withLock { $0.checkpoint } }

    /// Why the record could not be continued after a restart.
    package enum Trouble: Sendable {
        case keyMissing(String)
        case headNotWritable(String)

        package var text: String {
            switch self {
            case .keyMissing(let text), .headNotWritable(let text): text
            }
        }
    }

    /// Nil while all is well. Looks at the key's file.
    package var trouble: Trouble? {
        let (key, checkpointKey, problem) = shared.withLock { ($0.publicKey, $0.checkpointKey, $0.headProblem) }
        for (purpose, key) in [(KeyFiles.Purpose.row, key), (.checkpoint, checkpointKey)] {
            guard let key else { continue }
            if !keys.stillHolds(purpose, key) {
                return .keyMissing(
                    "the signing key `\(keys.path(purpose, key))` is gone from the disk, or another: put it back")
            }
        }
        if !keys.exists(headFile.path) {
            return .headNotWritable("`\(headFile.path)` is gone: the next row makes it anew")
        }
        return problem.map { .headNotWritable($0) }
    }
}

/// A private key in a class, with its public half.
private final class KeyPair: @unchecked Sendable {
    // @unchecked: the key lies in memory that is never written again.
    private let key: SigningKey
    let publicKey: PublicKey
    let id: Digest

    init(_ key: consuming SigningKey) {
        publicKey = key.publicKey
        id = key.publicKey.id
        self.key = key
    }

    func sign(_ bytes: [UInt8]) -> Signature { key.sign(bytes) }
}
