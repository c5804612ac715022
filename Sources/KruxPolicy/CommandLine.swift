import KruxCore

/// One command as it will be executed: the program and its words, or something that rules on commands cannot judge.
package enum CommandLine: Sendable, Equatable {
    /// `via`: the shells, as they are called, whose text it stands in. They run, too, but what they do is what their
    /// text says; a rule that names one of them cannot be judged.
    case words([String], via: [[String]] = [])
    case opaque

    /// The words as a shell would read them back: joined by blanks, quoted where a plain word would say something else.
    package static func joined(_ words: [String]) -> String {
        words.map { word in
            let plain = !word.isEmpty && word.utf8.allSatisfy { ShellText.isPlain($0) || $0 >= 0x80 }
            if plain { return word }
            let parts = word.split(separator: "'", omittingEmptySubsequences: false)
            return "'" + parts.joined(separator: "'\\''") + "'"
        }.joined(separator: " ")
    }
}

extension CommandLine {
    /// Shells whose language is the one that `ShellText` knows.
    private static let shells: Set<String> = ["sh", "bash", "dash", "ash", "rbash"]
    /// Shells with a language of their own, or with words before a command that change what it is.
    private static let otherShells: Set<String> = [
        "zsh", "rzsh", "ksh", "rksh", "mksh", "lksh", "pdksh", "yash", "posh", "csh", "tcsh", "fish", "pwsh", "nu",
        "elvish",
        "xonsh",
    ]
    /// Programs that run others in ways that are not followed here.
    private static let launchers: Set<String> = [
        "script", "flock", "ionice", "unshare", "taskset", "setpriv", "chrt", "prlimit", "su", "runuser", "chroot",
        "nsenter", "watch", "parallel", "strace", "ltrace", "gdb", "toybox", "setarch", "linux32", "linux64", "expect",
        "systemd-run", "dbus-run-session", "start-stop-daemon", "capsh", "bwrap", "firejail", "proot", "fakeroot",
        "unbuffer", "rlwrap", "ld.so",
    ]
    private static let maxDepth = 8
    /// More commands than this in one line are no line that anybody reads.
    static let maxCommands = 256

    /// Variables that change how a program looks, not what it does.
    private static let plainVariables: Set<String> = [
        "LANG", "LANGUAGE", "TZ", "TERM", "COLORTERM", "NO_COLOR", "FORCE_COLOR", "CLICOLOR", "COLUMNS", "LINES", "CI",
        "DEBIAN_FRONTEND", "NODE_ENV", "RUST_BACKTRACE", "RUST_LOG", "PYTHONUNBUFFERED", "PYTHONDONTWRITEBYTECODE",
        "SOURCE_DATE_EPOCH",
    ]

    /// Whether a variable may decide what a program loads or runs: all may but a few.
    package static func isRisky(variable name: String) -> Bool {
        !plainVariables.contains(name) && !name.hasPrefix("LC_")
    }

    /// Everything that `words` executes: itself, what it wraps, and the commands of a shell's text.
    package static func commands(of words: [String]) -> [CommandLine] {
        var search = Search()
        search.collect(words, depth: 0, inShell: false)
        return search.result
    }

    /// The commands of a text given to `/bin/sh -c`.
    package static func commands(ofShellText text: String) -> [CommandLine] {
        var search = Search()
        search.collect(text: text, by: ["/bin/sh", "-c", text], depth: 0)
        return search.result
    }

    private struct Search {
        private var found: [CommandLine] = []
        private var via: [[String]] = []

        var result: [CommandLine] { found.count > maxCommands ? [.opaque] : found }

        mutating func collect(text: String, by shell: [String], depth: Int) {
            guard let segments = ShellText.segments(of: text), depth < maxDepth else { return found.append(.opaque) }
            via.append(shell)
            for segment in segments where found.count <= maxCommands {
                collect(segment, depth: depth + 1, inShell: true)
            }
            via.removeLast()
        }

        /// - Parameter inShell: whether a shell reads the words, so that its builtins and keywords are no programs.
        mutating func collect(_ words: [String], depth: Int, inShell: Bool) {
            guard let program = words.first, depth < maxDepth, found.count <= maxCommands,
                !(inShell && ShellText.isNoProgram(words))
            else { return found.append(.opaque) }
            let name = CommandLine.lastComponent(program)
            if shells.contains(name), !CommandLine.isSystemProgram(program) {
                // Whatever the agent has put there under a shell's name.
                found.append(.words(words, via: via))
                return found.append(.opaque)
            }
            if shells.contains(name) {
                switch shellText(Array(words.dropFirst())) {
                case .text(let text): return collect(text: text, by: words, depth: depth)
                case .script: return found.append(.words(words, via: via))
                case .unclear:
                    found.append(.words(words, via: via))
                    return found.append(.opaque)
                }
            }
            found.append(.words(words, via: via))
            if let wrapper = Wrapper.known[name] {
                switch wrapper.inner(Array(words.dropFirst())) {
                case .command(let inner, let clear):
                    collect(inner, depth: depth + 1, inShell: inShell)
                    if !clear { found.append(.opaque) }
                case .nothing: break
                case .unclear: found.append(.opaque)
                }
            } else if CommandLine.runsOthers(name, words) {
                found.append(.opaque)
            }
        }
    }

    /// A name that is looked up, or one of the system's folders: nothing an agent can have written.
    private static func isSystemProgram(_ program: String) -> Bool {
        !program.utf8.contains(UInt8(ascii: "/"))
            || ["/bin/", "/usr/bin/", "/usr/local/bin/"].contains {
                program.hasPrefix($0) && !program.dropFirst($0.count).utf8.contains(UInt8(ascii: "/"))
            }
    }

    static func lastComponent(_ program: String) -> String {
        program.utf8.split(separator: UInt8(ascii: "/")).last.map { String(Substring($0)) } ?? program
    }

    private static func runsOthers(_ name: String, _ words: [String]) -> Bool {
        if otherShells.contains(name) || launchers.contains(name) || name.hasPrefix("ld-linux")
            || name.hasPrefix("ld-musl")
        {
            return true
        }
        // `bash5`, `dash-0.5`.
        let stem = String(name.prefix { $0.isLetter })
        if stem.utf8.count < name.utf8.count, shells.contains(stem) || otherShells.contains(stem) { return true }
        if name == "find" { return words.contains { ["-exec", "-execdir", "-ok", "-okdir"].contains($0) } }
        return false
    }

    private enum ShellArguments {
        case text(String), script, unclear
    }

    /// `-c TEXT` in the forms people write: `-c`, `-lc`, `-e -u -c`; and a script file, which is an argument like any
    /// other. Options go on after a `-c`, and the text is the first word that is none.
    private static func shellText(_ arguments: [String]) -> ShellArguments {
        var givesText = false
        for word in arguments {
            let bytes = Array(word.utf8)
            guard bytes.first == UInt8(ascii: "-") || bytes.first == UInt8(ascii: "+") else {
                // Words after the text are its `$0`, `$1`, …, which a plain text cannot read.
                if givesText { return .text(word) }
                // A file that is its input, by another name.
                let input = ["/dev/", "/proc/"].contains { word.hasPrefix($0) }
                return input || word.isEmpty ? .unclear : .script
            }
            let letters = bytes.dropFirst()
            guard bytes.first == UInt8(ascii: "-"), !letters.isEmpty, letters.allSatisfy({ "ceilux".utf8.contains($0) })
            else { return .unclear }
            if letters.contains(UInt8(ascii: "c")) { givesText = true }
        }
        // A shell that reads commands from its input, or a text that is missing.
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
    /// It gives the command words that nobody sees here.
    var addsWords = false

    enum Inner {
        /// `clear`: whether the words are all there is to it.
        case command([String], clear: Bool)
        case nothing, unclear
    }

    func inner(_ arguments: [String]) -> Inner {
        var rest = arguments[...]
        var clear = !addsWords
        while let word = rest.first, word.utf8.first == UInt8(ascii: "-") {
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
            while let word = rest.first, let mark = word.firstIndex(of: "=") {
                if CommandLine.isRisky(variable: String(word[..<mark])) { clear = false }
                rest.removeFirst()
            }
        }
        for _ in 0..<operands where rest.popFirst() == nil { return .nothing }
        return rest.isEmpty ? .nothing : .command(Array(rest), clear: clear)
    }

    static let known: [String: Wrapper] = [
        "env": Wrapper(flags: ["-i", "-0", "-"], valued: ["-u", "-C"], assignments: true),
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
            flags: ["-0", "-r", "-t"], valued: ["-n", "-P", "-L", "-s", "-a", "-d", "-E", "-I"], addsWords: true),
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
///     plain     = ASCII letters, digits, and any of  _ - . , / : = @ % +  (other scripts in quotes: in some locales a
///                 byte of theirs is a blank)
///
/// So there are no expansions (`$`, `` ` ``, `~`, `*`, `?`, `[`, `{`), no redirections, groups, comments, line
/// continuations or history; the first word of a segment is no assignment, keyword, or builtin that reads or runs
/// something of its own (`eval`, `source`, `.`, `alias`, …).
package enum ShellText {
    static func isPlain(_ byte: UInt8) -> Bool {
        switch byte {
        case UInt8(ascii: "a")...UInt8(ascii: "z"), UInt8(ascii: "A")...UInt8(ascii: "Z"),
            UInt8(ascii: "0")...UInt8(ascii: "9"):
            true
        default: "_-.,/:=@%+".utf8.contains(byte)
        }
    }

    private static let notCommands: Set<String> = [
        "if", "then", "else", "elif", "fi", "do", "done", "case", "esac", "while", "until", "for", "in", "function",
        "select", "coproc", "eval", "source", ".", "alias", "unalias", "trap", "set", "shopt", "builtin",
        "declare", "typeset", "local", "export", "readonly", "read", "mapfile", "readarray", "enable", "fc", "bind",
        "complete", "compgen", "compopt", "hash", "unset", "shift", "getopts", "let", "noglob", "nocorrect", "repeat",
        "emulate", "-",
    ]

    /// Whether a shell takes the words for something else than a program: a keyword, a builtin that reads or runs
    /// something of its own, an assignment, or an arithmetic that runs what is quoted in it.
    static func isNoProgram(_ words: [String]) -> Bool {
        guard let first = words.first else { return true }
        if notCommands.contains(first) || first.utf8.contains(UInt8(ascii: "=")) { return true }
        if first == "test" || first == "printf", words.contains("-v") { return true }
        return words.contains { word in
            word.utf8.contains(UInt8(ascii: "["))
                && (word.utf8.contains(UInt8(ascii: "`")) || word.firstRange(of: "$(") != nil)
        }
    }

    /// One command of a text.
    package struct Segment: Sendable, Equatable {
        package let words: [String]
        /// Where it stands, from its first word to its last, in bytes.
        package let range: Range<Int>
    }

    /// The words of each command in order; nil when the text cannot be judged.
    package static func segments(of text: String) -> [[String]]? { parse(text)?.map(\.words) }

    /// The text with some of its commands, by their place from 0, replaced by `false`: each fails where it stood, and
    /// what follows goes on as it does after a failure.
    package static func text(_ text: String, failing places: Set<Int>) -> String? {
        guard let segments = parse(text), places.isSubset(of: segments.indices) else { return nil }
        var bytes = Array(text.utf8)
        for place in places.sorted(by: >) { bytes.replaceSubrange(segments[place].range, with: "false".utf8) }
        return String(decoding: bytes, as: UTF8.self)
    }

    /// The commands of a text in order; nil when it cannot be judged.
    package static func parse(_ text: String) -> [Segment]? {
        let bytes = Array(text.utf8)
        guard bytes.count <= 64 << 10 else { return nil }
        var segments: [Segment] = []
        var words: [String] = []
        var word: [UInt8]?
        var index = 0
        // Where the segment's first word begins, and where its last one ends.
        var first = 0
        var last = 0
        /// Whether the last joiner needs a command after it: `&&`, `||`, `|`.
        var open = false

        func endWord() {
            if let done = word { words.append(String(decoding: done, as: UTF8.self)) }
            word = nil
        }
        func endSegment() -> Bool {
            endWord()
            guard !words.isEmpty else { return false }
            segments.append(Segment(words: words, range: first..<last))
            words = []
            return true
        }
        while index < bytes.count {
            let byte = bytes[index]
            if words.isEmpty, word == nil { first = index }
            index += 1
            defer { if word != nil { last = index } }
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
                guard index < bytes.count, bytes[index] > 0x20, bytes[index] < 0x7F else {
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
        // An assignment changes what the command reads; a keyword or builtin is no program.
        if segments.contains(where: { isNoProgram($0.words) }) { return nil }
        return segments
    }
}
