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

    /// `{active, system, requirements: [{file, text}], organisation, policies: [{file, text}], agents: {name: {file, text}}}`.
    package var json: JSONValue {
        func source(_ source: PolicySource?) -> JSONValue {
            source.map { ["file": .string($0.file), "text": .string(String(decoding: $0.text, as: UTF8.self))] }
                ?? .null
        }
        return [
            "v": 1, "active": .string(active), "system": source(system),
            "requirements": .array(requirements.map { source($0) }),
            "organisation": source(organisation), "policies": .array(policies.map { source($0) }),
            "agents": .object(JSONObject(agents.map { ($0.key, source($0.value)) })),
        ]
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
    }

    /// SHA-256 of the canonical JSON: the identity of a policy version.
    package var digest: Digest { sha256(json.canonicalBytes()) }
}
