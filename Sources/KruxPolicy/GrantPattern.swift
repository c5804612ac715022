package import KruxCore

/// The calls of one capability that a grant answers for: conditions in the policy's language, all of which must surely
/// hold for every value of a call.
package struct GrantPattern: Sendable {
    package let conditions: [Condition]
    private let compiled: [CompiledCondition]

    /// - Parameters:
    ///   - json: a map of conditions, or a list of such maps, as in a policy's `conditions:`.
    ///   - source: where they were written, for errors.
    /// - Throws: `PolicyErrors` for a condition that is none, or that the capability cannot be judged by.
    package init(_ json: JSONValue, capability: CapabilityDeclaration, catalogue: Catalogue, source: String)
        throws(PolicyErrors)
    {
        let location = SourceLocation(file: source, line: 1, column: 1)
        var reader = NodeReader()
        let conditions = reader.conditions(YAMLNode(json: json, at: location), "conditions")
        try self.init(conditions, reader.mistakes, capability, catalogue)
    }

    /// - Parameter text: YAML on one line, such as `command_prefix: git push`.
    package init(text: String, capability: CapabilityDeclaration, catalogue: Catalogue, source: String)
        throws(PolicyErrors)
    {
        let root: YAMLNode
        var mistakes: [PolicyDiagnostic]
        do throws(PolicyDiagnostic) {
            (root, mistakes) = try YAMLReader.read(Array(text.utf8), file: source)
        } catch {
            throw PolicyErrors([error])
        }
        var reader = NodeReader()
        let conditions = reader.conditions(root, "conditions")
        mistakes += reader.mistakes
        try self.init(conditions, mistakes, capability, catalogue)
    }

    private init(
        _ conditions: [Condition], _ mistakes: [PolicyDiagnostic], _ capability: CapabilityDeclaration,
        _ catalogue: Catalogue
    ) throws(PolicyErrors) {
        var mistakes = mistakes
        let index = catalogue.index(of: capability.name.text)
        let typing = ConditionTyping(catalogue: catalogue, zones: [:])
        for (test, condition) in conditions.flatMap(\.tests) {
            let name = capability.name.text
            if case .argument(let argument, _) = test,
                case .array? = capability.input.properties.first(where: { $0.name.utf8Equals(argument) })?.type
            {
                mistakes.append(
                    PolicyDiagnostic(
                        condition.location, "a grant cannot look into the list `\(argument)`",
                        hint: "use a condition such as `command_prefix`, or a policy rule"))
            } else if let problem = typing.problem(test, condition.key, name, index.map { [$0] } ?? []) {
                mistakes.append(PolicyDiagnostic(condition.location, problem.message, hint: problem.hint))
            }
        }
        if conditions.isEmpty, mistakes.isEmpty {
            mistakes.append(
                PolicyDiagnostic(.nowhere, "a grant without a condition would answer for every call"))
        }
        guard mistakes.isEmpty else { throw PolicyErrors(mistakes) }
        self.conditions = conditions
        var texts = ConditionSources()
        compiled = conditions.map { CompiledCondition($0, zones: [:], texts: &texts) }
    }

    /// As it is stored and shown.
    package var json: JSONValue { .array(conditions.map { .object($0.source) }) }

    /// The conditions on one line.
    package var text: String { conditions.map(\.text).joined(separator: ", ") }

    /// Whether every condition surely holds for every value of the call.
    package func covers(_ facts: CallFacts, _ policy: CompiledPolicy) -> Bool {
        // What a record does not show cannot be judged here.
        guard facts.hidden == nil else { return false }
        var holds = true
        policy.forEachVariant(facts) { facts, variant in
            if holds, policy.truth(all: compiled, facts, variant) != .yes { holds = false }
        }
        return holds
    }

    /// The narrowest conditions that cover a call: its very command lines, paths, addresses, recipients and keys. Nil
    /// when what it does cannot be told, as for a shell text with expansions.
    package static func narrowest(_ facts: CallFacts, _ declaration: CapabilityDeclaration) -> JSONObject? {
        var conditions = JSONObject()
        func set(_ key: String, _ values: [String]) {
            if values.isEmpty { return }
            conditions[key] = values.count == 1 ? .string(values[0]) : .strings(values)
        }
        var lines: [String] = []
        for line in facts.lines {
            guard case .words(let words, _) = line else { return nil }
            lines.append(Pattern.literal(CommandLine.joined(words)))
        }
        set("command_glob", lines)
        set("path_glob", facts.paths.map { Pattern.literal(String(decoding: $0, as: UTF8.self)) })
        if let address = facts.address {
            set("url_prefix", ["\(address.scheme)://\(address.host):\(address.port)\(address.path)"])
        } else {
            set("host", facts.host.map { [$0] } ?? [])
            if let port = facts.port { conditions["port"] = .int(port) }
        }
        if let method = facts.method { set("method", [method]) }
        set("recipient", facts.recipients.map(\.text))
        // The same line does something else elsewhere; and what has no meaning of its own counts by its value.
        let hasMeaning = !conditions.isEmpty
        var values = JSONObject()
        for property in declaration.input.properties {
            guard let value = facts.arguments[property.name] else { continue }
            switch (property.role, value) {
            case (.workingDirectory, _), (.key, _): values[property.name] = value
            case _ where hasMeaning: continue
            case (_, .string), (_, .int), (_, .bool): values[property.name] = value
            default: return nil
            }
        }
        if !values.isEmpty { conditions["arguments"] = .object(values) }
        return conditions.isEmpty ? nil : conditions
    }
}

extension Pattern {
    /// A glob that fits this text only.
    package static func literal(_ text: String) -> String {
        var result = ""
        for scalar in text.unicodeScalars {
            if "*?[{\\".unicodeScalars.contains(scalar) { result.unicodeScalars.append("\\") }
            result.unicodeScalars.append(scalar)
        }
        return result
    }
}
