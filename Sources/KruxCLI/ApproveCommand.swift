import ArgumentParser
import KruxCrypto
import KruxStore
import KruxApprovals
import KruxAudit
import KruxCapabilities
import KruxCore
import KruxEngine

struct ApproveCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "approve", abstract: "See and answer requests for approval.",
        subcommands: [List.self, Show.self, Accept.self, Reject.self, Retry.self, Watch.self])

    struct List: AsyncParsableCommand {
        static let configuration = CommandConfiguration(abstract: "List requests that wait for an answer.")
        @OptionGroup var common: CommonOptions
        @Flag(help: "Also those that have been answered.") var all = false
        @Option(help: "Only this agent's.") var agent: String?
        @Flag(help: "Each by itself, also where many are alike.") var each = false
        @Option(help: "With --all, at most so many, the newest.") var limit: Int64 = 1000

        func validate() throws {
            if limit < 1 { throw ValidationError("--limit is at least 1") }
        }

        mutating func run() async throws {
            let state: ApprovalState? = all ? nil : .pending
            let agent = agent
            // One more tells whether there are more.
            let newest = all ? limit.addingReportingOverflow(1).partialValue : nil
            var requests = try common.openForReading().read {
                try ApprovalQueue.list($0, state: state, agent: agent, newest: newest)
            }
            let isCut = all && requests.count > limit
            if isCut { requests.removeFirst() }
            let redactor = try ApproveCommand.redactor(common)
            if common.json {
                return Console.print(.array(requests.map { .object(Engine.json(forSupervisor: $0, redactor)) }))
            }
            if requests.isEmpty { return Console.print(all ? "No requests." : "No pending requests.") }
            Console.print(
                ApproveCommand.table(
                    requests, redactor, now: Engine.systemClock.now(), states: all, grouped: !all && !each))
            if isCut { Console.print("Older ones: --limit shows more.") }
        }
    }

    struct Show: AsyncParsableCommand {
        static let configuration = CommandConfiguration(abstract: "Show a request.")
        @OptionGroup var common: CommonOptions
        @Argument(help: "Its id, such as ap_001.") var id: String
        @Flag(help: "Also what it does, who is asked and what it is bound to.") var full = false

        mutating func run() async throws {
            let id = id
            let (request, votes) = try common.openForReading().read {
                (try ApprovalQueue.require($0, id), try ApprovalQueue.votes($0, id))
            }
            let redactor = try ApproveCommand.redactor(common)
            if common.json {
                return Console.print(.object(Engine.json(forSupervisor: request, redactor, votes: votes)))
            }
            Console.print(ApproveCommand.detail(request, redactor, votes: votes, full: full))
        }
    }

    /// The home's redactor, so that the terminal shows what the record shows.
    static func redactor(_ common: CommonOptions) throws -> Redactor {
        Redactor(key: try KeyFiles(home: try common.resolveHome().root).digestKey())
    }

    /// - Parameter grouped: like requests on one line, under the oldest: `ap_003+4`.
    static func table(
        _ requests: [ApprovalRequest], _ redactor: Redactor, now: Timestamp, states: Bool = false, grouped: Bool = false
    ) -> String {
        var like: [String: Int] = [:]
        for request in requests { like[request.kin, default: 0] += 1 }
        var seen: Set<String> = []
        let shown = requests.filter { !grouped || $0.kin.isEmpty || seen.insert($0.kin).inserted }
        var columns: [Table.Column] = [
            .init("ID", width: 9), .init("Agent", width: 12), .init("Capability", width: 18),
            .init("Parameters", width: 30), .init("Requested"),
        ]
        if states { columns.append(.init("State")) }
        var table = Table(columns)
        table.rows = shown.map { request in
            let declaration = Capabilities.catalogue[request.capability]
            let parameters = declaration.map { summarise(redactor.redact(request.arguments), of: $0, limit: 400) } ?? ""
            let age = (now.microseconds - request.requestedAt.microseconds) / 1_000_000
            return [
                grouped && !request.kin.isEmpty && like[request.kin, default: 1] > 1
                    ? "\(request.id)+\(like[request.kin, default: 1] - 1)" : request.id, request.agent,
                request.capability, parameters.cut(to: 29),
                HumanDuration.short(age) + " ago",
            ] + (states ? [request.state.rawValue] : [])
        }
        return table.text
    }

    /// - Parameter full: with what it does, who is asked, and what it is bound to.
    static func detail(
        _ request: ApprovalRequest, _ redactor: Redactor, votes: [ApprovalVote] = [], full: Bool = false
    ) -> String {
        func line(_ title: String, _ text: String) -> String {
            title + String(repeating: " ", count: max(1, 12 - title.count)) + Console.visible(text)
        }
        var lines = [
            line("Request:", request.id), line("Agent:", request.agent), line("Capability:", request.capability),
            "Parameters:",
        ]
        let arguments = redactor.redact(request.arguments)
        let declared = Capabilities.catalogue[request.capability]?.input.properties ?? []
        let shown = declared.filter { isWorthShowing(arguments[$0.name], of: $0) }
        let width = (shown.map { $0.name.count }.max() ?? 0) + 2
        for property in shown {
            guard let value = arguments[property.name] else { continue }
            let text: String
            switch value {
            case .string(let string): text = Console.visible(string)
            case .array(let elements):
                text = Console.visible("[" + elements.map(\.canonicalText).joined(separator: ", ") + "]")
            default: text = Console.visible(value.canonicalText)
            }
            let name = property.name + ":"
            lines.append("  " + name + String(repeating: " ", count: max(1, width - name.count)) + text)
        }
        lines.append(line("Requested:", request.requestedAt.short))
        lines.append(line("Policy:", request.decision["policy"]?.string ?? "-"))
        lines.append(
            line(
                "Rule:",
                "\(request.decision["rule"]?.string ?? "-") → \(request.decision["tier"]?.string ?? "-")"))
        lines.append(line("Reason:", request.decision["reason"]?.string ?? "-"))
        lines += more(request, redactor, votes, full: full)
        if request.state != .pending {
            lines.append(line("State:", request.state.rawValue))
            if let by = request.decidedBy, let at = request.decidedAt {
                lines.append(line("Decided:", "\(at.short) by \(by)"))
            }
            if let reason = request.decisionReason { lines.append(line("Because:", reason)) }
            if let error = request.result?["error"]?["description"]?.string { lines.append(line("Error:", error)) }
        }
        return lines.joined(separator: "\n")
    }

    /// What stands below the usual lines: always what a person must not miss, the rest on demand.
    private static func more(
        _ request: ApprovalRequest, _ redactor: Redactor, _ votes: [ApprovalVote], full: Bool
    ) -> [String] {
        func line(_ title: String, _ text: String) -> String {
            title + String(repeating: " ", count: max(1, 12 - title.count)) + Console.visible(text)
        }
        var lines: [String] = []
        let shown = request.shown
        if let purpose = request.purpose { lines.append(line("Purpose:", purpose)) }
        let preview = shown["preview"]?.object
        if full || preview != nil, let effect = shown["effect"]?.string { lines.append(line("Effect:", effect)) }
        if let original = request.original {
            lines.append(line("Asked:", redactor.redact(original).canonicalText + " (changed by a supervisor)"))
        }
        if let before = shown["before"] {
            lines.append(
                line(
                    "Again:",
                    "\(before["request"]?.string ?? "-") ended \(before["state"]?.string ?? "-")"
                        + (before["intent"]?.int.map { ", begun in row \($0)" } ?? "")
                        + ": \(before["error"]?.string ?? "-")"
                ))
        }
        for terms in request.terms where full || terms.quorum > 1 || !terms.approvers.isEmpty {
            lines.append(line("Asks:", (terms.quorum > 1 ? "\(terms.quorum) of " : "") + terms.whom))
        }
        for vote in votes where request.state == .pending || votes.count > 1 {
            lines.append(
                line("Agreed:", "\(vote.principal) at \(vote.at.short)" + (vote.reason.map { ": \($0)" } ?? "")))
        }
        if let at = request.expiresAt, request.state == .pending { lines.append(line("Expires:", at.short)) }
        if let segments = shown["segments"]?.array, !segments.isEmpty {
            lines.append("Commands:")
            let refused = shown["refused_segments"]?.array
            for (index, segment) in segments.enumerated() {
                let why = [segment["source"]?.string, segment["reason"]?.string].compactMap { $0 }.joined(
                    separator: ": ")
                lines.append(
                    "  \(index + 1). \(Console.visible(segment["text"]?.string ?? ""))  → \(segment["tier"]?.string ?? "-")"
                        + (why.isEmpty ? "" : " (\(Console.visible(why)))"))
            }
            if let refused {
                lines.append(
                    "Refused:    " + refused.compactMap { $0.string.map(Console.visible) }.joined(separator: "; "))
            }
        }
        if let preview, let text = preview["lines"]?.array?.compactMap(\.string) {
            lines.append(preview["kind"]?.string == "files" ? "Files:" : "Change:")
            let most = full ? text.count : 40
            lines += text.prefix(most).map { "  " + Console.visible($0) }
            let left = Int(preview["left"]?.int ?? 0) + max(0, text.count - most)
            if left > 0 {
                lines.append("  … \(left) more \(left == 1 ? "line" : "lines")" + (full ? "" : "; --full shows more"))
            }
        }
        if full, let files = request.binding["files"]?.object, !files.isEmpty {
            lines.append("Bound to:")
            lines += files.members.map { "  " + Console.visible("\($0.key) \($0.value.string ?? "")") }
        }
        return lines
    }
}
