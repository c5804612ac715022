import CYaml
import KruxCore

/// Where in a policy file something stands; line and column count from 1.
package struct SourceLocation: Sendable, Hashable, Comparable, CustomStringConvertible {
    package let file: String
    package let line: Int
    package let column: Int

    package init(file: String, line: Int, column: Int) {
        self.file = file
        self.line = line
        self.column = column
    }

    package var description: String { "\(file):\(line):\(column)" }
    package static func < (a: SourceLocation, b: SourceLocation) -> Bool {
        (a.file, a.line, a.column) < (b.file, b.line, b.column)
    }
}

/// Something wrong or doubtful in a policy file, with the place and a way out.
package struct PolicyDiagnostic: Error, Sendable, Equatable, CustomStringConvertible {
    package let location: SourceLocation
    package let message: String
    package let hint: String?

    package init(_ location: SourceLocation, _ message: String, hint: String? = nil) {
        self.location = location
        self.message = message
        self.hint = hint
    }

    package var description: String {
        // What stands in no file has no place to name.
        (location == .nowhere ? "" : "\(location): ") + message + (hint.map { "; \($0)" } ?? "")
    }
}

/// A YAML document as libyaml's events give it, a mark on every node. Nothing is typed yet: `true` is still text.
final class YAMLNode {
    enum Content {
        case scalar(String, plain: Bool)
        case sequence([YAMLNode])
        case mapping([(key: YAMLNode, value: YAMLNode)])
    }

    let location: SourceLocation
    let content: Content
    /// Nodes below and including this one, aliases counted each time: the bound on expansion.
    let size: Int

    init(_ location: SourceLocation, _ content: Content, size: Int) {
        self.location = location
        self.content = content
        self.size = size
    }

    /// The text of a scalar.
    var word: String { if case .scalar(let text, _) = content { text } else { "" } }

    /// What the node is, for error messages.
    var kind: String {
        switch content {
        case .scalar(let text, true) where text.isEmpty: "nothing"
        case .scalar: "a scalar"
        case .sequence: "a list"
        case .mapping: "a map"
        }
    }
}

/// Reads one YAML 1.1 document (libyaml), refusing what makes one text read differently by two readers or cost more
/// than its length: duplicate keys, tags, several documents, unbounded aliases, deep nesting, anything but UTF-8.
struct YAMLReader {
    static let maxBytes = 1 << 20
    static let maxDepth = 64
    static let maxNodes = 200_000

    private var parser = yaml_parser_t()
    private let file: String
    private var anchors: [String: YAMLNode] = [:]
    /// Mistakes after which reading goes on, so that all are reported at once.
    private var mistakes: [PolicyDiagnostic] = []

    /// - Returns: the document, and the mistakes in it that do not keep it from being read further.
    /// - Throws: the first mistake after which nothing more can be said.
    static func read(
        _ bytes: [UInt8], file: String
    ) throws(PolicyDiagnostic) -> (root: YAMLNode, mistakes: [PolicyDiagnostic]) {
        let start = SourceLocation(file: file, line: 1, column: 1)
        guard bytes.count <= maxBytes else {
            throw PolicyDiagnostic(start, "the file has \(bytes.count) bytes, at most \(maxBytes) are read")
        }
        guard let text = String(validating: bytes, as: UTF8.self) else {
            let line = validPrefixLine(bytes)
            throw PolicyDiagnostic(
                SourceLocation(file: file, line: line, column: 1), "not valid UTF-8", hint: "save the file as UTF-8")
        }
        if text.utf8.contains(0) { throw PolicyDiagnostic(start, "the file contains a NUL byte") }
        var reader = YAMLReader(file: file)
        guard yaml_parser_initialize(&reader.parser) == 1 else {
            throw PolicyDiagnostic(start, "libyaml has no memory")
        }
        defer { yaml_parser_delete(&reader.parser) }
        typealias Outcome = Result<(root: YAMLNode, mistakes: [PolicyDiagnostic]), PolicyDiagnostic>
        let result: Outcome = bytes.withUnsafeBufferPointer { buffer in
            yaml_parser_set_encoding(&reader.parser, YAML_UTF8_ENCODING)
            yaml_parser_set_input_string(&reader.parser, buffer.baseAddress, buffer.count)
            do throws(PolicyDiagnostic) {
                let root = try reader.document()
                return .success((root, reader.mistakes))
            } catch {
                return .failure(error)
            }
        }
        return try result.get()
    }

    private init(file: String) { self.file = file }

    /// The line of the first byte that is not UTF-8.
    private static func validPrefixLine(_ bytes: [UInt8]) -> Int {
        var line = 1
        for part in bytes.split(separator: 0x0A, omittingEmptySubsequences: false) {
            if String(validating: part, as: UTF8.self) == nil { return line }
            line += 1
        }
        return 1
    }

    private func location(_ mark: yaml_mark_t) -> SourceLocation {
        SourceLocation(file: file, line: mark.line + 1, column: mark.column + 1)
    }

    private mutating func next() throws(PolicyDiagnostic) -> yaml_event_t {
        var event = yaml_event_t()
        guard yaml_parser_parse(&parser, &event) == 1 else {
            let problem = parser.problem.map { String(cString: $0) } ?? "cannot be read"
            throw PolicyDiagnostic(location(parser.problem_mark), "not valid YAML: \(problem)")
        }
        return event
    }

    private mutating func document() throws(PolicyDiagnostic) -> YAMLNode {
        while true {
            var event = try next()
            defer { yaml_event_delete(&event) }
            switch event.type {
            case YAML_STREAM_START_EVENT, YAML_DOCUMENT_START_EVENT: continue
            case YAML_STREAM_END_EVENT, YAML_DOCUMENT_END_EVENT:
                throw PolicyDiagnostic(
                    SourceLocation(file: file, line: 1, column: 1), "the file holds no policy",
                    hint: "start with `name:` and `capabilities:`")
            default:
                let root = try node(from: event, depth: 0)
                try expectEnd()
                return root
            }
        }
    }

    private mutating func expectEnd() throws(PolicyDiagnostic) {
        while true {
            var event = try next()
            defer { yaml_event_delete(&event) }
            if event.type == YAML_STREAM_END_EVENT { return }
            if event.type != YAML_DOCUMENT_END_EVENT {
                throw PolicyDiagnostic(
                    location(event.start_mark), "a second document starts here", hint: "put it in a file of its own")
            }
        }
    }

    private mutating func node(from event: yaml_event_t, depth: Int) throws(PolicyDiagnostic) -> YAMLNode {
        let at = location(event.start_mark)
        if depth > Self.maxDepth { throw PolicyDiagnostic(at, "nested deeper than \(Self.maxDepth)") }
        switch event.type {
        case YAML_SCALAR_EVENT:
            let scalar = event.data.scalar
            refuseTag(scalar.tag, at)
            let text = String(
                decoding: UnsafeBufferPointer(start: scalar.value, count: scalar.length), as: UTF8.self)
            return keep(
                YAMLNode(at, .scalar(text, plain: scalar.style == YAML_PLAIN_SCALAR_STYLE), size: 1), scalar.anchor)
        case YAML_SEQUENCE_START_EVENT:
            refuseTag(event.data.sequence_start.tag, at)
            var elements: [YAMLNode] = []
            var size = 1
            while true {
                var child = try next()
                defer { yaml_event_delete(&child) }
                if child.type == YAML_SEQUENCE_END_EVENT { break }
                let element = try node(from: child, depth: depth + 1)
                size += element.size
                try bound(size, element.location)
                elements.append(element)
            }
            return keep(YAMLNode(at, .sequence(elements), size: size), event.data.sequence_start.anchor)
        case YAML_MAPPING_START_EVENT:
            refuseTag(event.data.mapping_start.tag, at)
            return keep(try mapping(at, depth: depth), event.data.mapping_start.anchor)
        case YAML_ALIAS_EVENT:
            let name = String(cString: event.data.alias.anchor)
            guard let target = anchors[name] else { throw PolicyDiagnostic(at, "no anchor `&\(name)` stands above") }
            return target
        default: throw PolicyDiagnostic(at, "unexpected YAML event")
        }
    }

    private mutating func mapping(_ at: SourceLocation, depth: Int) throws(PolicyDiagnostic) -> YAMLNode {
        var pairs: [(key: YAMLNode, value: YAMLNode)] = []
        var seen: [[UInt8]: SourceLocation] = [:]
        var size = 1
        while true {
            var keyEvent = try next()
            defer { yaml_event_delete(&keyEvent) }
            if keyEvent.type == YAML_MAPPING_END_EVENT { break }
            let key = try node(from: keyEvent, depth: depth + 1)
            var fine = true
            if case .scalar(let text, _) = key.content {
                if let first = Self.first(text, in: pairs, &seen) {
                    mistakes.append(
                        PolicyDiagnostic(
                            key.location, "the key `\(text)` occurs twice",
                            hint: "it stands at line \(first.line) already"))
                    fine = false
                }
            } else {
                mistakes.append(PolicyDiagnostic(key.location, "a key must be a word, not \(key.kind)"))
                fine = false
            }
            var valueEvent = try next()
            defer { yaml_event_delete(&valueEvent) }
            let value = try node(from: valueEvent, depth: depth + 1)
            size += 1 + value.size
            try bound(size, key.location)
            if fine { pairs.append((key, value)) }
        }
        return YAMLNode(at, .mapping(pairs), size: size)
    }

    /// Where a key stands already. Few keys are compared one by one, many are looked up.
    private static func first(
        _ key: String, in pairs: [(key: YAMLNode, value: YAMLNode)], _ seen: inout [[UInt8]: SourceLocation]
    ) -> SourceLocation? {
        if pairs.count < 16 { return pairs.first { $0.key.word.utf8Equals(key) }?.key.location }
        if seen.count < pairs.count {
            for pair in pairs[seen.count...] { seen[Array(pair.key.word.utf8)] = pair.key.location }
        }
        return seen[Array(key.utf8)]
    }

    private func bound(_ size: Int, _ at: SourceLocation) throws(PolicyDiagnostic) {
        if size > Self.maxNodes {
            throw PolicyDiagnostic(at, "more than \(Self.maxNodes) nodes once aliases are followed")
        }
    }

    private mutating func refuseTag(_ tag: UnsafeMutablePointer<yaml_char_t>?, _ at: SourceLocation) {
        guard let tag else { return }
        mistakes.append(
            PolicyDiagnostic(at, "the tag `\(String(cString: tag))` is not used in policies", hint: "leave it out"))
    }

    private mutating func keep(_ node: YAMLNode, _ anchor: UnsafeMutablePointer<yaml_char_t>?) -> YAMLNode {
        if let anchor { anchors[String(cString: anchor)] = node }
        return node
    }
}

/// The library that reads YAML.
package enum YAMLLibrary {
    package static var version: String { String(cString: yaml_get_version_string()) }
}
