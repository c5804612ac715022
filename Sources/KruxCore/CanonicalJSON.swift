/// Canonical JSON, RFC 8785 (JSON Canonicalization Scheme): members by UTF-16 order, no space, shortest escapes,
/// ECMAScript numbers. One value has exactly one text, so a digest of the text is a digest of the value.
extension JSONValue {
    /// The canonical text as UTF-8.
    package func canonicalBytes() -> [UInt8] {
        var out: [UInt8] = []
        out.reserveCapacity(256)
        appendCanonical(to: &out)
        return out
    }

    package var canonicalText: String { String(decoding: canonicalBytes(), as: UTF8.self) }

    package func appendCanonical(to out: inout [UInt8]) {
        switch self {
        case .null: out.append(contentsOf: "null".utf8)
        case .bool(let value): out.append(contentsOf: (value ? "true" : "false").utf8)
        case .int(let value): appendInteger(value, to: &out)
        case .double(let value): out.append(contentsOf: ecmaScriptNumber(value).utf8)
        case .string(let value): appendQuoted(value, to: &out)
        case .array(let elements):
            out.append(UInt8(ascii: "["))
            for (index, element) in elements.enumerated() {
                if index > 0 { out.append(UInt8(ascii: ",")) }
                element.appendCanonical(to: &out)
            }
            out.append(UInt8(ascii: "]"))
        case .object(let object): object.appendCanonical(to: &out)
        }
    }

    /// Two-space indentation, for people.
    package func prettyText(indent: Int = 0) -> String {
        let pad = String(repeating: "  ", count: indent + 1)
        let end = String(repeating: "  ", count: indent)
        switch self {
        case .array(let elements) where !elements.isEmpty:
            return "[\n" + elements.map { pad + $0.prettyText(indent: indent + 1) }.joined(separator: ",\n")
                + "\n\(end)]"
        case .object(let object) where !object.isEmpty:
            let lines = object.members.map {
                pad + JSONValue.string($0.key).canonicalText + ": " + $0.value.prettyText(indent: indent + 1)
            }
            return "{\n" + lines.joined(separator: ",\n") + "\n\(end)}"
        default: return canonicalText
        }
    }
}

extension JSONObject {
    package func appendCanonical(to out: inout [UInt8]) {
        out.append(UInt8(ascii: "{"))
        for (index, member) in members.enumerated() {
            if index > 0 { out.append(UInt8(ascii: ",")) }
            appendQuoted(member.key, to: &out)
            out.append(UInt8(ascii: ":"))
            member.value.appendCanonical(to: &out)
        }
        out.append(UInt8(ascii: "}"))
    }

    package func canonicalBytes() -> [UInt8] { JSONValue.object(self).canonicalBytes() }
    package var canonicalText: String { JSONValue.object(self).canonicalText }
}

private func appendInteger(_ value: Int64, to out: inout [UInt8]) {
    if value < 0 { out.append(UInt8(ascii: "-")) }
    var rest = value.magnitude
    let start = out.count
    repeat {
        out.append(UInt8(ascii: "0") + UInt8(rest % 10))
        rest /= 10
    } while rest > 0
    out[start...].reverse()
}

private func appendQuoted(_ text: String, to out: inout [UInt8]) {
    let hex: StaticString = "0123456789abcdef"
    out.append(UInt8(ascii: "\""))
    var text = text
    text.withUTF8 { bytes in
        var clean = 0
        for (index, byte) in bytes.enumerated() where byte < 0x20 || byte == 0x22 || byte == 0x5C {
            out.append(contentsOf: bytes[clean..<index])
            clean = index + 1
            out.append(UInt8(ascii: "\\"))
            switch byte {
            case 0x22, 0x5C: out.append(byte)
            case 0x08: out.append(UInt8(ascii: "b"))
            case 0x09: out.append(UInt8(ascii: "t"))
            case 0x0A: out.append(UInt8(ascii: "n"))
            case 0x0C: out.append(UInt8(ascii: "f"))
            case 0x0D: out.append(UInt8(ascii: "r"))
            default:
                out.append(contentsOf: "u00".utf8)
                out.append(hex.utf8Start[Int(byte >> 4)])
                out.append(hex.utf8Start[Int(byte & 15)])
            }
        }
        out.append(contentsOf: bytes[clean...])
    }
    out.append(UInt8(ascii: "\""))
}

/// ECMAScript's Number::toString (ECMA-262 §6.1.6.1.20) of a finite number, from Swift's shortest round-trip digits.
func ecmaScriptNumber(_ value: Double) -> String {
    if value == 0 { return "0" }
    let sign = value < 0 ? "-" : ""
    // Swift prints `d.dde±x`, `ddd.d` or `0.000d`; take the digits and the decimal exponent out of either form.
    var mantissa = "\(value.magnitude)"
    var exponent = 0
    if let e = mantissa.firstIndex(of: "e") {
        exponent = Int(mantissa[mantissa.index(after: e)...]) ?? 0
        mantissa = String(mantissa[..<e])
    }
    let parts = mantissa.split(separator: ".", omittingEmptySubsequences: false)
    let whole = String(parts[0])
    let fraction = parts.count > 1 ? String(parts[1]) : ""
    var digits = Array((whole + fraction).utf8)
    var point = whole.utf8.count + exponent
    while digits.count > 1, digits.first == UInt8(ascii: "0") {
        digits.removeFirst()
        point -= 1
    }
    while digits.count > 1, digits.last == UInt8(ascii: "0") { digits.removeLast() }
    let text = String(decoding: digits, as: UTF8.self)
    let count = digits.count
    if count <= point, point <= 21 { return sign + text + String(repeating: "0", count: point - count) }
    if 0 < point, point <= 21 { return sign + text.prefix(point) + "." + text.dropFirst(point) }
    if -6 < point, point <= 0 { return sign + "0." + String(repeating: "0", count: -point) + text }
    let power = "e" + (point - 1 < 0 ? "-" : "+") + "\(abs(point - 1))"
    return sign + (count == 1 ? text : text.prefix(1) + "." + text.dropFirst(1)) + power
}
