import KruxCore
import Testing

@Suite struct ValueTests {
    @Test(arguments: [
        ("1970-01-01T00:00:00Z", 0), ("2026-03-29T14:20:00Z", 1_774_794_000), ("2000-02-29", 951_782_400),
        ("1969-12-31T23:59:59Z", -1), ("2026-03-29T16:20:00+02:00", 1_774_794_000), ("2026-03-29 14:20", 1_774_794_000),
    ])
    func timesAreRead(_ text: String, _ seconds: Int64) {
        #expect(Timestamp(parsing: text)?.microseconds == seconds * 1_000_000)
    }

    @Test(arguments: ["", "2026", "2026-13-01", "2026-02-30", "2026-03-29T25:00Z", "2026-03-29T14:20:00X", "yesterday"])
    func noTimesAreRefused(_ text: String) { #expect(Timestamp(parsing: text) == nil) }

    @Test func timesAreWrittenAsTheyAreRead() {
        for seconds in stride(from: Int64(-5_000_000_000), through: 10_000_000_000, by: 97_654_321) {
            let time = Timestamp(microseconds: seconds * 1_000_000 + 123_456)
            #expect(Timestamp(parsing: time.rfc3339) == time)
        }
    }

    @Test(arguments: [("90s", 90), ("15m", 900), ("1h", 3600), ("7d", 604_800), ("0s", 0)])
    func durationsAreRead(_ text: String, _ seconds: Int64) { #expect(HumanDuration(text)?.seconds == seconds) }

    @Test(arguments: ["", "s", "-1h", "1", "1y", "1.5h", "99999999999d"])
    func noDurationsAreRefused(_ text: String) { #expect(HumanDuration(text) == nil) }

    @Test(arguments: ["a", "my-agent", "0", "a--b", String(repeating: "a", count: 63)])
    func agentNames(_ text: String) { #expect(AgentName(text)?.text == text) }

    @Test(arguments: ["", "-a", "A", "a.b", "a/b", "..", "a b", "ä", "a\n", "a\0", String(repeating: "a", count: 64)])
    func noAgentNames(_ text: String) { #expect(AgentName(text) == nil) }

    @Test func toolNamesMapBothWays() {
        for name in ["filesystem.read", "state.shared.get", "network.http_request", "secrets.read_raw"] {
            let capability = CapabilityName(name)
            #expect(capability.map { CapabilityName(toolName: $0.toolName) } == capability)
        }
        #expect(CapabilityName(toolName: "filesystem") == nil)
        #expect(CapabilityName(toolName: "filesystem__..__read") == nil)
    }

    @Test func schemasFillDefaultsAndNameEveryViolation() {
        let schema: ObjectSchema = [
            .required("path", .path, "p"), .optional("limit", .integer(1...10), "l", default: 5),
            .optional("tags", .array(.string(maxLength: 3), maxItems: 2), "t"),
        ]
        let (filled, none) = schema.validate(["path": "a", "tags": ["x"]])
        #expect(none.isEmpty && filled["limit"] == 5)
        let (_, violations) = schema.validate(["pth": "a", "limit": 11, "tags": ["x", "long"]])
        #expect(violations.map(\.pointer) == ["/pth", "/path", "/limit", "/tags/1"])
        #expect(violations[0].message.contains("did you mean `path`"))
        let (_, types) = schema.validate(["path": 1, "limit": "5", "tags": [:]])
        #expect(types.count == 3)
        #expect(schema.validate(["path": .string(String(repeating: "a", count: 5000))]).1.count == 1)
    }
}
