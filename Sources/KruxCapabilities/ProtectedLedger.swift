import Foundation
import KruxCore
import KruxCrypto

/// What is protected in a workspace, on the disk while processes run there: after a crash it says what was there before.
///
/// `protected/<agent>.json` is `{names, roots: [{path, source?, inode, places: {place: [{path, mode, kind, …}]}}]}`; beside it
/// `<agent>.running` stands while processes run. Neither is synced: both are on the workspaces' own file system, whose
/// journal keeps the order in which they and what processes did came about.
final class ProtectedLedger: Sendable {
    private let folder: String
    private let file: String
    private let marker: String

    init(folder: String, agent: String) {
        self.folder = folder
        file = "\(folder)/\(agent).json"
        marker = "\(folder)/\(agent).running"
    }

    /// Before the first process starts.
    func begin(
        _ names: ProtectedNames, _ places: [Workspace.Path: [ProtectedFiles.Item]], _ roots: [Workspace.Root]
    ) throws(StructuredError) {
        if mkdir(folder, 0o700) != 0, errno != EEXIST { throw FileFailure.error(errno, folder) }
        let json: JSONValue = [
            "names": .strings(names.atRoot),
            "roots": .array(
                roots.map { root in
                    let own = places.filter { $0.key.root === root }
                    return .object([
                        "path": .string(root.path), "source": .optional(root.mount?.source),
                        // More than a JSON number holds on some file systems.
                        "inode": .string("\(root.inode)"),
                        "places": .object(
                            JSONObject(
                                own.map { ($0.key.relative, .array($0.value.map(Self.json))) }.sorted { $0.0 < $1.0 })),
                    ])
                }),
        ]
        let bytes = Data(json.canonicalBytes())
        if FileManager.default.contents(atPath: file) != bytes {
            do { try bytes.write(to: URL(fileURLWithPath: file), options: .atomic) } catch {
                throw StructuredError(
                    .ioFailure, "what is protected cannot be written down, so no process begins: \(error)",
                    recovery: ["Look at the disk of the gate's home."])
            }
        }
        let descriptor = open(marker, O_WRONLY | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0o600)
        guard descriptor >= 0 else { throw FileFailure.error(errno, marker) }
        close(descriptor)
    }

    /// After the last has ended and everything is as it was.
    func end() { unlink(marker) }

    /// Whether processes ran whose end nobody saw.
    var isLeft: Bool { access(marker, F_OK) == 0 }

    var unreadable: StructuredError {
        StructuredError(
            .ioFailure, "`\(file)` cannot be read: it says what was protected when the gate was last stopped",
            agent: "No process starts in your workspace until your supervisor has looked at it.",
            recovery: [
                "A supervisor looks through the workspace's protected places, then removes `\(marker)`."
            ])
    }

    struct Left {
        var names: ProtectedNames
        var places: [Workspace.Path: [ProtectedFiles.Item]] = [:]
        var roots: [Workspace.Root] = []
        /// Roots that are not there any more, or are other folders.
        var missing: [String] = []
    }

    /// What was there before processes whose end nobody saw; nil where there are none.
    /// - Throws: `StructuredError` `.ioFailure` for a file that cannot be read.
    func left(_ workspace: Workspace) throws(StructuredError) -> Left? {
        guard isLeft else { return nil }
        guard let data = FileManager.default.contents(atPath: file),
            let json = try? JSONParser.parse([UInt8](data)), let roots = json["roots"]?.array,
            let texts = json["names"]?.array?.compactMap(\.string)
        else { throw unreadable }
        var left = Left(names: ProtectedNames(texts))
        for entry in roots {
            guard let path = entry["path"]?.string, let inode = entry["inode"]?.string.flatMap({ UInt64($0) }),
                let places = entry["places"]?.object?.members
            else { throw unreadable }
            guard let root = workspace.root(path, source: entry["source"]?.string, inode: inode) else {
                left.missing.append(path)
                continue
            }
            left.roots.append(root)
            for place in places {
                var items: [ProtectedFiles.Item] = []
                for item in place.value.array ?? [] {
                    guard let item = Self.item(item, root) else { throw unreadable }
                    items.append(item)
                }
                left.places[Self.path(place.key, root)] = items
            }
        }
        return left
    }

    /// The place that a path relative to a root names.
    private static func path(_ relative: String, _ root: Workspace.Root) -> Workspace.Path {
        Workspace.Path(root, relative.pathComponents.filter { !$0.utf8Equals(".") })
    }

    private static func json(_ item: ProtectedFiles.Item) -> JSONValue {
        var json: JSONObject = ["path": .string(item.path.relative), "mode": .int(Int64(item.mode))]
        switch item.kind {
        case .folder: json["kind"] = "folder"
        case .link(let target):
            json["kind"] = "link"
            json["target"] = .string(target)
        case .file(let digest, let bytes):
            json["kind"] = "file"
            json["digest"] = .string(digest.hex)
            if let bytes { json["content"] = .string(Base64.encode(bytes)) }
        case .other: json["kind"] = "other"
        }
        return .object(json)
    }

    private static func item(_ json: JSONValue, _ root: Workspace.Root) -> ProtectedFiles.Item? {
        guard let text = json["path"]?.string, let mode = json["mode"]?.int else { return nil }
        let kind: ProtectedFiles.Item.Kind
        switch json["kind"]?.string {
        case "folder": kind = .folder
        case "link":
            guard let target = json["target"]?.string else { return nil }
            kind = .link(target)
        case "file":
            guard let digest = json["digest"]?.string.flatMap(Digest.init(hex:)) else { return nil }
            kind = .file(digest, json["content"]?.string.flatMap(Base64.decode))
        case "other": kind = .other
        default: return nil
        }
        return ProtectedFiles.Item(path: path(text, root), mode: mode_t(mode), kind: kind)
    }
}
