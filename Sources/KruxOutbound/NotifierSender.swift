import AsyncHTTPClient
import Foundation
package import KruxCore
import KruxCrypto
import KruxSandbox
import NIOCore
import NIOHTTP1

/// Tells people of what waits, by whatever the policy names.
package struct NotifierSender: Sendable {
    /// Why somebody could not be told, in a person's words.
    package struct Failure: Error, Sendable {
        package let reason: String
    }

    /// What is told: one event, or several that came together.
    package struct Message: Sendable {
        package let title: String
        package let text: String
        /// For programs: `{events: […], link?}`.
        package let json: JSONObject
        /// Where it can be answered.
        package let link: String?
        package let isUrgent: Bool

        package init(title: String, text: String, json: JSONObject, link: String?, isUrgent: Bool) {
            self.title = title
            self.text = text
            self.json = json
            self.link = link
            self.isUrgent = isUrgent
        }
    }

    private let timeoutSeconds: Int
    private static let longestReply = 64 << 10

    /// - Parameter timeoutSeconds: what a notifier may take altogether.
    package init(timeoutSeconds: Int = 30) { self.timeoutSeconds = timeoutSeconds }

    /// - Parameters:
    ///   - number: the same for every try to deliver one message, so that whoever gets it twice can tell.
    ///   - now: for signatures.
    /// - Throws: `Failure`.
    package func send(_ message: Message, to kind: NotifierSettings.Kind, number: Int64, now: Timestamp) async throws {
        switch kind {
        case .desktop:
            try await run(
                [
                    "notify-send", "--app-name=KruxOS", "--urgency=\(message.isUrgent ? "critical" : "normal")", "--",
                    message.title, message.text + (message.link.map { "\n" + $0 } ?? ""),
                ], input: "")
        case .command(let words): try await run(words, input: message.json.canonicalText + "\n")
        case .webhook(let url, let file):
            let body = message.json.canonicalBytes()
            let time = "\(now.microseconds / 1_000_000)"
            let secret = try Self.secret(file)
            let signature = hmacSHA256(Array("\(time).".utf8) + body, secret: Array(secret.utf8)).hex
            try await post(
                url, body,
                [
                    ("content-type", "application/json"), ("kruxos-delivery", "\(number)"),
                    ("kruxos-signature", "t=\(time),v1=\(signature)"),
                ])
        case .ntfy(let url, let file):
            var headers = [
                ("title", Self.header(message.title)), ("priority", message.isUrgent ? "high" : "default"),
                ("tags", "lock"),
            ]
            if let link = message.link { headers.append(("click", link)) }
            if let file { headers.append(("authorization", "Bearer " + (try Self.secret(file)))) }
            try await post(url, Array(message.text.utf8), headers)
        case .email(let server, let from, let to, let username, let file):
            try await mail(message, server, from, to, username, try file.map(Self.secret), now)
        }
    }

    private func run(_ arguments: [String], input: String) async throws {
        do {
            let timeout = timeoutSeconds
            let result = try await Task.detached {
                try OwnerProcess.run(arguments, input: input, timeoutSeconds: timeout)
            }.value
            guard result.code == 0 else {
                throw Failure(reason: "`\(arguments[0])` ended with \(result.code): \(result.errors.suffix(300))")
            }
        } catch let error as SandboxError {
            throw Failure(reason: error.message)
        }
    }

    private func post(_ url: String, _ body: [UInt8], _ headers: [(String, String)]) async throws {
        // The address that was chosen, and no other.
        var configuration = HTTPClient.Configuration(redirectConfiguration: .disallow)
        configuration.timeout.connect = .seconds(10)
        let client = HTTPClient(eventLoopGroupProvider: .singleton, configuration: configuration)
        let result: Result<HTTPClientResponse, any Error>
        do {
            var request = HTTPClientRequest(url: url)
            request.method = .POST
            request.headers.add(name: "user-agent", value: "kruxos")
            for (name, value) in headers { request.headers.add(name: name, value: value) }
            request.body = .bytes(ByteBuffer(bytes: body))
            let response = try await client.execute(request, timeout: .seconds(Int64(timeoutSeconds)))
            result = .success(response)
        } catch {
            result = .failure(error)
        }
        try await client.shutdown()
        switch result {
        case .success(let response):
            guard (200..<300).contains(response.status.code) else {
                throw Failure(reason: "it answers \(response.status.code)")
            }
        case .failure(let error): throw Failure(reason: "it cannot be reached: \(error)")
        }
    }

    /// The relay is spoken to by curl, which knows TLS and every way to log in; user and password go over its standard
    /// input, not its command line.
    private func mail(
        _ message: Message, _ server: String, _ from: String, _ to: [String], _ username: String?, _ password: String?,
        _ now: Timestamp
    ) async throws {
        let folder = FileManager.default.temporaryDirectory.path + "/kruxos-\(randomBytes(8).hex)"
        guard mkdir(folder, 0o700) == 0 else {
            throw Failure(reason: "no folder for the mail: \(String(cString: strerror(errno)))")
        }
        defer { try? FileManager.default.removeItem(atPath: folder) }
        let lines = [
            "From: KruxOS <\(from)>", "To: \(to.joined(separator: ", "))", "Subject: \(Self.header(message.title))",
            "Date: \(Self.date(now))", "Message-ID: <\(randomBytes(16).hex)@kruxos.invalid>", "MIME-Version: 1.0",
            "Content-Type: text/plain; charset=utf-8", "Content-Transfer-Encoding: base64",
            "Auto-Submitted: auto-generated",
            "", Self.base64(message.text + (message.link.map { "\n\n" + $0 } ?? "") + "\n"), "",
        ]
        do {
            try Data(lines.joined(separator: "\r\n").utf8).write(to: URL(fileURLWithPath: folder + "/mail"))
        } catch {
            throw Failure(reason: "the mail cannot be written: \(error)")
        }
        func quoted(_ text: String) -> String {
            "\"" + text.replacing("\\", with: "\\\\").replacing("\"", with: "\\\"").replacing("\n", with: "\\n") + "\""
        }
        var options = [
            "silent", "show-error", "disable", "max-time = \(timeoutSeconds)", "url = \(quoted(server))",
            "mail-from = \(quoted(from))", "upload-file = \(quoted(folder + "/mail"))",
        ]
        options += to.map { "mail-rcpt = \(quoted($0))" }
        if server.hasPrefix("smtp://"), username != nil { options.append("ssl-reqd") }
        if let username { options.append("user = \(quoted("\(username):\(password ?? "")"))") }
        try await run(["curl", "--config", "-"], input: options.joined(separator: "\n") + "\n")
    }

    private static func secret(_ file: String) throws -> String {
        guard let data = FileManager.default.contents(atPath: file), let text = String(data: data, encoding: .utf8)
        else {
            throw Failure(reason: "`\(file)` cannot be read")
        }
        let secret = text.trimmingCharacters(in: .whitespacesAndNewlines)
        guard !secret.isEmpty else { throw Failure(reason: "`\(file)` is empty") }
        return secret
    }

    /// Letters of other scripts as RFC 2047 has them.
    private static func header(_ text: String) -> String {
        let line = String(text.map { $0.isNewline ? " " : $0 })
        if line.utf8.allSatisfy({ (0x20...0x7E).contains($0) }) { return line }
        return "=?UTF-8?B?" + Data(line.utf8).base64EncodedString() + "?="
    }

    private static func base64(_ text: String) -> String {
        Data(text.utf8).base64EncodedString(options: [
            .lineLength76Characters, .endLineWithCarriageReturn, .endLineWithLineFeed,
        ])
    }

    private static func date(_ time: Timestamp) -> String {
        let formatter = DateFormatter()
        formatter.locale = Locale(identifier: "en_US_POSIX")
        formatter.timeZone = TimeZone(secondsFromGMT: 0)
        formatter.dateFormat = "EEE, dd MMM yyyy HH:mm:ss '+0000'"
        return formatter.string(from: Date(timeIntervalSince1970: Double(time.microseconds) / 1_000_000))
    }
}
