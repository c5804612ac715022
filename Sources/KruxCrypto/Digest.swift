import CSodium
import KruxCore

/// 32 bytes of SHA-256, HMAC-SHA-256 or a key's identity, held in place: no allocation, compared by value.
package struct Digest: Sendable, Hashable {
    private var words: (UInt64, UInt64, UInt64, UInt64) = (0, 0, 0, 0)

    package static let zero = Digest()
    private init() {}

    /// Nil unless exactly 32 bytes.
    package init?(_ bytes: some Collection<UInt8>) {
        guard bytes.count == 32 else { return nil }
        withUnsafeMutableBytes(of: &words) { $0.copyBytes(from: bytes) }
    }

    /// Nil unless exactly 64 hexadecimal digits.
    package init?(hex: String) {
        guard let bytes = [UInt8](hex: hex) else { return nil }
        self.init(bytes)
    }

    package func withBytes<R>(_ body: (UnsafeRawBufferPointer) throws -> R) rethrows -> R {
        try withUnsafeBytes(of: words, body)
    }

    package var bytes: [UInt8] { withBytes { [UInt8]($0) } }
    package var hex: String { bytes.hex }

    package static func == (a: Digest, b: Digest) -> Bool {
        a.words.0 == b.words.0 && a.words.1 == b.words.1 && a.words.2 == b.words.2 && a.words.3 == b.words.3
    }

    package func hash(into hasher: inout Hasher) { withBytes { hasher.combine(bytes: $0) } }

    /// Equality whose time does not depend on where the two differ.
    package func equalsInConstantTime(_ other: Digest) -> Bool {
        withBytes { a in other.withBytes { b in sodium_memcmp(a.baseAddress, b.baseAddress, 32) == 0 } }
    }

    /// Writes the 32 bytes through `body`.
    static func filled(_ body: (UnsafeMutablePointer<UInt8>) -> Int32) -> Digest {
        var digest = Digest()
        withUnsafeMutableBytes(of: &digest.words) { raw in
            // INVARIANT: 32 bytes, and libsodium's hashes cannot fail.
            // swift-format-ignore: NeverForceUnwrap
            let result = raw.withMemoryRebound(to: UInt8.self) { body($0.baseAddress!) }
            precondition(result == 0)
        }
        return digest
    }
}

/// SHA-256 (FIPS 180-4).
package func sha256(_ bytes: some ContiguousBytesView) -> Digest {
    bytes.withBytesView { view in
        Digest.filled { crypto_hash_sha256($0, view.bindMemory(to: UInt8.self).baseAddress, UInt64(view.count)) }
    }
}

/// SHA-256 of several pieces, without joining them first.
package struct SHA256 {
    private var state = crypto_hash_sha256_state()

    package init() { crypto_hash_sha256_init(&state) }

    package mutating func update(_ bytes: some ContiguousBytesView) {
        bytes.withBytesView { view in
            _ = crypto_hash_sha256_update(&state, view.bindMemory(to: UInt8.self).baseAddress, UInt64(view.count))
        }
    }

    package mutating func finish() -> Digest { Digest.filled { crypto_hash_sha256_final(&state, $0) } }
}

/// HMAC-SHA-256 (RFC 2104) under a 32-byte key.
package func hmacSHA256(_ bytes: some ContiguousBytesView, key: Digest) -> Digest {
    key.withBytes { key in
        bytes.withBytesView { view in
            Digest.filled {
                // INVARIANT: a digest's 32 bytes have an address.
                // swift-format-ignore: NeverForceUnwrap
                crypto_auth_hmacsha256(
                    $0, view.bindMemory(to: UInt8.self).baseAddress, UInt64(view.count),
                    key.bindMemory(to: UInt8.self).baseAddress!)
            }
        }
    }
}

/// The same under a key of any length, as programs of others compute it.
package func hmacSHA256(_ bytes: [UInt8], secret: [UInt8]) -> Digest {
    var state = crypto_auth_hmacsha256_state()
    crypto_auth_hmacsha256_init(&state, secret, secret.count)
    crypto_auth_hmacsha256_update(&state, bytes, UInt64(bytes.count))
    return Digest.filled { crypto_auth_hmacsha256_final(&state, $0) }
}

/// Bytes that lie together in memory.
package protocol ContiguousBytesView {
    func withBytesView<R>(_ body: (UnsafeRawBufferPointer) -> R) -> R
}

extension Array: ContiguousBytesView where Element == UInt8 {
    package func withBytesView<R>(_ body: (UnsafeRawBufferPointer) -> R) -> R { withUnsafeBytes(body) }

    /// Lower-case hexadecimal.
    package var hex: String {
        var text: [UInt8] = []
        text.reserveCapacity(count * 2)
        let digits: StaticString = "0123456789abcdef"
        for byte in self {
            text.append(digits.utf8Start[Int(byte >> 4)])
            text.append(digits.utf8Start[Int(byte & 15)])
        }
        return String(decoding: text, as: UTF8.self)
    }

    /// Nil for anything but pairs of hexadecimal digits.
    package init?(hex: String) {
        let digits = Array(hex.utf8)
        guard digits.count % 2 == 0 else { return nil }
        self = []
        reserveCapacity(digits.count / 2)
        for index in stride(from: 0, to: digits.count, by: 2) {
            guard let high = hexDigit(digits[index]), let low = hexDigit(digits[index + 1]) else { return nil }
            append(high << 4 | low)
        }
    }
}

extension UnsafeRawBufferPointer: ContiguousBytesView {
    package func withBytesView<R>(_ body: (UnsafeRawBufferPointer) -> R) -> R { body(self) }
}
