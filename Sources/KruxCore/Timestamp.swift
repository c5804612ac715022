/// Microseconds since 1970-01-01T00:00:00Z, 126,000 years to either side and no further: no difference overflows.
package struct Timestamp: Sendable, Hashable, Comparable {
    package let microseconds: Int64

    private static let limit: Int64 = 4_000_000_000_000_000_000

    package init(microseconds: Int64) { self.microseconds = min(max(microseconds, -Self.limit), Self.limit) }

    package static func < (a: Timestamp, b: Timestamp) -> Bool { a.microseconds < b.microseconds }

    package func advanced(bySeconds seconds: Int64) -> Timestamp {
        let most = Self.limit / 1_000_000
        return Timestamp(microseconds: microseconds + min(max(seconds, -most), most) * 1_000_000)
    }

    package struct Civil: Sendable, Equatable {
        package var year: Int64, month: Int64, day: Int64, hour: Int64, minute: Int64, second: Int64
    }

    /// The UTC calendar, by the days-from-civil algorithm of Howard Hinnant's "chrono-Compatible Low-Level Date
    /// Algorithms", valid for every year here.
    package var civil: Civil {
        let seconds = microseconds.floorDivided(by: 1_000_000)
        let days = seconds.floorDivided(by: 86_400)
        let rest = seconds - days * 86_400
        let z = days + 719_468
        let era = z.floorDivided(by: 146_097)
        let doe = z - era * 146_097
        let yoe = (doe - doe / 1460 + doe / 36_524 - doe / 146_096) / 365
        let doy = doe - (365 * yoe + yoe / 4 - yoe / 100)
        let mp = (5 * doy + 2) / 153
        let month = mp < 10 ? mp + 3 : mp - 9
        return Civil(
            year: yoe + era * 400 + (month <= 2 ? 1 : 0), month: month, day: doy - (153 * mp + 2) / 5 + 1,
            hour: rest / 3600, minute: rest / 60 % 60, second: rest % 60)
    }

    package init(_ civil: Civil, microsecond: Int64 = 0) {
        let y = civil.year - (civil.month <= 2 ? 1 : 0)
        let era = y.floorDivided(by: 400)
        let yoe = y - era * 400
        let doy = (153 * (civil.month > 2 ? civil.month - 3 : civil.month + 9) + 2) / 5 + civil.day - 1
        let doe = yoe * 365 + yoe / 4 - yoe / 100 + doy
        let days = era * 146_097 + doe - 719_468
        microseconds =
            (days * 86_400 + civil.hour * 3600 + civil.minute * 60 + civil.second) * 1_000_000 + microsecond
    }

    /// RFC 3339 in UTC with microseconds: `2026-03-29T14:20:00.000000Z`.
    package var rfc3339: String {
        let c = civil
        let fraction = microseconds - microseconds.floorDivided(by: 1_000_000) * 1_000_000
        return "\(pad(c.year, 4))-\(pad(c.month, 2))-\(pad(c.day, 2))T\(pad(c.hour, 2)):\(pad(c.minute, 2)):"
            + "\(pad(c.second, 2)).\(pad(fraction, 6))Z"
    }

    /// RFC 3339 with `Z` or a numeric offset, a date alone (midnight UTC), or `date time` in UTC.
    package init?(parsing text: String) {
        let bytes = Array(text.utf8)
        func number(_ range: Range<Int>) -> Int64? {
            guard range.upperBound <= bytes.count else { return nil }
            var value: Int64 = 0
            for byte in bytes[range] {
                guard byte >= 48, byte <= 57 else { return nil }
                value = value * 10 + Int64(byte - 48)
            }
            return value
        }
        guard bytes.count >= 10, bytes[4] == 45, bytes[7] == 45, let year = number(0..<4), let month = number(5..<7),
            let day = number(8..<10), (1...12).contains(month),
            (1...Self.days(in: month, of: year)).contains(day)
        else { return nil }
        var civil = Civil(year: year, month: month, day: day, hour: 0, minute: 0, second: 0)
        var fraction: Int64 = 0
        var offset: Int64 = 0
        if bytes.count > 10 {
            guard bytes.count >= 16, [84, 116, 32].contains(bytes[10]), bytes[13] == 58, let hour = number(11..<13),
                let minute = number(14..<16), hour < 24, minute < 60
            else { return nil }
            civil.hour = hour
            civil.minute = minute
            var index = 16
            if index < bytes.count, bytes[index] == 58 {
                guard let second = number(17..<19), second < 60 else { return nil }
                civil.second = second
                index = 19
                if index < bytes.count, bytes[index] == 46 {
                    index += 1
                    var scale: Int64 = 100_000
                    let start = index
                    while index < bytes.count, bytes[index] >= 48, bytes[index] <= 57 {
                        fraction += Int64(bytes[index] - 48) * scale
                        scale /= 10
                        index += 1
                    }
                    if index == start { return nil }
                }
            }
            if index < bytes.count {
                switch bytes[index] {
                case 90, 122: guard index + 1 == bytes.count else { return nil }
                case 43, 45:
                    guard index + 6 == bytes.count, bytes[index + 3] == 58, let hours = number(index + 1..<index + 3),
                        let minutes = number(index + 4..<index + 6), hours < 24, minutes < 60
                    else { return nil }
                    offset = (hours * 3600 + minutes * 60) * (bytes[index] == 45 ? -1 : 1)
                default: return nil
                }
            }
        }
        self = Timestamp(civil, microsecond: fraction).advanced(bySeconds: -offset)
    }

    private static func days(in month: Int64, of year: Int64) -> Int64 {
        switch month {
        case 2: year % 4 == 0 && (year % 100 != 0 || year % 400 == 0) ? 29 : 28
        case 4, 6, 9, 11: 30
        default: 31
        }
    }
}

private func pad(_ value: Int64, _ width: Int) -> String {
    let text = "\(value)"
    return String(repeating: "0", count: max(0, width - text.utf8.count)) + text
}

extension Int64 {
    fileprivate func floorDivided(by divisor: Int64) -> Int64 {
        let quotient = self / divisor
        return self % divisor < 0 ? quotient - 1 : quotient
    }
}

/// Where the time comes from; injected so that tests and replay choose it.
package struct WallClock: Sendable {
    package let now: @Sendable () -> Timestamp
    /// Microseconds of a clock that only goes forward.
    package let monotonic: @Sendable () -> Int64
    /// Names the run of the machine that `monotonic` counts from.
    package let boot: String

    package init(
        now: @escaping @Sendable () -> Timestamp, monotonic: @escaping @Sendable () -> Int64, boot: String
    ) {
        self.now = now
        self.monotonic = monotonic
        self.boot = boot
    }
}

/// A span of time as people write it: `90s`, `15m`, `1h`, `7d`, `2w`.
package struct HumanDuration: Sendable, Equatable {
    package let seconds: Int64

    package init?(_ text: String) {
        let units: [Character: Int64] = ["s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800]
        guard let last = text.last, let unit = units[last], let count = Int64(text.dropLast()), count >= 0,
            count <= 1_000_000_000
        else { return nil }
        seconds = count * unit
    }

    /// The largest whole unit, as in the approval list: `2m ago`.
    package static func short(_ seconds: Int64) -> String {
        switch seconds {
        case ..<60: "\(max(0, seconds))s"
        case ..<3600: "\(seconds / 60)m"
        case ..<86_400: "\(seconds / 3600)h"
        default: "\(seconds / 86_400)d"
        }
    }
}
