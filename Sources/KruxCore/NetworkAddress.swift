/// An address of the internet, by its bytes: four of IPv4, sixteen of IPv6. IPv4 within IPv6 (`::ffff:a.b.c.d`) is IPv4.
package struct NetworkAddress: Sendable, Hashable {
    package let bytes: [UInt8]

    private static let mapped: [UInt8] = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xFF, 0xFF]

    /// Nil for any other count of bytes.
    package init?(bytes: [UInt8]) {
        if bytes.count == 16, bytes.starts(with: Self.mapped) {
            self.bytes = Array(bytes[12...])
        } else if bytes.count == 4 || bytes.count == 16 {
            self.bytes = bytes
        } else {
            return nil
        }
    }

    /// `a.b.c.d` without leading zeros, or IPv6 as RFC 4291 §2.2 writes it, without a zone.
    package init?(_ text: String) {
        guard text.utf8.count <= 45 else { return nil }
        if text.utf8.contains(UInt8(ascii: ":")) {
            guard let bytes = Self.sixteen(text) else { return nil }
            self.init(bytes: bytes)
        } else {
            guard let bytes = Self.four(text) else { return nil }
            self.init(bytes: bytes)
        }
    }

    private static func four(_ text: some StringProtocol) -> [UInt8]? {
        let parts = text.split(separator: ".", omittingEmptySubsequences: false)
        let bytes = parts.compactMap { part -> UInt8? in
            guard let byte = UInt8(part), part.utf8.elementsEqual("\(byte)".utf8) else { return nil }
            return byte
        }
        return parts.count == 4 && bytes.count == 4 ? bytes : nil
    }

    private static func sixteen(_ text: String) -> [UInt8]? {
        func groups(_ text: Substring) -> [UInt8]? {
            if text.isEmpty { return [] }
            var bytes: [UInt8] = []
            let parts = text.split(separator: ":", omittingEmptySubsequences: false)
            for (index, part) in parts.enumerated() {
                if index == parts.count - 1, part.utf8.contains(UInt8(ascii: ".")) {
                    guard let four = four(part) else { return nil }
                    bytes += four
                    continue
                }
                guard (1...4).contains(part.utf8.count), part.utf8.allSatisfy({ hexDigits.contains($0) }),
                    let value = UInt16(part, radix: 16)
                else { return nil }
                bytes += [UInt8(value >> 8), UInt8(value & 0xFF)]
            }
            return bytes
        }
        guard let gap = text.firstRange(of: "::") else {
            return groups(text[...]).flatMap { $0.count == 16 ? $0 : nil }
        }
        guard let head = groups(text[..<gap.lowerBound]), let tail = groups(text[gap.upperBound...]),
            head.count + tail.count <= 14, !text[..<gap.lowerBound].utf8.contains(UInt8(ascii: "."))
        else { return nil }
        return head + Array(repeating: 0, count: 16 - head.count - tail.count) + tail
    }
    private static let hexDigits = Set("0123456789abcdefABCDEF".utf8)

    /// As RFC 5952 has it.
    package var text: String {
        if bytes.count == 4 { return bytes.map { "\($0)" }.joined(separator: ".") }
        let groups = (0..<8).map { UInt16(bytes[2 * $0]) << 8 | UInt16(bytes[2 * $0 + 1]) }
        // The longest run of zeros, the first of equals, of two at least.
        var best = 0..<0
        var start = 0
        for index in 0...8 where index == 8 || groups[index] != 0 {
            if index - start > max(best.count, 1) { best = start..<index }
            start = index + 1
        }
        func joined(_ part: some Sequence<UInt16>) -> String {
            part.map { String($0, radix: 16) }.joined(separator: ":")
        }
        if best.isEmpty { return joined(groups) }
        return joined(groups[..<best.lowerBound]) + "::" + joined(groups[best.upperBound...])
    }

    /// Whether anybody on the internet would reach the same machine by it: no private, shared, loopback, link-local,
    /// documentation, multicast or reserved address (IANA's special-purpose registries), none of a cloud's metadata
    /// service, and none that hides one of those in another form.
    package var isPublic: Bool {
        if bytes.count == 4 { return !Self.special.contains { $0.contains(self) } }
        // What a translator (RFC 6052) would make of it.
        if Self.translated.contains(self) { return NetworkAddress(bytes: Array(bytes[12...]))?.isPublic ?? false }
        return Self.global.contains(self) && !Self.specialGlobal.contains { $0.contains(self) }
    }

    private static func ranges(_ texts: [String]) -> [AddressRange] {
        texts.map {
            // INVARIANT: literals, each of which a test reads.
            guard let range = AddressRange($0) else { preconditionFailure("`\($0)` is no range") }
            return range
        }
    }

    private static let special = ranges([
        "0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12", "192.0.0.0/24",
        "192.0.2.0/24", "192.31.196.0/24", "192.52.193.0/24", "192.88.99.0/24", "192.168.0.0/16", "192.175.48.0/24",
        "198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24", "224.0.0.0/3",
        // A cloud's own services behind an address that looks like any other.
        "168.63.129.16/32",
    ])
    private static let global = ranges(["2000::/3"])[0]
    private static let translated = ranges(["64:ff9b::/96"])[0]
    private static let specialGlobal = ranges([
        "2001::/23", "2001:db8::/32", "2002::/16", "2620:4f:8000::/48", "3fff::/20",
    ])
}

/// Addresses with the same first bits: `10.0.0.0/8`, `fd00::/8`, or one address.
package struct AddressRange: Sendable, Hashable {
    package let first: NetworkAddress
    /// Bits that count.
    package let length: Int

    /// Nil for text of another form, and where bits are set beyond `length`.
    package init?(_ text: String) {
        let parts = text.split(separator: "/", omittingEmptySubsequences: false)
        guard (1...2).contains(parts.count), let first = NetworkAddress(String(parts[0])) else { return nil }
        let bits = first.bytes.count * 8
        var length = bits
        if parts.count == 2 {
            guard let given = Int(parts[1]), parts[1].utf8.elementsEqual("\(given)".utf8), (0...bits).contains(given)
            else { return nil }
            length = given
        }
        self.first = first
        self.length = length
        for (index, byte) in first.bytes.enumerated() where byte & ~Self.mask(index, length) != 0 { return nil }
    }

    private static func mask(_ index: Int, _ length: Int) -> UInt8 {
        let bits = min(8, max(0, length - index * 8))
        return bits == 0 ? 0 : 0xFF << UInt8(8 - bits)
    }

    package func contains(_ address: NetworkAddress) -> Bool {
        address.bytes.count == first.bytes.count
            && address.bytes.indices.allSatisfy {
                address.bytes[$0] & Self.mask($0, length) == first.bytes[$0]
            }
    }

    package func contains(_ other: AddressRange) -> Bool { length <= other.length && contains(other.first) }

    package var text: String { length == first.bytes.count * 8 ? first.text : "\(first.text)/\(length)" }
}

/// A host with its port as rules name it: `example.com`, `*.example.com`, `example.com:8080`; without a port, those of
/// HTTP.
package struct HostPattern: Sendable, Hashable {
    /// Lower case, or `*.` and that.
    package let host: String
    package let port: Int64?

    package init?(_ text: String) {
        var name = text
        var port: Int64?
        if !text.hasSuffix("]"), let mark = text.lastIndex(of: ":") {
            let digits = text[text.index(after: mark)...]
            guard let number = Int64(digits), digits.utf8.elementsEqual("\(number)".utf8), (1...65535).contains(number)
            else { return nil }
            port = number
            name = String(text[..<mark])
        }
        let isWild = name.hasPrefix("*.")
        guard let host = WebAddress.host(isWild ? String(name.dropFirst(2)) : name) else { return nil }
        // Hosts below an address there are none.
        if isWild, NetworkAddress(host) != nil || host.hasPrefix("[") { return nil }
        self.host = isWild ? "*." + host : host
        self.port = port
    }

    package func matches(_ host: String, _ port: Int64) -> Bool {
        WebAddress.matches(host, self.host) && (self.port.map { $0 == port } ?? [80, 443].contains(port))
    }

    /// Whether everything that `other` matches is matched.
    package func covers(_ other: HostPattern) -> Bool {
        WebAddress.matches(other.host, host)
            && (port == other.port || port == nil && other.port.map { [80, 443].contains($0) } ?? false)
    }

    package var text: String { port.map { "\(host):\($0)" } ?? host }
}
