import KruxApprovals
import KruxAudit
import KruxCapabilities
import KruxCore
import KruxCrypto
import KruxEngine
import KruxTerminal

/// What `approve watch` shows and what keys do to it. Pure: it draws lines and asks for actions; whoever holds it does
/// them.
struct ApprovalBoard {
    /// What the person wants done.
    enum Action: Equatable {
        case approve(String), edit(String), propose(String)
        case reject(String, reason: String?)
        case grant(String, Lasting)
        case suspend, quit, redraw
    }

    enum Lasting: Equatable {
        case session, hour, permanent
    }

    private enum Mode: Equatable {
        case list
        case filter
        /// Why a request is rejected, as far as it is written.
        case reason(String, String)
        /// How long a grant is to last.
        case grant(String)
    }

    private let redactor: Redactor
    private var all: [ApprovalRequest] = []
    private var votes: [String: [ApprovalVote]] = [:]
    private var selected: String?
    private var filter = ""
    private var mode = Mode.list
    /// Lines of the detail above its first shown one.
    private var scroll = 0
    private(set) var message = ""
    private var proposal: [String] = []
    /// The last page of the detail, for scrolling by it.
    private var page = 10
    /// Until when a key that answers is taken for one that was meant for the request before.
    private var settled = Timestamp(microseconds: 0)

    init(redactor: Redactor) { self.redactor = redactor }

    // MARK: What is there

    /// - Returns: whether a request is there that was not before.
    mutating func take(_ requests: [ApprovalRequest], votes: [String: [ApprovalVote]], now: Timestamp) -> Bool {
        let known = Set(all.map(\.id))
        let before = visible.firstIndex { $0.id == selected } ?? 0
        all = requests
        self.votes = votes
        // The next one is where the answered one was.
        if !visible.contains(where: { $0.id == selected }) {
            let next = visible.isEmpty ? nil : visible[min(before, visible.count - 1)].id
            if next != selected { scroll = 0 }
            if selected != nil, next != nil {
                settled = Timestamp(microseconds: now.microseconds + Self.settlingMicroseconds)
            }
            selected = next
            if case .grant(let id) = mode, id != selected { mode = .list }
        }
        return requests.contains { !known.contains($0.id) }
    }

    private static let settlingMicroseconds: Int64 = 700_000

    /// What is shown of a request, for the answer to be to that and nothing else.
    func seen(_ id: String) -> String? { all.first { $0.id == id }?.bindingDigest.hex }

    mutating func say(_ text: String) { message = text }

    mutating func offer(_ id: String, _ lines: [String]) {
        proposal = lines
        scroll = 0
        mode = .grant(id)
    }

    private func parameters(_ request: ApprovalRequest) -> String {
        Capabilities.catalogue[request.capability].map {
            summarise(redactor.redact(request.arguments), of: $0, limit: 400)
        } ?? ""
    }

    private var visible: [ApprovalRequest] {
        if filter.isEmpty { return all }
        let wanted = filter.lowercased()
        return all.filter { request in
            [request.id, request.agent, request.capability, parameters(request)].contains {
                $0.lowercased().contains(wanted)
            }
        }
    }

    // MARK: Keys

    mutating func press(_ key: TerminalInput, now: Timestamp) -> Action? {
        switch mode {
        case .list:
            if now < settled, [.text("a"), .text("r"), .text("g"), .text("e")].contains(key), let selected {
                message = "\(selected) has just come up: look at it, and press again"
                return nil
            }
            return pressInList(key)
        case .filter:
            switch key {
            case .text(let character): filter.append(character)
            case .backspace: if !filter.isEmpty { filter.removeLast() }
            case .control("u"): filter = ""
            case .escape:
                filter = ""
                mode = .list
            case .enter: mode = .list
            case .control("c"): return .quit
            default: break
            }
            if !visible.contains(where: { $0.id == selected }) {
                selected = visible.first?.id
                scroll = 0
            }
            return nil
        case .reason(let id, let text):
            switch key {
            case .text(let character): mode = .reason(id, text + String(character))
            case .backspace: mode = .reason(id, String(text.dropLast()))
            case .control("u"): mode = .reason(id, "")
            case .escape:
                mode = .list
                message = "\(id) was not rejected"
            case .enter:
                mode = .list
                return .reject(id, reason: text.isEmpty ? nil : text)
            case .control("c"): return .quit
            default: break
            }
            return nil
        case .grant(let id):
            switch key {
            case .text("s"):
                mode = .list
                return .grant(id, .session)
            case .text("h"):
                mode = .list
                return .grant(id, .hour)
            case .text("p"):
                mode = .list
                return .grant(id, .permanent)
            case .escape, .text("q"):
                mode = .list
                message = "\(id) was not answered"
            case .control("c"): return .quit
            case .pageDown, .down: scroll += 1
            case .pageUp, .up: scroll = max(0, scroll - 1)
            default: break
            }
            return nil
        }
    }

    private mutating func pressInList(_ key: TerminalInput) -> Action? {
        message = ""
        switch key {
        case .text("q"), .control("c"), .control("d"): return .quit
        case .control("z"): return .suspend
        case .control("l"): return .redraw
        case .up, .text("k"): move(-1)
        case .down, .text("j"): move(1)
        case .home: move(-visible.count)
        case .end: move(visible.count)
        case .pageDown, .text(" "): scroll += page
        case .pageUp: scroll = max(0, scroll - page)
        case .text("/"): mode = .filter
        case .escape: filter = ""
        case .text("a"): return selected.map(Action.approve)
        case .text("e"): return selected.map(Action.edit)
        case .text("g"): return selected.map(Action.propose)
        case .text("r"): if let selected { mode = .reason(selected, "") }
        default: break
        }
        return nil
    }

    private mutating func move(_ by: Int) {
        let shown = visible
        guard !shown.isEmpty else { return }
        let index = (shown.firstIndex { $0.id == selected } ?? 0) + by
        let next = shown[min(max(0, index), shown.count - 1)].id
        if next != selected { scroll = 0 }
        selected = next
    }

    // MARK: Lines

    private static let bold = "\u{1B}[1m"
    private static let reverse = "\u{1B}[7m"
    private static let plain = "\u{1B}[0m"

    /// Exactly `rows` lines of at most `columns` columns.
    mutating func lines(columns: Int, rows: Int, now: Timestamp) -> [String] {
        func line(_ text: String) -> String { TerminalText.cut(text, to: columns) }
        let shown = visible
        let waits = all.isEmpty ? "nothing waits" : "\(all.count) \(all.count == 1 ? "waits" : "wait")"
        let title = "Approvals: \(waits)" + (filter.isEmpty ? "" : ", \(shown.count) with `\(Console.visible(filter))`")
        var result = [Self.bold + line(title) + Self.plain]
        // A third for the list, the rest for what is selected.
        let room = max(1, min(shown.count, max(3, (rows - 4) / 3)))
        let index = shown.firstIndex { $0.id == selected } ?? 0
        let first = max(0, min(index - room / 2, shown.count - room))
        let table = ApproveCommand.table(shown, redactor, now: now).split(separator: "\n").map(String.init)
        if !shown.isEmpty {
            result.append(line("  " + (table.first ?? "")))
            for place in first..<min(shown.count, first + room) {
                let text = TerminalText.fit((place == index ? "> " : "  ") + table[place + 1], to: columns)
                result.append(place == index ? Self.reverse + text + Self.plain : line(text))
            }
        }
        result.append(String(repeating: "─", count: columns))
        let below = max(0, rows - result.count - 2)
        page = max(1, below - 1)
        var detail: [String] = []
        if case .grant = mode {
            detail = proposal
        } else if shown.indices.contains(index) {
            let request = shown[index]
            detail = ApproveCommand.detail(request, redactor, votes: votes[request.id] ?? [], full: true).split(
                separator: "\n", omittingEmptySubsequences: false
            ).map(String.init)
        }
        let wrapped = detail.flatMap { TerminalText.wrap($0, to: columns) }
        scroll = max(0, min(scroll, wrapped.count - below))
        result += wrapped.dropFirst(scroll).prefix(below)
        while result.count < rows - 2 { result.append("") }
        let left = wrapped.count - scroll - below
        result.append(
            line(message.isEmpty && left > 0 ? "\(left) more \(left == 1 ? "line" : "lines"): PgDn" : message))
        result.append(Self.bold + line(help) + Self.plain)
        return Array(result.prefix(rows))
    }

    private var help: String {
        switch mode {
        case .list:
            all.isEmpty
                ? "q quit" : "a approve  r reject  e edit  g grant  ↑↓ select  PgUp/PgDn  / filter  q quit"
        case .filter: "Filter: \(Console.visible(filter))█  Enter keep  Esc clear"
        case .reason(let id, let text): "Reject \(id), because: \(Console.visible(text))█  Enter reject  Esc not"
        case .grant(let id): "Approve and grant \(id) for: s session  h hour  p until revoked  Esc not"
        }
    }
}
