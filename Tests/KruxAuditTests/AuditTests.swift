import Foundation
import GRDBSQLite
import KruxAudit
import KruxCore
import KruxCrypto
import KruxStore
import KruxTestSupport
import Logging
import Testing

/// Stands still: nothing in these tests depends on how long they take.
let testClock = WallClock(
    now: { Timestamp(microseconds: 1_774_794_000_000_000) }, monotonic: { 1_000_000 }, boot: "test")

@Suite struct AuditTests {
    /// A record of `rows` rows beside its first, closed; the path of the file.
    private func withRecord<R>(rows: Int = 8, _ body: (String) async throws -> R) async throws -> R {
        try await withTemporaryFolder { home in
            try FileManager.default.createDirectory(atPath: home + "/keys", withIntermediateDirectories: true)
            var opened: AuditLog?
            let store = try Store(home: home, log: Logger(label: "test")) { tx in
                let log = try AuditLog(tx, home: home, clock: testClock)
                opened = log
                return [log]
            }
            let audit = try #require(opened)
            let now = Timestamp(microseconds: 1_774_794_000_000_000)
            try audit.begin(store.writer, now: now)
            for number in 0..<rows {
                var row = AuditBody(time: now.advanced(bySeconds: Int64(number)), phase: .outcome, principal: .system)
                row.agent = "agent-\(number % 2)"
                row.capability = "filesystem.read"
                row.outcome = number % 3 == 0 ? .denied : .succeeded
                row.members = [("arguments", ["path": .string("/workspace/x/\(number)"), "fraction": .double(0.5)])]
                let bytes = row.canonicalBytes()
                _ = try await store.writer.write { try audit.append(bytes, $0) }
            }
            try store.close()
            return try await body(home + "/kruxos.db")
        }
    }

    private func verify(_ path: String) throws -> AuditVerdict {
        try AuditVerifier.verify({ try ReadOnlyStore(path: path) })
    }

    @Test func anUntouchedRecordVerifies() async throws {
        try await withRecord { path in
            let verdict = try verify(path)
            #expect(verdict.isIntact && verdict.rows == 9)
            #expect(verdict.text == "UNANCHORED (9 rows after the last anchor)")
        }
    }

    @Test(arguments: [
        ("UPDATE audit SET body = replace(body, 'agent-1', 'agent-9') WHERE seq = 5", 5),
        ("UPDATE audit SET body = body || ' ' WHERE seq = 5", 5),
        ("UPDATE audit SET body = body || char(0) || 'x' WHERE seq = 5", 5),
        ("UPDATE audit SET body = NULL WHERE seq = 5", 5),
        ("UPDATE audit SET sig = zeroblob(64) WHERE seq = 5", 5),
        ("UPDATE audit SET prev = zeroblob(32) WHERE seq = 5", 5),
        ("UPDATE audit SET body_hash = zeroblob(32) WHERE seq = 5", 5),
        ("UPDATE audit SET key_id = zeroblob(32) WHERE seq = 5", 5),
        ("UPDATE audit SET epoch = 2 WHERE seq = 5", 5),
        ("DELETE FROM audit WHERE seq = 5", 6),
        ("DELETE FROM audit WHERE seq = 1", 2),
        ("DELETE FROM audit", 1),
        (
            "UPDATE audit SET seq = 100 WHERE seq = 5; UPDATE audit SET seq = 5 WHERE seq = 6; UPDATE audit SET seq = 6 WHERE seq = 100",
            5
        ),
        ("INSERT INTO audit SELECT 10, epoch, key_id, prev, body_hash, sig, body FROM audit WHERE seq = 9", 10),
        ("UPDATE keys SET public_key = zeroblob(32)", 0),
        ("INSERT INTO keys SELECT zeroblob(32), purpose, epoch, public_key, 0 FROM keys WHERE purpose = 'row'", 0),
        ("CREATE TABLE extra (x)", 0),
        ("UPDATE meta SET value = '00' WHERE key = 'install_id'", 1),
    ])
    func whatWasChangedIsFound(_ sql: String, _ row: Int64) async throws {
        try await withRecord { path in
            try tamper(path, sql)
            let verdict = try verify(path)
            #expect(!verdict.isIntact, "nothing was noticed")
            #expect(verdict.firstFailure?.seq == row, "\(verdict.text)")
        }
    }

    @Test func aRecordForgedWithAnotherKeyIsRefused() async throws {
        try await withRecord { path in
            let store = try ReadOnlyStore(path: path)
            let (installID, prev) = try store.read { tx in
                (
                    try tx.first("SELECT value FROM meta WHERE key = 'install_id'") { $0.text(0) } ?? "",
                    try tx.first("SELECT prev FROM audit WHERE seq = 9") { $0.blob(0) } ?? []
                )
            }
            guard let key = SigningKey(seed: [UInt8](repeating: 7, count: 32)) else { throw TestFailure("no key") }
            var body = AuditBody(time: Timestamp(microseconds: 1), phase: .outcome, principal: .system)
            body.outcome = .succeeded
            let bytes = body.canonicalBytes()
            let head = RowFormat.head(
                originDigest: sha256(Array(RowFormat.origin(installID: installID, epoch: 1).utf8)), epoch: 1, seq: 9,
                prev: try #require(Digest(prev)), keyID: key.publicKey.id, bodyHash: sha256(bytes))
            try tamper(
                path,
                """
                INSERT INTO keys VALUES (x'\(key.publicKey.id.hex)', 'row', 1, x'\(key.publicKey.bytes.hex)', 1);
                UPDATE audit SET key_id = x'\(key.publicKey.id.hex)', body_hash = x'\(sha256(bytes).hex)',
                    sig = x'\(key.sign(head).hex)', body = '\(String(decoding: bytes, as: UTF8.self))' WHERE seq = 9
                """)
            let verdict = try verify(path)
            #expect(verdict.firstFailure?.seq == 9, "\(verdict.text)")
            #expect(verdict.text.contains("no row before it introduced"))
        }
    }

    @Test func aLostTailIsWhatAFileAloneCannotShow() async throws {
        try await withRecord { path in
            try tamper(path, "DELETE FROM audit WHERE seq > 5; DELETE FROM checkpoints")
            #expect(try verify(path).text == "UNANCHORED (5 rows after the last anchor)")
        }
    }

    @Test func queriesSelectAndOrder() async throws {
        try await withRecord(rows: 12) { path in
            let store = try ReadOnlyStore(path: path)
            func rows(_ change: (inout AuditFilter) -> Void) throws -> [Int64] {
                var filter = AuditFilter()
                change(&filter)
                return try store.read { try AuditQuery.rows($0, filter) }.map(\.seq)
            }
            #expect(try rows { $0.limit = 3 } == [11, 12, 13])
            #expect(try rows { $0.agent = "agent-1" } == [3, 5, 7, 9, 11, 13])
            #expect(try rows { $0.outcome = .denied } == [2, 5, 8, 11])
            #expect(try rows { $0.capability = "filesystem.*" }.count == 12)
            #expect(try rows { $0.capability = "filesystem" }.isEmpty)
            #expect(try rows { $0.since = Timestamp(microseconds: 1_774_794_010_000_000) } == [12, 13])
            #expect(try rows { $0.until = Timestamp(microseconds: 1_774_794_001_000_000) } == [1, 2])
            #expect(try rows { $0.after = 12 } == [13])
            #expect(throws: AuditError.self) { try rows { $0.capability = "file*.read" } }
        }
    }

    @Test func secretsAndLongTextsAreRecordedByDigest() throws {
        let redactor = Redactor(key: sha256([1]))
        let long = String(repeating: "x", count: 5000)
        let arguments: JSONObject = [
            "path": "a", "API_Key": "hunter2", "env": ["MY_PASSWORD": "hunter2", "LANG": "C"], "content": .string(long),
        ]
        let redacted = JSONValue.object(redactor.redact(arguments)).canonicalText
        #expect(!redacted.contains("hunter2") && !redacted.contains(long))
        #expect(redacted.contains("\"LANG\":\"C\"") && redacted.contains("\"bytes\":5000"))
        #expect(redactor.redact(arguments) == redactor.redact(arguments), "equal values show as equal")
        let many = JSONObject((0..<5000).map { ("key\($0)", .string("value")) })
        #expect(redactor.recorded(many).canonicalText.utf8.count < 200)
    }
}
