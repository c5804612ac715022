/// Strict JSON (RFC 8259): UTF-8 only, no duplicate keys, no lone surrogates, a bounded depth, nothing after the value.
///
/// Written here rather than taken from Foundation because each of those leniencies lets one text mean two calls.
package struct JSONParser {
    /// Where and why a text is not JSON.
    package struct Failure: Error, Equatable, CustomStringConvertible {
        /// Byte offset from 0.
        package let offset: Int
        package let message: String
        package var description: String { "\(message) at byte \(offset)" }
    }

    /// Deeper nesting is refused; every schema of the catalogue needs less than 8.
    package static let maxDepth = 64

    private let bytes: UnsafeBufferPointer<UInt8>
    private var offset = 0
    private var scratch: [UInt8] = []

    private init(_ bytes: UnsafeBufferPointer<UInt8>) { self.bytes = bytes }

    /// Reads one value. Linear in the text's length.
    package static func parse(_ bytes: UnsafeBufferPointer<UInt8>) throws(Failure) -> JSONValue {
        var parser = JSONParser(bytes)
        parser.skipSpace()
        let value = try parser.value(depth: 0)
        parser.skipSpace()
        if parser.offset < bytes.count { throw parser.fail("unexpected text after the value") }
        return value
    }

    package static func parse(_ bytes: [UInt8]) throws(Failure) -> JSONValue {
        try bytes.withUnsafeBufferPointer { (buffer) throws(Failure) in try parse(buffer) }
    }

    package static func parse(_ text: String) throws(Failure) -> JSONValue { try parse(Array(text.utf8)) }

    private func fail(_ message: String) -> Failure { Failure(offset: offset, message: message) }

    private var peek: UInt8? { offset < bytes.count ? bytes[offset] : nil }

    private mutating func skipSpace() {
        while offset < bytes.count {
            switch bytes[offset] {
            case 0x20, 0x09, 0x0A, 0x0D: offset += 1
            default: return
            }
        }
    }

    private mutating func value(depth: Int) throws(Failure) -> JSONValue {
        guard let byte = peek else { throw fail("the text ends where a value is needed") }
        if depth > Self.maxDepth { throw fail("nested deeper than \(Self.maxDepth)") }
        switch byte {
        case UInt8(ascii: "{"): return .object(try object(depth: depth))
        case UInt8(ascii: "["): return .array(try array(depth: depth))
        case UInt8(ascii: "\""): return .string(try string())
        case UInt8(ascii: "t"): return try literal("true", .bool(true))
        case UInt8(ascii: "f"): return try literal("false", .bool(false))
        case UInt8(ascii: "n"): return try literal("null", .null)
        case UInt8(ascii: "-"), UInt8(ascii: "0")...UInt8(ascii: "9"): return try number()
        default: throw fail("unexpected character")
        }
    }

    private mutating func literal(_ text: StaticString, _ value: JSONValue) throws(Failure) -> JSONValue {
        for index in 0..<text.utf8CodeUnitCount {
            guard peek == text.utf8Start[index] else { throw fail("unexpected character") }
            offset += 1
        }
        return value
    }

    private mutating func object(depth: Int) throws(Failure) -> JSONObject {
        let start = offset
        offset += 1
        var members: [JSONObject.Member] = []
        skipSpace()
        if peek == UInt8(ascii: "}") {
            offset += 1
            return JSONObject()
        }
        while true {
            skipSpace()
            guard peek == UInt8(ascii: "\"") else { throw fail("a member's name must be a string") }
            let key = try string()
            skipSpace()
            guard peek == UInt8(ascii: ":") else { throw fail("`:` is missing") }
            offset += 1
            skipSpace()
            members.append(JSONObject.Member(key: key, value: try value(depth: depth + 1)))
            skipSpace()
            switch peek {
            case UInt8(ascii: ","): offset += 1
            case UInt8(ascii: "}"):
                offset += 1
                switch JSONObject.of(members) {
                case .success(let object): return object
                case .failure(let twice):
                    throw Failure(offset: start, message: "the member `\(twice.key.prefix(64))` occurs twice")
                }
            default: throw fail("`,` or `}` is missing")
            }
        }
    }

    private mutating func array(depth: Int) throws(Failure) -> [JSONValue] {
        offset += 1
        var elements: [JSONValue] = []
        skipSpace()
        if peek == UInt8(ascii: "]") {
            offset += 1
            return elements
        }
        while true {
            skipSpace()
            elements.append(try value(depth: depth + 1))
            skipSpace()
            switch peek {
            case UInt8(ascii: ","): offset += 1
            case UInt8(ascii: "]"):
                offset += 1
                return elements
            default: throw fail("`,` or `]` is missing")
            }
        }
    }

    private mutating func string() throws(Failure) -> String {
        offset += 1
        let start = offset
        while offset < bytes.count {
            switch bytes[offset] {
            case UInt8(ascii: "\""):
                let slice = UnsafeBufferPointer(rebasing: bytes[start..<offset])
                guard let text = String(validating: slice, as: UTF8.self) else { throw fail("not valid UTF-8") }
                offset += 1
                return text
            case UInt8(ascii: "\\"):
                return try escapedString(from: start)
            case 0..<0x20: throw fail("a control character must be escaped")
            default: offset += 1
            }
        }
        throw fail("the text ends inside a string")
    }

    private mutating func escapedString(from start: Int) throws(Failure) -> String {
        scratch.removeAll(keepingCapacity: true)
        scratch.append(contentsOf: bytes[start..<offset])
        while let byte = peek {
            switch byte {
            case UInt8(ascii: "\""):
                guard let text = String(validating: scratch, as: UTF8.self) else { throw fail("not valid UTF-8") }
                offset += 1
                return text
            case UInt8(ascii: "\\"):
                offset += 1
                try escape()
            case 0..<0x20: throw fail("a control character must be escaped")
            default:
                scratch.append(byte)
                offset += 1
            }
        }
        throw fail("the text ends inside a string")
    }

    private mutating func escape() throws(Failure) {
        guard let byte = peek else { throw fail("the text ends inside an escape") }
        offset += 1
        switch byte {
        case UInt8(ascii: "\""), UInt8(ascii: "\\"), UInt8(ascii: "/"): scratch.append(byte)
        case UInt8(ascii: "b"): scratch.append(0x08)
        case UInt8(ascii: "f"): scratch.append(0x0C)
        case UInt8(ascii: "n"): scratch.append(0x0A)
        case UInt8(ascii: "r"): scratch.append(0x0D)
        case UInt8(ascii: "t"): scratch.append(0x09)
        case UInt8(ascii: "u"):
            var scalar = UInt32(try hex4())
            if (0xD800..<0xDC00).contains(scalar) {
                guard peek == UInt8(ascii: "\\") else { throw fail("a high surrogate stands alone") }
                offset += 1
                guard peek == UInt8(ascii: "u") else { throw fail("a high surrogate stands alone") }
                offset += 1
                let low = UInt32(try hex4())
                guard (0xDC00..<0xE000).contains(low) else { throw fail("a high surrogate stands alone") }
                scalar = 0x10000 + ((scalar - 0xD800) << 10) + (low - 0xDC00)
            }
            guard let character = Unicode.Scalar(scalar) else { throw fail("a low surrogate stands alone") }
            scratch.append(contentsOf: String(character).utf8)
        default: throw fail("unknown escape")
        }
    }

    private mutating func hex4() throws(Failure) -> UInt16 {
        var value: UInt16 = 0
        for _ in 0..<4 {
            guard let byte = peek, let digit = hexDigit(byte) else { throw fail("four hexadecimal digits are needed") }
            value = value << 4 | UInt16(digit)
            offset += 1
        }
        return value
    }

    private mutating func number() throws(Failure) -> JSONValue {
        let start = offset
        var integral = true
        if peek == UInt8(ascii: "-") { offset += 1 }
        if peek == UInt8(ascii: "0") { offset += 1 } else { try digits() }
        if peek == UInt8(ascii: ".") {
            integral = false
            offset += 1
            try digits()
        }
        if peek == UInt8(ascii: "e") || peek == UInt8(ascii: "E") {
            integral = false
            offset += 1
            if peek == UInt8(ascii: "+") || peek == UInt8(ascii: "-") { offset += 1 }
            try digits()
        }
        let text = String(decoding: bytes[start..<offset], as: UTF8.self)
        if integral, let value = Int64(text), value.magnitude <= UInt64(JSONValue.maxInteger), text != "-0" {
            return .int(value)
        }
        guard let value = Double(text), value.isFinite else {
            throw Failure(offset: start, message: "the number is out of range")
        }
        // RFC 8785 writes 1.0 and 1 alike, so they are one value here.
        if value == value.rounded(), abs(value) <= Double(JSONValue.maxInteger) { return .int(Int64(value)) }
        return .double(value)
    }

    private mutating func digits() throws(Failure) {
        let start = offset
        while let byte = peek, byte >= UInt8(ascii: "0"), byte <= UInt8(ascii: "9") { offset += 1 }
        if offset == start { throw fail("a digit is needed") }
    }
}

/// The value of a hexadecimal digit in either case.
package func hexDigit(_ byte: UInt8) -> UInt8? {
    switch byte {
    case UInt8(ascii: "0")...UInt8(ascii: "9"): byte - UInt8(ascii: "0")
    case UInt8(ascii: "a")...UInt8(ascii: "f"): byte - UInt8(ascii: "a") + 10
    case UInt8(ascii: "A")...UInt8(ascii: "F"): byte - UInt8(ascii: "A") + 10
    default: nil
    }
}
