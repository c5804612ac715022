/// A regular expression or glob that a whole text must fit. Both compile to one nondeterministic automaton that is
/// simulated over all its states at once (Thompson 1968), so matching takes O(text × pattern), whatever the pattern.
package struct Pattern: Sendable, Equatable {
    package enum Flavour: String, Sendable {
        /// `*` and `?` stay within a path component, `**` is any number of components.
        case pathGlob
        /// `*` is anything.
        case textGlob
        case regularExpression
    }

    /// What is wrong with a pattern, in words.
    package struct Malformed: Error, Equatable {
        package let message: String
    }

    package let text: String
    package let flavour: Flavour
    private let states: [State]
    private let start: [UInt64]

    package static func == (a: Pattern, b: Pattern) -> Bool { a.text.utf8Equals(b.text) && a.flavour == b.flavour }

    /// A state consumes one scalar of its set and goes to `next`, with everything reachable from there for free.
    private struct State {
        let set: ScalarSet
        /// As a bit set over states; the last bit is acceptance.
        var next: [UInt64] = []
    }

    package static let maxStates = 1024

    /// - Throws: `Malformed` for what the flavour does not know, and for patterns of over 1,024 states.
    package init(_ text: String, _ flavour: Flavour) throws(Malformed) {
        self.text = text
        self.flavour = flavour
        guard text.utf8.count <= 1024 else { throw Malformed(message: "is longer than 1024 bytes") }
        var parser = PatternParser(Array(text.unicodeScalars))
        let tree: PatternTree
        switch flavour {
        case .regularExpression: tree = try parser.expression()
        case .pathGlob, .textGlob: tree = try parser.glob(path: flavour == .pathGlob)
        }
        var builder = Builder()
        try builder.count(tree)
        let entry = builder.build(tree, then: [Builder.accept])
        let count = builder.sets.count
        let words = (count + 1 + 63) / 64
        func bits(_ targets: [Int]) -> [UInt64] {
            var bits = [UInt64](repeating: 0, count: words)
            for target in targets {
                let index = target == Builder.accept ? count : target
                bits[index / 64] |= 1 << UInt64(index % 64)
            }
            return bits
        }
        states = builder.sets.indices.map { State(set: builder.sets[$0], next: bits(builder.next[$0])) }
        start = bits(entry)
    }

    /// How far a text gets.
    package enum Fit: Equatable {
        case fits
        /// It does not fit, but some longer text that begins with it does.
        case couldContinue
        case never
    }

    package func fits(_ text: String) -> Bool { fit(text.unicodeScalars) == .fits }

    package func fit(_ scalars: some Sequence<Unicode.Scalar>) -> Fit {
        var current = start
        var scratch = [UInt64](repeating: 0, count: start.count)
        for scalar in scalars {
            for index in scratch.indices { scratch[index] = 0 }
            var alive = false
            for word in current.indices {
                var rest = current[word]
                while rest != 0 {
                    let index = word * 64 + rest.trailingZeroBitCount
                    rest &= rest - 1
                    guard index < states.count, states[index].set.contains(scalar) else { continue }
                    alive = true
                    for target in scratch.indices { scratch[target] |= states[index].next[target] }
                }
            }
            guard alive else { return .never }
            swap(&current, &scratch)
        }
        let accept = states.count
        if current[accept / 64] & (1 << UInt64(accept % 64)) != 0 { return .fits }
        return current.contains { $0 != 0 } ? .couldContinue : .never
    }

    /// A text that fits, as short as the pattern's first choices make it: for examples.
    package var example: String {
        var parser = PatternParser(Array(text.unicodeScalars))
        // It was read once already.
        let tree = try? flavour == .regularExpression ? parser.expression() : parser.glob(path: flavour == .pathGlob)
        return tree.map { String(String.UnicodeScalarView($0.example)) } ?? ""
    }

    private struct Builder {
        static let accept = -1
        var sets: [ScalarSet] = []
        var next: [[Int]] = []
        private var loops = 0

        /// Refuses before building what would be too large: `{m,n}` multiplies.
        func count(_ tree: PatternTree) throws(Malformed) {
            if tree.size > Pattern.maxStates { throw Malformed(message: "stands for more than 1024 states") }
        }

        /// The states that stand at the tree's beginning when `then` follows it.
        mutating func build(_ tree: PatternTree, then: [Int]) -> [Int] {
            switch tree {
            case .set(let set):
                sets.append(set)
                next.append(then)
                return [sets.count - 1]
            case .sequence(let parts):
                return parts.reversed().reduce(then) { build($1, then: $0) }
            case .choice(let parts):
                return unique(parts.flatMap { build($0, then: then) })
            case .repeated(let part, let least, let most):
                var result = then
                if let most {
                    for _ in 0..<(most - least) { result = unique(build(part, then: result) + then) }
                } else {
                    result = loop(part, then: then)
                }
                for _ in 0..<least { result = build(part, then: result) }
                return result
            }
        }

        private mutating func loop(_ part: PatternTree, then: [Int]) -> [Int] {
            let first = sets.count
            // A mark stands for "again" until the loop's own entry is known.
            loops += 1
            let again = Self.accept - loops
            let entry = unique(build(part, then: then + [again]))
            let repeated = unique(entry.filter { $0 != again } + then)
            for index in first..<sets.count where next[index].contains(again) {
                next[index] = unique(next[index].filter { $0 != again } + repeated)
            }
            return repeated
        }

        private func unique(_ targets: [Int]) -> [Int] { Array(Set(targets)).sorted() }
    }
}

/// A set of scalars as ranges, or everything but them.
struct ScalarSet: Equatable, Sendable {
    var ranges: [ClosedRange<UInt32>]
    var negated = false

    static let any = ScalarSet(ranges: [], negated: true)
    static let withinComponent = ScalarSet(ranges: [0x2F...0x2F], negated: true)
    static func one(_ scalar: Unicode.Scalar) -> ScalarSet { ScalarSet(ranges: [scalar.value...scalar.value]) }

    func contains(_ scalar: Unicode.Scalar) -> Bool {
        ranges.contains { $0.contains(scalar.value) } != negated
    }

    /// The same without the slash.
    var withinComponent: ScalarSet {
        let slash: UInt32 = 0x2F
        if negated { return ScalarSet(ranges: ranges + [slash...slash], negated: true) }
        return ScalarSet(
            ranges: ranges.flatMap { range -> [ClosedRange<UInt32>] in
                guard range.contains(slash) else { return [range] }
                return (range.lowerBound < slash ? [range.lowerBound...(slash - 1)] : [])
                    + (range.upperBound > slash ? [(slash + 1)...range.upperBound] : [])
            })
    }

    var example: Unicode.Scalar {
        if !negated, let first = ranges.first, let scalar = Unicode.Scalar(first.lowerBound) { return scalar }
        for value in Array(UInt32(97)...122) + Array(33...0x2FFF) {
            if let scalar = Unicode.Scalar(value), contains(scalar) { return scalar }
        }
        return "x"
    }
}

indirect enum PatternTree: Sendable {
    case set(ScalarSet)
    case sequence([PatternTree])
    case choice([PatternTree])
    case repeated(PatternTree, least: Int, most: Int?)

    static let empty = PatternTree.sequence([])
    static func star(_ part: PatternTree) -> PatternTree { .repeated(part, least: 0, most: nil) }

    /// States it builds, saturating.
    var size: Int {
        switch self {
        case .set: return 1
        case .sequence(let parts), .choice(let parts): return parts.reduce(0) { min($0 + $1.size, 1 << 20) }
        case .repeated(let part, let least, let most):
            // Repeating nothing builds nothing, and still takes its time.
            return min(max(1, part.size) * max(1, most ?? least + 1), 1 << 20)
        }
    }

    var example: [Unicode.Scalar] {
        switch self {
        case .set(let set): [set.example]
        case .sequence(let parts): parts.flatMap(\.example)
        case .choice(let parts): parts.first?.example ?? []
        case .repeated(let part, let least, let most):
            (0..<(most == 0 ? 0 : max(least, 1))).flatMap { _ in part.example }
        }
    }
}

/// Reads the flavours. Regular expressions:
///
///     expression = branch { "|" branch }
///     branch     = { atom [ "*" | "+" | "?" | "{" m [ "," [ n ] ] "}" ] }
///     atom       = "(" expression ")" | "." | class | "\" sign | literal
///     class      = "[" [ "^" ] { literal [ "-" literal ] | "\d" … } "]"
///
/// A `^` at the very beginning and a `$` at the very end say what holds anyway. Nothing else is known: no lazy or
/// possessive repetition, no look-around, no references.
struct PatternParser {
    private let scalars: [Unicode.Scalar]
    private var index = 0
    private var depth = 0

    init(_ scalars: [Unicode.Scalar]) { self.scalars = scalars }

    private var peek: Unicode.Scalar? { index < scalars.count ? scalars[index] : nil }

    private mutating func take(_ scalar: Unicode.Scalar) -> Bool {
        guard peek == scalar else { return false }
        index += 1
        return true
    }

    mutating func expression() throws(Pattern.Malformed) -> PatternTree {
        _ = take("^")
        let tree = try choice()
        _ = index == scalars.count - 1 && take("$")
        if let rest = peek { throw .init(message: "has a `\(rest)` that nothing opens") }
        return tree
    }

    private mutating func choice() throws(Pattern.Malformed) -> PatternTree {
        depth += 1
        defer { depth -= 1 }
        if depth > 50 { throw .init(message: "is nested deeper than 50") }
        var branches = [try branch()]
        while take("|") { branches.append(try branch()) }
        return branches.count == 1 ? branches[0] : .choice(branches)
    }

    private mutating func branch() throws(Pattern.Malformed) -> PatternTree {
        var parts: [PatternTree] = []
        while let scalar = peek, scalar != "|", scalar != ")" {
            if scalar == "$", index == scalars.count - 1 { break }
            let part = try atom()
            parts.append(try repetition(of: part))
        }
        return .sequence(parts)
    }

    private mutating func repetition(of part: PatternTree) throws(Pattern.Malformed) -> PatternTree {
        var result = part
        if take("*") {
            result = .star(part)
        } else if take("+") {
            result = .repeated(part, least: 1, most: nil)
        } else if take("?") {
            result = .repeated(part, least: 0, most: 1)
        } else if take("{") {
            let least = try number()
            var most: Int? = least
            if take(",") { most = peek == "}" ? nil : try number() }
            guard take("}"), least <= most ?? least, max(least, most ?? 0) <= 1000 else {
                throw .init(message: "has a `{` that is no repetition such as `{2}`, `{2,}` or `{2,5}`")
            }
            result = .repeated(part, least: least, most: most)
        } else {
            return part
        }
        if let next = peek, next == "*" || next == "+" || next == "?" || next == "{" {
            throw .init(message: "repeats a repetition with `\(next)`")
        }
        return result
    }

    private mutating func number() throws(Pattern.Malformed) -> Int {
        var value = 0
        var digits = 0
        while let scalar = peek, ("0"..."9").contains(scalar), digits < 5 {
            value = value * 10 + Int(scalar.value - 48)
            digits += 1
            index += 1
        }
        if digits == 0 { throw .init(message: "has a `{` that is no repetition such as `{2}`, `{2,}` or `{2,5}`") }
        return value
    }

    private mutating func atom() throws(Pattern.Malformed) -> PatternTree {
        guard let scalar = peek else { return .empty }
        index += 1
        switch scalar {
        case "(":
            if peek == "?" { throw .init(message: "has a `(?`, which is not known") }
            let inner = try choice()
            guard take(")") else { throw .init(message: "has a `(` that nothing closes") }
            return inner
        case ".": return .set(.any)
        case "[": return .set(try set(negations: ["^"]))
        case "\\": return .set(try escape())
        case "*", "+", "?", "{": throw .init(message: "has a `\(scalar)` with nothing to repeat")
        case "^", "$": throw .init(message: "has a `\(scalar)` in its middle; write `\\\(scalar)` for the sign")
        default: return .set(.one(scalar))
        }
    }

    private static let digits = ScalarSet(ranges: [48...57])
    private static let words = ScalarSet(ranges: [48...57, 65...90, 95...95, 97...122])
    private static let spaces = ScalarSet(ranges: [9...13, 32...32])

    private mutating func escape() throws(Pattern.Malformed) -> ScalarSet {
        guard let scalar = peek else { throw .init(message: "ends in a `\\`") }
        index += 1
        switch scalar {
        case "d": return Self.digits
        case "w": return Self.words
        case "s": return Self.spaces
        case "D", "W", "S":
            var set = scalar == "D" ? Self.digits : scalar == "W" ? Self.words : Self.spaces
            set.negated = true
            return set
        case "n": return .one("\n")
        case "t": return .one("\t")
        case "r": return .one("\r")
        default:
            if scalar.properties.isAlphabetic || ("0"..."9").contains(scalar) {
                throw .init(message: "has `\\\(scalar)`, which is not known")
            }
            return .one(scalar)
        }
    }

    private mutating func set(negations: [Unicode.Scalar]) throws(Pattern.Malformed) -> ScalarSet {
        var result = ScalarSet(ranges: [])
        for sign in negations where !result.negated { result.negated = take(sign) }
        var first = true
        while let scalar = peek, first || scalar != "]" {
            first = false
            index += 1
            var low = ScalarSet.one(scalar)
            if scalar == "\\" { low = try escape() }
            if low.negated { throw .init(message: "has a negated `\\` class inside `[…]`") }
            guard peek == "-", index + 1 < scalars.count, scalars[index + 1] != "]" else {
                result.ranges += low.ranges
                continue
            }
            index += 1
            let sign = scalars[index]
            index += 1
            let high = sign == "\\" ? try escape() : .one(sign)
            guard low.ranges.count == 1, high.ranges.count == 1, !high.negated,
                low.ranges[0].count == 1, high.ranges[0].count == 1,
                low.ranges[0].lowerBound <= high.ranges[0].lowerBound
            else { throw .init(message: "has a range in `[…]` that is none") }
            result.ranges.append(low.ranges[0].lowerBound...high.ranges[0].lowerBound)
        }
        guard take("]"), !result.ranges.isEmpty else { throw .init(message: "has a `[` that nothing closes") }
        return result
    }

    /// Globs are the expressions their signs stand for.
    mutating func glob(path: Bool) throws(Pattern.Malformed) -> PatternTree {
        var parts: [PatternTree] = []
        let single: ScalarSet = path ? .withinComponent : .any
        while let scalar = peek {
            index += 1
            switch scalar {
            case "*" where path && peek == "*":
                index += 1
                let opens = index == 2 || scalars[index - 3] == "/"
                guard opens, peek == nil || peek == "/" else {
                    throw .init(message: "has a `**` that is not a whole component")
                }
                // Two in a row say no more than one.
                if peek == "/", scalars[(index + 1)...].starts(with: ["*", "*"]),
                    index + 3 == scalars.count || scalars[index + 3] == "/"
                {
                    index += 1
                    continue
                }
                if take("/") {
                    // `**/`: any components, each with its slash.
                    parts.append(.star(.sequence([.star(.set(single)), .set(.one("/"))])))
                } else if case .set(let last)? = parts.last, last == .one("/"), parts.count > 1 {
                    // A final `/**` fits the folder itself, too.
                    parts.removeLast()
                    parts.append(.repeated(.sequence([.set(.one("/")), .star(.set(.any))]), least: 0, most: 1))
                } else {
                    parts.append(.star(.set(.any)))
                }
            case "*": parts.append(.star(.set(single)))
            case "?": parts.append(.set(single))
            case "[":
                let set = try set(negations: ["^", "!"])
                parts.append(.set(path ? set.withinComponent : set))
            case "\\":
                guard let next = peek else { throw .init(message: "ends in a `\\`") }
                index += 1
                parts.append(.set(.one(next)))
            case "{": throw .init(message: "has a `{`: write a list of globs instead, or `\\{` for the sign")
            default: parts.append(.set(.one(scalar)))
            }
        }
        return .sequence(parts)
    }
}
