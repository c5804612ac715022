/// Where people are told of what waits for them, as the organisation's policy says it.
package struct NotifierSettings: Sendable, Equatable {
    package enum Kind: Sendable, Equatable {
        /// `notify-send` on the owner's desktop.
        case desktop
        /// A program, which gets the message as JSON on its standard input.
        case command([String])
        /// A POST of the message as JSON, signed with the secret of a file.
        case webhook(url: String, secretFile: String)
        /// A topic of an ntfy server.
        case ntfy(url: String, tokenFile: String?)
        /// Mail through an SMTP relay: `smtp://host:587`, or `smtps://`.
        case email(server: String, from: String, to: [String], username: String?, passwordFile: String?)

        package var word: String {
            switch self {
            case .desktop: "desktop"
            case .command: "command"
            case .webhook: "webhook"
            case .ntfy: "ntfy"
            case .email: "email"
            }
        }
    }

    /// What a notifier may be told.
    package enum Event: String, Sendable, CaseIterable {
        /// A request waits, it still waits, or nobody answered it in time.
        case approval, reminder, expired
        /// A call of tier `notify` ran.
        case notification
    }

    /// Minutes since midnight by the machine's clock; the end is excluded, and may be on the next day.
    package struct Quiet: Sendable, Equatable {
        package let from: Int64
        package let until: Int64

        package init(from: Int64, until: Int64) {
            self.from = from
            self.until = until
        }

        /// Minutes from `minute` of the day until it is over; nil when it is not quiet then.
        package func left(at minute: Int64) -> Int64? {
            let isQuiet = from <= until ? (from..<until).contains(minute) : minute >= from || minute < until
            return isQuiet ? until - minute + (until > minute ? 0 : 1440) : nil
        }
    }

    package let name: String
    package let kind: Kind
    package let events: Set<Event>
    package let quiet: Quiet?
    /// What comes within so long is told together.
    package let batchSeconds: Int64
    /// Told of a request only when it still waits after so long: a second person.
    package let afterSeconds: Int64
    /// The supervisor in whose name links answer; nil for no links.
    package let answersAs: String?

    package init(
        name: String, kind: Kind, events: Set<Event>, quiet: Quiet?, batchSeconds: Int64, afterSeconds: Int64,
        answersAs: String?
    ) {
        self.name = name
        self.kind = kind
        self.events = events
        self.quiet = quiet
        self.batchSeconds = batchSeconds
        self.afterSeconds = afterSeconds
        self.answersAs = answersAs
    }

    /// In the compiled form.
    package var json: JSONObject {
        var json: JSONObject = [
            "name": .string(name), "kind": .string(kind.word), "on": .strings(events.map(\.rawValue).sorted()),
            "batch": .int(batchSeconds), "after": .int(afterSeconds), "answers_as": .optional(answersAs),
        ]
        if let quiet { json["quiet"] = [.int(quiet.from), .int(quiet.until)] }
        switch kind {
        case .desktop: break
        case .command(let words): json["command"] = .strings(words)
        case .webhook(let url, let file):
            json["url"] = .string(url)
            json["secret_file"] = .string(file)
        case .ntfy(let url, let file):
            json["url"] = .string(url)
            json["token_file"] = .optional(file)
        case .email(let server, let from, let to, let username, let file):
            json["server"] = .string(server)
            json["from"] = .string(from)
            json["to"] = .strings(to)
            json["username"] = .optional(username)
            json["password_file"] = .optional(file)
        }
        return json
    }

    package init?(json: JSONObject) {
        func text(_ key: String) -> String? { json[key]?.string }
        func texts(_ key: String) -> [String] { json[key]?.array?.compactMap(\.string) ?? [] }
        let kind: Kind
        switch (text("kind"), text("url"), text("secret_file"), text("server"), text("from")) {
        case ("desktop"?, _, _, _, _): kind = .desktop
        case ("command"?, _, _, _, _): kind = .command(texts("command"))
        case ("webhook"?, let url?, let file?, _, _): kind = .webhook(url: url, secretFile: file)
        case ("ntfy"?, let url?, _, _, _): kind = .ntfy(url: url, tokenFile: text("token_file"))
        case ("email"?, _, _, let server?, let from?):
            kind = .email(
                server: server, from: from, to: texts("to"), username: text("username"),
                passwordFile: text("password_file"))
        default: return nil
        }
        guard let name = text("name") else { return nil }
        let quiet = json["quiet"]?.array?.compactMap(\.int) ?? []
        self.init(
            name: name, kind: kind, events: Set(texts("on").compactMap(Event.init(rawValue:))),
            quiet: quiet.count == 2 ? Quiet(from: quiet[0], until: quiet[1]) : nil,
            batchSeconds: json["batch"]?.int ?? 0, afterSeconds: json["after"]?.int ?? 0,
            answersAs: text("answers_as"))
    }
}

/// Links that answer a request from a phone. Off unless a policy says so.
package struct LinkSettings: Sendable, Equatable {
    /// Under which the supervisors' port is reached from there, without a trailing slash.
    package let baseURL: String
    package let validSeconds: Int64

    package init(baseURL: String, validSeconds: Int64) {
        self.baseURL = baseURL
        self.validSeconds = validSeconds
    }
}
