import Foundation
import KruxAudit
import KruxCore
import KruxCrypto
import KruxStore
import KruxTestSupport
import Logging
import Testing

/// What the record proves, and to whom.
@Suite struct EvidenceTests {
    @Test func aKeyIsReplacedByItsCountAndItsAgeAndErased() async throws {
        try await RecordHome.with { home in
            try await home.open(rotation: .init(rows: 50, seconds: 86_400)) { store, audit in
                try await home.append(260, store, audit)
                home.time.advance(seconds: 90_000)
                try await home.append(1, store, audit)
            }
            let rotations = try home.query("SELECT count(*) FROM audit WHERE phase = 'key'") - 1
            #expect(rotations == 4, "by rows after each of three batches, and once by age: \(rotations)")
            #expect(try home.keyFiles.count { $0.hasPrefix("row-") } == 1)
            let verdict = try home.verify { $0.home = home.path }
            #expect(verdict.isIntact, "\(verdict.text)")
            // The next start goes on with the same key.
            try await home.open { store, audit in try await home.append(3, store, audit) }
            #expect(try home.verify().isIntact)
        }
    }

    /// A crash between writing a key file and committing, and between committing and erasing.
    @Test func aRotationThatACrashInterruptedIsPutRightAtTheNextStart() async throws {
        try await RecordHome.with { home in
            try await home.open { store, audit in try await home.append(5, store, audit) }
            let kept = try home.keyFiles
            // The next key was written, and no row brought it.
            try Data(repeating: 9, count: 32).write(
                to: URL(fileURLWithPath: home.path + "/keys/row-0123456789abcdef.key"))
            try Data(repeating: 9, count: 32).write(
                to: URL(fileURLWithPath: home.path + "/keys/row-0123456789abcdef.key.new"))
            try await home.open { store, audit in try await home.append(1, store, audit) }
            #expect(try home.keyFiles == kept)
            // The row brought the next key, and the old file is still there.
            let old = try Data(
                contentsOf: URL(fileURLWithPath: home.path + "/keys/" + #require(kept.first { $0.hasPrefix("row-") })))
            try await home.open(rotation: .init(rows: 1, seconds: 86_400)) { store, audit in
                try await home.append(1, store, audit)
            }
            let name = try #require(kept.first { $0.hasPrefix("row-") })
            #expect(try !home.keyFiles.contains(name), "the replaced key is erased")
            try old.write(to: URL(fileURLWithPath: home.path + "/keys/" + name))
            try await home.open { store, audit in try await home.append(1, store, audit) }
            #expect(try !home.keyFiles.contains(name))
            #expect(try home.verify { $0.home = home.path }.isIntact)
        }
    }

    @Test func aReplacedKeySignsNothingMore() async throws {
        try await RecordHome.with { home in
            var old: [UInt8] = []
            try await home.open { store, audit in try await home.append(5, store, audit) }
            let name = try #require(try home.keyFiles.first { $0.hasPrefix("row-") })
            old = [UInt8](try Data(contentsOf: URL(fileURLWithPath: home.path + "/keys/" + name)))
            try await home.open(rotation: .init(rows: 1, seconds: 86_400)) { store, audit in
                try await home.append(1, store, audit)
            }
            try await home.open { store, audit in try await home.append(1, store, audit) }
            // Whoever stole the old key rewrites the last row with it.
            guard let key = SigningKey(seed: old) else { throw TestFailure("no key") }
            let last = try home.query("SELECT max(seq) FROM audit")
            try resign(home, from: last, with: key)
            let verdict = try home.verify()
            #expect(verdict.firstFailure?.seq == last && verdict.text.contains("had been replaced"), "\(verdict.text)")
        }
    }

    /// Signs rows anew from `seq` on, with bodies as they are, and makes the chain fit.
    private func resign(_ home: RecordHome, from seq: Int64, with key: borrowing SigningKey, edit: Bool = false) throws
    {
        let store = try ReadOnlyStore(path: home.database)
        let (installID, rows) = try store.read { tx in
            (
                try tx.first("SELECT value FROM meta WHERE key = 'install_id'") { $0.text(0) } ?? "",
                try tx.rows("SELECT seq, prev, body, epoch FROM audit WHERE seq >= ? ORDER BY seq", [.int(seq)]) {
                    ($0.int(0), $0.blob(1), $0.text(2), $0.int(3))
                }
            )
        }
        store.close()
        var previous: Digest?
        var statements: [String] = []
        for (seq, prev, body, epoch) in rows {
            let text = edit && previous == nil ? body.replacing("agent-", with: "agent_") : body
            let before = try previous ?? #require(Digest(prev))
            let head = RowFormat.head(
                originDigest: RowFormat.originDigest(installID: installID, epoch: epoch), epoch: epoch, seq: seq,
                prev: before, keyID: key.publicKey.id, bodyHash: sha256(Array(text.utf8)))
            let signature = key.sign(head)
            previous = RowFormat.leaf(head: head, signature: signature)
            statements.append(
                "UPDATE audit SET prev = x'\(before.hex)', key_id = x'\(key.publicKey.id.hex)', body_hash = x'\(sha256(Array(text.utf8)).hex)', sig = x'\(signature.hex)', body = '\(text.replacing("'", with: "''"))' WHERE seq = \(seq)"
            )
        }
        try tamper(home.database, statements.joined(separator: ";\n"))
    }

    /// Each kind of tampering at random places: what a file alone shows, and what an anchor adds.
    @Test(arguments: [
        "delete", "insert", "swap", "column", "body", "splice", "truncate", "roll back", "key", "re-sign", "prune",
        "tile",
        "checkpoint", "epoch",
    ]) func tamperingIsCaughtEveryTimeWhenAnchored(_ kind: String) async throws {
        try await RecordHome.with { home in
            try await home.open(rotation: .init(rows: 150, seconds: 86_400)) { store, audit in
                try await home.append(300, store, audit)
            }
            let earlier = try Data(contentsOf: URL(fileURLWithPath: home.database))
            try await home.open { store, audit in try await home.append(300, store, audit) }
            let anchor = try home.anchor()
            let original = try Data(contentsOf: URL(fileURLWithPath: home.database))
            let last = try home.query("SELECT max(seq) FROM audit")
            let keyFile = try #require(try home.keyFiles.first { $0.hasPrefix("row-") })
            let keySeed = [UInt8](try Data(contentsOf: URL(fileURLWithPath: home.path + "/keys/" + keyFile)))
            let keySince = try home.query("SELECT max(seq) FROM audit WHERE phase = 'key'")
            let seed = UInt64.random(in: 0...UInt64.max)
            var random = SeededGenerator(seed: seed)
            let trials = Int(ProcessInfo.processInfo.environment["KRUXOS_TEST_TRIALS"] ?? "") ?? 20
            for trial in 0..<trials {
                let seq = Int64.random(in: 2..<last - 1, using: &random)
                // Whether the file alone shows it, by the design.
                var isSeenAlone = true
                switch kind {
                case "delete": try tamper(home.database, "DELETE FROM audit WHERE seq = \(seq)")
                case "insert":
                    try tamper(
                        home.database,
                        "UPDATE audit SET seq = -seq WHERE seq > \(seq); UPDATE audit SET seq = 1 - seq WHERE seq < 0; INSERT INTO audit SELECT \(seq + 1), epoch, key_id, prev, body_hash, sig, body FROM audit WHERE seq = \(seq)"
                            .replacing("SET seq = -seq", with: "SET seq = seq + 1000000").replacing(
                                "SET seq = 1 - seq WHERE seq < 0", with: "SET seq = seq - 999999 WHERE seq > 1000000"))
                case "swap":
                    try tamper(
                        home.database,
                        "UPDATE audit SET seq = 1000000 WHERE seq = \(seq); UPDATE audit SET seq = \(seq) WHERE seq = \(seq + 1); UPDATE audit SET seq = \(seq + 1) WHERE seq = 1000000"
                    )
                case "column":
                    let column = ["key_id", "prev", "body_hash", "sig", "epoch"].randomElement(using: &random) ?? "sig"
                    let value = column == "epoch" ? "epoch + 1" : column == "sig" ? "randomblob(64)" : "randomblob(32)"
                    try tamper(home.database, "UPDATE audit SET \(column) = \(value) WHERE seq = \(seq)")
                case "body":
                    try tamper(
                        home.database, "UPDATE audit SET body = replace(body, '\"v\":1', '\"v\":2') WHERE seq = \(seq)")
                case "splice":
                    // A row's content from elsewhere, with its own signature.
                    let other = Int64.random(in: 2..<last, using: &random)
                    if other == seq { continue }
                    try tamper(
                        home.database,
                        "UPDATE audit SET (body, body_hash, sig) = (SELECT body, body_hash, sig FROM audit WHERE seq = \(other)) WHERE seq = \(seq)"
                    )
                case "truncate":
                    // With the tree and the checkpoints made to fit, as somebody would who knows the format.
                    let from = max(seq, keySince + 1)
                    try tamper(
                        home.database,
                        "DELETE FROM audit WHERE seq > \(from); DELETE FROM checkpoints; DELETE FROM tiles WHERE (number + 1) * 256 > \(from)"
                    )
                    isSeenAlone = false
                case "roll back":
                    try earlier.write(to: URL(fileURLWithPath: home.database))
                    isSeenAlone = false
                case "key":
                    guard let forged = SigningKey(seed: (0..<32).map { _ in UInt8.random(in: 0...255, using: &random) })
                    else { throw TestFailure("no key") }
                    try tamper(
                        home.database,
                        "UPDATE keys SET key_id = x'\(forged.publicKey.id.hex)', public_key = x'\(forged.publicKey.bytes.hex)' WHERE key_id = (SELECT key_id FROM audit WHERE seq = \(seq))"
                    )
                case "re-sign":
                    // With the key that signs now, from a row that it signed: chain and signatures fit, the tree does not.
                    guard let key = SigningKey(seed: keySeed) else { throw TestFailure("no key") }
                    try resign(home, from: Int64.random(in: keySince + 1...last, using: &random), with: key, edit: true)
                    try tamper(
                        home.database,
                        "DELETE FROM checkpoints; DELETE FROM tiles WHERE (number + 1) * 256 > \(keySince)")
                    isSeenAlone = try home.query("SELECT count(*) FROM tiles") != (last / 256)
                case "prune": try tamper(home.database, "UPDATE audit SET body = NULL WHERE seq = \(seq)")
                case "tile":
                    try tamper(
                        home.database,
                        "UPDATE tiles SET hashes = CAST(substr(hashes, 1, 100) || randomblob(32) || substr(hashes, 133) AS BLOB) WHERE number = \(trial % 2)"
                    )
                case "checkpoint":
                    try tamper(
                        home.database, "UPDATE checkpoints SET note = replace(note, x'0a' || size, x'0a' || (size - 1))"
                    )
                default: try tamper(home.database, "UPDATE epochs SET first_seq = \(seq)")
                }
                let alone = try home.verify()
                #expect(
                    alone.isIntact == !isSeenAlone,
                    "\(kind) at \(seq), seed \(seed), trial \(trial): alone \(alone.text)")
                let anchored = try home.verify { $0.anchors = [anchor] }
                #expect(
                    !anchored.isIntact, "\(kind) at \(seq), seed \(seed), trial \(trial): anchored \(anchored.text)")
                for suffix in ["-wal", "-shm"] { try? FileManager.default.removeItem(atPath: home.database + suffix) }
                try original.write(to: URL(fileURLWithPath: home.database))
            }
            #expect(try home.verify { $0.anchors = [anchor] }.text == "ANCHORED")
        }
    }

    @Test func flippedBitsOfTheFileNeverVerifyWithAnotherContent() async throws {
        try await RecordHome.with { home in
            try await home.open { store, audit in try await home.append(260, store, audit) }
            let anchor = try home.anchor()
            let original = try Data(contentsOf: URL(fileURLWithPath: home.database))
            func content() throws -> [[String?]] {
                try ReadOnlyStore(path: home.database, immutable: true).read {
                    try $0.rows("SELECT seq, hex(sig), body FROM audit ORDER BY seq") {
                        [$0.optionalText(0), $0.optionalText(1), $0.optionalText(2)]
                    }
                }
            }
            let before = try content()
            let seed = UInt64.random(in: 0...UInt64.max)
            var random = SeededGenerator(seed: seed)
            let trials = (Int(ProcessInfo.processInfo.environment["KRUXOS_TEST_TRIALS"] ?? "") ?? 20) * 10
            var refused = 0
            for trial in 0..<trials {
                var changed = original
                let index = Int.random(in: 0..<changed.count, using: &random)
                changed[index] ^= 1 << UInt8.random(in: 0..<8, using: &random)
                try changed.write(to: URL(fileURLWithPath: home.database))
                let database = home.database
                var options = AuditVerifier.Options()
                options.anchors = [anchor]
                var isVerified = false
                do {
                    isVerified = try AuditVerifier.verify(
                        { try ReadOnlyStore(path: database, immutable: true) }, options
                    )
                    .isIntact
                } catch is StoreError {}
                if isVerified { #expect(try content() == before, "byte \(index), seed \(seed), trial \(trial)") }
                refused += isVerified ? 0 : 1
            }
            #expect(refused > trials / 10, "much of the file is content: \(refused) of \(trials) were refused")
        }
    }

    @Test func everyBitOfAReceiptCounts() async throws {
        try await RecordHome.with { home in
            try await home.open { store, audit in try await home.append(300, store, audit) }
            let receipt = try ReadOnlyStore(path: home.database).read { try Receipt.make($0, seq: 200) }
            let verified = try Receipt(receipt.text).verify(trusted: [], witnesses: [])
            #expect(verified.checkpoint.size == 301 && !verified.isTrusted)
            #expect(try Receipt(receipt.text).verify(trusted: [receipt.keyRow.key], witnesses: []).isTrusted)
            #expect(throws: AuditError.self) {
                try Receipt(receipt.text).verify(
                    trusted: [receipt.row.key == receipt.keyRow.key ? receipt.checkpointKey : receipt.row.key].map {
                        _ in
                        // A key that has nothing to do with it.
                        try #require(PublicKey([UInt8](repeating: 7, count: 32)))
                    }, witnesses: [])
            }
            let bytes = Array(receipt.text.utf8)
            for index in bytes.indices {
                for bit in 0..<8 {
                    var changed = bytes
                    changed[index] ^= 1 << bit
                    guard let text = String(validating: changed, as: UTF8.self) else { continue }
                    #expect(throws: AuditError.self, "byte \(index), bit \(bit)") {
                        try Receipt(text).verify(trusted: [], witnesses: [])
                    }
                }
            }
        }
    }

    @Test func aFileThatWasPutBackIsRefusedUntilItIsAccepted() async throws {
        try await RecordHome.with { home in
            try await home.open { store, audit in try await home.append(10, store, audit) }
            let earlier = try Data(contentsOf: URL(fileURLWithPath: home.database))
            try await home.open { store, audit in try await home.append(10, store, audit) }
            let anchor = try home.anchor()
            try earlier.write(to: URL(fileURLWithPath: home.database))
            await #expect(throws: AuditError(.wrongHead, "")) { try await home.open { _, _ in } }
            #expect(try !home.verify { $0.home = home.path }.isIntact)
            try await home.open(accepting: true) { store, audit in
                #expect(audit.epoch == 2)
                try await home.append(5, store, audit)
            }
            // It goes on by itself from here, and the old epoch vouched for the new keys.
            try await home.open { store, audit in try await home.append(5, store, audit) }
            let verdict = try home.verify { $0.home = home.path }
            #expect(verdict.isIntact && verdict.roots.map(\.epoch) == [1, 2], "\(verdict.text)")
            let alone = try home.verify()
            #expect(alone.roots.last?.ground == .vouched, "\(alone)")
            let root = try #require(verdict.roots.first?.key)
            #expect(try home.verify { $0.trust = [root] }.isIntact)
            // An anchor from before still shows that rows were lost.
            let lost = try home.verify { $0.anchors = [anchor] }
            #expect(lost.text.contains("rows were lost"), "\(lost.text)")
        }
    }

    @Test func anotherBranchAndAMissingHeadAreRefused() async throws {
        try await RecordHome.with { home in
            try await home.open { store, audit in try await home.append(10, store, audit) }
            let earlier = try Data(contentsOf: URL(fileURLWithPath: home.database))
            let head = try String(contentsOfFile: home.path + "/keys/head", encoding: .utf8)
            try await home.open { store, audit in try await home.append(10, store, audit) }
            let laterHead = try String(contentsOfFile: home.path + "/keys/head", encoding: .utf8)
            // The same keys go on from the earlier file: as long, and another branch.
            try earlier.write(to: URL(fileURLWithPath: home.database))
            try write(head, to: home.path + "/keys/head")
            home.time.advance(seconds: 5)
            try await home.open { store, audit in try await home.append(30, store, audit) }
            try write(laterHead, to: home.path + "/keys/head")
            let error = await #expect(throws: AuditError.self) { try await home.open { _, _ in } }
            #expect(error?.message.contains("another branch") == true)
            for text in ["", "nonsense\n", String(laterHead.dropLast(3))] {
                try write(text, to: home.path + "/keys/head")
                await #expect(throws: AuditError(.wrongHead, "")) { try await home.open { _, _ in } }
            }
            try FileManager.default.removeItem(atPath: home.path + "/keys/head")
            await #expect(throws: AuditError(.wrongHead, "")) { try await home.open { _, _ in } }
        }
    }

    @Test func keysThatNobodyVouchesForNeedATrustedRoot() async throws {
        try await RecordHome.with { home in
            try await home.open { store, audit in try await home.append(10, store, audit) }
            // On another machine: the file without its keys.
            try FileManager.default.removeItem(atPath: home.path + "/keys")
            try FileManager.default.createDirectory(atPath: home.path + "/keys", withIntermediateDirectories: true)
            await #expect(throws: AuditError.self) { try await home.open { _, _ in } }
            try await home.open(accepting: true) { store, audit in try await home.append(5, store, audit) }
            #expect(try home.verify { $0.home = home.path }.isIntact)
            let alone = try home.verify()
            #expect(alone.firstFailure?.seq == 12 && alone.text.contains("nobody vouches for"), "\(alone.text)")
            let roots = alone.roots.map(\.key)
            #expect(try home.verify { $0.trust = [roots[1]] }.isIntact)
            #expect(try !home.verify { $0.trust = [roots[0]] }.isIntact)
            #expect(try home.verify { $0.trust = roots }.isIntact)
        }
    }

    /// Rows before the first, numbers beyond all numbers, and values of other types.
    @Test(arguments: [
        "PRAGMA ignore_check_constraints = ON; INSERT INTO audit (seq, epoch, key_id, prev, body_hash, sig, body) VALUES (0, 1, zeroblob(32), zeroblob(32), zeroblob(32), zeroblob(64), '{\"phase\":\"admin\",\"principal\":\"supervisor:x\"}')",
        "PRAGMA ignore_check_constraints = ON; INSERT INTO audit (seq, epoch, key_id, prev, body_hash, sig, body) VALUES (-5, 1, zeroblob(32), zeroblob(32), zeroblob(32), zeroblob(64), NULL)",
        "UPDATE audit SET seq = 9223372036854775807 WHERE seq = 31",
        "UPDATE audit SET seq = 1125899906842624 WHERE seq = 31",
        "PRAGMA ignore_check_constraints = ON; UPDATE checkpoints SET size = -9223372036854775808",
        "UPDATE checkpoints SET size = 9223372036854775807",
        "PRAGMA ignore_check_constraints = ON; UPDATE epochs SET first_seq = -9223372036854775808",
        "UPDATE audit SET epoch = 9223372036854775807 WHERE seq = 31",
    ]) func whatNoRowCanBeIsRefused(_ sql: String) async throws {
        try await RecordHome.with { home in
            try await home.open { store, audit in try await home.append(30, store, audit) }
            let anchor = try home.anchor()
            try tamper(home.database, sql)
            #expect(try !home.verify { $0.anchors = [anchor] }.isIntact)
            #expect(try !home.verify().isIntact)
        }
    }

    @Test func anAnchorFileMayBeCutOffAndMayLie() async throws {
        try await RecordHome.with { home in
            try await home.open { store, audit in try await home.append(30, store, audit) }
            let note = try #require(try home.anchor().notes.first)
            let text = note.encoded + "\n"
            for cut in [3, 60, 150] {
                let file = try AnchorFile(source: "cut", text: text + String(text.dropLast(cut)) + "\n\n" + text)
                let verdict = try home.verify { $0.anchors = [file] }
                #expect(file.notes.contains(note) && verdict.text == "ANCHORED", "\(verdict.text)")
            }
            let origin = note.text.split(separator: "\n")[0]
            for (name, size) in [
                (String(origin), "9223372036854775807"), (String(origin.dropLast()) + "9223372036854775807", "5"),
            ] {
                let lie = try AnchorFile(
                    source: "lie",
                    text: "\(name)\n\(size)\n47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=\n\n— x AAAAAAAA\n")
                #expect(try !home.verify { $0.anchors = [lie] }.isIntact)
            }
        }
    }

    @Test func aSecondRestoreTakesANewNumber() async throws {
        try await RecordHome.with { home in
            try await home.open { store, audit in try await home.append(5, store, audit) }
            let backup = try Data(contentsOf: URL(fileURLWithPath: home.database))
            for epoch in [Int64(2), 3] {
                home.time.advance(seconds: 10)
                try await home.open { store, audit in try await home.append(5, store, audit) }
                try backup.write(to: URL(fileURLWithPath: home.database))
                try await home.open(accepting: true) { store, audit in
                    #expect(audit.epoch == epoch)
                    try await home.append(5, store, audit)
                }
            }
            let verdict = try home.verify { $0.home = home.path }
            #expect(verdict.isIntact && verdict.roots.map(\.epoch) == [1, 3], "\(verdict.text)")
        }
    }

    @Test func aRangeIsCheckedAgainstTheWholeTree() async throws {
        try await RecordHome.with { home in
            try await home.open { store, audit in try await home.append(600, store, audit) }
            let verdict = try home.verify {
                ($0.from, $0.through) = (100, 200)
                $0.anchors = [try home.anchor()]
            }
            #expect(verdict.text == "ANCHORED" && verdict.range == 100...200)
            try tamper(home.database, "UPDATE audit SET body = replace(body, 'agent-', 'agent_') WHERE seq = 150")
            let changed = try home.verify { ($0.from, $0.through) = (100, 200) }
            #expect(changed.firstFailure?.seq == 150, "\(changed.text)")
            #expect(try home.verify { ($0.from, $0.through) = (300, 400) }.isIntact, "its hash stands for it there")
        }
    }

    @Test func anIndexThatContradictsTheRowsIsFound() async throws {
        try await RecordHome.with { home in
            try await home.open { store, audit in try await home.append(50, store, audit) }
            // The index forgets a row; the table keeps it.
            try tamper(
                home.database,
                """
                PRAGMA writable_schema = ON;
                CREATE TABLE kept AS SELECT sql, name FROM sqlite_schema WHERE name = 'audit_by_agent';
                UPDATE sqlite_schema SET sql = replace(sql, 'agent IS NOT NULL', 'agent = ''agent-1''') WHERE name = 'audit_by_agent';
                """)
            try tamper(home.database, "REINDEX audit_by_agent")
            try tamper(
                home.database,
                """
                PRAGMA writable_schema = ON;
                UPDATE sqlite_schema SET sql = (SELECT sql FROM kept) WHERE name = 'audit_by_agent';
                DROP TABLE kept
                """)
            let verdict = try home.verify()
            #expect(verdict.text.contains("audit_by_agent"), "\(verdict.text)")
        }
    }

    /// Somebody else's reading of the same format: rotations, tiles of both levels, two epochs, pruning, receipts.
    @Test func anIndependentVerifierAgrees() async throws {
        try await RecordHome.with { home in
            try await home.open(rotation: .init(rows: 20_000, seconds: 86_400)) { store, audit in
                try await home.append(66_000, store, audit)
            }
            let anchor = home.path + "/anchor"
            let note = try ReadOnlyStore(path: home.database).read {
                try $0.first("SELECT note FROM checkpoints ORDER BY size DESC LIMIT 1") { $0.text(0) }
            }
            try write((note ?? "") + "\n", to: anchor)
            let head = try String(contentsOfFile: home.path + "/keys/head", encoding: .utf8)
            try write(head.replacing(" 0000000000000006", with: " 0000000000000007"), to: home.path + "/keys/head")
            try await home.open(accepting: true) { store, audit in try await home.append(400, store, audit) }
            var arguments = [home.database, "--anchor", anchor]
            for seq in [Int64(1), 2, 256, 257, 65_537, 66_000, 66_300] {
                let receipt = try ReadOnlyStore(path: home.database).read { try Receipt.make($0, seq: seq) }
                try write(receipt.text, to: "\(home.path)/receipt-\(seq)")
                arguments += ["--receipt", "\(home.path)/receipt-\(seq)"]
            }
            let tests = ((#filePath as NSString).deletingLastPathComponent as NSString).deletingLastPathComponent
            let told = try Peer.run("verify_record.py", arguments, file: tests + "/EndToEndTests/x")
            #expect(told.contains("epochs=2 tiles=259 checkpoints=2 receipts=7 anchors=1"), "\(told)")
            #expect(try home.verify().isIntact)
            // It can say no, too.
            try tamper(home.database, "UPDATE audit SET body = replace(body, 'agent-', 'agent_') WHERE seq = 40000")
            let refused = #expect(throws: TestFailure.self) {
                try Peer.run("verify_record.py", arguments, file: tests + "/EndToEndTests/x")
            }
            #expect(refused?.description.contains("FAILED at row 40000") == true)
        }
    }

    @Test func tokensAreHiddenWhereverTheyStand() throws {
        let own = String(repeating: "ab", count: 32)
        let secrets = SecretValues(isOwnToken: { $0 == own })
        try secrets.set([try SecretBytes(Array("correct horse battery".utf8))])
        let redactor = Redactor(key: sha256([1]), secrets: secrets)
        let hidden = [
            "AKIAIOSFODNN7EXAMPLE", "ghp_abcdefghijklmnopqrstuvwxyz0123456789",
            "sk-" + String(repeating: "a1B", count: 12),
            "xoxb-123456789012-abcdefghij", "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.abcdefghijkl", own,
            "correct horse battery",
            "-----BEGIN OPENSSH PRIVATE KEY-----\nb3BlbnNzaC1rZXk\n-----END OPENSSH PRIVATE KEY-----",
            "Bearer abcdefghijklmn0pqrstuvwxyz", "user:hunter22@",
        ]
        for secret in hidden {
            let text =
                secret.hasPrefix("user:") ? "curl https://\(secret)example.com/x" : "say \"\(secret)\" twice: \(secret)"
            let scrubbed = redactor.scrub(text)
            let core =
                secret.hasPrefix("Bearer")
                ? String(secret.dropFirst(7)) : secret.hasPrefix("user:") ? "hunter22" : secret
            #expect(!scrubbed.contains(core) && scrubbed.contains("[redacted:"), "\(scrubbed)")
            #expect(redactor.scrub(text) == scrubbed, "equal values show as equal")
        }
        for text in [
            "plain words", "task-list sk-short", "https://example.com:8080/a@b", sha256([2]).hex, "a.b.c eyJ", "AKIA",
            "the bearer of bad news", "git commit -m fix", "Basic troubleshooting-guide.md",
            "sk-learn-classifier-pipeline",
            "SG.internal_module_name_v2", "basic https://example.com/docs/intro", "password: required",
        ] { #expect(redactor.scrub(text) == text) }
        for (text, core) in [
            ("tok_\(own)_x", own), ("mysql --password=hunter22 -u root", "hunter22"),
            ("X-Api-Key: 0123456789abcdef", "0123456789"),
            (own.uppercased(), own.uppercased()),
        ] { #expect(!redactor.scrub(text).contains(core), "\(redactor.scrub(text))") }
        let named = redactor.redact([
            "X-API-KEY": "abc", "PRIVATE-KEY": "abc", "MYSQL_PWD": "abc", "ACCESS_KEY": "abc",
            "args": ["--token", "abc"],
        ])
        #expect(!JSONValue.object(named).canonicalText.contains("\"abc\""))
        #expect(
            redactor.redact(["max_tokens": 4096, "MAX_TOKENS": "4096"]) == ["max_tokens": 4096, "MAX_TOKENS": "4096"])
        // A name as long as a book, and texts that a careless scanner measures again and again.
        for unit in ["a-", "eyJ-", "eyJ.", "-----BEGIN ", "://a:", "sk-", "Bearer ", "ab", "x="] {
            let long = String(repeating: unit, count: 20_000)
            #expect(redactor.redact([long: 1]).keys.first?.utf8.count ?? 0 < 100)
            _ = redactor.scrub(long)
        }
        let row = redactor.recorded(["command": "curl", "args": ["-H", "Authorization: Bearer abcdefghijklmnop1234"]])
        #expect(!row.canonicalText.contains("abcdefghijklmnop1234"))
        let large: JSONObject = ["content": .string(String(repeating: "x", count: 2000))]
        #expect(redactor.recorded(result: large)["bytes"]?.int ?? 0 > 2000)
        #expect(redactor.recorded(result: ["content": "small"]) == ["content": "small"])
    }
}
