import Foundation
import KruxCore
import KruxCrypto
import KruxSandbox

/// A repository elsewhere, which git reaches through the gate's proxy: its host alone, over http or https.
struct GitRemote: Sendable {
    /// What the capabilities on remotes have in common.
    static let properties: [Property] = [
        .optional(
            "secret", .string(minLength: 1, maxLength: 128),
            "A secret of the vault that git logs in with; see secrets.list."),
        .optional(
            "username", .string(minLength: 1, maxLength: 256), "Who logs in with it.", default: "x-access-token"),
        .optional("timeout_seconds", .integer(1...86_400), "Give up after this long.", default: 600),
    ]

    static let pulled: [Property] = [
        GitSchema.repository,
        .optional("remote", .string(minLength: 1, maxLength: 256), "The remote's name.", default: "origin"),
        .optional(
            "url", .string(minLength: 1, maxLength: 8192),
            "Its http or https URL; what the repository's settings say of the remote if absent.", role: .url),
        .optional("branch", .string(minLength: 1, maxLength: 256), "The branch; the current one if absent."),
    ]

    static let output: ObjectSchema = [
        .required("path", .text, "The repository."),
        .required("url", .string(maxLength: 8300), "The remote."),
        .required("output", .string(maxLength: 32 << 20), "What git said."), GitSchema.putBack,
        FilteringProxy.schema,
    ]

    static let errors = [
        GitSchema.failed, GitSchema.unavailable, NetworkSchema.refused, SecretSchema.locked, SecretSchema.outOfScope,
    ]

    let url: WebURL
    let secret: String?, username: String
    let timeout: Int64

    init(_ arguments: Arguments) throws(StructuredError) {
        guard let text = arguments.optionalText("url") else {
            throw StructuredError(
                .invalidArguments, "the remote has no URL", recovery: ["Give it as `url`, with http or https."])
        }
        url = try WebURL(text)
        secret = arguments.optionalText("secret")
        username = try arguments.text("username")
        timeout = try arguments.int("timeout_seconds")
        guard username.utf8.allSatisfy({ $0 > 32 && $0 < 127 && $0 != UInt8(ascii: ":") }) else {
            throw StructuredError(
                .invalidArguments, "`username` has a colon, a blank or another sign that none may have",
                recovery: ["Leave it out, or name the account."])
        }
    }

    /// Settings that let git reach it, and keep a repository's own from leading elsewhere.
    var settings: [String] {
        // For this very URL as well: a setting for a longer one outweighs one for all.
        let places = ["http", "http.\(url.address.origin)/", "http.\(url.text)"]
        return [
            "protocol.\(url.address.scheme).allow=always", "http.followRedirects=initial", "http.extraHeader=",
            "url.\(url.text).insteadOf=\(url.text)", "url.\(url.text).pushInsteadOf=\(url.text)",
            "fetch.recurseSubmodules=false", "push.recurseSubmodules=no", "transfer.fsckObjects=true",
            // The proxy asks for a body's length.
            "http.postBuffer=\(url.address.scheme == "http" ? 100 << 20 : 1 << 20)",
        ] + places.flatMap { ["\($0).sslVerify=true", "\($0).proxy=\(FilteringProxy.address)", "\($0).cookieFile="] }
    }

    /// The box of git for it, and variables with what it logs in with.
    func prepare(_ launch: inout ConfinedProcess.Launch, _ context: CallContext) throws(StructuredError) {
        let address = url.address
        if let hosts = context.confinement.settings.hosts,
            !hosts.contains(where: { $0.matches(address.host, address.port) })
        {
            throw StructuredError(
                .blocked, "`\(address.host):\(address.port)` is no host that a rule's `sandbox` names",
                recovery: ["Ask your supervisor for a rule with `sandbox: {hosts: […]}`."])
        }
        guard let only = HostPattern("\(address.host):\(address.port)") else {
            throw StructuredError(
                .invalidArguments, "git is not let to an IPv6 address by its number", recovery: ["Use the host's name."]
            )
        }
        launch.confinement.settings.hosts = [only]
        launch.confinement.settings.files = min(launch.confinement.settings.files, .workspaceWrite)
        launch.timeoutSeconds = timeout
        guard let secret else { return }
        let value = try context.secret(secret, address)
        let login = value.withBytes { Base64.encode(Array("\(username):".utf8) + Array($0)) }
        // The empty one forgets what a repository's settings say.
        let key = "http.\(url.text).extraHeader"
        launch.environment.merge([
            "GIT_CONFIG_COUNT": "2", "GIT_CONFIG_KEY_0": key, "GIT_CONFIG_VALUE_0": "", "GIT_CONFIG_KEY_1": key,
            "GIT_CONFIG_VALUE_1": "Authorization: Basic \(login)",
        ]) { _, new in new }
    }

    // MARK: What a repository says of its remotes

    /// The arguments with `url` and `branch` as the repository's files have them, where they are absent. Nothing is run for
    /// that: what git would do is decided before git is started.
    static func resolve(_ arguments: JSONObject, _ workspace: Workspace) throws(StructuredError) -> JSONObject {
        var arguments = arguments
        guard let given = arguments["path"]?.string, let remote = arguments["remote"]?.string else { return arguments }
        let path = try GitTool.root(of: try workspace.place(given), workspace).absolute
        if arguments["url"]?.string == nil {
            guard let url = try remoteURL(remote, path, workspace) else {
                throw StructuredError(
                    .notFound, "`\(path)` has no remote `\(remote.prefix(64))`",
                    recovery: ["Name another remote, or give its `url`."])
            }
            arguments["url"] = .string(url)
        }
        if arguments["branch"]?.string == nil {
            let head = try read(path + "/.git/HEAD", workspace).trimmingCharacters(in: .whitespacesAndNewlines)
            let prefix = "ref: refs/heads/"
            guard head.hasPrefix(prefix) else {
                throw StructuredError(
                    .conflict, "`\(path)` is on no branch", recovery: ["Name one with `branch`, or use git.checkout."])
            }
            arguments["branch"] = .string(String(head.dropFirst(prefix.count)))
        }
        return arguments
    }

    /// The commit that the current branch is at.
    /// - Throws: `StructuredError` `.notFound` where there is none yet, `.conflict` for anything but a commit.
    static func head(_ given: String, _ workspace: Workspace) throws(StructuredError) -> String {
        let path = try GitTool.root(of: try workspace.place(given), workspace).absolute + "/.git/"
        func line(_ text: String) -> String { text.trimmingCharacters(in: .whitespacesAndNewlines) }
        var text = line(try read(path + "HEAD", workspace))
        // A branch may stand for another.
        for _ in 0..<5 where text.hasPrefix("ref: ") {
            let name = String(text.dropFirst(5))
            guard name.hasPrefix("refs/"), !name.split(separator: "/").contains("..") else { break }
            do throws(StructuredError) { text = line(try read(path + name, workspace)) } catch
                where error.kind == .notFound
            {
                var packed = ""
                do throws(StructuredError) { packed = try read(path + "packed-refs", workspace) } catch
                    where error.kind == .notFound
                {
                    // No branch has been packed.
                }
                guard let found = packed.split(separator: "\n").first(where: { $0.hasSuffix(" " + name) }) else {
                    throw StructuredError(
                        .notFound, "`\(given)` has no commit yet", recovery: ["Make one with git.commit."])
                }
                text = String(found.prefix { $0 != " " })
            }
        }
        guard [40, 64].contains(text.utf8.count),
            text.utf8.allSatisfy({ (48...57).contains($0) || (97...102).contains($0) })
        else {
            throw StructuredError(
                .conflict, "what `\(given)` is at is no commit", recovery: ["Look at it with git.status and git.log."])
        }
        return text
    }

    private static func read(_ path: String, _ workspace: Workspace) throws(StructuredError) -> String {
        let (descriptor, status) = try workspace.openFile(try workspace.place(path), O_RDONLY)
        defer { close(descriptor) }
        guard status.st_size <= 1 << 20 else {
            throw StructuredError(.tooLarge, "`\(path)` is larger than any that git writes", recovery: ["Give `url`."])
        }
        let bytes = try Workspace.readAll(
            descriptor, count: Int(status.st_size), at: 0, path)
        return String(decoding: bytes, as: UTF8.self)
    }

    /// `url` of `[remote "NAME"]` in a repository's own settings: the first, as for git.
    private static func remoteURL(_ remote: String, _ path: String, _ workspace: Workspace) throws(StructuredError)
        -> String?
    {
        var isInside = false
        for line in try read(path + "/.git/config", workspace).split(separator: "\n") {
            let text = line.trimmingCharacters(in: .whitespaces)
            if text.hasPrefix("[") {
                isInside = text == "[remote \"\(remote)\"]"
            } else if isInside, let mark = text.firstIndex(of: "="),
                text[..<mark].trimmingCharacters(in: .whitespaces).lowercased() == "url"
            {
                return text[text.index(after: mark)...].trimmingCharacters(in: .whitespaces)
            }
        }
        return nil
    }
}

/// What git did with a remote.
struct GitRemoteOutput: CapabilityOutput {
    let path: String, url: String, result: GitTool.Result

    var json: JSONObject {
        var json: JSONObject = [
            "path": .string(path), "url": .string(url), "output": .string(result.text + result.said),
            "connections": .array(result.connections),
        ]
        if !result.putBack.isEmpty { json["put_back"] = .strings(result.putBack) }
        return json
    }
}
