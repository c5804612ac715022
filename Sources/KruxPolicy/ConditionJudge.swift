package import KruxCore

/// Kleene's strong three-valued truth.
package enum Truth: UInt8, Sendable {
    case no, unknown, yes

    var negated: Truth { self == .yes ? .no : self == .no ? .yes : .unknown }
    init(_ holds: Bool) { self = holds ? .yes : .no }
}

/// Which of several values of one kind a decision looks at.
struct Variant {
    var path = 0
    var line = 0
    var recipient = 0
    /// For each list argument that the policy reads by name, in the policy's order.
    var elements: [Int] = []
    /// Which combination this is, from 0.
    var ordinal = 0
}

/// A condition ready to be judged; `id` names its text in `CompiledPolicy.conditionSources`.
indirect enum CompiledCondition: Sendable {
    case test(Condition.Test, id: Int32)
    case all([CompiledCondition])
    case any([CompiledCondition])
    case not(CompiledCondition)
}

extension CompiledPolicy {
    /// All of them, as far as one false one settles it.
    @inline(__always)
    func truth(all conditions: [CompiledCondition], _ facts: CallFacts, _ variant: Variant) -> Truth {
        var result = Truth.yes
        for condition in conditions {
            switch truth(condition, facts, variant) {
            case .no: return .no
            case .unknown: result = .unknown
            case .yes: break
            }
        }
        return result
    }

    func truth(_ condition: CompiledCondition, _ facts: CallFacts, _ variant: Variant) -> Truth {
        switch condition {
        case .test(let test, let id):
            if facts.hidden != nil, let recorded = recordedTruth(test, id, facts, variant) { return recorded }
            return truth(test, facts, variant)
        case .all(let parts): return truth(all: parts, facts, variant)
        case .any(let parts):
            var result = Truth.no
            for part in parts {
                switch truth(part, facts, variant) {
                case .yes: return .yes
                case .unknown: result = .unknown
                case .no: break
                }
            }
            return result
        case .not(let part): return truth(part, facts, variant).negated
        }
    }

    /// What a record says of a test whose value it hides; nil for a value that it shows.
    private func recordedTruth(_ test: Condition.Test, _ id: Int32, _ facts: CallFacts, _ variant: Variant) -> Truth? {
        guard let hidden = facts.hidden, readsHidden(test, facts) else { return nil }
        guard let judged = hidden.judged[conditionSources[Int(id)].canonicalBytes()], variant.ordinal < judged.count
        else {
            return .unknown
        }
        return judged[variant.ordinal]
    }

    /// Whether the answer may hang on a value that the record hides and says nothing of: a condition that is asked reads
    /// one without a recorded truth.
    package func dependsOnHidden(_ facts: CallFacts) -> Bool {
        guard facts.hidden != nil else { return false }
        let tables = tables(for: facts.agent)
        func hides(_ condition: CompiledCondition) -> Bool {
            switch condition {
            case .test(let test, let id):
                readsHidden(test, facts) && facts.hidden?.judged[conditionSources[Int(id)].canonicalBytes()] == nil
            case .all(let parts), .any(let parts): parts.contains(where: hides)
            case .not(let part): hides(part)
            }
        }
        var depends = false
        forEachVariant(facts) { facts, variant in
            for table in tables where !depends {
                for rule in self.tables[table].chain(facts.capability) {
                    let truth = truth(all: rule.conditions, facts, variant)
                    if truth == .yes { break }
                    if truth == .unknown, rule.conditions.contains(where: hides) { depends = true }
                }
            }
        }
        return depends
    }

    /// Whether a test reads a value that the record hides. The size of hidden content is on record.
    func readsHidden(_ test: Condition.Test, _ facts: CallFacts) -> Bool {
        guard let names = facts.hidden?.names, !names.isEmpty, test.reads != .content else { return false }
        return hiddenReads[facts.capability].contains { $0.reads == test.reads && names.contains($0.name) }
            || { if case .argument(let name, _) = test { names.contains(name) } else { false } }()
    }

    /// For a record that will not show the arguments `names`: the truth of every test that reads one of them, for each
    /// combination of values.
    /// - Returns: each test's text with its truths.
    package func truths(hiding names: Set<String>, _ facts: CallFacts) -> [(text: String, truths: [Truth])] {
        var tests: [[UInt8]: Condition.Test] = [:]
        var masked = facts
        masked.hidden = CallFacts.HiddenValues(names: names, judged: [:], counts: [])
        func collect(_ condition: CompiledCondition) {
            switch condition {
            case .test(let test, let id):
                if readsHidden(test, masked) { tests[conditionSources[Int(id)].canonicalBytes()] = test }
            case .all(let parts), .any(let parts): for part in parts { collect(part) }
            case .not(let part): collect(part)
            }
        }
        for table in tables(for: facts.agent) {
            for rule in tables[table].chain(facts.capability) {
                for condition in rule.conditions { collect(condition) }
            }
        }
        return tests.map { text, test in
            var truths: [Truth] = []
            forEachVariant(facts) { facts, variant in truths.append(truth(test, facts, variant)) }
            return (String(decoding: text, as: UTF8.self), truths)
        }
    }

    /// Every table that a decision about the agent may ask.
    func tables(for agent: String) -> [Int] {
        system + [organisation] + (agents[agent].map { [$0.own] + $0.tightening } ?? [])
    }

    private func truth(_ test: Condition.Test, _ facts: CallFacts, _ variant: Variant) -> Truth {
        switch test {
        case .pathPrefix(let directories):
            guard variant.path < facts.paths.count else { return .unknown }
            return Self.isUnder(facts.paths[variant.path], directories, reachesBelow: facts.reachesBelow)
        case .pathNotUnder(let directories):
            guard variant.path < facts.paths.count else { return .unknown }
            return Self.isUnder(facts.paths[variant.path], directories, reachesBelow: facts.reachesBelow).negated
        case .pathGlob(let globs):
            guard variant.path < facts.paths.count else { return .unknown }
            let path = String(decoding: facts.paths[variant.path], as: UTF8.self)
            return Self.any(globs) { $0.fitsPath(path, reachesBelow: facts.reachesBelow) }
        case .contentSize(let comparison, let bound):
            guard let size = facts.contentSize else { return .unknown }
            return Truth(comparison.holds(size, bound))
        case .command(let names):
            return Self.judge(facts, variant) { words in Self.any(names) { Self.isCalled(words[0], $0) } }
        case .commandPrefix(let prefixes):
            return Self.judge(facts, variant) { words in Self.any(prefixes) { Self.begins(words, with: $0) } }
        case .commandGlob(let globs):
            return Self.judge(facts, variant) { words in
                let line = CommandLine.joined(words)
                let byName = Self.lineByName(words)
                return Self.any(globs) { $0.fits(line) ? .yes : byName.map($0.fits) ?? false ? .unknown : .no }
            }
        case .argsContain(let wanted):
            return Self.judge(facts, variant) { words in
                Self.any(wanted) { text in Truth(words.dropFirst().contains { $0.utf8Equals(text) }) }
            }
        case .host(let wanted):
            guard let host = facts.host else { return .unknown }
            return Self.any(wanted) { Truth(WebAddress.matches(host, $0)) }
        case .urlPrefix(let prefixes):
            guard let address = facts.address else { return .unknown }
            return Self.any(prefixes) { Truth(address.isUnder($0)) }
        case .method(let methods):
            guard let method = facts.method else { return .unknown }
            return Self.any(methods) { Truth($0.utf8Equals(method)) }
        case .port(let ports):
            guard let port = facts.port else { return .unknown }
            return Truth(ports.contains(port))
        case .recipient(let addresses):
            guard variant.recipient < facts.recipients.count else { return .unknown }
            let recipient = facts.recipients[variant.recipient]
            return Self.any(addresses) {
                if $0.utf8Equals(recipient.text) { return .yes }
                // An address in a form that mail programs read differently may be any.
                return recipient.domain == nil && recipient.text.utf8.contains(UInt8(ascii: "@")) ? .unknown : .no
            }
        case .recipientDomain(let domains):
            guard variant.recipient < facts.recipients.count,
                let domain = facts.recipients[variant.recipient].domain
            else { return .unknown }
            return Self.any(domains) { Truth(WebAddress.matches(domain, $0)) }
        case .keyPrefix(let prefixes):
            guard let key = facts.key else { return .unknown }
            return Self.any(prefixes) { prefix in
                if key.utf8.starts(with: prefix.utf8) { return .yes }
                return facts.keyReachesBelow && prefix.utf8.starts(with: key.utf8) ? .unknown : .no
            }
        case .argument(let name, let test): return truth(name, test, facts, variant)
        case .timeBetween(let from, let until, let zone):
            guard let table = zone.table else { return .unknown }
            let minute = table.minuteOfDay(facts.time)
            return Truth(from <= until ? from <= minute && minute < until : from <= minute || minute < until)
        case .days(let days, let zone):
            guard let table = zone.table else { return .unknown }
            return Truth(days & (1 << UInt8(table.weekday(facts.time))) != 0)
        case .sessionLabel(let labels):
            guard let label = facts.session?.label else { return .unknown }
            return Self.any(labels) { Truth($0.utf8Equals(label)) }
        case .sessionAge(let seconds):
            guard let session = facts.session else { return .unknown }
            return Truth(session.ageSeconds < seconds)
        case .sessionCalls(let calls):
            guard let session = facts.session else { return .unknown }
            return Truth(session.calls < calls)
        }
    }

    private func truth(_ name: String, _ test: Condition.ArgumentTest, _ facts: CallFacts, _ variant: Variant) -> Truth
    {
        var value = facts.arguments[name]
        if case .exists(let wanted) = test {
            if value != nil { return Truth(wanted) }
            return facts.complete ? Truth(!wanted) : .unknown
        }
        if let elements = value?.array {
            let place = listArguments[facts.capability].firstIndex { $0.utf8Equals(name) }
            let index = place.flatMap { $0 < variant.elements.count ? variant.elements[$0] : nil } ?? 0
            // Not `nil`, which would be the JSON null.
            value = index < elements.count ? elements[index] : .none
        }
        guard let value else { return .unknown }
        switch test {
        case .equals(let wanted): return Truth(wanted.contains(value))
        case .notEquals(let unwanted): return Truth(!unwanted.contains(value))
        case .matches(let patterns):
            guard let text = value.string else { return .unknown }
            return Self.any(patterns) { Truth($0.fits(text)) }
        case .compares(let comparison, let bound):
            guard let number = value.int else { return .unknown }
            return Truth(comparison.holds(number, bound))
        case .exists: return .yes
        }
    }

    private static func any<T>(_ wanted: [T], _ judge: (T) -> Truth) -> Truth {
        var result = Truth.no
        for one in wanted {
            switch judge(one) {
            case .yes: return .yes
            case .unknown: result = .unknown
            case .no: break
            }
        }
        return result
    }

    /// Judges the command, and the shells it is given to: what names one of those may be meant for this call or not.
    private static func judge(_ facts: CallFacts, _ variant: Variant, _ test: ([String]) -> Truth) -> Truth {
        guard variant.line < facts.lines.count, case .words(let words, let via) = facts.lines[variant.line],
            !words.isEmpty
        else { return .unknown }
        let own = test(words)
        if own == .no, via.contains(where: { test($0) != .no }) { return .unknown }
        return own
    }

    /// A program called by another path than the rule's may or may not be the one that is meant.
    private static func isCalled(_ program: String, _ name: String) -> Truth {
        if program.utf8Equals(name) { return .yes }
        let slash = UInt8(ascii: "/")
        guard program.utf8.contains(slash) || name.utf8.contains(slash) else { return .no }
        return CommandLine.lastComponent(program).utf8Equals(CommandLine.lastComponent(name)) ? .unknown : .no
    }

    /// The line with its program by name, when it is called by a path.
    private static func lineByName(_ words: [String]) -> String? {
        guard let program = words.first, let slash = program.utf8.lastIndex(of: UInt8(ascii: "/")) else { return nil }
        let name = String(program[program.utf8.index(after: slash)...])
        return CommandLine.joined([name] + words.dropFirst())
    }

    private static func begins(_ words: [String], with prefix: [String]) -> Truth {
        guard let program = words.first, let first = prefix.first, words.count >= prefix.count,
            zip(words.dropFirst(), prefix.dropFirst()).allSatisfy({ $0.utf8Equals($1) })
        else { return .no }
        return isCalled(program, first)
    }

    @inline(__always)
    private static func isUnder(_ path: [UInt8], _ directories: [[UInt8]], reachesBelow: Bool) -> Truth {
        var result = Truth.no
        for directory in directories {
            if pathIsUnder(path, directory) { return .yes }
            // A call on a folder touches the rule's folder too when that lies inside.
            if reachesBelow, directory.count > path.count, directory.starts(with: path),
                directory[path.count] == UInt8(ascii: "/")
            {
                result = .unknown
            }
        }
        return result
    }
}

extension Pattern {
    /// A call that touches what lies below its path fits a glob only when everything there does.
    fileprivate func fitsPath(_ path: String, reachesBelow: Bool) -> Truth {
        let own = fit(path.unicodeScalars)
        guard reachesBelow else { return Truth(own == .fits) }
        if own == .fits { return text.hasSuffix("/**") ? .yes : .unknown }
        return fit((path + "/").unicodeScalars) == .never ? .no : .unknown
    }
}

/// Whether `path` is `directory` or lies below it, by whole components. `directory` has no trailing slash; the root is
/// empty. Bytes are compared, as the file system does.
package func pathIsUnder(_ path: [UInt8], _ directory: [UInt8]) -> Bool {
    path.withUnsafeBufferPointer { pathIsUnder($0, directory) }
}

func pathIsUnder(_ path: UnsafeBufferPointer<UInt8>, _ directory: [UInt8]) -> Bool {
    let count = directory.count
    guard path.count >= count, path.count == count || count == 0 || path[count] == UInt8(ascii: "/") else {
        return false
    }
    // From the end: prefixes of one policy share their beginning.
    var index = count
    while index > 0 {
        index -= 1
        if path[index] != directory[index] { return false }
    }
    return true
}

extension WebAddress {
    /// Whether this URL is at `prefix` or below it, by whole segments.
    package func isUnder(_ prefix: WebAddress) -> Bool {
        guard scheme.utf8Equals(prefix.scheme), host.utf8Equals(prefix.host), port == prefix.port else { return false }
        var stem = Substring(prefix.path)
        while stem.utf8.last == UInt8(ascii: "/") { stem.removeLast() }
        var own = path
        return own.withUTF8 { pathIsUnder($0, Array(stem.utf8)) }
    }
}
