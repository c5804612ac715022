import KruxPolicy
import Testing

/// Every mistake is named with its place and a way out, all of a file's at once.
@Suite struct PolicyErrorTests {
    @Test(arguments: [
        (
            "capabilities:\n  filesystem.read:\n    teir: notify",
            "active.yaml:3:5: unknown key `teir`; did you mean `tier`?"
        ),
        (
            "capabilities:\n  filesystem.read:\n    tier: notfy",
            "active.yaml:3:11: `notfy` is no tier; did you mean `notify`?"
        ),
        ("capabilites: {}", "active.yaml:1:1: unknown key `capabilites`; did you mean `capabilities`?"),
        ("capabilities:\n  File.read: { tier: notify }", "active.yaml:2:3: `File.read` is no capability pattern"),
        ("capabilities:\n  filesystem.read: notify", "active.yaml:2:20: `filesystem.read` needs a map with a `tier`"),
        (
            "capabilities:\n  filesystem.read: { tier: notify }\n  filesystem.read: { tier: blocked }",
            "active.yaml:3:3: the key `filesystem.read` occurs twice; it stands at line 2 already"
        ),
        ("rules:\n  - tier: notify", "active.yaml:2:5: the rule names no `capability`"),
        (
            "rules:\n  - { capability: filesystem.read }",
            "active.yaml:2:5: the rule for `filesystem.read` has no `tier`"
        ),
        (
            "links: { base_url: \"https://user@gate.example.com\" }",
            "active.yaml:1:20: `base_url` needs the address of the supervisors' port"
        ),
        (
            "capabilities:\n  filesystem.read: { tier: notify, sandbox: read-only }",
            "active.yaml:2:3: `sandbox` says how a process is confined, and `filesystem.read` starts none"
        ),
        (
            "capabilities:\n  process.run: { tier: notify, sandbox: readonly }",
            "active.yaml:2:41: `readonly` is no sandbox; did you mean `read-only`?"
        ),
        (
            "capabilities:\n  process.run: { tier: notify, sandbox: { hosts: [https://a.example] } }",
            "active.yaml:2:51: `https://a.example` is no host"
        ),
        (
            "capabilities:\n  process.run: { tier: notify, sandbox: { require: most } }",
            "active.yaml:2:52: `most` is no value of `require`"
        ),
        ("protected: [../x]", "active.yaml:1:13: `../x` is no relative path of names"),
        ("protected: [/x]", "active.yaml:1:13: `/x` is no relative path of names"),
        ("links: { valid_for: 10m }", "active.yaml:1:8: `links` has no `base_url`"),
        ("links: { base_url: \"ftp://gate.example.com\" }", "active.yaml:1:20: `base_url` needs"),
        ("links: { base_url: \"https://a.example\", valid_for: 2d }", "active.yaml:1:52: `valid_for`"),
        ("links: { base_url: \"https://a.example\", token: x }", "active.yaml:1:41: unknown key `token`"),
        ("notifiers: [desk]", "active.yaml:1:12: `notifiers` needs a map"),
        ("notifiers: { a b: { kind: desktop } }", "active.yaml:1:14: `a b` is no name of a notifier"),
        ("notifiers: { a: { on: [approval] } }", "active.yaml:1:17: the notifier `a` has no `kind`"),
        (
            "notifiers: { a: { kind: destkop } }",
            "active.yaml:1:25: `destkop` is no kind of notifier; did you mean `desktop`?"
        ),
        (
            "notifiers: { a: { kind: desktop, on: [approvals] } }",
            "active.yaml:1:39: `approvals` is nothing a notifier is told"
        ),
        ("notifiers: { a: { kind: command, command: [] } }", "active.yaml:1:17: the notifier `a` has no `command`"),
        (
            "notifiers: { a: { kind: webhook, url: \"https://h.example\" } }",
            "active.yaml:1:17: the notifier `a` has no `secret_file`"
        ),
        (
            "notifiers: { a: { kind: webhook, url: \"file:///etc/passwd\", secret_file: /s } }",
            "active.yaml:1:39: `url` needs an address that begins with https:// or http://"
        ),
        (
            "notifiers: { a: { kind: webhook, url: \"https://h.example\", secret_file: s } }",
            "active.yaml:1:73: `secret_file` needs an absolute path"
        ),
        (
            "notifiers: { a: { kind: webhook, url: \"https://h.example\", secret: hunter2 } }",
            "active.yaml:1:60: unknown key `secret`"
        ),
        (
            "notifiers: { a: { kind: email, server: \"http://r.example\", from: a@b.example, to: [c@d.example] } }",
            "active.yaml:1:40: `server` needs an address that begins with smtp:// or smtps://"
        ),
        (
            "notifiers: { a: { kind: email, server: \"smtp://r.example\", from: \"a@b.example\\r\\nBcc: x@y.example\", to: [c@d.example] } }",
            "active.yaml:1:17: `a@b.example"
        ),
        (
            "notifiers: { a: { kind: email, server: \"smtp://r.example\", from: a@b.example, to: [] } }",
            "active.yaml:1:17: the notifier `a` has no `to`"
        ),
        (
            "notifiers: { a: { kind: desktop, answers_as: \"role:boss\" } }",
            "active.yaml:1:46: `role:boss` is no supervisor's name"
        ),
        ("notifiers: { a: { kind: desktop, batch: 2h } }", "active.yaml:1:41: `batch`"),
        ("notifiers: { a: { kind: desktop, after: -1m } }", "active.yaml:1:41: `after`"),
        ("notifiers: { a: { kind: desktop, quiet: 22:00 } }", "active.yaml:1:41: `quiet` needs two times of the day"),
        (
            "notifiers: { a: { kind: desktop, quiet: \"22:00-22:00\" } }",
            "active.yaml:1:41: `quiet` needs two times of the day"
        ),
        (
            "notifiers: { a: { kind: desktop, quiet: \"25:00-07:00\" } }",
            "active.yaml:1:41: `quiet` needs two times of the day"
        ),
        (
            "notifiers: { a: { kind: desktop, quiet: \"7:00-9:00\" } }",
            "active.yaml:1:41: `quiet` needs two times of the day"
        ),
        ("rules: {}", "active.yaml:1:8: `rules` needs a list"),
        ("- a", "active.yaml:1:1: a policy is a map"),
        ("", "active.yaml:1:1: the file holds no policy"),
        ("a: [", "active.yaml:2:1: not valid YAML"),
        ("name: a\n---\nname: b", "active.yaml:2:1: a second document starts here"),
        ("name: !!str a", "active.yaml:1:7: the tag"),
        ("defaults: { tier: notify, lock: true }", "active.yaml:1:27: unknown key `lock`"),
        ("defaults: { locked: true }", "active.yaml:1:11: `defaults` needs a `tier`"),
        ("defaults: { tier: notify, locked: yes }", "active.yaml:1:35: `locked` needs `true` or `false`"),
        (
            "extends: team-modrate\ndefaults: { tier: notify }",
            "active.yaml:1:10: no policy is named `team-modrate`; did you mean `team-moderate`?"
        ),
        ("extends: active\ndefaults: { tier: notify }", "active.yaml:1:10: `extends: active` leads back"),
        ("agent_overrides: any", "active.yaml:1:18: `any` is no value of `agent_overrides`"),
        (
            "capabilities:\n  filesystem.read:\n    rules: [{ condition: { path_prefx: /a }, tier: notify }]",
            "active.yaml:3:28: unknown key `path_prefx`; did you mean `path_prefix`?"
        ),
        (
            "capabilities:\n  filesystem.read:\n    rules: [{ condition: { path_prefix: a/b }, tier: notify }]",
            "active.yaml:3:41: `path_prefix` needs an absolute path"
        ),
        (
            "capabilities:\n  filesystem.read:\n    rules: [{ condition: { path_prefix: /a/../b }, tier: notify }]",
            "active.yaml:3:41: `path_prefix` contains `.` or `..`"
        ),
        (
            "capabilities:\n  filesystem.write:\n    rules: [{ condition: { content_size_lt: 10KB }, tier: notify }]",
            "active.yaml:3:45: `content_size_lt` needs a number of bytes"
        ),
        (
            "capabilities:\n  filesystem.read:\n    rules: [{ condition: { content_size_lt: 10 }, tier: notify }]",
            "active.yaml:3:28: `content_size_lt` can never be judged"
        ),
        (
            "capabilities:\n  process.run:\n    rules: [{ condition: { command_prefx: ls }, tier: notify }]",
            "active.yaml:3:28: unknown key `command_prefx`; did you mean `command_prefix`?"
        ),
        (
            "capabilities:\n  email.send: { tier: notify, quorum: 2 }",
            "active.yaml:2:31: `quorum` says how a question is answered, and this rule asks none"
        ),
        (
            "capabilities:\n  email.send: { tier: approval_required, approvers: [a], quorum: 2 }",
            "active.yaml:2:42: `quorum: 2` asks more people than `approvers` names"
        ),
        (
            "capabilities:\n  email.send: { tier: approval_required, approvers: [] }",
            "active.yaml:2:53: `approvers` names nobody"
        ),
        (
            "capabilities:\n  email.send: { tier: approval_required, approvers: \"role:A B\" }",
            "active.yaml:2:53: `role:A B` is no supervisor's name"
        ),
        (
            "capabilities:\n  email.send: { tier: approval_required, quorum: 0 }",
            "active.yaml:2:50: `quorum` needs a number of people"
        ),
        (
            "capabilities:\n  email.send: { tier: approval_required, expires: 1h, remind_after: 1h }",
            "active.yaml:2:42: nobody is reminded before the request expires"
        ),
        ("max_pending: 0", "active.yaml:1:14: `max_pending` needs a number of requests"),
        ("agent: x\ndefaults: { tier: notify }", "active.yaml:1:1: `agent` belongs to an agent's own file"),
        ("mode: ask", "active.yaml:1:1: `mode` belongs to an agent's own file"),
        (
            "capabilities:\n  filesystem.read:\n    rules: [{ tier: notify }]\n    reason: x",
            "active.yaml:4:5: `reason` belongs to a tier"
        ),
    ])
    func mistakesAreNamedWithTheirPlace(_ text: String, _ expected: String) {
        let found = errors(text)
        #expect(found.contains { $0.hasPrefix(expected) }, "\(found)")
    }

    @Test func allErrorsOfAFileComeAtOnceInOrder() {
        let found = errors("capabilities:\n  a: { tier: x }\n  filesystem.read: { tier: x }\nbad: 1\nmode: asc")
        #expect(
            found.map { String($0.prefix(15)) } == [
                "active.yaml:2:3", "active.yaml:3:2", "active.yaml:4:1", "active.yaml:5:7",
            ])
    }

    @Test func aPatternThatCoversNothingIsAWarning() throws {
        let policy = try PolicyFixture(
            active: "capabilities: { filesystem.reed: { tier: notify }, nothing.*: { tier: notify } }")
        #expect(policy.compiled.warnings.count == 2)
        #expect(policy.compiled.warnings[0].hint == "did you mean `filesystem.read`?")
    }

    @Test func hostileYAMLIsRefused() {
        let bomb =
            "a: &a [x,x,x,x,x,x,x,x,x,x]\n"
            + (0..<8).map {
                "b\($0): &b\($0) [\(Array(repeating: $0 == 0 ? "*a" : "*b\($0 - 1)", count: 10).joined(separator: ","))]"
            }.joined(separator: "\n")
        #expect(errors(bomb).first?.contains("nodes once aliases are followed") == true)
        let deep = String(repeating: "[", count: 70) + String(repeating: "]", count: 70)
        #expect(errors(deep).first?.contains("nested deeper") == true)
        #expect(errors("# " + String(repeating: "x", count: 1 << 20)).first?.contains("at most 1048576") == true)
        #expect(errors("name: a\u{0}b").first?.contains("NUL") == true)
        let latin1 = PolicyDocumentReader.read([0x61, 0x3A, 0x20, 0x62, 0x0A, 0x63, 0x3A, 0x20, 0xE9], file: "f.yaml")
        guard case .failure(let failure) = latin1 else {
            Issue.record("not UTF-8 was read")
            return
        }
        #expect(failure.description.hasPrefix("f.yaml:2:1: not valid UTF-8"))
        #expect(errors("name: *nowhere").first?.contains("no anchor `&nowhere`") == true)
    }

    @Test func twoPoliciesOfOneNameAreAnError() {
        #expect(errors("name: team-moderate\ndefaults: { tier: notify }").contains { $0.contains("is taken by") })
    }
}
