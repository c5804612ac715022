import Foundation

/// The figures and how they stand to their budgets.
struct Report {
    private struct Line {
        let name: String, value: String, budget: String
        let met: Bool?
    }

    private var lines: [Line] = []

    mutating func add(_ name: String, _ value: String, budget: String = "", met: Bool? = nil) {
        lines.append(Line(name: name, value: value, budget: budget, met: met))
        print("  \(name): \(value)")
    }

    func printSummary() {
        print("\n| what | measured | budget | |\n|---|---|---|---|")
        for line in lines {
            print("| \(line.name) | \(line.value) | \(line.budget) | \(line.met.map { $0 ? "met" : "MISSED" } ?? "") |")
        }
    }
}

struct BenchmarkError: Error, CustomStringConvertible {
    let description: String
    init(_ description: String) { self.description = description }
}

extension Array where Element: Comparable {
    /// The element at a fraction of the sorted order; 0.5 is the median.
    func quantile(_ fraction: Double) -> Element? {
        isEmpty ? nil : sorted()[Swift.min(count - 1, Int(Double(count) * fraction))]
    }
}

func nanoseconds() -> UInt64 {
    var time = timespec()
    clock_gettime(CLOCK_MONOTONIC, &time)
    return UInt64(time.tv_sec) * 1_000_000_000 + UInt64(time.tv_nsec)
}

func format(_ value: Double, _ digits: Int = 2) -> String { String(format: "%.\(digits)f", value) }
