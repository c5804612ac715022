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
    private static let shortest = 12

    /// The parts to hide, in order and apart from each other. Linear in the length: each run of letters is measured once.
    /// - Parameter isOwn: asked of each run of 64 hexadecimal digits, in lower case.
    static func spans(_ bytes: [UInt8], isOwn: (String) -> Bool) -> [Range<Int>] {
        guard bytes.count >= shortest else { return [] }
        var scanner = Scanner(bytes: bytes)
        return scanner.scan(isOwn)
    }

    private struct Scanner {
        let bytes: [UInt8]
        var found: [Range<Int>] = []
        /// Where the run of word characters around the index ends, and the run that also has dots.
        var wordEnd = 0
        var dottedStart = 0
        var dottedEnd = 0
        var hexEnd = 0

        init(bytes: [UInt8]) { self.bytes = bytes }

        func run(from index: Int, atMost limit: Int = .max, _ isPart: (UInt8) -> Bool) -> Int {
            var end = index
            while end < bytes.count, end - index < limit, isPart(bytes[end]) { end += 1 }
            return end
        }

        static func isHex(_ byte: UInt8) -> Bool {
            (48...57).contains(byte) || (97...102).contains(byte | 0x20) && byte >= 65
        }

        /// What a generator made rather than a person: digits, and after a prefix that words have, too, capitals or length.
        func looksGenerated(_ range: Range<Int>, after prefix: [UInt8]) -> Bool {
            let part = bytes[range].prefix(64)
            return part.contains { (48...57).contains($0) }
                && (prefix.count > 5 || prefix.starts(with: "xox".utf8) || part.count >= 40
                    || part.contains { (65...90).contains($0) })
        }

        mutating func scan(_ isOwn: (String) -> Bool) -> [Range<Int>] {
            var index = 0
            while index < bytes.count {
                let isWordStart = index >= wordEnd
                if index >= wordEnd { wordEnd = run(from: index, Alphabet.word.contains) }
                if index >= dottedEnd {
                    dottedStart = index
                    dottedEnd = run(from: index) { Alphabet.word.contains($0) || $0 == 46 }
                }
                var end: Int?
                if index >= hexEnd, Self.isHex(bytes[index]) {
                    hexEnd = run(from: index, Self.isHex)
                    if hexEnd - index == 64, isOwn(String(decoding: bytes[index..<hexEnd], as: UTF8.self).lowercased())
                    {
                        end = hexEnd
                    }
                }
                let isStart = isWordStart || bytes[index - 1] == 45
                if end == nil, isStart, firstBytes.contains(bytes[index]) { end = known(index) }
                if end == nil, isWordStart { end = shaped(index) }
                if let end, end > index {
                    found.append(index..<end)
                    index = end
                } else if isWordStart, let value = assigned(index) {
                    found.append(value)
                    index = value.upperBound
                } else {
                    index += 1
                }
            }
            return found
        }

        private func known(_ start: Int) -> Int? {
            for (prefix, alphabet, least) in prefixes where bytes[start...].starts(with: prefix) {
                let from = start + prefix.count
                let end = run(from: from, atMost: least, alphabet.contains)
                guard end - from == least else { continue }
                let whole = max(end, dottedEnd > from ? dottedEnd : run(from: from, alphabet.contains))
                if alphabet != .word || looksGenerated(from..<whole, after: prefix) { return whole }
            }
            return nil
        }

        private func shaped(_ start: Int) -> Int? {
            let rest = bytes[start...]
            switch bytes[start] {
            case UInt8(ascii: "e") where start == dottedStart && rest.starts(with: "eyJ".utf8):
                // header.payload.signature, each base64url.
                let parts = bytes[start..<dottedEnd].split(separator: 46, omittingEmptySubsequences: false)
                if parts.count == 3, parts[0].count >= 10, parts[1].count >= 4 { return dottedEnd }
            case UInt8(ascii: "-") where rest.starts(with: "-----BEGIN ".utf8):
                let line = run(from: start, atMost: 80) { $0 != 10 }
                guard String(decoding: bytes[start..<line], as: UTF8.self).contains("PRIVATE KEY") else { return nil }
                let mark = Array("-----END ".utf8)
                var end = line
                while end < bytes.count, !(bytes[end] == 45 && bytes[end...].starts(with: mark)) { end += 1 }
                return run(from: end) { $0 != 10 }
            case UInt8(ascii: "B"), UInt8(ascii: "b"):
                for scheme in ["earer ", "asic "] where rest.dropFirst().starts(with: scheme.utf8) {
                    let from = start + 1 + scheme.utf8.count
                    let end = run(from: from) { $0 > 32 && $0 < 127 && $0 != 34 && $0 != 39 }
                    if end - from >= 16, bytes[from..<end].contains(where: { (48...57).contains($0) }) { return end }
                }
            default: break
            }
            // user:password@ of an address: the password goes with its user.
            if start >= 3, bytes[(start - 3)..<start].elementsEqual("://".utf8) {
                let end = run(from: start) { $0 > 32 && $0 != 47 && $0 != 63 && $0 != 35 && $0 != 34 && $0 != 39 }
                if let at = bytes[start..<end].lastIndex(of: 64), bytes[start..<at].contains(58) { return at }
            }
            return nil
        }

        /// The value of `name=value` or `Name: value` where the name says what it is.
        private func assigned(_ start: Int) -> Range<Int>? {
            guard wordEnd - start <= 64, wordEnd < bytes.count, wordEnd > start else { return nil }
            let sign = bytes[wordEnd]
            // `--token VALUE` of a command line.
            let isOption = sign == 32 && bytes[start] == 45
            guard sign == 61 || sign == 58 || isOption,
                Redactor.isSecretLike(String(decoding: bytes[start..<wordEnd], as: UTF8.self))
            else { return nil }
            var from = wordEnd + 1
            while from < bytes.count, from < wordEnd + 3, [32, 34, 39].contains(bytes[from]) { from += 1 }
            let end = run(from: from) { $0 > 32 && ![34, 39, 38, 59, 44].contains($0) }
            if isOption, from < bytes.count, bytes[from] == 45 { return nil }
            let isValue =
                sign == 61 || isOption
                ? end - from >= 4
                : end - from >= 12 && bytes[from..<end].contains(where: { (48...57).contains($0) })
            return isValue ? from..<end : nil
        }
    }
}
