package import KruxCore

/// Whether some call of a capability can get a tier, with one that does. The policy's conditions split all calls into
/// classes that it cannot tell apart; one call of each class is decided. Exact where the classes are known: for
/// prefixes, sizes, numbers, names, times and sessions. Globs and expressions are tried with examples only.
package struct PolicySearch: Sendable {
    package struct Witness: Sendable {
        package let decision: Decision
        /// What to say on a command line, and what must hold besides: `path=/workspace/a/x`, `at 2026-01-05 09:00`.
        package let call: [String]
    }

    package let witness: Witness?
    /// Whether no witness means that there is none.
    package let isExact: Bool
    /// Why not, in words.
    package let approximations: [String]
    /// Calls that were decided.
    package let tried: Int

    static let most = 300_000

    /// - Parameters:
    ///   - facts: agent, mode and role, and the arguments that are fixed.
    ///   - loosest: tiers up to this one count.
    package static func run(
        _ policy: CompiledPolicy, _ facts: CallFacts, declaration: CapabilityDeclaration, upTo tier: Tier
    ) -> PolicySearch {
        var search = Search(policy, facts, declaration)
        return search.run(upTo: tier)
    }

    private struct Choice {
        /// Nil when it needs no mention.
        let label: String?
        let apply: (inout CallFacts) -> Void
    }

    private struct Search {
        let policy: CompiledPolicy
        let base: CallFacts
        let declaration: CapabilityDeclaration
        let tests: [Condition.Test]
        var approximations: [String] = []

        init(_ policy: CompiledPolicy, _ facts: CallFacts, _ declaration: CapabilityDeclaration) {
            self.policy = policy
            base = facts
            self.declaration = declaration
            var tests: [Condition.Test] = []
            for table in policy.tables(for: facts.agent) {
                for rule in policy.tables[table].chain(facts.capability) {
                    for (test, _) in policy.rules[Int(rule.index)].conditions.flatMap(\.tests)
                    where !tests.contains(test) { tests.append(test) }
                }
            }
            self.tests = tests
        }

        mutating func run(upTo tier: Tier) -> PolicySearch {
            if policy.brokenAgents[base.agent] != nil || policy.blocksEveryCall(base) && tier < .blocked {
                return PolicySearch(witness: nil, isExact: true, approximations: [], tried: 0)
            }
            let dimensions =
                [
                    paths(), sizes(), lines(), addresses(), hosts(), ports(), methods(), recipients(), keys(), times(),
                    sessions(),
                ].filter { !$0.isEmpty } + arguments()
            let total = dimensions.reduce(1) { min($0 * $1.count, PolicySearch.most + 1) }
            if total > PolicySearch.most {
                approximations.append("only \(PolicySearch.most) of all combinations were tried")
            }
            var places = Array(repeating: 0, count: dimensions.count)
            var tried = 0
            while tried < PolicySearch.most {
                var facts = base
                facts.complete = true
                var labels: [String] = []
                for (dimension, place) in zip(dimensions, places) {
                    dimension[place].apply(&facts)
                    if let label = dimension[place].label { labels.append(label) }
                }
                tried += 1
                let decision = policy.decide(facts)
                if decision.tier <= tier {
                    return PolicySearch(
                        witness: Witness(decision: decision, call: labels), isExact: true, approximations: [],
                        tried: tried)
                }
                var place = 0
                while place < places.count {
                    places[place] += 1
                    if places[place] < dimensions[place].count { break }
                    places[place] = 0
                    place += 1
                }
                if place == places.count { break }
            }
            return PolicySearch(
                witness: nil, isExact: approximations.isEmpty, approximations: approximations, tried: tried)
        }

        private mutating func approximate(_ what: String) {
            let text = "\(what) were tried with examples only"
            if !approximations.contains(text) { approximations.append(text) }
        }

        private func has(_ reads: Condition.Test.Reads) -> Bool {
            tests.contains { $0.reads == reads } && !declaration.arguments(readBy: reads).isEmpty
        }

        private func isFixed(_ name: String) -> Bool { base.arguments[name] != nil }

        // MARK: Dimensions

        private mutating func paths() -> [Choice] {
            guard has(.paths), base.paths.isEmpty else { return [] }
            var texts = ["/workspace/\(base.agent)/some-file", "/workspace/\(base.agent)", "/elsewhere/some-file"]
            for test in tests {
                switch test {
                case .pathPrefix(let directories), .pathNotUnder(let directories):
                    for directory in directories {
                        let text = String(decoding: directory, as: UTF8.self)
                        texts += [text.isEmpty ? "/" : text, text + "/some-file"]
                    }
                case .pathGlob(let globs):
                    approximate("path globs")
                    texts += globs.map(\.example)
                default: continue
                }
            }
            let properties = declaration.arguments(readBy: .paths)
            return texts.map { text in
                let label = properties.map { "\($0.name)=\(text)" }.joined(separator: " ")
                return Choice(label: label) { facts in
                    facts.paths = properties.map { _ in Array(text.utf8) }
                    for property in properties { facts.arguments[property.name] = .string(text) }
                }
            }
        }

        private func around(_ bounds: [Int64], least: Int64 = 0) -> [Int64] {
            Array(Set(bounds.flatMap { [$0 - 1, $0, $0 + 1] }.filter { $0 >= least } + [least])).sorted()
        }

        private func sizes() -> [Choice] {
            guard has(.content), base.contentSize == nil else { return [] }
            let bounds = tests.compactMap { if case .contentSize(_, let bound) = $0 { bound } else { nil } }
            let name = declaration.arguments(readBy: .content).first?.name ?? "content"
            return around(bounds).map { size in
                Choice(label: "\(name) of \(size) bytes") { $0.contentSize = size }
            }
        }

        private mutating func lines() -> [Choice] {
            guard has(.line), base.lines.isEmpty else { return [] }
            var starts: [[String]] = [["some-program"]]
            var extra: [String] = []
            for test in tests {
                switch test {
                case .command(let names): starts += names.map { [$0] }
                case .commandPrefix(let prefixes): starts += prefixes
                case .commandGlob(let globs):
                    approximate("command globs")
                    for glob in globs { starts += ShellText.segments(of: glob.example) ?? [] }
                case .argsContain(let words): extra += words
                default: continue
                }
            }
            var lines: [[String]] = []
            for start in starts {
                lines.append(start)
                for word in extra { lines.append(start + [word]) }
                if extra.count > 1 { lines.append(start + extra) }
                // A prefix may not be all there is.
                lines.append(start + ["some-argument"])
            }
            return lines.map { words in
                Choice(label: "command line `\(CommandLine.joined(words))`") { facts in
                    facts.lines = [.words(words)]
                    facts.arguments["command"] = .string(words.first ?? "")
                    facts.arguments["args"] = .strings(Array(words.dropFirst()))
                }
            }
        }

        private func wantedHosts() -> [String] {
            ["other.example"]
                + tests.flatMap { test -> [String] in
                    if case .host(let hosts) = test {
                        hosts.map { $0.hasPrefix("*.") ? "some" + $0.dropFirst() : $0 }
                    } else {
                        []
                    }
                }
        }

        private func wantedPorts() -> [Int64] {
            tests.flatMap { test -> [Int64] in if case .port(let ports) = test { ports } else { [] } }
        }

        private func addresses() -> [Choice] {
            guard has(.url) || has(.host) && !declaration.arguments(readBy: .url).isEmpty || has(.port),
                let property = declaration.arguments(readBy: .url).first, base.address == nil
            else { return [] }
            var texts: [String] = []
            let ports = wantedPorts()
            for host in wantedHosts() {
                texts += ["https://\(host)/", "http://\(host)/"] + ports.map { "https://\(host):\($0)/" }
            }
            for case .urlPrefix(let prefixes) in tests {
                for prefix in prefixes {
                    texts += (ports + [prefix.port]).map { "\(prefix.scheme)://\(prefix.host):\($0)\(prefix.path)" }
                }
            }
            return texts.compactMap(WebAddress.init).map { address in
                let text = "\(address.scheme)://\(address.host):\(address.port)\(address.path)"
                return Choice(label: "\(property.name)=\(text)") { facts in
                    facts.address = address
                    facts.host = address.host
                    facts.port = address.port
                    facts.arguments[property.name] = .string(text)
                }
            }
        }

        private func plain(_ reads: Condition.Test.Reads) -> Property? {
            guard has(reads), declaration.arguments(readBy: .url).isEmpty else { return nil }
            return declaration.arguments(readBy: reads).first { !isFixed($0.name) }
        }

        private func hosts() -> [Choice] {
            guard let property = plain(.host) else { return [] }
            return wantedHosts().map { host in
                Choice(label: "\(property.name)=\(host)") {
                    $0.host = host
                    $0.arguments[property.name] = .string(host)
                }
            }
        }

        private func ports() -> [Choice] {
            guard let property = plain(.port) else { return [] }
            return (wantedPorts() + [1, 2, 3]).map { port in
                Choice(label: "\(property.name)=\(port)") {
                    $0.port = port
                    $0.arguments[property.name] = .int(port)
                }
            }
        }

        private func methods() -> [Choice] {
            guard has(.method), let property = declaration.arguments(readBy: .method).first,
                case .choice(let words) = property.type, !isFixed(property.name)
            else { return [] }
            return words.map { word in
                Choice(label: "\(property.name)=\(word)") {
                    $0.method = word
                    $0.arguments[property.name] = .string(word)
                }
            }
        }

        private func recipients() -> [Choice] {
            guard has(.recipients), base.recipients.isEmpty,
                let property = declaration.arguments(readBy: .recipients).first
            else { return [] }
            var texts = ["someone@other.example"]
            for test in tests {
                switch test {
                case .recipient(let addresses): texts += addresses
                case .recipientDomain(let domains):
                    texts += domains.map { "someone@" + ($0.hasPrefix("*.") ? "some" + $0.dropFirst() : $0) }
                default: continue
                }
            }
            return texts.map { text in
                Choice(label: "\(property.name)=\(text)") { $0.recipients = [CallFacts.Recipient(text)] }
            }
        }

        private func keys() -> [Choice] {
            guard has(.key), base.key == nil, let property = declaration.arguments(readBy: .key).first else {
                return []
            }
            let prefixes = tests.flatMap { test -> [String] in
                if case .keyPrefix(let prefixes) = test { prefixes } else { [] }
            }
            return (["some-key"] + prefixes.flatMap { [$0, $0 + "some-key"] }).map { key in
                Choice(label: "\(property.name)=\(key)") {
                    $0.key = key
                    $0.arguments[property.name] = .string(key)
                }
            }
        }

        /// Every hour at which some window begins or ends, on each day of a week.
        private func times() -> [Choice] {
            var minutes: [Int64] = []
            var zones: [TimeZoneTable] = []
            for test in tests {
                switch test {
                case .timeBetween(let from, let until, let zone):
                    minutes += [from, until % 1440]
                    if let table = policy.zones[zone.name] ?? (zone.name == "UTC" ? .utc : nil) { zones.append(table) }
                case .days(_, let zone):
                    if let table = policy.zones[zone.name] ?? (zone.name == "UTC" ? .utc : nil) { zones.append(table) }
                default: continue
                }
            }
            if zones.isEmpty { return [] }
            let start = base.time.flooredSeconds / 86_400 * 86_400
            var seconds: Set<Int64> = []
            for zone in zones {
                for day in 0..<8 {
                    for minute in Set(minutes + [0, 720]) {
                        let local = start + Int64(day) * 86_400 + minute * 60
                        let shift = zone.local(Timestamp(microseconds: local * 1_000_000)) - local
                        seconds.insert(local - shift)
                    }
                }
            }
            return seconds.sorted().map { second in
                let time = Timestamp(microseconds: second * 1_000_000)
                return Choice(label: "at \(time.rfc3339)") { $0.time = time }
            }
        }

        private func sessions() -> [Choice] {
            var labels: [String?] = [nil]
            var ages: [Int64] = []
            var calls: [Int64] = []
            var any = false
            for test in tests {
                switch test {
                case .sessionLabel(let texts): labels += texts
                case .sessionAge(let bound): ages.append(bound)
                case .sessionCalls(let bound): calls.append(bound)
                default: continue
                }
                any = true
            }
            if !any { return [] }
            // A label that nobody asks for tells other classes apart than none.
            labels.append("some-label")
            return labels.flatMap { label in
                around(ages).flatMap { age in
                    around(calls).map { count in
                        let words =
                            [
                                label.map { "session labelled \($0)" }, ages.isEmpty ? nil : "\(age) s old",
                                calls.isEmpty ? nil : "after \(count) calls",
                            ]
                            .compactMap { $0 }
                        return Choice(label: words.isEmpty ? nil : words.joined(separator: ", ")) {
                            $0.session = .init(label: label, ageSeconds: age, calls: count)
                        }
                    }
                }
            }
        }

        private mutating func arguments() -> [[Choice]] {
            var names: [String] = []
            for case .argument(let name, _) in tests where !names.contains(name) { names.append(name) }
            var result: [[Choice]] = []
            for name in names {
                guard let property = declaration.input.property(name), !isFixed(name) else { continue }
                var values: [JSONValue] = []
                for case .argument(let other, let test) in tests where other == name {
                    switch test {
                    case .equals(let wanted), .notEquals(let wanted): values += wanted
                    case .matches(let patterns):
                        approximate("expressions on `\(name)`")
                        values += patterns.map { .string($0.example) }
                    case .compares(_, let bound): values += [bound - 1, bound, bound + 1].map(JSONValue.int)
                    case .exists: break
                    }
                }
                switch property.type {
                case .choice(let words): values += words.map(JSONValue.string)
                case .boolean: values += [true, false]
                case .integer(let range): values += [.int(range.lowerBound), .int(range.upperBound)]
                case .string: values.append("some-text")
                case .array: values = values.map { .array([$0]) } + [.array(["some-text"])]
                default: break
                }
                let valid = values.filter { value in
                    let (_, violations) = ObjectSchema([property]).validate(JSONObject([(name, value)]))
                    return violations.isEmpty
                }
                var choices = valid.map { value in
                    Choice(label: "\(name)=\(value.string ?? value.canonicalText)") { $0.arguments[name] = value }
                }
                if !property.required, property.defaultValue == nil { choices.append(Choice(label: nil) { _ in }) }
                if !choices.isEmpty { result.append(choices) }
            }
            return result
        }
    }
}
