import Foundation
import KruxAudit
import KruxCore
import KruxCrypto
import KruxStore

/// Everything about one row.
struct RowReport {
    private let envelope: JSONObject
    private let related: [AuditRecord]
    private let signature: String
    private let covered: String

    /// Rows with what signs them: `{seq, epoch, prev, key_id, body_hash, sig, body}`; `body` is null once pruned.
    static func envelopes(_ tx: any ReadTx, _ records: [AuditRecord]) throws -> [JSONValue] {
        guard let first = records.first, let last = records.last else { return [] }
        let wanted = Set(records.map(\.seq))
        var found: [JSONValue] = []
        try tx.forEach(
            "SELECT seq, epoch, prev, key_id, body_hash, sig, body FROM audit WHERE seq BETWEEN ? AND ? ORDER BY seq",
            [.int(first.seq), .int(last.seq)]
        ) { row in
            guard wanted.contains(row.int(0)) else { return true }
            found.append([
                "seq": .int(row.int(0)), "epoch": .int(row.int(1)), "prev": .string(row.blob(2).hex),
                "key_id": .string(row.blob(3).hex), "body_hash": .string(row.blob(4).hex),
                "sig": .string(row.blob(5).hex),
                // The signed text itself, not its value: only this has the hash.
                "body": .optional(row.optionalText(6)),
            ])
            return true
        }
        return found
    }

    static func make(_ tx: any ReadTx, seq: Int64) throws -> RowReport {
        var filter = AuditFilter()
        filter.after = seq - 1
        filter.before = seq + 1
        guard let record = try AuditQuery.rows(tx, filter).first,
            let envelope = try envelopes(tx, [record]).first?.object
        else { throw AuditError(.notFound, "there is no row \(seq)", hint: "see `kruxos audit query`") }
        var related: [AuditRecord] = []
        if let request = record.text("request") {
            var others = AuditFilter()
            others.request = request
            related = try AuditQuery.rows(tx, others).filter { $0.seq != seq }
        } else if let intent = record.body?["intent"]?.int {
            related =
                try tx.first("SELECT 1 FROM audit WHERE seq = ?", [.int(intent)]) { $0.int(0) } == nil
                ? [] : try RowReport.record(tx, intent)
        } else if record.text("phase") == "intent", let agent = record.text("agent") {
            let end = try tx.first(
                "SELECT seq FROM audit WHERE agent = ? AND seq > ? AND intent = ? ORDER BY seq LIMIT 1",
                [.text(agent), .int(seq), .int(seq)]
            ) { $0.int(0) }
            if let end { related = try RowReport.record(tx, end) }
        }
        let epoch = envelope["epoch"]?.int ?? 1
        let newest = try tx.first(
            "SELECT epochs.first_seq, max(checkpoints.size) FROM checkpoints JOIN epochs USING (epoch) WHERE epoch = ?",
            [.int(epoch)]
        ) { ($0.int(0), $0.optionalInt(1)) }
        var covered = "no checkpoint covers it yet"
        if let newest, let size = newest.1, seq < newest.0 + size {
            let first = newest.0
            covered = "leaf \(seq - first) of the tree, covered by the checkpoint of \(size) rows"
        }
        return RowReport(
            envelope: envelope, related: related, signature: try check(tx, envelope), covered: covered)
    }

    private static func record(_ tx: any ReadTx, _ seq: Int64) throws -> [AuditRecord] {
        var filter = AuditFilter()
        (filter.after, filter.before) = (seq - 1, seq + 1)
        return try AuditQuery.rows(tx, filter)
    }

    /// Whether hash and signature are right, by the key the file names.
    private static func check(_ tx: any ReadTx, _ row: JSONObject) throws -> String {
        func bytes(_ key: String) -> [UInt8] { row[key]?.string.flatMap { [UInt8](hex: $0) } ?? [] }
        let installID = try tx.first("SELECT value FROM meta WHERE key = 'install_id'") { $0.text(0) } ?? ""
        let key =
            try tx.first("SELECT public_key FROM keys WHERE key_id = ?", [.blob(bytes("key_id"))]) {
                PublicKey($0.blob(0))
            } ?? nil
        guard let key, let prev = Digest(bytes("prev")), let keyID = Digest(bytes("key_id")),
            let hash = Digest(bytes("body_hash")), let seq = row["seq"]?.int, let epoch = row["epoch"]?.int
        else { return "WRONG: its key is not in the file" }
        if let body = row["body"]?.string, sha256(Array(body.utf8)) != hash { return "WRONG: its body was changed" }
        let head = RowFormat.head(
            originDigest: RowFormat.originDigest(installID: installID, epoch: epoch), epoch: epoch, seq: seq,
            prev: prev,
            keyID: keyID, bodyHash: hash)
        return key.verifies(bytes("sig"), head) ? "right" : "WRONG: it is not by the key it names"
    }

    private var body: JSONValue? { envelope["body"]?.string.flatMap { try? JSONParser.parse($0) } }

    var json: JSONValue {
        var object = envelope
        object["body"] = body ?? .null
        object["signature"] = .string(signature)
        object["coverage"] = .string(covered)
        object["related"] = .array(related.map(\.json))
        return .object(object)
    }

    var text: String {
        var lines: [String] = []
        func line(_ title: String, _ text: String?) {
            if let text, !text.isEmpty { lines.append(title.padded(to: 13) + Console.visible(text)) }
        }
        let body = body
        line("Row:", "\(envelope["seq"]?.int ?? 0) (epoch \(envelope["epoch"]?.int ?? 0))")
        if let body {
            line("Time:", body["time"]?.int.map { Timestamp(microseconds: $0).rfc3339 })
            for (title, key) in [
                ("Phase:", "phase"), ("Who:", "principal"), ("Agent:", "agent"), ("Session:", "session"),
                ("Capability:", "capability"), ("Outcome:", "outcome"), ("Request:", "request"), ("Reason:", "reason"),
            ] { line(title, body[key]?.string) }
            line("Duration:", body["duration_us"]?.int.map { AuditCommand.Replay.duration($0) })
            line("Tier:", body["decision"]?["tier"]?.string)
            line("Decided by:", body["decision"]?["source"]?.string)
            line("Because:", body["decision"]?["reason"]?.string)
            line("Error:", body["error"]?["description"]?.string)
        } else {
            line("Body:", "pruned; its hash and signature are here")
        }
        line("Signature:", signature)
        line("Tree:", covered)
        for (title, key) in [("Follows:", "prev"), ("Key:", "key_id"), ("Body hash:", "body_hash")] {
            line(title, envelope[key]?.string)
        }
        for record in related {
            line("See also:", "row \(record.seq), \(record.text("phase") ?? "pruned") \(record.text("outcome") ?? "")")
        }
        if let body { lines += ["", body.prettyText()] }
        return lines.joined(separator: "\n")
    }
}

/// A file that appears whole or not at all, or standard output.
final class Output {
    private let path: String?
    private let handle: FileHandle

    init(_ path: String?) throws {
        self.path = path
        guard let path else {
            handle = .standardOutput
            return
        }
        let temporary = path + ".partial"
        let descriptor = open(temporary, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0o600)
        guard descriptor >= 0 else {
            throw StructuredError(
                .ioFailure, "cannot write `\(temporary)`: \(String(cString: strerror(errno)))",
                recovery: ["Choose another file."])
        }
        handle = FileHandle(fileDescriptor: descriptor, closeOnDealloc: true)
    }

    func write(_ text: String) throws {
        do { try handle.write(contentsOf: Data(text.utf8)) } catch {
            throw StructuredError(
                .ioFailure, "cannot write: \(error.localizedDescription)", recovery: ["Free some space and try again."])
        }
    }

    func close() throws {
        guard let path else { return }
        try handle.synchronize()
        try handle.close()
        guard rename(path + ".partial", path) == 0 else {
            throw StructuredError(.ioFailure, "cannot write `\(path)`: \(String(cString: strerror(errno)))")
        }
    }
}
