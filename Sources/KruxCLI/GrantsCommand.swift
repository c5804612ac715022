import ArgumentParser
import Foundation
import KruxApprovals
import KruxAudit
import KruxCore
import KruxEngine
import KruxPolicy
import KruxStore

/// How long a grant lasts and what it answers for.
struct GrantTerms: ParsableArguments {
    @Option(name: .customLong("for"), help: "A grant for every session of the agent, for so long: 90s, 15m, 1h, 7d.")
    var duration: String?
    @Option(help: "A grant that answers so often.") var uses: Int64?
    @Flag(help: "A grant for this session only, which is usual.") var session = false
    @Flag(help: "A grant for every session of the agent, until it is revoked.") var permanent = false
    @Option(help: "What it answers for, as a condition of the policy language: 'command_prefix: git push'.")
    var condition: String?

    var isGiven: Bool { duration != nil || uses != nil || session || permanent || condition != nil }

    func validate() throws {
        if let duration, HumanDuration(duration) == nil {
            throw ValidationError("`\(duration)` is no duration: write 90s, 15m, 1h or 7d")
        }
        if let uses, uses < 1 { throw ValidationError("--uses needs a number from 1") }
        if permanent, session || duration != nil { throw ValidationError("--permanent has no end") }
    }

    func propose(_ id: String, _ common: CommonOptions) throws -> Engine.GrantProposal {
        let current = try PolicyInForce(common)
        return try Engine.proposeGrant(
            current.store, for: id, condition: condition, policy: current.policy,
            redactor: try ApproveCommand.redactor(common), now: Engine.systemClock.now())
    }

    /// - Parameter agent: given by name, for every session of it.
    func parameters(_ id: String, _ proposal: Engine.GrantProposal, reason: String?, agent: String?) throws
        -> JSONObject
    {
        if let agent, !agent.utf8Equals(proposal.agent) {
            throw ValidationError("\(id) is of \(proposal.agent), not of \(agent)")
        }
        let lasts = !session && (duration != nil || uses != nil || permanent || agent != nil)
        return ApproveCommand.signed([
            "request": .string(id), "conditions": proposal.conditions, "reason": .optional(reason),
            "scope": .string(lasts ? "agent" : "session"),
            "seconds": .optional(duration.flatMap { HumanDuration($0)?.seconds }),
            "uses": .optional(uses), "permanent": .bool(permanent),
        ])
    }

    static func show(_ proposal: Engine.GrantProposal, for id: String) {
        for line in lines(proposal, for: id) { Console.print(line) }
    }

    /// What a person sees before they grant.
    static func lines(_ proposal: Engine.GrantProposal, for id: String) -> [String] {
        var lines = [
            "\(id) would be granted from now on:",
            "  \(proposal.agent) may call \(proposal.capability) with \(Console.visible(proposal.text))",
        ]
        if proposal.calls == 0 {
            lines.append("In the last 30 days it would have answered no call.")
        } else {
            let calls = proposal.calls == 1 ? "1 call" : "\(proposal.calls) calls"
            lines.append("In the last 30 days it would have answered \(calls):")
            for match in proposal.matched.prefix(10) {
                lines.append("  \(match.count) × \(Console.visible(match.summary)) (\(match.tier))")
            }
            if proposal.matched.count > 10 { lines.append("  and \(proposal.matched.count - 10) others") }
        }
        if proposal.untold > 0 {
            lines.append("Of \(proposal.untold) more calls the record does not show enough to tell.")
        }
        return lines + proposal.warnings.map { "Note: \(Console.visible($0))" }
    }
}

struct GrantsCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "grants", abstract: "See and revoke answers given in advance.",
        discussion: "A grant comes from `kruxos approve accept ID --always`.",
        subcommands: [List.self, Show.self, Revoke.self])

    struct List: AsyncParsableCommand {
        static let configuration = CommandConfiguration(abstract: "List grants that live.")
        @OptionGroup var common: CommonOptions
        @Flag(help: "Also those that are over.") var all = false
        @Option(help: "Only this agent's.") var agent: String?

        mutating func run() async throws {
            let redactor = try ApproveCommand.redactor(common)
            let now = Engine.systemClock.now()
            let agent = agent
            let grants = try common.openForReading().read(GrantTable.all).filter { grant in
                (all || grant.isLive(at: now)) && agent.map { $0.utf8Equals(grant.agent) } ?? true
            }.map { Engine.json($0, redactor, now: now) }
            if common.json { return Console.print(.array(grants.map { .object($0) })) }
            if grants.isEmpty { return Console.print(all ? "No grants." : "No grants live.") }
            var table = Table([
                .init("ID", width: 9), .init("Agent", width: 12), .init("Capability", width: 18), .init("With"),
                .init("Lasts"), .init("Used"),
            ])
            table.rows = grants.map { grant in
                [
                    GrantsCommand.text(grant["id"]), GrantsCommand.text(grant["agent"]),
                    GrantsCommand.text(grant["capability"]), GrantsCommand.conditions(grant).cut(to: 60, marked: true),
                    GrantsCommand.lasts(grant), GrantsCommand.used(grant),
                ]
            }
            Console.printTable(table.text)
        }
    }

    struct Show: AsyncParsableCommand {
        static let configuration = CommandConfiguration(abstract: "Show a grant.")
        @OptionGroup var common: CommonOptions
        @Argument(help: "Its id, such as gr_001.") var id: String

        mutating func run() async throws {
            let redactor = try ApproveCommand.redactor(common)
            let id = id
            let grant = try common.openForReading().read { try GrantTable.require($0, id) }
            let json = Engine.json(grant, redactor, now: Engine.systemClock.now())
            if common.json { return Console.print(.object(json)) }
            func line(_ title: String, _ text: String) {
                Console.print(title + String(repeating: " ", count: max(1, 12 - title.count)) + Console.visible(text))
            }
            line("Grant:", id)
            line("State:", GrantsCommand.text(json["state"]))
            line("Agent:", grant.agent)
            line("Capability:", grant.capability)
            line("With:", GrantsCommand.conditions(json))
            line("Lasts:", GrantsCommand.lasts(json))
            line("Used:", GrantsCommand.used(json) + (grant.lastUsedAt.map { ", last at \($0.short)" } ?? ""))
            line(
                "Created:",
                "\(grant.createdAt.short) by \(grant.createdBy)" + (grant.request.map { ", from \($0)" } ?? ""))
            if let reason = json["reason"]?.string { line("Reason:", reason) }
            if let ended = grant.endedAt { line("Ended:", "\(ended.short) by \(grant.endedBy ?? "-")") }
        }
    }

    struct Revoke: AsyncParsableCommand {
        static let configuration = CommandConfiguration(abstract: "End grants; from then on the call is asked again.")
        @OptionGroup var common: CommonOptions
        @Argument(help: "Their ids.") var ids: [String]

        mutating func run() async throws {
            try await ApproveCommand.each(ids, common) { client, id in
                (try await client.run(.grantRevoke, ApproveCommand.signed(["id": .string(id)])), "\(id) revoked")
            }
        }
    }

    static func text(_ value: JSONValue?) -> String { value?.string ?? "-" }

    static func conditions(_ grant: JSONObject) -> String { GrantPattern.text(grant["conditions"] ?? []) }

    static func lasts(_ grant: JSONObject) -> String {
        if grant["state"]?.string != "live" { return text(grant["state"]) }
        if let end = grant["expires_at"]?.string.flatMap(Timestamp.init(parsing:)) {
            let left = (end.microseconds - Engine.systemClock.now().microseconds) / 1_000_000
            return "\(HumanDuration.short(max(0, left))) more"
        }
        if grant["session"]?.string != nil { return "its session" }
        return grant["uses"]?.int != nil ? "its uses" : "until revoked"
    }

    static func used(_ grant: JSONObject) -> String {
        let used = grant["used"]?.int ?? 0
        return grant["uses"]?.int.map { "\(used) of \($0)" } ?? "\(used) ×"
    }

    /// What was stored, in a line.
    static func line(_ grant: JSONObject) -> String {
        "\(text(grant["id"])) granted: \(text(grant["agent"])) may call \(text(grant["capability"])) with \(Console.visible(conditions(grant))), \(lasts(grant))"
    }
}
