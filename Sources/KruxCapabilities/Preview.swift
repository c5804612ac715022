import Foundation
package import KruxCore
import KruxCrypto

/// What a person is shown of a call before it runs. Nothing of it is decided by; what runs is compared again.
package struct Preview: Sendable, Equatable {
    package enum Kind: String, Sendable {
        /// Lines of a unified diff.
        case diff
        /// Paths, one a line.
        case files
    }

    /// What the call does, in a sentence.
    package var effect: String
    package var kind: Kind?
    package var lines: [String]
    /// Lines that are not shown.
    package var left: Int

    package init(_ effect: String, _ kind: Kind? = nil, _ lines: [String] = []) {
        self.effect = effect
        self.kind = kind
        self.lines = []
        var room = Self.mostBytes
        for line in lines {
            let shown = line.count > Self.longestLine ? line.prefix(Self.longestLine) + "…" : line
            room -= shown.utf8.count
            guard room >= 0 else { break }
            self.lines.append(shown)
        }
        left = lines.count - self.lines.count
    }

    /// What a declaration says of its effects.
    init(_ declaration: CapabilityDeclaration) {
        let effects = declaration.sideEffects
        let text = effects.isEmpty ? declaration.summary : effects.joined(separator: "; ")
        self.init(text.prefix(1).uppercased() + text.dropFirst())
    }

    /// Kept with each request.
    private static let mostBytes = 256 << 10
    private static let longestLine = 400

    /// `{effect, preview?: {kind, lines, left}}`.
    package var json: JSONObject {
        var json: JSONObject = ["effect": .string(effect)]
        if let kind {
            json["preview"] = ["kind": .string(kind.rawValue), "lines": .strings(lines), "left": .int(Int64(left))]
        }
        return json
    }
}

/// A unified diff of two texts, as `diff -u` writes it.
package enum UnifiedDiff {
    /// More than this on either side is not compared: nobody reads it, and it would take long.
    package static let mostLines = 5000
    package static let mostBytes = 1 << 20

    /// - Returns: its lines, empty for equal texts; nil when a side is no text or too large.
    package static func lines(from old: [UInt8], to new: [UInt8], context: Int = 3) -> [String]? {
        guard old.count <= mostBytes, new.count <= mostBytes, isText(old), isText(new) else { return nil }
        let before = split(old)
        let after = split(new)
        guard before.count <= mostLines, after.count <= mostLines else { return nil }
        // By bytes: two spellings of one character are a change.
        let changes = after.difference(from: before)
        var removed: Set<Int> = []
        var inserted: Set<Int> = []
        for change in changes {
            switch change {
            case .remove(let offset, _, _): removed.insert(offset)
            case .insert(let offset, _, _): inserted.insert(offset)
            }
        }
        if removed.isEmpty, inserted.isEmpty { return [] }
        // Every line of both sides in order.
        var all: [(sign: Character, text: [UInt8])] = []
        var (left, right) = (0, 0)
        while left < before.count || right < after.count {
            if left < before.count, removed.contains(left) {
                all.append(("-", before[left]))
                left += 1
            } else if right < after.count, inserted.contains(right) {
                all.append(("+", after[right]))
                right += 1
            } else {
                all.append((" ", before[left]))
                left += 1
                right += 1
            }
        }
        return hunks(all, context)
    }

    private static func hunks(_ all: [(sign: Character, text: [UInt8])], _ context: Int) -> [String] {
        var result: [String] = []
        var index = 0
        var (left, right) = (1, 1)
        while index < all.count {
            guard let first = all[index...].firstIndex(where: { $0.sign != " " }) else { break }
            let start = max(index, first - context)
            left += start - index
            right += start - index
            // The hunk ends where more lines are alike than two contexts have.
            var end = first + 1
            var alike = 0
            for place in end..<all.count {
                alike = all[place].sign == " " ? alike + 1 : 0
                if alike == 0 { end = place + 1 }
                if alike > 2 * context { break }
            }
            end = min(all.count, end + context)
            let hunk = all[start..<end]
            let before = hunk.count { $0.sign != "+" }
            let after = hunk.count { $0.sign != "-" }
            result.append("@@ -\(range(left, before)) +\(range(right, after)) @@")
            for line in hunk {
                // A line that the text ends in without a line break.
                let ends = line.text.last == UInt8(ascii: "\n")
                result.append(
                    "\(line.sign)" + String(decoding: ends ? line.text.dropLast() : line.text[...], as: UTF8.self))
                if !ends { result.append("\\ No newline at end of file") }
            }
            left += before
            right += after
            index = end
        }
        return result
    }

    private static func range(_ start: Int, _ count: Int) -> String {
        count == 1 ? "\(start)" : "\(count == 0 ? start - 1 : start),\(count)"
    }

    private static func isText(_ bytes: [UInt8]) -> Bool {
        !bytes.contains(0) && String(validating: bytes, as: UTF8.self) != nil
    }

    /// Lines with their line breaks.
    private static func split(_ bytes: [UInt8]) -> [[UInt8]] {
        var lines: [[UInt8]] = []
        var start = 0
        for index in bytes.indices where bytes[index] == UInt8(ascii: "\n") {
            lines.append(Array(bytes[start...index]))
            start = index + 1
        }
        if start < bytes.count { lines.append(Array(bytes[start...])) }
        return lines
    }
}

extension Workspace {
    /// What is at each of these places, so that it can be seen whether it is still the same: absent, a link's target, a
    /// file's SHA-256, or one over a folder's names, sizes and times.
    func binding(_ paths: [Path]) throws(StructuredError) -> JSONObject {
        var files = JSONObject()
        for path in paths { files[path.absolute] = .string(try fingerprint(path)) }
        return ["files": .object(files)]
    }

    private func fingerprint(_ path: Path) throws(StructuredError) -> String {
        guard let status = try status(path) else { return "absent" }
        switch status.st_mode & S_IFMT {
        case S_IFREG where status.st_size <= 256 << 20 && status.st_nlink <= 1:
            let (descriptor, _) = try openFile(path, O_RDONLY)
            defer { close(descriptor) }
            return try Self.digest(descriptor, path.absolute).hex
        case S_IFDIR:
            var hash = SHA256()
            let (entries, isWhole) = try below(path, most: 100_000)
            guard isWhole else {
                throw StructuredError(
                    .tooLarge, "`\(path.absolute)` holds more than can be bound to an approval, or what cannot be read",
                    recovery: ["Name a smaller part of it."])
            }
            for entry in entries {
                // Nobody sets this time back.
                let time = "\(entry.status.st_ctim.tv_sec).\(entry.status.st_ctim.tv_nsec)"
                let size = entry.kind == "directory" ? 0 : Int64(entry.status.st_size)
                hash.update(Array("\(entry.path.absolute)\0\(entry.kind) \(size) \(time)\n".utf8))
            }
            return "folder:" + hash.finish().hex
        default: return "\(status.st_mode) \(status.st_size) \(status.st_ctim.tv_sec).\(status.st_ctim.tv_nsec)"
        }
    }

    /// Everything below a folder, in order of their paths.
    private func below(_ path: Path, most: Int) throws(StructuredError) -> (entries: [Entry], isWhole: Bool) {
        var found: [Entry] = []
        var isWhole = true
        var folders = [path]
        while let folder = folders.popLast() {
            let (entries, unreadable) = try entries(folder)
            if unreadable > 0 { isWhole = false }
            for entry in entries where entry.kind == "directory" { folders.append(entry.path) }
            found += entries
            if found.count > most {
                isWhole = false
                break
            }
        }
        return (found.sorted { $0.path.absolute.utf8.lexicographicallyPrecedes($1.path.absolute.utf8) }, isWhole)
    }

    /// The content of a regular file, nil when there is none or it is too large to look at.
    func glimpse(_ path: Path) throws(StructuredError) -> [UInt8]? {
        guard let status = try status(path), status.st_mode & S_IFMT == S_IFREG, status.st_size <= UnifiedDiff.mostBytes
        else { return nil }
        let (descriptor, opened) = try openFile(path, O_RDONLY)
        defer { close(descriptor) }
        return try Self.readAll(descriptor, count: Int(opened.st_size), at: 0, path.absolute)
    }

    /// What a write of `new` to `path` would change.
    /// - Parameter scrub: hides secrets; before the texts are compared, because a key is one only as a whole.
    func preview(
        writing new: [UInt8], to path: Path, appending: Bool = false, _ scrub: (String) -> String
    ) throws(StructuredError) -> Preview {
        func shown(_ bytes: [UInt8]) -> [UInt8] {
            String(validating: bytes, as: UTF8.self).map { Array(scrub($0).utf8) } ?? bytes
        }
        let size = try status(path).map { Int($0.st_size) }
        let verb = appending ? "Adds \(new.count) bytes to" : size == nil ? "Creates" : "Replaces"
        let sizes =
            appending
            ? size.map { " (\($0) bytes now)" } ?? " (new)"
            : size.map { " (\($0) bytes become \(new.count))" } ?? " (\(new.count) bytes)"
        let effect = "\(verb) \(path.absolute)\(sizes)"
        let old = size == nil ? [] : try glimpse(path)
        guard let old, let lines = UnifiedDiff.lines(from: shown(old), to: shown(appending ? old + new : new)) else {
            return Preview("\(effect); it is no text, or too large to compare; SHA-256 \(sha256(new).hex)")
        }
        if lines.isEmpty { return Preview("\(effect); nothing changes") }
        let names = [size == nil ? "--- /dev/null" : "--- \(path.absolute)", "+++ \(path.absolute)"]
        return Preview(effect, .diff, names + lines)
    }

    /// The files a call that moves or removes `path` touches.
    func preview(_ verb: String, _ path: Path, suffix: String = "") throws(StructuredError) -> Preview {
        guard let status = try status(path) else {
            return Preview("\(verb) \(path.absolute)\(suffix): there is nothing")
        }
        guard status.st_mode & S_IFMT == S_IFDIR else {
            let kind = status.st_mode & S_IFMT == S_IFLNK ? "a symbolic link" : "\(status.st_size) bytes"
            return Preview("\(verb) \(path.absolute) (\(kind))\(suffix)", .files, [path.absolute])
        }
        let (entries, isWhole) = try below(path, most: 20_000)
        let bytes = entries.filter { $0.kind == "file" }.reduce(Int64(0)) { $0 + Int64($1.status.st_size) }
        let count = "\(isWhole ? "" : "at least ")\(entries.count) below, \(bytes) bytes"
        return Preview(
            "\(verb) the folder \(path.absolute) (\(count))\(suffix)", .files,
            entries.map { $0.path.absolute + ($0.kind == "directory" ? "/" : "") })
    }
}
