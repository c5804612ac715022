import KruxCore

/// Typed reading of YAML nodes, which collects every mistake with its place and a way out.
struct NodeReader {
    private(set) var mistakes: [PolicyDiagnostic] = []

    init(mistakes: [PolicyDiagnostic] = []) { self.mistakes = mistakes }

    typealias Pairs = [(key: YAMLNode, value: YAMLNode)]

    mutating func fail(_ node: YAMLNode, _ message: String, hint: String? = nil) {
        mistakes.append(PolicyDiagnostic(node.location, message, hint: hint))
    }

    func word(_ node: YAMLNode) -> String? {
        if case .scalar(let text, _) = node.content { return text }
        return nil
    }

    mutating func text(_ node: YAMLNode, _ key: String) -> String? {
        guard case .scalar(let text, let plain) = node.content,
            !(plain && (text.isEmpty || text == "~" || text == "null"))
        else {
            fail(node, "`\(key)` needs a text, not \(node.kind)")
            return nil
        }
        return text
    }

    mutating func flag(_ node: YAMLNode, _ key: String) -> Bool? {
        if case .scalar(let text, true) = node.content {
            if text == "true" { return true }
            if text == "false" { return false }
        }
        fail(node, "`\(key)` needs `true` or `false`")
        return nil
    }

    mutating func integer(
        _ node: YAMLNode, _ key: String, _ range: ClosedRange<Int64>, _ what: String, hint: String? = nil
    ) -> Int64? {
        if case .scalar(let text, true) = node.content, let value = Self.number(text), range.contains(value) {
            return value
        }
        fail(node, "`\(key)` needs \(what)", hint: hint)
        return nil
    }

    /// A number in the one way to write it: `010` is eight to some readers and ten to others.
    static func number(_ text: String) -> Int64? { Int64(text).flatMap { "\($0)".utf8Equals(text) ? $0 : nil } }

    /// Seconds: a number, or `90s`, `15m`, `1h`, `7d`.
    mutating func seconds(_ node: YAMLNode, _ key: String, atMost most: Int64) -> Int64? {
        if case .scalar(let text, _) = node.content, let value = Self.number(text) ?? HumanDuration(text)?.seconds,
            (1...most).contains(value)
        {
            return value
        }
        fail(
            node, "`\(key)` needs seconds or a duration of at most \(HumanDuration.short(most))",
            hint: "such as `3600` or `1h`")
        return nil
    }

    /// One of a few words.
    mutating func choice<T>(_ node: YAMLNode, _ what: String, _ words: [String], _ make: (String) -> T?) -> T? {
        guard let text = text(node, what) else { return nil }
        if let value = make(text) { return value }
        let hint =
            nearest(to: text, among: words).map { "did you mean `\($0)`?" }
            ?? "use one of \(words.joined(separator: ", "))"
        fail(node, "`\(text)` is no \(what)", hint: hint)
        return nil
    }

    mutating func tier(_ node: YAMLNode) -> Tier? {
        choice(node, "tier", Tier.allCases.map(\.name)) { Tier(name: $0) }
    }

    mutating func mode(_ node: YAMLNode) -> Mode? { choice(node, "mode", Mode.names) { Mode(name: $0) } }

    mutating func pairs(_ node: YAMLNode, _ what: String) -> Pairs? {
        guard case .mapping(let pairs) = node.content else {
            fail(node, "\(what) needs a map, not \(node.kind)")
            return nil
        }
        return pairs
    }

    mutating func elements(_ node: YAMLNode, _ what: String) -> [YAMLNode]? {
        guard case .sequence(let elements) = node.content, !elements.isEmpty else {
            fail(node, "\(what) needs a list with something in it, not \(node.kind)")
            return nil
        }
        return elements
    }

    /// A text, or a list of texts; nil once something is wrong.
    mutating func texts(_ node: YAMLNode, _ key: String) -> [(text: String, node: YAMLNode)]? {
        guard case .sequence(let elements) = node.content else {
            return text(node, key).map { [($0, node)] }
        }
        if elements.isEmpty { fail(node, "`\(key)` holds an empty list", hint: "write what it should fit") }
        let texts = elements.compactMap { element in text(element, key).map { ($0, element) } }
        return texts.count == elements.count && !texts.isEmpty ? texts : nil
    }

    mutating func unknown(_ node: YAMLNode, _ key: String, known: [String], future: Set<String> = []) {
        if future.contains(key) {
            fail(node, "`\(key)` is not supported by this version of KruxOS", hint: "remove it: a key is never ignored")
            return
        }
        // The first few say enough: a hostile file holds many.
        let hint =
            (mistakes.count < 20 ? nearest(to: key, among: known).map { "did you mean `\($0)`?" } : nil)
            ?? "known here: \(known.joined(separator: ", "))"
        fail(node, "unknown key `\(key)`", hint: hint)
    }
}

extension YAMLNode {
    /// The node as JSON: plain numbers, `true` and `false` are what they say, everything else is text.
    var json: JSONValue {
        switch content {
        case .scalar(let text, let plain):
            guard plain else { return .string(text) }
            if text == "true" { return true }
            if text == "false" { return false }
            if let number = NodeReader.number(text), number.magnitude <= JSONValue.maxInteger.magnitude {
                return .int(number)
            }
            return .string(text)
        case .sequence(let elements): return .array(elements.map(\.json))
        case .mapping(let pairs):
            return .object(
                JSONObject(
                    pairs.map { pair in
                        if case .scalar(let key, _) = pair.key.content { return (key, pair.value.json) }
                        return ("", pair.value.json)
                    }))
        }
    }

    /// A node that reads as this JSON does, every part of it at one place.
    convenience init(json: JSONValue, at location: SourceLocation) {
        let content: Content
        switch json {
        case .string(let text): content = .scalar(text, plain: false)
        case .int(let number): content = .scalar("\(number)", plain: true)
        case .bool(let flag):
            content = .scalar(flag ? "true" : "false", plain: true)
        case .double(let number): content = .scalar("\(number)", plain: true)
        case .null: content = .scalar("", plain: true)
        case .array(let elements): content = .sequence(elements.map { YAMLNode(json: $0, at: location) })
        case .object(let object):
            content = .mapping(
                object.members.map {
                    (
                        YAMLNode(location, .scalar($0.key, plain: false), size: 1),
                        YAMLNode(json: $0.value, at: location)
                    )
                })
        }
        self.init(location, content, size: 1)
    }
}
