/// A JSON value as the gate reads, decides on and records it.
///
/// Foundation's JSON types are not used for what crosses the gate: they accept duplicate keys (two readers of one text
/// may then see two different calls), lose the difference between `1` and `1.0`, and compare strings by canonical
/// equivalence. Here keys are compared byte for byte and kept in RFC 8785 order, so writing needs no sort.
package enum JSONValue: Sendable {
    case null
    case bool(Bool)
    /// An integer within ±(2⁵³−1), the range RFC 8785 and JavaScript agree on.
    case int(Int64)
    /// Any other number.
    case double(Double)
    case string(String)
    case array([JSONValue])
    case object(JSONObject)

    /// The largest integer that every JSON reader holds exactly: 2⁵³−1.
    package static let maxInteger: Int64 = 9_007_199_254_740_991
}

/// Members ordered by the UTF-16 code units of their keys (RFC 8785 §3.2.3); a key occurs once.
package struct JSONObject: Sendable, Equatable {
    package struct Member: Sendable, Equatable {
        package let key: String
        package var value: JSONValue

        package static func == (a: Member, b: Member) -> Bool { a.key.utf8Equals(b.key) && a.value == b.value }
    }

    package private(set) var members: [Member]

    package init() { members = [] }

    /// Sorts `members`; of two equal keys the later one stays.
    package init(_ members: [(String, JSONValue)]) {
        self.init()
        self.members.reserveCapacity(members.count)
        for (key, value) in members { self[key] = value }
    }

    /// Members in any order; the second of two equal keys is returned as the failure. O(n log n).
    static func of(_ members: [Member]) -> Result<JSONObject, DuplicateKey> {
        var object = JSONObject()
        // Canonical input is in order already.
        let ordered = zip(members, members.dropFirst()).allSatisfy { $0.key.precedesInUTF16($1.key) }
        object.members = ordered ? members : members.sorted { $0.key.precedesInUTF16($1.key) }
        if !ordered {
            for (a, b) in zip(object.members, object.members.dropFirst()) where a.key.utf8Equals(b.key) {
                return .failure(DuplicateKey(key: b.key))
            }
        }
        return .success(object)
    }

    struct DuplicateKey: Error {
        let key: String
    }

    package subscript(key: String) -> JSONValue? {
        get {
            // Linear below eight members: comparing short keys costs less than the branches of a search.
            if members.count < 8 {
                for member in members where member.key.utf8Equals(key) { return member.value }
                return nil
            }
            let (index, found) = position(of: key)
            return found ? members[index].value : nil
        }
        set {
            let (index, found) = position(of: key)
            switch (newValue, found) {
            case (let value?, true): members[index].value = value
            case (let value?, false): members.insert(Member(key: key, value: value), at: index)
            case (nil, true): members.remove(at: index)
            case (nil, false): break
            }
        }
    }

    package var isEmpty: Bool { members.isEmpty }
    package var count: Int { members.count }
    package var keys: [String] { members.map(\.key) }

    private func position(of key: String) -> (index: Int, found: Bool) {
        var low = 0
        var high = members.count
        while low < high {
            let middle = (low + high) / 2
            if members[middle].key.precedesInUTF16(key) { low = middle + 1 } else { high = middle }
        }
        return (low, low < members.count && members[low].key.utf8Equals(key))
    }
}

extension JSONValue: Equatable {
    /// Strings by bytes: two that only look alike are two, as they are to the file system.
    package static func == (a: JSONValue, b: JSONValue) -> Bool {
        switch (a, b) {
        case (.null, .null): true
        case (.bool(let x), .bool(let y)): x == y
        case (.int(let x), .int(let y)): x == y
        case (.double(let x), .double(let y)): x == y
        case (.string(let x), .string(let y)): x.utf8Equals(y)
        case (.array(let x), .array(let y)): x == y
        case (.object(let x), .object(let y)): x == y
        default: false
        }
    }
}

extension String {
    /// The parts between slashes, empty ones left out. Bytes, because a slash beside a combining mark is no
    /// `Character` of its own, and the kernel knows nothing of characters.
    package var pathComponents: [String] {
        utf8.split(separator: UInt8(ascii: "/"), omittingEmptySubsequences: true).map { String(Substring($0)) }
    }

    /// Whether the first byte is a slash.
    package var isAbsolutePath: Bool { utf8.first == UInt8(ascii: "/") }

    /// Byte equality. Swift's `==` is canonical equivalence, under which the Kelvin sign equals `K`: two names that a
    /// file system and every other JSON reader keep apart.
    package func utf8Equals(_ other: String) -> Bool {
        utf8.count == other.utf8.count && utf8.elementsEqual(other.utf8)
    }

    /// The order of UTF-16 code units, read from the UTF-8: both orders agree unless one side is above U+FFFF.
    func precedesInUTF16(_ other: String) -> Bool {
        var a = utf8.makeIterator()
        var b = other.utf8.makeIterator()
        while true {
            switch (a.next(), b.next()) {
            case (nil, nil), (_?, nil): return false
            case (nil, _?): return true
            case (let x?, let y?) where x != y:
                if x < 0xEE || y < 0xEE { return x < y }
                return utf16.lexicographicallyPrecedes(other.utf16)
            default: continue
            }
        }
    }
}

extension JSONValue: ExpressibleByStringLiteral, ExpressibleByIntegerLiteral, ExpressibleByBooleanLiteral,
    ExpressibleByArrayLiteral, ExpressibleByDictionaryLiteral, ExpressibleByNilLiteral
{
    package init(stringLiteral value: String) { self = .string(value) }
    package init(integerLiteral value: Int64) { self = .int(value) }
    package init(booleanLiteral value: Bool) { self = .bool(value) }
    package init(arrayLiteral elements: JSONValue...) { self = .array(elements) }
    package init(dictionaryLiteral elements: (String, JSONValue)...) { self = .object(JSONObject(elements)) }
    package init(nilLiteral: ()) { self = .null }
}

extension JSONObject: ExpressibleByDictionaryLiteral {
    package init(dictionaryLiteral elements: (String, JSONValue)...) { self.init(elements) }
}

extension JSONValue {
    package static func strings(_ values: [String]) -> JSONValue { .array(values.map(JSONValue.string)) }

    /// The string, or null for nil.
    package static func optional(_ value: String?) -> JSONValue { value.map(JSONValue.string) ?? .null }
    package static func optional(_ value: Int64?) -> JSONValue { value.map(JSONValue.int) ?? .null }

    package var string: String? { if case .string(let value) = self { value } else { nil } }
    package var int: Int64? { if case .int(let value) = self { value } else { nil } }
    package var bool: Bool? { if case .bool(let value) = self { value } else { nil } }
    package var array: [JSONValue]? { if case .array(let value) = self { value } else { nil } }
    package var object: JSONObject? { if case .object(let value) = self { value } else { nil } }
    package var isNull: Bool { if case .null = self { true } else { false } }

    /// The member of an object; nil for anything else.
    package subscript(key: String) -> JSONValue? { object?[key] }

    /// The name of the value's type in JSON Schema's words.
    package var typeName: String {
        switch self {
        case .null: "null"
        case .bool: "boolean"
        case .int: "integer"
        case .double: "number"
        case .string: "string"
        case .array: "array"
        case .object: "object"
        }
    }
}
