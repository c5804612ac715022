import KruxCore
import Testing

@Suite struct CronTests {
    private static let berlin = TimeZoneTable(
        name: "Europe/Berlin",
        changes: [
            .init(from: 946_684_800, offset: 3600), .init(from: 1_774_746_000, offset: 7200),
            .init(from: 1_792_890_000, offset: 3600),
        ])

    private static func time(_ text: String) throws -> Timestamp { try #require(Timestamp(parsing: text)) }

    /// Schedule, after, what comes next; in Berlin, where clocks go from 2 to 3 on 29 March and from 3 to 2 on 25 October.
    @Test(arguments: [
        ("30 9 * * *", "2026-03-27T08:29:59Z", "2026-03-27T08:30:00Z"),
        ("30 9 * * *", "2026-03-27T08:30:00Z", "2026-03-28T08:30:00Z"),
        ("30 9 * * *", "2026-03-28T08:30:00Z", "2026-03-29T07:30:00Z"),
        // Left out by the clock: as much later, and once.
        ("30 2 * * *", "2026-03-28T12:00:00Z", "2026-03-29T01:30:00Z"),
        ("30 2 * * *", "2026-03-29T01:30:00Z", "2026-03-30T00:30:00Z"),
        // Shown twice: the first time; where every hour is meant, both times.
        ("30 2 * * *", "2026-10-24T12:00:00Z", "2026-10-25T00:30:00Z"),
        ("30 2 * * *", "2026-10-25T00:30:00Z", "2026-10-26T01:30:00Z"),
        ("30 * * * *", "2026-10-25T00:30:00Z", "2026-10-25T01:30:00Z"),
        ("*/15 * * * *", "2026-03-29T00:46:00Z", "2026-03-29T01:00:00Z"),
        ("0 0 29 2 *", "2026-03-01T00:00:00Z", "2028-02-28T23:00:00Z"),
        ("0 12 * * mon-fri", "2026-11-20T12:00:00Z", "2026-11-23T11:00:00Z"),
        ("0 12 * * 7", "2026-11-20T12:00:00Z", "2026-11-22T11:00:00Z"),
        // Either day is enough where both are restricted.
        ("0 12 13 * fri", "2026-11-14T00:00:00Z", "2026-11-20T11:00:00Z"),
        ("0 12 1-31/2 * *", "2026-11-14T00:00:00Z", "2026-11-15T11:00:00Z"),
        ("@weekly", "2026-11-20T12:00:00Z", "2026-11-21T23:00:00Z"),
        ("@yearly", "2026-11-20T12:00:00Z", "2026-12-31T23:00:00Z"),
        ("5,35 8-10 * jan,jul *", "2026-11-20T12:00:00Z", "2027-01-01T07:05:00Z"),
    ])
    func comesWhenTheClockShowsIt(_ schedule: String, _ after: String, _ expected: String) throws {
        let next = try CronSchedule(schedule).next(after: try Self.time(after), in: Self.berlin)
        #expect(next == (try Self.time(expected)), "\(next?.rfc3339 ?? "never")")
    }

    @Test(arguments: ["0 0 30 2 *", "0 0 31 4,6,9,11 *"])
    func neverComes(_ schedule: String) throws {
        #expect(try CronSchedule(schedule).next(after: try Self.time("2026-01-01T00:00:00Z"), in: .utc) == nil)
    }

    @Test(arguments: [
        "", "* * * *", "* * * * * *", "60 * * * *", "* 24 * * *", "* * 0 * *", "* * * 13 *", "* * * * 8", "a * * * *",
        "*/0 * * * *", "1-0 * * * *", "1--2 * * * *", "1,,2 * * * *", "@reboot", "-1 * * * *", "* * * foo *",
        "*/jan * * * *", "1/2/3 * * * *", "1 * * * mon-", "+1 * * * *", "٣ * * * *",
    ])
    func noSchedules(_ text: String) { #expect(throws: StructuredError.self) { try CronSchedule(text) } }

    /// Minute by minute, against a reading of the fields that is as plain as can be.
    @Test func generatedSchedulesComeWhenTheyShould() throws {
        var generator = SystemRandomNumberGenerator()
        func field(_ range: ClosedRange<Int>) -> (text: String, holds: (Int) -> Bool, isStar: Bool) {
            switch Int.random(in: 0...3, using: &generator) {
            case 0: return ("*", { _ in true }, true)
            case 1:
                let step = Int.random(in: 1...7, using: &generator)
                return ("*/\(step)", { ($0 - range.lowerBound) % step == 0 }, true)
            case 2:
                let low = Int.random(in: range, using: &generator)
                let high = Int.random(in: low...range.upperBound, using: &generator)
                return ("\(low)-\(high)", { (low...high).contains($0) }, false)
            default:
                let values = (0...2).map { _ in Int.random(in: range, using: &generator) }
                return (values.map { "\($0)" }.joined(separator: ","), { values.contains($0) }, false)
            }
        }
        for _ in 0..<200 {
            let (minute, hour, day) = (field(0...59), field(0...23), field(1...28))
            let (month, weekday) = (field(1...12), field(0...6))
            let text = [minute, hour, day, month, weekday].map(\.text).joined(separator: " ")
            let cron = try CronSchedule(text)
            let start = Int64.random(in: 1_700_000_000...1_900_000_000, using: &generator)
            let next = cron.next(after: Timestamp(microseconds: start * 1_000_000), in: .utc)
            var at = start / 60 * 60 + 60
            var expected: Int64?
            while at < start + 40 * 86_400, expected == nil {
                defer { at += 60 }
                guard minute.holds(Int(at / 60 % 60)), hour.holds(Int(at / 3600 % 24)) else { continue }
                let time = Timestamp(microseconds: at * 1_000_000).rfc3339
                let parts = time.split(whereSeparator: { "-T:Z.".contains($0) }).compactMap { Int($0) }
                let dayOfWeek = Int((at / 86_400 + 4) % 7)
                let isDate = day.holds(parts[2])
                let isWeekday = weekday.holds(dayOfWeek)
                let isDay = day.isStar || weekday.isStar ? isDate && isWeekday : isDate || isWeekday
                if month.holds(parts[1]), isDay { expected = at }
            }
            if let expected {
                #expect(next?.microseconds == expected * 1_000_000, "\(text) after \(start)")
            } else {
                #expect(next.map { $0.microseconds >= (start + 40 * 86_400) / 60 * 60_000_000 } ?? true, "\(text)")
            }
        }
    }

    /// As many as come one after the other.
    @Test func countsWhatCame() throws {
        var generator = SystemRandomNumberGenerator()
        let schedules = ["30 2 * * *", "*/15 * * * *", "0 0 1 * *", "5 */3 * * mon", "* * 29 2 *", "30 1-3 25 10 *"]
        for schedule in schedules {
            let cron = try CronSchedule(schedule)
            for _ in 0..<3 {
                let start = try Self.time("2026-03-20T00:00:00Z").advanced(
                    bySeconds: Int64.random(in: 0..<300 * 86_400, using: &generator))
                let first = try #require(cron.next(after: start, in: Self.berlin))
                let end = start.advanced(bySeconds: Int64.random(in: 0..<20 * 86_400, using: &generator))
                var expected = 0
                var at: Timestamp? = first
                while let time = at, time <= end {
                    expected += 1
                    at = cron.next(after: time, in: Self.berlin)
                }
                let counted = cron.count(from: first, through: end, in: Self.berlin, most: 100_000)
                #expect(counted == expected, "\(schedule) from \(first.rfc3339) through \(end.rfc3339)")
            }
        }
        let start = try Self.time("2026-01-01T00:00:00Z")
        let far = start.advanced(bySeconds: 400 * 86_400)
        #expect(try CronSchedule("* * * * *").count(from: start, through: far, in: .utc, most: 10_000) == 10_000)
    }

    @Test func timesOverflowNowhere() {
        let ends = [Int64.min, -1, 0, 1, Int64.max]
        for a in ends {
            for b in ends {
                let (first, second) = (Timestamp(microseconds: a), Timestamp(microseconds: b))
                #expect((first.microseconds - second.microseconds < 0) == (first < second))
                #expect((first.advanced(bySeconds: b) < first) == (b < 0 && a != Int64.min))
                #expect(!first.rfc3339.isEmpty)
            }
        }
    }
}
