import CSandbox
import Foundation
package import KruxCore
import KruxCrypto

/// Deleted things: `workspaces/.trash/<agent>/<id>/entry` beside `info.json` with the place it came from. The trash
/// describes itself, so a crash between the move and the record loses nothing.
package struct Trash {
    let workspace: Workspace

    package init(workspace: Workspace) { self.workspace = workspace }

    /// Moves `path` into the trash: in one rename, or from another file system.
    func take(_ path: Workspace.Path, at time: Timestamp) throws(StructuredError) -> String {
        let parent = try workspace.openParent(path)
        defer { close(parent) }
        return try take(Array(path.name.utf8CString), from: parent, path, at: time)
    }

    /// Moves something whose name is no text into the trash.
    func take(_ name: [CChar], in parent: Workspace.Path, at time: Timestamp) throws(StructuredError) -> String {
        let holder = try workspace.open(parent, openPathOnly | O_DIRECTORY)
        defer { close(holder) }
        return try take(name, from: holder, parent, at: time)
    }

    private func take(
        _ name: [CChar], from parent: Int32, _ path: Workspace.Path, at time: Timestamp
    ) throws(StructuredError) -> String {
        var transfer: TreeTransfer?
        let id = try make(path, at: time) { (folder) throws(StructuredError) in
            var result = Workspace.rename(
                name, in: parent, to: folder, as: Array("entry".utf8CString), replace: false)
            if result == -EXDEV {
                // Whole before it has its name.
                transfer = try TreeTransfer(name, in: parent, to: folder, as: "part", place: path.absolute)
                result = krux_renameat2(folder, "part", folder, "entry", 1)
                if result < 0 { TreeTransfer.remove("part", in: folder) } else { try transfer?.settle() }
            }
            if result < 0 { throw FileFailure.error(-result, path.absolute) }
        }
        guard let stayed = transfer?.removeOriginal(), stayed > 0 else { return id }
        throw StructuredError(
            .conflict,
            "the trash has what was at `\(path.absolute)` as \(id); \(stayed) that changed meanwhile are there still",
            recovery: ["Look at what is left, and delete it too."],
            context: ["path": .string(path.absolute), "trash_id": .string(id), "stayed": .int(Int64(stayed))])
    }

    /// A new place in the trash, filled by `fill`; gone again when that throws.
    private func make(
        _ path: Workspace.Path, at time: Timestamp, _ fill: (Int32) throws(StructuredError) -> Void
    ) throws(StructuredError) -> String {
        workspace.meter.forget()
        let id = "tr_" + randomBytes(8).hex
        guard mkdirat(workspace.trash, id, 0o700) == 0 else { throw FileFailure.error(errno, path.absolute) }
        let folder = openat(workspace.trash, id, openPathOnly | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC)
        guard folder >= 0 else { throw FileFailure.error(errno, path.absolute) }
        defer { close(folder) }
        let info: JSONValue = ["path": .string(path.absolute), "deleted_at": .string(time.rfc3339)]
        do throws(StructuredError) {
            try write(info.canonicalBytes(), in: folder, path)
            try fill(folder)
        } catch {
            unlinkat(folder, "entry", 0)
            unlinkat(folder, "info.json", 0)
            unlinkat(workspace.trash, id, AT_REMOVEDIR)
            throw error
        }
        return id
    }

    /// Keeps content that has no other place.
    func keep(_ bytes: [UInt8], of path: Workspace.Path, at time: Timestamp) throws(StructuredError) -> String {
        try make(path, at: time) { (folder) throws(StructuredError) in
            let file = openat(folder, "entry", O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0o600)
            guard file >= 0 else { throw FileFailure.error(errno, path.absolute) }
            defer { close(file) }
            try Workspace.writeAll(file, bytes[...], path.absolute)
        }
    }

    private func write(_ bytes: [UInt8], in folder: Int32, _ path: Workspace.Path) throws(StructuredError) {
        let file = openat(folder, "info.json", O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0o600)
        guard file >= 0 else { throw FileFailure.error(errno, path.absolute) }
        defer { close(file) }
        try Workspace.writeAll(file, bytes[...], path.absolute)
    }

    /// Writes down where something incomplete is about to be, for whoever comes after a crash.
    /// - Returns: the note's name in the trash.
    func note(_ place: String) throws(StructuredError) -> String {
        let name = "part-\(randomBytes(8).hex)"
        let file = openat(workspace.trash, name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0o600)
        guard file >= 0 else { throw FileFailure.error(errno, place) }
        defer { close(file) }
        try Workspace.writeAll(file, Array(place.utf8)[...], place)
        return name
    }

    /// Agents in whose trash a crash may have left something; none of their workspaces is opened for that.
    package static func incomplete(home: String) -> [String] {
        let folder = "\(home)/workspaces/.trash"
        func names(_ path: String) -> [String] { (try? FileManager.default.contentsOfDirectory(atPath: path)) ?? [] }
        return names(folder).filter { agent in
            names("\(folder)/\(agent)").contains { name in
                var status = stat()
                return !name.hasPrefix("tr_") || lstat("\(folder)/\(agent)/\(name)/entry", &status) != 0
            }
        }.sorted()
    }

    /// After a crash: removes what was not copied to its end. What it was copied from is whole.
    package func removeIncomplete() throws(StructuredError) {
        for name in try Workspace.names(in: workspace.trash, "the trash") {
            let text = String(decoding: name.dropLast().map { UInt8(bitPattern: $0) }, as: UTF8.self)
            if text.hasPrefix("tr_") {
                let folder = openat(workspace.trash, name, openPathOnly | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC)
                guard folder >= 0 else { continue }
                defer { close(folder) }
                guard faccessat(folder, "entry", F_OK, AT_SYMLINK_NOFOLLOW) != 0 else { continue }
                _ = try remove(text)
            } else if text.hasPrefix("part-") {
                let file = openat(workspace.trash, name, O_RDONLY | O_NOFOLLOW | O_CLOEXEC)
                guard file >= 0 else { continue }
                defer { close(file) }
                let bytes = try Workspace.readAll(file, count: 16 << 10, at: 0, text)
                // A mount that is not there now keeps its note.
                guard let place = try? workspace.place(String(decoding: bytes, as: UTF8.self)), !place.isRoot else {
                    continue
                }
                if place.name.hasPrefix(".kruxos-"), place.name.hasSuffix(".tmp"),
                    let parent = try? workspace.openParent(place)
                {
                    defer { close(parent) }
                    guard TreeTransfer.remove(place.name, in: parent) else { continue }
                }
                unlinkat(workspace.trash, name, 0)
            }
        }
    }

    /// Removes something for good, what tells of it last.
    /// - Returns: whether it is gone.
    package func remove(_ id: String) throws(StructuredError) -> Bool {
        let folder = try openEntry(id)
        defer { close(folder) }
        for name in ["entry", "part"] { guard TreeTransfer.remove(name, in: folder) else { return false } }
        unlinkat(folder, "info.json", 0)
        return unlinkat(workspace.trash, id, AT_REMOVEDIR) == 0
    }

    /// Where a trashed thing came from.
    func origin(_ id: String) throws(StructuredError) -> String {
        let folder = try openEntry(id)
        defer { close(folder) }
        let file = openat(folder, "info.json", O_RDONLY | O_NOFOLLOW | O_CLOEXEC)
        guard file >= 0 else { throw unknown(id) }
        defer { close(file) }
        let bytes = try Workspace.readAll(file, count: 16 << 10, at: 0, "trash/\(id)")
        guard let path = (try? JSONParser.parse(bytes))?["path"]?.string else { throw unknown(id) }
        return path
    }

    /// Moves a trashed thing to `destination`, where nothing may be.
    func restore(_ id: String, to destination: Workspace.Path) throws(StructuredError) {
        let folder = try openEntry(id)
        defer { close(folder) }
        let parent = try workspace.openParent(destination)
        defer { close(parent) }
        workspace.meter.forget()
        try workspace.charge(destination, bytes: 0)
        let result = Workspace.rename(
            Array("entry".utf8CString), in: folder, to: parent, as: Array(destination.name.utf8CString), replace: false)
        workspace.meter.forget()
        if result == -EXDEV {
            // What stays in the trash goes with it.
            _ = try workspace.copyAcross(
                "entry", in: folder, to: parent, in: workspace.folder(of: destination), as: destination.name,
                replace: false, place: destination.absolute)
            TreeTransfer.remove("entry", in: folder)
        } else if result < 0 {
            throw FileFailure.error(-result, destination.absolute)
        }
        unlinkat(folder, "info.json", 0)
        unlinkat(workspace.trash, id, AT_REMOVEDIR)
    }

    private func openEntry(_ id: String) throws(StructuredError) -> Int32 {
        guard id.hasPrefix("tr_"), id.utf8.count == 19, id.utf8.dropFirst(3).allSatisfy({ hexDigit($0) != nil }) else {
            throw unknown(id)
        }
        let folder = openat(workspace.trash, id, openPathOnly | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC)
        guard folder >= 0 else { throw unknown(id) }
        return folder
    }

    private func unknown(_ id: String) -> StructuredError {
        StructuredError(
            .notFound, "the trash holds nothing named `\(id.prefix(64))`",
            recovery: ["Use the trash_id that filesystem.delete returned."])
    }
}
