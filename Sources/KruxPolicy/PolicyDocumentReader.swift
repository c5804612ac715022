import KruxCore

/// Reads a YAML text into a `PolicyDocument`, collecting every error rather than stopping at the first.
package struct PolicyDocumentReader {
    private let file: String
    private var errors: [PolicyDiagnostic] = []

    /// - Parameters:
    ///   - bytes: the file's text, UTF-8 YAML.
    ///   - file: the name shown in errors and decisions, such as `team-moderate.yaml`.
    /// - Returns: the document, or all of its errors in file order.
    package static func read(_ bytes: [UInt8], file: String) -> Result<PolicyDocument, PolicyErrors> {
        let root: YAMLNode
        do throws(PolicyDiagnostic) { root = try YAMLReader.read(bytes, file: file) } catch {
            return .failure(PolicyErrors([error]))
        }
        var reader = PolicyDocumentReader(file: file)
        let document = reader.document(root)
        if let document, reader.errors.isEmpty { return .success(document) }
        return .failure(PolicyErrors(reader.errors.sorted { $0.location < $1.location }))
    }

    private init(file: String) { self.file = file }

    private static let topKeys = [
        "name", "version", "description", "agent", "extends", "defaults", "agent_overrides", "rules", "overrides",
        "capabilities",
    ]
    private static let futureTopKeys: Set<String> = ["mode", "role", "roles", "grants", "notifiers", "sandbox"]
    private static let entryKeys = ["tier", "reason", "locked", "rules", "condition", "conditions", "capability"]
    private static let futureEntryKeys: Set<String> = [
        "rate_limit", "approvers", "quorum", "expires", "remind_after", "sandbox", "undo_for", "segments",
    ]

    private mutating func fail(_ node: YAMLNode, _ message: String, hint: String? = nil) {
        errors.append(PolicyDiagnostic(node.location, message, hint: hint))
    }

    private mutating func document(_ root: YAMLNode) -> PolicyDocument? {
        guard case .mapping(let pairs) = root.content else {
            fail(root, "a policy is a map, not \(root.kind)", hint: "start with `name:` and `capabilities:`")
            return nil
        }
        var stem = file.split(separator: "/").last.map(String.init) ?? file
        if let dot = stem.lastIndex(of: "."), dot != stem.startIndex { stem = String(stem[..<dot]) }
        var document = PolicyDocument(name: stem, file: file)
        var rules: [Rule] = []
        for (keyNode, value) in pairs {
            guard let key = word(keyNode) else { continue }
            switch key {
            case "name": if let text = text(value, key) { document.name = text }
            case "version": document.version = text(value, key)
            case "description": document.description = text(value, key)
            case "agent":
                if let text = text(value, key) {
                    if AgentName(text) == nil {
                        fail(value, "`\(text)` is no agent name", hint: AgentName.rule)
                    }
                    document.agent = .init(value: text, location: keyNode.location)
                }
            case "extends":
                if let text = text(value, key) {
                    document.extends = .init(value: text, location: value.location)
                }
            case "defaults": document.defaults = defaults(value)
            case "agent_overrides":
                if let text = text(value, key) {
                    if let choice = PolicyDocument.AgentOverrides(rawValue: text) {
                        document.agentOverrides = .init(value: choice, location: keyNode.location)
                    } else {
                        fail(
                            value, "`\(text)` is no value of `agent_overrides`",
                            hint: "use `tighten_only` or `within_system`")
                    }
                }
            case "rules": rules += list(value, key, locked: false)
            case "overrides": document.list += list(value, key, locked: true)
            case "capabilities": document.map = map(value)
            default: unknown(keyNode, key, known: Self.topKeys, future: Self.futureTopKeys)
            }
        }
        document.list += rules
        return document
    }

    private func word(_ node: YAMLNode) -> String? {
        if case .scalar(let text, _) = node.content { return text }
        return nil
    }

    private mutating func text(_ node: YAMLNode, _ key: String) -> String? {
        guard case .scalar(let text, let plain) = node.content,
            !(plain && (text.isEmpty || text == "~" || text == "null"))
        else {
            fail(node, "`\(key)` needs a text, not \(node.kind)")
            return nil
        }
        return text
    }

    private mutating func flag(_ node: YAMLNode, _ key: String) -> Bool? {
        if case .scalar(let text, true) = node.content {
            if text == "true" { return true }
            if text == "false" { return false }
        }
        fail(node, "`\(key)` needs `true` or `false`")
        return nil
    }

    private mutating func tier(_ node: YAMLNode) -> Tier? {
        guard let text = text(node, "tier") else { return nil }
        if let tier = Tier(name: text) { return tier }
        let names = Tier.allCases.map(\.name)
        let hint =
            nearest(to: text, among: names).map { "did you mean `\($0)`?" }
            ?? "use one of \(names.joined(separator: ", "))"
        fail(node, "`\(text)` is no tier", hint: hint)
        return nil
    }

    private mutating func unknown(_ node: YAMLNode, _ key: String, known: [String], future: Set<String>) {
        if future.contains(key) {
            fail(node, "`\(key)` is not supported by this version of KruxOS", hint: "remove it: a key is never ignored")
            return
        }
        let hint =
            nearest(to: key, among: known).map { "did you mean `\($0)`?" }
            ?? "known here: \(known.joined(separator: ", "))"
        fail(node, "unknown key `\(key)`", hint: hint)
    }

    private mutating func pairs(_ node: YAMLNode, _ what: String) -> [(key: YAMLNode, value: YAMLNode)]? {
        guard case .mapping(let pairs) = node.content else {
            fail(node, "\(what) needs a map, not \(node.kind)")
            return nil
        }
        return pairs
    }

    private mutating func defaults(_ node: YAMLNode) -> PolicyDocument.Default? {
        guard let pairs = pairs(node, "`defaults`") else { return nil }
        var result: Tier?
        var locked = false
        for (keyNode, value) in pairs {
            guard let key = word(keyNode) else { continue }
            switch key {
            case "tier": result = tier(value)
            case "locked": locked = flag(value, key) ?? false
            default: unknown(keyNode, key, known: ["tier", "locked"], future: ["mode"])
            }
        }
        if result == nil, !pairs.contains(where: { word($0.key) == "tier" }) { fail(node, "`defaults` needs a `tier`") }
        return result.map { PolicyDocument.Default(tier: $0, locked: locked, location: node.location) }
    }

    private mutating func pattern(_ node: YAMLNode) -> CapabilityPattern? {
        guard let text = text(node, "capability") else { return nil }
        if let pattern = CapabilityPattern(text) { return pattern }
        fail(
            node, "`\(text)` is no capability pattern",
            hint: "write a name such as `filesystem.read`, a prefix such as `filesystem.*`, or `*`")
        return nil
    }

    /// The ordered spelling: a list of rules that name their capability.
    private mutating func list(_ node: YAMLNode, _ key: String, locked: Bool) -> [Rule] {
        guard case .sequence(let elements) = node.content else {
            fail(node, "`\(key)` needs a list of rules, not \(node.kind)")
            return []
        }
        return elements.compactMap { element in
            guard let pairs = pairs(element, "a rule") else { return nil }
            guard let name = pairs.first(where: { word($0.key) == "capability" }) else {
                fail(element, "the rule names no `capability`")
                return nil
            }
            guard let pattern = pattern(name.value) else { return nil }
            return rule(
                element, pairs, pattern, lockedByDefault: locked, known: Self.entryKeys.filter { $0 != "rules" })
        }
    }

    /// The map spelling: patterns, each with a tier, conditional rules, or both.
    private mutating func map(_ node: YAMLNode) -> [Rule] {
        guard let pairs = pairs(node, "`capabilities`") else { return [] }
        var entries: [(specificity: Int, rules: [Rule])] = []
        for (keyNode, value) in pairs {
            guard let pattern = pattern(keyNode) else { continue }
            guard case .mapping(let keys) = value.content else {
                fail(
                    value, "`\(pattern.text)` needs a map with a `tier`, not \(value.kind)",
                    hint: "write `tier: notify` below it")
                continue
            }
            var rules: [Rule] = []
            if let nested = keys.first(where: { word($0.key) == "rules" }) {
                rules += nestedRules(nested.value, pattern)
            }
            let rest = keys.filter { word($0.key) != "rules" }
            if rest.contains(where: { word($0.key) == "tier" }) || rules.isEmpty {
                if let rule = rule(
                    value, rest, pattern, at: keyNode.location, known: ["tier", "reason", "locked", "rules"])
                {
                    rules.append(rule)
                }
            } else {
                for (key, _) in rest {
                    guard let text = word(key) else { continue }
                    if text == "reason" || text == "locked" {
                        fail(
                            key, "`\(text)` belongs to a tier, and `\(pattern.text)` has only rules",
                            hint: "move it into the rules, or add a `tier`")
                    } else {
                        unknown(key, text, known: ["tier", "reason", "locked", "rules"], future: Self.futureEntryKeys)
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
            fail(node, "`rules` needs a list of rules, not \(node.kind)")
            return []
        }
        return elements.compactMap { element in
            guard let pairs = pairs(element, "a rule") else { return nil }
            return rule(element, pairs, pattern, known: ["condition", "conditions", "tier", "reason", "locked"])
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
        var conditions: [Condition] = []
        for (keyNode, value) in pairs {
            guard let key = word(keyNode) else { continue }
            guard known.contains(key) else {
                unknown(keyNode, key, known: known, future: Self.futureEntryKeys)
                continue
            }
            switch key {
            case "tier":
                sawTier = true
                tierValue = tier(value)
            case "reason": reason = text(value, key)
            case "locked": locked = flag(value, key) ?? locked
            case "condition", "conditions": conditions += self.conditions(value, key)
            default: break
            }
        }
        guard let tierValue else {
            if !sawTier { fail(node, "the rule for `\(pattern.text)` has no `tier`") }
            return nil
        }
        return Rule(
            pattern: pattern, tier: tierValue, conditions: conditions, reason: reason, locked: locked,
            location: location ?? node.location)
    }

    /// A map of conditions, or a list of such maps; all must hold.
    private mutating func conditions(_ node: YAMLNode, _ key: String) -> [Condition] {
        if case .sequence(let elements) = node.content {
            return elements.flatMap { conditions($0, key) }
        }
        guard let pairs = pairs(node, "`\(key)`") else { return [] }
        if pairs.isEmpty { fail(node, "`\(key)` holds no condition") }
        return pairs.compactMap { keyNode, value in
            guard let key = word(keyNode) else { return nil }
            if key == "path_prefix" {
                return prefix(value).map { Condition(test: .pathPrefix($0), location: keyNode.location) }
            }
            if key.hasPrefix("content_size_"),
                let comparison = Condition.Comparison(rawValue: String(key.dropFirst("content_size_".count)))
            {
                return size(value, key).map {
                    Condition(test: .contentSize(comparison, $0), location: keyNode.location)
                }
            }
            unknown(keyNode, key, known: Condition.keys, future: Condition.futureKeys)
            return nil
        }
    }

    private mutating func prefix(_ node: YAMLNode) -> String? {
        guard let text = text(node, "path_prefix") else { return nil }
        guard text.isAbsolutePath else {
            fail(node, "`path_prefix` needs an absolute path", hint: "such as `/workspace/my-agent/`")
            return nil
        }
        let components = text.pathComponents
        if components.contains(where: { $0 == "." || $0 == ".." }) {
            fail(node, "`path_prefix` contains `.` or `..`", hint: "write the path without them")
            return nil
        }
        return components.map { "/" + $0 }.joined()
    }

    private mutating func size(_ node: YAMLNode, _ key: String) -> Int64? {
        if case .scalar(let text, true) = node.content, let value = Int64(text), value >= 0,
            value <= JSONValue.maxInteger
        {
            return value
        }
        fail(node, "`\(key)` needs a number of bytes from 0", hint: "such as `10240`")
        return nil
    }
}

/// Every error of one or more policy files.
package struct PolicyErrors: Error, Sendable, Equatable, CustomStringConvertible {
    package let diagnostics: [PolicyDiagnostic]
    package init(_ diagnostics: [PolicyDiagnostic]) { self.diagnostics = diagnostics }
    package var description: String { diagnostics.map(\.description).joined(separator: "\n") }
}
