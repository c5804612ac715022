import Foundation
import KruxCore
package import KruxCrypto
package import KruxStore
import Synchronization

/// Checks a record: schema, numbering, chain, tree, checkpoints, keys, body hashes, signatures, and what the indexes say;
/// against every checkpoint that was kept elsewhere.
///
/// Rows are read in chunks on all cores, each with a connection of its own. A chunk is checked by itself (canonical
/// bodies, their hashes, signatures); the chain between chunks, the tree and the order of keys are one pass in order.
package struct AuditVerifier {
    package struct Options {
        /// Root keys, the first row keys of epochs, that are known from elsewhere.
        package var trust: [PublicKey] = []
        package var anchors: [AnchorFile] = []
        /// Witnesses whose cosignatures on anchors count.
        package var witnesses: [NoteKey] = []
        /// Only these rows' bodies and signatures; chain and tree are checked throughout.
        package var from: Int64?
        package var through: Int64?
        /// The home whose keys and head the record must fit.
        package var home: String?
        /// Called with rows checked and rows in all, on any thread.
        package var progress: @Sendable (Int64, Int64) -> Void = { _, _ in }

        package init() {}
    }

    private static let chunk: Int64 = 2048

    private let open: () throws -> ReadOnlyStore
    private let options: Options

    package static func verify(_ open: @escaping () throws -> ReadOnlyStore, _ options: Options = Options()) throws
        -> AuditVerdict
    {
        try AuditVerifier(open: open, options: options).run()
    }

    /// What must be known before rows can be judged.
    private struct Setup: Sendable {
        var installID = ""
        var last: Int64 = 0
        var keys: [Digest: (key: PublicKey, epoch: Int64, purpose: String)] = [:]
        var epochs: [(epoch: Int64, firstSeq: Int64)] = []
        var checkpoints: [(epoch: Int64, size: Int64, note: String)] = []
        var tiles: [Int64: Int64] = [:]
        /// Up to which row a prune row says bodies may be gone.
        var prunedThrough: Int64 = 0
        var hasTrees = true
        /// Of the witnesses that the file is sent to.
        var witnesses: [NoteKey] = []
    }

    private struct Wrong: Error {
        let seq: Int64
        let reason: String
    }

    // MARK: The whole

    private func run() throws -> AuditVerdict {
        var verdict = AuditVerdict()
        // What cannot be opened at all is an error, not a verdict.
        let first = try open()
        defer { first.close() }
        do {
            let head = try options.home.flatMap { try HeadFile.read(home: $0) }
            let setup = try prepare(first)
            // Many short snapshots: one that is held for minutes would keep a live gateway from folding its log.
            let readers = try (0..<cores).map { _ in try open() }
            defer { for reader in readers { reader.close() } }
            verdict = try check(setup, head, readers)
            // Bodies that are forgotten meanwhile, and indexes that lose them, are no fault of the record. Whether
            // something else is shows one snapshot, which one connection has.
            if !verdict.isIntact, try first.read(Self.prunedThrough) > 0 {
                try first.holdSnapshot()
                verdict = try check(try prepare(first), head, [first])
            }
        } catch let wrong as Wrong {
            verdict.firstFailure = .init(seq: wrong.seq, reason: wrong.reason)
        } catch let error as StoreError where error.code == .corrupt || error.code == .inputOutput {
            verdict.firstFailure = .init(seq: 0, reason: "SQLite cannot read the file: \(error.message)")
        } catch let error as AuditError where error.code == .wrongHead {
            verdict.firstFailure = .init(seq: 0, reason: error.message)
        }
        return verdict
    }

    private func prepare(_ source: ReadOnlyStore) throws -> Setup {
        var setup = Setup()
        var rowsOfKeys = 0
        var schemaDiffers = false
        try source.read { tx in
            // A file that no writer has brought up to date has the schema of its version.
            let version = try tx.first("PRAGMA user_version") { Int32($0.int(0)) } ?? 0
            schemaDiffers = try Store.schema(tx) != Store.expectedSchema(through: version)
            setup.hasTrees = version >= 3
            setup.installID = try tx.first("SELECT value FROM meta WHERE key = 'install_id'") { $0.text(0) } ?? ""
            let (first, last, count) =
                try tx.first("SELECT coalesce(min(seq), 1), coalesce(max(seq), 0), count(*) FROM audit") {
                    ($0.int(0), $0.int(1), $0.int(2))
                } ?? (1, 0, 0)
            // Rows from 1 on without gaps, or every number below would mean something else.
            if first < 1 { throw Wrong(seq: 0, reason: "there is a row \(first), and rows count from 1") }
            if last != count {
                let gap =
                    try tx.first(
                        "SELECT seq FROM audit a WHERE seq > 1 AND NOT EXISTS (SELECT 1 FROM audit b WHERE b.seq = a.seq - 1) ORDER BY seq LIMIT 1"
                    ) { $0.int(0) } ?? 2
                let missing =
                    first > 1
                    ? 1
                    : try tx.first("SELECT max(seq) + 1 FROM audit WHERE seq < ?", [.int(gap)]) { $0.int(0) } ?? 1
                throw Wrong(seq: first > 1 ? first : gap, reason: "row \(missing) is missing")
            }
            setup.last = last
            for (id, bytes, epoch, purpose) in try tx.rows(
                "SELECT key_id, public_key, epoch, purpose FROM keys", [],
                {
                    ($0.blob(0), $0.blob(1), $0.int(2), $0.text(3))
                })
            {
                rowsOfKeys += 1
                guard let key = PublicKey(bytes), key.id.bytes == id else { continue }
                setup.keys[key.id] = (key, epoch, purpose)
            }
            if schemaDiffers { return }
            guard setup.hasTrees else { return }
            setup.epochs = try tx.rows("SELECT epoch, first_seq FROM epochs ORDER BY epoch") { ($0.int(0), $0.int(1)) }
            setup.checkpoints = try tx.rows("SELECT epoch, size, note FROM checkpoints ORDER BY epoch, size") {
                ($0.int(0), $0.int(1), $0.text(2))
            }
            for (epoch, count) in try tx.rows(
                "SELECT epoch, count(*) FROM tiles GROUP BY epoch", [], { ($0.int(0), $0.int(1)) })
            {
                setup.tiles[epoch] = count
            }
            setup.prunedThrough = try Self.prunedThrough(tx)
            setup.witnesses = try tx.rows("SELECT verifier FROM anchors WHERE verifier IS NOT NULL") {
                NoteKey(verifier: $0.text(0))
            }.compactMap { $0 }
        }
        if schemaDiffers { throw Wrong(seq: 0, reason: "the schema is not the one this version makes") }
        if setup.installID.isEmpty { throw Wrong(seq: 0, reason: "the file has no install id") }
        if setup.keys.count != rowsOfKeys { throw Wrong(seq: 0, reason: "the table of keys holds something else") }
        if setup.last == 0 { throw Wrong(seq: 1, reason: "row 1 is missing: every record begins with its key") }
        return setup
    }

    private static func prunedThrough(_ tx: any ReadTx) throws -> Int64 {
        try tx.first(
            "SELECT coalesce(max(json_extract(body, '$.detail.through')), 0) FROM audit WHERE phase IN ('key', 'prune') AND phase = 'prune'"
        ) { $0.int(0) } ?? 0
    }

    private var cores: Int { max(1, ProcessInfo.processInfo.activeProcessorCount) }

    /// - Parameter readers: each is used by one thread at a time.
    private func check(_ setup: Setup, _ head: RecordHead?, _ readers: [ReadOnlyStore]) throws -> AuditVerdict {
        var order = OrderedCheck(setup, options, head: head)
        let chunks = Int((setup.last + Self.chunk - 1) / Self.chunk)
        let workers = min(readers.count, chunks)
        let shared = Mutex(Progress())
        let arrived = DispatchSemaphore(value: 0)
        let from = options.from ?? 1
        let through = options.through ?? .max
        for reader in readers.prefix(workers) {
            Thread.detachNewThread {
                while true {
                    let number = shared.withLock { state -> Int? in
                        // Chunks wait for their turn in memory, so nobody runs far ahead.
                        guard !state.stopped, state.next < chunks else { return nil }
                        state.next += 1
                        return state.next - 1
                    }
                    guard let number else { break }
                    let result = Result {
                        try reader.read {
                            try ChunkCheck.run(
                                $0, after: Int64(number) * Self.chunk, limit: Self.chunk, setup.last, setup,
                                from...max(from, through))
                        }
                    }
                    shared.withLock { $0.results[number] = result }
                    arrived.signal()
                }
                shared.withLock { $0.ended += 1 }
                arrived.signal()
            }
        }
        var failure: (any Error)?
        var index = 0
        var ended = 0
        while ended < workers {
            arrived.wait()
            while failure == nil, let result = shared.withLock({ $0.results.removeValue(forKey: index) }) {
                do {
                    try order.take(try result.get())
                    options.progress(order.last, setup.last)
                } catch {
                    failure = error
                    shared.withLock { $0.stopped = true }
                }
                index += 1
            }
            ended = shared.withLock { $0.ended }
        }
        do {
            if let failure { throw failure }
            return try order.finish(readers[0])
        } catch let wrong as Wrong {
            // What held so far helps whoever looks into it.
            var verdict = order.partial
            verdict.firstFailure = .init(seq: wrong.seq, reason: wrong.reason)
            return verdict
        }
    }

    private struct Progress {
        var next = 0
        var ended = 0
        var stopped = false
        var results: [Int: Result<Chunk, any Error>] = [:]
    }

    // MARK: One chunk, by itself

    /// Rows that a pruning keeps: SHA-256 over each `seq` as u64be.
    package static func digest(kept: some Sequence<Int64>) -> Digest {
        sha256(kept.flatMap { seq in (0..<8).map { UInt8(truncatingIfNeeded: seq >> Int64(56 - 8 * $0)) } })
    }

    /// What a chunk tells the pass in order.
    private struct Chunk: Sendable {
        struct Row: Sendable {
            let seq: Int64, epoch: Int64
            let keyID: Digest, prev: Digest, leaf: Digest
        }
        struct KeyRow: Sendable {
            let seq: Int64
            let detail: JSONObject
        }
        var rows: [Row] = []
        var keyRows: [KeyRow] = []
        var sums = IndexSums()
        var pruned: Int64 = 0
        /// Rows that no pruning may touch.
        var kept: [Int64] = []
        /// What prune rows say: up to where, and which rows stayed.
        var prunings: [(seq: Int64, through: Int64, digest: String)] = []
        /// The first row of the chunk that is wrong by itself; rows before it are in `rows`.
        var wrong: Wrong?
    }

    /// Sums over what each index of the record holds, for comparing it with the rows.
    struct IndexSums: Sendable, Equatable {
        var time: UInt64 = 0, agent: UInt64 = 0, capability: UInt64 = 0, outcome: UInt64 = 0, request: UInt64 = 0
        var keys: UInt64 = 0, policies: UInt64 = 0

        static func entry(_ value: String, _ seq: Int64) -> UInt64 {
            // FNV-1a, then a mix: sums of these are equal only for equal entries, but by chance.
            var hash: UInt64 = 0xCBF2_9CE4_8422_2325
            for byte in value.utf8 { hash = (hash ^ UInt64(byte)) &* 0x100_0000_01B3 }
            hash ^= UInt64(bitPattern: seq) &* 0x9E37_79B9_7F4A_7C15
            hash = (hash ^ (hash >> 30)) &* 0xBF58_476D_1CE4_E5B9
            hash = (hash ^ (hash >> 27)) &* 0x94D0_49BB_1331_11EB
            return hash ^ (hash >> 31)
        }

        mutating func add(_ other: IndexSums) {
            time &+= other.time
            agent &+= other.agent
            capability &+= other.capability
            outcome &+= other.outcome
            request &+= other.request
            keys &+= other.keys
            policies &+= other.policies
        }

        mutating func add(_ body: JSONObject, _ seq: Int64) {
            func text(_ key: String) -> String? {
                switch body[key] {
                case .string(let text)?: text
                case .int(let number)?: "\(number)"
                default: nil
                }
            }
            if let value = text("time") { time &+= Self.entry(value, seq) }
            if let value = text("agent") { agent &+= Self.entry(value, seq) }
            if let value = text("capability") { capability &+= Self.entry(value, seq) }
            if let value = text("outcome"), value != "succeeded" { outcome &+= Self.entry(value, seq) }
            if let value = text("request") { request &+= Self.entry(value, seq) }
            switch body["phase"]?.string {
            case "key", "prune": keys &+= Self.entry("", seq)
            case "policy": policies &+= Self.entry("", seq)
            default: break
            }
        }

        /// Index, column and sum, as the file's version has them.
        static var indexes: [(index: String, column: String, condition: String, sum: KeyPath<IndexSums, UInt64>)] {
            [
                ("audit_by_agent", "agent", "agent IS NOT NULL", \.agent),
                ("audit_by_capability", "capability", "capability IS NOT NULL", \.capability),
                ("audit_by_outcome", "outcome", "outcome IS NOT NULL AND outcome <> 'succeeded'", \.outcome),
                ("audit_by_request", "request", "request IS NOT NULL", \.request),
                ("audit_of_keys", "''", "phase IN ('key', 'prune')", \.keys),
                ("audit_of_policies", "''", "phase = 'policy'", \.policies),
            ]
        }
    }

    private enum ChunkCheck {
        static func run(
            _ tx: any ReadTx, after: Int64, limit: Int64, _ last: Int64, _ setup: Setup, _ range: ClosedRange<Int64>
        ) throws -> Chunk {
            var chunk = Chunk()
            var origin: (epoch: Int64, digest: Digest) = (0, .zero)
            try tx.forEach(
                // The stored bytes, also beyond a NUL that ends a text elsewhere.
                "SELECT seq, epoch, key_id, prev, body_hash, sig, CAST(body AS BLOB) FROM audit WHERE seq > ? AND seq <= ? ORDER BY seq",
                [.int(after), .int(min(after + limit, last))]
            ) { row in
                let seq = row.int(0)
                func fail(_ reason: String) -> Bool {
                    chunk.wrong = Wrong(seq: seq, reason: reason)
                    return false
                }
                let epoch = row.int(1)
                if epoch != origin.epoch {
                    origin = (epoch, RowFormat.originDigest(installID: setup.installID, epoch: epoch))
                }
                guard let keyID = Digest(row.blob(2)), let prev = Digest(row.blob(3)),
                    let bodyHash = Digest(row.blob(4))
                else { return fail("a hash has the wrong length") }
                let signature = row.blob(5)
                let body = row.optionalBlob(6)
                let rowHead = RowFormat.head(
                    originDigest: origin.digest, epoch: epoch, seq: seq, prev: prev, keyID: keyID, bodyHash: bodyHash)
                let leaf = RowFormat.leaf(head: rowHead, signature: signature)
                if let body {
                    let isChecked = range.contains(seq)
                    // Outside the range only rows that matter for others are read whole.
                    if isChecked || isOfKeys(body) {
                        guard let known = setup.keys[keyID], known.epoch == epoch, known.purpose == "row" else {
                            return fail("it names a key that the file does not know for its epoch")
                        }
                        guard sha256(body) == bodyHash else { return fail("its body was changed") }
                        guard let parsed = try? JSONParser.parse(body), let object = parsed.object,
                            parsed.canonicalBytes() == body
                        else { return fail("its body is no canonical JSON") }
                        guard known.key.verifies(signature, rowHead) else {
                            return fail("its signature is not by the key it names")
                        }
                        chunk.sums.add(object, seq)
                        let phase = object["phase"]?.string ?? ""
                        if !["intent", "outcome", "approval"].contains(phase) { chunk.kept.append(seq) }
                        if phase == "prune", let detail = object["detail"], let through = detail["through"]?.int,
                            let digest = detail["kept_digest"]?.string
                        {
                            chunk.prunings.append((seq, through, digest))
                        }
                        if phase == "key", let detail = object["detail"]?.object {
                            chunk.keyRows.append(.init(seq: seq, detail: detail))
                        }
                    }
                } else {
                    guard seq <= setup.prunedThrough else { return fail("its body is gone and no prune row covers it") }
                    if range.contains(seq) {
                        guard let known = setup.keys[keyID], known.epoch == epoch, known.purpose == "row" else {
                            return fail("it names a key that the file does not know for its epoch")
                        }
                        guard known.key.verifies(signature, rowHead) else {
                            return fail("its signature is not by the key it names")
                        }
                    }
                    chunk.pruned += 1
                }
                chunk.rows.append(.init(seq: seq, epoch: epoch, keyID: keyID, prev: prev, leaf: leaf))
                return true
            }
            return chunk
        }

        private static let marks = ["\"phase\":\"key\"", "\"phase\":\"prune\""].map { Array($0.utf8) }
        private static func isOfKeys(_ body: [UInt8]) -> Bool {
            marks.contains { mark in body.indices.contains { body[$0...].starts(with: mark) } }
        }
    }

    // MARK: All in order

    private struct OrderedCheck {
        private let setup: Setup
        private let options: Options
        private let head: RecordHead?
        private(set) var last: Int64 = 0
        private var verdict = AuditVerdict()
        private var previous = Digest.zero
        private var epoch: Int64 = 0
        private var firstSeq: Int64 = 1
        private var key = Digest.zero
        private var checkpointKeys: [Int64: PublicKey] = [:]
        private var introduced: Set<Digest> = []
        private var tree = MerkleFrontier()
        private var tiles: [MerkleFrontier.Tile] = []
        private var tileCounts: [Int64: Int64] = [:]
        private var sums = IndexSums()
        private var kept: [Int64] = []
        private var verdictCoversAll: Bool { options.from == nil && options.through == nil }
        /// The sizes at which somebody claims a root, by epoch, and what the roots are.
        private var wanted: [Int64: Set<Int64>] = [:]
        private var roots: [Int64: [Int64: Digest]] = [:]
        private var leavesOfHead: Digest?
        private var lastLeaves: [Int64: Digest] = [:]
        private var tileSums: [(epoch: Int64, level: Int, number: Int64, digest: Digest)] = []

        init(_ setup: Setup, _ options: Options, head: RecordHead?) {
            self.setup = setup
            self.options = options
            self.head = head
            for checkpoint in setup.checkpoints { wanted[checkpoint.epoch, default: []].insert(checkpoint.size) }
            for note in options.anchors.flatMap(\.notes) {
                guard let checkpoint = Checkpoint(note.text), let epoch = epoch(of: checkpoint.origin) else { continue }
                wanted[epoch, default: []].insert(checkpoint.size)
            }
        }

        /// The epoch whose origin it is; nil for another installation's.
        private func epoch(of origin: String) -> Int64? {
            let prefix = "kruxos/\(setup.installID)/"
            return origin.hasPrefix(prefix) ? Checkpoint.size(origin.dropFirst(prefix.count)) : nil
        }

        var partial: AuditVerdict {
            var partial = verdict
            partial.rows = last
            return partial
        }

        mutating func take(_ chunk: Chunk) throws {
            var keyRows = chunk.keyRows[...]
            for row in chunk.rows {
                guard row.seq == last + 1 else { throw Wrong(seq: row.seq, reason: "row \(last + 1) is missing") }
                let keyRow = keyRows.first?.seq == row.seq ? keyRows.removeFirst() : nil
                if row.epoch != epoch { try begin(row, keyRow) }
                guard row.prev == previous else {
                    throw Wrong(seq: row.seq, reason: "it does not follow the row before it")
                }
                guard row.keyID == key else {
                    throw Wrong(
                        seq: row.seq,
                        reason: introduced.contains(row.keyID)
                            ? "it is signed by a key that had been replaced"
                            : "it is signed by a key that no row before it introduced")
                }
                if let keyRow { try introduce(keyRow, row) }
                previous = row.leaf
                last = row.seq
                if head?.seq == row.seq { leavesOfHead = row.leaf }
                tree.append(row.leaf)
                if wanted[epoch]?.contains(tree.size) == true { roots[epoch, default: [:]][tree.size] = tree.root }
                for tile in tree.takeFullTiles() {
                    tileSums.append((epoch, tile.level, tile.number, sha256(tile.bytes)))
                }
            }
            if let wrong = chunk.wrong {
                guard wrong.seq == last + 1 else { throw Wrong(seq: wrong.seq, reason: "row \(last + 1) is missing") }
                throw wrong
            }
            kept += chunk.kept
            for pruning in chunk.prunings where verdictCoversAll {
                guard pruning.through < pruning.seq,
                    AuditVerifier.digest(kept: kept.prefix { $0 <= pruning.through }).hex == pruning.digest
                else {
                    throw Wrong(seq: pruning.seq, reason: "rows that it says were kept have lost their bodies")
                }
            }
            sums.add(chunk.sums)
            verdict.pruned += chunk.pruned
        }

        private mutating func begin(_ row: Chunk.Row, _ keyRow: Chunk.KeyRow?) throws {
            func wrong(_ reason: String) -> Wrong { Wrong(seq: row.seq, reason: reason) }
            // A restore of a file older than the last restore leaves a number out, so that none is used twice.
            guard row.epoch > epoch, epoch > 0 || row.epoch == 1 else {
                throw wrong("its epoch \(row.epoch) does not follow epoch \(epoch)")
            }
            if setup.hasTrees {
                guard setup.epochs.first(where: { $0.epoch == row.epoch })?.firstSeq == row.seq else {
                    throw wrong("the table of epochs says another beginning")
                }
            }
            guard let detail = keyRow?.detail, let root = setup.keys[row.keyID]?.key,
                detail["public_key"]?.string == root.bytes.hex, detail["key_id"]?.string == row.keyID.hex,
                detail["install_id"]?.string == setup.installID, detail["epoch"]?.int == row.epoch
            else { throw wrong("it is signed by a key that no row before it introduced") }
            var ground: AuditVerdict.Ground?
            let checkpointKey = detail["checkpoint_key"]?.string.flatMap { [UInt8](hex: $0) }.flatMap { PublicKey($0) }
            if options.trust.contains(root) || checkpointKey.map(options.trust.contains) == true {
                ground = .trusted
            } else if epoch == 0 {
                ground = options.trust.isEmpty ? .unpinned : nil
            } else {
                guard detail["previous"]?["last_leaf"]?.string == previous.hex,
                    detail["previous"]?["last_seq"]?.int == last
                else { throw wrong("its epoch does not name the row before it") }
                if let voucher = detail["voucher"]?.string.flatMap({ [UInt8](hex: $0) }),
                    let before = checkpointKeys[epoch],
                    let checkpoint = detail["checkpoint_key"]?.string.flatMap({ [UInt8](hex: $0) }).flatMap({
                        PublicKey($0)
                    })
                {
                    guard
                        before.verifies(
                            voucher,
                            RowFormat.voucher(
                                installID: setup.installID, epoch: row.epoch, row: root, checkpoint: checkpoint))
                    else { throw wrong("the epoch before did not vouch for its keys, although it says so") }
                    ground = .vouched
                }
            }
            if epoch > 0 { lastLeaves[epoch] = previous }
            verdict.roots.append(.init(epoch: row.epoch, firstSeq: row.seq, key: root, ground: ground))
            (epoch, firstSeq, previous, key) = (row.epoch, row.seq, .zero, row.keyID)
            introduced.insert(row.keyID)
            tree = MerkleFrontier()
        }

        private mutating func introduce(_ keyRow: Chunk.KeyRow, _ row: Chunk.Row) throws {
            let detail = keyRow.detail
            guard detail["install_id"]?.string == setup.installID else {
                throw Wrong(seq: row.seq, reason: "it brings a key for another record")
            }
            if let id = detail["key_id"]?.string {
                guard let next = Digest(hex: id), let known = setup.keys[next], known.purpose == "row",
                    known.epoch == epoch, known.key.bytes.hex == detail["public_key"]?.string
                else { throw Wrong(seq: row.seq, reason: "it brings a key that the table of keys does not hold") }
                key = next
                introduced.insert(next)
            }
            if let hex = detail["checkpoint_key"]?.string {
                guard let bytes = [UInt8](hex: hex), let next = PublicKey(bytes), let known = setup.keys[next.id],
                    known.purpose == "checkpoint", known.epoch == epoch, checkpointKeys[epoch] == nil
                else {
                    throw Wrong(seq: row.seq, reason: "it brings a checkpoint key that the table of keys does not hold")
                }
                checkpointKeys[epoch] = next
                introduced.insert(next.id)
            }
        }

        /// What only the end can tell.
        mutating func finish(_ source: ReadOnlyStore) throws -> AuditVerdict {
            verdict.rows = last
            verdict.publicKey = setup.keys[key]?.key
            if options.from != nil || options.through != nil {
                verdict.range = (options.from ?? 1)...max(options.from ?? 1, min(options.through ?? last, last))
            }
            func wrong(_ reason: String, _ seq: Int64 = 0) -> Wrong { Wrong(seq: seq, reason: reason) }
            guard last == setup.last else { throw wrong("row \(last + 1) is missing", last + 1) }
            for id in setup.keys.keys where !introduced.contains(id) {
                throw wrong("the table of keys holds a key that no row introduced")
            }
            if let head {
                if head.seq > last || head.seq > 0 && leavesOfHead != head.leaf {
                    let replaced = verdict.roots.last.map { $0.epoch > head.epoch } ?? false
                    throw wrong(
                        head.seq > last
                            ? "the file ends at row \(last), but this home recorded row \(head.seq)"
                            : replaced
                                ? "this home recorded another row \(head.seq), and its head does not know the new epoch"
                                : "this home recorded another row \(head.seq)", min(head.seq, last))
                }
            }
            if setup.hasTrees {
                guard setup.epochs.count == verdict.roots.count else {
                    throw wrong("the table of epochs holds another")
                }
                try checkTiles(source)
                try checkCheckpoints()
            }
            try checkAnchors()
            try checkIndexes(source)
            try judgeRoots()
            return verdict
        }

        private mutating func judgeRoots() throws {
            if let home = options.home, let key = checkpointKeys[epoch] ?? nil,
                KeyFiles(home: home).holds(.checkpoint, key), let current = verdict.publicKey,
                KeyFiles(home: home).holds(.row, current)
            {
                let index = verdict.roots.count - 1
                if verdict.roots[index].ground != .trusted { verdict.roots[index].ground = .home }
            } else if options.home != nil, setup.hasTrees {
                throw Wrong(seq: last, reason: "it is not signed by the keys of this home")
            } else if let home = options.home, let current = verdict.publicKey,
                !KeyFiles(home: home).holds(.row, current)
            {
                throw Wrong(seq: last, reason: "it is not signed by the keys of this home")
            }
            // A believed epoch names the last row of the one before, and so all that came before it.
            var believed = false
            for index in verdict.roots.indices.reversed() {
                let ground = verdict.roots[index].ground
                if believed, ground == nil { verdict.roots[index].ground = .named }
                if ground == .trusted || ground == .home && options.trust.isEmpty { believed = true }
            }
            // What vouches must itself be believed.
            var before = true
            for root in verdict.roots {
                let isBelieved = root.ground.map { $0 != .vouched || before } ?? false
                if !isBelieved {
                    verdict.isOnlyUnvouched = true
                    throw Wrong(
                        seq: root.firstSeq,
                        reason: root.epoch == 1
                            ? "its root key \(root.key.bytes.hex) is not the one you trust"
                            : "epoch \(root.epoch) begins with keys that nobody vouches for; if you accept that restore, add --trust \(root.key.bytes.hex)"
                    )
                }
                before = isBelieved
            }
        }

        private func checkTiles(_ source: ReadOnlyStore) throws {
            var counts: [Int64: Int64] = [:]
            var index = 0
            while index < tileSums.count {
                let part = tileSums[index..<min(index + 512, tileSums.count)]
                try source.read { tx in
                    for (epoch, level, number, digest) in part {
                        let bytes = try tx.first(
                            "SELECT hashes FROM tiles WHERE epoch = ? AND level = ? AND number = ?",
                            [.int(epoch), .int(Int64(level)), .int(number)]
                        ) { $0.blob(0) }
                        guard let bytes, sha256(bytes) == digest else {
                            let first = setup.epochs.first { $0.epoch == epoch }?.firstSeq ?? 1
                            throw Wrong(
                                seq: first + number << Int64(8 * (level + 1)),
                                reason: "tile \(number) of level \(level) is not what the rows make")
                        }
                        counts[epoch, default: 0] += 1
                    }
                }
                index += part.count
            }
            guard counts == setup.tiles else { throw Wrong(seq: 0, reason: "there are tiles that no rows make") }
        }

        private mutating func checkCheckpoints() throws {
            for (epoch, size, text) in setup.checkpoints {
                let origin = RowFormat.origin(installID: setup.installID, epoch: epoch)
                let first = setup.epochs.first { $0.epoch == epoch }?.firstSeq ?? 1
                guard (0...setup.last).contains(size) else {
                    throw Wrong(seq: 0, reason: "there is a checkpoint of \(size) rows")
                }
                func wrong(_ reason: String) -> Wrong { Wrong(seq: first + max(0, size - 1), reason: reason) }
                guard let note = SignedNote(text), let checkpoint = Checkpoint(note.text), checkpoint.origin == origin,
                    checkpoint.size == size, note.encoded == text, note.text == checkpoint.text
                else { throw wrong("the checkpoint of \(size) rows cannot be read") }
                guard let key = checkpointKeys[epoch],
                    note.isSigned(by: NoteKey(name: origin, kind: .note, publicKey: key))
                else { throw wrong("the checkpoint of \(size) rows is not signed by its epoch's key") }
                guard roots[epoch]?[size] == checkpoint.root else {
                    throw wrong("the checkpoint of \(size) rows is not of this tree")
                }
                for witness in setup.witnesses + options.witnesses {
                    let isNamed = note.lines.contains { $0.name == witness.name }
                    guard !isNamed || note.cosigned(by: witness) != nil else {
                        throw wrong("the checkpoint of \(size) rows has a wrong signature of \(witness.name)")
                    }
                }
                // What a trusted witness has signed was seen outside.
                let witnesses = options.witnesses.filter { note.cosigned(by: $0) != nil }.map(\.name)
                if !witnesses.isEmpty {
                    verdict.anchors.append(
                        .init(source: "the file itself", seq: first + size - 1, witnesses: witnesses))
                }
            }
        }

        private mutating func checkAnchors() throws {
            var count = 0
            for file in options.anchors {
                for note in file.notes {
                    guard let checkpoint = Checkpoint(note.text), let epoch = epoch(of: checkpoint.origin) else {
                        continue
                    }
                    count += 1
                    let root = verdict.roots.first { $0.epoch == epoch }
                    let end = verdict.roots.first { $0.epoch > epoch }.map { $0.firstSeq - 1 } ?? last
                    func wrong(_ reason: String, _ seq: Int64) -> Wrong {
                        Wrong(seq: seq, reason: "the anchor in `\(file.source)` \(reason)")
                    }
                    guard let root else { throw wrong("is of epoch \(epoch), which the file does not have", last) }
                    guard let key = checkpointKeys[epoch],
                        note.isSigned(by: NoteKey(name: checkpoint.origin, kind: .note, publicKey: key))
                    else {
                        throw wrong(
                            "of \(checkpoint.size) rows is not signed by the file's checkpoint key: one of the two was replaced",
                            root.firstSeq)
                    }
                    // A size beyond all numbers is beyond the end, too.
                    let (sum, overflow) = root.firstSeq.addingReportingOverflow(checkpoint.size)
                    let seq = overflow ? Int64.max : sum - 1
                    if checkpoint.size > 0 {
                        guard seq <= end else {
                            // A restore that lost rows says so in its first row, and is not hidden by it.
                            throw wrong(
                                "vouches for row \(seq), but epoch \(epoch) ends at row \(end): rows were lost", end + 1
                            )
                        }
                        guard roots[epoch]?[checkpoint.size] == checkpoint.root else {
                            throw wrong("of \(checkpoint.size) rows saw other rows", seq)
                        }
                    }
                    let witnesses = options.witnesses.filter { note.cosigned(by: $0) != nil }.map(\.name)
                    verdict.anchors.append(.init(source: file.source, seq: seq, witnesses: witnesses))
                }
            }
            if !options.anchors.isEmpty, count == 0, options.anchors.contains(where: { !$0.notes.isEmpty }) {
                throw Wrong(seq: 0, reason: "none of the anchors is of this record, kruxos/\(setup.installID)")
            }
        }

        /// Queries read indexes, so these must say what the rows say.
        private func checkIndexes(_ source: ReadOnlyStore) throws {
            let names = try source.read {
                try $0.rows("SELECT name FROM sqlite_schema WHERE type = 'index'") { $0.text(0) }
            }
            if verdict.range == nil {
                for (index, column, condition, path) in IndexSums.indexes where names.contains(index) {
                    // Rows that a live gateway has added since are left out.
                    var sum: UInt64 = 0
                    try source.read { tx in
                        try tx.forEach(
                            "SELECT \(column), seq FROM audit INDEXED BY \(index) WHERE \(condition) AND seq <= ?",
                            [.int(setup.last)]
                        ) { row in
                            sum &+= IndexSums.entry(row.text(0), row.int(1))
                            return true
                        }
                    }
                    if sum != sums[keyPath: path] {
                        throw Wrong(seq: 0, reason: "the index \(index) contradicts the rows: queries would, too")
                    }
                }
                var sum: UInt64 = 0
                try source.read { tx in
                    try tx.forEach(
                        "SELECT time, seq FROM audit INDEXED BY audit_by_time WHERE time IS NOT NULL AND seq <= ?",
                        [.int(setup.last)]
                    ) { row in
                        sum &+= IndexSums.entry("\(row.int(0))", row.int(1))
                        return true
                    }
                }
                if sum != sums.time {
                    throw Wrong(seq: 0, reason: "the index audit_by_time contradicts the rows: queries would, too")
                }
            }
            let tables = try source.read {
                try $0.rows(
                    "SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT IN ('audit', 'tiles') AND name NOT LIKE 'sqlite_%'"
                ) { $0.text(0) }
            }
            for table in tables {
                let damage = try source.read {
                    try $0.first("PRAGMA integrity_check('\(table)')") { $0.text(0) } ?? "no answer"
                }
                if damage != "ok" { throw Wrong(seq: 0, reason: "SQLite finds the table \(table) damaged: \(damage)") }
            }
        }
    }
}
