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
    package var text: String { Self.text(json) }

    /// Conditions as they are stored, on one line: `command_glob: make test, cwd: /workspace/coder`.
    package static func text(_ json: JSONValue) -> String {
        let members = (json.array ?? []).compactMap { $0.object?.members.first }
        // What it does first, then under which circumstances.
        let ordered = members.filter { $0.key != "arguments" } + members.filter { $0.key == "arguments" }
        return ordered.map { member in
            guard member.key == "arguments", let argument = member.value.object?.members.first,
                let test = argument.value.object?.members.first
            else { return "\(member.key): \(member.value.string ?? member.value.canonicalText)" }
            let value = test.value.string ?? test.value.canonicalText
            switch test.key {
            case "equals": return "\(argument.key): \(value)"
            case "exists": return "\(test.value.bool == true ? "with" : "without") \(argument.key)"
            default: return "\(argument.key) \(test.key) \(value)"
            }
        }.joined(separator: ", ")
    }

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

    /// The narrowest conditions that cover a call: its very command line, paths, addresses, recipients and keys, with the
    /// folder it runs in and the switches it sets. A shell's text is taken as a whole, as its commands do something else
    /// in another order or folder. Nil when no conditions are as narrow as that.
    package static func narrowest(_ facts: CallFacts, _ declaration: CapabilityDeclaration) -> JSONObject? {
        var conditions = JSONObject()
        func set(_ key: String, _ values: [String]) {
            if values.isEmpty { return }
            conditions[key] = values.count == 1 ? .string(values[0]) : .strings(values)
        }
        var values = JSONObject()
        for property in declaration.input.properties {
            guard case .command(_, let shell, let environment) = property.role else { continue }
            // Variables are part of what is run.
            if facts.arguments[environment] != nil { return nil }
            values[environment] = ["exists": false]
            if facts.arguments[shell]?.bool == true {
                values[property.name] = facts.arguments[property.name]
            } else if facts.lines.count == 1, case .words(let words, _) = facts.lines[0] {
                set("command_glob", [Pattern.literal(CommandLine.joined(words))])
            } else {
                return nil
            }
        }
        let paths = facts.paths.map { String(decoding: $0, as: UTF8.self) }
        if facts.reachesBelow { set("path_prefix", paths) } else { set("path_glob", paths.map(Pattern.literal)) }
        if let address = facts.address {
            set("url_prefix", ["\(address.scheme)://\(address.host):\(address.port)\(address.path)"])
        } else {
            set("host", facts.host.map { [$0] } ?? [])
            if let port = facts.port { conditions["port"] = .int(port) }
        }
        if let method = facts.method { set("method", [method]) }
        set("recipient", facts.recipients.map(\.text))
        let hasMeaning = !conditions.isEmpty || !values.isEmpty
        for property in declaration.input.properties where values[property.name] == nil {
            guard let value = facts.arguments[property.name] else { continue }
            switch (property.role, value) {
            case (.workingDirectory, _), (.key, _): values[property.name] = value
            // Switches: whether it overwrites, goes into folders, gives a line to a shell.
            case (nil, .bool): values[property.name] = value
            case _ where hasMeaning: continue
            case (_, .string), (_, .int): values[property.name] = value
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
