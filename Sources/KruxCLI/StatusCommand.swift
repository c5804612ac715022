import ArgumentParser
import KruxPolicy
import KruxApprovals
import KruxCore
import KruxEngine
import KruxRegistry
import KruxStore

struct StatusCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "status", abstract: "Whether the gateway runs, and what waits for you.")
    @OptionGroup var common: CommonOptions

    mutating func run() async throws {
        let home = try common.resolveHome()
        var status: JSONObject = ["running": false, "home": .string(home.root), "version": .string(Engine.version)]
        if let connection = try OperatorClient.connect(home) {
            status = try OperatorClient.ask(connection, Engine.OperatorCommand.status.rawValue, [:])
        } else {
            let version = try common.openForReading().read(PolicyVersions.current)
            status["policy"] = ["name": .optional(version?.bundle.active)]
        }
        let counts = try common.openForReading().read { tx in
            (
                agents: try AgentTable.all(tx).filter { $0.status == .active }.count,
                pending: try ApprovalQueue.count(tx, state: .pending),
                unread: try tx.first("SELECT count(*) FROM notifications WHERE read_at IS NULL") { $0.int(0) } ?? 0
            )
        }
        status["agents"] = .int(Int64(counts.agents))
        status["pending_approvals"] = .int(counts.pending)
        status["unread_notifications"] = .int(counts.unread)
        if common.json { return Console.print(.object(status)) }
        func line(_ title: String, _ text: String?) {
            guard let text else { return }
            // A problem may have several lines, and quotes what people wrote.
            let shown = text.split(separator: "\n", omittingEmptySubsequences: false).map {
                Console.visible(String($0))
            }
            Console.print(
                title + String(repeating: " ", count: 15 - title.count)
                    + shown.joined(separator: "\n" + String(repeating: " ", count: 15)))
        }
        let running = status["running"]?.bool == true
        line("Gateway:", running ? "running (\(status["health"]?.string ?? "-"))" : "not running")
        line("Agents on:", status["agents_url"]?.string)
        line("Supervisors:", status["supervisors_url"]?.string)
        line("Home:", home.root)
        line("Policy:", status["policy"]?["name"]?.string ?? "-")
        line("Agents:", "\(counts.agents)")
        line("Pending:", "\(counts.pending)" + (counts.pending > 0 ? "  (kruxos approve list)" : ""))
        line("Notifications:", "\(counts.unread)" + (counts.unread > 0 ? "  (kruxos notifications)" : ""))
        for finding in status["findings"]?.array ?? [] { line("Problem:", finding.string) }
    }
}
