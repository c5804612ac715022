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
        commandName: "audit", abstract: "Read and verify the signed record.",
        subcommands: [
            Query.self, Show.self, Stats.self, Replay.self, Export.self, Verify.self, Receipt.self,
            VerifyReceipt.self, Key.self, Checkpoint.self, Anchor.self, Prune.self,
        ])

    /// The home's file, or a copy elsewhere.
    struct Source: ParsableArguments {
        @Option(name: .long, help: "Read this copy of a kruxos.db; no home, key or gateway is needed.")
        var db: String?

        func open(_ common: CommonOptions) throws -> ReadOnlyStore { try opener(common)() }

        /// Opens the file, as often as it is called.
        func opener(_ common: CommonOptions) throws -> () throws -> ReadOnlyStore {
            if let db { return { try ReadOnlyStore(path: db, immutable: true) } }
            let path = try common.resolveHome().database
            return { try ReadOnlyStore(path: path) }
        }
    }

    enum Format: String, ExpressibleByArgument, CaseIterable {
        case table, json, jsonl, csv, cef, ocsf
    }

    struct Query: AsyncParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "List rows of the record, oldest first.",
            discussion:
                "Without --after the newest rows that match are shown; --before and --after page through the rest.")
        @OptionGroup var common: CommonOptions
        @OptionGroup var source: Source
        @OptionGroup var selection: Selection
        @Option(help: "Rows before this number, for the page before.") var before: Int64?
        @Option(help: "Rows after this number, for the page after.") var after: Int64?
        @Option(help: "At most this many.") var limit: Int64 = 100
        @Flag(name: .shortAndLong, help: "Go on with rows as they are written, until Ctrl-C.") var follow = false
        @Option(help: "table, json, jsonl, csv, cef or ocsf.") var format: Format?

        mutating func run() async throws {
            var filter = try selection.filter(now: Engine.systemClock.now())
            guard limit > 0 else { throw ValidationError("--limit must be at least 1") }
            filter.limit = limit
            filter.before = before
            filter.after = after
            filter.fromOldest = after != nil
            let format = format ?? (common.json ? .json : .table)
            let store = try source.open(common)
            let records = try store.read { try AuditQuery.rows($0, filter) }
            if follow {
                guard source.db == nil else {
                    throw ValidationError("a copy does not grow; --follow needs the home's file")
                }
                guard format != .json else { throw ValidationError("--follow writes rows one by one; use jsonl") }
                return try await self.follow(store, filter, records, format)
            }
            if format == .table, records.isEmpty {
                Console.print("No rows match.")
            } else {
                AuditFormat.print(records, format)
            }
            if format == .table, records.count == Int(limit), let first = records.first, let last = records.last {
                Console.printError(after == nil ? "more: --before \(first.seq)" : "more: --after \(last.seq)")
            }
        }

        private func follow(_ store: ReadOnlyStore, _ filter: AuditFilter, _ first: [AuditRecord], _ format: Format)
            async throws
        {
            var filter = filter
            filter.limit = nil
            filter.fromOldest = true
            var records = first
            var isFirst = true
            while true {
                if !records.isEmpty { AuditFormat.print(records, format, header: isFirst) }
                isFirst = isFirst && records.isEmpty
                if let last = records.last {
                    filter.after = last.seq
                } else if filter.after == nil {
                    filter.after = try store.read {
                        try $0.first("SELECT max(seq) FROM audit") { $0.optionalInt(0) } ?? nil
                    }
                }
                try await Task.sleep(for: .milliseconds(250))
                records = try store.read { try AuditQuery.rows($0, filter) }
            }
        }
    }

    /// Which rows.
    struct Selection: ParsableArguments {
        @Option(help: "Only the last 90s, 15m, 1h, 7d …") var last: String?
        @Option(help: "Only from this time on (RFC 3339, or a date).") var since: String?
        @Option(help: "Only before this time.") var until: String?
        @Option(help: "Only this agent.") var agent: String?
        @Option(help: "Only this capability; `filesystem.*` for all below.") var capability: String?
        @Option(help: "Only this outcome: \(AuditOutcome.allCases.map(\.rawValue).joined(separator: ", ")).")
        var outcome: String?
        @Option(help: "Only this tier: \(Tier.allCases.map(\.name).joined(separator: ", ")).") var tier: String?
        @Option(help: "Only this session.") var session: String?
        @Option(help: "Only this approval request.") var request: String?
        @Option(help: "Only this phase: \(AuditPhase.allCases.map(\.rawValue).joined(separator: ", ")).")
        var phase: String?
        @Option(help: "Only what this one did: agent:NAME, supervisor:NAME or system.") var principal: String?

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
            if let phase {
                guard let value = AuditPhase(rawValue: phase) else {
                    throw ValidationError(
                        "--phase `\(phase)` is none of \(AuditPhase.allCases.map(\.rawValue).joined(separator: ", "))")
                }
                filter.phase = value
            }
            filter.agent = agent
            filter.capability = capability
            filter.session = session
            filter.request = request
            filter.principal = principal
            if let capability, capability != "*", CapabilityPattern(capability) == nil {
                throw ValidationError(
                    "--capability `\(capability)` is no pattern; write a name, a prefix such as `filesystem.*`, or `*`")
            }
            return filter
        }
    }
}
