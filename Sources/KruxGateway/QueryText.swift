import Foundation
import HTTPTypes
import KruxCore

/// The token of `Authorization: Bearer TOKEN`.
enum BearerToken {
    static func read(_ head: HTTPRequest) -> String? {
        guard let value = head.headerFields[.authorization] else { return nil }
        let parts = value.split(separator: " ", maxSplits: 1)
        guard parts.count == 2, parts[0].lowercased() == "bearer", parts[1].utf8.count <= 512 else { return nil }
        return String(parts[1])
    }
}

/// A query's parameters, each known and given once.
struct QueryText {
    private var values: [String: String] = [:]

    /// - Throws: `StructuredError` `.invalidRequest` for a parameter that is not one of `names`, or stands twice.
    init(_ query: Substring, names: [String]) throws(StructuredError) {
        for pair in query.split(separator: "&") {
            let parts = pair.split(separator: "=", maxSplits: 1, omittingEmptySubsequences: false)
            let name = String(parts[0])
            guard names.contains(name), parts.count == 2, values[name] == nil,
                let value = parts[1].replacingOccurrences(of: "+", with: " ").removingPercentEncoding
            else { throw Self.malformed("`\(pair.prefix(100))` is not understood", names) }
            values[name] = value
        }
    }

    private static func malformed(_ text: String, _ names: [String]) -> StructuredError {
        StructuredError(
            .invalidRequest, "in the query \(text)",
            recovery: ["The query takes \(names.map { "`\($0)`" }.joined(separator: ", "))."])
    }

    func text(_ name: String) -> String? { values[name] }

    /// - Throws: `StructuredError` `.invalidRequest` for what is neither `true` nor `false`.
    func flag(_ name: String) throws(StructuredError) -> Bool? {
        switch values[name] {
        case nil: return nil
        case "true": return true
        case "false": return false
        default: throw StructuredError(.invalidRequest, "in the query `\(name)` is `true` or `false`")
        }
    }

    /// - Throws: `StructuredError` `.invalidRequest` for what is no number of the range.
    func int(_ name: String, _ range: ClosedRange<Int64>) throws(StructuredError) -> Int64? {
        guard let text = values[name] else { return nil }
        guard let value = Int64(text), range.contains(value) else {
            throw StructuredError(
                .invalidRequest, "in the query `\(name)` is a number from \(range.lowerBound) to \(range.upperBound)")
        }
        return value
    }
}
