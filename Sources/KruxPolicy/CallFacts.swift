package import KruxCore
import KruxCrypto

/// What of a call a decision may read, besides the policy: all of it, and nothing else.
package struct CallFacts: Sendable {
    package var agent: String
    /// The capability's index in the policy.
    package var capability: Int
    package var time: Timestamp
    /// From the registry; nil where it has none.
    package var role: String?
    /// Set for the session or the agent.
    package var mode: Mode?
    package var session: SessionFacts?
    /// A live grant covers the call.
    package var grant = false
    /// Canonical arguments.
    package var arguments: JSONObject
    /// Whether an argument that is not in `arguments` is absent; it may be anything otherwise.
    package var complete: Bool
    /// Canonical absolute paths as bytes, one per path argument that is present.
    package var paths: [[UInt8]] = []
    /// The call also touches what lies below its paths.
    package var reachesBelow = false
    /// Decoded bytes of the content argument.
    package var contentSize: Int64?
    package var lines: [CommandLine] = []
    package var address: WebAddress?
    package var host: String?
    package var port: Int64?
    package var method: String?
    package var recipients: [Recipient] = []
    package var key: String?
    /// The call reads every key that begins with `key`.
    package var keyReachesBelow = false
    /// Values that a record does not show, in a replay.
    package var hidden: HiddenValues?

    package struct SessionFacts: Sendable, Equatable {
        package var label: String?
        package var ageSeconds: Int64
        /// Calls of the session before this one.
        package var calls: Int64

        package init(label: String?, ageSeconds: Int64, calls: Int64) {
            self.label = label
            self.ageSeconds = ageSeconds
            self.calls = calls
        }
    }

    package struct Recipient: Sendable, Equatable {
        /// Lower case.
        package let text: String
        package let domain: String?

        package init(_ text: String) {
            if let address = MailAddress(text) {
                self.text = address.text
                domain = address.domain
            } else {
                self.text = String(decoding: text.utf8.map { (65...90).contains($0) ? $0 | 0x20 : $0 }, as: UTF8.self)
                domain = nil
            }
        }
    }

    /// What a record says of values it does not show.
    package struct HiddenValues: Sendable, Equatable {
        /// Arguments whose recorded value is not the one that was decided on.
        package let names: Set<String>
        /// For each condition that read one, by the bytes of its text: its truth for each combination of values, in the order of the decision.
        package let judged: [[UInt8]: [Truth]]
        /// Paths, command lines and recipients there were.
        package let counts: [Int]

        package init(names: Set<String>, judged: [[UInt8]: [Truth]], counts: [Int]) {
            self.names = names
            self.judged = judged
            self.counts = counts
        }
    }

    /// The facts of a call without arguments, or with those given.
    /// - Parameters:
    ///   - declaration: the capability's, whose roles say what its arguments mean.
    ///   - arguments: canonical: validated, defaults filled in, paths resolved.
    ///   - complete: whether these are all the arguments of the call.
    package init(
        agent: String, capability: Int, declaration: CapabilityDeclaration, arguments: JSONObject,
        complete: Bool = true, time: Timestamp
    ) {
        self.agent = agent
        self.capability = capability
        self.arguments = arguments
        self.complete = complete
        self.time = time
        for property in declaration.input.properties {
            guard let role = property.role, let value = arguments[property.name] else { continue }
            read(role, value)
        }
    }

    private mutating func read(_ role: ArgumentRole, _ value: JSONValue) {
        switch role {
        case .path(_, let reach):
            if let text = value.string { paths.append(Array(text.utf8)) }
            switch reach {
            case .itself: break
            case .below: reachesBelow = true
            case .belowWhen(let name):
                if arguments[name]?.bool ?? false || arguments[name]?.int ?? 0 > 1 { reachesBelow = true }
            }
        case .workingDirectory: break
        case .content(let encoding):
            guard let text = value.string else { break }
            contentSize =
                arguments[encoding]?.string == "base64"
                ? Base64.decode(text).map { Int64($0.count) } : Int64(text.utf8.count)
        case .command(let words, let shell, let environment):
            guard let text = value.string else { break }
            if arguments[shell]?.bool ?? false {
                lines = CommandLine.commands(ofShellText: text)
            } else if let rest = arguments[words]?.array {
                lines = CommandLine.commands(of: [text] + rest.compactMap(\.string))
            }
            // A variable may decide what a program loads, or what its name means.
            let names = arguments[environment]?.object?.keys ?? []
            if !lines.isEmpty, names.contains(where: CommandLine.isRisky) { lines.append(.opaque) }
        case .url:
            guard let text = value.string else { break }
            address = WebAddress(text)
            host = address?.host
            port = address?.port
        case .host: host = value.string.flatMap(WebAddress.host)
        case .port: port = value.int
        case .method: method = value.string
        case .recipient:
            recipients += (value.array ?? [value]).compactMap(\.string).map(Recipient.init)
        case .key(let below):
            key = value.string
            keyReachesBelow = below
        }
    }
}
