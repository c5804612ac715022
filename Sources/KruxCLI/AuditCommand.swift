import ArgumentParser
import Foundation
import KruxAudit
import KruxCore
import KruxCrypto
import KruxEngine
import KruxPolicy
import KruxStore

struct AuditCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "audit", abstract: "Read and verify the signed record.", subcommands: [Query.self, Verify.self])

    /// The home's file, or a copy elsewhere.
    struct Source: ParsableArguments {
        @Option(name: .long, help: "Read this copy of a kruxos.db; no home, key or gateway is needed.")
        var db: String?

        func open(_ common: CommonOptions) throws -> ReadOnlyStore {
            if let db { return try ReadOnlyStore(path: db, immutable: true) }
            return try common.openForReading()
        }
    }

    enum Format: String, ExpressibleByArgument, CaseIterable {
        case table, json, jsonl, csv
    }

    struct Query: AsyncParsableCommand {
        static let configuration = CommandConfiguration(abstract: "List rows of the record, oldest first.")
        @OptionGroup var common: CommonOptions
        @OptionGroup var source: Source
        @Option(help: "Only the last 90s, 15m, 1h, 7d …") var last: String?
        @Option(help: "Only from this time on (RFC 3339, or a date).") var since: String?
        @Option(help: "Only before this time.") var until: String?
        @Option(help: "Only this agent.") var agent: String?
        @Option(help: "Only this capability; `filesystem.*` for all below.") var capability: String?
        @Option(help: "Only this outcome: \(AuditOutcome.allCases.map(\.rawValue).joined(separator: ", ")).")
        var outcome: String?
        @Option(help: "Only this tier: \(Tier.allCases.map(\.name).joined(separator: ", ")).") var tier: String?
        @Option(help: "Only this session.") var session: String?
        @Option(help: "At most this many, the newest.") var limit: Int64 = 100
        @Option(help: "table, json, jsonl or csv.") var format: Format?

        func filter(now: Timestamp) throws -> AuditFilter {
            var filter = AuditFilter()
            func time(_ text: String?, _ name: String) throws -> Timestamp? {
                guard let text else { return nil }
                guard let time = Timestamp(parsing: text) else {
                    throw ValidationError("--\(name) `\(text)` is no time; write 2026-03-29T14:20:00Z or 2026-03-29")
                }
                return time
            }
            filter.since = try time(since, "since")
            filter.until = try time(until, "until")
            if let last {
                guard since == nil else { throw ValidationError("--last and --since exclude each other") }
                guard let span = HumanDuration(last) else {
                    throw ValidationError("--last `\(last)` is no duration; write 90s, 15m, 1h or 7d")
                }
                filter.since = now.advanced(bySeconds: -span.seconds)
            }
            if let outcome {
                guard let value = AuditOutcome(rawValue: outcome) else {
                    let hint = nearest(to: outcome, among: AuditOutcome.allCases.map(\.rawValue))
                    throw ValidationError(
                        "--outcome `\(outcome)` is none of \(AuditOutcome.allCases.map(\.rawValue).joined(separator: ", "))"
                            + (hint.map { "; did you mean `\($0)`?" } ?? ""))
                }
                filter.outcome = value
            }
            if let tier {
                guard let value = Tier(name: tier) else {
                    throw ValidationError(
                        "--tier `\(tier)` is none of \(Tier.allCases.map(\.name).joined(separator: ", "))")
                }
                filter.tier = value
            }
            guard limit > 0 else { throw ValidationError("--limit must be at least 1") }
            filter.agent = agent
            filter.capability = capability
            filter.session = session
            filter.limit = limit
            if let capability, capability != "*", CapabilityPattern(capability) == nil {
                throw ValidationError(
                    "--capability `\(capability)` is no pattern; write a name, a prefix such as `filesystem.*`, or `*`")
            }
            return filter
        }

        mutating func run() async throws {
            let filter = try filter(now: Engine.systemClock.now())
            let records = try source.open(common).read { try AuditQuery.rows($0, filter) }
            switch format ?? (common.json ? .json : .table) {
            case .json: Console.print(.array(records.map(\.json)))
            case .jsonl: for record in records { Console.print(record.json.canonicalText) }
            case .csv: Console.print(AuditCommand.csv(records))
            case .table: Console.printTable(records.isEmpty ? "No rows match." : AuditCommand.table(records))
            }
        }
    }

    struct Verify: AsyncParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Check every row: chain, hashes, signatures, columns and schema.",
            discussion: "A file alone cannot prove that its last rows are there; keep its head elsewhere to prove that."
        )
        @OptionGroup var common: CommonOptions
        @OptionGroup var source: Source

        mutating func run() async throws {
            var verdict = try AuditVerifier.verify(try source.open(common))
            if source.db == nil, verdict.isIntact, let key = verdict.publicKey,
                !KeyFiles(home: try common.resolveHome().root).holds(key)
            {
                verdict.firstFailure = .init(seq: verdict.rows, reason: "it is not signed by the key of this home")
            }
            let signer = verdict.publicKey?.bytes.hex
            if common.json {
                Console.print([
                    "verdict": .string(verdict.isIntact ? "UNANCHORED" : "FAILED"), "rows": .int(verdict.rows),
                    "unanchored": .int(verdict.unanchored), "failed_row": .optional(verdict.firstFailure?.seq),
                    "reason": .optional(verdict.firstFailure?.reason), "public_key": .optional(signer),
                ])
            } else {
                if verdict.isIntact { Console.print("\(verdict.rows) rows verified, signed by \(signer ?? "-")") }
                Console.print(verdict.text)
            }
            if !verdict.isIntact { throw KruxExit.verificationFailed }
        }
    }

    static func table(_ records: [AuditRecord]) -> String {
        var table = Table([
            .init("Seq"), .init("Time"), .init("Phase"), .init("Who"), .init("Capability"), .init("Tier"),
            .init("Outcome"), .init("Details"),
        ])
        table.rows = records.map { record in
            [
                "\(record.seq)", record.time?.short ?? "-", record.text("phase") ?? "-",
                who(record), record.text("capability") ?? "-",
                record.tier ?? "-", record.text("outcome") ?? "-", details(record).cut(to: 80, marked: true),
            ]
        }
        return table.text
    }

    /// Who acted: the agent of a call, the person of an answer.
    private static func who(_ record: AuditRecord) -> String {
        let principal = record.text("principal") ?? "-"
        return principal.hasPrefix("agent:") ? String(principal.dropFirst(6)) : principal
    }

    /// The one thing of a row that says most.
    private static func details(_ record: AuditRecord) -> String {
        if let request = record.text("request") {
            let text = record.text("reason") ?? record.body?["error"]?["description"]?.string
            return text.map { $0.hasPrefix(request) ? $0 : "\(request): \($0)" } ?? request
        }
        if let error = record.body?["error"]?["description"]?.string { return error }
        if let action = record.body?["detail"]?["action"]?.string {
            let subject = record.body?["detail"]?["policy"]?.string.map { " \($0)" } ?? ""
            return action + subject
        }
        if let path = record.body?["arguments"]?["path"]?.string { return path }
        return record.body?["arguments"]?["command"]?.string ?? ""
    }

    /// RFC 4180.
    static func csv(_ records: [AuditRecord]) -> String {
        let columns = [
            "seq", "time", "phase", "principal", "agent", "session", "capability", "tier", "outcome", "request",
        ]
        func quoted(_ text: String) -> String {
            // A cell that begins like a formula would be run by a spreadsheet.
            let safe = text.first.map { "=+-@\t\r".contains($0) } == true ? "'" + text : text
            guard safe.contains(where: { $0 == "," || $0 == "\"" || $0.isNewline }) else { return safe }
            return "\"" + safe.replacing("\"", with: "\"\"") + "\""
        }
        let lines = records.map { record in
            columns.map { column -> String in
                switch column {
                case "seq": "\(record.seq)"
                case "time": record.time?.rfc3339 ?? ""
                case "tier": record.tier ?? ""
                default: quoted(record.text(column) ?? "")
                }
            }.joined(separator: ",")
        }
        return ([columns.joined(separator: ",")] + lines).joined(separator: "\r\n")
    }
}
