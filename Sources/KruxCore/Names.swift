/// An agent's name: `[a-z0-9][a-z0-9-]{0,62}`, so that it is a safe folder, file and host name everywhere.
package struct AgentName: Sendable, Hashable, CustomStringConvertible {
    package let text: String

    package init?(_ text: String) {
        let bytes = Array(text.utf8)
        guard (1...63).contains(bytes.count), bytes[0] != UInt8(ascii: "-"),
            bytes.allSatisfy({ (97...122).contains($0) || (48...57).contains($0) || $0 == 45 })
        else { return nil }
        self.text = text
    }

    package var description: String { text }
    package static let rule = "1 to 63 of a-z, 0-9 and `-`, not starting with `-`"
}

/// A supervisor's name or role: the machine's user names are among them.
package enum SupervisorName {
    package static func isValid(_ text: String) -> Bool {
        let bytes = Array(text.utf8)
        func isPlain(_ byte: UInt8) -> Bool {
            (97...122).contains(byte) || (65...90).contains(byte) || (48...57).contains(byte)
        }
        return (1...64).contains(bytes.count) && (bytes.first.map { isPlain($0) || $0 == UInt8(ascii: "_") } ?? false)
            && bytes.allSatisfy { isPlain($0) || "._@-".utf8.contains($0) }
    }

    package static let rule = "1 to 64 letters, digits and `. _ @ -`, beginning with a letter, a digit or `_`"
}

/// A capability's name: two to four words of `[a-z0-9_]` joined by dots, such as `state.shared.get`.
package struct CapabilityName: Sendable, Hashable, CustomStringConvertible {
    package let text: String

    package init?(_ text: String) {
        let words = text.utf8.split(separator: UInt8(ascii: "."), omittingEmptySubsequences: false)
        guard text.utf8.count <= 100, (2...4).contains(words.count),
            words.allSatisfy({ word in
                !word.isEmpty && word.allSatisfy { (97...122).contains($0) || (48...57).contains($0) || $0 == 95 }
            })
        else { return nil }
        self.text = text
    }

    package var description: String { text }
    /// The name as an MCP tool: `filesystem__read`.
    package var toolName: String { text.split(separator: ".").joined(separator: "__") }
    /// The capability an MCP tool's name stands for.
    package init?(toolName: String) {
        var words: [Substring] = []
        var rest = Substring(toolName)
        while let range = rest.firstRange(of: "__") {
            words.append(rest[..<range.lowerBound])
            rest = rest[range.upperBound...]
        }
        words.append(rest)
        self.init(words.joined(separator: "."))
    }
}

/// Who acts.
package enum Principal: Sendable, Hashable {
    case agent(AgentName)
    /// The machine's owner at the command line, or a named supervisor.
    case supervisor(String)
    /// The gateway itself, at start-up and recovery.
    case system

    /// The form in the record: `agent:my-agent`, `supervisor:owner`, `system`.
    package var text: String {
        switch self {
        case .agent(let name): "agent:\(name)"
        case .supervisor(let name): "supervisor:\(name)"
        case .system: "system"
        }
    }
}

/// The candidate nearest to `word`, for "did you mean": at most two edits for short words, three for long ones.
package func nearest(to word: String, among candidates: some Sequence<String>) -> String? {
    let limit = word.count <= 4 ? 1 : word.count <= 8 ? 2 : 3
    var best: (distance: Int, text: String)?
    for candidate in candidates where abs(candidate.count - word.count) <= limit {
        let distance = editDistance(Array(word.utf8), Array(candidate.utf8))
        if distance <= limit, distance < best?.distance ?? .max { best = (distance, candidate) }
    }
    return best?.text
}

/// Edits between two words, a swap of neighbours counting as one (optimal string alignment), O(|a|·|b|).
private func editDistance(_ a: [UInt8], _ b: [UInt8]) -> Int {
    guard a.count <= 256, b.count <= 256 else { return .max }
    var before: [Int] = []
    var last = Array(0...b.count)
    for (i, x) in a.enumerated() {
        var row = [i + 1]
        for (j, y) in b.enumerated() {
            var edits = min(last[j] + (x == y ? 0 : 1), row[j] + 1, last[j + 1] + 1)
            if i > 0, j > 0, x == b[j - 1], a[i - 1] == y { edits = min(edits, before[j - 1] + 1) }
            row.append(edits)
        }
        before = last
        last = row
    }
    return last[b.count]
}
