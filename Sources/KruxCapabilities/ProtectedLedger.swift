import Foundation
import KruxCore
import KruxCrypto

/// What is protected in a workspace, on the disk while processes run there: after a crash it says what was there before.
///
/// `protected/<agent>.json` is `{names, roots, places: {place: [{path, mode, folder | link | file | other}]}}`; beside it
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
        let json = JSONValue.object([
            "names": .strings(names.atRoot), "roots": .strings(roots.map(\.path)),
            "places": .object(
                JSONObject(
                    places.map { ($0.key.absolute, .array($0.value.map(Self.json))) }.sorted { $0.0 < $1.0 })),
        ])
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

    struct Baseline {
        var places: [Workspace.Path: [ProtectedFiles.Item]] = [:]
        /// Mounts that are not there any more.
        var unmounted: [String] = []
    }

    /// What was there before processes whose end nobody saw; nil where there are none.
    /// - Throws: `StructuredError` `.ioFailure` for a file that cannot be read.
    func left(_ workspace: Workspace) throws(StructuredError) -> (ProtectedNames, Baseline)? {
        guard isLeft else { return nil }
        guard let data = FileManager.default.contents(atPath: file),
            let json = try? JSONParser.parse([UInt8](data)), let members = json["places"]?.object?.members,
            let texts = json["names"]?.array?.compactMap(\.string)
        else { throw unreadable }
        var baseline = Baseline()
        let roots = json["roots"]?.array?.compactMap(\.string) ?? []
        baseline.unmounted = roots.filter { (try? workspace.place($0)) == nil }
        for member in members {
            if baseline.unmounted.contains(where: { member.key.hasPrefix($0 + "/") }) { continue }
            var items: [ProtectedFiles.Item] = []
            for entry in member.value.array ?? [] {
                guard let item = try Self.item(entry, workspace) else { throw unreadable }
                items.append(item)
            }
            baseline.places[try workspace.place(member.key)] = items
        }
        return (ProtectedNames(texts), baseline)
    }

    private static func json(_ item: ProtectedFiles.Item) -> JSONValue {
        var json: JSONObject = ["path": .string(item.path.absolute), "mode": .int(Int64(item.mode))]
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

    private static func item(_ json: JSONValue, _ workspace: Workspace) throws(StructuredError) -> ProtectedFiles.Item?
    {
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
        return ProtectedFiles.Item(path: try workspace.place(text), mode: mode_t(mode), kind: kind)
    }
}
