import ArgumentParser
import KruxCore
import KruxEngine
import KruxStore

struct NotificationsCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "notifications", abstract: "What agents did under the `notify` tier.",
        discussion: "Lists what has not been read and marks it as read; --all lists everything.")

    @OptionGroup var common: CommonOptions
    @Flag(help: "Also what has been read.") var all = false
    @Flag(help: "Do not mark as read.") var keep = false
    @Option(help: "Only this agent's.") var agent: String?
    @Option(help: "At most this many, the newest.") var limit: Int64 = 100

    private struct Notification {
        let seq: Int64, time: Timestamp, agent: String, capability: String, outcome: String, summary: String
        let read: Bool
    }

    mutating func run() async throws {
        guard limit > 0 else { throw ValidationError("--limit must be at least 1") }
        var terms = all ? [] : ["read_at IS NULL"]
        var arguments: [SQLValue] = []
        if let agent {
            terms.append("agent = ?")
            arguments.append(.text(agent))
        }
        let condition = terms.isEmpty ? "" : "WHERE " + terms.joined(separator: " AND ")
        let limit = limit
        let found = try common.openForReading().read { tx in
            try tx.rows(
                "SELECT seq, time, agent, capability, outcome, summary, read_at FROM notifications \(condition) ORDER BY seq DESC LIMIT \(limit)",
                arguments
            ) {
                Notification(
                    seq: $0.int(0), time: Timestamp(microseconds: $0.int(1)), agent: $0.text(2),
                    capability: $0.text(3), outcome: $0.text(4), summary: $0.text(5), read: $0.optionalInt(6) != nil)
            }
        }
        let rows = Array(found.reversed())
        if common.json {
            Console.print(
                .array(
                    rows.map {
                        [
                            "seq": .int($0.seq), "time": .string($0.time.rfc3339), "agent": .string($0.agent),
                            "capability": .string($0.capability), "outcome": .string($0.outcome),
                            "summary": .string($0.summary), "read": .bool($0.read),
                        ]
                    }))
        } else if rows.isEmpty {
            Console.print(all ? "No notifications." : "Nothing new.")
        } else {
            var table = Table([
                .init("Seq"), .init("Time"), .init("Agent"), .init("Capability"), .init("Outcome"), .init("Parameters"),
            ])
            table.rows = rows.map {
                [
                    "\($0.seq)", $0.time.short, $0.agent, $0.capability, $0.outcome,
                    $0.summary.cut(to: 100, marked: true),
                ]
            }
            Console.printTable(table.text)
        }
        guard !keep, agent == nil, let last = rows.last(where: { !$0.read }) else { return }
        _ = try await OperatorClient(home: try common.resolveHome()).run(
            .notificationsRead, ["through": .int(last.seq)])
    }
}
