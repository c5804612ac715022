import CSandbox
import Foundation
import KruxCore
import KruxCrypto

/// Whole-file reads, atomic writes and copies over descriptors.
extension Workspace {
    static func readAll(_ descriptor: Int32, count: Int, at offset: Int64, _ place: String) throws(StructuredError)
        -> [UInt8]
    {
        var failure: Int32 = 0
        let bytes = [UInt8](unsafeUninitializedCapacity: count) { buffer, filled in
            filled = 0
            while filled < count {
                let got = pread(
                    descriptor, buffer.baseAddress.map { $0 + filled }, count - filled, off_t(offset) + off_t(filled))
                if got < 0, errno == EINTR { continue }
                if got < 0 { failure = errno }
                if got <= 0 { break }
                filled += got
            }
        }
        if failure != 0 { throw FileFailure.error(failure, place) }
        return bytes
    }

    static func writeAll(_ descriptor: Int32, _ bytes: ArraySlice<UInt8>, _ place: String) throws(StructuredError) {
        var rest = bytes
        while !rest.isEmpty {
            let count = rest.withUnsafeBytes { write(descriptor, $0.baseAddress, $0.count) }
            if count < 0, errno == EINTR { continue }
            if count < 0 { throw FileFailure.error(errno, place) }
            rest = rest.dropFirst(count)
        }
    }

    static func digest(_ descriptor: Int32, _ place: String) throws(StructuredError) -> Digest {
        var hash = SHA256()
        var offset: Int64 = 0
        while true {
            let chunk = try readAll(descriptor, count: 1 << 20, at: offset, place)
            if chunk.isEmpty { return hash.finish() }
            hash.update(chunk)
            offset += Int64(chunk.count)
        }
    }

    /// A new file beside `path` under a name nobody uses. The caller renames it into place or unlinks it.
    /// - Parameter existing: what it will stand in the place of.
    func createTemporary(
        in parent: Int32, mode: mode_t, _ path: Path, replacing existing: stat?
    ) throws(StructuredError) -> (Int32, String) {
        try requireWritable(path)
        let name = ".kruxos-\(randomBytes(8).hex).tmp"
        let descriptor = openat(parent, name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, mode)
        if descriptor < 0 { throw FileFailure.error(errno, path.absolute) }
        do { try adopt(descriptor, path, in: parent, replacing: existing) } catch {
            close(descriptor)
            unlinkat(parent, name, 0)
            throw error
        }
        return (descriptor, name)
    }

    /// Replaces or creates a file in one step: readers see the old content or the new, never a part.
    /// - Parameter replace: false refuses an existing file.
    /// - Returns: whether the file is new.
    func writeAtomically(_ path: Path, _ bytes: [UInt8], replace: Bool, durable: Bool) throws(StructuredError) -> Bool {
        let parent = try openParent(path)
        defer { close(parent) }
        let existing = try status(path)
        if let existing {
            guard replace else { throw FileFailure.error(EEXIST, path.absolute) }
            try requireOwnFile(existing, path)
        }
        try charge(
            path, bytes: Int64(bytes.count) - (existing.map { Int64($0.st_size) } ?? 0), files: existing == nil ? 1 : 0)
        let mode = existing.map { mode_t($0.st_mode & 0o777) } ?? 0o644
        let (descriptor, temporary) = try createTemporary(in: parent, mode: mode, path, replacing: existing)
        var renamed = false
        defer {
            close(descriptor)
            if !renamed { unlinkat(parent, temporary, 0) }
        }
        try Self.writeAll(descriptor, bytes[...], path.absolute)
        if durable, fsync(descriptor) != 0 { throw FileFailure.error(errno, path.absolute) }
        let result = krux_renameat2(parent, temporary, parent, path.name, replace ? 0 : UInt32(1) /* NOREPLACE */)
        if result < 0 { throw FileFailure.error(-result, path.absolute) }
        renamed = true
        if durable { try syncFolder(path) }
        return existing == nil
    }

    private func syncFolder(_ path: Path) throws(StructuredError) {
        let folder = try open(folder(of: path), O_RDONLY | O_DIRECTORY)
        defer { close(folder) }
        if fsync(folder) != 0 { throw FileFailure.error(errno, path.absolute) }
    }

    /// Copies one regular file to a new name. Returns its bytes.
    func copyFile(_ source: Path, _ destination: Path, replace: Bool) throws(StructuredError) -> Int64 {
        let (input, status) = try openFile(source, O_RDONLY)
        defer { close(input) }
        let parent = try openParent(destination)
        defer { close(parent) }
        let existing = try self.status(destination)
        if let existing {
            guard replace else { throw FileFailure.error(EEXIST, destination.absolute) }
            try requireOwnFile(existing, destination)
            if existing.st_dev == status.st_dev, existing.st_ino == status.st_ino {
                throw StructuredError(
                    .invalidArguments, "`\(source.absolute)` and `\(destination.absolute)` are the same file",
                    recovery: ["Name another destination."])
            }
        }
        try charge(destination, bytes: Int64(status.st_size), files: 1)
        let (output, temporary) = try createTemporary(
            in: parent, mode: mode_t(status.st_mode & 0o777), destination, replacing: existing)
        var renamed = false
        defer {
            close(output)
            if !renamed { unlinkat(parent, temporary, 0) }
        }
        var offset: Int64 = 0
        while true {
            let chunk = try Self.readAll(input, count: 1 << 20, at: offset, source.absolute)
            if chunk.isEmpty { break }
            try Self.writeAll(output, chunk[...], destination.absolute)
            offset += Int64(chunk.count)
        }
        let result = krux_renameat2(parent, temporary, parent, destination.name, replace ? 0 : UInt32(1))
        if result < 0 { throw FileFailure.error(-result, destination.absolute) }
        renamed = true
        return offset
    }

    struct Entry: Sendable {
        let path: Path
        let status: stat

        var kind: String {
            switch status.st_mode & S_IFMT {
            case S_IFREG: "file"
            case S_IFDIR: "directory"
            case S_IFLNK: "symlink"
            default: "other"
            }
        }

        /// Microseconds since 1970.
        var modified: Timestamp {
            Timestamp(
                microseconds: Int64(status.st_mtim.tv_sec) * 1_000_000 + Int64(status.st_mtim.tv_nsec) / 1000)
        }

        var json: JSONValue {
            [
                "path": .string(path.absolute), "name": .string(path.name), "type": .string(kind),
                "size": .int(Int64(status.st_size)), "modified": .string(modified.rfc3339),
            ]
        }
    }

    /// What lies directly in a folder, by name. Names that are not UTF-8 are left out and counted.
    func entries(_ folder: Path) throws(StructuredError) -> (entries: [Entry], unreadable: Int) {
        let descriptor = try open(folder, O_RDONLY | O_DIRECTORY)
        guard let stream = fdopendir(descriptor) else {
            let code = errno
            close(descriptor)
            throw FileFailure.error(code, folder.absolute)
        }
        defer { closedir(stream) }
        var names: [String] = []
        var unreadable = 0
        while let entry = readdir(stream) {
            let name = withUnsafePointer(to: &entry.pointee.d_name) { pointer in
                pointer.withMemoryRebound(to: CChar.self, capacity: 256) { String(validatingCString: $0) }
            }
            guard let name else {
                unreadable += 1
                continue
            }
            if name != ".", name != ".." { names.append(name) }
        }
        var result: [Entry] = []
        for name in names.sorted(by: { $0.utf8.lexicographicallyPrecedes($1.utf8) }) {
            let path = Path(folder.root, folder.components + [name])
            var status = stat()
            // Gone since it was listed: not an error, just not there.
            if fstatat(dirfd(stream), name, &status, AT_SYMLINK_NOFOLLOW) == 0 {
                result.append(Entry(path: path, status: status))
            } else if errno != ENOENT {
                throw FileFailure.error(errno, path.absolute)
            }
        }
        return (result, unreadable)
    }

    /// Levels a whole tree is followed down; a deeper one is an error, never cut silently.
    static let deepest = 1000

    /// Everything below a folder in depth-first order, until `visit` returns false. Links are not followed.
    /// - Returns: false when `visit` stopped it.
    @discardableResult
    func walk(
        _ folder: Path, depth: Int, _ visit: (Entry) throws(StructuredError) -> Bool
    ) throws(StructuredError) -> Bool {
        for entry in try entries(folder).entries {
            if try !visit(entry) { return false }
            guard entry.kind == "directory" else { continue }
            if depth > 1 {
                if try !walk(entry.path, depth: depth - 1, visit) { return false }
            } else if entry.path.components.count >= Self.deepest {
                throw StructuredError(
                    .tooLarge, "the tree is more than \(Self.deepest) levels deep",
                    recovery: ["Name a folder further down."])
            }
        }
        return true
    }
}
