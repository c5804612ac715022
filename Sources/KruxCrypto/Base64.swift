import CSodium

/// RFC 4648 base64 with padding.
package enum Base64 {
    package static func encode(_ bytes: [UInt8]) -> String {
        let variant = Int32(sodium_base64_VARIANT_ORIGINAL)
        var text = [CChar](repeating: 0, count: sodium_base64_encoded_len(bytes.count, variant))
        _ = sodium_bin2base64(&text, text.count, bytes, bytes.count, variant)
        return String(decoding: text.dropLast().map { UInt8(bitPattern: $0) }, as: UTF8.self)
    }

    /// Nil for anything but padded base64 without spaces.
    package static func decode(_ text: String) -> [UInt8]? {
        var text = text
        return text.withUTF8 { source -> [UInt8]? in
            var bytes = [UInt8](repeating: 0, count: source.count / 4 * 3 + 3)
            var length = 0
            var end: UnsafePointer<CChar>?
            let result = source.withMemoryRebound(to: CChar.self) { input in
                sodium_base642bin(
                    &bytes, bytes.count, input.baseAddress, input.count, nil, &length, &end,
                    Int32(sodium_base64_VARIANT_ORIGINAL))
            }
            guard result == 0 else { return source.isEmpty ? [] : nil }
            let consumed = source.withMemoryRebound(to: CChar.self) { input in
                input.baseAddress.map { end == $0 + input.count } ?? true
            }
            guard consumed else { return nil }
            return Array(bytes[..<length])
        }
    }
}
