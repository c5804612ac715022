/// What of a URL rules read, when everybody reads the URL alike: scheme, host, port and path of an absolute URL
/// (RFC 3986 §3) of plain signs. A URL that two programs could read differently is nil: no backslashes, no blanks, no
/// encoded slashes or dots, no numbers for hosts but dotted quads, no scripts but ASCII.
package struct WebAddress: Sendable, Equatable {
    package let scheme: String
    /// Lower case, without a final dot; an IPv6 address as RFC 5952 writes it, in brackets.
    package let host: String
    package let port: Int64
    /// Without dot segments; `/` at least.
    package let path: String

    private static let ports: [String: Int64] = [
        "http": 80, "https": 443, "ws": 80, "wss": 443, "ssh": 22, "git": 9418, "ftp": 21, "ftps": 990,
    ]

    package init?(_ text: String) {
        let bytes = Array(text.utf8)
        guard bytes.count <= 8192, bytes.allSatisfy({ $0 > 0x20 && $0 < 0x7F }),
            !bytes.contains(where: { #"\<>"^`{|}"#.utf8.contains($0) })
        else { return nil }
        guard let colon = bytes.firstIndex(of: UInt8(ascii: ":")) else { return nil }
        let scheme = Self.lower(bytes[..<colon])
        guard let defaultPort = Self.ports[scheme], bytes[colon...].starts(with: "://".utf8) else { return nil }
        let rest = bytes[(colon + 3)...]
        let end = rest.firstIndex { "/?#".utf8.contains($0) } ?? rest.endIndex
        var authority = rest[..<end]
        if let at = authority.lastIndex(of: UInt8(ascii: "@")) {
            guard authority.firstIndex(of: UInt8(ascii: "@")) == at else { return nil }
            authority = authority[(at + 1)...]
        }
        var port = defaultPort
        if authority.last != UInt8(ascii: "]"), let mark = authority.lastIndex(of: UInt8(ascii: ":")) {
            let digits = authority[(mark + 1)...]
            authority = authority[..<mark]
            if !digits.isEmpty {
                guard digits.count <= 5, digits.allSatisfy({ (48...57).contains($0) }),
                    let number = Int64(String(decoding: digits, as: UTF8.self)), (1...65535).contains(number)
                else { return nil }
                port = number
            }
        }
        guard let host = Self.host(String(decoding: authority, as: UTF8.self)) else { return nil }
        let pathEnd = rest[end...].firstIndex { "?#".utf8.contains($0) } ?? rest.endIndex
        guard let path = Self.path(rest[end..<pathEnd]) else { return nil }
        self.scheme = scheme
        self.host = host
        self.port = port
        self.path = path
    }

    private static func lower(_ bytes: some Sequence<UInt8>) -> String {
        String(decoding: bytes.map { (65...90).contains($0) ? $0 | 0x20 : $0 }, as: UTF8.self)
    }

    /// A host name or address as rules compare it; nil when it may mean different hosts to different readers.
    package static func host(_ text: String) -> String? {
        var host = lower(text.utf8)
        if host.utf8.first == UInt8(ascii: "[") {
            let inner = String(Substring(host.utf8.dropFirst().dropLast()))
            guard host.utf8.last == UInt8(ascii: "]"), inner.utf8.contains(UInt8(ascii: ":")),
                let address = NetworkAddress(inner)
            else { return nil }
            // One spelling of many; what stands for an address of IPv4 is that.
            return address.bytes.count == 4 ? address.text : "[\(address.text)]"
        }
        if host.hasSuffix(".") { host.removeLast() }
        let labels = host.utf8.split(separator: UInt8(ascii: "."), omittingEmptySubsequences: false)
        guard (1...253).contains(host.utf8.count),
            labels.allSatisfy({ label in
                (1...63).contains(label.count)
                    && label.allSatisfy { (97...122).contains($0) || (48...57).contains($0) || $0 == 45 || $0 == 95 }
            })
        else { return nil }
        // What begins with a digit at its end is an address, and only one spelling of those is safe: a.b.c.d.
        guard let last = labels.last?.first, (48...57).contains(last) else { return host }
        guard labels.count == 4,
            labels.allSatisfy({ label in
                let text = String(Substring(label))
                return UInt8(text).map { "\($0)".utf8Equals(text) } ?? false
            })
        else { return nil }
        return host
    }

    /// RFC 3986 §5.2.4, for paths whose meaning does not hang on an encoding.
    private static func path(_ bytes: ArraySlice<UInt8>) -> String? {
        let text = String(decoding: bytes, as: UTF8.self)
        var segments: [Substring] = []
        let parts = text.dropFirst(text.hasPrefix("/") ? 1 : 0).split(separator: "/", omittingEmptySubsequences: false)
        for (index, part) in parts.enumerated() {
            switch part {
            case ".": if index == parts.count - 1 { segments.append("") }
            case "..":
                _ = segments.popLast()
                if index == parts.count - 1 { segments.append("") }
            default: segments.append(part)
            }
        }
        // Empty segments are folded by some servers and kept by others; parameters are cut off by some.
        guard text.firstRange(of: "//") == nil, !text.utf8.contains(UInt8(ascii: ";")) else { return nil }
        // What need not be encoded, or ends or splits a path once decoded, means one path to some and another to others.
        var index = bytes.startIndex
        while index < bytes.endIndex {
            if bytes[index] == UInt8(ascii: "%") {
                let digits = bytes[(index + 1)...].prefix(2)
                guard digits.count == 2, let byte = UInt8(String(decoding: digits, as: UTF8.self), radix: 16),
                    byte >= 0x20, byte != 0x7F, !"-._~/\\%;?#".utf8.contains(byte), !(48...57).contains(byte),
                    !(65...90).contains(byte & 0xDF) || byte >= 0x80
                else { return nil }
                index += 2
            }
            index += 1
        }
        return "/" + segments.joined(separator: "/")
    }

    /// `*.example.com` is any host below; anything else is itself.
    package static func matches(_ host: String, _ wanted: String) -> Bool {
        guard wanted.utf8.first == UInt8(ascii: "*") else { return host.utf8Equals(wanted) }
        let suffix = wanted.utf8.dropFirst()
        return host.utf8.count > suffix.count && host.utf8.suffix(suffix.count).elementsEqual(suffix)
    }
}

/// A mail address that everybody reads alike: `local@domain` of plain signs, lower case.
package struct MailAddress: Sendable, Equatable {
    package let text: String
    package let domain: String

    package init?(_ text: String) {
        let lowered = String(decoding: text.utf8.map { (65...90).contains($0) ? $0 | 0x20 : $0 }, as: UTF8.self)
        let parts = lowered.utf8.split(separator: UInt8(ascii: "@"), omittingEmptySubsequences: false)
        guard parts.count == 2, !parts[0].isEmpty,
            parts[0].allSatisfy({ $0 > 0x20 && $0 < 0x7F && !#"()<>[]:;,\""#.utf8.contains($0) }),
            let host = WebAddress.host(String(Substring(parts[1])))
        else { return nil }
        self.text = "\(String(Substring(parts[0])))@\(host)"
        domain = host
    }
}
