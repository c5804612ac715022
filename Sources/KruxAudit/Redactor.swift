package import KruxCore
package import KruxCrypto

/// What of a call's arguments goes into the record: values under secret-like names and long texts are replaced by a
/// keyed digest, with which equality can be shown later without showing the value.
package struct Redactor: Sendable {
    /// Longer strings are recorded by digest.
    package static let longestText = 2048
    private static let secretWords = [
        "password", "passwd", "passphrase", "secret", "token", "api_key", "apikey", "authorization", "credential",
        "private_key", "cookie",
    ].map { Array($0.utf8) }

    /// Whether a name holds a secret-like word, in either case of ASCII. Bytes, because the standard library's
    /// substring search costs more than signing the row does.
    static func isSecretLike(_ name: String) -> Bool {
        let bytes = name.utf8.map { (65...90).contains($0) ? $0 | 0x20 : $0 }
        return secretWords.contains { word in
            bytes.count >= word.count
                && (0...(bytes.count - word.count)).contains { bytes[$0..<$0 + word.count].elementsEqual(word) }
        }
    }

    private let key: Digest

    package init(key: Digest) { self.key = key }

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
        JSONObject(object.members.map { ($0.key, redact($0.value, key: $0.key)) })
    }

    private func redact(_ value: JSONValue, key name: String) -> JSONValue {
        if Self.isSecretLike(name) {
            return ["$redacted": .string(digest(value.canonicalBytes()))]
        }
        switch value {
        case .string(let text) where text.utf8.count > Self.longestText:
            return ["$digest": .string(digest(Array(text.utf8))), "bytes": .int(Int64(text.utf8.count))]
        case .array(let elements): return .array(elements.map { redact($0, key: "") })
        case .object(let object): return .object(redact(object))
        default: return value
        }
    }
}
