import KruxCore
import KruxCrypto
import NIOSSL

/// A mail account, as a secret of the vault holds it: `{"imap": "imaps://host", "smtp": "smtps://host", "username",
/// "password", "from", "ca_file"?}`.
struct MailAccount: Sendable {
    let imap: MailServer, smtp: MailServer
    let username: String
    private let password: SecretBytes
    let from: MailAddress
    /// A file of certificates that are trusted instead of the machine's.
    let authority: String?

    static let properties: [Property] = [
        .optional(
            "account", .string(minLength: 1, maxLength: 128), "The account, by its secret's name; see secrets.list.",
            default: "mail")
    ]

    static let errors = [
        SecretSchema.locked, SecretSchema.unknown, SecretSchema.outOfScope,
        CapabilityDeclaration.DeclaredError(
            .ioFailure, when: "the server cannot be reached", recovery: "try again later"),
        CapabilityDeclaration.DeclaredError(
            .unauthenticated, when: "the server refuses the login", recovery: "tell your supervisor"),
        CapabilityDeclaration.DeclaredError(.timedOut, when: "no answer comes in time", recovery: "try again later"),
    ]

    /// The bytes of a text, the password and another text, for a login.
    func secret(_ before: String, _ after: String) -> [UInt8] {
        password.withBytes { Array(before.utf8) + Array($0) + Array(after.utf8) }
    }

    /// - Throws: `StructuredError` for a secret that is none for this use, or no account.
    init(_ name: String, _ context: CallContext) throws(StructuredError) {
        // The scope has both servers with their ports; which those are, only the value tells.
        let value = try context.secret(name, nil)
        func refuse(_ why: String) -> StructuredError {
            StructuredError(
                .wrongType, "the secret `\(name)` is no mail account: \(why)",
                recovery: [
                    "A supervisor gives it as JSON: {\"imap\": \"imaps://mail.example\", \"smtp\": \"smtps://mail.example\", \"username\": …, \"password\": …, \"from\": …}."
                ])
        }
        guard let json = value.withBytes({ try? JSONParser.parse([UInt8]($0)) })?.object else {
            throw refuse("it is no JSON object")
        }
        guard
            let imap = json["imap"]?.string.flatMap({
                MailServer($0, schemes: ("imaps", "imap"), ports: (993, 143))
            })
        else { throw refuse("`imap` is no `imaps://HOST` or `imap://HOST`") }
        guard
            let smtp = json["smtp"]?.string.flatMap({
                MailServer($0, schemes: ("smtps", "smtp"), ports: (465, 587))
            })
        else { throw refuse("`smtp` is no `smtps://HOST` or `smtp://HOST`") }
        guard let username = json["username"]?.string, !username.isEmpty, !username.utf8.contains(0) else {
            throw refuse("it has no `username`")
        }
        guard let password = json["password"]?.string, !password.isEmpty, !password.utf8.contains(0) else {
            throw refuse("it has no `password`")
        }
        guard let from = json["from"]?.string.flatMap({ MailAddress($0) }) else {
            throw refuse("`from` is no mail address")
        }
        self.imap = imap
        self.smtp = smtp
        self.username = username
        do { self.password = try SecretBytes(Array(password.utf8)) } catch {
            throw error as? StructuredError ?? StructuredError(.unavailable, "\(error)")
        }
        self.from = from
        authority = json["ca_file"]?.string
        for server in [imap, smtp] {
            _ = try context.secret(name, WebAddress("https://\(server.host):\(server.port)/"))
        }
    }

    /// Speaks to the IMAP server.
    func read<R: Sendable>(_ body: @escaping @Sendable (inout IMAPClient) async throws -> R)
        async throws(StructuredError)
        -> R
    {
        let account = self
        return try await Self.speak(imap) {
            try await MailStream.with(account.imap, authority: account.authority, timeoutSeconds: 60) { stream in
                var client = try await IMAPClient(stream, account)
                let result = try await body(&client)
                try await client.logout()
                return result
            }
        }
    }

    private static func untrusted(_ server: MailServer) -> StructuredError {
        StructuredError(
            .ioFailure, "`\(server.host)` has no certificate that holds for it, or does not encrypt",
            recovery: ["Tell your supervisor: the account's `ca_file` may be missing."])
    }

    static func speak<R>(_ server: MailServer, _ body: () async throws -> R) async throws(StructuredError) -> R {
        do {
            return try await body()
        } catch let error as StructuredError {
            throw error
        } catch let failure as MailFailure {
            throw StructuredError(
                failure.kind, "\(server.host): \(failure.text)",
                recovery: [failure.isFinal ? "Change what the server refuses." : "Try again later."],
                retryable: !failure.isFinal)
        } catch is NIOSSLError {
            throw untrusted(server)
        } catch is NIOSSLExtraError {
            throw untrusted(server)
        } catch is BoringSSLError {
            throw untrusted(server)
        } catch {
            throw StructuredError(
                .ioFailure, "`\(server.host)` cannot be reached: \(String(describing: error).prefix(300))",
                recovery: ["Try again later, or tell your supervisor."], retryable: true)
        }
    }
}
