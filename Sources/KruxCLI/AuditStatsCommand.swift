import ArgumentParser
import KruxAudit
import KruxCore
import KruxEngine
import KruxStore

extension AuditCommand {
    struct Stats: AsyncParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Count calls by agent, capability, tier and outcome; how long they took, and how long you did.")
        @OptionGroup var common: CommonOptions
        @OptionGroup var source: Source
        @OptionGroup var selection: Selection

        mutating func run() async throws {
            var filter = try selection.filter(now: Engine.systemClock.now())
            if selection.last == nil, selection.since == nil, selection.until == nil {
                filter.since = Engine.systemClock.now().advanced(bySeconds: -86_400)
            }
            var stats = AuditStatistics()
            try AuditQuery.forEachPage(try source.open(common), filter) { page in
                for record in page { stats.add(record) }
            }
            if common.json { return Console.print(stats.json) }
            let period =
                selection.last ?? (filter.since == nil ? "all" : selection.since.map { "since \($0)" } ?? "24h")
            Console.printTable(stats.text(period: period))
        }
    }

    struct Replay: AsyncParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Tell what happened in a session, as a story.",
            discussion: "`kruxos audit query` shows sessions' ids.")
        @OptionGroup var common: CommonOptions
        @OptionGroup var source: Source
        @Argument(help: "The session.") var session: String

        mutating func run() async throws {
            var filter = AuditFilter()
            filter.session = session
            filter.fromOldest = true
            let store = try source.open(common)
            let records = try store.read { try AuditQuery.rows($0, filter) }
            guard let first = records.first, let last = records.last else {
                throw StructuredError(
                    .notFound, "the record has no session `\(session.prefix(64))`",
                    recovery: ["Find it with `kruxos audit query --agent NAME --json`."])
            }
            if common.json { return Console.print(.array(records.map(\.json))) }
            let start = first.time ?? Timestamp(microseconds: 0)
            let agent = first.text("agent") ?? "-"
            let calls = records.filter { $0.text("phase") == "outcome" }
            Console.print("Session \(session) of \(agent)")
            Console.print(
                "From \(start.rfc3339) for \(Self.duration((last.time ?? start).microseconds - start.microseconds)), \(calls.count) calls\n"
            )
            // An intent and its outcome are one line, told where the call began.
            let ends = Dictionary(
                records.compactMap { record in record.body?["intent"]?.int.map { ($0, record) } },
                uniquingKeysWith: { first, _ in first })
            for record in records where record.body?["intent"]?.int == nil {
                let offset = Self.duration((record.time ?? start).microseconds - start.microseconds)
                let end = ends[record.seq]
                Console.print(Console.visible("+\(offset)".padded(to: 10) + Self.sentence(record, end: end)))
                for line in Self.details(record, end: end) { Console.print("          " + Console.visible(line)) }
            }
        }

        static func duration(_ microseconds: Int64) -> String {
            let milliseconds = max(0, microseconds) / 1000
            if milliseconds < 60_000 {
                return "\(milliseconds / 1000).\(String(milliseconds % 1000 + 1000).dropFirst()) s"
            }
            return HumanDuration.short(milliseconds / 1000)
        }

        private static func sentence(_ record: AuditRecord, end: AuditRecord?) -> String {
            guard let body = record.body else { return "row \(record.seq), forgotten" }
            let capability = record.text("capability") ?? ""
            let arguments = AuditFormat.arguments(record)
            let call = arguments.isEmpty ? capability : "\(capability) \(arguments)"
            let by = record.text("principal").map { $0.hasPrefix("agent:") ? "" : " by \($0)" } ?? ""
            let took = (end ?? record).body?["duration_us"]?.int.map { " in \(duration($0))" } ?? ""
            switch (record.text("phase"), (end ?? record).text("outcome")) {
            case ("approval", "pending"?): return "asked for approval (\(record.text("request") ?? "-")): \(call)"
            case ("approval", let outcome?):
                let reason = body["reason"]?.string.map { ": \($0)" } ?? ""
                return "\(record.text("request") ?? "-") was \(outcome)\(by)\(reason)"
            case ("intent", nil): return "began \(call), and nothing tells how it ended"
            case ("intent", "unknown"?):
                return "began \(call); the gateway stopped meanwhile, so nobody knows how it ended"
            case (_, "succeeded"?): return "did \(call)\(took)"
            case (_, "denied"?): return "was refused \(call)"
            case (_, let outcome?): return "\(outcome): \(call)\(took)"
            default: return (body["detail"]?["action"]?.string ?? record.text("phase") ?? "") + by
            }
        }

        private static func details(_ record: AuditRecord, end: AuditRecord?) -> [String] {
            var lines: [String] = []
            if let error = (end ?? record).body?["error"]?["description"]?.string { lines.append("→ \(error)") }
            if record.tier == "notify" { lines.append("→ you were notified") }
            return lines
        }
    }

    struct Show: AsyncParsableCommand {
        static let configuration = CommandConfiguration(abstract: "Show everything about one row.")
        @OptionGroup var common: CommonOptions
        @OptionGroup var source: Source
        @Argument(help: "The row's number.") var seq: Int64

        mutating func run() async throws {
            let seq = seq
            let row = try source.open(common).read { try RowReport.make($0, seq: seq) }
            if common.json { return Console.print(row.json) }
            Console.print(row.text)
        }
    }

    struct Export: AsyncParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Write rows to a file, for other systems.",
            discussion: "jsonl holds each row whole, with hashes and signature; the other formats what a reader needs.")
        @OptionGroup var common: CommonOptions
        @OptionGroup var source: Source
        @OptionGroup var selection: Selection
        @Option(help: "jsonl, json, csv, cef or ocsf.") var format: Format = .jsonl
        @Option(help: "The file to write (default: standard output).") var out: String?

        mutating func run() async throws {
            guard format != .table else {
                throw ValidationError("a table is for the terminal; see `kruxos audit query`")
            }
            let filter = try selection.filter(now: Engine.systemClock.now())
            let store = try source.open(common)
            let output = try Output(out)
            var count = 0
            var isFirst = true
            if format == .json { try output.write("[") }
            let format = format
            try AuditQuery.forEachPage(store, filter) { page in
                switch format {
                case .jsonl:
                    let whole = try store.read { try RowReport.envelopes($0, page) }
                    try output.write(whole.map { $0.canonicalText + "\n" }.joined())
                case .json:
                    for record in page {
                        try output.write((isFirst ? "\n" : ",\n") + record.json.canonicalText)
                        isFirst = false
                    }
                case .csv:
                    let lines = AuditFormat.csv(page)
                    try output.write(
                        (isFirst
                            ? lines : String(lines[(lines.firstIndex(of: "\r\n") ?? lines.startIndex)...].dropFirst()))
                            + "\r\n")
                    isFirst = false
                case .cef: try output.write(page.map { AuditFormat.cef($0) + "\n" }.joined())
                case .ocsf: try output.write(page.map { AuditFormat.ocsf($0).canonicalText + "\n" }.joined())
                case .table: break
                }
                count += page.count
            }
            if format == .json { try output.write("\n]\n") }
            try output.close()
            if let out { Console.print("\(count) rows written to \(Console.visible(out))") }
        }
    }
}

extension String {
    func padded(to width: Int) -> String { self + String(repeating: " ", count: max(1, width - count)) }
}
