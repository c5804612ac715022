import Foundation

/// What is mounted where, as `/proc/self/mountinfo` tells it.
package struct MountPoints: Sendable {
    package struct Point: Sendable, Equatable {
        /// `major:minor` of the file system.
        package let device: String
        /// What of the file system is mounted, and where.
        package let root: String, path: String
        package let type: String
    }

    /// In the order of mounting: a later one covers an earlier one.
    package let points: [Point]

    package init(_ text: String) {
        // `id parent device root point options … - type source options`
        points = text.split(separator: "\n").compactMap { line in
            let fields = line.split(separator: " ")
            guard fields.count > 6, let dash = fields.firstIndex(of: "-"), dash + 1 < fields.endIndex else {
                return nil
            }
            return Point(
                device: String(fields[2]), root: Self.plain(fields[3]), path: Self.plain(fields[4]),
                type: String(fields[dash + 1]))
        }
    }

    /// Nil where the kernel does not say.
    package static var own: MountPoints? {
        (try? String(contentsOfFile: "/proc/self/mountinfo", encoding: .utf8)).map { MountPoints($0) }
    }

    /// Blanks and their like are written `\040`.
    private static func plain(_ text: Substring) -> String {
        var bytes: [UInt8] = []
        var rest = Array(text.utf8)[...]
        while let byte = rest.popFirst() {
            let digits = rest.prefix(3).map { Int($0) - 48 }
            if byte == UInt8(ascii: "\\"), digits.count == 3, digits.allSatisfy({ (0...7).contains($0) }) {
                bytes.append(UInt8(truncatingIfNeeded: digits[0] << 6 | digits[1] << 3 | digits[2]))
                rest = rest.dropFirst(3)
            } else {
                bytes.append(byte)
            }
        }
        return String(decoding: bytes, as: UTF8.self)
    }

    /// Whether `inner` is `outer` or lies in it.
    package static func isInside(_ inner: String, _ outer: String) -> Bool {
        // By bytes: a mark at the beginning of a name is one character with the slash before it.
        let (inner, outer) = (Array(inner.utf8), Array(outer.utf8))
        let slash = UInt8(ascii: "/")
        return outer == [slash]
            || inner.starts(with: outer) && (inner.count == outer.count || inner[outer.count] == slash)
    }

    /// Which file system a canonical path is on, and where in it.
    package func place(_ path: String) -> (device: String, path: String)? {
        let holding = points.filter { Self.isInside(path, $0.path) }
        guard let length = holding.map(\.path.utf8.count).max(),
            let point = holding.last(where: { $0.path.utf8.count == length })
        else { return nil }
        let rest = point.path == "/" ? path : String(decoding: path.utf8.dropFirst(length), as: UTF8.self)
        let whole = (point.root == "/" ? "" : point.root) + rest
        return (point.device, whole.isEmpty ? "/" : whole)
    }

    /// What is mounted below a canonical path.
    package func below(_ path: String) -> [String] {
        points.map(\.path).filter { !$0.utf8.elementsEqual(path.utf8) && Self.isInside($0, path) }
    }
}
