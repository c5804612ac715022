package import KruxCrypto

/// A C2SP signed note (c2sp.org/signed-note): UTF-8 text that ends in a newline, an empty line, and a line per signature,
///
///     — <key name> <base64(key id[4] ‖ signature)>
///
/// Nothing of the text is to be believed before a signature by a known key has been verified.
package struct SignedNote: Sendable, Equatable {
    package struct Line: Sendable, Equatable {
        package let name: String
        /// 4 bytes.
        package let keyID: [UInt8]
        package let signature: [UInt8]

        package init(name: String, keyID: [UInt8], signature: [UInt8]) {
            self.name = name
            self.keyID = keyID
            self.signature = signature
        }

        package var text: String { "— \(name) \(Base64.encode(keyID + signature))\n" }
    }

    /// With its final newline.
    package let text: String
    package var lines: [Line]

    package init(text: String, lines: [Line] = []) {
        self.text = text
        self.lines = lines
    }

    /// More than any log or witness sends.
    private static let longest = 64 << 10

    /// Nil for anything that is not exactly a note.
    package init?(_ encoded: String) {
        guard encoded.utf8.count <= Self.longest, encoded.utf8.allSatisfy({ $0 == 10 || $0 >= 32 }) else { return nil }
        let bytes = Array(encoded.utf8)
        // The last empty line separates text and signatures.
        guard bytes.count > 2, let end = (0..<bytes.count - 1).last(where: { bytes[$0] == 10 && bytes[$0 + 1] == 10 })
        else { return nil }
        text = String(decoding: bytes[...end], as: UTF8.self)
        lines = []
        guard let parsed = Self.lines(bytes[(end + 2)...]), !parsed.isEmpty else { return nil }
        lines = parsed
    }

    /// Signature lines; nil when one is none.
    package static func lines(_ bytes: ArraySlice<UInt8>) -> [Line]? {
        guard bytes.isEmpty || bytes.last == 10 else { return nil }
        var lines: [Line] = []
        for line in bytes.split(separator: 10, omittingEmptySubsequences: false).dropLast() {
            let parts = String(decoding: line, as: UTF8.self).split(separator: " ", omittingEmptySubsequences: false)
            guard parts.count == 3, parts[0] == "—", NoteKey.isName(String(parts[1])),
                let value = Base64.decode(String(parts[2])), value.count > 4
            else { return nil }
            lines.append(Line(name: String(parts[1]), keyID: Array(value[..<4]), signature: Array(value[4...])))
        }
        return lines
    }

    package var encoded: String { text + "\n" + lines.map(\.text).joined() }

    /// Whether the note is signed by `key`: a line names it and its signature is right, and no line that names it has a
    /// wrong one.
    package func isSigned(by key: NoteKey) -> Bool {
        let named = lines.filter { $0.name == key.name && $0.keyID == key.id }
        return !named.isEmpty && named.allSatisfy { key.verifies($0.signature, text) }
    }

    /// The time at which a cosigner signed, in seconds since 1970; nil when it did not.
    package func cosigned(by key: NoteKey) -> Int64? {
        guard key.kind == .cosignature, isSigned(by: key) else { return nil }
        return lines.first { $0.name == key.name && $0.keyID == key.id }.flatMap { NoteKey.timestamp($0.signature) }
    }
}

/// The public half of a key that signs notes: a name and an Ed25519 key. Written as a verifier key,
/// `<name>+<key id in hex>+<base64(kind ‖ public key)>`.
package struct NoteKey: Sendable, Hashable {
    package enum Kind: UInt8, Sendable {
        /// Ed25519 over the text.
        case note = 0x01
        /// A cosigner's Ed25519 with its time (c2sp.org/tlog-cosignature): `u64be seconds ‖ signature`.
        case cosignature = 0x04
    }

    package let name: String
    package let kind: Kind
    package let publicKey: PublicKey

    package init(name: String, kind: Kind, publicKey: PublicKey) {
        self.name = name
        self.kind = kind
        self.publicKey = publicKey
    }

    /// Nil for anything but a verifier key of a kind known here whose id is right.
    package init?(verifier: String) {
        let parts = verifier.split(separator: "+", maxSplits: 2, omittingEmptySubsequences: false).map(String.init)
        guard parts.count == 3, Self.isName(parts[0]), let material = Base64.decode(parts[2]), material.count == 33,
            let kind = Kind(rawValue: material[0]), let key = PublicKey(Array(material[1...]))
        else { return nil }
        self.init(name: parts[0], kind: kind, publicKey: key)
        guard parts[1] == id.hex else { return nil }
    }

    /// SHA-256(name ‖ "\n" ‖ kind ‖ public key)[:4].
    package var id: [UInt8] { Array(sha256(Array(name.utf8) + [10, kind.rawValue] + publicKey.bytes).bytes[..<4]) }

    package var verifier: String { "\(name)+\(id.hex)+\(Base64.encode([kind.rawValue] + publicKey.bytes))" }

    /// No spaces, no plus, not empty.
    package static func isName(_ name: String) -> Bool {
        !name.isEmpty && !name.unicodeScalars.contains { $0.properties.isWhitespace || $0 == "+" || $0.value < 32 }
    }

    static func timestamp(_ signature: [UInt8]) -> Int64? {
        guard signature.count == 72 else { return nil }
        let seconds = signature[..<8].reduce(UInt64(0)) { $0 << 8 | UInt64($1) }
        return Int64(exactly: seconds)
    }

    /// "cosignature/v1\ntime <seconds>\n" before the note's text.
    private static func cosigned(_ text: String, _ seconds: Int64) -> [UInt8] {
        Array("cosignature/v1\ntime \(seconds)\n\(text)".utf8)
    }

    package func verifies(_ signature: [UInt8], _ text: String) -> Bool {
        switch kind {
        case .note: return publicKey.verifies(signature, Array(text.utf8))
        case .cosignature:
            guard let seconds = Self.timestamp(signature) else { return false }
            return publicKey.verifies(Array(signature[8...]), Self.cosigned(text, seconds))
        }
    }

    /// The line that signs `text`.
    /// - Parameter seconds: since 1970, for a cosignature.
    package func sign(_ text: String, with key: borrowing SigningKey, seconds: Int64 = 0) -> SignedNote.Line {
        let signature: [UInt8]
        switch kind {
        case .note: signature = key.sign(Array(text.utf8))
        case .cosignature:
            let time = (0..<8).map { UInt8(truncatingIfNeeded: seconds >> Int64(56 - 8 * $0)) }
            signature = time + key.sign(Self.cosigned(text, seconds))
        }
        return SignedNote.Line(name: name, keyID: id, signature: signature)
    }
}

/// What a C2SP checkpoint (c2sp.org/tlog-checkpoint) says: `origin`, `size` and `root` on a line each.
package struct Checkpoint: Sendable, Equatable {
    package let origin: String
    package let size: Int64
    package let root: Digest

    package init(origin: String, size: Int64, root: Digest) {
        self.origin = origin
        self.size = size
        self.root = root
    }

    /// From a note's text; extension lines are skipped. Nil for anything else.
    package init?(_ text: String) {
        let lines = text.split(separator: "\n", omittingEmptySubsequences: false)
        guard lines.count >= 4, lines.last == "", lines.dropLast().allSatisfy({ !$0.isEmpty }),
            let size = Self.size(lines[1]), let root = Base64.decode(String(lines[2])).flatMap({ Digest($0) })
        else { return nil }
        self.init(origin: String(lines[0]), size: size, root: root)
    }

    /// A decimal without leading zeroes.
    package static func size(_ text: some StringProtocol) -> Int64? {
        guard let size = Int64(text), size >= 0, "\(size)" == text else { return nil }
        return size
    }

    package var text: String { "\(origin)\n\(size)\n\(Base64.encode(root.bytes))\n" }
}
