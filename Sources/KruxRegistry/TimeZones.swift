import Foundation
package import KruxCore
package import KruxPolicy

/// The machine's time zones as tables that a policy carries with it.
package enum TimeZones {
    /// From 2000 to 2100: as long as a policy is read.
    private static let from = Date(timeIntervalSince1970: 946_684_800)
    private static let until = Date(timeIntervalSince1970: 4_102_444_800)

    /// - Returns: nil for a name that the time zone database does not know.
    package static func table(_ name: String) -> TimeZoneTable? {
        guard let zone = TimeZone(identifier: name) else { return nil }
        var changes = [TimeZoneTable.Change(from: Int64(from.timeIntervalSince1970), offset: offset(zone, from))]
        var at = from
        while let next = zone.nextDaylightSavingTimeTransition(after: at), next < until, next > at {
            changes.append(.init(from: Int64(next.timeIntervalSince1970), offset: offset(zone, next)))
            at = next
        }
        return TimeZoneTable(name: name, changes: changes)
    }

    private static func offset(_ zone: TimeZone, _ date: Date) -> Int64 { Int64(zone.secondsFromGMT(for: date)) }

    /// The bundle with the tables that its conditions name.
    package static func resolved(_ bundle: PolicyBundle) -> PolicyBundle {
        var bundle = bundle
        bundle.zones = [:]
        for name in bundle.namedZones { bundle.zones[name] = table(name) }
        return bundle
    }
}
