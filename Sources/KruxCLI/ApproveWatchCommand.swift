import ArgumentParser
import Foundation
import KruxApprovals
import KruxAudit
import KruxCapabilities
import KruxCore
import KruxEngine
import KruxGateway
import KruxStore
import KruxTerminal

extension ApproveCommand {
    struct Watch: AsyncParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Answer requests as they arrive.",
            discussion: """
                On a terminal a full screen: a approves, r rejects with a reason, e edits in $VISUAL or $EDITOR, g grants, \
                arrows select, PgUp and PgDn scroll, / filters, q quits. Elsewhere a line for every request that waits, \
                that arrives and that is answered.
                """)
        @OptionGroup var common: CommonOptions
        @Flag(help: "No bell for a new request.") var quiet = false

        mutating func run() async throws {
            let home = try common.resolveHome()
            if !common.json, let terminal = Terminal() {
                try await ApprovalScreen(terminal, common, home: home, isQuiet: quiet).run()
            } else {
                try stream(home)
            }
        }

        /// What waits, then what happens, a line each; ends with the gateway.
        private func stream(_ home: Home) throws {
            // Listening first: what comes in between is told twice rather than not at all.
            let connection = try OperatorClient.connect(home)
            if let connection { _ = try OperatorClient.ask(connection, "watch", [:]) }
            let redactor = try ApproveCommand.redactor(common)
            let waiting = try common.openForReading().read { try ApprovalQueue.list($0, state: .pending) }
            for request in waiting {
                if common.json {
                    Console.print(JSONValue.object(Engine.json(forSupervisor: request, redactor)).canonicalText)
                    continue
                }
                let summary = Capabilities.catalogue[request.capability].map {
                    summarise(redactor.redact(request.arguments), of: $0)
                }
                Console.print(
                    Self.line(
                        request.requestedAt, "waits", request.id, request.agent, request.capability, summary ?? ""))
            }
            guard let connection else {
                throw StructuredError(
                    .unavailable, "no gateway runs for this home, so nothing new arrives",
                    recovery: ["Start one with `kruxos serve`."])
            }
            while let line = connection.read() {
                let event = try JSONParser.parse(line)
                guard let id = event["request_id"]?.string, let kind = event["kind"]?.string else { continue }
                if common.json {
                    Console.print(event.canonicalText)
                    continue
                }
                let word = ["approval": "new", "reminder": "still waits", "answered": "answered"][kind] ?? kind
                Console.print(
                    Self.line(
                        event["time"]?.string.flatMap(Timestamp.init(parsing:)), word, id,
                        event["agent"]?.string ?? "-",
                        event["capability"]?.string ?? "-", event["summary"]?.string ?? ""))
            }
        }

        private static func line(
            _ time: Timestamp?, _ word: String, _ id: String, _ agent: String, _ capability: String, _ summary: String
        ) -> String {
            Console.visible([time?.short ?? "-", word, id, agent, capability, summary].joined(separator: "  "))
        }
    }
}

/// `approve watch` on a terminal.
private final class ApprovalScreen {
    private let terminal: Terminal
    private let common: CommonOptions
    private let home: Home
    private let isQuiet: Bool
    private let store: ReadOnlyStore
    private var board: ApprovalBoard

    init(_ terminal: Terminal, _ common: CommonOptions, home: Home, isQuiet: Bool) throws {
        self.terminal = terminal
        self.common = common
        self.home = home
        self.isQuiet = isQuiet
        store = try common.openForReading()
        board = ApprovalBoard(redactor: try ApproveCommand.redactor(common))
    }

    func run() async throws {
        listen()
        terminal.enter()
        defer { terminal.leave() }
        var isFirst = true
        while true {
            let isNew = try refresh()
            if isNew, !isFirst, !isQuiet { terminal.bell() }
            isFirst = false
            let (columns, rows) = terminal.size
            terminal.draw(board.lines(columns: columns, rows: rows, now: Engine.systemClock.now()))
            // Ages change, and a command on a stopped gateway's file tells nobody.
            let input = terminal.next(milliseconds: 1000)
            switch input {
            case .ended: return
            case .resized: terminal.forget()
            case .woken, .nothing: break
            default:
                if let action = board.press(input, now: Engine.systemClock.now()), try await !perform(action) { return }
            }
        }
    }

    /// - Returns: whether something new waits.
    private func refresh() throws -> Bool {
        let (requests, votes) = try store.read { tx in
            let requests = try ApprovalQueue.list(tx, state: .pending)
            let several = requests.filter { $0.terms.contains { $0.quorum > 1 } }
            return (requests, try several.map { ($0.id, try ApprovalQueue.votes(tx, $0.id)) })
        }
        return board.take(
            requests, votes: Dictionary(votes, uniquingKeysWith: { first, _ in first }), now: Engine.systemClock.now())
    }

    /// Wakes the screen for every event of the gateway's; without one it looks each second.
    private func listen() {
        let home = home
        Thread.detachNewThread {
            while true {
                if let connection = try? OperatorClient.connect(home),
                    (try? OperatorClient.ask(connection, "watch", [:])) != nil
                {
                    while connection.read() != nil { Terminal.wake() }
                }
                // It may be started again.
                sleep(2)
            }
        }
    }

    /// - Returns: whether to go on.
    private func perform(_ action: ApprovalBoard.Action) async throws -> Bool {
        do {
            switch action {
            case .quit: return false
            case .suspend:
                terminal.suspend()
            case .redraw: terminal.forget()
            case .approve(let id): try await answer(id, .init(approve: true, seen: board.seen(id)))
            case .reject(let id, let reason): try await answer(id, .init(approve: false, reason: reason))
            case .edit(let id):
                let changed = try terminal.outside { try ArgumentsEditor.edit(id, common) }
                if let changed {
                    try await answer(id, .init(approve: true, arguments: changed))
                } else {
                    board.say("Nothing was changed, so \(id) was not answered.")
                }
            case .propose(let id): board.offer(id, GrantTerms.lines(try propose(id), for: id))
            case .grant(let id, let lasting):
                let proposal = try propose(id)
                try await answer(id, .init(approve: true, seen: board.seen(id)))
                let grant = try await OperatorClient(home: home).run(
                    .grantCreate,
                    ApproveCommand.signed([
                        "request": .string(id), "conditions": proposal.conditions,
                        "scope": .string(lasting == .session ? "session" : "agent"),
                        "seconds": lasting == .hour ? 3600 : .null, "permanent": .bool(lasting == .permanent),
                    ]))
                board.say(GrantsCommand.line(grant))
            }
        } catch {
            let structured = Engine.structured(error)
            board.say(Console.visible(([structured.description] + structured.recoveryActions).joined(separator: "  ")))
        }
        return true
    }

    private func propose(_ id: String) throws -> Engine.GrantProposal {
        let current = try PolicyInForce(common)
        return try Engine.proposeGrant(
            current.store, for: id, condition: nil, policy: current.policy,
            redactor: try ApproveCommand.redactor(common), now: Engine.systemClock.now())
    }

    private func answer(_ id: String, _ answer: Engine.Answer) async throws {
        let result = try await OperatorClient(home: home).run(.approvalDecide, ApproveCommand.parameters(id, answer))
        board.say("\(id) \(ApproveCommand.word(result))")
    }
}
