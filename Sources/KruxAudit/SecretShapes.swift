/// Finds tokens of known shapes in text: what a provider gives out under a prefix of its own, JSON Web Tokens, private
/// keys, credentials in headers and addresses. A value that only looks random is left alone: hashes do, too.
enum SecretShapes {
    private enum Alphabet {
        case upperAlphanumeric, alphanumeric, word

        func contains(_ byte: UInt8) -> Bool {
            switch byte {
            case UInt8(ascii: "0")...UInt8(ascii: "9"), UInt8(ascii: "A")...UInt8(ascii: "Z"): true
            case UInt8(ascii: "a")...UInt8(ascii: "z"): self != .upperAlphanumeric
            case UInt8(ascii: "_"), UInt8(ascii: "-"): self == .word
            default: false
            }
        }
    }

    /// Prefix, what follows it, and how much of that at least.
    private static let known: [(String, Alphabet, Int)] = [
        ("AKIA", .upperAlphanumeric, 16), ("ASIA", .upperAlphanumeric, 16), ("ghp_", .alphanumeric, 30),
        ("gho_", .alphanumeric, 30), ("ghu_", .alphanumeric, 30), ("ghs_", .alphanumeric, 30),
        ("ghr_", .alphanumeric, 30), ("github_pat_", .word, 22), ("glpat-", .word, 20), ("sk-", .word, 20),
        ("sk_live_", .alphanumeric, 16), ("sk_test_", .alphanumeric, 16), ("rk_live_", .alphanumeric, 16),
        ("xoxb-", .word, 10), ("xoxp-", .word, 10), ("xoxa-", .word, 10), ("xoxr-", .word, 10), ("xoxs-", .word, 10),
        ("npm_", .alphanumeric, 36), ("pypi-", .word, 16), ("AIza", .word, 35), ("ya29.", .word, 20),
        ("hf_", .alphanumeric, 30), ("dop_v1_", .alphanumeric, 64), ("shpat_", .alphanumeric, 32), ("SG.", .word, 16),
    ]
    private static let prefixes: [(prefix: [UInt8], alphabet: Alphabet, least: Int)] = known.map {
        prefix, alphabet, least in
        (Array(prefix.utf8), alphabet, least)
    }

    private static let firstBytes = Set(prefixes.map { $0.prefix[0] })
    private static let shortest = 16

    /// The parts to hide, in order and apart from each other.
    /// - Parameter isOwn: asked of each word of 64 hexadecimal digits.
    static func spans(_ bytes: [UInt8], isOwn: (ArraySlice<UInt8>) -> Bool) -> [Range<Int>] {
        guard bytes.count >= shortest else { return [] }
        var found: [Range<Int>] = []
        var index = 0
        while index < bytes.count {
            // A word begins here.
            if index > 0, Alphabet.word.contains(bytes[index - 1]), bytes[index - 1] != UInt8(ascii: "-") {
                index += 1
                continue
            }
            if let end = match(bytes, index, isOwn) {
                found.append(index..<end)
                index = end
            } else {
                index += 1
            }
        }
        return found
    }

    private static func match(_ bytes: [UInt8], _ start: Int, _ isOwn: (ArraySlice<UInt8>) -> Bool) -> Int? {
        let rest = bytes[start...]
        func run(from index: Int, _ isPart: (UInt8) -> Bool) -> Int {
            var end = index
            while end < bytes.count, isPart(bytes[end]) { end += 1 }
            return end
        }
        if firstBytes.contains(bytes[start]) {
            for (prefix, alphabet, least) in prefixes where rest.starts(with: prefix) {
                let end = run(from: start + prefix.count, alphabet.contains)
                // Some continue after a dot.
                if end - start - prefix.count >= least {
                    return run(from: end) { Alphabet.word.contains($0) || $0 == UInt8(ascii: ".") }
                }
            }
        }
        switch bytes[start] {
        case UInt8(ascii: "e") where rest.starts(with: "eyJ".utf8):
            // header.payload.signature, each base64url.
            let end = run(from: start) { Alphabet.word.contains($0) || $0 == UInt8(ascii: ".") }
            let parts = bytes[start..<end].split(separator: UInt8(ascii: "."), omittingEmptySubsequences: false)
            if parts.count == 3, parts[0].count >= 10, parts[1].count >= 4 { return end }
        case UInt8(ascii: "-") where rest.starts(with: "-----BEGIN ".utf8):
            let line = run(from: start) { $0 != 10 }
            guard String(decoding: bytes[start..<line], as: UTF8.self).contains("PRIVATE KEY") else { return nil }
            let mark = Array("-----END ".utf8)
            var end = line
            while end < bytes.count, !bytes[end...].starts(with: mark) { end += 1 }
            return run(from: end) { $0 != 10 }
        case UInt8(ascii: "B"), UInt8(ascii: "b"):
            for scheme in ["earer ", "asic "] where rest.dropFirst().starts(with: scheme.utf8) {
                let from = start + 1 + scheme.utf8.count
                let end = run(from: from) { $0 > 32 && $0 < 127 && $0 != UInt8(ascii: "\"") && $0 != UInt8(ascii: "'") }
                if end - from >= shortest { return end }
            }
        default: break
        }
        // user:password@ of an address: the password goes with its user.
        if start >= 3, bytes[(start - 3)..<start].elementsEqual("://".utf8) {
            let end = run(from: start) { $0 > 32 && !"/?#\"'".utf8.contains($0) }
            if let at = bytes[start..<end].lastIndex(of: UInt8(ascii: "@")),
                bytes[start..<at].contains(UInt8(ascii: ":"))
            {
                return at
            }
        }
        let end = run(from: start, Alphabet.word.contains)
        if end - start == 64, isOwn(bytes[start..<end]) { return end }
        return nil
    }
}
