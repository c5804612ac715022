import KruxCore

/// Reads a YAML text into a `PolicyDocument`, collecting every error rather than stopping at the first.
package struct PolicyDocumentReader {
    private let file: String
    private var nodes: NodeReader
    /// Patterns that were read before: few, and used often.
    private var patterns: [String: CapabilityPattern] = [:]

    /// - Parameters:
    ///   - bytes: the file's text, UTF-8 YAML.
    ///   - file: the name shown in errors and decisions, such as `team-moderate.yaml`.
    /// - Returns: the document, or all of its errors in file order.
    package static func read(_ bytes: [UInt8], file: String) -> Result<PolicyDocument, PolicyErrors> {
        let root: YAMLNode
        let mistakes: [PolicyDiagnostic]
        do throws(PolicyDiagnostic) { (root, mistakes) = try YAMLReader.read(bytes, file: file) } catch {
            return .failure(PolicyErrors([error]))
        }
        var reader = PolicyDocumentReader(file: file, nodes: NodeReader(mistakes: mistakes))
        let document = reader.document(root)
        if let document, reader.nodes.mistakes.isEmpty { return .success(document) }
        return .failure(PolicyErrors(reader.nodes.mistakes.sorted { $0.location < $1.location }))
    }

    private init(file: String, nodes: NodeReader) {
        self.file = file
        self.nodes = nodes
    }

    private static let topKeys = [
        "name", "version", "description", "agent", "extends", "defaults", "agent_overrides", "grants", "max_pending",
        "notifiers", "links", "protected", "roles", "role", "mode", "rules", "overrides", "capabilities",
    ]
    /// Named so that they are refused with a reason, never ignored.
    private static let futureTopKeys: Set<String> = ["sandbox"]
    private static let futureEntryKeys: Set<String> = ["undo_for", "segments"]
    private static let terms = ["approvers", "quorum", "expires", "remind_after"]
    private static let conditional =
        ["condition", "conditions", "tier", "reason", "locked", "rate_limit", "sandbox"]
        + terms
    private static let entry = ["tier", "reason", "locked", "rate_limit", "sandbox", "rules"] + terms

    private mutating func document(_ root: YAMLNode) -> PolicyDocument? {
        guard case .mapping(let pairs) = root.content else {
            nodes.fail(root, "a policy is a map, not \(root.kind)", hint: "start with `name:` and `capabilities:`")
            return nil
        }
        var stem = file.split(separator: "/").last.map(String.init) ?? file
        if let dot = stem.lastIndex(of: "."), dot != stem.startIndex { stem = String(stem[..<dot]) }
        var document = PolicyDocument(name: stem, file: file)
        var rules: [Rule] = []
        for (keyNode, value) in pairs {
            guard let key = nodes.word(keyNode) else { continue }
            switch key {
            case "name":
                if let text = nodes.text(value, key) {
                    if text.isEmpty { nodes.fail(value, "`name` is empty", hint: "leave it out for the file's own") }
                    document.name = text
                }
            case "version": document.version = nodes.text(value, key)
            case "description": document.description = nodes.text(value, key)
            case "agent":
                if let text = nodes.text(value, key) {
                    if AgentName(text) == nil {
                        nodes.fail(value, "`\(text)` is no agent name", hint: AgentName.rule)
                    }
                    document.agent = .init(value: text, location: keyNode.location)
                }
            case "extends":
                if let text = nodes.text(value, key) {
                    document.extends = .init(value: text, location: value.location)
                }
            case "defaults": document.defaults = defaults(value)
            case "agent_overrides":
                document.agentOverrides = nodes.choice(
                    value, "value of `agent_overrides`", PolicyDocument.AgentOverrides.allCases.map(\.rawValue)
                ) { PolicyDocument.AgentOverrides(rawValue: $0) }.map { .init(value: $0, location: keyNode.location) }
            case "grants":
                document.grants = nodes.choice(
                    value, "value of `grants`", PolicyDocument.Grants.allCases.map(\.rawValue)
                ) { PolicyDocument.Grants(rawValue: $0) }.map { .init(value: $0, location: keyNode.location) }
            case "max_pending":
                document.maxPending = nodes.integer(
                    value, key, 1...PolicyDocument.largestMaxPending,
                    "a number of requests from 1 to \(PolicyDocument.largestMaxPending)",
                    hint: "such as `max_pending: 20`"
                ).map { .init(value: $0, location: keyNode.location) }
            case "notifiers":
                document.notifiers = .init(value: nodes.notifiers(value), location: keyNode.location)
            case "protected":
                document.protected = .init(value: nodes.protected(value), location: keyNode.location)
            case "links": document.links = nodes.links(value).map { .init(value: $0, location: keyNode.location) }
            case "roles": document.roles = roles(value)
            case "role": document.role = role(value).map { .init(value: $0, location: keyNode.location) }
            case "mode": document.mode = nodes.mode(value).map { .init(value: $0, location: keyNode.location) }
            case "rules": rules += list(value, key, locked: false)
            case "overrides": document.list += list(value, key, locked: true)
            case "capabilities": document.map = map(value)
            default: nodes.unknown(keyNode, key, known: Self.topKeys, future: Self.futureTopKeys)
            }
        }
        document.list += rules
        return document
    }

    private mutating func roles(_ node: YAMLNode) -> [(name: String, mode: Mode, location: SourceLocation)] {
        (nodes.pairs(node, "`roles`") ?? []).compactMap { key, value in
            guard let name = role(key), let mode = nodes.mode(value) else { return nil }
            return (name, mode, key.location)
        }
    }

    private mutating func role(_ node: YAMLNode) -> String? {
        guard let text = nodes.text(node, "role") else { return nil }
        if AgentName(text) != nil { return text }
        nodes.fail(node, "`\(text)` is no role", hint: AgentName.rule)
        return nil
    }

    private mutating func defaults(_ node: YAMLNode) -> PolicyDocument.Default? {
        guard let pairs = nodes.pairs(node, "`defaults`") else { return nil }
        var result: Tier?
        var locked = false
        var tierLocation = node.location
        var sawTier = false
        for (keyNode, value) in pairs {
            guard let key = nodes.word(keyNode) else { continue }
            switch key {
            case "tier":
                sawTier = true
                result = nodes.tier(value)
                tierLocation = value.location
            case "locked": locked = nodes.flag(value, key) ?? false
            default: nodes.unknown(keyNode, key, known: ["tier", "locked"])
            }
        }
        if !sawTier { nodes.fail(node, "`defaults` needs a `tier`") }
        return result.map {
            PolicyDocument.Default(tier: $0, locked: locked, location: node.location, tierLocation: tierLocation)
        }
    }

    /// `{max: 10, window: 3600, on_exceed: approval_required}`.
    private mutating func rateLimit(_ node: YAMLNode) -> RateLimit? {
        guard let pairs = nodes.pairs(node, "`rate_limit`") else { return nil }
        var max: Int64?
        var window: Int64?
        var onExceed: Tier? = .blocked
        for (keyNode, value) in pairs {
            guard let key = nodes.word(keyNode) else { continue }
            switch key {
            case "max":
                max = nodes.integer(
                    value, key, 1...RateLimit.largestMax, "a number of calls from 1 to \(RateLimit.largestMax)",
                    hint: "to allow none, write `tier: blocked`")
            case "window": window = nodes.seconds(value, key, atMost: RateLimit.longestWindowSeconds)
            case "on_exceed":
                onExceed = nodes.tier(value)
                if let tier = onExceed, tier < .approvalRequired {
                    nodes.fail(
                        value, "`on_exceed: \(tier.name)` limits nothing", hint: "use `approval_required` or `blocked`")
                    onExceed = nil
                }
            default: nodes.unknown(keyNode, key, known: ["max", "window", "on_exceed"])
            }
        }
        for key in ["max", "window"] where !pairs.contains(where: { nodes.word($0.key) == key }) {
            nodes.fail(node, "`rate_limit` has no `\(key)`", hint: "such as `{max: 10, window: 1h}`")
        }
        guard let max, let window, let onExceed else { return nil }
        return RateLimit(max: max, windowSeconds: window, onExceed: onExceed)
    }

    /// A name, `role:NAME`, or a list of them.
    private mutating func approvers(_ node: YAMLNode) -> [String] {
        let elements: [YAMLNode] = if case .sequence(let elements) = node.content { elements } else { [node] }
        if elements.isEmpty { nodes.fail(node, "`approvers` names nobody", hint: "leave it out to ask anybody") }
        var result: [String] = []
        for element in elements {
            guard let text = nodes.text(element, "approver") else { continue }
            let name = text.hasPrefix("role:") ? String(text.dropFirst(5)) : text
            if !SupervisorName.isValid(name) {
                nodes.fail(
                    element, "`\(text)` is no supervisor's name",
                    hint: "write a name, or `role:NAME`; \(SupervisorName.rule)")
            } else if !result.contains(where: { $0.utf8Equals(text) }) {
                result.append(text)
            }
        }
        return result
    }

    private mutating func pattern(_ node: YAMLNode) -> CapabilityPattern? {
        guard let text = nodes.text(node, "capability") else { return nil }
        if let known = patterns[text] { return known }
        if let pattern = CapabilityPattern(text) {
            patterns[text] = pattern
            return pattern
        }
        nodes.fail(
            node, "`\(text)` is no capability pattern",
            hint: "write a name such as `filesystem.read`, a prefix such as `filesystem.*`, or `*`")
        return nil
    }

    /// The ordered spelling: a list of rules that name their capability.
    private mutating func list(_ node: YAMLNode, _ key: String, locked: Bool) -> [Rule] {
        guard case .sequence(let elements) = node.content else {
            nodes.fail(node, "`\(key)` needs a list of rules, not \(node.kind)")
            return []
        }
        return elements.compactMap { element in
            guard let pairs = nodes.pairs(element, "a rule") else { return nil }
            guard let name = pairs.first(where: { nodes.word($0.key) == "capability" }) else {
                nodes.fail(element, "the rule names no `capability`")
                return nil
            }
            guard let pattern = pattern(name.value) else { return nil }
            return rule(
                element, pairs, pattern, lockedByDefault: locked, known: ["capability"] + Self.conditional)
        }
    }

    /// The map spelling: patterns, each with a tier, conditional rules, or both.
    private mutating func map(_ node: YAMLNode) -> [Rule] {
        guard let pairs = nodes.pairs(node, "`capabilities`") else { return [] }
        var entries: [(specificity: Int, rules: [Rule])] = []
        for (keyNode, value) in pairs {
            guard let pattern = pattern(keyNode) else { continue }
            guard case .mapping(let keys) = value.content else {
                nodes.fail(
                    value, "`\(pattern.text)` needs a map with a `tier`, not \(value.kind)",
                    hint: "write `tier: notify` below it")
                continue
            }
            var rules: [Rule] = []
            if let nested = keys.first(where: { nodes.word($0.key) == "rules" }) {
                rules += nestedRules(nested.value, pattern)
            }
            let rest = keys.filter { nodes.word($0.key) != "rules" }
            if rest.contains(where: { nodes.word($0.key) == "tier" }) || rules.isEmpty {
                if let rule = rule(value, rest, pattern, at: keyNode.location, known: Self.entry) {
                    rules.append(rule)
                }
            } else {
                for (key, _) in rest {
                    guard let text = nodes.word(key) else { continue }
                    if ["reason", "locked", "rate_limit", "sandbox"].contains(text) || Self.terms.contains(text) {
                        nodes.fail(
                            key, "`\(text)` belongs to a tier, and `\(pattern.text)` has only rules",
                            hint: "move it into the rules, or add a `tier`")
                    } else {
                        nodes.unknown(key, text, known: Self.entry, future: Self.futureEntryKeys)
                    }
                }
            }
            entries.append((pattern.specificity, rules))
        }
        // Stable for equal specificity, though two such patterns never cover one capability.
        return entries.enumerated().sorted { ($1.element.specificity, $0.offset) < ($0.element.specificity, $1.offset) }
            .flatMap(\.element.rules)
    }

    private mutating func nestedRules(_ node: YAMLNode, _ pattern: CapabilityPattern) -> [Rule] {
        guard case .sequence(let elements) = node.content, !elements.isEmpty else {
            nodes.fail(node, "`rules` needs a list of rules, not \(node.kind)")
            return []
        }
        return elements.compactMap { element in
            guard let pairs = nodes.pairs(element, "a rule") else { return nil }
            return rule(element, pairs, pattern, known: Self.conditional)
        }
    }

    private mutating func rule(
        _ node: YAMLNode, _ pairs: [(key: YAMLNode, value: YAMLNode)], _ pattern: CapabilityPattern,
        lockedByDefault: Bool = false, at location: SourceLocation? = nil, known: [String]
    ) -> Rule? {
        var tierValue: Tier?
        var sawTier = false
        var reason: String?
        var locked = lockedByDefault
        var rateLimit: RateLimit?
        var sandbox: SandboxSettings?
        var terms = ApprovalTerms()
        var firstTerm: YAMLNode?
        var conditions: [Condition] = []
        var tierLocation = node.location
        for (keyNode, value) in pairs {
            guard let key = nodes.word(keyNode) else { continue }
            guard known.contains(key) else {
                nodes.unknown(keyNode, key, known: known, future: Self.futureEntryKeys)
                continue
            }
            switch key {
            case "tier":
                sawTier = true
                tierValue = nodes.tier(value)
                tierLocation = value.location
            case "rate_limit": rateLimit = self.rateLimit(value)
            case "sandbox": sandbox = nodes.sandbox(value)
            case "reason": reason = nodes.text(value, key)
            case "locked": locked = nodes.flag(value, key) ?? locked
            case "condition", "conditions": conditions += nodes.conditions(value, key)
            case "approvers": terms.approvers = approvers(value)
            case "quorum":
                terms.quorum =
                    nodes.integer(
                        value, key, 1...ApprovalTerms.largestQuorum,
                        "a number of people from 1 to \(ApprovalTerms.largestQuorum)", hint: "such as `quorum: 2`") ?? 1
            case "expires":
                terms.expiresSeconds = nodes.seconds(value, key, atMost: ApprovalTerms.longestSeconds)
            case "remind_after":
                terms.remindAfterSeconds = nodes.seconds(value, key, atMost: ApprovalTerms.longestSeconds)
            default: break
            }
            if Self.terms.contains(key), firstTerm == nil { firstTerm = keyNode }
        }
        if let firstTerm {
            if let tierValue, tierValue != .approvalRequired, rateLimit?.onExceed != .approvalRequired {
                nodes.fail(
                    firstTerm,
                    "`\(nodes.word(firstTerm) ?? "")` says how a question is answered, and this rule asks none",
                    hint: "set `tier: approval_required`")
            }
            let names = terms.approvers.filter { !$0.hasPrefix("role:") }
            if !names.isEmpty, names.count == terms.approvers.count, terms.quorum > Int64(names.count) {
                nodes.fail(
                    firstTerm, "`quorum: \(terms.quorum)` asks more people than `approvers` names",
                    hint: "name more, or lower the quorum")
            }
            if let remind = terms.remindAfterSeconds, let expires = terms.expiresSeconds, remind >= expires {
                nodes.fail(
                    firstTerm, "nobody is reminded before the request expires",
                    hint: "make `remind_after` shorter than `expires`")
            }
        }
        guard let tierValue else {
            if !sawTier { nodes.fail(node, "the rule for `\(pattern.text)` has no `tier`") }
            return nil
        }
        return Rule(
            pattern: pattern, tier: tierValue, conditions: conditions, reason: reason, locked: locked,
            rateLimit: rateLimit, approval: firstTerm == nil ? nil : terms, sandbox: sandbox,
            location: location ?? node.location,
            tierLocation: tierLocation)
    }
}

/// Every error of one or more policy files.
package struct PolicyErrors: Error, Sendable, Equatable, CustomStringConvertible {
    package let diagnostics: [PolicyDiagnostic]
    package init(_ diagnostics: [PolicyDiagnostic]) { self.diagnostics = diagnostics }
    package var description: String { diagnostics.map(\.description).joined(separator: "\n") }
}
