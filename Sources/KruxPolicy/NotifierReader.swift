import KruxCore

/// Reads `notifiers:` and `links:`.
extension NodeReader {
    private static let common = ["kind", "on", "quiet", "batch", "after", "answers_as"]
    private static let own: [String: [String]] = [
        "desktop": [], "command": ["command"], "webhook": ["url", "secret_file"], "ntfy": ["url", "token_file"],
        "email": ["server", "from", "to", "username", "password_file"],
    ]
    private static let longestWaitSeconds: Int64 = 7 * 86_400

    mutating func notifiers(_ node: YAMLNode) -> [NotifierSettings] {
        (pairs(node, "`notifiers`") ?? []).compactMap { keyNode, value in
            guard let name = word(keyNode) else { return nil }
            if !SupervisorName.isValid(name) {
                fail(keyNode, "`\(name)` is no name of a notifier", hint: SupervisorName.rule)
            }
            return notifier(name, value)
        }
    }

    private mutating func notifier(_ name: String, _ node: YAMLNode) -> NotifierSettings? {
        guard let pairs = pairs(node, "a notifier") else { return nil }
        guard let kindNode = pairs.first(where: { word($0.key) == "kind" }) else {
            fail(
                node, "the notifier `\(name)` has no `kind`",
                hint: "use one of \(Self.own.keys.sorted().joined(separator: ", "))")
            return nil
        }
        let kinds = Self.own.keys.sorted()
        guard let kind = choice(kindNode.value, "kind of notifier", kinds, { kinds.contains($0) ? $0 : nil }) else {
            return nil
        }
        var texts: [String: String] = [:]
        var command: [String] = []
        var to: [String] = []
        var events: Set<NotifierSettings.Event> = [.approval, .reminder]
        var quiet: NotifierSettings.Quiet?
        var batch: Int64 = 0
        var after: Int64 = 0
        let known = Self.common + (Self.own[kind] ?? [])
        for (keyNode, value) in pairs {
            guard let key = word(keyNode) else { continue }
            guard known.contains(key) else {
                unknown(keyNode, key, known: known)
                continue
            }
            switch key {
            case "kind": break
            case "on":
                events = Set(
                    (self.texts(value, key) ?? []).compactMap { text, node in
                        let words = NotifierSettings.Event.allCases.map(\.rawValue)
                        if let event = NotifierSettings.Event(rawValue: text) { return event }
                        fail(
                            node, "`\(text)` is nothing a notifier is told",
                            hint: "use \(words.joined(separator: ", "))")
                        return nil
                    })
            case "quiet": quiet = self.quiet(value)
            case "batch": batch = seconds(value, key, atMost: 3600) ?? 0
            case "after": after = seconds(value, key, atMost: Self.longestWaitSeconds) ?? 0
            case "command": command = (self.texts(value, key) ?? []).map(\.text)
            case "to": to = (self.texts(value, key) ?? []).map(\.text)
            case "answers_as":
                texts[key] = text(value, key)
                if let name = texts[key], !SupervisorName.isValid(name) {
                    fail(value, "`\(name)` is no supervisor's name", hint: SupervisorName.rule)
                }
            case "url", "server":
                texts[key] = text(value, key)
                let schemes = key == "url" ? ["https://", "http://"] : ["smtp://", "smtps://"]
                if let address = texts[key],
                    !schemes.contains(where: { address.hasPrefix($0) && address.utf8.count > $0.utf8.count })
                {
                    fail(value, "`\(key)` needs an address that begins with \(schemes.joined(separator: " or "))")
                }
            case "secret_file", "token_file", "password_file":
                texts[key] = text(value, key)
                if let path = texts[key], !path.isAbsolutePath {
                    fail(value, "`\(key)` needs an absolute path", hint: "secrets do not belong into a policy")
                }
            default: texts[key] = text(value, key)
            }
        }
        func required(_ key: String) -> String? {
            if texts[key] == nil, !pairs.contains(where: { word($0.key) == key }) {
                fail(node, "the notifier `\(name)` has no `\(key)`")
            }
            return texts[key]
        }
        let made: NotifierSettings.Kind?
        switch kind {
        case "desktop": made = .desktop
        case "command":
            if command.isEmpty {
                fail(node, "the notifier `\(name)` has no `command`", hint: "a list: [/usr/bin/program, argument]")
            }
            made = .command(command)
        case "webhook":
            let (url, file) = (required("url"), required("secret_file"))
            made = url.flatMap { url in file.map { .webhook(url: url, secretFile: $0) } }
        case "ntfy": made = required("url").map { .ntfy(url: $0, tokenFile: texts["token_file"]) }
        default:
            let (server, from) = (required("server"), required("from"))
            if to.isEmpty { fail(node, "the notifier `\(name)` has no `to`") }
            for address in to + [from].compactMap({ $0 }) where MailAddress(address) == nil {
                fail(node, "`\(address)` is no mail address")
            }
            made = server.flatMap { server in
                from.map {
                    .email(
                        server: server, from: $0, to: to, username: texts["username"],
                        passwordFile: texts["password_file"])
                }
            }
        }
        return made.map {
            NotifierSettings(
                name: name, kind: $0, events: events, quiet: quiet, batchSeconds: batch, afterSeconds: after,
                answersAs: texts["answers_as"])
        }
    }

    /// `22:00-07:00`.
    private mutating func quiet(_ node: YAMLNode) -> NotifierSettings.Quiet? {
        let ends =
            text(node, "quiet").map { $0.split(separator: "-", omittingEmptySubsequences: false).map(String.init) }
            ?? []
        func minutes(_ text: String) -> Int64? {
            let parts = text.split(separator: ":", omittingEmptySubsequences: false)
            guard parts.count == 2, parts.allSatisfy({ $0.utf8.count == 2 }), let hour = Int64(parts[0]),
                let minute = Int64(parts[1]), (0...24).contains(hour), (0...59).contains(minute),
                hour < 24 || minute == 0
            else { return nil }
            return hour * 60 + minute
        }
        guard ends.count == 2, let from = minutes(ends[0]), let until = minutes(ends[1]), from != until else {
            fail(node, "`quiet` needs two times of the day", hint: "such as `\"22:00-07:00\"`")
            return nil
        }
        return .init(from: from, until: until)
    }

    mutating func links(_ node: YAMLNode) -> LinkSettings? {
        guard let pairs = pairs(node, "`links`") else { return nil }
        var base: String?
        var valid: Int64 = 900
        for (keyNode, value) in pairs {
            guard let key = word(keyNode) else { continue }
            switch key {
            case "base_url":
                base = text(value, key)
                if let address = base,
                    !["https", "http"].contains(WebAddress(address)?.scheme)
                        || address.utf8.contains(where: { "?#@".utf8.contains($0) })
                {
                    fail(
                        value, "`base_url` needs the address of the supervisors' port, without query or user",
                        hint: "such as `https://gate.example.com`")
                }
            case "valid_for": valid = seconds(value, key, atMost: 86_400) ?? valid
            default: unknown(keyNode, key, known: ["base_url", "valid_for"])
            }
        }
        guard var base else {
            if !pairs.contains(where: { word($0.key) == "base_url" }) { fail(node, "`links` has no `base_url`") }
            return nil
        }
        while base.hasSuffix("/") { base.removeLast() }
        return LinkSettings(baseURL: base, validSeconds: valid)
    }
}
