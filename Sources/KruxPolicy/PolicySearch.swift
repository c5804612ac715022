package import KruxCore

/// Whether some call of a capability can get a tier, with one that does. The policy's conditions split all calls into
/// classes that it cannot tell apart; one call of each class is decided. Exact where the classes are known: for
/// prefixes, sizes, numbers, names, times and sessions. Globs and expressions are tried with examples only.
package struct PolicySearch: Sendable {
    package struct Witness: Sendable {
        package let decision: Decision
        /// Every argument the call needs, as it would be sent.
        package let arguments: JSONObject
        /// When it must be made; nil when that makes no difference.
        package let time: Timestamp?
        /// In what session; nil when that makes no difference.
        package let session: CallFacts.SessionFacts?
    }

    package let witness: Witness?
    /// Whether no witness means that there is none.
    package let isExact: Bool
    /// Why not, in words.
    package let approximations: [String]
    /// Calls that were decided.
    package let tried: Int

    static let most = 30_000

    /// - Parameters:
    ///   - facts: agent, mode and role, and the arguments that are fixed.
    ///   - loosest: tiers up to this one count.
    package static func run(
        _ policy: CompiledPolicy, _ facts: CallFacts, declaration: CapabilityDeclaration, upTo tier: Tier
    ) -> PolicySearch {
        var search = Search(policy, facts, declaration)
        return search.run(upTo: tier)
    }

    /// A call as it is put together.
    private struct Call {
        var arguments: JSONObject
        var time: Timestamp?
        var session: CallFacts.SessionFacts?
    }

    private struct Choice {
        let apply: (inout Call) -> Void

        init(_ apply: @escaping (inout Call) -> Void) { self.apply = apply }

        /// An argument with this value.
        init(_ name: String, _ value: JSONValue) { apply = { $0.arguments[name] = value } }
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
                var call = Call(arguments: examples, time: nil, session: nil)
                for (dimension, place) in zip(dimensions, places) { dimension[place].apply(&call) }
                tried += 1
                let facts = facts(call)
                let decision = policy.decide(facts)
                if decision.tier <= tier {
                    return PolicySearch(
                        witness: Witness(
                            decision: decision, arguments: call.arguments, time: call.time, session: call.session),
                        isExact: true, approximations: [], tried: tried)
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

        /// What a gateway would decide on for the call.
        private func facts(_ call: Call) -> CallFacts {
            let described = CallDescription(agent: base.agent, declaration: declaration, arguments: call.arguments)
            var facts = CallFacts(
                agent: base.agent, capability: base.capability, declaration: declaration,
                arguments: described.arguments, complete: true, time: call.time ?? base.time)
            facts.role = base.role
            facts.mode = base.mode
            facts.grant = base.grant
            facts.session = call.session ?? base.session
            return facts
        }

        /// The arguments that are fixed, and something for each that is needed.
        private var examples: JSONObject {
            var arguments = base.arguments
            for property in declaration.input.properties where property.required && arguments[property.name] == nil {
                arguments[property.name] = Self.example(property)
            }
            return arguments
        }

        private static func example(_ property: Property) -> JSONValue {
            switch property.role {
            case .url: return "https://other.example/"
            case .host: return "other.example"
            case .recipient:
                if case .array = property.type { return ["someone@other.example"] }
                return "someone"
            default: return example(property.type)
            }
        }

        private static func example(_ type: SchemaType) -> JSONValue {
            switch type {
            case .string(let least, _): .string(least > 8 ? String(repeating: "x", count: least) : "example")
            case .choice(let words): .string(words.first ?? "")
            case .integer(let range): .int(range.contains(1) ? 1 : range.lowerBound)
            case .boolean: false
            case .array(let element, _): [example(element)]
            case .object, .map: [:]
            case .any: "example"
            }
        }

        private mutating func approximate(_ what: String) {
            let text = "\(what) were tried with examples only"
            if !approximations.contains(text) { approximations.append(text) }
        }

        private func isFixed(_ name: String) -> Bool { base.arguments[name] != nil }

        // MARK: Dimensions

        /// The arguments that a kind of condition reads and that are not fixed.
        private func free(_ reads: Condition.Test.Reads) -> [Property] {
            guard tests.contains(where: { $0.reads == reads }) else { return [] }
            return declaration.arguments(readBy: reads).filter { !isFixed($0.name) }
        }

        /// An argument that conditions read both for what it means and by its name has classes that are not all tried.
        private mutating func noteSecondReading(_ properties: [Property]) {
            for property in properties where tests.contains(where: { $0.reads == .argument(property.name) }) {
                approximate("values of `\(property.name)`, which is read in two ways,")
            }
        }

        private mutating func paths() -> [Choice] {
            let properties = free(.paths)
            if properties.isEmpty { return [] }
            noteSecondReading(properties)
            let workspace = "/workspace/\(base.agent)"
            var texts = ["\(workspace)/some-file", workspace]
            for test in tests {
                switch test {
                case .pathPrefix(let directories), .pathNotUnder(let directories):
                    for directory in directories {
                        let text = String(decoding: directory, as: UTF8.self)
                        texts += [text, text + "/some-file"]
                    }
                case .pathGlob(let globs):
                    approximate("path globs")
                    texts += globs.map(\.example)
                default: continue
                }
            }
            // What lies outside the workspace is refused before any rule is asked.
            let inside = texts.filter { pathIsUnder(Array($0.utf8), Array(workspace.utf8)) }
            return inside.map { text in
                Choice { call in for property in properties { call.arguments[property.name] = .string(text) } }
            }
        }

        private func around(_ bounds: [Int64], least: Int64 = 0) -> [Int64] {
            Array(Set(bounds.flatMap { [$0 - 1, $0, $0 + 1] }.filter { $0 >= least } + [least])).sorted()
        }

        private mutating func sizes() -> [Choice] {
            guard let property = free(.content).first, case .string(_, let most) = property.type else { return [] }
            noteSecondReading([property])
            let bounds = tests.compactMap { if case .contentSize(_, let bound) = $0 { bound } else { nil } }
            return around(bounds).filter { $0 <= Int64(most) }.map { size in
                Choice(property.name, .string(String(repeating: "x", count: Int(size))))
            }
        }

        private mutating func lines() -> [Choice] {
            let properties = free(.line)
            guard let property = properties.first, case .command(let words, let shell, _) = property.role,
                !isFixed(words), !isFixed(shell)
            else { return [] }
            noteSecondReading(properties)
            if tests.contains(where: { $0.reads == .argument(words) }) { approximate("values of `\(words)`") }
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
            extra = Array(Set(extra)).sorted()
            if extra.count > 5 { approximate("combinations of `args_contain`") }
            // Every set of the words that rules look for, and a line that goes on after a prefix.
            let sets = (0..<(1 << min(extra.count, 5))).map { bits in
                extra.indices.filter { $0 < 5 && bits & (1 << $0) != 0 }.map { extra[$0] }
            }
            var lines: [[String]] = []
            for start in starts {
                for set in sets { lines += [start + set, start + ["some-argument"] + set] }
            }
            return lines.map { line in
                Choice { call in
                    call.arguments[property.name] = .string(line[0])
                    call.arguments[words] = .strings(Array(line.dropFirst()))
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

        private mutating func addresses() -> [Choice] {
            guard let property = declaration.arguments(readBy: .url).first, !isFixed(property.name),
                tests.contains(where: { [.url, .host, .port].contains($0.reads) })
            else { return [] }
            noteSecondReading([property])
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
            return texts.map { Choice(property.name, .string($0)) }
        }

        private mutating func plain(_ reads: Condition.Test.Reads) -> Property? {
            guard declaration.arguments(readBy: .url).isEmpty, let property = free(reads).first else { return nil }
            noteSecondReading([property])
            return property
        }

        private mutating func hosts() -> [Choice] {
            guard let property = plain(.host) else { return [] }
            return wantedHosts().map { Choice(property.name, .string($0)) }
        }

        private mutating func ports() -> [Choice] {
            guard let property = plain(.port) else { return [] }
            return (wantedPorts() + [1, 2, 3]).map { Choice(property.name, .int($0)) }
        }

        private mutating func methods() -> [Choice] {
            guard let property = free(.method).first, case .choice(let words) = property.type else { return [] }
            noteSecondReading([property])
            return words.map { Choice(property.name, .string($0)) }
        }

        private mutating func recipients() -> [Choice] {
            guard let property = free(.recipients).first(where: \.required) else { return [] }
            noteSecondReading([property])
            var texts = ["someone@other.example"]
            for test in tests {
                switch test {
                case .recipient(let addresses): texts += addresses
                case .recipientDomain(let domains):
                    texts += domains.map { "someone@" + ($0.hasPrefix("*.") ? "some" + $0.dropFirst() : $0) }
                default: continue
                }
            }
            let isList = if case .array = property.type { true } else { false }
            return texts.map { Choice(property.name, isList ? [.string($0)] : .string($0)) }
        }

        private mutating func keys() -> [Choice] {
            guard let property = free(.key).first else { return [] }
            noteSecondReading([property])
            let prefixes = tests.flatMap { test -> [String] in
                if case .keyPrefix(let prefixes) = test { prefixes } else { [] }
            }
            return (["some-key"] + prefixes.flatMap { [$0, $0 + "some-key"] }).map {
                Choice(property.name, .string($0))
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
                return Choice { $0.time = time }
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
                        Choice { $0.session = .init(label: label, ageSeconds: age, calls: count) }
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
                var choices = valid.map { Choice(name, $0) }
                if !property.required, property.defaultValue == nil {
                    choices.append(Choice { $0.arguments[name] = .none })
                }
                if !choices.isEmpty { result.append(choices) }
            }
            return result
        }
    }
}
