import CTerminal
import Foundation
import Glibc
import Synchronization

/// What comes from the terminal or from whoever wakes it.
package enum TerminalInput: Sendable, Equatable {
    case text(Character)
    case up, down, left, right, pageUp, pageDown, home, end
    case enter, escape, backspace
    /// A letter held with Control, in lower case.
    case control(Character)
    /// The window has another size.
    case resized
    /// `wake` was called.
    case woken
    /// The time to wait is over.
    case nothing
    /// The terminal is gone, or the process is asked to end.
    case ended
}

/// A terminal in full-screen use: raw mode on its alternate screen. However the process ends, short of SIGKILL, the
/// terminal is as it was.
package final class Terminal {
    private let input: Int32
    private let output: Int32
    private let saved: termios
    private var isEntered = false
    private var bytes: [UInt8] = []
    private var shown: [String] = []

    /// Written to by signal handlers and `wake`: one at a time is in full-screen use.
    private static let pipe = Atomic<Int64>(-1)
    private nonisolated(unsafe) static var restoring: (descriptor: Int32, settings: termios)?

    /// Nil when either end is no terminal.
    package init?(input: Int32 = STDIN_FILENO, output: Int32 = STDOUT_FILENO) {
        var settings = termios()
        guard isatty(input) == 1, isatty(output) == 1, tcgetattr(input, &settings) == 0 else { return nil }
        self.input = input
        self.output = output
        saved = settings
        // How wide a character is depends on the locale; without a usable one, on Unicode's own.
        if setlocale(LC_CTYPE, "") == nil || isPlainLocale { setlocale(LC_CTYPE, "C.UTF-8") }
        var ends: [Int32] = [-1, -1]
        guard Glibc.pipe(&ends) == 0 else { return nil }
        for end in ends {
            _ = fcntl(end, F_SETFD, FD_CLOEXEC)
            _ = fcntl(end, F_SETFL, O_NONBLOCK)
        }
        reader = ends[0]
        Self.pipe.store(Int64(ends[1]), ordering: .releasing)
        for number in [SIGWINCH, SIGTERM, SIGHUP, SIGINT, SIGQUIT] { signal(number, Self.received) }
        Self.restoring = nil
        atexit { Terminal.restore() }
    }

    private let reader: Int32

    private static let received: @convention(c) (Int32) -> Void = { number in
        let descriptor = Int32(truncatingIfNeeded: Terminal.pipe.load(ordering: .acquiring))
        var byte = UInt8(truncatingIfNeeded: number)
        if descriptor >= 0 { _ = write(descriptor, &byte, 1) }
    }

    /// Makes `next` return `.woken`, from any thread.
    package static func wake() {
        let descriptor = Int32(truncatingIfNeeded: pipe.load(ordering: .acquiring))
        var byte: UInt8 = 0
        if descriptor >= 0 { _ = write(descriptor, &byte, 1) }
    }

    // MARK: Modes

    package func enter() {
        if isEntered { return }
        var raw = saved
        cfmakeraw(&raw)
        // Output keeps its line ends, so that a crash's message can be read.
        raw.c_oflag |= tcflag_t(OPOST)
        tcsetattr(input, TCSAFLUSH, &raw)
        Self.restoring = (output, saved)
        isEntered = true
        shown = []
        send("\u{1B}[?1049h\u{1B}[?25l\u{1B}[2J")
    }

    package func leave() {
        if !isEntered { return }
        isEntered = false
        Self.restore()
    }

    /// Safe to call twice, and at the process's end.
    private static func restore() {
        guard let (descriptor, saved) = restoring else { return }
        var settings = saved
        restoring = nil
        let text = Array("\u{1B}[?25h\u{1B}[?1049l".utf8)
        _ = write(descriptor, text, text.count)
        tcsetattr(descriptor, TCSAFLUSH, &settings)
    }

    /// Runs something that uses the terminal itself, such as an editor.
    package func outside<R>(_ body: () throws -> R) rethrows -> R {
        leave()
        defer { enter() }
        return try body()
    }

    /// Stops like a shell's job, and goes on where it was.
    package func suspend() {
        outside {
            signal(SIGTSTP, SIG_DFL)
            raise(SIGTSTP)
        }
    }

    deinit {
        leave()
        for number in [SIGWINCH, SIGTERM, SIGHUP, SIGINT, SIGQUIT] { signal(number, SIG_DFL) }
        let writer = Int32(truncatingIfNeeded: Self.pipe.exchange(-1, ordering: .acquiringAndReleasing))
        close(writer)
        close(reader)
    }

    // MARK: The screen

    /// Columns and rows; 80 × 24 where the terminal does not say.
    package var size: (columns: Int, rows: Int) {
        var size = winsize()
        guard ioctl(output, UInt(TIOCGWINSZ), &size) == 0, size.ws_col > 0, size.ws_row > 0 else { return (80, 24) }
        return (Int(size.ws_col), Int(size.ws_row))
    }

    /// Shows these lines from the top, and nothing below them. Lines that are shown already are not sent again.
    package func draw(_ lines: [String]) {
        var text = ""
        for (index, line) in lines.enumerated() where index >= shown.count || shown[index] != line {
            text += "\u{1B}[\(index + 1);1H\(line)\u{1B}[0m\u{1B}[K"
        }
        if lines.count < shown.count { text += "\u{1B}[\(lines.count + 1);1H\u{1B}[J" }
        shown = lines
        if !text.isEmpty { send(text) }
    }

    /// The next `draw` sends everything.
    package func forget() {
        shown = []
        send("\u{1B}[2J")
    }

    package func bell() { send("\u{07}") }

    private func send(_ text: String) {
        var rest = Array(text.utf8)[...]
        while !rest.isEmpty {
            let count = rest.withUnsafeBytes { write(output, $0.baseAddress, $0.count) }
            if count < 0, errno == EINTR { continue }
            if count < 0, errno == EAGAIN {
                var waiting = pollfd(fd: output, events: Int16(POLLOUT), revents: 0)
                poll(&waiting, 1, 100)
                continue
            }
            if count <= 0 { return }
            rest = rest.dropFirst(count)
        }
    }

    // MARK: Input

    /// Waits for a key, a signal or `wake`.
    /// - Parameter milliseconds: how long.
    package func next(milliseconds: Int32) -> TerminalInput {
        if let key = parse(isWhole: false) { return key }
        while true {
            // A lone Escape is one that nothing follows at once.
            let wait = bytes.isEmpty ? milliseconds : 40
            var polled = [
                pollfd(fd: input, events: Int16(POLLIN), revents: 0),
                pollfd(fd: reader, events: Int16(POLLIN), revents: 0),
            ]
            let count = poll(&polled, 2, wait)
            if count < 0, errno == EINTR { continue }
            if polled[1].revents != 0 {
                var byte: UInt8 = 0
                guard read(reader, &byte, 1) == 1 else { continue }
                switch Int32(byte) {
                case 0: return .woken
                case SIGWINCH: return .resized
                default: return .ended
                }
            }
            if polled[0].revents != 0 {
                var chunk = [UInt8](repeating: 0, count: 256)
                let got = read(input, &chunk, chunk.count)
                if got < 0, errno == EINTR || errno == EAGAIN { continue }
                guard got > 0 else { return .ended }
                bytes += chunk[..<got]
            }
            if let key = parse(isWhole: count == 0) { return key }
            if count == 0 { return .nothing }
        }
    }

    /// The first key of what has come; nil when it is not complete.
    /// - Parameter isWhole: nothing more comes of what has begun.
    private func parse(isWhole: Bool) -> TerminalInput? {
        guard let first = bytes.first else { return nil }
        switch first {
        case 0x1B:
            guard bytes.count > 1 else {
                guard isWhole else { return nil }
                bytes.removeFirst()
                return .escape
            }
            guard bytes[1] == UInt8(ascii: "[") || bytes[1] == UInt8(ascii: "O") else {
                bytes.removeFirst()
                return .escape
            }
            // Parameters, then a letter or `~`.
            guard let end = bytes.indices.dropFirst(2).first(where: { (0x40...0x7E).contains(bytes[$0]) }) else {
                if isWhole || bytes.count > 32 { bytes.removeAll() }
                return isWhole ? .escape : nil
            }
            let sequence = String(decoding: bytes[2...end], as: UTF8.self)
            bytes.removeFirst(end + 1)
            switch sequence {
            case "A": return .up
            case "B": return .down
            case "C": return .right
            case "D": return .left
            case "H", "1~", "7~": return .home
            case "F", "4~", "8~": return .end
            case "5~": return .pageUp
            case "6~": return .pageDown
            default: return .text("\u{FFFD}")
            }
        case 0x0D, 0x0A:
            bytes.removeFirst()
            return .enter
        case 0x7F, 0x08:
            bytes.removeFirst()
            return .backspace
        case 0x01...0x1A:
            bytes.removeFirst()
            return .control(Character(UnicodeScalar(first + 0x60)))
        default:
            let length = first < 0x80 ? 1 : first >= 0xF0 ? 4 : first >= 0xE0 ? 3 : 2
            guard bytes.count >= length || isWhole else { return nil }
            let character = String(decoding: bytes.prefix(length), as: UTF8.self).first ?? "\u{FFFD}"
            bytes.removeFirst(min(length, bytes.count))
            return .text(character)
        }
    }
}

/// Whether the locale knows other characters than Unicode's.
private var isPlainLocale: Bool {
    // INVARIANT: nl_langinfo returns a string for every item.
    String(cString: nl_langinfo(Int32(CODESET))) != "UTF-8"
}

/// Text by the columns it takes on a terminal.
package enum TerminalText {
    /// Columns of a text without control characters.
    package static func width(_ text: some StringProtocol) -> Int { text.unicodeScalars.reduce(0) { $0 + width($1) } }

    private static func width(_ scalar: UnicodeScalar) -> Int { max(0, Int(krux_columns(scalar.value))) }

    /// At most so many columns, with `…` for what is cut.
    package static func cut(_ text: String, to columns: Int) -> String {
        if width(text) <= columns { return text }
        guard columns > 0 else { return "" }
        var result = String.UnicodeScalarView()
        var used = 0
        for scalar in text.unicodeScalars {
            let next = width(scalar)
            if used + next > columns - 1 { break }
            result.append(scalar)
            used += next
        }
        return String(result) + "…"
    }

    /// Exactly so many columns.
    package static func fit(_ text: String, to columns: Int) -> String {
        let cut = cut(text, to: columns)
        return cut + String(repeating: " ", count: max(0, columns - width(cut)))
    }

    /// In lines of at most so many columns, broken at blanks where there are any.
    package static func wrap(_ text: String, to columns: Int) -> [String] {
        var lines: [String] = []
        var rest = Substring(text)
        while width(rest) > max(1, columns) {
            var used = 0
            var end = rest.unicodeScalars.startIndex
            var blank: String.Index?
            for index in rest.unicodeScalars.indices {
                let next = width(rest.unicodeScalars[index])
                if used + next > max(1, columns) { break }
                used += next
                end = rest.unicodeScalars.index(after: index)
                if rest.unicodeScalars[index] == " " { blank = end }
            }
            let stop =
                blank.map { $0 > rest.startIndex ? $0 : end }
                ?? (end > rest.startIndex ? end : rest.index(after: rest.startIndex))
            lines.append(String(rest[..<stop]))
            rest = rest[stop...]
        }
        lines.append(String(rest))
        return lines
    }
}
