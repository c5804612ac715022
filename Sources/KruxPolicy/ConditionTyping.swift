import KruxCore

/// Whether a condition can ever be judged, by the schemas of the capabilities its rule covers.
struct ConditionTyping {
    let catalogue: Catalogue
    let zones: [String: TimeZoneTable]

    struct Problem {
        let message: String
        let hint: String?
    }

    /// - Parameter key: the condition's, as written.
    /// - Returns: what is wrong with the test; nil when some covered capability can be judged by it.
    func problem(_ test: Condition.Test, _ key: String, _ pattern: String, _ covered: [Int]) -> Problem? {
        switch test {
        case .timeBetween(_, _, let zone), .days(_, let zone):
            if zones[zone.name] != nil || zone.name == "UTC" { return nil }
            return Problem(
                message: "no time zone is named `\(zone.name)`",
                hint: "use a name of the IANA time zone database, such as `Europe/Berlin` or `UTC`")
        case .sessionLabel, .sessionAge, .sessionCalls: return nil
        case .argument(let name, let test): return problem(name, test, pattern, covered)
        case .method(let methods):
            return absent(test, key, pattern, covered)
                ?? wrongChoice(methods, properties(test.reads, covered).map(\.type), "method")
        default: return absent(test, key, pattern, covered)
        }
    }

    private func properties(_ reads: Condition.Test.Reads, _ covered: [Int]) -> [Property] {
        covered.flatMap { catalogue.declarations[$0].arguments(readBy: reads) }
    }

    private func absent(_ test: Condition.Test, _ key: String, _ pattern: String, _ covered: [Int]) -> Problem? {
        if !properties(test.reads, covered).isEmpty { return nil }
        let fitting = catalogue.declarations.filter { !$0.arguments(readBy: test.reads).isEmpty }.map(\.name.text)
        return Problem(
            message: "`\(key)` can never be judged: `\(pattern)` has no such argument",
            hint: "it is for \(Self.few(fitting))")
    }

    private static func few(_ names: [String]) -> String {
        guard names.count > 3 else { return names.joined(separator: ", ") }
        return names.prefix(3).joined(separator: ", ") + " and \(names.count - 3) more"
    }

    private func problem(_ name: String, _ test: Condition.ArgumentTest, _ pattern: String, _ covered: [Int])
        -> Problem?
    {
        let found = properties(.argument(name), covered)
        guard !found.isEmpty else {
            let names = Set(covered.flatMap { catalogue.declarations[$0].input.properties.map(\.name) })
            let hint =
                nearest(to: name, among: names.sorted()).map { "did you mean `\($0)`?" }
                ?? (names.isEmpty ? "it has no arguments at all" : "it has: \(names.sorted().joined(separator: ", "))")
            return Problem(message: "no capability of `\(pattern)` has an argument `\(name)`", hint: hint)
        }
        if found.contains(where: { Self.fits(test, $0.type) }) {
            let types = found.map { property in
                if case .array(let element, _) = property.type { element } else { property.type }
            }
            switch test {
            case .equals(let values), .notEquals(let values):
                return wrongChoice(values.compactMap(\.string), types, name)
            default: return nil
            }
        }
        let type = found[0].type.jsonSchema["type"]?.string ?? "value of any kind"
        return Problem(
            message: "`\(name)` is of type \(type), which this test can never judge",
            hint: "texts, numbers and booleans are compared with their own kind")
    }

    /// A text that none of the choices is would never be there.
    private func wrongChoice(_ texts: [String], _ types: [SchemaType], _ name: String) -> Problem? {
        var choices: [String] = []
        for type in types {
            guard case .choice(let words) = type else { return nil }
            choices += words
        }
        guard let wrong = texts.first(where: { text in !choices.contains { $0.utf8Equals(text) } }) else { return nil }
        let hint =
            nearest(to: wrong, among: choices).map { "did you mean `\($0)`?" }
            ?? "it is one of \(choices.joined(separator: ", "))"
        return Problem(message: "`\(name)` is never `\(wrong)`", hint: hint)
    }

    private static func fits(_ test: Condition.ArgumentTest, _ type: SchemaType) -> Bool {
        func all(_ values: [JSONValue], _ kind: (JSONValue) -> Bool) -> Bool { values.allSatisfy(kind) }
        switch (type, test) {
        case (_, .exists), (.any, _): return true
        case (.array(let element, _), _): return fits(test, element)
        case (.string, .equals(let values)), (.string, .notEquals(let values)), (.choice, .equals(let values)),
            (.choice, .notEquals(let values)):
            return all(values) { $0.string != nil }
        case (.string, .matches), (.choice, .matches), (.integer, .compares): return true
        case (.integer, .equals(let values)), (.integer, .notEquals(let values)): return all(values) { $0.int != nil }
        case (.boolean, .equals(let values)), (.boolean, .notEquals(let values)): return all(values) { $0.bool != nil }
        default: return false
        }
    }
}
