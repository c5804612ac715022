/// When something recurs, as crontab(5) writes it: minute, hour, day of the month, month and day of the week, or
/// `@hourly`, `@daily`, `@weekly`, `@monthly`, `@yearly`. Where both days are restricted, either is enough.
package struct CronSchedule: Sendable, Equatable {
    package let text: String
    private var minutes: UInt64 = 0
    private var hours: UInt64 = 0
    private var days: UInt64 = 0
    private var months: UInt64 = 0
    /// 0 for Sunday.
    private var weekdays: UInt64 = 0
    private let isEveryHour: Bool, isEveryDay: Bool, isEveryWeekday: Bool

    private static let names: [String: String] = [
        "@hourly": "0 * * * *", "@daily": "0 0 * * *", "@midnight": "0 0 * * *", "@weekly": "0 0 * * 0",
        "@monthly": "0 0 1 * *", "@yearly": "0 0 1 1 *", "@annually": "0 0 1 1 *",
    ]
    private static let monthNames = [
        "jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec",
    ]
    private static let weekdayNames = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"]

    /// - Throws: `StructuredError` `.invalidArguments` that names the field.
    package init(_ text: String) throws(StructuredError) {
        let given = Self.names[text.lowercased()] ?? text
        let fields = given.split(whereSeparator: { $0 == " " || $0 == "\t" }).map { String($0).lowercased() }
        guard fields.count == 5 else {
            throw Self.refusal(
                "has \(fields.count) fields, not five", text)
        }
        self.text = text
        isEveryHour = fields[1].hasPrefix("*")
        isEveryDay = fields[2].hasPrefix("*")
        isEveryWeekday = fields[4].hasPrefix("*")
        minutes = try Self.field(fields[0], 0...59, [], "minute", text)
        hours = try Self.field(fields[1], 0...23, [], "hour", text)
        days = try Self.field(fields[2], 1...31, [], "day of the month", text)
        months = try Self.field(fields[3], 1...12, Self.monthNames, "month", text)
        weekdays = try Self.field(fields[4], 0...7, Self.weekdayNames, "day of the week", text)
        if weekdays & 1 << 7 != 0 { weekdays |= 1 }
    }

    private static func refusal(_ why: String, _ text: String) -> StructuredError {
        StructuredError(
            .invalidArguments, "the schedule `\(text.prefix(100))` \(why)",
            recovery: ["Write minute, hour, day, month and weekday, such as `30 9 * * mon-fri`, or `@daily`."])
    }

    /// `*`, `5`, `1-5`, `mon`, each with `/2` for every second, and lists of those.
    private static func field(
        _ text: String, _ range: ClosedRange<Int>, _ names: [String], _ what: String, _ whole: String
    ) throws(StructuredError) -> UInt64 {
        func number(_ text: Substring) -> Int? {
            if let index = names.firstIndex(of: String(text)) { return index + (range.lowerBound == 1 ? 1 : 0) }
            guard text.utf8.count <= 2, text.utf8.allSatisfy({ (48...57).contains($0) }) else { return nil }
            return Int(text)
        }
        var bits: UInt64 = 0
        for part in text.split(separator: ",", omittingEmptySubsequences: false) {
            let pieces = part.split(separator: "/", omittingEmptySubsequences: false)
            var step = 1
            if pieces.count == 2 {
                guard let given = number(pieces[1]), given > 0, names.firstIndex(of: String(pieces[1])) == nil else {
                    throw refusal("has no \(what) `\(part)`: a step is a number above 0", whole)
                }
                step = given
            }
            let ends = (pieces.first ?? "").split(separator: "-", omittingEmptySubsequences: false)
            let low: Int
            let high: Int
            if pieces.first == "*" {
                (low, high) = (range.lowerBound, range.upperBound == 7 ? 6 : range.upperBound)
            } else if ends.count == 2, let first = number(ends[0]), let last = number(ends[1]) {
                (low, high) = (first, last)
            } else if ends.count == 1, let only = number(ends[0]) {
                (low, high) = (only, pieces.count == 2 ? range.upperBound : only)
            } else {
                throw refusal("has no \(what) `\(part)`", whole)
            }
            guard pieces.count <= 2, range.contains(low), range.contains(high), low <= high else {
                throw refusal(
                    "has no \(what) `\(part)`: it goes from \(range.lowerBound) to \(range.upperBound)", whole)
            }
            for value in stride(from: low, through: high, by: step) { bits |= 1 << UInt64(value) }
        }
        return bits
    }

    private static let secondsOfDay: Int64 = 86_400

    /// The first time after `time` that it comes, in a zone. What falls into an hour that the clock leaves out comes as
    /// much later; what falls into one that it shows twice comes the first time, or both times where every hour is meant.
    /// - Returns: nil for a day that no calendar has, such as 30 February.
    package func next(after time: Timestamp, in zone: TimeZoneTable) -> Timestamp? {
        let after = time.flooredSeconds
        let today = Self.floored(zone.local(time))
        // Leap days are up to eight years apart; a gap of a zone's moves a time into the next day at most.
        for day in stride(
            from: today - Self.secondsOfDay, through: today + 9 * 366 * Self.secondsOfDay, by: Int(Self.secondsOfDay))
        where isDay(day) {
            var best: Int64?
            for hour in 0..<24 where hours & 1 << UInt64(hour) != 0 {
                for minute in 0..<60 where minutes & 1 << UInt64(minute) != 0 {
                    for at in instants(day + Int64(hour) * 3600 + Int64(minute) * 60, zone)
                    where at > after && best.map({ at < $0 }) ?? true { best = at }
                }
            }
            if let best { return Timestamp(microseconds: best * 1_000_000) }
        }
        return nil
    }

    /// How many times there are from one through another, none counted beyond `most`.
    package func count(from start: Timestamp, through end: Timestamp, in zone: TimeZoneTable, most: Int) -> Int {
        let (first, last) = (start.flooredSeconds, end.flooredSeconds)
        var found: Set<Int64> = []
        let firstDay = Self.floored(zone.local(start)) - Self.secondsOfDay
        let lastDay = Self.floored(zone.local(end)) + Self.secondsOfDay
        for day in stride(from: firstDay, through: lastDay, by: Int(Self.secondsOfDay)) where isDay(day) {
            for hour in 0..<24 where hours & 1 << UInt64(hour) != 0 {
                for minute in 0..<60 where minutes & 1 << UInt64(minute) != 0 {
                    for at in instants(day + Int64(hour) * 3600 + Int64(minute) * 60, zone)
                    where at >= first && at <= last { found.insert(at) }
                }
            }
            if found.count >= most { return most }
        }
        return found.count
    }

    private static func floored(_ seconds: Int64) -> Int64 {
        seconds - ((seconds % secondsOfDay) + secondsOfDay) % secondsOfDay
    }

    /// - Parameter day: seconds since 1970 of a local midnight, as if it were UTC's.
    private func isDay(_ day: Int64) -> Bool {
        let number = day / Self.secondsOfDay
        let (_, month, dayOfMonth) = Self.civil(number)
        guard months & 1 << UInt64(month) != 0 else { return false }
        // 1 January 1970 was a Thursday.
        let weekday = ((number + 4) % 7 + 7) % 7
        let isDate = days & 1 << UInt64(dayOfMonth) != 0
        let isWeekday = weekdays & 1 << UInt64(weekday) != 0
        return isEveryDay || isEveryWeekday ? isDate && isWeekday : isDate || isWeekday
    }

    /// Year, month and day of a day's number since 1970, in the Gregorian calendar.
    private static func civil(_ number: Int64) -> (Int64, Int64, Int64) {
        // Years begin in March here, so that the leap day is their last.
        let shifted = number + 719_468
        let era = (shifted >= 0 ? shifted : shifted - 146_096) / 146_097
        let dayOfEra = shifted - era * 146_097
        let yearOfEra = (dayOfEra - dayOfEra / 1460 + dayOfEra / 36_524 - dayOfEra / 146_096) / 365
        let dayOfYear = dayOfEra - (365 * yearOfEra + yearOfEra / 4 - yearOfEra / 100)
        let month = (5 * dayOfYear + 2) / 153
        let day = dayOfYear - (153 * month + 2) / 5 + 1
        return (yearOfEra + era * 400 + (month >= 10 ? 1 : 0), month < 10 ? month + 3 : month - 9, day)
    }

    /// When a clock on the wall of the zone shows a time: once, twice, or never and then as much later.
    private func instants(_ local: Int64, _ zone: TimeZoneTable) -> [Int64] {
        func offset(_ seconds: Int64) -> Int64 {
            zone.local(Timestamp(microseconds: seconds * 1_000_000)) - seconds
        }
        let before = offset(local - 2 * Self.secondsOfDay)
        let after = offset(local + 2 * Self.secondsOfDay)
        let found = Set([before, after]).map { local - $0 }.filter { offset($0) == local - $0 }.sorted()
        if found.isEmpty { return [local - before] }
        return isEveryHour ? found : [found[0]]
    }
}
