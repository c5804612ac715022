/// How freely an agent works, on top of what its policy says; loosest to strictest.
package enum Mode: String, Sendable, CaseIterable, Comparable {
    /// The policy's answer stands.
    case auto
    /// Whatever is not a read waits for a person, at least.
    case ask
    /// Reads only.
    case explore

    /// - Parameter name: `explore`, `ask`, `auto`, or their other names `safe` and `yolo`.
    package init?(name: String) {
        switch name {
        case "yolo": self = .auto
        case "safe": self = .explore
        default:
            guard let mode = Mode(rawValue: name), mode.rawValue.utf8.elementsEqual(name.utf8) else { return nil }
            self = mode
        }
    }

    package static let names = ["explore", "ask", "auto", "safe", "yolo"]

    private var strictness: Int { self == .auto ? 0 : self == .ask ? 1 : 2 }
    package static func < (a: Mode, b: Mode) -> Bool { a.strictness < b.strictness }

    /// What roles mean where no policy says otherwise.
    package static let ofRole: [String: Mode] = [
        "dev": .ask, "architect": .ask, "po": .ask, "pm": .ask, "sm": .ask, "qa": .explore, "analyst": .explore,
        "devops": .auto,
    ]
}
