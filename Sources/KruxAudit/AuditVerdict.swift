package import KruxCrypto

/// What a verification found.
package struct AuditVerdict: Sendable, Equatable {
    package struct Failure: Sendable, Equatable {
        /// The first row that is wrong; 0 where no row is to blame.
        package let seq: Int64
        package let reason: String

        package init(seq: Int64, reason: String) {
            self.seq = seq
            self.reason = reason
        }
    }

    /// Why an epoch's keys are believed.
    package enum Ground: String, Sendable {
        /// The first epoch, and nobody pinned a key: who keeps the root key elsewhere can pin it with `--trust`.
        case unpinned
        case trusted
        /// The epoch before signed its keys.
        case vouched
        /// The keys of this home are its keys.
        case home
        /// A later epoch, which is believed, names its last row.
        case named
    }

    package struct Root: Sendable, Equatable {
        package let epoch: Int64, firstSeq: Int64
        /// The first row key: the epoch's root.
        package let key: PublicKey
        package var ground: Ground?
    }

    /// A checkpoint from elsewhere that the record agrees with.
    package struct Anchor: Sendable, Equatable {
        package let source: String
        /// The last row it vouches for.
        package let seq: Int64
        /// Witnesses whose cosignature was verified.
        package let witnesses: [String]
    }

    /// The last row's number.
    package var rows: Int64 = 0
    package var firstFailure: Failure?
    package var roots: [Root] = []
    package var anchors: [Anchor] = []
    /// Rows whose bodies were pruned.
    package var pruned: Int64 = 0
    /// The key that signed the last row.
    package var publicKey: PublicKey?
    /// Everything holds, but an epoch's keys that nobody vouches for.
    package var isOnlyUnvouched = false
    /// The rows whose bodies and signatures were checked, when not all were.
    package var range: ClosedRange<Int64>?

    package init() {}

    package var isIntact: Bool { firstFailure == nil }
    package var anchoredThrough: Int64 { anchors.map(\.seq).max() ?? 0 }
    /// Rows that no anchor vouches for; a file alone cannot prove that its own tail is whole.
    package var unanchored: Int64 { max(0, rows - anchoredThrough) }

    package var word: String { !isIntact ? "FAILED" : unanchored == 0 ? "ANCHORED" : "UNANCHORED" }

    /// `ANCHORED`, `UNANCHORED (n rows after the last anchor)` or `FAILED at row n: why`.
    package var text: String {
        if let failure = firstFailure {
            return failure.seq > 0 ? "FAILED at row \(failure.seq): \(failure.reason)" : "FAILED: \(failure.reason)"
        }
        if unanchored == 0 { return "ANCHORED" }
        return "UNANCHORED (\(unanchored) \(unanchored == 1 ? "row" : "rows") after the last anchor)"
    }
}

/// Checkpoints that were kept elsewhere.
package struct AnchorFile: Sendable {
    package let source: String
    package let notes: [SignedNote]

    /// One note after the other, or a receipt. Lines that begin with `#` and empty lines between notes are skipped; a
    /// note that was cut off while it was written is none; a file of nothing else is an error.
    /// - Throws: `AuditError` `.invalidFilter` for a file that holds something else.
    package init(source: String, text: String) throws {
        self.source = source
        if text.hasPrefix(Receipt.firstLine) {
            notes = [try Receipt(text).note]
            return
        }
        var notes: [SignedNote] = []
        var lines: [Substring] = []
        var signed = false
        var skipped = 0
        func close() {
            if let note = SignedNote(lines.map { $0 + "\n" }.joined()), Checkpoint(note.text) != nil {
                notes.append(note)
            } else {
                skipped += 1
            }
            (lines, signed) = ([], false)
        }
        for line in text.split(separator: "\n", omittingEmptySubsequences: false) {
            let isSignature = line.hasPrefix("— ")
            if signed, !isSignature { close() }
            if lines.isEmpty, line.isEmpty || line.hasPrefix("#") { continue }
            // A note that was cut off while it was written is no note; the next one begins with its origin.
            if !lines.isEmpty, !isSignature, line.hasPrefix("kruxos/") {
                skipped += 1
                lines = []
            }
            lines.append(line)
            signed = isSignature
        }
        if signed, text.hasSuffix("\n") { close() }
        if notes.isEmpty, skipped > 0 || !lines.isEmpty {
            throw AuditError(
                .invalidFilter, "`\(source)` holds no checkpoint",
                hint: "an anchor file holds checkpoints one after the other, or a receipt")
        }
        self.notes = notes
    }
}
