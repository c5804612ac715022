package import KruxCore
package import KruxCrypto
import Synchronization

/// What of a call's arguments goes into the record: values under secret-like names and long texts are replaced by a
/// keyed digest, with which equality can be shown later without showing the value.
package struct Redactor: Sendable {
    /// Longer strings are recorded by digest.
    package static let longestText = 2048
    private static let secretWords = [
        "password", "passwd", "passphrase", "pwd", "secret", "access_key", "token", "api_key", "apikey",
        "authorization", "credential",
        "private_key", "cookie",
    ].map { Array($0.utf8) }

    /// Whether a name holds a secret-like word, in either case of ASCII. Bytes, because the standard library's
    /// substring search costs more than signing the row does.
    package static func isSecretLike(_ name: String) -> Bool {
        let bytes = name.utf8.prefix(longestName).map { (65...90).contains($0) ? $0 | 0x20 : $0 == 45 ? 95 : $0 }
        return secretWords.contains { word in
            bytes.count >= word.count
                && (0...(bytes.count - word.count)).contains { bytes[$0..<$0 + word.count].elementsEqual(word) }
        }
    }

    private let key: Digest
    private let secrets: SecretValues

    /// - Parameter secrets: values that are hidden wherever they stand.
    package init(key: Digest, secrets: SecretValues = SecretValues()) {
        self.key = key
        self.secrets = secrets
    }

    /// Text with tokens of known shapes and known secret values replaced by `[redacted:<first 16 digits of their keyed
    /// digest>]`, so that two equal ones can be told.
    package func scrub(_ text: String) -> String {
        let bytes = Array(text.utf8)
        var spans = SecretShapes.spans(bytes, isOwn: secrets.isOwnToken)
        for range in secrets.occurrences(in: bytes) where !spans.contains(where: { $0.overlaps(range) }) {
            spans.append(range)
        }
        return spans.isEmpty ? text : String(decoding: replacing(spans, in: bytes), as: UTF8.self)
    }

    private func replacing(_ spans: [Range<Int>], in bytes: [UInt8]) -> [UInt8] {
        var result: [UInt8] = []
        var end = 0
        for span in spans.sorted(by: { $0.lowerBound < $1.lowerBound }) {
            result += bytes[end..<span.lowerBound]
            result += Array("[redacted:\(digest(Array(bytes[span])).prefix(16))]".utf8)
            end = span.upperBound
        }
        return result + bytes[end...]
    }

    /// Every text of a value scrubbed, members' names too.
    package func scrub(_ value: JSONValue) -> JSONValue {
        switch value {
        case .string(let text): .string(scrub(text))
        case .array(let elements): .array(elements.map { scrub($0) })
        case .object(let object): .object(JSONObject(object.members.map { (scrub($0.key), scrub($0.value)) }))
        default: value
        }
    }

    /// A reply to an agent without values of the vault, whatever they came from.
    package func hidingValues(_ object: JSONObject) -> JSONObject {
        secrets.isEmpty ? object : hiding(.object(object)).object ?? [:]
    }

    package func hidingValues(_ error: StructuredError) -> StructuredError {
        secrets.isEmpty ? error : StructuredError(json: hiding(error.json)) ?? error
    }

    package func hidingValues(_ bytes: [UInt8]) -> [UInt8] {
        let spans = secrets.occurrences(in: bytes, inReply: true)
        return spans.isEmpty ? bytes : replacing(spans, in: bytes)
    }

    private func hiding(_ value: JSONValue) -> JSONValue {
        func hiding(_ text: String) -> String {
            let bytes = Array(text.utf8)
            let spans = secrets.occurrences(in: bytes, inReply: true)
            return spans.isEmpty ? text : String(decoding: replacing(spans, in: bytes), as: UTF8.self)
        }
        return switch value {
        case .string(let text): .string(hiding(text))
        case .array(let elements): .array(elements.map { self.hiding($0) })
        case .object(let object):
            .object(JSONObject(object.members.map { (hiding($0.key), self.hiding($0.value)) }))
        default: value
        }
    }

    /// A result as a row holds it: redacted up to a limit; beyond it by digest and size, with those of its members that are
    /// short, such as exit codes and what confined a process.
    package func recorded(result: JSONObject) -> JSONValue {
        let bytes = result.canonicalBytes()
        if bytes.count <= Self.longestResult { return .object(redact(result)) }
        var recorded: JSONObject = ["$digest": .string(digest(bytes)), "bytes": .int(Int64(bytes.count))]
        let short = JSONObject(
            result.members.filter { JSONObject([($0.key, $0.value)]).canonicalBytes().count <= Self.longestMember }.map
            {
                ($0.key, $0.value)
            })
        let members = redact(short)
        if members.canonicalBytes().count <= Self.longestResult {
            for member in members.members where recorded[member.key] == .none { recorded[member.key] = member.value }
        }
        return .object(recorded)
    }

    private static let longestMember = 256

    /// A member's name: not so long that it could hold something else.
    private func recorded(name: String) -> String {
        name.utf8.count > Self.longestName ? "$digest:" + digest(Array(name.utf8)) : scrub(name)
    }
    private static let longestName = 256

    /// `max_tokens: 4096` counts tokens and is none.
    private static func isCount(_ value: JSONValue, _ name: String) -> Bool {
        guard name.lowercased().hasSuffix("tokens") else { return false }
        switch value {
        case .int, .double, .null, .bool: return true
        case .string(let text): return text.utf8.count <= 9 && text.utf8.allSatisfy { (48...57).contains($0) }
        default: return false
        }
    }

    /// Bytes of a result that a row holds in full.
    package static let longestResult = 1 << 10

    package func digest(_ bytes: [UInt8]) -> String { hmacSHA256(bytes, key: key).hex }

    /// Redacted arguments as a row holds them: whole up to a limit, by digest beyond it, so that no call can fill the
    /// disk with its own record.
    package func recorded(_ arguments: JSONObject) -> JSONValue {
        let redacted = redact(arguments)
        let bytes = redacted.canonicalBytes()
        if bytes.count <= Self.longestArguments { return .object(redacted) }
        return ["$digest": .string(digest(bytes)), "bytes": .int(Int64(bytes.count))]
    }

    /// Bytes of redacted arguments that a row holds in full.
    package static let longestArguments = 16 << 10

    package func redact(_ object: JSONObject) -> JSONObject {
        JSONObject(object.members.map { (recorded(name: $0.key), redact($0.value, key: $0.key)) })
    }

    private func redact(_ value: JSONValue, key name: String) -> JSONValue {
        if Self.isSecretLike(name), !Self.isCount(value, name) {
            return ["$redacted": .string(digest(value.canonicalBytes()))]
        }
        switch value {
        case .string(let text) where text.utf8.count > Self.longestText:
            return ["$digest": .string(digest(Array(text.utf8))), "bytes": .int(Int64(text.utf8.count))]
        case .string(let text): return .string(scrub(text))
        case .array(let elements):
            // `--token VALUE` is two elements.
            var before: String?
            return .array(
                elements.map { element in
                    let isValue =
                        before.map { $0.hasPrefix("-") && !$0.contains("=") && Self.isSecretLike($0) } ?? false
                    before = element.string
                    return redact(element, key: isValue ? "secret" : "")
                })
        case .object(let object): return .object(redact(object))
        default: return value
        }
    }
}

/// Values that must stand in no row and no reply: those of the vault, and the gate's own tokens.
package final class SecretValues: Sendable {
    /// In each form that programs write them in.
    private let values = Mutex<[Form]>([])

    private struct Form: Sendable {
        let bytes: SecretBytes
        /// What it is a form of is too short to be hidden in replies.
        let isShort: Bool
        var count: Int { bytes.count }
    }
    private let ownToken: @Sendable (String) -> Bool

    /// Shorter ones would hide ordinary words.
    private static let shortest = 6

    /// In replies a shorter one is not hidden: an agent that has its guesses read back to it would see which is hidden.
    package static let shortestInReplies = 12

    /// - Parameter isOwnToken: asked of each word of 64 hexadecimal digits.
    package init(isOwnToken: @escaping @Sendable (String) -> Bool = { _ in false }) { ownToken = isOwnToken }

    /// - Throws: `StructuredError` `.unavailable` when no memory can be locked for them.
    package func set(_ values: [SecretBytes]) throws {
        let forms = try values.filter { $0.count >= Self.shortest }.flatMap { value in
            try value.withBytes { bytes in
                let raw = Array(bytes)
                // Wherever it stands in what was encoded: the signs that hang on it alone.
                let aligned = (0..<3).map { before -> [UInt8] in
                    let encoded = Base64.encode(Array(repeating: 0, count: before) + raw)
                    let first = (before * 8 + 5) / 6
                    return Array(encoded.utf8.prefix((before + raw.count) * 8 / 6).dropFirst(first))
                }.filter { $0.count >= Self.shortest }
                let url = aligned.map { $0.map { $0 == 43 ? 45 : $0 == 47 ? 95 : $0 } }
                let texts =
                    aligned + url + [
                        Array(raw.hex.utf8), Array(raw.hex.uppercased().utf8), Self.percentEncoded(raw),
                    ]
                return try ([value] + Set(texts).subtracting([raw]).map { try SecretBytes($0) }).map {
                    Form(bytes: $0, isShort: raw.count < Self.shortestInReplies)
                }
            }
        }
        // The longest first, so that a part does not leave the rest.
        self.values.withLock { $0 = forms.sorted { $0.count > $1.count } }
    }

    private static func percentEncoded(_ bytes: [UInt8]) -> [UInt8] {
        bytes.flatMap { byte -> [UInt8] in
            let isPlain =
                (48...57).contains(byte) || (65...90).contains(byte & 0xDF) || "-._~".utf8.contains(byte)
            return isPlain ? [byte] : Array("%".utf8) + [byte].hex.uppercased().utf8
        }
    }

    package var isEmpty: Bool { values.withLock { $0.isEmpty } }

    func isOwnToken(_ text: String) -> Bool { ownToken(text) }

    func occurrences(in bytes: [UInt8], inReply: Bool = false) -> [Range<Int>] {
        let values = values.withLock { $0 }.filter { !(inReply && $0.isShort) }.map(\.bytes)
        if values.isEmpty { return [] }
        // One pass over the text: most of its bytes begin no value.
        var beginnings: [[SecretBytes]] = Array(repeating: [], count: 256)
        for value in values { beginnings[Int(value.withBytes { $0[0] })].append(value) }
        var found: [Range<Int>] = []
        var index = 0
        while index < bytes.count {
            let value = beginnings[Int(bytes[index])].first { value in
                index + value.count <= bytes.count
                    && value.withBytes { bytes[index..<index + value.count].elementsEqual($0) }
            }
            guard let value else {
                index += 1
                continue
            }
            found.append(index..<index + value.count)
            index += value.count
        }
        return found
    }
}
