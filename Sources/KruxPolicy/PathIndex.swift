/// Which rules of a long chain can hold for a path, without asking each: rules with a `path_prefix` are found by the
/// folders that the path lies in, all others are always asked. A folder is found by its hash alone; the rule's own
/// condition is judged in any case, so that a collision costs time and nothing else.
struct PathIndex: Sendable {
    /// Shorter chains are asked rule by rule.
    static let shortest = 24
    private static let mostFolders = 64

    /// Open addressing over a power of two; `count` 0 is empty.
    private struct Slot {
        var hash: UInt64 = 0
        var start: Int32 = 0
        var count: Int32 = 0
    }

    private let slots: [Slot]
    /// Places in the chain, by folder.
    private let places: [Int32]
    private let others: [Int32]

    init?(_ chain: [CompiledPolicy.CompiledRule]) {
        guard chain.count >= Self.shortest else { return nil }
        var byFolder: [UInt64: [Int32]] = [:]
        var others: [Int32] = []
        for (place, rule) in chain.enumerated() {
            guard let directories = Self.directories(rule) else {
                others.append(Int32(place))
                continue
            }
            for hash in Set(directories.map(Self.hash)) { byFolder[hash, default: []].append(Int32(place)) }
        }
        guard chain.count - others.count >= Self.shortest / 2 else { return nil }
        var size = 4
        while size < byFolder.count * 2 { size *= 2 }
        var slots = Array(repeating: Slot(), count: size)
        var places: [Int32] = []
        for (hash, found) in byFolder {
            var slot = Int(truncatingIfNeeded: hash) & (size - 1)
            while slots[slot].count > 0 { slot = (slot + 1) & (size - 1) }
            slots[slot] = Slot(hash: hash, start: Int32(places.count), count: Int32(found.count))
            places += found
        }
        self.slots = slots
        self.places = places
        self.others = others
    }

    /// The folders outside of which the rule cannot hold; nil when it has no such condition.
    private static func directories(_ rule: CompiledPolicy.CompiledRule) -> [[UInt8]]? {
        for condition in rule.conditions {
            if case .test(.pathPrefix(let directories), _) = condition { return directories }
        }
        return nil
    }

    /// FNV-1a.
    private static let basis: UInt64 = 0xCBF2_9CE4_8422_2325
    private static func step(_ hash: UInt64, _ byte: UInt8) -> UInt64 { (hash ^ UInt64(byte)) &* 0x100_0000_01B3 }
    private static func hash(_ bytes: [UInt8]) -> UInt64 { bytes.reduce(basis, step) }

    private func find(_ hash: UInt64) -> Slot? {
        var slot = Int(truncatingIfNeeded: hash) & (slots.count - 1)
        while slots[slot].count > 0 {
            if slots[slot].hash == hash { return slots[slot] }
            slot = (slot + 1) & (slots.count - 1)
        }
        return nil
    }

    /// Calls `ask` with places in order until it says to stop.
    /// - Returns: false, having asked nothing, for a path too deep to look at this way.
    func forEachPlace(_ path: [UInt8], _ ask: (Int) -> Bool) -> Bool {
        // One range of places per folder the path lies in, and one for all others.
        withUnsafeTemporaryAllocation(of: (next: Int32, end: Int32).self, capacity: Self.mostFolders + 1) { ranges in
            var count = 0
            var hash = Self.basis
            for index in 0...path.count {
                // The root is empty; a folder ends where a slash or the path does.
                if index == 0 || index == path.count || path[index] == UInt8(ascii: "/") {
                    if let slot = find(hash) {
                        guard count < Self.mostFolders else { return false }
                        ranges.initializeElement(at: count, to: (slot.start, slot.start + slot.count))
                        count += 1
                    }
                }
                if index < path.count { hash = Self.step(hash, path[index]) }
            }
            var other = 0
            var last: Int32 = -1
            while true {
                var lowest: Int32 = other < others.count ? others[other] : .max
                var from = -1
                for index in 0..<count where ranges[index].next < ranges[index].end {
                    let place = places[Int(ranges[index].next)]
                    if place < lowest {
                        lowest = place
                        from = index
                    }
                }
                if lowest == .max { return true }
                if from < 0 { other += 1 } else { ranges[from].next += 1 }
                // A rule with several folders may be found twice.
                if lowest == last { continue }
                last = lowest
                if ask(Int(lowest)) { return true }
            }
        }
    }
}
