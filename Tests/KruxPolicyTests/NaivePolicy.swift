// One file, so that this second reading of the policy language can be read from top to bottom.

/// A tier, loosest first; the raw value is its name in YAML.
enum NaiveTier: String, CaseIterable, Comparable {
    case autonomous, notify
    case approvalRequired = "approval_required"
    case blocked

    private var strictness: Int {
        switch self {
        case .autonomous: 0
        case .notify: 1
        case .approvalRequired: 2
        case .blocked: 3
        }
    }

    static func < (a: NaiveTier, b: NaiveTier) -> Bool { a.strictness < b.strictness }
}

/// Kleene's three values.
enum NaiveTruth {
    case yes, no, unknown

    init(_ value: Bool) { self = value ? .yes : .no }

    var negated: NaiveTruth {
        switch self {
        case .yes: .no
        case .no: .yes
        case .unknown: .unknown
        }
    }

    static func all(_ values: [NaiveTruth]) -> NaiveTruth {
        values.contains(.no) ? .no : values.contains(.unknown) ? .unknown : .yes
    }

    static func any(_ values: [NaiveTruth]) -> NaiveTruth {
        values.contains(.yes) ? .yes : values.contains(.unknown) ? .unknown : .no
    }
}

/// An argument's value, or a value that a test compares it with.
enum NaiveValue: Equatable {
    case text(String)
    case int(Int64)
    case bool(Bool)
    case list([String])
}

/// A comparison of numbers; the raw value is its name in YAML.
enum NaiveComparison: String, CaseIterable {
    case lt, lte, gt, gte

    func holds(_ a: Int64, _ b: Int64) -> Bool {
        switch self {
        case .lt: a < b
        case .lte: a <= b
        case .gt: a > b
        case .gte: a >= b
        }
    }
}

/// A regular expression as `matches` knows them, over ASCII.
indirect enum NaiveRegex {
    case literal(String)
    case anything
    /// `[a-cx]`: ranges of signs that are no special signs of a class.
    case set([ClosedRange<UInt8>])
    /// One of `d w s D W S`.
    case shorthand(Character)
    case sequence([NaiveRegex])
    case either([NaiveRegex])
    case repeated(NaiveRegex, from: Int, to: Int?)

    /// Whether the whole text fits.
    func fits(_ text: String) -> Bool {
        let text = Array(text.utf8)
        return ends(in: text, from: [0]).contains(text.count)
    }

    /// Where a match can end that begins at one of the places.
    private func ends(in text: [UInt8], from starts: Set<Int>) -> Set<Int> {
        switch self {
        case .literal(let literal):
            var places = starts
            for sign in literal.utf8 { places = Self.step(text, places) { $0 == sign } }
            return places
        case .anything: return Self.step(text, starts) { _ in true }
        case .set(let ranges): return Self.step(text, starts) { sign in ranges.contains { $0.contains(sign) } }
        case .shorthand(let letter): return Self.step(text, starts) { Self.belongs($0, to: letter) }
        case .sequence(let parts): return parts.reduce(starts) { $1.ends(in: text, from: $0) }
        case .either(let parts): return parts.reduce([]) { $0.union($1.ends(in: text, from: starts)) }
        case .repeated(let part, let low, let high):
            var places = starts
            for _ in 0..<low { places = part.ends(in: text, from: places) }
            var found = places
            // More rounds than the text has signs reach no new place.
            for _ in low..<max(low, high ?? low + text.count) {
                places = part.ends(in: text, from: places)
                found.formUnion(places)
            }
            return found
        }
    }

    private static func step(_ text: [UInt8], _ starts: Set<Int>, _ fits: (UInt8) -> Bool) -> Set<Int> {
        var places: Set<Int> = []
        for start in starts where start < text.count && fits(text[start]) { places.insert(start + 1) }
        return places
    }

    private static func belongs(_ sign: UInt8, to letter: Character) -> Bool {
        let digit = (48...57).contains(sign)
        switch letter {
        case "d": return digit
        case "D": return !digit
        case "s": return sign == 32 || (9...13).contains(sign)
        case "S": return !(sign == 32 || (9...13).contains(sign))
        case "w": return digit || (65...90).contains(sign) || (97...122).contains(sign) || sign == 95
        default: return !(digit || (65...90).contains(sign) || (97...122).contains(sign) || sign == 95)
        }
    }

    /// As it is written.
    var text: String {
        switch self {
        case .literal(let literal):
            literal.map { "\\.()[]{}|*+?^$".contains($0) ? "\\\($0)" : "\($0)" }.joined()
        case .anything: "."
        case .set(let ranges):
            "[" + ranges.map(Self.range).joined() + "]"
        case .shorthand(let letter): "\\\(letter)"
        case .sequence(let parts): parts.map(\.text).joined()
        case .either(let parts): "(" + parts.map(\.text).joined(separator: "|") + ")"
        case .repeated(let part, 0, nil): "\(part.grouped)*"
        case .repeated(let part, 1, nil): "\(part.grouped)+"
        case .repeated(let part, 0, 1): "\(part.grouped)?"
        case .repeated(let part, let low, let high): "\(part.grouped){\(low),\(high.map { "\($0)" } ?? "")}"
        }
    }

    /// In parentheses, if a repetition needs them.
    private var grouped: String {
        switch self {
        case .anything, .set, .shorthand, .either: text
        case .literal(let literal) where literal.utf8.count == 1: text
        default: "(\(text))"
        }
    }

    private static func range(_ range: ClosedRange<UInt8>) -> String {
        let first = String(Unicode.Scalar(range.lowerBound))
        return range.count > 1 ? "\(first)-\(Unicode.Scalar(range.upperBound))" : first
    }
}

/// One test of an argument.
enum NaiveTest {
    case equals(NaiveValue)
    case notEquals(NaiveValue)
    case oneOf([NaiveValue])
    case noneOf([NaiveValue])
    case matches(NaiveRegex)
    case compares(NaiveComparison, Int64)
    case exists(Bool)

    var key: String {
        switch self {
        case .equals: "equals"
        case .notEquals: "not_equals"
        case .oneOf: "in"
        case .noneOf: "not_in"
        case .matches: "matches"
        case .compares(let comparison, _): comparison.rawValue
        case .exists: "exists"
        }
    }
}

/// The tests of one argument; all must hold. `short` writes `name: value` for a single `equals`.
struct NaiveArgumentTests {
    var name: String
    var tests: [NaiveTest]
    var short = false
}

/// A time zone without a daylight saving time.
enum NaiveZone: String, CaseIterable {
    case utc = "UTC"
    case kolkata = "Asia/Kolkata"

    var secondsEast: Int64 { self == .utc ? 0 : 19_800 }
}

/// A day of the week; the raw value is its name in YAML.
enum NaiveDay: String, CaseIterable {
    case sun, mon, tue, wed, thu, fri, sat
}

/// One key of a condition map with its value. Several texts are alternatives.
indirect enum NaiveCondition {
    case pathPrefix([String])
    case pathNotUnder([String])
    case pathGlob([String])
    case contentSize(NaiveComparison, Int64)
    case command([String])
    case commandPrefix([String])
    case commandGlob([String])
    case argsContain([String])
    case host([String])
    case urlPrefix([String])
    case method([String])
    case port(Int64)
    case recipient([String])
    case recipientDomain([String])
    case keyPrefix([String])
    case arguments([NaiveArgumentTests])
    /// Minutes since midnight.
    case timeBetween(from: Int64, to: Int64, zone: NaiveZone)
    case days([NaiveDay], zone: NaiveZone)
    case session(label: String?, ageBelowMinutes: Int64?, callsBelow: Int64?)
    case all([[NaiveCondition]])
    case any([[NaiveCondition]])
    case not([NaiveCondition])

    var key: String {
        switch self {
        case .pathPrefix: "path_prefix"
        case .pathNotUnder: "path_not_under"
        case .pathGlob: "path_glob"
        case .contentSize(let comparison, _): "content_size_\(comparison.rawValue)"
        case .command: "command"
        case .commandPrefix: "command_prefix"
        case .commandGlob: "command_glob"
        case .argsContain: "args_contain"
        case .host: "host"
        case .urlPrefix: "url_prefix"
        case .method: "method"
        case .port: "port"
        case .recipient: "recipient"
        case .recipientDomain: "recipient_domain"
        case .keyPrefix: "key_prefix"
        case .arguments: "arguments"
        case .timeBetween: "time_between"
        case .days: "days"
        case .session: "session"
        case .all: "all"
        case .any: "any"
        case .not: "not"
        }
    }
}

/// A rate limit. `onExceed` nil leaves the key away, which means `blocked`.
struct NaiveRate {
    var max: Int64
    var windowSeconds: Int64
    /// Whether the window is written like `10m` or `1h`, where it is whole minutes.
    var written = false
    var onExceed: NaiveTier?
}

/// A rule of a list, of a map entry, or the tier of a map entry itself. Without conditions it always matches.
struct NaiveRule {
    var pattern: String
    var tier: NaiveTier
    var locked = false
    var conditions: [NaiveCondition] = []
    /// Whether the key is `conditions`.
    var plural = false
    var rate: NaiveRate?
    var reason: String?
}

/// An entry of the map: its conditional rules in order, then its own tier.
struct NaiveEntry {
    var pattern: String
    var rules: [NaiveRule] = []
    var own: NaiveRule?
}

/// What holds where no rule matches.
struct NaiveDefaults {
    var tier: NaiveTier
    var locked = false
}

/// One policy file.
struct NaiveDocument {
    var name: String
    /// Agent files only.
    var agent: String?
    var extends: String?
    var defaults: NaiveDefaults?
    var agentOverrides: String?
    var grants: String?
    /// Modes by role, with the aliases `yolo` and `safe`.
    var roles: [String: String] = [:]
    var role: String?
    var mode: String?
    var overrides: [NaiveRule] = []
    var rules: [NaiveRule] = []
    /// In the order written; patterns are unique.
    var map: [NaiveEntry] = []
}

/// Everything of one policy version.
struct NaiveBundle {
    /// Takes the place of the compiled-in system policy.
    var system: NaiveDocument
    var requirements: NaiveDocument?
    var organisation: NaiveDocument?
    /// The name of one of the policies.
    var active: String
    var policies: [NaiveDocument]
    var agents: [String: NaiveDocument]
}

/// A call with everything that policies read.
struct NaiveCall {
    var agent: String
    var capability: String
    /// Seconds since 1970, UTC.
    var time: Int64
    var role: String?
    /// The explicit mode: `explore`, `ask` or `auto`.
    var mode: String?
    var sessionLabel: String?
    var sessionAge: Int64 = 0
    var sessionCalls: Int64 = 0
    /// Whether a live matching grant exists.
    var grant = false
    var arguments: [String: NaiveValue] = [:]
    /// Canonical, absolute, without a slash at the end; empty when none is known.
    var paths: [String] = []
    /// Whether the call touches what is below its paths, too.
    var reachesBelow = false
    var contentSize: Int64?
    /// Program and arguments of each segment; nil for one that cannot be judged.
    var lines: [[String]?] = []
    var url: (scheme: String, host: String, port: Int64, path: String)?
    var host: String?
    var port: Int64?
    var method: String?
    var recipients: [String] = []
    var key: String?
    /// Whether the call lists all keys that begin with `key`.
    var keyReachesBelow = false
}

/// What one rate limit counts by.
struct NaiveWindow: Hashable {
    var agent, layer, document, pattern: String
}

/// A tier before rate limits, and the windows of all rules that match or may match.
struct NaiveDecision {
    var tier: NaiveTier
    var windows: Set<NaiveWindow>
}

// MARK: - YAML

extension NaiveDocument {
    var yaml: String {
        var lines = ["name: \(yamlText(name))"]
        if let agent { lines.append("agent: \(yamlText(agent))") }
        if let extends { lines.append("extends: \(yamlText(extends))") }
        if let role { lines.append("role: \(yamlText(role))") }
        if let mode { lines.append("mode: \(yamlText(mode))") }
        if let agentOverrides { lines.append("agent_overrides: \(agentOverrides)") }
        if let grants { lines.append("grants: \(grants)") }
        if !roles.isEmpty {
            let pairs = roles.sorted { $0.key < $1.key }.map { "\(yamlText($0.key)): \($0.value)" }
            lines.append("roles: { \(pairs.joined(separator: ", ")) }")
        }
        if let defaults {
            lines.append("defaults: { tier: \(defaults.tier.rawValue)\(defaults.locked ? ", locked: true" : "") }")
        }
        if !overrides.isEmpty { lines += ["overrides:"] + overrides.flatMap { $0.listed(indent: 2, pattern: true) } }
        if !rules.isEmpty { lines += ["rules:"] + rules.flatMap { $0.listed(indent: 2, pattern: true) } }
        if !map.isEmpty { lines += ["capabilities:"] + map.flatMap(\.yamlLines) }
        return lines.joined(separator: "\n") + "\n"
    }
}

extension NaiveEntry {
    fileprivate var yamlLines: [String] {
        var lines = ["  \(yamlText(pattern)):"]
        if !rules.isEmpty { lines += ["    rules:"] + rules.flatMap { $0.listed(indent: 6, pattern: false) } }
        if let own { lines += own.members.map { "    " + $0 } }
        return lines
    }
}

extension NaiveRule {
    fileprivate var members: [String] {
        var lines: [String] = []
        if !conditions.isEmpty { lines.append("\(plural ? "conditions" : "condition"): \(yamlMap(conditions))") }
        lines.append("tier: \(tier.rawValue)")
        if locked { lines.append("locked: true") }
        if let reason { lines.append("reason: \(yamlText(reason))") }
        if let rate {
            let exceed = rate.onExceed.map { ", on_exceed: \($0.rawValue)" } ?? ""
            lines.append("rate_limit: { max: \(rate.max), window: \(rate.window)\(exceed) }")
        }
        return lines
    }

    fileprivate func listed(indent: Int, pattern withPattern: Bool) -> [String] {
        let lines = (withPattern ? ["capability: \(yamlText(pattern))"] : []) + members
        let margin = String(repeating: " ", count: indent)
        return lines.enumerated().map { margin + ($0 == 0 ? "- " : "  ") + $1 }
    }
}

extension NaiveRate {
    fileprivate var window: String {
        guard written, windowSeconds % 60 == 0 else { return "\(windowSeconds)" }
        return yamlDuration(minutes: windowSeconds / 60)
    }
}

extension NaiveValue {
    fileprivate var yaml: String {
        switch self {
        case .text(let text): yamlText(text)
        case .int(let number): "\(number)"
        case .bool(let value): "\(value)"
        case .list(let texts): "[\(texts.map(yamlText).joined(separator: ", "))]"
        }
    }
}

extension NaiveTest {
    fileprivate var yaml: String {
        switch self {
        case .equals(let value), .notEquals(let value): value.yaml
        case .oneOf(let values), .noneOf(let values): "[\(values.map(\.yaml).joined(separator: ", "))]"
        case .matches(let regex): yamlText(regex.text)
        case .compares(_, let number): "\(number)"
        case .exists(let value): "\(value)"
        }
    }
}

extension NaiveArgumentTests {
    fileprivate var yaml: String {
        if short, tests.count == 1, case .equals(let value) = tests[0] { return "\(name): \(value.yaml)" }
        return "\(name): { \(tests.map { "\($0.key): \($0.yaml)" }.joined(separator: ", ")) }"
    }
}

extension NaiveCondition {
    fileprivate var yaml: String {
        switch self {
        case .pathPrefix(let texts), .pathNotUnder(let texts), .pathGlob(let texts), .command(let texts),
            .commandPrefix(let texts), .commandGlob(let texts), .argsContain(let texts), .host(let texts),
            .urlPrefix(let texts), .method(let texts), .recipient(let texts), .recipientDomain(let texts),
            .keyPrefix(let texts):
            return texts.count == 1 ? yamlText(texts[0]) : NaiveValue.list(texts).yaml
        case .contentSize(_, let number), .port(let number): return "\(number)"
        case .arguments(let tests): return "{ \(tests.map(\.yaml).joined(separator: ", ")) }"
        case .timeBetween(let from, let to, let zone):
            return "{ from: \"\(yamlTime(from))\", to: \"\(yamlTime(to))\", zone: \(zone.rawValue) }"
        case .days(let days, let zone):
            return "{ on: [\(days.map(\.rawValue).joined(separator: ", "))], zone: \(zone.rawValue) }"
        case .session(let label, let age, let calls):
            var members: [String] = []
            if let label { members.append("label: \(yamlText(label))") }
            if let age { members.append("age_lt: \(yamlDuration(minutes: age))") }
            if let calls { members.append("calls_lt: \(calls)") }
            return "{ \(members.joined(separator: ", ")) }"
        case .all(let maps), .any(let maps): return "[\(maps.map(yamlMap).joined(separator: ", "))]"
        case .not(let map): return yamlMap(map)
        }
    }
}

private func yamlMap(_ conditions: [NaiveCondition]) -> String {
    "{ \(conditions.map { "\($0.key): \($0.yaml)" }.joined(separator: ", ")) }"
}

/// Plain where that is safe, else in double quotes.
private func yamlText(_ text: String) -> String {
    let bytes = Array(text.utf8)
    let plain = bytes.allSatisfy { sign in
        (97...122).contains(sign) || (65...90).contains(sign) || (48...57).contains(sign) || sign == 95 || sign == 47
            || sign == 46
    }
    let reserved = ["true", "false", "yes", "no", "on", "off", "null", "y", "n"]
    if plain, let first = bytes.first, !(48...57).contains(first), first != 46, !reserved.contains(text.lowercased()) {
        return text
    }
    return "\"" + text.map { $0 == "\\" || $0 == "\"" ? "\\\($0)" : "\($0)" }.joined() + "\""
}

private func yamlTime(_ minutes: Int64) -> String {
    let hour = minutes / 60
    let minute = minutes % 60
    return "\(hour < 10 ? "0" : "")\(hour):\(minute < 10 ? "0" : "")\(minute)"
}

private func yamlDuration(minutes: Int64) -> String {
    minutes % 60 == 0 ? "\(minutes / 60)h" : "\(minutes)m"
}

// MARK: - Decisions

/// Decides calls as the policy language says, rule by rule.
struct NaiveEvaluator {
    let bundle: NaiveBundle
    /// The documents of the organisation layer, topmost first.
    private let organisationDocuments: [NaiveDocument]

    init(_ bundle: NaiveBundle) {
        self.bundle = bundle
        organisationDocuments =
            (bundle.organisation.map { [$0] } ?? []) + Self.chain(from: bundle.active, in: bundle.policies)
    }

    func decide(_ call: NaiveCall) -> NaiveDecision {
        let patterns = patterns(covering: call.capability)
        let outcomes = combinations(of: call).map { outcome($0, patterns) }
        return NaiveDecision(
            tier: outcomes.map(\.tier).max() ?? .blocked,
            windows: Set(outcomes.flatMap { $0.rates.map(\.window) }))
    }

    /// With the rate limits whose windows are used up.
    func decide(_ call: NaiveCall, full: Set<NaiveWindow>) -> NaiveTier {
        let patterns = patterns(covering: call.capability)
        let tiers = combinations(of: call).flatMap { single in
            let outcome = outcome(single, patterns)
            return [outcome.tier] + outcome.rates.filter { full.contains($0.window) }.map(\.onExceed)
        }
        return tiers.max() ?? .blocked
    }

    /// What a single call gets, and the rate limits of the rules that match or may match.
    private struct Outcome {
        var tier: NaiveTier
        var rates: [Rate]
    }

    /// A matching rule's rate limit.
    private struct Rate {
        var window: NaiveWindow
        var onExceed: NaiveTier
    }

    /// A rule or defaults that matches or may match.
    private struct Match {
        var tier: NaiveTier
        var locked: Bool
        var isDefault: Bool
        var rate: Rate?
    }

    /// The matches of a table down to the first sure one.
    private struct Answer {
        var matches: [Match] = []
        /// Whether the last match is sure.
        var sure = false
        var strictest: NaiveTier? { matches.map(\.tier).max() }
    }

    // MARK: Values

    /// One call for each combination of values; each has at most one path, line and recipient.
    private func combinations(of call: NaiveCall) -> [NaiveCall] {
        var calls = [call]
        if call.paths.count > 1 { calls = split(calls, by: call.paths) { $0.paths = [$1] } }
        if call.lines.count > 1 { calls = split(calls, by: call.lines) { $0.lines = [$1] } }
        if call.recipients.count > 1 { calls = split(calls, by: call.recipients) { $0.recipients = [$1] } }
        for (name, value) in call.arguments {
            guard case .list(let elements) = value, !elements.isEmpty, isNamed(name) else { continue }
            calls = split(calls, by: elements) { $0.arguments[name] = .text($1) }
        }
        return calls
    }

    private func split<Value>(
        _ calls: [NaiveCall], by values: [Value], _ set: (inout NaiveCall, Value) -> Void
    ) -> [NaiveCall] {
        calls.flatMap { call in
            values.map { value in
                var single = call
                set(&single, value)
                return single
            }
        }
    }

    /// Whether some condition of the bundle names the argument.
    private func isNamed(_ argument: String) -> Bool {
        func names(_ conditions: [NaiveCondition]) -> Bool {
            conditions.contains { condition in
                switch condition {
                case .arguments(let tests): tests.contains { $0.name == argument }
                case .all(let maps), .any(let maps): maps.contains(where: names)
                case .not(let map): names(map)
                default: false
                }
            }
        }
        func names(_ document: NaiveDocument) -> Bool {
            let rules = document.overrides + document.rules + document.map.flatMap(\.rules)
            return rules.contains { names($0.conditions) }
        }
        return names(bundle.system) || (bundle.requirements.map(names) ?? false)
            || (bundle.organisation.map(names) ?? false) || bundle.policies.contains(where: names)
            || bundle.agents.values.contains(where: names)
    }

    // MARK: Layers

    /// What a call with at most one value of each kind gets; `patterns` cover its capability, most specific first.
    private func outcome(_ call: NaiveCall, _ patterns: [String]) -> Outcome {
        let agent = bundle.agents[call.agent]
        let organisation = answer(
            call, patterns, organisationDocuments, layer: "organisation",
            defaults: topmostDefaults(organisationDocuments))
        let own = answer(call, patterns, agent.map { [$0] } ?? [], layer: "agent", defaults: nil)

        // What an agent document says where no own rule surely matches.
        var tightening = Answer()
        if !own.sure, let agent {
            let extended = Self.chain(from: agent.extends, in: bundle.policies)
            tightening = answer(call, patterns, extended, layer: "agent", defaults: topmostDefaults(extended))
            if let defaults = agent.defaults { tightening.matches.append(Self.match(defaults)) }
        }

        var chosen: NaiveTier
        if own.sure {
            chosen = max(own.strictest ?? .autonomous, floor(organisation) ?? .autonomous)
        } else {
            let nothing: NaiveTier = organisation.sure ? .autonomous : .blocked
            chosen = max(organisation.strictest ?? .autonomous, nothing)
            chosen = max(chosen, own.strictest ?? .autonomous, tightening.strictest ?? .autonomous)
        }

        if !Self.readOnly.contains(call.capability) {
            switch mode(call) {
            case "explore": chosen = .blocked
            case "ask": chosen = max(chosen, .approvalRequired)
            default: break
            }
        }

        let asked = organisation.matches + own.matches + tightening.matches
        let lockedIn = asked.contains { $0.locked && $0.tier >= .approvalRequired }
        if call.grant, chosen == .approvalRequired, grantsAllowed, !lockedIn { chosen = .notify }

        var rates = asked.compactMap(\.rate)
        for document in [bundle.requirements, bundle.system] {
            guard let document else { continue }
            let system = answer(call, patterns, [document], layer: "system", defaults: document.defaults)
            chosen = max(chosen, system.strictest ?? .autonomous)
            rates += system.matches.compactMap(\.rate)
        }
        return Outcome(tier: chosen, rates: rates)
    }

    /// What of the organisation's answer binds against an agent's own rule.
    private func floor(_ organisation: Answer) -> NaiveTier? {
        let tightenOnly = (organisationDocuments.compactMap(\.agentOverrides).first ?? "tighten_only") == "tighten_only"
        let binding = organisation.matches.filter { match in
            match.isDefault ? match.locked : match.locked || match.tier == .blocked || tightenOnly
        }
        return binding.map(\.tier).max()
    }

    private var grantsAllowed: Bool { organisationDocuments.compactMap(\.grants).first != "none" }

    /// A policy, what it extends, and so on.
    private static func chain(from name: String?, in policies: [NaiveDocument]) -> [NaiveDocument] {
        guard let name, let document = policies.first(where: { $0.name == name }) else { return [] }
        return [document] + chain(from: document.extends, in: policies)
    }

    private func topmostDefaults(_ documents: [NaiveDocument]) -> NaiveDefaults? {
        documents.compactMap(\.defaults).first
    }

    // MARK: Modes

    private static let readOnly = ["filesystem.read", "filesystem.list", "state.shared.list", "system.time"]

    private static let builtInRoles = [
        "dev": "ask", "architect": "ask", "po": "ask", "pm": "ask", "sm": "ask", "qa": "explore", "analyst": "explore",
        "devops": "auto",
    ]

    private func mode(_ call: NaiveCall) -> String {
        let agent = bundle.agents[call.agent]
        if let mode = call.mode ?? agent?.mode { return Self.withoutAlias(mode) }
        guard let role = call.role ?? agent?.role else { return "auto" }
        let given = organisationDocuments.compactMap { $0.roles[role] }.first
        return Self.withoutAlias(given ?? Self.builtInRoles[role] ?? "ask")
    }

    private static func withoutAlias(_ mode: String) -> String {
        mode == "yolo" ? "auto" : mode == "safe" ? "explore" : mode
    }

    // MARK: Tables

    /// Asks the documents from the top, then the defaults.
    private func answer(
        _ call: NaiveCall, _ patterns: [String], _ documents: [NaiveDocument], layer: String, defaults: NaiveDefaults?
    ) -> Answer {
        var answer = Answer()
        for document in documents {
            for rule in rules(of: document, patterns) {
                let truth = judge(rule.conditions, call)
                guard truth != .no else { continue }
                let window = NaiveWindow(
                    agent: call.agent, layer: layer, document: document.name, pattern: rule.pattern)
                let rate = rule.rate.map { Rate(window: window, onExceed: $0.onExceed ?? .blocked) }
                answer.matches.append(Match(tier: rule.tier, locked: rule.locked, isDefault: false, rate: rate))
                if truth == .yes {
                    answer.sure = true
                    return answer
                }
            }
        }
        if let defaults {
            answer.matches.append(Self.match(defaults))
            answer.sure = true
        }
        return answer
    }

    private static func match(_ defaults: NaiveDefaults) -> Match {
        Match(tier: defaults.tier, locked: defaults.locked, isDefault: true, rate: nil)
    }

    /// A document's rules with one of the patterns, which stand most specific first, in the order they are asked.
    private func rules(of document: NaiveDocument, _ patterns: [String]) -> [NaiveRule] {
        var found: [NaiveRule] = []
        for var rule in document.overrides where patterns.contains(rule.pattern) {
            rule.locked = true
            found.append(rule)
        }
        for rule in document.rules where patterns.contains(rule.pattern) { found.append(rule) }
        for pattern in patterns where !document.map.isEmpty {
            for entry in document.map where entry.pattern == pattern {
                found += entry.rules
                if let own = entry.own { found.append(own) }
            }
        }
        return found
    }

    /// The patterns that cover a capability, most specific first.
    private func patterns(covering capability: String) -> [String] {
        var patterns = [capability]
        var words = capability[...]
        while let dot = words.lastIndex(of: ".") {
            words = words[..<dot]
            patterns.append(words + ".*")
        }
        return patterns + ["*"]
    }

    // MARK: Conditions

    /// Whether all conditions of a map hold, for a call with at most one value of each kind.
    func judge(_ conditions: [NaiveCondition], _ call: NaiveCall) -> NaiveTruth {
        .all(conditions.map { judge($0, call) })
    }

    private func judge(_ condition: NaiveCondition, _ call: NaiveCall) -> NaiveTruth {
        switch condition {
        case .pathPrefix(let folders): return judgePrefix(folders, call)
        case .pathNotUnder(let folders): return judgePrefix(folders, call).negated
        case .pathGlob(let globs):
            return any(globs, call.paths.first) { NaiveText.pathGlob($0, $1, reachesBelow: call.reachesBelow) }
        case .contentSize(let comparison, let number):
            return call.contentSize.map { NaiveTruth(comparison.holds($0, number)) } ?? .unknown
        case .command(let names): return any(names, line(call)) { NaiveText.command($0, $1[0]) }
        case .commandPrefix(let prefixes):
            return any(prefixes, line(call)) { prefix, line in
                let words = prefix.split(separator: " ").map(String.init)
                guard line.count >= words.count, Array(line[1..<words.count]) == Array(words[1...]) else { return .no }
                return NaiveText.command(words[0], line[0])
            }
        case .commandGlob(let globs):
            return any(globs, line(call)) { glob, line in
                if NaiveText.star(glob, line.joined(separator: " ")) { return .yes }
                guard line[0].contains("/"), let name = line[0].split(separator: "/").last else { return .no }
                // The program may or may not be the one of that name.
                return NaiveText.star(glob, ([String(name)] + line.dropFirst()).joined(separator: " ")) ? .unknown : .no
            }
        case .argsContain(let texts): return any(texts, line(call)) { NaiveTruth($1.dropFirst().contains($0)) }
        case .host(let hosts): return any(hosts, call.host) { NaiveTruth(NaiveText.host($0, $1)) }
        case .urlPrefix(let prefixes):
            return any(prefixes, call.url) { NaiveTruth(NaiveText.url($0, $1.scheme, $1.host, $1.port, $1.path)) }
        case .method(let methods): return any(methods, call.method) { NaiveTruth($0 == $1) }
        case .port(let port): return call.port.map { NaiveTruth($0 == port) } ?? .unknown
        case .recipient(let addresses):
            return any(addresses, call.recipients.first) { address, recipient in
                if address.lowercased() == recipient.lowercased() { return .yes }
                // An address in a form that is not local@domain may mean any.
                let parts = recipient.split(separator: "@", omittingEmptySubsequences: false)
                return parts.count > 1 && (parts.count > 2 || parts.contains("")) ? .unknown : .no
            }
        case .recipientDomain(let domains):
            return any(domains, call.recipients.first) { NaiveText.domain($0, $1) }
        case .keyPrefix(let prefixes):
            return any(prefixes, call.key) { prefix, key in
                if key.hasPrefix(prefix) { return .yes }
                return call.keyReachesBelow && prefix.hasPrefix(key) ? .unknown : .no
            }
        case .arguments(let arguments):
            return .all(
                arguments.map { argument in .all(argument.tests.map { judge($0, call.arguments[argument.name]) }) })
        case .timeBetween(let from, let to, let zone):
            let second = (call.time + zone.secondsEast) % 86_400
            return NaiveTruth(
                from < to
                    ? from * 60 <= second && second < to * 60 : from * 60 <= second || second < to * 60)
        case .days(let days, let zone):
            // 1970 began on a Thursday.
            let day = NaiveDay.allCases[Int(((call.time + zone.secondsEast) / 86_400 + 4) % 7)]
            return NaiveTruth(days.contains(day))
        case .session(let label, let minutes, let calls):
            var parts: [NaiveTruth] = []
            if let label { parts.append(call.sessionLabel.map { NaiveTruth($0 == label) } ?? .unknown) }
            if let minutes { parts.append(NaiveTruth(call.sessionAge < minutes * 60)) }
            if let calls { parts.append(NaiveTruth(call.sessionCalls < calls)) }
            return .all(parts)
        case .all(let maps): return .all(maps.map { judge($0, call) })
        case .any(let maps): return .any(maps.map { judge($0, call) })
        case .not(let map): return judge(map, call).negated
        }
    }

    /// The single line of a call; nil when it has none or none that can be judged.
    private func line(_ call: NaiveCall) -> [String]? { call.lines.first ?? nil }

    /// Whether a value fits one of the texts; a missing value cannot be judged.
    private func any<Value>(
        _ texts: [String], _ value: Value?, _ fits: (String, Value) -> NaiveTruth
    ) -> NaiveTruth {
        guard let value else { return .unknown }
        return .any(texts.map { fits($0, value) })
    }

    private func judgePrefix(_ folders: [String], _ call: NaiveCall) -> NaiveTruth {
        any(folders, call.paths.first) { folder, path in
            if NaiveText.isUnder(path, folder) { return .yes }
            return call.reachesBelow && NaiveText.isUnder(folder, path) ? .unknown : .no
        }
    }

    private func judge(_ test: NaiveTest, _ value: NaiveValue?) -> NaiveTruth {
        if case .exists(let wanted) = test { return NaiveTruth((value != nil) == wanted) }
        guard let value, value != .list([]) else { return .unknown }
        switch test {
        case .equals(let other): return NaiveTruth(value == other)
        case .notEquals(let other): return NaiveTruth(value != other)
        case .oneOf(let others): return NaiveTruth(others.contains(value))
        case .noneOf(let others): return NaiveTruth(!others.contains(value))
        case .matches(let regex):
            guard case .text(let text) = value else { return .unknown }
            return NaiveTruth(regex.fits(text))
        case .compares(let comparison, let number):
            guard case .int(let int) = value else { return .unknown }
            return NaiveTruth(comparison.holds(int, number))
        case .exists: return .unknown
        }
    }
}

/// How texts fit what conditions say. All texts are ASCII.
enum NaiveText {
    /// Whether a path is the folder or below it; the folder may end in slashes.
    static func isUnder(_ path: String, _ folder: String) -> Bool {
        if folder.hasSuffix("/") { return isUnder(path, String(folder.dropLast())) }
        return folder.isEmpty || path == folder || path.hasPrefix(folder + "/")
    }

    static func pathGlob(_ glob: String, _ path: String, reachesBelow: Bool) -> NaiveTruth {
        let pattern = components(glob)
        let names = components(path)
        let fits = fits(pattern[...], names[...])
        guard reachesBelow else { return NaiveTruth(fits) }
        if fits { return glob.hasSuffix("/**") ? .yes : .unknown }
        return couldFitBelow(pattern[...], names[...]) ? .unknown : .no
    }

    private static func components(_ path: String) -> [[UInt8]] {
        var components: [[UInt8]] = []
        for sign in path.utf8 {
            if sign == UInt8(ascii: "/") {
                components.append([])
            } else {
                components[components.count - 1].append(sign)
            }
        }
        return components
    }

    private static let anyFolders = Array("**".utf8)

    private static func fits(_ pattern: ArraySlice<[UInt8]>, _ names: ArraySlice<[UInt8]>) -> Bool {
        guard let first = pattern.first else { return names.isEmpty }
        if first == anyFolders {
            return fits(pattern.dropFirst(), names) || (!names.isEmpty && fits(pattern, names.dropFirst()))
        }
        guard let name = names.first, component(first[...], name[...]) else { return false }
        return fits(pattern.dropFirst(), names.dropFirst())
    }

    /// Whether the names with one or more further ones could fit.
    private static func couldFitBelow(_ pattern: ArraySlice<[UInt8]>, _ names: ArraySlice<[UInt8]>) -> Bool {
        guard let first = pattern.first else { return false }
        guard let name = names.first else { return true }
        if first == anyFolders {
            return couldFitBelow(pattern.dropFirst(), names) || couldFitBelow(pattern, names.dropFirst())
        }
        return component(first[...], name[...]) && couldFitBelow(pattern.dropFirst(), names.dropFirst())
    }

    /// `*`, `?` and `[…]` within one component.
    private static func component(_ pattern: ArraySlice<UInt8>, _ name: ArraySlice<UInt8>) -> Bool {
        guard let first = pattern.first else { return name.isEmpty }
        let rest = pattern.dropFirst()
        switch first {
        case UInt8(ascii: "*"):
            return component(rest, name) || (!name.isEmpty && component(pattern, name.dropFirst()))
        case UInt8(ascii: "?"): return !name.isEmpty && component(rest, name.dropFirst())
        case UInt8(ascii: "["):
            guard let sign = name.first, let end = rest.firstIndex(of: UInt8(ascii: "]")) else { return false }
            var members = Array(rest[..<end])
            let inverted = members.first == UInt8(ascii: "!")
            if inverted { members.removeFirst() }
            guard contains(members, sign) != inverted else { return false }
            return component(rest[(end + 1)...], name.dropFirst())
        default: return name.first == first && component(rest, name.dropFirst())
        }
    }

    private static func contains(_ members: [UInt8], _ sign: UInt8) -> Bool {
        guard let first = members.first else { return false }
        if members.count >= 3, members[1] == UInt8(ascii: "-") {
            return (first <= sign && sign <= members[2]) || contains(Array(members.dropFirst(3)), sign)
        }
        return first == sign || contains(Array(members.dropFirst()), sign)
    }

    static func command(_ name: String, _ program: String) -> NaiveTruth {
        if name == program { return .yes }
        guard name.contains("/") || program.contains("/") else { return .no }
        return name.split(separator: "/").last == program.split(separator: "/").last ? .unknown : .no
    }

    /// Whether the whole text fits a pattern in which `*` is anything.
    static func star(_ pattern: String, _ text: String) -> Bool {
        star(Array(pattern.utf8)[...], Array(text.utf8)[...])
    }

    private static func star(_ pattern: ArraySlice<UInt8>, _ text: ArraySlice<UInt8>) -> Bool {
        guard let first = pattern.first else { return text.isEmpty }
        if first == UInt8(ascii: "*") {
            return star(pattern.dropFirst(), text) || (!text.isEmpty && star(pattern, text.dropFirst()))
        }
        return text.first == first && star(pattern.dropFirst(), text.dropFirst())
    }

    /// Whether a host is the one meant, or below it for `*.x`.
    static func host(_ pattern: String, _ host: String) -> Bool {
        let pattern = pattern.lowercased()
        let host = host.lowercased()
        guard pattern.hasPrefix("*.") else { return pattern == host }
        let suffix = String(pattern.dropFirst())
        return host.hasSuffix(suffix) && host != suffix
    }

    static func domain(_ pattern: String, _ address: String) -> NaiveTruth {
        let parts = address.split(separator: "@", omittingEmptySubsequences: false).map(String.init)
        guard parts.count == 2, !parts[0].isEmpty, !parts[1].isEmpty else { return .unknown }
        return NaiveTruth(host(pattern, parts[1]))
    }

    /// Whether a URL has the prefix's scheme, host and port, and a path at or below its path.
    static func url(_ prefix: String, _ scheme: String, _ host: String, _ port: Int64, _ path: String) -> Bool {
        let secure = prefix.hasPrefix("https://")
        let rest = String(prefix.dropFirst(secure ? 8 : 7))
        let authority = String(rest.prefix { $0 != "/" })
        let folder = String(rest.dropFirst(authority.count))
        let parts = authority.split(separator: ":").map(String.init)
        let wanted = parts.count == 2 ? Int64(parts[1]) : secure ? 443 : 80
        return scheme == (secure ? "https" : "http") && host.lowercased() == parts[0].lowercased() && port == wanted
            && isUnder(path, folder)
    }
}
