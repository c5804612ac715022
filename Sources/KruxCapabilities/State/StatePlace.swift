package import KruxCore
import KruxStore

/// One of the three places where agents keep state.
package protocol StatePlace: Sendable {
    /// As in the database and in the capabilities' names.
    static var name: String { get }
    /// In words.
    static var words: String { get }
    /// Whose it is: a session's id, an agent's name, or nobody's.
    static func owner(_ context: CallContext) -> String
    static var changeTier: Tier { get }
}

/// Gone with the session.
package enum SessionPlace: StatePlace {
    package static let name = "session"
    package static let words = "this session's state"
    package static func owner(_ context: CallContext) -> String { context.host.session().id }
    package static let changeTier = Tier.autonomous
}

/// The agent's own.
package enum PersistentPlace: StatePlace {
    package static let name = "persistent"
    package static let words = "your own lasting state"
    package static func owner(_ context: CallContext) -> String { context.agent.text }
    package static let changeTier = Tier.autonomous
}

/// Every agent's.
package enum SharedPlace: StatePlace {
    package static let name = "shared"
    package static let words = "the state agents share"
    package static func owner(_ context: CallContext) -> String { "" }
    package static let changeTier = Tier.notify
}

/// What the capabilities on state have in common.
enum StateSchema {
    static let key = Property.required("key", .string(minLength: 1, maxLength: 512), "The key.", role: .key())
    static let version = Property.optional(
        "version", .count, "Only if the key has this version now, 0 for a key that is not there: no change is lost.")
    static let limit = Property.optional("limit", .integer(1...10_000), "Most entries.", default: 1000)
    static let prefix = Property.optional(
        "prefix", .string(maxLength: 512), "Only keys that start so.", default: "", role: .key(reachesBelow: true))

    static let entry: ObjectSchema = [
        .required("key", .text, "The key."), .required("value", .any, "The value."),
        .required("version", .count, "Goes up with each change."), .required("updated_at", .text, "RFC 3339 time."),
        .required("updated_by", .text, "The agent that set it."),
    ]
    static let past: ObjectSchema = [
        .required("key", .text, "The key."), .optional("value", .any, "The value; absent for a deletion."),
        .required("version", .count, "Goes up with each change."), .required("updated_at", .text, "RFC 3339 time."),
        .required("updated_by", .text, "The agent that set or deleted it."),
    ]
    static let entries: ObjectSchema = [
        .required("entries", .array(.object(entry), maxItems: 10_000), "By key."),
        .required("truncated", .boolean, "Whether there are more, beyond the limit or 8 MiB."),
    ]
    static let missing = CapabilityDeclaration.DeclaredError(
        .notFound, when: "the key is not there", recovery: "look with list")
    static let stale = CapabilityDeclaration.DeclaredError(
        .conflict, when: "somebody changed it since", recovery: "read it again, and change what is there now")
    static let full = CapabilityDeclaration.DeclaredError(
        .tooLarge, when: "the value is over 1 MiB, or there are 10,000 keys", recovery: "store less, or use a file")

    static func name(_ place: any StatePlace.Type, _ verb: String) -> String { "state.\(place.name).\(verb)" }
}

/// A value by its key.
package struct StateEntry: Sendable {
    let key: String
    /// Null for one that was deleted, in a history.
    let value: JSONValue
    let version: Int64
    let updatedAt: Timestamp
    let updatedBy: String

    var json: JSONObject {
        var json: JSONObject = [
            "key": .string(key), "version": .int(version), "updated_at": .string(updatedAt.rfc3339),
            "updated_by": .string(updatedBy),
        ]
        if !value.isNull { json["value"] = value }
        return json
    }
}

/// Entries as output.
package struct StateEntries: CapabilityOutput {
    let entries: [StateEntry]
    let isTruncated: Bool

    package var json: JSONObject {
        ["entries": .array(entries.map { .object($0.json) }), "truncated": .bool(isTruncated)]
    }
}

/// The table of state.
enum StateTable {
    private static let columns = "key, value, version, updated_at, updated_by"
    static let largestValue = 1 << 20
    static let mostKeys: Int64 = 10_000
    /// Versions of one key that are remembered.
    static let mostVersions: Int64 = 100

    private static func entry(_ row: SQLRow) throws -> StateEntry {
        guard let value = row.optionalText(1).map({ try? JSONParser.parse($0) }) ?? .some(.null) else {
            throw StoreError(.corrupt, "the value of a state's key cannot be read")
        }
        return StateEntry(
            key: row.text(0), value: value, version: row.int(2), updatedAt: Timestamp(microseconds: row.int(3)),
            updatedBy: row.text(4))
    }

    static func find(_ tx: any ReadTx, _ place: any StatePlace.Type, _ owner: String, _ key: String) throws
        -> StateEntry?
    {
        try tx.first(
            "SELECT \(columns) FROM state WHERE place = ? AND owner = ? AND key = ?",
            [.text(place.name), .text(owner), .text(key)], entry)
    }

    static func missing(_ key: String) -> StructuredError {
        StructuredError(
            .notFound, "there is no key `\(key.prefix(100))`",
            recovery: ["See what is there with the `list` beside it."],
            context: ["key": .string(key)])
    }

    /// Keys that start so, in order.
    static func list(
        _ tx: any ReadTx, _ place: any StatePlace.Type, _ owner: String, prefix: String,
        _ body: (StateEntry) throws -> Bool
    ) throws {
        // Keys from the prefix on, as bytes are compared, until one does not start with it.
        try tx.forEach(
            "SELECT \(columns) FROM state WHERE place = ? AND owner = ? AND key >= ? ORDER BY key",
            [.text(place.name), .text(owner), .text(prefix)]
        ) { row in
            let entry = try entry(row)
            return try entry.key.utf8.starts(with: prefix.utf8) && body(entry)
        }
    }

    /// Keys that start so and whose entries fit.
    static func entries(
        _ tx: any ReadTx, _ place: any StatePlace.Type, _ owner: String, prefix: String, limit: Int64,
        _ fits: (StateEntry) -> Bool
    ) throws -> StateEntries {
        var found: [StateEntry] = []
        var bytes = 0
        try list(tx, place, owner, prefix: prefix) { entry in
            if fits(entry) {
                found.append(entry)
                bytes += entry.key.utf8.count + entry.value.canonicalText.utf8.count
            }
            return found.count <= Int(limit) && bytes <= mostBytes
        }
        // One that is large by itself is given by itself.
        let isTruncated = found.count > Int(limit) || bytes > mostBytes && found.count > 1
        return StateEntries(entries: isTruncated ? Array(found.dropLast()) : found, isTruncated: isTruncated)
    }

    /// Of one answer.
    private static let mostBytes = 8 << 20

    /// The values that a key has had, newest first.
    static func history(
        _ tx: any ReadTx, _ place: any StatePlace.Type, _ owner: String, _ key: String, limit: Int64
    ) throws -> [StateEntry] {
        try tx.rows(
            "SELECT \(columns) FROM state_history WHERE place = ? AND owner = ? AND key = ? ORDER BY version DESC LIMIT ?",
            [.text(place.name), .text(owner), .text(key), .int(limit)], entry)
    }

    /// - Parameters:
    ///   - value: nil to delete.
    ///   - expected: the version that must be there; nil for any.
    static func set(
        _ tx: WriteTx, _ place: any StatePlace.Type, _ owner: String, _ key: String, _ value: JSONValue?,
        expected: Int64?, by agent: String, at now: Timestamp
    ) throws -> StateEntry {
        let before = try find(tx, place, owner, key)
        if let expected, expected != before?.version ?? 0 {
            throw StructuredError(
                .conflict,
                before.map { "`\(key.prefix(100))` has version \($0.version) now, changed by \($0.updatedBy)" }
                    ?? "`\(key.prefix(100))` is not there now",
                recovery: ["Read it again, and change what is there now."],
                context: ["key": .string(key), "version": .int(before?.version ?? 0)])
        }
        let text = value?.canonicalText
        if let text, text.utf8.count > largestValue {
            throw StructuredError(
                .tooLarge, "the value has \(text.utf8.count) bytes, and at most \(largestValue) are kept",
                recovery: ["Store it in a file, and keep the file's path."])
        }
        if before == nil, value != nil {
            let count = try tx.first(
                "SELECT count(*) FROM state WHERE place = ? AND owner = ?", [.text(place.name), .text(owner)]
            ) { $0.int(0) }
            guard count ?? 0 < mostKeys else {
                throw StructuredError(
                    .tooLarge, "there are \(mostKeys) keys already, which is the most",
                    recovery: ["Delete keys that are not needed, or keep several things in one value."])
            }
        }
        let last = try tx.first(
            "SELECT max(version) FROM state_history WHERE place = ? AND owner = ? AND key = ?",
            [.text(place.name), .text(owner), .text(key)]
        ) { $0.int(0) }
        let version = max(last ?? 0, before?.version ?? 0) + 1
        let row: [SQLValue] = [
            .text(place.name), .text(owner), .text(key), .int(version), .optional(text), .int(now.microseconds),
            .text(agent),
        ]
        try tx.execute(
            "INSERT INTO state_history (place, owner, key, version, value, updated_at, updated_by) VALUES (?, ?, ?, ?, ?, ?, ?)",
            row)
        try tx.execute(
            "DELETE FROM state_history WHERE place = ? AND owner = ? AND key = ? AND version <= ?",
            [.text(place.name), .text(owner), .text(key), .int(version - mostVersions)])
        if text == nil {
            try tx.execute(
                "DELETE FROM state WHERE place = ? AND owner = ? AND key = ?",
                [.text(place.name), .text(owner), .text(key)])
        } else {
            try tx.execute(
                "INSERT INTO state (place, owner, key, version, value, updated_at, updated_by) VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT (place, owner, key) DO UPDATE SET version = excluded.version, value = excluded.value, updated_at = excluded.updated_at, updated_by = excluded.updated_by",
                row)
        }
        return StateEntry(key: key, value: value ?? .null, version: version, updatedAt: now, updatedBy: agent)
    }
}
