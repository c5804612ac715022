import KruxCore

/// Reads conditions; the compiled form's, too, so that a condition means one thing wherever it comes from.
extension NodeReader {
    private static let comparisons = Condition.Comparison.allCases.map { "content_size_\($0.rawValue)" }
    static let conditionKeys =
        [
            "path_prefix", "path_not_under", "path_glob", "command", "command_prefix", "command_glob", "args_contain",
            "host", "url_prefix", "method", "port", "recipient", "recipient_domain", "key_prefix", "arguments",
            "time_between", "days", "session", "all", "any", "not",
        ] + comparisons

    /// A map of conditions, or a list of such maps; all must hold.
    mutating func conditions(_ node: YAMLNode, _ key: String) -> [Condition] {
        if case .sequence(let elements) = node.content {
            if elements.isEmpty { fail(node, "`\(key)` holds no condition") }
            return elements.flatMap { conditionMap($0, key) }
        }
        return conditionMap(node, key)
    }

    private mutating func conditionMap(_ node: YAMLNode, _ key: String) -> [Condition] {
        guard let pairs = pairs(node, "`\(key)`") else { return [] }
        if pairs.isEmpty { fail(node, "`\(key)` holds no condition") }
        return pairs.flatMap { keyNode, value in
            guard let key = word(keyNode) else { return [Condition]() }
            return condition(keyNode, key, value)
        }
    }

    private mutating func condition(_ keyNode: YAMLNode, _ key: String, _ value: YAMLNode) -> [Condition] {
        let location = keyNode.location
        func make(_ form: Condition.Form?) -> [Condition] {
            form.map { [Condition(form: $0, location: location, source: JSONObject([(key, value.json)]))] } ?? []
        }
        switch key {
        case "all", "any":
            guard let elements = elements(value, "`\(key)`") else { return [] }
            let parts = elements.compactMap { element -> Condition? in
                let parts = conditionMap(element, key)
                guard parts.count != 1 else { return parts[0] }
                return parts.isEmpty
                    ? nil
                    : Condition(
                        form: .all(parts), location: element.location, source: JSONObject([("all", element.json)]))
            }
            return parts.count == elements.count ? make(key == "all" ? .all(parts) : .any(parts)) : []
        case "not":
            let parts = conditionMap(value, key)
            guard let first = parts.first else { return [] }
            return make(
                .not(
                    parts.count == 1
                        ? first
                        : Condition(form: .all(parts), location: location, source: JSONObject([("all", value.json)]))))
        case "arguments": return arguments(keyNode, value)
        case "session": return session(keyNode, value)
        default: return make(test(keyNode, key, value).map(Condition.Form.test))
        }
    }

    private mutating func test(_ keyNode: YAMLNode, _ key: String, _ value: YAMLNode) -> Condition.Test? {
        switch key {
        case "path_prefix": return each(value, key) { $0.directory($1, key, $2) }.map(Condition.Test.pathPrefix)
        case "path_not_under":
            return each(value, key) { $0.directory($1, key, $2) }.map(Condition.Test.pathNotUnder)
        case "path_glob":
            return each(value, key) { reader, text, node in
                guard text.isAbsolutePath else {
                    reader.fail(
                        node, "`path_glob` needs an absolute path", hint: "such as `/workspace/my-agent/**/*.md`")
                    return nil
                }
                return reader.pattern(text, key, node, .pathGlob)
            }.map(Condition.Test.pathGlob)
        case "command":
            return each(value, key) { reader, text, node in
                if text.contains(where: { $0 == " " || $0 == "\t" || $0 == "\n" }) {
                    reader.fail(
                        node, "`command` is a program's name, and `\(text)` has blanks",
                        hint: "write `command_prefix: \(text)`")
                    return nil
                }
                return text
            }.map(Condition.Test.command)
        case "command_prefix":
            return each(value, key) { reader, text, node in
                guard let segments = ShellText.segments(of: text), segments.count == 1 else {
                    reader.fail(node, "`command_prefix` needs plain words", hint: "such as `git push`")
                    return nil
                }
                return segments[0]
            }.map(Condition.Test.commandPrefix)
        case "command_glob":
            return each(value, key) { $0.pattern($1, key, $2, .textGlob) }.map(Condition.Test.commandGlob)
        case "args_contain": return each(value, key) { _, text, _ in text }.map(Condition.Test.argsContain)
        case "host", "recipient_domain":
            return each(value, key) { $0.host($1, key, $2) }.map {
                key == "host" ? .host($0) : .recipientDomain($0)
            }
        case "url_prefix":
            return each(value, key) { reader, text, node in
                if let address = WebAddress(text), !text.utf8.contains(where: { "?#@".utf8.contains($0) }) {
                    return address
                }
                reader.fail(
                    node, "`url_prefix` needs an absolute URL of plain signs, without user, query or fragment",
                    hint: "such as `https://api.example.com/v1/`")
                return nil
            }.map(Condition.Test.urlPrefix)
        case "method":
            return each(value, key) { reader, text, node in
                if !text.isEmpty, text.utf8.allSatisfy({ (65...90).contains($0) }) { return text }
                reader.fail(node, "`method` needs an HTTP method in capitals", hint: "such as `GET`")
                return nil
            }.map(Condition.Test.method)
        case "port":
            var ports: [Int64] = []
            let nodes: [YAMLNode] = if case .sequence(let elements) = value.content { elements } else { [value] }
            if nodes.isEmpty { fail(value, "`port` holds an empty list") }
            for node in nodes {
                guard let port = integer(node, key, 1...65535, "a number from 1 to 65535") else { return nil }
                ports.append(port)
            }
            return ports.isEmpty ? nil : .port(ports)
        case "recipient":
            return each(value, key) { _, text, _ in CallFacts.Recipient(text).text }.map(Condition.Test.recipient)
        case "key_prefix": return each(value, key) { _, text, _ in text }.map(Condition.Test.keyPrefix)
        case "time_between": return timeBetween(value)
        case "days": return days(value)
        default:
            if key.hasPrefix("content_size_"),
                let comparison = Condition.Comparison(rawValue: String(key.dropFirst("content_size_".count)))
            {
                return integer(
                    value, key, 0...JSONValue.maxInteger, "a number of bytes from 0", hint: "such as `10240`"
                ).map { .contentSize(comparison, $0) }
            }
            unknown(keyNode, key, known: Self.conditionKeys)
            return nil
        }
    }

    /// Every text of `node` made into something; nil when one cannot be.
    private mutating func each<T>(
        _ node: YAMLNode, _ key: String, _ make: (inout NodeReader, String, YAMLNode) -> T?
    ) -> [T]? {
        guard let texts = texts(node, key) else { return nil }
        var result: [T] = []
        for (text, node) in texts {
            guard !text.isEmpty else {
                fail(node, "`\(key)` is empty")
                continue
            }
            if let value = make(&self, text, node) { result.append(value) }
        }
        return result.count == texts.count ? result : nil
    }

    private mutating func directory(_ text: String, _ key: String, _ node: YAMLNode) -> [UInt8]? {
        guard text.isAbsolutePath else {
            fail(node, "`\(key)` needs an absolute path", hint: "such as `/workspace/my-agent/`")
            return nil
        }
        // The usual way to write a folder needs no taking apart.
        let bytes = Array(text.utf8)
        let slash = UInt8(ascii: "/")
        let isPlain = bytes.indices.allSatisfy { index in
            bytes[index] != slash
                || index + 1 < bytes.count && bytes[index + 1] != slash && bytes[index + 1] != UInt8(ascii: ".")
        }
        if isPlain { return bytes }
        let components = text.pathComponents
        if components.contains(where: { $0 == "." || $0 == ".." }) {
            fail(node, "`\(key)` contains `.` or `..`", hint: "write the path without them")
            return nil
        }
        return Array(components.map { "/" + $0 }.joined().utf8)
    }

    private mutating func pattern(_ text: String, _ key: String, _ node: YAMLNode, _ flavour: Pattern.Flavour)
        -> Pattern?
    {
        do throws(Pattern.Malformed) { return try Pattern(text, flavour) } catch {
            fail(node, "`\(key)`: `\(text.prefix(80))` \(error.message)")
            return nil
        }
    }

    private mutating func host(_ text: String, _ key: String, _ node: YAMLNode) -> String? {
        let wild = text.hasPrefix("*.")
        guard let host = WebAddress.host(wild ? String(text.dropFirst(2)) : text) else {
            fail(node, "`\(key)`: `\(text)` is no host name", hint: "such as `api.example.com` or `*.example.com`")
            return nil
        }
        return wild ? "*." + host : host
    }

    // MARK: Circumstances

    private mutating func zone(_ pairs: Pairs, _ node: YAMLNode, _ key: String) -> Condition.Zone? {
        guard let value = pairs.first(where: { word($0.key) == "zone" })?.value else {
            fail(node, "`\(key)` names no `zone`", hint: "add `zone: Europe/Berlin`, or `zone: UTC`")
            return nil
        }
        return text(value, "zone").map { Condition.Zone(name: $0, table: nil) }
    }

    private mutating func keys(_ pairs: Pairs, _ known: [String]) {
        for (key, _) in pairs {
            if let text = word(key), !known.contains(text) { unknown(key, text, known: known) }
        }
    }

    private mutating func timeBetween(_ node: YAMLNode) -> Condition.Test? {
        guard let pairs = pairs(node, "`time_between`") else { return nil }
        keys(pairs, ["from", "to", "zone"])
        var minutes: [String: Int64] = [:]
        for name in ["from", "to"] {
            guard let value = pairs.first(where: { word($0.key) == name })?.value else {
                fail(node, "`time_between` has no `\(name)`", hint: "write `\(name): \"09:00\"`")
                continue
            }
            minutes[name] = minute(value, name)
        }
        let zone = zone(pairs, node, "time_between")
        guard let from = minutes["from"], let until = minutes["to"], let zone else { return nil }
        guard from != until else {
            fail(node, "`time_between` begins when it ends, and is always or never")
            return nil
        }
        return .timeBetween(from: from, until: until, zone)
    }

    /// `09:00`. Unquoted, YAML 1.1 readers may take it for a number in base 60; this one does not.
    private mutating func minute(_ node: YAMLNode, _ key: String) -> Int64? {
        if let text = word(node) {
            let parts = text.split(separator: ":", omittingEmptySubsequences: false)
            if parts.count == 2,
                parts.allSatisfy({ $0.utf8.count == 2 && $0.utf8.allSatisfy { (48...57).contains($0) } }),
                let hour = UInt8(parts[0]),
                let minute = UInt8(parts[1]), hour < 24 && minute < 60 || hour == 24 && minute == 0
            {
                return Int64(hour) * 60 + Int64(minute)
            }
        }
        fail(node, "`\(key)` needs a time of day", hint: "such as `\"09:00\"`")
        return nil
    }

    private mutating func days(_ node: YAMLNode) -> Condition.Test? {
        guard let pairs = pairs(node, "`days`") else { return nil }
        keys(pairs, ["on", "zone"])
        let names = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"]
        var days: UInt8 = 0
        var fine = true
        if let value = pairs.first(where: { word($0.key) == "on" })?.value {
            for (text, node) in texts(value, "on") ?? [] {
                if let index = names.firstIndex(of: text) {
                    days |= 1 << UInt8(index)
                } else {
                    fail(node, "`\(text)` is no day", hint: "use \(names.joined(separator: ", "))")
                    fine = false
                }
            }
        } else {
            fail(node, "`days` has no `on`", hint: "write `on: [mon, tue]`")
        }
        let zone = zone(pairs, node, "days")
        guard let zone, days != 0, fine else { return nil }
        return .days(days, zone)
    }

    private mutating func session(_ keyNode: YAMLNode, _ node: YAMLNode) -> [Condition] {
        guard let pairs = pairs(node, "`session`") else { return [] }
        if pairs.isEmpty { fail(node, "`session` holds no condition") }
        return pairs.compactMap { key, value in
            guard let name = word(key) else { return nil }
            let test: Condition.Test?
            switch name {
            case "label": test = each(value, name) { _, text, _ in text }.map(Condition.Test.sessionLabel)
            case "age_lt": test = seconds(value, name, atMost: 365 * 86_400).map(Condition.Test.sessionAge)
            case "calls_lt":
                test = integer(value, name, 1...JSONValue.maxInteger, "a number from 1").map(
                    Condition.Test.sessionCalls)
            default:
                unknown(key, name, known: ["label", "age_lt", "calls_lt"])
                test = nil
            }
            return test.map {
                Condition(
                    form: .test($0), location: key.location,
                    source: ["session": .object(JSONObject([(name, value.json)]))])
            }
        }
    }

    // MARK: Arguments by name

    private mutating func arguments(_ keyNode: YAMLNode, _ node: YAMLNode) -> [Condition] {
        guard let pairs = pairs(node, "`arguments`") else { return [] }
        if pairs.isEmpty { fail(node, "`arguments` holds no condition") }
        return pairs.flatMap { key, value -> [Condition] in
            guard let name = word(key) else { return [] }
            func condition(_ test: Condition.ArgumentTest?, _ operation: String, _ at: YAMLNode, _ value: YAMLNode)
                -> Condition?
            {
                test.map {
                    Condition(
                        form: .test(.argument(name, $0)), location: at.location,
                        source: [
                            "arguments": .object(JSONObject([(name, .object(JSONObject([(operation, value.json)])))]))
                        ])
                }
            }
            guard case .mapping(let tests) = value.content else {
                // `branch: main` is short for `branch: {equals: main}`.
                return scalars(value, name, many: false).flatMap { condition(.equals($0), "equals", key, value) }.map {
                    [$0]
                }
                    ?? []
            }
            if tests.isEmpty { fail(value, "`\(name)` holds no test") }
            return tests.compactMap { operation, operand in
                guard let word = word(operation) else { return nil }
                return condition(argumentTest(operation, word, operand), word, operation, operand)
            }
        }
    }

    private mutating func argumentTest(_ node: YAMLNode, _ operation: String, _ value: YAMLNode)
        -> Condition.ArgumentTest?
    {
        switch operation {
        case "equals": return scalars(value, operation, many: false).map(Condition.ArgumentTest.equals)
        case "not_equals": return scalars(value, operation, many: false).map(Condition.ArgumentTest.notEquals)
        case "in": return scalars(value, operation, many: true).map(Condition.ArgumentTest.equals)
        case "not_in": return scalars(value, operation, many: true).map(Condition.ArgumentTest.notEquals)
        case "matches":
            return each(value, operation) { $0.pattern($1, operation, $2, .regularExpression) }
                .map(Condition.ArgumentTest.matches)
        case "lt", "lte", "gt", "gte":
            let range = -JSONValue.maxInteger...JSONValue.maxInteger
            guard let comparison = Condition.Comparison(rawValue: operation),
                let bound = integer(value, operation, range, "a whole number")
            else { return nil }
            return .compares(comparison, bound)
        case "exists": return flag(value, operation).map(Condition.ArgumentTest.exists)
        default:
            unknown(
                node, operation,
                known: ["equals", "not_equals", "in", "not_in", "matches", "lt", "lte", "gt", "gte", "exists"])
            return nil
        }
    }

    /// Texts, numbers and booleans: one, or a list.
    private mutating func scalars(_ node: YAMLNode, _ key: String, many: Bool) -> [JSONValue]? {
        var nodes = [node]
        if many {
            guard let elements = elements(node, "`\(key)`") else { return nil }
            nodes = elements
        }
        var values: [JSONValue] = []
        for node in nodes {
            guard case .scalar(let text, let plain) = node.content,
                !(plain && (text.isEmpty || text == "~" || text == "null"))
            else {
                fail(node, "`\(key)` needs a text, a number or a boolean, not \(node.kind)")
                return nil
            }
            values.append(node.json)
        }
        return values
    }
}
