import KruxCapabilities
package import KruxCore
import KruxCrypto
package import KruxPolicy
import KruxRegistry

/// The facts of a decision as a row holds them, so that it can be decided again years later. A value that the row does
/// not show is there as the truth of each condition that read it.
///
///     { "policy": digest, "time": microseconds, "role"?, "mode"?, "session"?: {"label"?, "age": s, "calls"}, "grant"?,
///       "paths"?: [path, …], "reaches_below"?, "content_size"?: bytes,
///       "rates"?: [{"layer", "document", "pattern", "window": s, "calls"}, …],
///       "hidden"?: {"arguments": [name, …], "values": [paths, lines, recipients],
///                   "judged": {condition: "yn?…", …}} }
package enum RecordedFacts {
    static func json(
        _ facts: CallFacts, recorded: JSONValue, _ policy: Engine.ActivePolicy, _ standings: [RateWindows.Standing]
    ) -> JSONValue {
        var json: JSONObject = [
            "policy": .string(policy.digest.hex), "time": .int(facts.time.microseconds),
        ]
        if let role = facts.role { json["role"] = .string(role) }
        if let mode = facts.mode { json["mode"] = .string(mode.rawValue) }
        if let session = facts.session {
            var object: JSONObject = ["age": .int(session.ageSeconds), "calls": .int(session.calls)]
            if let label = session.label { object["label"] = .string(label) }
            json["session"] = .object(object)
        }
        if facts.grant { json["grant"] = true }
        if !facts.paths.isEmpty { json["paths"] = .strings(facts.paths.map { String(decoding: $0, as: UTF8.self) }) }
        if facts.reachesBelow { json["reaches_below"] = true }
        if let size = facts.contentSize { json["content_size"] = .int(size) }
        if !standings.isEmpty {
            json["rates"] = .array(
                standings.map {
                    [
                        "layer": .string($0.window.layer.rawValue), "document": .string($0.window.document),
                        "pattern": .string($0.window.pattern), "window": .int($0.seconds), "calls": .int($0.calls),
                    ]
                })
        }
        let shown = recorded.object ?? [:]
        let hidden = facts.arguments.members.filter { shown[$0.key] != $0.value }.map(\.key)
        if !hidden.isEmpty {
            let judged = policy.compiled.truths(hiding: Set(hidden), facts).map { text, truths in
                (text, JSONValue.string(String(truths.map { $0 == .yes ? "y" : $0 == .no ? "n" : "?" })))
            }
            json["hidden"] = [
                "arguments": .strings(hidden), "judged": .object(JSONObject(judged)),
                "values": [
                    .int(Int64(facts.paths.count)), .int(Int64(facts.lines.count)), .int(Int64(facts.recipients.count)),
                ],
            ]
        }
        return .object(json)
    }

    /// The facts of a recorded call, as far as the row shows them.
    /// - Parameters:
    ///   - row: the row's `agent`, `capability`, `arguments` and `facts`.
    ///   - policy: which is to decide again.
    /// - Returns: nil when the row holds no facts, or the policy does not know its capability.
    package static func facts(
        agent: String, capability: String, arguments: JSONValue, _ json: JSONObject, _ policy: CompiledPolicy
    ) -> CallFacts? {
        guard let declaration = Capabilities.catalogue[capability], let index = policy.index(of: capability),
            let time = json["time"]?.int
        else { return nil }
        let hidden = json["hidden"]?.object
        let names = Set((hidden?["arguments"]?.array ?? []).compactMap(\.string))
        let shown = JSONObject(
            (arguments.object ?? [:]).members.filter { !names.contains($0.key) && !$0.key.hasPrefix("$") }.map {
                ($0.key, $0.value)
            })
        var facts = CallFacts(
            agent: agent, capability: index, declaration: declaration, arguments: shown,
            time: Timestamp(microseconds: time))
        facts.role = json["role"]?.string
        facts.mode = json["mode"]?.string.flatMap(Mode.init(name:))
        if let session = json["session"]?.object {
            facts.session = .init(
                label: session["label"]?.string, ageSeconds: session["age"]?.int ?? 0, calls: session["calls"]?.int ?? 0
            )
        }
        facts.grant = json["grant"]?.bool ?? false
        facts.paths = (json["paths"]?.array ?? []).compactMap(\.string).map { Array($0.utf8) }
        facts.reachesBelow = json["reaches_below"]?.bool ?? false
        facts.contentSize = json["content_size"]?.int
        if let hidden {
            let judged = (hidden["judged"]?.object?.members ?? []).map { member in
                (
                    Array(member.key.utf8),
                    (member.value.string ?? "").map { $0 == "y" ? Truth.yes : $0 == "n" ? .no : .unknown }
                )
            }
            // Paths are on record themselves.
            facts.hidden = CallFacts.HiddenValues(
                names: names, judged: Dictionary(judged, uniquingKeysWith: { first, _ in first }),
                counts: (hidden["values"]?.array ?? []).compactMap { $0.int.map(Int.init) })
        }
        return facts
    }
}
