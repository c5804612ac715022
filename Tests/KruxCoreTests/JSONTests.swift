import KruxCore
import Testing

@Suite struct JSONTests {
    /// RFC 8785 §3.2.3 and appendix B's number samples.
    @Test(arguments: [
        (
            #"{"\u20ac":"Euro Sign","\r":"Carriage Return","\ufb33":"Hebrew Letter Dalet With Dagesh","1":"One","\ud83d\ude00":"Emoji","\u0080":"Control","\u00f6":"O"}"#,
            "{\"\\r\":\"Carriage Return\",\"1\":\"One\",\"\u{80}\":\"Control\",\"\u{f6}\":\"O\",\"\u{20ac}\":\"Euro Sign\",\"\u{1f600}\":\"Emoji\",\"\u{fb33}\":\"Hebrew Letter Dalet With Dagesh\"}"
        ),
        (#"[1E30, 4.50, 2e-3, 0.000000000000000000000000001, 56.0]"#, "[1e+30,4.5,0.002,1e-27,56]"),
        (
            #"[333333333.33333329, 1e21, 9007199254740993, 1e-6, 1e-7, -0]"#,
            "[333333333.3333333,1e+21,9007199254740992,0.000001,1e-7,0]"
        ),
        (
            #"{"b":[true,false,null],"a":"\u20ac$\u000F\u000aA'\u0042\u0022\u005c\\\"\/"}"#,
            #"{"a":"€$\u000f\nA'B\"\\\\\"/","b":[true,false,null]}"#
        ),
    ])
    func canonicalFormFollowsRFC8785(_ input: String, _ expected: String) throws {
        #expect(try JSONParser.parse(input).canonicalText == expected)
    }

    @Test(arguments: [
        "", " ", "{", "[1,]", "{\"a\":1,}", "{\"a\" 1}", "01", "1.", "1e", "+1", "nul", "\"\\x\"", "\"\\u12\"",
        "\"\u{1}\"",
        "\"\\ud800\"", "\"\\udc00\"", "\"\\ud800\\u0041\"", "1 2", "{\"a\":1,\"a\":2}", "{\"a\":1,\"\\u0061\":2}",
        "1e999",
        "'a'", "[1 2]", "\"a", "{1:2}", "\u{FEFF}1",
    ])
    func whatIsNoStrictJSONIsRefused(_ text: String) {
        #expect(throws: JSONParser.Failure.self) { try JSONParser.parse(text) }
    }

    @Test func invalidUTF8IsRefused() {
        for bytes: [UInt8] in [
            [0x22, 0xFF, 0x22], [0x22, 0xC0, 0x80, 0x22], [0x22, 0xED, 0xA0, 0x80, 0x22],
            [0x22, 0x5C, 0x6E, 0xFF, 0x22],
        ] {
            #expect(throws: JSONParser.Failure.self) { try JSONParser.parse(bytes) }
        }
    }

    @Test func nestingIsBounded() throws {
        let deep = { (count: Int) in String(repeating: "[", count: count) + String(repeating: "]", count: count) }
        #expect(throws: Never.self) { try JSONParser.parse(deep(JSONParser.maxDepth)) }
        #expect(throws: JSONParser.Failure.self) { try JSONParser.parse(deep(JSONParser.maxDepth + 2)) }
        #expect(throws: JSONParser.Failure.self) { try JSONParser.parse(deep(1_000_000)) }
    }

    @Test func keysThatOnlyLookEqualAreTwo() throws {
        // U+212A KELVIN SIGN is canonically equivalent to K.
        let object = try #require(try JSONParser.parse("{\"K\":1,\"\u{212A}\":2}").object)
        #expect(object.count == 2)
        #expect(object["K"] == 1)
        #expect(object["\u{212A}"] == 2)
    }

    @Test func parsingWhatWasWrittenGivesTheSame() throws {
        var generator = SystemRandomNumberGenerator()
        let seed = generator.next()
        var random = Splitter(state: seed)
        for _ in 0..<2000 {
            let value = random.value(depth: 0)
            let text = value.canonicalText
            #expect(try JSONParser.parse(text) == value, "seed \(seed)")
            #expect(try JSONParser.parse(value.prettyText()) == value, "seed \(seed)")
        }
    }

    private struct Splitter {
        var state: UInt64

        mutating func next() -> UInt64 {
            state = state &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
            return state >> 16
        }

        mutating func value(depth: Int) -> JSONValue {
            switch next() % (depth > 3 ? 5 : 7) {
            case 0: return .null
            case 1: return .bool(next() % 2 == 0)
            case 2: return .int(Int64(next() % 20_000) - 10_000)
            case 3: return .double(Double(next() % 100_000) / 7 + 0.1)
            case 4: return .string(text())
            case 5: return .array((0..<next() % 4).map { _ in value(depth: depth + 1) })
            default: return .object(JSONObject((0..<next() % 12).map { _ in (text(), value(depth: depth + 1)) }))
            }
        }

        mutating func text() -> String {
            let scalars: [Unicode.Scalar] = ["a", "\"", "\\", "\n", "\u{1}", "é", "€", "😀", "\u{FFFD}", "z"]
            return String(String.UnicodeScalarView((0..<next() % 6).map { _ in scalars[Int(next() % 10)] }))
        }
    }

    /// The ends of what numbers are held in.
    @Test(arguments: [
        "-9223372036854775808", "9223372036854775807", "-9223372036854775809", "18446744073709551616", "-1e308",
        "9007199254740993", "-9007199254740992", "1e400", "-0", "-0.0", "1e-400",
    ])
    func extremeNumbersEndNothing(_ text: String) throws {
        guard let value = try? JSONParser.parse("[\(text)]") else { return }
        if let number = value.array?.first?.int { #expect(number.magnitude <= UInt64(JSONValue.maxInteger)) }
        #expect(try JSONParser.parse(value.canonicalText) == value)
    }
}
