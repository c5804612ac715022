import KruxCore

/// One command as it will be executed: the program and its words, or something that rules on commands cannot judge.
package enum CommandLine: Sendable, Equatable {
    case words([String])
    case opaque

    /// The words as a shell would read them back: joined by blanks, quoted where a plain word would say something else.
    package static func joined(_ words: [String]) -> String {
        words.map { word in
            let plain = !word.isEmpty && word.utf8.allSatisfy { ShellText.isPlain($0) }
            return plain
                ? word
                : "'" + word.split(separator: "'", omittingEmptySubsequences: false).joined(separator: "'\\''") + "'"
        }.joined(separator: " ")
    }
}

extension CommandLine {
    private static let shells = ["sh", "bash", "dash", "zsh", "ksh", "mksh", "ash"]
    private static let maxDepth = 8
    /// More commands than this in one line are no line that anybody reads.
    static let maxCommands = 256

    /// Everything that `words` executes: itself, what it wraps, and the commands of a shell's text.
    package static func commands(of words: [String]) -> [CommandLine] {
        var found: [CommandLine] = []
        collect(words, &found, depth: 0)
        return found.count > maxCommands ? [.opaque] : found
    }

    /// The commands of a text given to a shell.
    package static func commands(ofShellText text: String) -> [CommandLine] {
        var found: [CommandLine] = []
        collect(text: text, &found, depth: 0)
        return found.count > maxCommands ? [.opaque] : found
    }

    private static func collect(text: String, _ found: inout [CommandLine], depth: Int) {
        guard let segments = ShellText.segments(of: text), depth < maxDepth else { return found.append(.opaque) }
        for segment in segments where found.count <= maxCommands { collect(segment, &found, depth: depth + 1) }
    }

    private static func collect(_ words: [String], _ found: inout [CommandLine], depth: Int) {
        guard let program = words.first, depth < maxDepth, found.count <= maxCommands else {
            return found.append(.opaque)
        }
        let name = program.utf8.split(separator: UInt8(ascii: "/")).last.map { String(Substring($0)) } ?? program
        if shells.contains(where: { $0.utf8Equals(name) }) {
            switch shellText(Array(words.dropFirst())) {
            case .text(let text): return collect(text: text, &found, depth: depth)
            case .script: return found.append(.words(words))
            case .unclear:
                found.append(.words(words))
                return found.append(.opaque)
            }
        }
        found.append(.words(words))
        if let wrapper = Wrapper.known[name] {
            switch wrapper.inner(Array(words.dropFirst())) {
            case .command(let inner): collect(inner, &found, depth: depth + 1)
            case .nothing: break
            case .unclear: found.append(.opaque)
            }
        }
    }

    private enum ShellArguments {
        case text(String), script, unclear
    }

    /// `-c TEXT` in the forms people write: `-c`, `-lc`, `-e -u -c`; and a script file, which is an argument like any
    /// other.
    private static func shellText(_ arguments: [String]) -> ShellArguments {
        for (index, word) in arguments.enumerated() {
            let bytes = Array(word.utf8)
            guard bytes.first == UInt8(ascii: "-"), bytes.count > 1 else { return .script }
            let letters = bytes.dropFirst()
            guard letters.allSatisfy({ "ceilux".utf8.contains($0) }) else { return .unclear }
            if letters.contains(UInt8(ascii: "c")) {
                // Words after the text are its `$0`, `$1`, …, which a plain text cannot read.
                return index + 1 < arguments.count ? .text(arguments[index + 1]) : .unclear
            }
        }
        // A shell that reads commands from its input.
        return .unclear
    }
}

/// A program that runs another one, and how its own words end.
private struct Wrapper {
    /// Options that stand alone, and options that take the next word.
    let flags: Set<String>
    let valued: Set<String>
    /// Own words before the command: `timeout 5 make`.
    var operands = 0
    /// `env NAME=VALUE make`.
    var assignments = false

    enum Inner {
        case command([String]), nothing, unclear
    }

    func inner(_ arguments: [String]) -> Inner {
        var rest = arguments[...]
        while let word = rest.first, word.utf8.first == UInt8(ascii: "-"), word.utf8.count > 1 {
            rest.removeFirst()
            if word.utf8Equals("--") { break }
            if flags.contains(word) { continue }
            if valued.contains(word) {
                if rest.popFirst() == nil { return .unclear }
                continue
            }
            return .unclear
        }
        if assignments {
            while let word = rest.first, word.utf8.contains(UInt8(ascii: "=")) { rest.removeFirst() }
        }
        for _ in 0..<operands where rest.popFirst() == nil { return .nothing }
        return rest.isEmpty ? .nothing : .command(Array(rest))
    }

    static let known: [String: Wrapper] = [
        "env": Wrapper(flags: ["-i", "-0"], valued: ["-u", "-C"], assignments: true),
        "nice": Wrapper(flags: [], valued: ["-n"]),
        "nohup": Wrapper(flags: [], valued: []),
        "timeout": Wrapper(
            flags: ["-f", "--foreground", "-v", "--preserve-status"], valued: ["-k", "-s"], operands: 1),
        "setsid": Wrapper(flags: ["-c", "-f", "-w"], valued: []),
        "stdbuf": Wrapper(flags: [], valued: ["-i", "-o", "-e"]),
        "time": Wrapper(flags: ["-p", "-v"], valued: ["-f", "-o"]),
        "command": Wrapper(flags: ["-p"], valued: []),
        "exec": Wrapper(flags: ["-c", "-l"], valued: ["-a"]),
        "xargs": Wrapper(
            flags: ["-0", "-r", "-t"], valued: ["-n", "-P", "-L", "-s", "-a", "-d", "-E", "-I"]),
        "sudo": Wrapper(flags: ["-n", "-E", "-H", "-b"], valued: ["-u", "-g"], assignments: true),
        "doas": Wrapper(flags: ["-n"], valued: ["-u"]),
        "busybox": Wrapper(flags: [], valued: []),
    ]
}

/// The shell text that can be judged. Everything else is refused as a whole, because a rule on words says nothing
/// about a text whose words depend on what a shell makes of it (POSIX.1-2017, XCU 2.2, 2.3 and 2.10 for the terms):
///
///     text      = [ space ] segment { joiner segment } [ joiner ]
///     joiner    = "&&" | "||" | "|" | ";" | "&" | newline
///     segment   = word { blank word }
///     word      = part { part }
///     part      = plain | "'" { any but "'" } "'" | '"' { literal } '"' | "\" plain-or-sign
///     literal   = any but '"', "\", "$", "`", "!" and newline
///     plain     = letters, digits, and any of  _ - . , / : = @ % +  and bytes of other scripts
///
/// So there are no expansions (`$`, `` ` ``, `~`, `*`, `?`, `[`, `{`), no redirections, groups, comments, line
/// continuations or history; the first word of a segment is no assignment, keyword, or builtin that reads or runs
/// something of its own (`eval`, `source`, `.`, `alias`, …).
package enum ShellText {
    static func isPlain(_ byte: UInt8) -> Bool {
        switch byte {
        case UInt8(ascii: "a")...UInt8(ascii: "z"), UInt8(ascii: "A")...UInt8(ascii: "Z"),
            UInt8(ascii: "0")...UInt8(ascii: "9"), 0x80...:
            true
        default: "_-.,/:=@%+".utf8.contains(byte)
        }
    }

    private static let notCommands: Set<String> = [
        "if", "then", "else", "elif", "fi", "do", "done", "case", "esac", "while", "until", "for", "in", "function",
        "select", "coproc", "eval", "source", ".", "alias", "unalias", "trap", "set", "shopt", "builtin",
        "declare", "typeset", "local", "export", "readonly", "read", "mapfile", "readarray", "enable", "fc", "bind",
        "complete", "hash", "unset", "shift", "getopts", "let",
    ]

    /// The words of each command in order; nil when the text cannot be judged.
    package static func segments(of text: String) -> [[String]]? {
        let bytes = Array(text.utf8)
        guard bytes.count <= 64 << 10 else { return nil }
        var segments: [[String]] = []
        var words: [String] = []
        var word: [UInt8]?
        var index = 0
        /// Whether the last joiner needs a command after it: `&&`, `||`, `|`.
        var open = false

        func endWord() {
            if let done = word { words.append(String(decoding: done, as: UTF8.self)) }
            word = nil
        }
        func endSegment() -> Bool {
            endWord()
            guard !words.isEmpty else { return false }
            segments.append(words)
            words = []
            return true
        }
        while index < bytes.count {
            let byte = bytes[index]
            index += 1
            switch byte {
            case UInt8(ascii: " "), UInt8(ascii: "\t"): endWord()
            case UInt8(ascii: "\n"):
                // Empty lines are nothing; a line may also end after `&&`.
                if endSegment() { open = false }
            case UInt8(ascii: ";"):
                guard endSegment() else { return nil }
                open = false
            case UInt8(ascii: "&"), UInt8(ascii: "|"):
                guard endSegment() else { return nil }
                let twice = index < bytes.count && bytes[index] == byte
                if twice { index += 1 }
                // `|&` and `&>` are redirections in some shells.
                if index < bytes.count,
                    bytes[index] == UInt8(ascii: "&") || bytes[index] == UInt8(ascii: "|")
                        || bytes[index] == UInt8(ascii: ";")
                {
                    return nil
                }
                open = twice || byte == UInt8(ascii: "|")
            case UInt8(ascii: "'"):
                guard let end = bytes[index...].firstIndex(of: UInt8(ascii: "'")) else { return nil }
                word = (word ?? []) + bytes[index..<end]
                index = end + 1
            case UInt8(ascii: "\""):
                var part: [UInt8] = []
                while index < bytes.count, bytes[index] != UInt8(ascii: "\"") {
                    if "\\$`!\n".utf8.contains(bytes[index]) { return nil }
                    part.append(bytes[index])
                    index += 1
                }
                guard index < bytes.count else { return nil }
                index += 1
                word = (word ?? []) + part
            case UInt8(ascii: "\\"):
                guard index < bytes.count, bytes[index] > 0x20, bytes[index] < 0x7F || isPlain(bytes[index]) else {
                    return nil
                }
                word = (word ?? []) + [bytes[index]]
                index += 1
            case _ where isPlain(byte): word = (word ?? []) + [byte]
            default: return nil
            }
        }
        if !endSegment(), open { return nil }
        guard !segments.isEmpty else { return nil }
        for segment in segments {
            // An assignment changes what the command reads; a keyword or builtin is no program.
            if segment[0].utf8.contains(UInt8(ascii: "=")) || notCommands.contains(segment[0]) { return nil }
        }
        return segments
    }
}
