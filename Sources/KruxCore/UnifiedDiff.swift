/// The difference of two texts as `diff -u` writes it and `patch -p1` takes it; empty when there is none. Lines are
/// compared by Myers' algorithm in the standard library.
package func unifiedDiff(_ before: [UInt8], _ after: [UInt8], file: String, context: Int = 3) -> String {
    if before == after { return "" }
    let old = lines(before)
    let new = lines(after)
    var removed: Set<Int> = []
    var inserted: Set<Int> = []
    for change in new.difference(from: old) {
        switch change {
        case .remove(let offset, _, _): removed.insert(offset)
        case .insert(let offset, _, _): inserted.insert(offset)
        }
    }
    // One entry per line of the joint text: its sign and the lines of both texts before it.
    var script: [(sign: Character, text: String, old: Int, new: Int)] = []
    var i = 0
    var j = 0
    while i < old.count || j < new.count {
        if i < old.count, removed.contains(i) {
            script.append(("-", old[i], i, j))
            i += 1
        } else if j < new.count, inserted.contains(j) {
            script.append(("+", new[j], i, j))
            j += 1
        } else {
            script.append((" ", old[i], i, j))
            i += 1
            j += 1
        }
    }
    var result = "--- \(before.isEmpty ? "/dev/null" : "a/\(file)")\n+++ \(after.isEmpty ? "/dev/null" : "b/\(file)")\n"
    var index = 0
    while let first = script[index...].firstIndex(where: { $0.sign != " " }) {
        var last = first
        var next = first + 1
        while next < script.count, next - last <= 2 * context {
            if script[next].sign != " " { last = next }
            next += 1
        }
        let hunk = script[max(index, first - context)..<min(script.count, last + context + 1)]
        let oldCount = hunk.count { $0.sign != "+" }
        let newCount = hunk.count { $0.sign != "-" }
        // An empty side is named by the line before it.
        let oldStart = (hunk.first?.old ?? 0) + (oldCount == 0 ? 0 : 1)
        let newStart = (hunk.first?.new ?? 0) + (newCount == 0 ? 0 : 1)
        result += "@@ -\(oldStart),\(oldCount) +\(newStart),\(newCount) @@\n"
        for line in hunk {
            result += "\(line.sign)\(line.text)"
            if !line.text.utf8.elementsEqual(line.text.utf8.prefix { $0 != 0x0A }) { continue }
            result += "\n\\ No newline at end of file\n"
        }
        index = hunk.endIndex
    }
    return result
}

/// Lines with their ends.
private func lines(_ text: [UInt8]) -> [String] {
    var result: [String] = []
    var start = 0
    while start < text.count {
        let end = text[start...].firstIndex(of: 0x0A).map { $0 + 1 } ?? text.count
        result.append(String(decoding: text[start..<end], as: UTF8.self))
        start = end
    }
    return result
}
