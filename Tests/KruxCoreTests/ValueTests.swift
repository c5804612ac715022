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

    /// From, until, a minute of the day, and how long it stays quiet.
    @Test(
        arguments: [
            (1320, 420, 1319, nil), (1320, 420, 1320, 540), (1320, 420, 1439, 421), (1320, 420, 0, 420),
            (1320, 420, 419, 1), (1320, 420, 420, nil), (540, 1020, 539, nil), (540, 1020, 540, 480),
            (540, 1020, 1019, 1),
            (540, 1020, 1020, nil), (0, 1440, 0, 1440), (0, 1440, 1439, 1), (1380, 1440, 0, nil),
            (1380, 1440, 1380, 60),
        ] as [(Int64, Int64, Int64, Int64?)])
    func quietHoursEnd(_ from: Int64, _ until: Int64, _ minute: Int64, _ left: Int64?) {
        #expect(NotifierSettings.Quiet(from: from, until: until).left(at: minute) == left)
    }

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
