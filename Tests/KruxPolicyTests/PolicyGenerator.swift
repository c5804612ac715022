// One file, so that the values of rules and calls are seen beside each other.

/// Steele, Lea and Flood's SplitMix64.
struct SplitMix64: RandomNumberGenerator {
    private var state: UInt64

    init(seed: UInt64) { state = seed }

    mutating func next() -> UInt64 {
        state &+= 0x9E37_79B9_7F4A_7C15
        var mixed = state
        mixed = (mixed ^ (mixed >> 30)) &* 0xBF58_476D_1CE4_E5B9
        mixed = (mixed ^ (mixed >> 27)) &* 0x94D0_49BB_1331_11EB
        return mixed ^ (mixed >> 31)
    }
}

/// What an argument can hold.
private enum ArgumentKind {
    case text([String])
    case int([Int64])
    case bool
    case list([String])
}

/// A kind of condition that some capability can have.
private enum ConditionKind {
    case pathPrefix, pathNotUnder, pathGlob, contentSize, command, commandPrefix, commandGlob, argsContain, host
    case urlPrefix, method, port, recipient, recipientDomain, keyPrefix, arguments
}

/// A capability: what conditions can read of it.
private struct Subject {
    var name: String
    var kinds: [ConditionKind] = []
    var arguments: [(name: String, kind: ArgumentKind)] = []
}

/// The few values that bundles and calls are made of, so that they meet often.
private enum Pool {
    static let agents = ["ada", "bob", "cyd"]
    static let policies = ["alpha", "beta", "gamma", "delta"]
    static let paths = [
        "/workspace", "/workspace/ada", "/workspace/ada/src", "/workspace/ada/src/a.md", "/workspace/ada/src/b.txt",
        "/workspace/ada/top", "/workspace/ada/top/secret", "/workspace/ada/top/secret/key.md", "/workspace/adab",
        "/workspace/bob", "/workspace/bob/.env",
    ]
    static let folders = [
        "/workspace", "/workspace/ada", "/workspace/ada/", "/workspace/ada/src", "/workspace/ada/top",
        "/workspace/ada/top/secret", "/workspace/ada/top/secret/", "/workspace/bob", "/workspace/adab",
        "/workspace/ada/src/a.md", "/",
    ]
    static let globs = [
        "/workspace/**", "/workspace/ada/**", "/workspace/**/*.md", "/workspace/*/src/*", "/workspace/ad?/**",
        "/workspace/[a-b]*/top/**", "/**/secret/**", "/workspace/*", "/workspace/ada/src/[ab].*", "/**",
        "/workspace/**/top/*", "/workspace/ada", "/workspace/[!a]*/**", "/workspace/*/.*", "/workspace/ada/**/key.md",
    ]
    static let components = ["*", "**", "ada", "a*", "bob", "src", "top", "secret", "*.md", "?.*", "[ab]*", "[b-t]*"]
    static let sizes: [Int64] = [0, 1, 1023, 1024, 1025, 10240, 1 << 20]
    static let programs = ["git", "git", "/usr/bin/git", "npm", "npm", "ls", "rm", "./deploy.sh", "bin/npm"]
    static let words = ["push", "pull", "run", "build", "--force", "-rf", "origin", "main", "x=1", "a.txt", "@a/b:1%+"]
    static let commands = ["git", "npm", "rm", "ls", "/usr/bin/git", "./deploy.sh", "deploy.sh", "it"]
    static let commandPrefixes = [
        "git", "git push", "git push origin", "npm run", "npm run build", "/usr/bin/git push", "rm -rf", "npm",
        "git pu",
    ]
    static let lines = [
        ["git", "push", "origin", "main"], ["git", "push", "--force"], ["git", "pull"], ["git"], ["npm", "run"],
        ["npm", "run", "build"], ["rm", "-rf", "a.txt"], ["/usr/bin/git", "push"],
    ]
    static let commandGlobs = [
        "git *", "npm run *", "*", "git push*", "* --force", "*push*", "git", "npm * build", "*/git *", "*git*", "rm**",
    ]
    static let hosts = [
        "a.example", "a.example", "a.example", "api.a.example", "v2.api.a.example", "xa.example", "b.example",
    ]
    static let hostPatterns = [
        "a.example", "*.a.example", "*.example", "api.a.example", "B.Example", "b.example", "*.API.a.example",
        "127.0.0.1",
    ]
    static let urlPaths = ["/", "/v1", "/v1/users", "/v1/users/7", "/v1x", "/v2"]
    static let urlPrefixes = [
        "https://a.example", "https://a.example/", "https://a.example/v1", "http://a.example/v1",
        "https://api.a.example:8443/v1", "https://a.example:443/v1/users", "https://A.example/v2", "http://b.example",
        "https://b.example/v1", "http://a.example:80/",
    ]
    static let ports: [Int64] = [80, 443, 443, 8443, 22]
    static let methods = ["GET", "GET", "POST", "DELETE"]
    static let addresses = ["a@a.example", "A@A.Example", "b@b.example", "c@mail.b.example", "nobody", "@b.example"]
    static let wholeAddresses = ["a@a.example", "A@A.Example", "b@b.example", "c@mail.b.example"]
    static let recipients = ["a@a.example", "b@b.example", "B@b.example", "c@mail.b.example", "nobody"]
    static let domains = ["a.example", "b.example", "*.b.example", "*.example", "B.EXAMPLE", "mail.b.example"]
    static let keys = ["config/a", "config/", "config", "jobs/1", "jobs/2", "a"]
    static let keyPrefixes = ["config/", "config", "jobs/", "jobs/1", "c", "config/a/b"]
    static let roles = ["dev", "qa", "devops", "analyst", "intern", "ghost", "pm"]
    static let modes = ["explore", "ask", "auto", "auto", "yolo", "safe"]
    static let labels = ["deploy", "review"]
    /// Minutes since midnight.
    static let times: [Int64] = [0, 540, 1020, 1320, 330, 735]

    static let subjects: [Subject] = [
        Subject(
            name: "filesystem.read", kinds: [.pathPrefix, .pathPrefix, .pathNotUnder, .pathGlob, .arguments],
            arguments: [("limit", .int(limits)), ("encoding", encoding), ("checksum", .bool)]),
        Subject(
            name: "filesystem.write",
            kinds: [.pathPrefix, .pathNotUnder, .pathGlob, .contentSize, .contentSize, .arguments],
            arguments: [("encoding", encoding), ("overwrite", .bool), ("create_parents", .bool)]),
        Subject(
            name: "filesystem.move", kinds: [.pathPrefix, .pathNotUnder, .pathGlob, .arguments],
            arguments: [("overwrite", .bool)]),
        Subject(
            name: "filesystem.list", kinds: [.pathPrefix, .pathNotUnder, .pathGlob, .arguments],
            arguments: [("depth", .int([1, 2, 64])), ("limit", .int(limits))]),
        Subject(
            name: "process.run",
            kinds: [.command, .command, .commandPrefix, .commandPrefix, .commandGlob, .argsContain, .arguments],
            arguments: [
                ("timeout_seconds", .int([1, 60, 600])), ("command", .text(["git", "npm", "ls"])),
                ("args", .list(["--force", "push", "run", "x"])),
            ]),
        Subject(
            name: "git.push", kinds: [.pathPrefix, .pathNotUnder, .pathGlob, .arguments, .arguments],
            arguments: [
                ("remote", .text(["origin", "fork"])), ("branch", .text(["main", "dev", "release/1", "release/22"])),
            ]),
        Subject(
            name: "network.http_request",
            kinds: [.host, .host, .urlPrefix, .urlPrefix, .method, .port, .arguments],
            arguments: [("timeout_seconds", .int([1, 60, 600])), ("method", .text(["GET", "POST", "DELETE"]))]),
        Subject(
            name: "network.port_check", kinds: [.host, .port, .arguments],
            arguments: [("port", .int(ports))]),
        Subject(
            name: "email.send", kinds: [.recipient, .recipient, .recipientDomain, .recipientDomain, .arguments],
            arguments: [
                ("to", .list(recipients)), ("cc", .list(recipients)), ("bcc", .list(recipients)),
                ("subject", .text(["hello", "re: hello", "invoice 7", "invoice 42", ""])),
            ]),
        Subject(
            name: "state.shared.set", kinds: [.keyPrefix, .arguments],
            arguments: [("key", .text(["config/a", "jobs/1", "a"])), ("version", .int([0, 1, 7]))]),
        Subject(
            name: "state.shared.list", kinds: [.keyPrefix, .arguments],
            arguments: [("prefix", .text(["config/", "jobs/", "c"])), ("limit", .int(limits))]),
        Subject(name: "system.time"), Subject(name: "secrets.export"),
    ]
    private static let limits: [Int64] = [1, 10, 1000]
    private static let encoding = ArgumentKind.text(["utf8", "base64"])

    /// The patterns that rules for a capability may have, besides its name and `*`.
    static func families(of name: String) -> [String] {
        name.hasPrefix("state.") ? ["state.*", "state.shared.*"] : ["\(name.prefix { $0 != "." }).*"]
    }
}

/// Bundles and calls from a seed; equal seeds give equal ones.
struct PolicyGenerator {
    private var random: SplitMix64

    init(seed: UInt64) { random = SplitMix64(seed: seed) }

    // MARK: Choices

    private mutating func below(_ count: Int) -> Int { Int(truncatingIfNeeded: (random.next() >> 33) % UInt64(count)) }

    private mutating func percent(_ chance: Int) -> Bool { below(100) < chance }

    private mutating func one<Value>(of values: [Value]) -> Value { values[below(values.count)] }

    private mutating func number(_ low: Int, _ high: Int) -> Int { low + below(high - low + 1) }

    /// One text mostly, sometimes two or three different ones.
    private mutating func some<Value: Equatable>(of values: [Value]) -> [Value] {
        var chosen = [one(of: values)]
        while chosen.count < 3, percent(25) {
            let value = one(of: values)
            if !chosen.contains(value) { chosen.append(value) }
        }
        return chosen
    }

    private mutating func several(of values: [String], upTo most: Int) -> [String] {
        var chosen: [String] = []
        for _ in 0..<number(0, most) { chosen.append(one(of: values)) }
        return chosen
    }

    private mutating func tier(_ weights: [Int]) -> NaiveTier {
        var rest = below(weights.reduce(0, +))
        for (tier, weight) in zip(NaiveTier.allCases, weights) {
            if rest < weight { return tier }
            rest -= weight
        }
        return .blocked
    }

    // MARK: Bundles

    /// Who holds a document, which decides the keys it may have.
    private enum Holder { case system, organisation, policy, agent }

    mutating func bundle() -> NaiveBundle {
        let names = Array(Pool.policies[..<number(1, Pool.policies.count)])
        var policies: [NaiveDocument] = []
        for (index, name) in names.enumerated() {
            var policy = document(name, .policy)
            // Only later ones, so that there is no cycle.
            if index + 1 < names.count, percent(55) { policy.extends = one(of: Array(names[(index + 1)...])) }
            policies.append(policy)
        }
        var bundle = NaiveBundle(
            system: document("system", .system), requirements: percent(45) ? document("requirements", .system) : nil,
            organisation: percent(70) ? document("org", .organisation) : nil,
            active: percent(60) ? names[0] : one(of: names), policies: policies, agents: [:])
        var agentNames: [String] = []
        for (name, chance) in zip(Pool.agents, [90, 50, 25]) where percent(chance) {
            agentNames.append(name)
            var agent = document(name, .agent)
            if percent(45) { agent.extends = one(of: names) }
            bundle.agents[name] = agent
        }

        for _ in 0..<number(1, 25) {
            let active = bundle.policies.firstIndex { $0.name == bundle.active } ?? 0
            switch below(20) {
            case 0: add(to: &bundle.system, [6, 3, 2, 1])
            case 1:
                if bundle.requirements == nil { bundle.requirements = document("requirements", .system) }
                if var requirements = bundle.requirements {
                    add(to: &requirements, [6, 3, 2, 1])
                    bundle.requirements = requirements
                }
            case 2...4:
                if var organisation = bundle.organisation {
                    add(to: &organisation, [6, 6, 4, 2])
                    bundle.organisation = organisation
                } else {
                    add(to: &bundle.policies[active], [6, 6, 4, 2])
                }
            case 5...9: add(to: &bundle.policies[active], [6, 6, 4, 2])
            case 10...12: add(to: &bundle.policies[below(bundle.policies.count)], [6, 6, 4, 2])
            default:
                guard !agentNames.isEmpty else {
                    add(to: &bundle.policies[active], [6, 6, 4, 2])
                    continue
                }
                let name = one(of: agentNames)
                if var agent = bundle.agents[name] {
                    add(to: &agent, [6, 5, 4, 2])
                    bundle.agents[name] = agent
                }
            }
        }
        return bundle
    }

    private mutating func document(_ name: String, _ holder: Holder) -> NaiveDocument {
        var document = NaiveDocument(name: name)
        switch holder {
        case .system:
            if percent(10) { document.defaults = NaiveDefaults(tier: tier([6, 3, 2, 1]), locked: percent(30)) }
        case .organisation, .policy:
            if percent(holder == .policy ? 60 : 25) {
                document.defaults = NaiveDefaults(tier: tier([5, 5, 4, 1]), locked: percent(25))
            }
            if percent(35) { document.agentOverrides = percent(70) ? "within_system" : "tighten_only" }
            if percent(25) { document.grants = percent(60) ? "allowed" : "none" }
            if percent(25) { for role in some(of: Pool.roles) { document.roles[role] = one(of: Pool.modes) } }
        case .agent:
            if percent(30) { document.agent = name }
            if percent(25) { document.defaults = NaiveDefaults(tier: tier([3, 4, 3, 1]), locked: percent(35)) }
            if percent(15) { document.mode = one(of: Pool.modes) }
            if percent(20) { document.role = one(of: Pool.roles) }
        }
        return document
    }

    private mutating func add(to document: inout NaiveDocument, _ weights: [Int]) {
        let rule = rule(weights)
        switch below(10) {
        case 0: document.overrides.append(rule)
        case 1...4: document.rules.append(rule)
        default:
            if let index = document.map.firstIndex(where: { $0.pattern == rule.pattern }) {
                if !rule.conditions.isEmpty {
                    document.map[index].rules.append(rule)
                } else if document.map[index].own == nil {
                    document.map[index].own = rule
                } else {
                    document.rules.append(rule)
                }
            } else if rule.conditions.isEmpty {
                document.map.append(NaiveEntry(pattern: rule.pattern, own: rule))
            } else {
                document.map.append(NaiveEntry(pattern: rule.pattern, rules: [rule]))
            }
        }
    }

    private mutating func rule(_ weights: [Int]) -> NaiveRule {
        let subject = one(of: Pool.subjects)
        let conditional = percent(72)
        let chance = below(100)
        let families = Pool.families(of: subject.name)
        let pattern = chance < 55 ? subject.name : chance < (conditional ? 93 : 85) ? one(of: families) : "*"
        var rule = NaiveRule(pattern: pattern, tier: tier(weights), locked: percent(15))
        // A pattern covers its subject, so what the subject can have is possible.
        if conditional {
            rule.conditions = conditions(subject, depth: 0)
            rule.plural = percent(50)
        }
        if percent(22) {
            let minutes = one(of: [1, 10, 60, 120] as [Int64])
            let written = percent(30)
            rule.rate = NaiveRate(
                max: Int64(number(1, 10)), windowSeconds: percent(30) && !written ? Int64(number(1, 90)) : minutes * 60,
                written: written, onExceed: percent(25) ? nil : percent(35) ? .blocked : .approvalRequired)
        }
        if percent(15) { rule.reason = one(of: ["ask first", "it's: \"so\" # really", "why not", "no"]) }
        return rule
    }

    // MARK: Conditions

    /// A condition map of one to three different keys.
    private mutating func conditions(_ subject: Subject, depth: Int) -> [NaiveCondition] {
        var conditions: [NaiveCondition] = []
        repeat {
            let condition = condition(subject, depth: depth)
            if !conditions.contains(where: { $0.key == condition.key }) { conditions.append(condition) }
        } while conditions.count < 3 && percent(18)
        return conditions
    }

    private mutating func condition(_ subject: Subject, depth: Int) -> NaiveCondition {
        if depth < 2, percent(22) {
            switch below(3) {
            case 0: return .all(maps(subject, depth: depth + 1))
            case 1: return .any(maps(subject, depth: depth + 1))
            default: return .not(conditions(subject, depth: depth + 1))
            }
        }
        guard !subject.kinds.isEmpty, percent(85) else {
            switch below(3) {
            case 0:
                let from = one(of: Pool.times)
                return .timeBetween(
                    from: from, to: one(of: Pool.times.filter { $0 != from }), zone: one(of: NaiveZone.allCases))
            case 1:
                var days = some(of: NaiveDay.allCases)
                if percent(50) { days = NaiveDay.allCases.filter { !days.contains($0) } }
                return .days(days, zone: one(of: NaiveZone.allCases))
            default:
                let which = number(1, 7)
                return .session(
                    label: which & 1 > 0 ? one(of: Pool.labels) : nil,
                    ageBelowMinutes: which & 2 > 0 ? one(of: [10, 60, 120]) : nil,
                    callsBelow: which & 4 > 0 ? one(of: [1, 10, 100]) : nil)
            }
        }
        switch one(of: subject.kinds) {
        case .pathPrefix: return .pathPrefix(some(of: Pool.folders))
        case .pathNotUnder: return .pathNotUnder(some(of: Pool.folders))
        case .pathGlob: return .pathGlob(percent(60) ? some(of: Pool.globs) : [glob()])
        case .contentSize: return .contentSize(one(of: NaiveComparison.allCases), one(of: Pool.sizes))
        case .command: return .command(some(of: Pool.commands))
        case .commandPrefix: return .commandPrefix(some(of: Pool.commandPrefixes))
        case .commandGlob: return .commandGlob(some(of: Pool.commandGlobs))
        case .argsContain: return .argsContain(some(of: Pool.words))
        case .host: return .host(some(of: Pool.hostPatterns))
        case .urlPrefix: return .urlPrefix(some(of: Pool.urlPrefixes))
        case .method: return .method(some(of: Pool.methods))
        case .port: return .port(one(of: Pool.ports))
        case .recipient: return .recipient(some(of: Pool.wholeAddresses))
        case .recipientDomain: return .recipientDomain(some(of: Pool.domains))
        case .keyPrefix: return .keyPrefix(some(of: Pool.keyPrefixes))
        case .arguments: return .arguments(argumentTests(subject))
        }
    }

    private mutating func maps(_ subject: Subject, depth: Int) -> [[NaiveCondition]] {
        var maps: [[NaiveCondition]] = []
        for _ in 0..<number(1, 3) { maps.append(conditions(subject, depth: depth)) }
        return maps
    }

    private mutating func glob() -> String {
        var glob = percent(85) ? "/workspace" : "/*"
        for _ in 0..<number(1, 3) { glob += "/" + one(of: Pool.components) }
        return glob
    }

    private mutating func argumentTests(_ subject: Subject) -> [NaiveArgumentTests] {
        var result: [NaiveArgumentTests] = []
        repeat {
            let (name, kind) = one(of: subject.arguments)
            if result.contains(where: { $0.name == name }) { continue }
            var tests: [NaiveTest] = []
            repeat {
                let test = test(kind)
                if !tests.contains(where: { $0.key == test.key }) { tests.append(test) }
            } while percent(20)
            result.append(NaiveArgumentTests(name: name, tests: tests, short: percent(50)))
        } while percent(20)
        return result
    }

    private mutating func test(_ kind: ArgumentKind) -> NaiveTest {
        if percent(12) { return .exists(percent(60)) }
        let matches: Bool
        let values: [NaiveValue]
        switch kind {
        case .text(let texts), .list(let texts):
            matches = percent(35)
            values = texts.map { .text($0) }
        case .int(let numbers):
            if percent(50) { return .compares(one(of: NaiveComparison.allCases), one(of: numbers)) }
            matches = false
            values = numbers.map { .int($0) }
        case .bool:
            matches = false
            values = [.bool(true), .bool(false)]
        }
        if matches, case .text(let text) = one(of: values) { return .matches(regex(like: text)) }
        switch below(4) {
        case 0: return .equals(one(of: values))
        case 1: return .notEquals(one(of: values))
        case 2: return .oneOf(some(of: values))
        default: return .noneOf(some(of: values))
        }
    }

    /// An expression that the text fits more often than not.
    private mutating func regex(like text: String) -> NaiveRegex {
        var parts: [NaiveRegex] = []
        var rest = Array(text.utf8)[...]
        while let sign = rest.first {
            var count = min(rest.count, number(1, 4))
            let taken = String(decoding: rest.prefix(count), as: UTF8.self)
            switch below(10) {
            case 0: parts.append(.repeated(.anything, from: below(2), to: nil))
            case 1: parts.append(.repeated(.shorthand(one(of: Array("dwsDWS"))), from: below(3), to: number(3, 6)))
            case 2:
                let low: UInt8 = one(of: [97, 98, 104])
                parts.append(.repeated(.set([low...122, 48...57]), from: 1, to: nil))
            case 3: parts.append(.either([.literal(taken), .literal(one(of: ["x", "main", "."]))]))
            case 4: parts.append(.repeated(.literal(taken), from: 0, to: 1))
            case 5:
                parts.append(.repeated(.either([.literal(taken), .shorthand("d")]), from: number(0, 1), to: nil))
            case 6: parts += Array(repeating: .anything, count: count)
            case 7:
                parts.append(.literal(String(decoding: [sign], as: UTF8.self)))
                count = 1
            default: parts.append(.literal(taken))
            }
            rest = rest.dropFirst(count)
        }
        if percent(30) { parts.append(.repeated(.anything, from: 0, to: nil)) }
        return parts.isEmpty ? .repeated(.shorthand("w"), from: 0, to: nil) : .sequence(parts)
    }

    // MARK: Calls

    mutating func call(for bundle: NaiveBundle) -> NaiveCall {
        let subject = percent(55) ? namedSubject(bundle) ?? one(of: Pool.subjects) : one(of: Pool.subjects)
        var call = NaiveCall(
            agent: percent(6) ? "dot" : one(of: ["ada", "ada", "ada", "bob", "bob", "cyd"]), capability: subject.name,
            time: time())
        if percent(18) { call.role = one(of: Pool.roles) }
        if percent(15) { call.mode = one(of: ["explore", "ask", "auto", "auto"]) }
        if percent(65) { call.sessionLabel = one(of: Pool.labels) }
        call.sessionAge = one(of: [0, 599, 600, 3599, 3600, 7199, 7200, 100_000])
        call.sessionCalls = one(of: [0, 1, 9, 10, 99, 100])
        call.grant = percent(35)
        for (name, kind) in subject.arguments where percent(82) {
            switch kind {
            case .text(let texts): call.arguments[name] = .text(one(of: texts))
            case .int(let numbers): call.arguments[name] = .int(one(of: numbers))
            case .bool: call.arguments[name] = .bool(percent(50))
            case .list(let texts): call.arguments[name] = .list(several(of: texts, upTo: name == "args" ? 3 : 2))
            }
        }
        fill(&call)
        return call
    }

    /// The values that conditions read besides arguments, some of them missing.
    private mutating func fill(_ call: inout NaiveCall) {
        let known = percent(85)
        switch call.capability {
        case "filesystem.read": if known { call.paths = [one(of: Pool.paths)] }
        case "filesystem.write":
            if known { call.paths = [one(of: Pool.paths)] }
            if percent(75) { call.contentSize = one(of: Pool.sizes) + Int64(below(3)) }
        case "filesystem.move":
            if known { call.paths = [one(of: Pool.paths), one(of: Pool.paths)] }
            call.reachesBelow = true
        case "filesystem.list":
            if known { call.paths = [one(of: Pool.paths)] }
            if case .int(let depth)? = call.arguments["depth"] { call.reachesBelow = depth > 1 }
        case "process.run":
            guard known else { return }
            for _ in 0..<one(of: [1, 1, 1, 2, 3]) { call.lines.append(percent(10) ? nil : line()) }
        case "git.push":
            if known { call.paths = [one(of: Pool.paths)] }
            call.reachesBelow = true
        case "network.http_request":
            if case .text(let method)? = call.arguments["method"] { call.method = method }
            guard known else { return }
            let scheme = percent(75) ? "https" : "http"
            let port: Int64 = percent(70) ? (scheme == "https" ? 443 : 80) : one(of: Pool.ports)
            let host = one(of: Pool.hosts)
            call.url = (scheme, host, port, one(of: Pool.urlPaths))
            call.host = host
            call.port = port
        case "network.port_check":
            if known { call.host = one(of: Pool.hosts) }
            if case .int(let port)? = call.arguments["port"] { call.port = port }
        case "email.send":
            if percent(70) {
                for name in ["to", "cc", "bcc"] {
                    if case .list(let addresses)? = call.arguments[name] { call.recipients += addresses }
                }
            } else if known {
                call.recipients = several(of: Pool.addresses, upTo: 3)
            }
        case "state.shared.set":
            if case .text(let key)? = call.arguments["key"] {
                call.key = key
            } else if known {
                call.key = one(of: Pool.keys)
            }
        case "state.shared.list":
            call.keyReachesBelow = true
            if case .text(let prefix)? = call.arguments["prefix"] {
                call.key = prefix
            } else if known {
                call.key = percent(50) ? "" : one(of: Pool.keys)
            }
        default: break
        }
    }

    private mutating func line() -> [String] {
        percent(55) ? one(of: Pool.lines) : [one(of: Pool.programs)] + several(of: Pool.words, upTo: 3)
    }

    /// A time within four weeks, often next to a boundary that conditions use.
    private mutating func time() -> Int64 {
        let day: Int64 = 1_750_032_000 + Int64(below(28)) * 86_400
        guard percent(50) else { return day + Int64(below(86_400)) }
        return day + one(of: Pool.times) * 60 - one(of: NaiveZone.allCases).secondsEast + Int64(number(-1, 1))
    }

    /// A capability that some rule of the bundle names or covers.
    private mutating func namedSubject(_ bundle: NaiveBundle) -> Subject? {
        var documents = bundle.policies + [bundle.system]
        if let organisation = bundle.organisation { documents.append(organisation) }
        for name in Pool.agents { if let agent = bundle.agents[name] { documents.append(agent) } }
        let document = one(of: documents)
        let patterns = (document.overrides + document.rules).map(\.pattern) + document.map.map(\.pattern)
        guard !patterns.isEmpty else { return nil }
        let pattern = one(of: patterns)
        let stem = pattern.hasSuffix("*") ? String(pattern.dropLast()) : pattern
        return one(of: Pool.subjects.filter { $0.name.hasPrefix(stem) })
    }

    // MARK: Windows

    mutating func subset(of windows: Set<NaiveWindow>) -> Set<NaiveWindow> {
        let sorted = windows.sorted {
            ($0.agent, $0.layer, $0.document, $0.pattern) < ($1.agent, $1.layer, $1.document, $1.pattern)
        }
        var chosen: Set<NaiveWindow> = []
        for window in sorted where percent(50) { chosen.insert(window) }
        return chosen
    }
}
