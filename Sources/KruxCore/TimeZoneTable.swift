/// A time zone as a policy carries it: its offsets from UTC as a table, so that a decision about "nine o'clock in
/// Berlin" is the same on every machine and in every year to come, whatever their own tables say.
package struct TimeZoneTable: Sendable, Equatable {
    package struct Change: Sendable, Equatable {
        /// Seconds since 1970 from which the offset holds.
        package let from: Int64
        /// Seconds east of UTC.
        package let offset: Int64

        package init(from: Int64, offset: Int64) {
            self.from = from
            self.offset = offset
        }
    }

    package let name: String
    /// By time; the first holds from the beginning.
    package let changes: [Change]

    package init(name: String, changes: [Change]) {
        self.name = name
        self.changes = changes
    }

    package static let utc = TimeZoneTable(name: "UTC", changes: [Change(from: 0, offset: 0)])

    /// `[[from, offset], …]`.
    package var json: JSONValue { .array(changes.map { [.int($0.from), .int($0.offset)] }) }

    package init?(name: String, json: JSONValue) {
        guard let rows = json.array, !rows.isEmpty else { return nil }
        var changes: [Change] = []
        for row in rows {
            guard let pair = row.array, pair.count == 2, let from = pair[0].int, let offset = pair[1].int else {
                return nil
            }
            changes.append(Change(from: from, offset: offset))
        }
        self.init(name: name, changes: changes)
    }

    /// Seconds since 1970 as a clock on the wall there would count them. O(log changes).
    package func local(_ time: Timestamp) -> Int64 {
        let seconds = time.flooredSeconds
        var low = 0
        var high = changes.count
        while high - low > 1 {
            let middle = (low + high) / 2
            if changes[middle].from <= seconds { low = middle } else { high = middle }
        }
        return seconds + (changes.isEmpty ? 0 : changes[low].offset)
    }

    /// Minutes since midnight there.
    package func minuteOfDay(_ time: Timestamp) -> Int64 {
        let day = local(time) % 86_400
        return (day < 0 ? day + 86_400 : day) / 60
    }

    /// 0 for Monday.
    package func weekday(_ time: Timestamp) -> Int64 {
        let seconds = local(time)
        let days = (seconds - (seconds % 86_400 + 86_400) % 86_400) / 86_400
        // 1 January 1970 was a Thursday.
        return ((days + 3) % 7 + 7) % 7
    }
}

extension Timestamp {
    package var flooredSeconds: Int64 {
        let rest = (microseconds % 1_000_000 + 1_000_000) % 1_000_000
        return (microseconds - rest) / 1_000_000
    }
}
