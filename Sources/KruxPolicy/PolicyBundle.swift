package import KruxCore
package import KruxCrypto

/// The text of one policy file.
package struct PolicySource: Sendable, Equatable {
    /// The file's name as shown: `team-moderate.yaml`, `agents/deploy-bot.yaml`.
    package let file: String
    package let text: [UInt8]

    package init(file: String, text: [UInt8]) {
        self.file = file
        self.text = text
    }
}

/// Everything a decision depends on besides the call: all documents of all layers. Stored as one version.
package struct PolicyBundle: Sendable, Equatable {
    /// The compiled-in system policy.
    package var system: PolicySource
    /// Administrators' `requirements.yaml`, the machine's and the home's, as binding as the system policy.
    package var requirements: [PolicySource]
    /// `org.yaml`, above the active policy.
    package var organisation: PolicySource?
    /// The name of the active policy, one of `policies`.
    package var active: String
    /// Every policy of the folder, so that `extends` finds them.
    package var policies: [PolicySource]
    /// The agents' own documents by agent.
    package var agents: [String: PolicySource]
    /// The time zones that conditions name, except `UTC`.
    package var zones: [String: TimeZoneTable] = [:]

    package init(
        system: PolicySource, requirements: [PolicySource] = [], organisation: PolicySource? = nil, active: String,
        policies: [PolicySource], agents: [String: PolicySource] = [:]
    ) {
        self.system = system
        self.requirements = requirements
        self.organisation = organisation
        self.active = active
        self.policies = policies
        self.agents = agents
    }

    /// `{active, system, requirements: [{file, text}], organisation, policies: [{file, text}], agents: {name: {file, text}},
    /// zones: {name: [[from, offset], …]}}`; without `zones` when there are none.
    package var json: JSONValue {
        func source(_ source: PolicySource?) -> JSONValue {
            source.map { ["file": .string($0.file), "text": .string(String(decoding: $0.text, as: UTF8.self))] }
                ?? .null
        }
        var json: JSONObject = [
            "v": 1, "active": .string(active), "system": source(system),
            "requirements": .array(requirements.map { source($0) }),
            "organisation": source(organisation), "policies": .array(policies.map { source($0) }),
            "agents": .object(JSONObject(agents.map { ($0.key, source($0.value)) })),
        ]
        if !zones.isEmpty { json["zones"] = .object(JSONObject(zones.map { ($0.key, $0.value.json) })) }
        return .object(json)
    }

    package init?(json: JSONValue) {
        func source(_ value: JSONValue?) -> PolicySource? {
            guard let file = value?["file"]?.string, let text = value?["text"]?.string else { return nil }
            return PolicySource(file: file, text: Array(text.utf8))
        }
        guard json["v"]?.int == 1, let active = json["active"]?.string, let system = source(json["system"]),
            let policies = json["policies"]?.array, let agents = json["agents"]?.object
        else { return nil }
        self.init(
            system: system, requirements: (json["requirements"]?.array ?? []).compactMap(source),
            organisation: source(json["organisation"]),
            active: active, policies: policies.compactMap(source),
            agents: Dictionary(
                agents.members.compactMap { member in source(member.value).map { (member.key, $0) } },
                uniquingKeysWith: { first, _ in first }))
        for member in json["zones"]?.object?.members ?? [] {
            guard let table = TimeZoneTable(name: member.key, json: member.value) else { return nil }
            zones[member.key] = table
        }
    }

    /// The names of the time zones that the documents' conditions use, besides `UTC`.
    package var namedZones: Set<String> {
        var names: Set<String> = []
        for source in [system] + requirements + (organisation.map { [$0] } ?? []) + policies + Array(agents.values) {
            // Reading is not free, and few documents go by the clock.
            guard source.text.contains(UInt8(ascii: "z")),
                String(decoding: source.text, as: UTF8.self).contains("zone"),
                case .success(let document) = PolicyDocumentReader.read(source.text, file: source.file)
            else { continue }
            for rule in document.list + document.map {
                for (test, _) in rule.conditions.flatMap(\.tests) {
                    switch test {
                    case .timeBetween(_, _, let zone), .days(_, let zone):
                        if zone.name != "UTC" { names.insert(zone.name) }
                    default: continue
                    }
                }
            }
        }
        return names
    }

    /// SHA-256 of the canonical JSON.
    package var digest: Digest { sha256(json.canonicalBytes()) }
}
