import Foundation
import KruxCore
package import KruxCrypto
package import KruxStore

/// What a verification found.
package struct AuditVerdict: Sendable, Equatable {
    package struct Failure: Sendable, Equatable {
        package let seq: Int64
        package let reason: String

        package init(seq: Int64, reason: String) {
            self.seq = seq
            self.reason = reason
        }
    }

    package var rows: Int64 = 0
    package var firstFailure: Failure?
    /// Rows that no anchor vouches for; a file alone cannot prove that its own tail is whole.
    package var unanchored: Int64 = 0
    /// The key that signed the last row.
    package var publicKey: PublicKey?

    package var isIntact: Bool { firstFailure == nil }

    /// `UNANCHORED (n rows after the last anchor)` or `FAILED at row n: why`.
    package var text: String {
        if let failure = firstFailure { return "FAILED at row \(failure.seq): \(failure.reason)" }
        return "UNANCHORED (\(unanchored) \(unanchored == 1 ? "row" : "rows") after the last anchor)"
    }
}

/// Checks a record from the file alone: schema, numbering, chain, body hashes, signatures and generated columns.
package enum AuditVerifier {
    private struct StoredRow {
        let seq: Int64, epoch: Int64
        let keyID: [UInt8], prev: [UInt8], bodyHash: [UInt8], signature: [UInt8]
        /// The stored bytes, whatever type SQLite gives them; nil once pruned.
        let body: [UInt8]?
        let columns: [String?]
    }

    private static let columns: [(name: String, path: [String])] = [
        ("time", ["time"]), ("phase", ["phase"]), ("principal", ["principal"]), ("agent", ["agent"]),
        ("session", ["session"]), ("capability", ["capability"]), ("tier", ["decision", "tier"]),
        ("outcome", ["outcome"]), ("intent", ["intent"]), ("request", ["request"]),
    ]
    private static let page: Int64 = 4096

    /// - Parameters:
    ///   - source: the file; rows are read in pages, a short snapshot each.
    ///   - progress: called after each page with the rows checked so far.
    package static func verify(
        _ source: some SnapshotSource, progress: (Int64) -> Void = { _ in }
    ) throws -> AuditVerdict {
        var verdict = AuditVerdict()
        var publicKeys: [Digest: (key: PublicKey, epoch: Int64)] = [:]
        var installID: String?
        var schemaDiffers = false
        var keyRows = 0
        // A key counts once a row has introduced it: the first row the first key, a row signed by a known key each later.
        var introduced: Set<Digest> = []
        try source.read { tx in
            installID = try tx.first("SELECT value FROM meta WHERE key = 'install_id'") { $0.text(0) }
            for (id, bytes, epoch) in try tx.rows(
                "SELECT key_id, public_key, epoch FROM keys WHERE purpose = 'row'", [],
                { ($0.blob(0), $0.blob(1), $0.int(2)) })
            {
                guard let key = PublicKey(bytes), key.id.bytes == id else { continue }
                publicKeys[key.id] = (key, epoch)
            }
            keyRows = try tx.first("SELECT count(*) FROM keys") { Int($0.int(0)) } ?? 0
            // A file that no writer has brought up to date has the schema of its version.
            let version = try tx.first("PRAGMA user_version") { Int32($0.int(0)) } ?? 0
            schemaDiffers = try Store.schema(tx) != Store.expectedSchema(through: version)
        }
        func fail(_ seq: Int64, _ reason: String) -> AuditVerdict {
            verdict.firstFailure = .init(seq: seq, reason: reason)
            return verdict
        }
        guard let installID else { return fail(0, "the file has no install id") }
        if publicKeys.count != keyRows { return fail(0, "the table of keys holds something else") }
        if schemaDiffers { return fail(0, "the schema is not the one this version makes") }
        var last: Int64 = 0
        var previous = Digest.zero
        var epoch: Int64 = 0
        while true {
            let rows = try source.read { try self.rows($0, after: last) }
            if rows.isEmpty { break }
            // The chain is one pass; signatures, which cost most, are checked on all cores.
            var heads: [(head: [UInt8], signature: [UInt8], key: PublicKey, seq: Int64)] = []
            heads.reserveCapacity(rows.count)
            var structural: AuditVerdict.Failure?
            for row in rows {
                if row.epoch != epoch {
                    if row.epoch < epoch {
                        structural = .init(seq: row.seq, reason: "its epoch \(row.epoch) lies before epoch \(epoch)")
                        break
                    }
                    epoch = row.epoch
                    previous = .zero
                }
                switch check(row, expected: last + 1, previous, installID, publicKeys) {
                case .failure(let reason): structural = .init(seq: row.seq, reason: reason.text)
                case .success(let (head, key, detail)):
                    if let detail, detail["install_id"]?.string == installID,
                        let id = detail["key_id"]?.string.flatMap({ Digest(hex: $0) }),
                        publicKeys[id]?.key.bytes.hex == detail["public_key"]?.string,
                        row.seq == 1 || introduced.contains(key.id)
                    {
                        introduced.insert(id)
                    }
                    guard introduced.contains(key.id) else {
                        structural = .init(
                            seq: row.seq, reason: "it is signed by a key that no row before it introduced")
                        break
                    }
                    verdict.publicKey = key
                    heads.append((head, row.signature, key, row.seq))
                    previous = RowFormat.leaf(head: head, signature: row.signature)
                    last = row.seq
                }
                if structural != nil { break }
            }
            if let bad = firstBadSignature(heads) {
                return fail(bad, "its signature is not by the key it names")
            }
            if let structural {
                verdict.firstFailure = structural
                return verdict
            }
            verdict.rows = last
            progress(last)
        }
        if last == 0 { return fail(1, "row 1 is missing: every record begins with its key") }
        for id in publicKeys.keys where !introduced.contains(id) {
            return fail(last, "the table of keys holds a key that no row introduced")
        }
        // Queries read indexes, so these must say what the rows say.
        let damage = try source.read { try $0.first("PRAGMA integrity_check(1)") { $0.text(0) } ?? "no answer" }
        if damage != "ok" { return fail(last, "SQLite finds the file damaged: \(damage)") }
        verdict.rows = last
        verdict.unanchored = last
        return verdict
    }

    private static func rows(_ tx: any ReadTx, after: Int64) throws -> [StoredRow] {
        let names = columns.map(\.name).joined(separator: ", ")
        return try tx.rows(
            "SELECT seq, epoch, key_id, prev, body_hash, sig, CAST(body AS BLOB), body IS NULL, \(names) FROM audit WHERE seq > ? ORDER BY seq LIMIT \(page)",
            [.int(after)]
        ) { row in
            StoredRow(
                seq: row.int(0), epoch: row.int(1), keyID: row.blob(2), prev: row.blob(3), bodyHash: row.blob(4),
                signature: row.blob(5), body: row.int(7) == 1 ? nil : row.blob(6),
                columns: columns.indices.map { row.optionalText(8 + $0) })
        }
    }

    private struct Reason: Error { let text: String }

    private static func check(
        _ row: StoredRow, expected: Int64, _ previous: Digest, _ installID: String,
        _ keys: [Digest: (key: PublicKey, epoch: Int64)]
    ) -> Result<(head: [UInt8], key: PublicKey, keyDetail: JSONValue?), Reason> {
        if row.seq != expected { return .failure(Reason(text: "row \(expected) is missing")) }
        guard row.prev == previous.bytes else { return .failure(Reason(text: "it does not follow the row before it")) }
        guard let keyID = Digest(row.keyID), let bodyHash = Digest(row.bodyHash) else {
            return .failure(Reason(text: "a hash has the wrong length"))
        }
        guard let known = keys[keyID], known.epoch == row.epoch else {
            return .failure(Reason(text: "it names a key that the file does not know for its epoch"))
        }
        guard let body = row.body else { return .failure(Reason(text: "its body is gone and no prune row covers it")) }
        guard sha256(body) == bodyHash else { return .failure(Reason(text: "its body was changed")) }
        guard let parsed = try? JSONParser.parse(body), parsed.canonicalBytes() == body else {
            return .failure(Reason(text: "its body is no canonical JSON"))
        }
        for (index, column) in columns.enumerated() {
            var value: JSONValue? = parsed
            for step in column.path { value = value?[step] }
            let expected: String? =
                switch value {
                case .string(let text)?: text
                case .int(let number)?: "\(number)"
                default: nil
                }
            if row.columns[index] != expected {
                return .failure(Reason(text: "its column `\(column.name)` contradicts its body"))
            }
        }
        let origin = sha256(Array(RowFormat.origin(installID: installID, epoch: row.epoch).utf8))
        return .success(
            (
                RowFormat.head(
                    originDigest: origin, epoch: row.epoch, seq: row.seq, prev: previous, keyID: keyID,
                    bodyHash: bodyHash), known.key, parsed["phase"] == "key" ? parsed["detail"] : nil
            ))
    }

    private static func firstBadSignature(
        _ heads: [(head: [UInt8], signature: [UInt8], key: PublicKey, seq: Int64)]
    ) -> Int64? {
        let chunk = 64
        let chunks = (heads.count + chunk - 1) / chunk
        var bad = [Int64](repeating: .max, count: chunks)
        bad.withUnsafeMutableBufferPointer { buffer in
            // Each iteration writes its own element.
            nonisolated(unsafe) let results = buffer
            DispatchQueue.concurrentPerform(iterations: chunks) { index in
                for row in heads[index * chunk..<min((index + 1) * chunk, heads.count)]
                where !row.key.verifies(row.signature, row.head) {
                    results[index] = min(results[index], row.seq)
                }
            }
        }
        return bad.filter { $0 != .max }.min()
    }
}
