import Foundation
import KruxCore

/// SMTP submission (RFC 6409) over an encrypted connection, with a login.
struct SMTPClient {
    private var stream: MailStream

    /// Sends a message.
    /// - Throws: `MailFailure`; when it is final no recipient gets it.
    static func send(_ message: [UInt8], to recipients: [String], _ account: MailAccount) async throws {
        try await MailStream.with(account.smtp, authority: account.authority, timeoutSeconds: 120) { stream in
            var client = SMTPClient(stream: stream)
            try await client.send(message, to: recipients, account)
        }
    }

    private mutating func send(_ message: [UInt8], to recipients: [String], _ account: MailAccount) async throws {
        // After STARTTLS there is no second greeting.
        if account.smtp.isImplicit { try await expect(220) }
        try await stream.write(line: "EHLO localhost")
        _ = try await reply(250)
        let login = Base64Text.encode(account.secret("\0\(account.username)\0", ""))
        do { try await command("AUTH PLAIN \(login)", 235) } catch is MailFailure {
            // What it says may repeat the login.
            throw MailFailure(kind: .unauthenticated, text: "the mail server refuses the login", isFinal: true)
        }
        try await command("MAIL FROM:<\(account.from.text)>", 250)
        for recipient in recipients { try await command("RCPT TO:<\(recipient)>", 250, 251) }
        try await command("DATA", 354)
        try await stream.write(Self.stuffed(message) + Array(".\r\n".utf8))
        try await expect(250)
        // It is sent; how the farewell goes does not matter.
        try? await command("QUIT", 221)
    }

    private mutating func command(_ text: String, _ codes: Int...) async throws {
        try await stream.write(line: text)
        _ = try await reply(codes)
    }

    private mutating func expect(_ code: Int) async throws { _ = try await reply([code]) }
    private mutating func reply(_ code: Int) async throws -> [String] { try await reply([code]) }

    private mutating func reply(_ codes: [Int]) async throws -> [String] {
        var lines: [String] = []
        while true {
            let line = String(decoding: try await stream.line(), as: UTF8.self)
            guard lines.count < 1000, let code = Int(line.prefix(3)) else {
                throw MailFailure(kind: .ioFailure, text: "that is no mail server: \(line.prefix(100))")
            }
            lines.append(String(line.dropFirst(4)))
            if line.dropFirst(3).first == "-" { continue }
            guard codes.contains(code) else {
                throw MailFailure(
                    kind: .conflict, text: "\(code) \(lines.joined(separator: " ").prefix(300))", isFinal: code >= 500)
            }
            return lines
        }
    }

    /// RFC 5321 §4.5.2: a line that begins with a dot gets another.
    private static func stuffed(_ message: [UInt8]) -> [UInt8] {
        var result: [UInt8] = []
        result.reserveCapacity(message.count + 64)
        var isLineStart = true
        for byte in message {
            if isLineStart, byte == UInt8(ascii: ".") { result.append(byte) }
            result.append(byte)
            isLineStart = byte == 10
        }
        return isLineStart ? result : result + [13, 10]
    }
}
