import KruxCapabilities
import KruxCore
import KruxPolicy
import Testing

/// Ways to run `git push` past a rule against it, and ways to be more than the rule for `git` allows.
@Suite struct CommandLineTests {
    private static let policy = """
        defaults: { tier: autonomous }
        capabilities:
          process.run:
            rules: [{ condition: { command_prefix: git push }, tier: blocked }]
            tier: autonomous
        """

    private func tier(_ words: [String], _ policy: PolicyFixture) -> Tier {
        policy.decide("process.run", ["command": .string(words[0]), "args": .strings(Array(words.dropFirst()))]).tier
    }

    private func tier(shell text: String, _ policy: PolicyFixture) -> Tier {
        policy.decide("process.run", ["command": .string(text), "shell": true]).tier
    }

    /// What an agent has put there under a shell's name does whatever it does, not what its text says.
    @Test(arguments: [
        ["./sh", "-c", "ls"], ["/workspace/a/bin/bash", "-c", "ls"], ["bin/../rbash", "-c", "ls"],
        ["/usr/bin/../../workspace/a/sh", "-c", "ls"], ["env", "./sh", "-c", "ls"], ["/tmp/dash", "x"],
    ]) func aShellElsewhereIsNoShell(_ words: [String]) throws {
        let commands = CommandLine.commands(of: words)
        #expect(commands.contains(.opaque) && !commands.contains(.words(["ls"], via: [words])), "\(commands)")
    }

    @Test(arguments: ["sh", "/bin/sh", "/usr/bin/bash"]) func theSystemsShellsAreReadThrough(_ shell: String) {
        let words = [shell, "-c", "ls x"]
        #expect(CommandLine.commands(of: words) == [.words(["ls", "x"], via: [words])])
    }

    @Test(arguments: [
        ["git", "push"], ["/usr/bin/git", "push", "origin"], ["env", "git", "push"],
        ["env", "-i", "A=b", "git", "push"],
        ["env", "-", "git", "push"], ["env", "-u", "X", "-", "git", "push"], ["env", "-S", "git push"],
        ["nice", "-n", "5", "git", "push"], ["nice", "--adjustment=5", "git", "push"], ["timeout", "5", "git", "push"],
        ["timeout", "-s9", "5", "git", "push"], ["sudo", "-u", "x", "git", "push"],
        ["sudo", "-iu", "x", "git", "push"],
        ["xargs", "git"], ["xargs", "-I", "%", "git", "%"], ["busybox", "sh", "-c", "git push"],
        ["bash", "-c", "git push"], ["bash", "-lc", "git push"], ["bash", "-c", "-e", "git push"],
        ["bash", "-c", "--", "git push"], ["bash", "-ec", "-x", "git push"], ["bash", "+x", "-c", "git push"],
        ["sh", "-c", "+e", "git push"], ["bash", "+o", "posix", "-c", "git push"],
        ["bash", "--norc", "-c", "git push"],
        ["bash", "-O", "extglob", "-c", "git push"], ["bash"], ["sh", "-s"], ["sh", "-"], ["sh", "/dev/stdin"],
        ["rbash", "-c", "git push"], ["zsh", "-c", "noglob git push"], ["fish", "-c", "git push"],
        ["ksh", "-c", "git push"],
        ["bash5", "-c", "git push"], ["dash-0.5", "-c", "git push"], ["env", "bash", "-c", "true; git push"],
        ["bash", "-c", "bash -c 'git push'"], ["bash", "-c", "ls && env git push | cat"],
        ["flock", "x", "git", "push"],
        ["script", "-qc", "git push"], ["find", ".", "-exec", "git", "push", ";"], ["strace", "git", "push"],
        ["/lib64/ld-linux-x86-64.so.2", "/usr/bin/git", "push"], ["toybox", "nice", "git", "push"],
    ])
    func noWayAroundARuleAgainstACommand(_ words: [String]) throws {
        #expect(tier(words, try PolicyFixture(active: Self.policy)) == .blocked)
    }

    @Test(arguments: [
        "git push", "ls; git push", "ls\ngit push", "ls & git push", "git 'push'", "g\\it push", "\"git\" push",
        "git $X", "$X", "`echo git push`", "$(echo git) push", "git pu*h", "git pus{h,}", "eval git push",
        "command eval git push", "command trap 'git push' EXIT", "time eval git push", "time FOO=bar git push",
        "time -p -- FOO=1 git push", "FOO=bar git push", "command builtin eval git push", "exec git push",
        "git push > x", "(git push)", "{ git push; }", "if true; then git push; fi", "! git push", "f() { git push; }",
        "alias x='git push'", ". ./x", "source x", "compgen -C 'git push' a", "test -v 'a[$(git push)]'",
        "printf -v 'a[$(git push)]' x", "[ -v 'a[$(git push)]' ]", "echo 'a[`git push`]'", "echo push | xargs git",
        "echo git push | sh", "echo git push | sh -", "echo git push | bash /dev/stdin", "cat <<X\ngit push\nX",
        "git \\\npush", "# comment\ngit push", "ls &&", "| ls", "ls ;; ls", "ls |& git push", "'unclosed",
        "git push\u{0}",
        "~/x", "ls\r\ngit push", "git\u{a0}push\u{2028}", "export X=y; git push", "declare -x a", "read x",
    ])
    func shellTextIsJudgedCommandByCommandOrNotAtAll(_ text: String) throws {
        #expect(tier(shell: text, try PolicyFixture(active: Self.policy)) == .blocked, "\(text)")
    }

    @Test(arguments: [
        "ls -la", "git status && git diff", "make test | tee log", "echo 'git push'", "echo \"a b\"; true",
        "ls\n\nls\n",
        "sleep 1 &", "cargo test --all -- --nocapture", "grep -rn 'a$b' src", "env LC_ALL=C sort x", "nice make -j4",
        "python3 script.py --x=1", "echo 'ünïcode'", "time make",
    ])
    func plainTextIsJudged(_ text: String) throws {
        #expect(tier(shell: text, try PolicyFixture(active: Self.policy)) == .autonomous, "\(text)")
    }

    @Test func anAllowedProgramIsNotWhateverItsEnvironmentMakesOfIt() throws {
        let policy = try PolicyFixture(
            active: """
                capabilities:
                  process.run:
                    rules: [{ condition: { command: git }, tier: autonomous }]
                    tier: approval_required
                """)
        func tier(_ arguments: JSONObject) -> Tier { policy.decide("process.run", arguments).tier }
        #expect(tier(["command": "git", "args": ["status"]]) == .autonomous)
        #expect(tier(["command": "git", "args": ["status"], "env": ["LANG": "C", "LC_ALL": "C"]]) == .autonomous)
        for name in ["PATH", "LD_PRELOAD", "BASH_ENV", "BASH_FUNC_git%%", "GIT_SSH_COMMAND", "X"] {
            #expect(
                tier(["command": "git", "env": .object(JSONObject([(name, "x")]))]) == .approvalRequired, "\(name)")
        }
        #expect(tier(["command": "env", "args": ["PATH=/x", "git"]]) == .approvalRequired)
        #expect(tier(["command": "./git"]) == .approvalRequired)
        #expect(tier(["command": "bash", "args": ["-c", "git status; git log"]]) == .autonomous)
        #expect(tier(["command": "bash", "args": ["-c", "git status; ls"]]) == .approvalRequired)
        #expect(tier(["command": "sh", "args": ["git"]]) == .approvalRequired)
    }

    @Test func aRuleAgainstAShellHoldsForItsText() throws {
        let policy = try PolicyFixture(
            active: """
                capabilities:
                  process.run:
                    rules: [{ condition: { command: [bash, sh] }, tier: blocked }]
                    tier: autonomous
                """)
        #expect(tier(["bash", "x.sh"], policy) == .blocked)
        #expect(tier(["bash", "-c", "ls"], policy) == .blocked)
        #expect(tier(shell: "ls", policy) == .blocked)
        #expect(tier(["dash", "-c", "ls"], policy) == .autonomous)
        #expect(tier(["ls"], policy) == .autonomous)
    }

    @Test func globsAndArguments() throws {
        let policy = try PolicyFixture(
            active: """
                capabilities:
                  process.run:
                    rules:
                      - { condition: { args_contain: [--force, -f] }, tier: blocked }
                      - { condition: { command_glob: "npm run *" }, tier: autonomous }
                      - { condition: { all: [{ command: make }, { not: { args_contain: install } }] }, tier: notify }
                    tier: approval_required
                """)
        #expect(tier(["npm", "run", "build"], policy) == .autonomous)
        #expect(tier(["npm", "run"], policy) == .approvalRequired)
        #expect(tier(["npm", "run build"], policy) == .approvalRequired)
        #expect(tier(["/opt/npm", "run", "build"], policy) == .approvalRequired)
        #expect(tier(["npm", "run", "x", "--force"], policy) == .blocked)
        #expect(tier(["make", "all"], policy) == .notify)
        #expect(tier(["make", "install"], policy) == .approvalRequired)
    }
}

@Suite struct ValueReadingTests {
    @Test(arguments: [
        "http://api.example.com.evil.com/", "http://good.com@evil.com/", "https://evil.com\\@api.example.com/",
        "https://evil.com#@api.example.com/", "https://api.example.com:8443/", "http://api.example.com/",
        "https://API.example.com.", "https://api.example.com/pub", "https://api.example.com/pub/../pub",
        "https://api.example.com/adminx", "ftp://api.example.com/admin",
    ])
    func aURLElsewhereIsNotUnderAPrefix(_ text: String) throws {
        let prefix = try #require(WebAddress("https://api.example.com/admin"))
        #expect(!(WebAddress(text)?.isUnder(prefix) ?? false), "\(text)")
    }

    @Test(arguments: [
        "https://api.example.com/admin", "https://API.example.com:443/admin/x?y#z", "https://api.example.com./admin/",
        "https://u:p@api.example.com/pub/../admin", "https://api.example.com/./admin",
    ])
    func aURLThereIs(_ text: String) throws {
        let prefix = try #require(WebAddress("https://api.example.com/admin/"))
        #expect(try #require(WebAddress(text)).isUnder(prefix), "\(text)")
    }

    @Test(arguments: [
        "https://api.example.com/%61dmin", "https://api.example.com/adm%69n/x", "https://api.example.com/pub//../admin",
        "https://api.example.com/admin;x=1", "https://api.example.com/a%2fb", "https://api.example.com/%2e%2e/x",
        "https://api.example.com/%", "https://api.example.com/%zz", "https://0x7f.1/", "https://2130706433/",
        "https://127.1/", "https://0177.0.0.1/", "https://[::1%25eth0]/", "https://[1.2.3.4]/", "https://exa mple.com/",
        "https://ex\u{e4}mple.com/",
        "https://a..b/", "https:///x", "//x/y", "javascript:x", "https://a:99999/", "https://a@b@c/", "https://a\tb/",
        "",
    ])
    func whatTwoReadersMayReadDifferentlyIsNotRead(_ text: String) {
        #expect(WebAddress(text) == nil, "\(text)")
    }

    @Test func recipients() throws {
        let policy = try PolicyFixture(
            active: """
                capabilities:
                  email.send:
                    rules: [{ condition: { recipient: boss@x.example }, tier: blocked }]
                    tier: autonomous
                """)
        func tier(_ text: String) -> Tier {
            policy.decide("email.send", ["to": ["a@b.example", .string(text)], "subject": "", "body": ""]).tier
        }
        for text in [
            "boss@x.example", "BOSS@X.example", "boss@x.example.", "\"boss\"@x.example", "Boss <boss@x.example>",
            "boss(c)@x.example", " boss@x.example",
        ] { #expect(tier(text) == .blocked, "\(text)") }
        #expect(tier("other@x.example") == .autonomous)
    }

    @Test(arguments: [
        ("a*c", "abbbc", true), ("a*c", "a/c", false), ("/w/**/x", "/w/x", true), ("/w/**/x", "/w/a/b/x", true),
        ("/w/**/x", "/w/ax", false), ("/w/**", "/w", true), ("/w/**", "/w/a/b", true), ("/w/**", "/wa", false),
        ("/w/**/**/**", "/w", true), ("/**/**/x", "/x", true), ("/**/**/x", "/a/b/x", true),
        ("**/x", "a/x", true), ("?", "é", true), ("?", "/", false), ("[!a]", "b", true), ("[!a]", "/", false),
        ("[+-0]", "/", false), ("\\*", "*", true), ("\\*", "x", false), ("*.md", ".md", true), ("/**", "/a", true),
    ])
    func pathGlobs(_ glob: String, _ text: String, _ fits: Bool) throws {
        #expect(try Pattern(glob, .pathGlob).fits(text) == fits)
    }

    @Test(arguments: [
        ("v[0-9]+", "v12", true), ("v[0-9]+", "xv12", false), ("^v$", "v", true), ("(a|b)*c{2,3}", "abcc", true),
        ("(a|b)*c{2,3}", "abcccc", false), ("\\d\\w\\s?", "1a", true),
        ("(a*)*b", "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaac", false),
        ("(a*)*", "aaa", true), ("(a*b*)*", "abba", true), (".", "\n", true), ("[^x]+", "abc", true),
        ("a{3}", "aaa", true),
        ("a{0}", "", true), ("(|a)+b", "aab", true), ("", "", true), ("feature/.*", "feature/x", true),
    ])
    func expressionsMustFitWhole(_ expression: String, _ text: String, _ fits: Bool) throws {
        #expect(try Pattern(expression, .regularExpression).fits(text) == fits)
    }

    @Test(arguments: [
        "(", ")", "a**", "*", "[", "[]", "[b-a]", "a{2,1}", "a{", "(?i)a", "\\q", "\\1", "a^b",
        "((((){1000}){1000}){1000}){1000}", "a{1000}{2}", "(a{100}){100}",
    ])
    func expressionsThatAreNoneAreRefusedAtOnce(_ expression: String) {
        #expect(throws: Pattern.Malformed.self) { try Pattern(expression, .regularExpression) }
    }
}
