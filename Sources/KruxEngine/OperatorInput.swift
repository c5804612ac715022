import KruxCore

/// Parameters of an operator command, by name and type.
struct OperatorInput {
    private let object: JSONObject
    init(_ object: JSONObject) { self.object = object }

    private func missing(_ name: String, _ type: String) -> StructuredError {
        StructuredError(
            .invalidArguments, "the parameter `\(name)` must be \(type)", recovery: ["Send it with the command."])
    }

    func text(_ name: String) throws -> String {
        guard let value = object[name]?.string else { throw missing(name, "a string") }
        return value
    }

    func flag(_ name: String) throws -> Bool {
        guard let value = object[name]?.bool else { throw missing(name, "a boolean") }
        return value
    }

    func int(_ name: String) throws -> Int64 {
        guard let value = object[name]?.int else { throw missing(name, "an integer") }
        return value
    }

    func value(_ name: String) -> JSONValue? { object[name] }
    /// Nil when it is absent; anything but an object is refused.
    func optionalObject(_ name: String) throws -> JSONObject? {
        guard let value = object[name], !value.isNull else { return nil }
        guard let found = value.object else { throw missing(name, "an object") }
        return found
    }

    /// Empty when it is absent.
    func optionalTexts(_ name: String) throws -> [String] {
        if isAbsent(name) { return [] }
        let texts = object[name]?.array?.compactMap(\.string) ?? []
        guard let elements = object[name]?.array, texts.count == elements.count else {
            throw missing(name, "a list of strings")
        }
        return texts
    }

    func optionalInts(_ name: String) throws -> [Int]? {
        guard let value = object[name], !value.isNull else { return nil }
        let numbers = value.array?.compactMap(\.int) ?? []
        guard let elements = value.array, numbers.count == elements.count else {
            throw missing(name, "a list of integers")
        }
        return numbers.map { Int($0) }
    }

    func optionalFlag(_ name: String) throws -> Bool? { isAbsent(name) ? nil : try flag(name) }
    func optionalText(_ name: String) throws -> String? { isAbsent(name) ? nil : try text(name) }
    func optionalInt(_ name: String) throws -> Int64? { isAbsent(name) ? nil : try int(name) }

    /// What is there and of another type is never taken for what is not there.
    private func isAbsent(_ name: String) -> Bool { object[name].map(\.isNull) ?? true }
}
