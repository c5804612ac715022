import Foundation
import KruxCore

/// IMAP4rev1 (RFC 3501) as far as reading, drafting and deleting needs it.
struct IMAPClient {
    /// A part of a response.
    enum Value: Equatable {
        /// Atoms, strings and literals.
        case bytes([UInt8])
        case list([Value])
        case none

        var text: String? { if case .bytes(let bytes) = self { String(decoding: bytes, as: UTF8.self) } else { nil } }
        var bytes: [UInt8]? { if case .bytes(let bytes) = self { bytes } else { nil } }
        var list: [Value]? { if case .list(let list) = self { list } else { nil } }
    }

    private var stream: MailStream
    private var number = 0
    /// Bytes that the answer to a command may still have: a server may send what it likes, and is not listened to beyond it.
    private var budget = 0
    private static let usualBudget = 2 << 20

    /// Greets and encrypts.
    init(_ stream: MailStream, _ account: MailAccount) async throws {
        self.stream = stream
        budget = Self.usualBudget
        // After STARTTLS there is no second greeting.
        if account.imap.isImplicit {
            let greeting = try await response()
            guard greeting.first?.text == "*", greeting.dropFirst().first?.text?.uppercased() != "BYE" else {
                throw MailFailure(kind: .ioFailure, text: "that is no IMAP server, or it turns us away")
            }
        }
        let login = account.secret("\0\(account.username)\0", "")
        number += 1
        budget = Self.usualBudget
        try await self.stream.write(line: "a\(number) AUTHENTICATE PLAIN")
        var line = try await self.stream.line()
        while line.first == UInt8(ascii: "*") { line = try await self.stream.line() }
        guard line.first == UInt8(ascii: "+") else {
            throw MailFailure(kind: .ioFailure, text: "the IMAP server does not take a plain login", isFinal: true)
        }
        try await self.stream.write(line: Base64Text.encode(login))
        do { _ = try await finish() } catch is MailFailure {
            throw MailFailure(
                kind: .unauthenticated, text: "the IMAP server refuses the login", isFinal: true)
        }
    }

    // MARK: Commands

    /// Sends a command and gives its untagged responses.
    /// - Parameter literals: sent one by one where the text has `{}`.
    /// - Parameter budget: bytes that its answer may have.
    mutating func command(_ text: String, literals: [[UInt8]] = [], budget: Int = usualBudget) async throws -> [[Value]]
    {
        self.budget = budget
        number += 1
        let parts = ("a\(number) " + text).components(separatedBy: "{}")
        for (index, part) in parts.enumerated() {
            guard index < literals.count else {
                try await stream.write(line: part)
                break
            }
            try await stream.write(line: part + "{\(literals[index].count)}")
            let answer = try await response()
            guard answer.first?.text == "+" else {
                throw MailFailure(kind: .conflict, text: Self.words(answer), isFinal: true)
            }
            try await stream.write(literals[index])
        }
        return try await finish()
    }

    private mutating func finish() async throws -> [[Value]] {
        var untagged: [[Value]] = []
        while true {
            let response = try await response()
            guard response.first?.text == "a\(number)" else {
                if response.first?.text == "*" { untagged.append(Array(response.dropFirst())) }
                continue
            }
            guard response.dropFirst().first?.text?.uppercased() == "OK" else {
                throw MailFailure(kind: .conflict, text: Self.words(Array(response.dropFirst())), isFinal: true)
            }
            return untagged + [Array(response.dropFirst())]
        }
    }

    private static func words(_ response: [Value]) -> String {
        response.compactMap(\.text).joined(separator: " ").prefix(300).description
    }

    mutating func logout() async throws { _ = try? await command("LOGOUT") }

    /// One response with its literals, as values.
    private mutating func response() async throws -> [Value] {
        var pieces: [(line: [UInt8], literal: [UInt8]?)] = []
        func spend(_ count: Int) throws {
            budget -= count
            if budget < 0 { throw MailFailure(kind: .tooLarge, text: "the server sends more than was asked for") }
        }
        while true {
            let line = try await stream.line()
            try spend(line.count + 2)
            guard let count = Self.literal(line) else {
                pieces.append((line, nil))
                break
            }
            try spend(count)
            pieces.append((Array(line[..<(line.lastIndex(of: UInt8(ascii: "{")) ?? 0)]), try await stream.bytes(count)))
        }
        var parser = Parser(pieces)
        return parser.values()
    }

    /// The count of `{123}` at a line's end.
    private static func literal(_ line: [UInt8]) -> Int? {
        guard line.last == UInt8(ascii: "}"), let start = line.lastIndex(of: UInt8(ascii: "{")) else { return nil }
        let digits = String(decoding: line[(start + 1)..<(line.count - 1)], as: UTF8.self)
        guard digits.utf8.count <= 10, digits.utf8.allSatisfy({ (48...57).contains($0) }) else { return nil }
        return Int(digits)
    }

    /// Reads atoms, quoted texts, literals and lists.
    private struct Parser {
        private let pieces: [(line: [UInt8], literal: [UInt8]?)]
        private var piece = 0
        private var index = 0

        init(_ pieces: [(line: [UInt8], literal: [UInt8]?)]) { self.pieces = pieces }

        private mutating func next() -> UInt8? {
            guard piece < pieces.count, index < pieces[piece].line.count else { return nil }
            return pieces[piece].line[index]
        }

        mutating func values(depth: Int = 0) -> [Value] {
            var values: [Value] = []
            while piece < pieces.count {
                guard let byte = next() else {
                    if let literal = pieces[piece].literal { values.append(.bytes(literal)) }
                    piece += 1
                    index = 0
                    continue
                }
                switch byte {
                case UInt8(ascii: " "): index += 1
                case UInt8(ascii: "("):
                    index += 1
                    // Deeper than any server goes is not followed.
                    values.append(depth < 50 ? .list(self.values(depth: depth + 1)) : .none)
                case UInt8(ascii: ")"):
                    index += 1
                    if depth > 0 { return values }
                case UInt8(ascii: "\""):
                    index += 1
                    var text: [UInt8] = []
                    while let byte = next(), byte != UInt8(ascii: "\"") {
                        if byte == UInt8(ascii: "\\") { index += 1 }
                        if let byte = next() { text.append(byte) }
                        index += 1
                    }
                    index += 1
                    values.append(.bytes(text))
                default:
                    var atom: [UInt8] = []
                    var brackets = 0
                    // `BODY[HEADER.FIELDS (FROM)]` is one.
                    while let byte = next(), brackets > 0 || !" ()\"".utf8.contains(byte) {
                        if byte == UInt8(ascii: "[") { brackets += 1 }
                        if byte == UInt8(ascii: "]") { brackets -= 1 }
                        atom.append(byte)
                        index += 1
                    }
                    values.append(String(decoding: atom, as: UTF8.self).uppercased() == "NIL" ? .none : .bytes(atom))
                }
            }
            return values
        }
    }

    // MARK: What it is for

    /// Opens a folder.
    /// - Returns: its validity, by which numbers of messages hold.
    mutating func open(_ folder: String, readOnly: Bool) async throws -> Int64 {
        let responses: [[Value]]
        do {
            responses = try await command("\(readOnly ? "EXAMINE" : "SELECT") {}", literals: [Self.encoded(folder)])
        } catch let failure as MailFailure where failure.isFinal {
            throw MailFailure(kind: .notFound, text: "there is no folder `\(folder.prefix(100))`", isFinal: true)
        }
        for response in responses {
            let words = Self.words(response)
            if let mark = words.firstRange(of: "[UIDVALIDITY ") {
                return Int64(words[mark.upperBound...].prefix { $0.isNumber }) ?? 0
            }
        }
        return 0
    }

    /// Messages' numbers, oldest first.
    /// - Parameter text: what must stand in them; nil for all.
    mutating func search(_ text: String?) async throws -> [Int64] {
        let responses =
            if let text {
                try await command("UID SEARCH CHARSET UTF-8 UNDELETED TEXT {}", literals: [Array(text.utf8)])
            } else {
                try await command("UID SEARCH UNDELETED")
            }
        return responses.filter { $0.first?.text?.uppercased() == "SEARCH" }.flatMap { response in
            response.dropFirst().compactMap { $0.text.flatMap { Int64($0) } }
        }.sorted()
    }

    /// What is asked of messages: by number, by the item's name in capitals.
    /// - Parameter budget: bytes of all of them together.
    mutating func fetch(_ numbers: [Int64], _ items: String, budget: Int = 16 << 20) async throws
        -> [Int64: [String: Value]]
    {
        if numbers.isEmpty { return [:] }
        let set = numbers.map { "\($0)" }.joined(separator: ",")
        var found: [Int64: [String: Value]] = [:]
        for response in try await command("UID FETCH \(set) (UID \(items))", budget: budget) {
            guard response.count >= 3, response[1].text?.uppercased() == "FETCH", let list = response[2].list else {
                continue
            }
            var members: [String: Value] = [:]
            var index = 0
            while index + 1 < list.count {
                // `BODY[]<0>` as `BODY[]`.
                let name = (list[index].text ?? "").uppercased().prefix { $0 != "<" }
                members[String(name)] = list[index + 1]
                index += 2
            }
            if let number = members["UID"]?.text.flatMap({ Int64($0) }) {
                found[number, default: [:]].merge(members) { $1 }
            }
        }
        return found
    }

    /// Folders by their special use, `\Drafts` and the like (RFC 6154).
    mutating func folder(for use: String, else name: String) async throws -> String {
        for response in try await command("LIST \"\" \"*\"") where response.first?.text?.uppercased() == "LIST" {
            guard response.count >= 4, let flags = response[1].list, let folder = response[3].bytes else { continue }
            if flags.contains(where: { $0.text?.lowercased() == use.lowercased() }) { return Self.decoded(folder) }
        }
        return name
    }

    mutating func append(_ message: [UInt8], to folder: String, flags: String) async throws -> Int64? {
        let responses = try await command("APPEND {} (\(flags)) {}", literals: [Self.encoded(folder), message])
        // `[APPENDUID validity number]` (RFC 4315).
        for response in responses {
            let words = Self.words(response)
            if let mark = words.firstRange(of: "[APPENDUID ") {
                let numbers = words[mark.upperBound...].split(whereSeparator: { !$0.isNumber })
                return numbers.dropFirst().first.flatMap { Int64($0) }
            }
        }
        return nil
    }

    /// Into the bin where there is one and it is not there already, else for good.
    mutating func delete(_ number: Int64, from folder: String) async throws -> String? {
        let bin = try await self.folder(for: "\\Trash", else: "")
        if !bin.isEmpty, bin != folder {
            _ = try await command("UID COPY \(number) {}", literals: [Self.encoded(bin)])
        }
        _ = try await command("UID STORE \(number) +FLAGS.SILENT (\\Deleted)")
        do { _ = try await command("UID EXPUNGE \(number)") } catch let failure as MailFailure where failure.isFinal {
            // Without UIDPLUS it stays marked; expunging would take others' marked messages with it.
        }
        return bin.isEmpty || bin == folder ? nil : bin
    }

    /// RFC 3501 §5.1.3, modified UTF-7.
    static func encoded(_ folder: String) -> [UInt8] {
        var result = ""
        var run: [UInt8] = []
        func flush() {
            if run.isEmpty { return }
            let base64 = Base64Text.encode(run).prefix { $0 != "=" }
            result += "&\(String(base64.map { $0 == "/" ? "," : $0 }))-"
            run = []
        }
        for scalar in folder.unicodeScalars {
            if (0x20...0x7E).contains(scalar.value) {
                flush()
                result += scalar == "&" ? "&-" : String(scalar)
            } else {
                for unit in String(scalar).utf16 { run += [UInt8(unit >> 8), UInt8(unit & 0xFF)] }
            }
        }
        flush()
        return Array(result.utf8)
    }

    static func decoded(_ folder: [UInt8]) -> String {
        var result = ""
        var rest = String(decoding: folder, as: UTF8.self)[...]
        while let mark = rest.firstIndex(of: "&"), let end = rest[mark...].firstIndex(of: "-") {
            result += rest[..<mark]
            let code = rest[rest.index(after: mark)..<end]
            if code.isEmpty {
                result += "&"
            } else {
                let bytes = Base64Text.decode(code.utf8.map { $0 == UInt8(ascii: ",") ? UInt8(ascii: "/") : $0 })
                var units: [UInt16] = []
                for index in stride(from: 0, to: bytes.count - 1, by: 2) {
                    units.append(UInt16(bytes[index]) << 8 | UInt16(bytes[index + 1]))
                }
                result += String(decoding: units, as: UTF16.self)
            }
            rest = rest[rest.index(after: end)...]
        }
        return result + rest
    }
}

/// Base64 as mail has it: with line ends, without padding, with strangers in between.
enum Base64Text {
    static func encode(_ bytes: [UInt8]) -> String { Data(bytes).base64EncodedString() }

    static func decode(_ text: some Sequence<UInt8>) -> [UInt8] {
        var result: [UInt8] = []
        var bits: UInt32 = 0
        var count = 0
        for byte in text {
            let value: UInt8
            switch byte {
            case 65...90: value = byte - 65
            case 97...122: value = byte - 71
            case 48...57: value = byte + 4
            case UInt8(ascii: "+"): value = 62
            case UInt8(ascii: "/"): value = 63
            default: continue
            }
            bits = bits << 6 | UInt32(value)
            count += 6
            if count >= 8 {
                count -= 8
                result.append(UInt8(truncatingIfNeeded: bits >> UInt32(count)))
            }
        }
        return result
    }
}
