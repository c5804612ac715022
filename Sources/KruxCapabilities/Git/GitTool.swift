import Foundation
import KruxCore
import KruxSandbox

/// Runs the machine's git in a box: without hooks, without what a repository's configuration would start in its place,
/// without asking anybody. What only reads sees the workspace read-only, so that nothing a repository's settings start
/// changes anything.
struct GitTool {
    let context: CallContext
    /// A folder of the repository, canonical.
    let path: Workspace.Path

    init(_ path: String, _ context: CallContext) throws(StructuredError) {
        self.context = context
        self.path = try context.workspace.place(path)
    }

    /// The repository that a folder lies in: the nearest with a folder `.git`. What else git would take for one, such as a
    /// folder laid out like a bare repository, is none here: agents may write its settings.
    static func root(of path: Workspace.Path, _ workspace: Workspace) throws(StructuredError) -> Workspace.Path {
        for count in stride(from: path.components.count, through: 0, by: -1) {
            let folder = Workspace.Path(path.root, Array(path.components.prefix(count)))
            guard let status = try workspace.status(Workspace.Path(path.root, folder.components + [".git"])) else {
                continue
            }
            guard status.st_mode & S_IFMT == S_IFDIR else {
                throw StructuredError(
                    .wrongType, "`\(folder.absolute)/.git` is no folder",
                    recovery: ["Use a repository of its own: linked work trees and submodules are not supported."])
            }
            return folder
        }
        throw StructuredError(
            .notFound, "`\(path.absolute)` is in no git repository", recovery: ["Make one with git.init or git.clone."],
            context: ["path": .string(path.absolute)])
    }

    static let largestOutput = 4 << 20

    struct Result {
        let text: String
        let isTruncated: Bool
        let putBack: [String]
        /// The end of what it wrote to standard error.
        let said: String
        /// What it reached, of a remote.
        let connections: [JSONValue]
    }

    /// Programs that a repository's own settings could name.
    private static let settings = [
        "core.hooksPath=/dev/null", "core.fsmonitor=false", "core.pager=cat", "core.editor=false", "core.askPass=",
        "diff.external=", "gpg.program=false", "commit.gpgSign=false", "tag.gpgSign=false", "credential.helper=",
        "core.sshCommand=false", "protocol.allow=never", "uploadpack.packObjectsHook=", "gc.auto=0",
        "maintenance.auto=false", "submodule.recurse=false", "init.defaultBranch=main", "advice.detachedHead=false",
        "color.ui=false",
    ]

    /// - Parameters:
    ///   - reads: nothing but git's own output is wanted.
    ///   - makesRepository: git itself writes the settings of a new repository in this folder.
    ///   - remote: what it may reach; nothing without one.
    /// - Throws: `StructuredError` `.conflict` with what git said when it fails.
    func run(_ arguments: [String], reads: Bool, makesRepository: Bool = false, remote: GitRemote? = nil)
        async throws(StructuredError) -> Result
    {
        let agent = context.agent.text
        var launch = ConfinedProcess.Launch(
            arguments: ["git"] + (Self.settings + (remote?.settings ?? [])).flatMap { ["-c", $0] } + arguments,
            environment: [
                "PATH": ConfinedProcess.searchPath, "HOME": "/tmp", "LANG": "C.UTF-8", "TMPDIR": "/tmp",
                "GIT_CONFIG_NOSYSTEM": "1", "GIT_CONFIG_GLOBAL": "/dev/null", "GIT_TERMINAL_PROMPT": "0",
                "GIT_OPTIONAL_LOCKS": "0", "GIT_ATTR_NOSYSTEM": "1", "GIT_CEILING_DIRECTORIES": "/workspace:/mnt",
                "GIT_AUTHOR_NAME": agent, "GIT_AUTHOR_EMAIL": "\(agent)@kruxos.invalid", "GIT_COMMITTER_NAME": agent,
                "GIT_COMMITTER_EMAIL": "\(agent)@kruxos.invalid",
            ], workspace: context.workspace.root.descriptor, workspacePath: context.workspace.root.path,
            directory: path.directory, timeoutSeconds: 300, outputLimit: Self.largestOutput,
            confinement: context.confinement)
        if !makesRepository {
            let root = try Self.root(of: path, context.workspace)
            launch.environment["GIT_DIR"] = root.absolute + "/.git"
            launch.environment["GIT_WORK_TREE"] = root.absolute
        }
        if reads { launch.confinement.settings.files = .readOnly }
        launch.confinement.settings.hosts = nil
        try remote?.prepare(&launch, context)
        let output = try await ProcessRun.guarded(
            launch, command: "git " + arguments.joined(separator: " "), isBackground: false,
            repository: makesRepository ? FreshRepository(path: path, origin: remote?.url.text) : nil,
            isExclusive: remote != nil, context)
        guard let result = output.result else {
            throw StructuredError(.internalError, "git went into the background")
        }
        let said = String(decoding: result.standardError.kept.suffix(4000), as: UTF8.self)
        guard result.ending == .exited(0) else {
            let why =
                switch result.ending {
                case .exited(let code): "git ended with \(code)"
                case .signalled(let signal): "git was ended by signal \(signal)"
                case .timedOut: "git took longer than five minutes"
                }
            throw StructuredError(
                .conflict, "\(why): \(said.trimmingCharacters(in: .whitespacesAndNewlines))",
                recovery: ["Look at the repository with git.status and git.log."],
                context: ["path": .string(path.absolute)])
        }
        let kept = result.standardOutput
        return Result(
            text: String(decoding: kept.kept, as: UTF8.self), isTruncated: kept.total > kept.kept.count,
            putBack: output.changes, said: said, connections: output.proxy?.connections ?? [])
    }
}

/// What the capabilities on repositories have in common.
enum GitSchema {
    static let repository = Property.optional(
        "path", .path, "The repository.", default: ".", role: .path(followsLast: true, reach: .below))

    static let text: ObjectSchema = [
        .required("path", .text, "The repository."),
        .required("text", .string(maxLength: 16 << 20), "git's output."),
        .required("truncated", .boolean, "Whether it was cut, at 4 MiB."),
    ]

    static let putBack = Property.optional(
        "put_back", .array(.text, maxItems: 100_000),
        "Protected places that git had changed, and that are as they were.")

    static let failed = CapabilityDeclaration.DeclaredError(
        .conflict, when: "git refuses", recovery: "read what it says, and look with git.status")
    static let unavailable = CapabilityDeclaration.DeclaredError(
        .confinementUnavailable, when: "the machine cannot confine it", recovery: "tell your supervisor")

    /// A name of a branch, commit or tag: never an option.
    static func revision(_ text: String) throws(StructuredError) -> String {
        guard !text.hasPrefix("-"), !text.utf8.contains(where: { $0 < 33 || $0 == 127 }) else {
            throw StructuredError(
                .invalidArguments, "`\(text.prefix(100))` is no name of a branch or commit",
                recovery: ["Use a name that git.branch or git.log shows."])
        }
        return text
    }
}

/// git's output as a capability's.
struct GitText: CapabilityOutput {
    let path: String, text: String, isTruncated: Bool

    init(_ tool: GitTool, _ result: GitTool.Result) {
        path = tool.path.absolute
        text = result.text
        isTruncated = result.isTruncated
    }

    var json: JSONObject { ["path": .string(path), "text": .string(text), "truncated": .bool(isTruncated)] }
}
