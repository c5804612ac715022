import Foundation
package import KruxCore
import KruxCrypto
import NIOPosix

/// A message as RFC 5322 and MIME (RFC 2045 to 2049) write it, read as far as a text can be made of it. Whatever a message
/// is, reading it ends: nothing is believed of it.
struct MailMessage: Sendable {
    struct Attachment: Sendable {
        let name: String, type: String, bytes: Int
    }

    /// Its header id.
    let id: String?
    let from: String, to: [String], cc: [String], subject: String, date: String
    /// Plain where there is any, else what is left of HTML.
    private(set) var text = ""
    private(set) var attachments: [Attachment] = []

    /// Threads for reading messages, so that whatever somebody sent holds up nobody but who reads it.
    private static let pool: NIOThreadPool = {
        let pool = NIOThreadPool(numberOfThreads: 2)
        pool.start()
        return pool
    }()

    static func reading<R: Sendable>(_ work: @escaping @Sendable () -> R) async throws -> R {
        try await pool.runIfActive(work)
    }

    private static let deepest = 20
    private static let mostParts = 1000
    private var parts = 0
    private var html: String?

    init(_ bytes: [UInt8]) {
        let (headers, body) = Self.split(bytes[...])
        id = headers["message-id"].map { Self.words(String($0.prefix(998))) }
        from = Self.words(headers["from"] ?? "")
        to = Self.addresses(headers["to"] ?? "")
        cc = Self.addresses(headers["cc"] ?? "")
        subject = Self.words(headers["subject"] ?? "")
        date = Self.date(headers["date"] ?? "")
        read(headers, body, depth: 0)
        if text.isEmpty, let html { text = Self.plain(html) }
        text = text.replacing("\r\n", with: "\n").trimmingCharacters(in: CharacterSet(charactersIn: "\r"))
    }

    // MARK: Headers

    private static let longestHeaders = 256 << 10
    private static let longestHeader = 16 << 10
    private static let longestWords = 4 << 10

    /// Names in lower case with their first value, unfolded; and the body. What is beyond the limits is left out.
    private static func split(_ bytes: ArraySlice<UInt8>) -> ([String: String], ArraySlice<UInt8>) {
        var headers: [String: [UInt8]] = [:]
        var name: String?
        var index = bytes.startIndex
        while index < bytes.endIndex {
            let end = bytes[index...].firstIndex(of: 10) ?? bytes.endIndex
            var line = bytes[index..<end]
            let isBeyond = index - bytes.startIndex > longestHeaders
            index = min(end + 1, bytes.endIndex)
            if line.last == 13 { line = line.dropLast() }
            if line.isEmpty { break }
            if isBeyond { continue }
            line = line.prefix(longestHeader)
            if line.first == 32 || line.first == 9 {
                if let name, headers[name, default: []].count + line.count <= longestHeader {
                    headers[name, default: []] += [32] + line.drop { $0 == 32 || $0 == 9 }
                }
            } else if let colon = line.prefix(200).firstIndex(of: UInt8(ascii: ":")) {
                let found = String(decoding: line[..<colon], as: UTF8.self).lowercased().trimmingCharacters(
                    in: .whitespaces)
                name = headers.keys.contains(found) ? nil : found
                if name != nil { headers[found] = Array(line[(colon + 1)...].drop { $0 == 32 || $0 == 9 }) }
            }
        }
        return (headers.mapValues { decoded($0, "utf-8") }, bytes[index...])
    }

    /// Encoded words (RFC 2047) as text, controls as blanks.
    static func words(_ text: String) -> String {
        var result: [UInt8] = []
        var rest = Array(text.utf8.prefix(longestWords))[...]
        // Where an encoded word has just ended, with nothing but blanks since.
        var wordEnd: Int?
        while let byte = rest.first {
            if let (word, length) = encodedWord(rest) {
                // Blanks between two encoded words are no part of the text.
                if let end = wordEnd { result.removeSubrange(end...) }
                result += Array(word.utf8)
                wordEnd = result.count
                rest = rest.dropFirst(length)
            } else {
                if byte != 32, byte != 9 { wordEnd = nil }
                result.append(byte)
                rest = rest.dropFirst()
            }
        }
        let scalars = String(decoding: result, as: UTF8.self).unicodeScalars.map { scalar -> UnicodeScalar in
            scalar.value < 32 || scalar.value == 127 ? " " : scalar
        }
        return String(String.UnicodeScalarView(scalars.prefix(1000)))
    }

    /// `=?charset?q?text?=` at the beginning, with its length.
    private static func encodedWord(_ bytes: ArraySlice<UInt8>) -> (String, Int)? {
        guard bytes.starts(with: Array("=?".utf8)) else { return nil }
        let head = bytes.dropFirst(2).prefix(64)
        guard let mark = head.firstIndex(of: UInt8(ascii: "?")), mark + 2 < bytes.endIndex,
            bytes[mark + 2] == UInt8(ascii: "?")
        else { return nil }
        let kind = bytes[mark + 1] | 0x20
        guard kind == UInt8(ascii: "b") || kind == UInt8(ascii: "q") else { return nil }
        let text = bytes[(mark + 3)...].prefix { $0 != UInt8(ascii: "?") && $0 != 32 }
        guard bytes[text.endIndex...].starts(with: Array("?=".utf8)) else { return nil }
        let charset = String(decoding: head[..<mark].prefix { $0 != UInt8(ascii: "*") }, as: UTF8.self)
        let content =
            kind == UInt8(ascii: "b")
            ? Base64Text.decode(text)
            : quotedPrintable(text.map { $0 == UInt8(ascii: "_") ? 32 : $0 }[...])
        return (decoded(content, charset), text.endIndex + 2 - bytes.startIndex)
    }

    /// A list at its commas, those in quotes and angles left alone.
    private static func addresses(_ text: String) -> [String] {
        var found: [String] = []
        var current = ""
        var isQuoted = false
        for character in text.prefix(16 << 10) {
            if character == "\"" { isQuoted.toggle() }
            if character == ",", !isQuoted {
                found.append(current)
                current = ""
            } else {
                current.append(character)
            }
        }
        return (found + [current]).map { words($0).trimmingCharacters(in: .whitespaces) }.filter { !$0.isEmpty }.prefix(
            1000
        ).map { $0 }
    }

    /// RFC 3339; as it stands where it is no date.
    private static func date(_ text: String) -> String {
        // Without a comment at its end.
        let bare = String(text.prefix(80)).prefix { $0 != "(" }.trimmingCharacters(in: .whitespaces)
        let formatter = DateFormatter()
        formatter.locale = Locale(identifier: "en_US_POSIX")
        for format in ["EEE, d MMM yyyy HH:mm:ss Z", "d MMM yyyy HH:mm:ss Z", "EEE, d MMM yyyy HH:mm Z"] {
            formatter.dateFormat = format
            if let date = formatter.date(from: bare) {
                return Timestamp(microseconds: Int64(date.timeIntervalSince1970) * 1_000_000).rfc3339
            }
        }
        return words(String(text.prefix(100)))
    }

    /// The value before the first `;`, and parameters by name, RFC 2231's among them.
    private static func parameters(_ text: String) -> (value: String, parameters: [String: String]) {
        var pieces: [String] = []
        var current = ""
        var isQuoted = false
        for character in text.prefix(4 << 10) {
            if character == "\"" {
                isQuoted.toggle()
            } else if character == ";", !isQuoted {
                pieces.append(current)
                current = ""
            } else {
                current.append(character)
            }
        }
        pieces.append(current)
        var found: [String: String] = [:]
        var continued: [String: [(Int, String, Bool)]] = [:]
        for piece in pieces.dropFirst().prefix(64) {
            guard let mark = piece.firstIndex(of: "=") else { continue }
            let name = piece[..<mark].trimmingCharacters(in: .whitespaces).lowercased()
            let value = piece[piece.index(after: mark)...].trimmingCharacters(in: .whitespaces)
            guard let star = name.firstIndex(of: "*") else {
                if found[name] == nil { found[name] = words(value) }
                continue
            }
            let isEncoded = name.hasSuffix("*")
            let order = Int(name[name.index(after: star)...].prefix { $0.isNumber }) ?? 0
            continued[String(name[..<star]), default: []].append((order, value, isEncoded))
        }
        for (name, parts) in continued {
            var charset = "utf-8"
            var bytes: [UInt8] = []
            for (index, part) in parts.sorted(by: { $0.0 < $1.0 }).enumerated() {
                var value = part.1
                if part.2, index == 0 {
                    let fields = value.split(separator: "'", maxSplits: 2, omittingEmptySubsequences: false)
                    if fields.count == 3 {
                        charset = String(fields[0])
                        value = String(fields[2])
                    }
                }
                bytes += part.2 ? quotedPrintable(Array(value.replacing("%", with: "=").utf8)[...]) : Array(value.utf8)
            }
            found[name] = decoded(bytes, charset)
        }
        return ((pieces.first ?? "").trimmingCharacters(in: .whitespaces).lowercased(), found)
    }

    // MARK: Parts

    private mutating func read(_ headers: [String: String], _ body: ArraySlice<UInt8>, depth: Int) {
        parts += 1
        guard depth < Self.deepest, parts <= Self.mostParts else { return }
        let (type, parameters) = Self.parameters(headers["content-type"] ?? "text/plain")
        let (disposition, fileParameters) = Self.parameters(headers["content-disposition"] ?? "")
        if type.hasPrefix("multipart/"), let boundary = parameters["boundary"], !boundary.isEmpty {
            for part in Self.parts(body, boundary) {
                let (inner, content) = Self.split(part)
                read(inner, content, depth: depth + 1)
            }
            return
        }
        let encoding = (headers["content-transfer-encoding"] ?? "").lowercased().trimmingCharacters(in: .whitespaces)
        let name = fileParameters["filename"] ?? parameters["name"]
        let isText = type == "text/plain" || type == "text/html" || type.isEmpty
        guard isText, disposition != "attachment" else {
            // Its size is enough.
            let size = encoding == "base64" ? body.count { $0 > 32 && $0 != UInt8(ascii: "=") } * 3 / 4 : body.count
            attachments.append(
                Attachment(
                    name: Self.words(name ?? "unnamed"),
                    type: type.isEmpty ? "application/octet-stream" : Self.words(type), bytes: size))
            return
        }
        let content: [UInt8]
        switch encoding {
        case "base64": content = Base64Text.decode(body)
        case "quoted-printable": content = Self.quotedPrintable(body)
        default: content = Array(body)
        }
        let decoded = Self.decoded(content, parameters["charset"] ?? "utf-8")
        if type == "text/html" {
            html = (html ?? "") + decoded
        } else {
            text += (text.isEmpty ? "" : "\n") + decoded
        }
    }

    /// What lies between the lines `--boundary`.
    private static func parts(_ body: ArraySlice<UInt8>, _ boundary: String) -> [ArraySlice<UInt8>] {
        let mark = Array("--\(boundary)".utf8)
        var found: [ArraySlice<UInt8>] = []
        var start: Int?
        var line = body.startIndex
        while line < body.endIndex {
            let end = body[line...].firstIndex(of: 10) ?? body.endIndex
            if body[line..<end].starts(with: mark) {
                let rest = body[(line + mark.count)..<end].filter { $0 != 13 && $0 != 32 && $0 != 9 }
                if rest.isEmpty || rest == Array("--".utf8) {
                    if let start { found.append(body[start..<max(start, line - 1)]) }
                    start = rest.isEmpty ? min(end + 1, body.endIndex) : nil
                    if found.count >= mostParts { return found }
                    if start == nil { return found }
                }
            }
            line = end + 1
        }
        // One that was cut off has no last boundary.
        if let start { found.append(body[start...]) }
        return found
    }

    private static func quotedPrintable(_ bytes: ArraySlice<UInt8>) -> [UInt8] {
        var result: [UInt8] = []
        result.reserveCapacity(bytes.count)
        var index = bytes.startIndex
        func digit(_ at: Int) -> UInt8? { at < bytes.endIndex ? hexDigit(bytes[at]) : nil }
        while index < bytes.endIndex {
            let byte = bytes[index]
            if byte == UInt8(ascii: "="), let high = digit(index + 1), let low = digit(index + 2) {
                result.append(high << 4 | low)
                index += 3
            } else if byte == UInt8(ascii: "="), index + 1 < bytes.endIndex,
                bytes[index + 1] == 10 || bytes[index + 1] == 13
            {
                // A soft end of a line.
                index += bytes[index + 1] == 13 && index + 2 < bytes.endIndex && bytes[index + 2] == 10 ? 3 : 2
            } else {
                result.append(byte)
                index += 1
            }
        }
        return result
    }

    /// Bytes as text by the name of their character set; as UTF-8 with replacements where that is none.
    private static func decoded(_ bytes: [UInt8], _ charset: String) -> String {
        let encodings: [String: String.Encoding] = [
            "iso-8859-1": .isoLatin1, "latin1": .isoLatin1, "windows-1252": .windowsCP1252, "cp1252": .windowsCP1252,
            "iso-8859-2": .isoLatin2, "windows-1250": .windowsCP1250, "windows-1251": .windowsCP1251,
            "windows-1253": .windowsCP1253, "windows-1254": .windowsCP1254, "iso-2022-jp": .iso2022JP,
            "shift_jis": .shiftJIS, "euc-jp": .japaneseEUC, "utf-16": .utf16, "utf-16le": .utf16LittleEndian,
            "utf-16be": .utf16BigEndian,
        ]
        let name = charset.lowercased()
        if String(validating: bytes, as: UTF8.self) == nil || name.hasPrefix("utf-16") || name == "iso-2022-jp" {
            // ISO 8859-15 differs from 8859-1 in eight signs, of which the euro is one.
            let encoding = encodings[name] ?? (name == "iso-8859-15" ? .isoLatin1 : nil)
            if let encoding, let text = String(data: Data(bytes), encoding: encoding) { return text }
        }
        return String(decoding: bytes, as: UTF8.self)
    }

    private static let longestHTML = 1 << 20

    /// Text of HTML: without tags, scripts and styles, and the commonest entities as their signs. One pass.
    private static func plain(_ html: String) -> String {
        let bytes = Array(html.utf8.prefix(longestHTML))
        var text: [UInt8] = []
        var index = 0
        func lower(_ at: Int, _ count: Int) -> String {
            String(decoding: bytes[min(at, bytes.count)..<min(at + count, bytes.count)], as: UTF8.self).lowercased()
        }
        while index < bytes.count {
            guard bytes[index] == UInt8(ascii: "<") else {
                text.append(bytes[index])
                index += 1
                continue
            }
            // Where no tag ends any more, none is left.
            guard let end = bytes[index...].firstIndex(of: UInt8(ascii: ">")) else { break }
            let tag = lower(index + 1, 8)
            if ["br", "/p", "/div", "/tr", "/li", "/h"].contains(where: { tag.hasPrefix($0) }) { text.append(10) }
            index = end + 1
            for name in ["script", "style"] where tag.hasPrefix(name) {
                // To its end, or to the end of all.
                while index < bytes.count,
                    !(bytes[index] == UInt8(ascii: "<") && lower(index + 1, 7).hasPrefix("/" + name))
                {
                    index += 1
                }
            }
        }
        var result = String(decoding: text, as: UTF8.self)
        for (entity, sign) in [
            ("&nbsp;", " "), ("&lt;", "<"), ("&gt;", ">"), ("&quot;", "\""), ("&#39;", "'"), ("&amp;", "&"),
        ] {
            result = result.replacing(entity, with: sign)
        }
        return result.split(separator: "\n", omittingEmptySubsequences: false).map {
            $0.trimmingCharacters(in: .whitespaces)
        }.filter { !$0.isEmpty }.joined(separator: "\n")
    }
}

/// A message that an agent writes.
package struct OutgoingMail: Sendable {
    package let to: [String], cc: [String], bcc: [String]
    package let subject: String, body: String
    package let inReplyTo: String?

    static let properties: [Property] = {
        let addresses = SchemaType.array(.string(minLength: 3, maxLength: 320), maxItems: 100)
        return [
            .required("to", addresses, "Recipients, such as `somebody@example.com`.", role: .recipient),
            .optional("cc", addresses, "Copies.", default: [], role: .recipient),
            .optional("bcc", addresses, "Blind copies.", default: [], role: .recipient),
            .required("subject", .string(maxLength: 998), "Subject."),
            .required("body", .string(maxLength: 1 << 20), "Plain text."),
            .optional(
                "in_reply_to", .string(minLength: 3, maxLength: 998),
                "`message_header_id` of the message this answers."),
        ]
    }()

    init(_ arguments: Arguments) throws(StructuredError) {
        func addresses(_ name: String) throws(StructuredError) -> [String] {
            try arguments.texts(name).map { (text) throws(StructuredError) in
                guard let address = MailAddress(text) else {
                    throw StructuredError(
                        .invalidArguments, "`\(text.prefix(100))` in `\(name)` is no mail address",
                        recovery: ["Write it as `somebody@example.com`, without a display name."])
                }
                return address.text
            }
        }
        to = try addresses("to")
        cc = try addresses("cc")
        bcc = try addresses("bcc")
        subject = try arguments.text("subject")
        body = try arguments.text("body")
        inReplyTo = arguments.optionalText("in_reply_to")
        guard !(to + cc + bcc).isEmpty else {
            throw StructuredError(.invalidArguments, "it has no recipient", recovery: ["Name one in `to`."])
        }
        if let inReplyTo, inReplyTo.utf8.contains(where: { $0 <= 32 || $0 >= 127 }) {
            throw StructuredError(
                .invalidArguments, "`in_reply_to` is no message's header id", recovery: ["Take it from email.read."])
        }
    }

    /// `{to, cc, bcc, subject, body, in_reply_to?}`.
    package var json: JSONObject {
        var json: JSONObject = [
            "to": .strings(to), "cc": .strings(cc), "bcc": .strings(bcc), "subject": .string(subject),
            "body": .string(body),
        ]
        if let inReplyTo { json["in_reply_to"] = .string(inReplyTo) }
        return json
    }

    var recipients: [String] { to + cc + bcc }

    /// The message with its header id.
    func message(from: MailAddress, at time: Timestamp) -> (bytes: [UInt8], id: String) {
        let id = "<\(randomBytes(16).hex)@\(from.domain)>"
        var lines = ["From: <\(from.text)>"]
        func list(_ name: String, _ addresses: [String]) {
            if !addresses.isEmpty {
                lines.append("\(name): " + addresses.map { "<\($0)>" }.joined(separator: ",\r\n "))
            }
        }
        list("To", to)
        list("Cc", cc)
        lines += ["Subject: \(Self.header(subject))", "Date: \(Self.date(time))", "Message-ID: \(id)"]
        if let inReplyTo { lines += ["In-Reply-To: \(inReplyTo)", "References: \(inReplyTo)"] }
        lines += [
            "MIME-Version: 1.0", "Content-Type: text/plain; charset=utf-8", "Content-Transfer-Encoding: base64",
            "", "",
        ]
        let text = Data(body.replacing("\r\n", with: "\n").replacing("\n", with: "\r\n").utf8).base64EncodedString(
            options: [.lineLength76Characters, .endLineWithCarriageReturn, .endLineWithLineFeed])
        return (Array((lines.joined(separator: "\r\n") + text + "\r\n").utf8), id)
    }

    /// Other than plain signs as RFC 2047 has them, in words of at most 75 signs.
    private static func header(_ text: String) -> String {
        let line = String(text.map { $0.isNewline ? " " : $0 })
        if line.utf8.allSatisfy({ (0x20...0x7E).contains($0) }), line.utf8.count <= 900, !line.contains("=?") {
            return line
        }
        var words: [String] = []
        var current: [UInt8] = []
        for character in line {
            let bytes = Array(character.utf8)
            if current.count + bytes.count > 42 {
                words.append("=?UTF-8?B?\(Data(current).base64EncodedString())?=")
                current = []
            }
            current += bytes
        }
        words.append("=?UTF-8?B?\(Data(current).base64EncodedString())?=")
        return words.joined(separator: "\r\n ")
    }

    private static func date(_ time: Timestamp) -> String {
        let formatter = DateFormatter()
        formatter.locale = Locale(identifier: "en_US_POSIX")
        formatter.timeZone = TimeZone(secondsFromGMT: 0)
        formatter.dateFormat = "EEE, dd MMM yyyy HH:mm:ss '+0000'"
        return formatter.string(from: Date(timeIntervalSince1970: Double(time.microseconds) / 1_000_000))
    }
}
