package import KruxCore
import KruxCrypto

/// The compiled form as bytes: canonical JSON, stored with the bundle it came from. What the gateway decides by is read
/// from these bytes, and so is what the command line and a replay decide by.
///
///     { "v": 1, "source": SHA-256 of the bundle, "active": {name, file, description},
///       "capabilities": [[name, effect], …],
///       "rules": [{layer, document, pattern, tier, at: [file, line, column], tier_at: [line, column],
///                  reason?, locked?, default?, conditions?: [as written], rate?: [max, seconds, on_exceed],
///                  terms?: {approvers, quorum, expires?, remind_after?}, sandbox?: {files, hosts?, best_effort?}}, …],
///       "tables": [{title, chains: [[rule, …], …], of: [chain of each capability, …]}, …],
///       "system": [table, …], "organisation": table, "tighten_only", "grants", "max_pending", "notifiers", "links", "protected",
///       "roles": {role: mode}, "agents": {name: {own: table, tightening: [table, …], role?, mode?, max_pending?}},
///       "broken": {agent: [diagnostic, …]}, "warnings": [diagnostic, …], "zones": {name: [[from, offset], …]} }
///
/// A diagnostic is `[file, line, column, message, hint or null]`.
extension CompiledPolicy {
    package var form: [UInt8] {
        let tables: [JSONValue] = tables.map { table in
            [
                "title": .string(table.title), "of": .array(table.chainOf.map { .int(Int64($0)) }),
                "chains": .array(table.chains.map { .array($0.map { .int(Int64($0.index)) }) }),
            ]
        }
        let agents = agents.map { name, layer -> (String, JSONValue) in
            var json: JSONObject = ["own": .int(Int64(layer.own)), "tightening": Self.json(layer.tightening)]
            if let role = layer.role { json["role"] = .string(role) }
            if let mode = layer.mode { json["mode"] = .string(mode.rawValue) }
            if let most = layer.maxPending { json["max_pending"] = .int(most) }
            return (name, .object(json))
        }
        let form: JSONObject = [
            "v": 1, "source": .string(source.hex),
            "active": [
                "name": .string(active.name), "file": .string(active.file),
                "description": .optional(active.description),
            ],
            "capabilities": .array(capabilities.map { [.string($0.name), .string($0.effect.rawValue)] }),
            "rules": .array(rules.map { .object($0.json) }), "tables": .array(tables), "system": Self.json(system),
            "organisation": .int(Int64(organisation)), "tighten_only": .bool(tightenOnly),
            "grants": .bool(grantsAllowed), "max_pending": .optional(maxPending),
            "notifiers": .array(notifiers.map { .object($0.json) }),
            "links": links.map { ["base_url": .string($0.baseURL), "valid_for": .int($0.validSeconds)] } ?? .null,
            "protected": .strings(protected),
            "roles": .object(JSONObject(roles.map { ($0.key, .string($0.value.rawValue)) })),
            "agents": .object(JSONObject(agents)),
            "broken": .object(
                JSONObject(brokenAgents.map { ($0.key, .array($0.value.diagnostics.map(\.json))) })),
            "warnings": .array(warnings.map(\.json)),
            "zones": .object(JSONObject(zones.map { ($0.key, $0.value.json) })),
        ]
        return form.canonicalBytes()
    }

    private static func json(_ indices: [Int]) -> JSONValue { .array(indices.map { .int(Int64($0)) }) }

    /// A form that cannot be read: it was written by another version, or damaged.
    package struct Unreadable: Error, CustomStringConvertible {
        package let description: String
    }

    /// - Parameters:
    ///   - form: what `form` gave.
    ///   - catalogue: says which arguments are lists; capabilities are those of the form.
    package init(form: [UInt8], catalogue: Catalogue) throws {
        let json = try JSONParser.parse(form)
        func broken(_ what: String) -> Unreadable {
            Unreadable(description: "the compiled policy's `\(what)` cannot be read")
        }
        guard json["v"]?.int == 1 else { throw broken("v") }
        guard let source = json["source"]?.string.flatMap(Digest.init(hex:)),
            let name = json["active"]?["name"]?.string,
            let file = json["active"]?["file"]?.string
        else { throw broken("active") }
        let capabilities = try (json["capabilities"]?.array ?? []).map { pair -> Capability in
            guard let name = pair.array?.first?.string,
                let effect = pair.array?.last?.string.flatMap(EffectClass.init(rawValue:))
            else { throw broken("capabilities") }
            return Capability(name: name, effect: effect)
        }
        let rules = try (json["rules"]?.array ?? []).map { rule -> RuleRecord in
            guard let record = RuleRecord(json: rule) else { throw broken("rules") }
            return record
        }
        var zones: [String: TimeZoneTable] = [:]
        for member in json["zones"]?.object?.members ?? [] {
            guard let table = TimeZoneTable(name: member.key, json: member.value) else { throw broken("zones") }
            zones[member.key] = table
        }
        func index(_ value: JSONValue?, below bound: Int, _ what: String) throws -> Int {
            guard let number = value?.int, number >= 0, number < Int64(bound) else { throw broken(what) }
            return Int(number)
        }
        guard let tableForms = json["tables"]?.array, let tightenOnly = json["tighten_only"]?.bool,
            let grants = json["grants"]?.bool
        else { throw broken("tables") }
        let organisation = try index(json["organisation"], below: tableForms.count, "organisation")
        let system = try (json["system"]?.array ?? []).map { try index($0, below: tableForms.count, "system") }
        var texts = ConditionSources()
        var tables: [RuleTable] = []
        for (place, form) in tableForms.enumerated() {
            guard let chainForms = form["chains"]?.array, let of = form["of"]?.array, of.count == capabilities.count,
                let title = form["title"]?.string
            else { throw broken("tables") }
            let chains = try chainForms.map { chain in
                try (chain.array ?? []).map { Int32(try index($0, below: rules.count, "chains")) }
            }
            let perCapability = try of.map { chains[try index($0, below: chains.count, "of")] }
            let binding = system.contains(place) || place == organisation && tightenOnly
            tables.append(
                RuleTable(
                    chains: perCapability, title: title, records: rules, tightenOnly: binding, zones: zones,
                    texts: &texts))
        }
        var agents: [String: AgentLayer] = [:]
        for member in json["agents"]?.object?.members ?? [] {
            agents[member.key] = AgentLayer(
                own: try index(member.value["own"], below: tables.count, "agents"),
                tightening: try (member.value["tightening"]?.array ?? []).map {
                    try index($0, below: tables.count, "agents")
                }, role: member.value["role"]?.string, mode: member.value["mode"]?.string.flatMap(Mode.init(name:)),
                maxPending: member.value["max_pending"]?.int)
        }
        func diagnostics(_ json: JSONValue?) throws -> [PolicyDiagnostic] {
            try (json?.array ?? []).map {
                guard let diagnostic = PolicyDiagnostic(json: $0) else { throw broken("diagnostics") }
                return diagnostic
            }
        }
        let brokenAgents = try (json["broken"]?.object?.members ?? []).map {
            ($0.key, PolicyErrors(try diagnostics($0.value)))
        }
        let roles = try (json["roles"]?.object?.members ?? []).map { member in
            guard let mode = member.value.string.flatMap(Mode.init(name:)) else { throw broken("roles") }
            return (member.key, mode)
        }
        let notifiers = try (json["notifiers"]?.array ?? []).map { value in
            guard let settings = value.object.flatMap(NotifierSettings.init(json:)) else { throw broken("notifiers") }
            return settings
        }
        let links = json["links"]?["base_url"]?.string.map {
            LinkSettings(baseURL: $0, validSeconds: json["links"]?["valid_for"]?.int ?? 0)
        }
        self.init(
            source: source, active: Active(name: name, file: file, description: json["active"]?["description"]?.string),
            capabilities: capabilities, rules: rules, warnings: try diagnostics(json["warnings"]),
            brokenAgents: Dictionary(brokenAgents, uniquingKeysWith: { first, _ in first }), tightenOnly: tightenOnly,
            grantsAllowed: grants, maxPending: json["max_pending"]?.int,
            notifiers: notifiers, links: links, protected: (json["protected"]?.array ?? []).compactMap(\.string),
            roles: Dictionary(roles, uniquingKeysWith: { first, _ in first }),
            zones: zones,
            tables: tables, system: system, organisation: organisation, agents: agents, conditionSources: texts.sources,
            catalogue: catalogue)
    }
}

extension CompiledPolicy.RuleRecord {
    fileprivate var json: JSONObject {
        var json: JSONObject = [
            "layer": .string(layer.rawValue), "document": .string(document), "pattern": .string(pattern),
            "tier": .string(tier.name),
            "at": [.string(location.file), .int(Int64(location.line)), .int(Int64(location.column))],
            "tier_at": [.int(Int64(tierLocation.line)), .int(Int64(tierLocation.column))],
        ]
        if let reason { json["reason"] = .string(reason) }
        if locked { json["locked"] = true }
        if isDefault { json["default"] = true }
        if !conditions.isEmpty { json["conditions"] = .array(conditions.map { .object($0.source) }) }
        if let limit = rateLimit {
            json["rate"] = [.int(limit.max), .int(limit.windowSeconds), .string(limit.onExceed.name)]
        }
        if let approval { json["terms"] = .object(approval.json) }
        if let sandbox { json["sandbox"] = .object(sandbox.json) }
        return json
    }

    fileprivate init?(json: JSONValue) {
        guard let layer = json["layer"]?.string.flatMap(PolicyLayer.init(rawValue:)),
            let document = json["document"]?.string, let pattern = json["pattern"]?.string,
            let tier = json["tier"]?.string.flatMap(Tier.init(name:)), let at = json["at"]?.array, at.count == 3,
            let file = at[0].string, let line = at[1].int, let column = at[2].int,
            let tierAt = json["tier_at"]?.array, tierAt.count == 2, let tierLine = tierAt[0].int,
            let tierColumn = tierAt[1].int
        else { return nil }
        let location = SourceLocation(file: file, line: Int(line), column: Int(column))
        var conditions: [Condition] = []
        if let written = json["conditions"]?.array {
            var reader = NodeReader()
            conditions = reader.conditions(YAMLNode(json: .array(written), at: location), "conditions")
            guard reader.mistakes.isEmpty, conditions.count == written.count else { return nil }
        }
        var limit: RateLimit?
        if let rate = json["rate"]?.array {
            guard rate.count == 3, let max = rate[0].int, let window = rate[1].int,
                let tier = rate[2].string.flatMap(Tier.init(name:))
            else { return nil }
            limit = RateLimit(max: max, windowSeconds: window, onExceed: tier)
        }
        self.init(
            layer: layer, document: document, pattern: pattern, tier: tier, reason: json["reason"]?.string,
            locked: json["locked"]?.bool ?? false, isDefault: json["default"]?.bool ?? false, location: location,
            tierLocation: SourceLocation(file: file, line: Int(tierLine), column: Int(tierColumn)),
            conditions: conditions, rateLimit: limit,
            approval: json["terms"]?.object.map(ApprovalTerms.init(json:)),
            sandbox: json["sandbox"]?.object.map(SandboxSettings.init(json:)))
    }
}

extension PolicyDiagnostic {
    fileprivate var json: JSONValue {
        [
            .string(location.file), .int(Int64(location.line)), .int(Int64(location.column)), .string(message),
            .optional(hint),
        ]
    }

    fileprivate init?(json: JSONValue) {
        guard let parts = json.array, parts.count == 5, let file = parts[0].string, let line = parts[1].int,
            let column = parts[2].int, let message = parts[3].string
        else { return nil }
        self.init(
            SourceLocation(file: file, line: Int(line), column: Int(column)), message, hint: parts[4].string)
    }
}
