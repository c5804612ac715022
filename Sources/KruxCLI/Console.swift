import Foundation
import KruxCore
import KruxPolicy

/// Printing: standard output for what was asked, standard error for what went wrong.
enum Console {
    static func print(_ text: String) { write(text + "\n", to: STDOUT_FILENO) }

    /// Errors quote what people and agents wrote, so control characters are shown, not sent.
    static func printError(_ text: String) {
        let lines = text.split(separator: "\n", omittingEmptySubsequences: false)
        write(lines.map { visible(String($0)) }.joined(separator: "\n") + "\n", to: STDERR_FILENO)
    }

    /// A table, each line cut to the terminal's width when there is one: a wrapped row is no row.
    static func printTable(_ text: String) {
        var size = winsize()
        guard isatty(STDOUT_FILENO) == 1, ioctl(STDOUT_FILENO, UInt(TIOCGWINSZ), &size) == 0, size.ws_col > 20 else {
            return print(text)
        }
        let width = Int(size.ws_col)
        let lines = text.split(separator: "\n", omittingEmptySubsequences: false)
        print(lines.map { $0.count > width ? $0.prefix(width - 1) + "…" : String($0) }.joined(separator: "\n"))
    }

    /// JSON means the same with its characters escaped.
    static func print(_ json: JSONValue) {
        var result = ""
        for scalar in json.prettyText().unicodeScalars {
            if scalar != "\n", isHidden(scalar) {
                for unit in String(scalar).utf16 {
                    let digits = String(unit, radix: 16)
                    result += "\\u" + String(repeating: "0", count: 4 - digits.count) + digits
                }
            } else {
                result.unicodeScalars.append(scalar)
            }
        }
        print(result)
    }

    private static func write(_ text: String, to descriptor: Int32) {
        var bytes = Array(text.utf8)[...]
        while !bytes.isEmpty {
            let count = bytes.withUnsafeBytes { Foundation.write(descriptor, $0.baseAddress, $0.count) }
            if count < 0, errno == EINTR { continue }
            if count <= 0 { return }
            bytes = bytes.dropFirst(count)
        }
    }

    static var isTerminal: Bool { isatty(STDIN_FILENO) == 1 && isatty(STDOUT_FILENO) == 1 }

    /// Asks a question at the terminal; anything but yes is no.
    static func ask(_ question: String) -> Bool {
        write(question + " [y/N] ", to: STDOUT_FILENO)
        return ["y", "yes"].contains((readLine() ?? "").lowercased())
    }

    /// Control characters in what agents wrote would move the cursor or fake a line: they are shown, not sent.
    static func visible(_ text: String) -> String {
        var result = ""
        for scalar in text.unicodeScalars {
            switch scalar.value {
            case _ where isHidden(scalar):
                result += "\\u{\(String(scalar.value, radix: 16))}"
            default: result.unicodeScalars.append(scalar)
            }
        }
        return result
    }

    /// What a terminal acts on, or shows as nothing or in another order.
    private static func isHidden(_ scalar: UnicodeScalar) -> Bool {
        switch scalar.value {
        case 0..<0x20, 0x7F..<0xA0, 0xAD, 0x61C, 0x115F, 0x1160, 0x180E, 0x200B...0x200F, 0x2028...0x202E,
            0x2060...0x206F, 0x3164, 0xFEFF, 0xFFA0, 0xE0000...0xE007F:
            true
        default: false
        }
    }

    static func report(_ error: StructuredError) {
        printError("error: \(error.description)")
        for action in error.recoveryActions { printError("  - \(action)") }
    }
}

/// Columns under a header, two spaces apart or wider.
struct Table {
    struct Column {
        let title: String
        /// The column's width with the space after it, as far as its cells fit.
        let width: Int

        init(_ title: String, width: Int = 0) {
            self.title = title
            self.width = width
        }
    }

    let columns: [Column]
    var rows: [[String]] = []

    init(_ columns: [Column]) { self.columns = columns }

    var text: String {
        let shown = rows.map { $0.map(Console.visible) }
        let widths = columns.indices.map { index in
            max(columns[index].width, (shown.map { $0[index].count } + [columns[index].title.count]).max() ?? 0)
        }
        return ([columns.map(\.title)] + shown).map { cells in
            var line = ""
            for (index, cell) in cells.enumerated() {
                // A column of given width holds its own space; one that grew gets a space of its own.
                let fixed =
                    columns[index].width > 0 && widths[index] <= columns[index].width && cell.count < widths[index]
                line += cell.padding(to: widths[index]) + (fixed ? "" : columns[index].width > 0 ? " " : "  ")
            }
            while line.last == " " { line.removeLast() }
            return line
        }.joined(separator: "\n")
    }
}

extension String {
    fileprivate func padding(to width: Int) -> String { self + String(repeating: " ", count: max(0, width - count)) }

    /// At most `width` characters, cut at a space where there is one.
    /// - Parameter marked: whether a cut shows as `…`.
    func cut(to width: Int, marked: Bool = false) -> String {
        if count <= width { return self }
        if marked { return prefix(width - 1) + "…" }
        let head = prefix(width)
        if let space = head.lastIndex(of: " "), space > head.startIndex { return String(head[..<space]) }
        return head.dropLast() + "…"
    }
}

extension Timestamp {
    /// `2026-03-29 14:20:00`, UTC.
    var short: String {
        let text = rfc3339
        return text.prefix(10) + " " + text.dropFirst(11).prefix(8)
    }
}
