import Foundation

/// Measures the gate against its budgets. Each figure is a median; ratios compare what was measured in the same run.
///
///     swift run -c release KruxBenchmarks [decision|audit|http|confinement] [--seconds N] [--rows N]
let arguments = CommandLine.arguments.dropFirst()
let chosen = arguments.filter { ["decision", "audit", "http", "confinement"].contains($0) }
let seconds = arguments.firstIndex(of: "--seconds").flatMap { index in
    arguments.indices.contains(index + 1) ? Int(arguments[index + 1]) : nil
}
let rows = arguments.firstIndex(of: "--rows").flatMap { index in
    arguments.indices.contains(index + 1) ? Int(arguments[index + 1]) : nil
}
func wanted(_ name: String) -> Bool { chosen.isEmpty || chosen.contains(name) }

do {
    var report = Report()
    if wanted("decision") { try DecisionBenchmark.run(&report) }
    if wanted("audit") {
        try await AuditBenchmark.run(&report)
        try await AuditBenchmark.scale(&report, rows: rows ?? 200_000)
    }
    if wanted("http") { try HTTPBenchmark.run(&report, seconds: seconds ?? 3) }
    if wanted("confinement") { try await ConfinementBenchmark.run(&report) }
    report.printSummary()
} catch {
    FileHandle.standardError.write(Data("benchmark failed: \(error)\n".utf8))
    exit(1)
}
