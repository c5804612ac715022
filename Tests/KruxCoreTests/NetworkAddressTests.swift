import Glibc
import KruxCore
import Testing

@Suite struct NetworkAddressTests {
    /// The C library's reading, RFC 4291's spelling and RFC 5952's form.
    private static func read(_ text: String) -> [UInt8]? {
        var four = in_addr()
        if inet_pton(AF_INET, text, &four) == 1 { return withUnsafeBytes(of: four) { Array($0) } }
        var six = in6_addr()
        if inet_pton(AF_INET6, text, &six) == 1 { return withUnsafeBytes(of: six) { Array($0) } }
        return nil
    }

    @Test func addressesAreReadAsTheCLibraryReadsThem() {
        var random = SystemRandomNumberGenerator()
        let signs = Array("0123456789abcdefABC:::::...%/ ")
        var known = 0
        for _ in 0..<20_000 {
            var text: String
            if Bool.random() {
                // Groups of which some are left out.
                var groups = (0..<8).map { _ in
                    String(UInt16.random(in: 0...0xFFFF) & UInt16.random(in: 0...0xFF), radix: 16)
                }
                if Bool.random() { groups.replaceSubrange(Int.random(in: 0...3)...Int.random(in: 4...7), with: [""]) }
                if Bool.random() { groups.insert("", at: Bool.random() ? 0 : groups.count) }
                if Bool.random() { groups[groups.count - 1] = "\(UInt8.random(in: 0...255)).1.02.3" }
                text = groups.joined(separator: ":")
            } else {
                text = String((0..<Int.random(in: 1...12)).map { _ in signs.randomElement(using: &random) ?? "1" })
            }
            let expected = Self.read(text).flatMap { NetworkAddress(bytes: $0) }
            #expect(NetworkAddress(text) == expected, "\(text)")
            guard let expected else { continue }
            known += 1
            #expect(NetworkAddress(expected.text) == expected)
            #expect(Self.read(expected.text) == expected.bytes)
        }
        #expect(known > 500)
    }

    @Test(arguments: [
        ("2001:db8:0:0:1:0:0:1", "2001:db8::1:0:0:1"), ("2001:DB8::0", "2001:db8::"), ("::", "::"),
        ("2001:db8:0:1:1:1:1:1", "2001:db8:0:1:1:1:1:1"), ("::ffff:10.0.0.1", "10.0.0.1"), ("1::8", "1::8"),
    ])
    func oneSpellingOfMany(_ text: String, _ expected: String) { #expect(NetworkAddress(text)?.text == expected) }

    @Test(arguments: [
        "0.0.0.0", "10.1.2.3", "100.64.0.1", "100.100.100.200", "127.0.0.1", "127.255.255.254", "169.254.169.254",
        "172.16.0.1", "172.31.255.255", "192.0.0.1", "192.0.2.1", "192.168.1.1", "198.18.0.1", "198.51.100.1",
        "203.0.113.1", "224.0.0.1", "240.0.0.1", "255.255.255.255", "168.63.129.16", "::", "::1", "::ffff:127.0.0.1",
        "::127.0.0.1", "64:ff9b::7f00:1", "64:ff9b:1::1", "100::1", "2001::1", "2001:db8::1", "2002:7f00:1::",
        "3fff::1", "5f00::1", "fc00::1", "fd00:ec2::254", "fe80::1", "fec0::1", "ff02::1", "4000::1",
    ])
    func notPublic(_ text: String) { #expect(NetworkAddress(text)?.isPublic == false) }

    @Test(arguments: [
        "1.1.1.1", "8.8.8.8", "93.184.216.34", "100.63.255.255", "100.128.0.1", "172.15.0.1", "172.32.0.1", "192.0.1.1",
        "198.17.0.1", "198.20.0.1", "223.255.255.255", "2606:2800:220:1::34", "2a00:1450::1", "64:ff9b::808:808",
        "::ffff:8.8.8.8", "2001:4860:4860::8888",
    ])
    func isPublic(_ text: String) { #expect(NetworkAddress(text)?.isPublic == true) }

    @Test(arguments: [
        ("10.0.0.0/8", "10.255.0.1", true), ("10.0.0.0/8", "11.0.0.0", false), ("127.0.0.1", "127.0.0.1", true),
        ("127.0.0.1", "127.0.0.2", false), ("fd00::/8", "fdff::1", true), ("fd00::/8", "fe00::1", false),
        ("0.0.0.0/0", "::1", false), ("0.0.0.0/0", "1.2.3.4", true), ("10.0.0.0/31", "10.0.0.1", true),
    ])
    func ranges(_ range: String, _ address: String, _ expected: Bool) throws {
        let address = try #require(NetworkAddress(address))
        #expect(try #require(AddressRange(range)).contains(address) == expected)
    }

    @Test(arguments: [
        "", "10.0.0.1/8", "10.0.0.0/33", "10.0.0.0/", "/8", "10.0.0.0/08", "10.0.0/8", "x", "::/129", "1.2.3.4/-1",
    ])
    func noRanges(_ text: String) { #expect(AddressRange(text) == nil) }

    @Test(arguments: [
        ("example.com", "example.com", 443, true), ("example.com", "example.com", 8080, false),
        ("example.com:8080", "example.com", 8080, true), ("example.com:8080", "example.com", 80, false),
        ("*.example.com", "a.b.example.com", 80, true), ("*.example.com", "example.com", 80, false),
        ("*.example.com", "badexample.com", 80, false), ("EXAMPLE.com.", "example.com", 80, true),
    ])
    func hosts(_ pattern: String, _ host: String, _ port: Int64, _ expected: Bool) throws {
        #expect(try #require(HostPattern(pattern)).matches(host, port) == expected)
    }

    @Test(arguments: [
        "", "*", "*.", "https://a.example", "a.example/x", "a.example:", "a.example:0", "*.1.2.3.4", "a b",
        "a.example:070",
    ])
    func noHosts(_ text: String) { #expect(HostPattern(text) == nil) }

    /// What two rules let through is what both of them do.
    @Test func tightenedHostsAreThoseOfBoth() throws {
        func settings(_ hosts: [String]) -> SandboxSettings {
            SandboxSettings(hosts: hosts.compactMap { HostPattern($0) })
        }
        let both = settings(["*.example.com", "a.org"]).tightened(by: settings(["api.example.com:443", "b.org"]))
        #expect(both.hosts?.map(\.text) == ["api.example.com:443"])
        #expect(settings(["a.org"]).tightened(by: settings(["b.org"])).hosts == nil)
    }
}
