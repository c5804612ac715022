import KruxCapabilities
import KruxCore
import KruxPolicies
import KruxPolicy
import KruxRegistry

/// What `config validate` says of a file that compiles.
struct PolicyReport {
    let text: String
    let json: JSONValue

    /// The bundle with a file in it: in its layer and in the place of whatever has its name.
    /// - Throws: `PolicyErrors` for a file that cannot be read.
    static func bundle(file: String, text: [UInt8], in bundle: PolicyBundle) throws -> PolicyBundle {
        let parts = file.split(separator: "/").map(String.init)
        let name = parts.last ?? file
        let document = try PolicyDocumentReader.read(text, file: name).get()
        var bundle = bundle
        if let agent = agent(parts, document) {
            let shown = "agents/\(name)"
            bundle.agents[agent] = PolicySource(file: shown, text: text)
            return TimeZones.resolved(bundle)
        }
        let source = PolicySource(file: name, text: text)
        switch name {
        case "requirements.yaml": bundle.requirements = [source]
        case "org.yaml": bundle.organisation = source
        default:
            bundle.policies.removeAll { other in
                other.file.utf8Equals(name)
                    || (try? PolicyDocumentReader.read(other.text, file: other.file).get())?.name == document.name
            }
            bundle.policies.append(source)
            bundle.active = document.name
        }
        return TimeZones.resolved(bundle)
    }

    /// The agent whose own document this is: by its folder or by its `agent:`.
    private static func agent(_ path: [String], _ document: PolicyDocument) -> String? {
        if path.dropLast().last == "agents" { return path.last.map { String($0.prefix { $0 != "." }) } }
        return document.agent?.value
    }

    /// The policies that come with the binary, where there is no home.
    static var templates: PolicyBundle {
        PolicyBundle(
            system: PolicySource(file: "system.yaml", text: BuiltInPolicies.system), active: "personal-permissive",
            policies: BuiltInPolicies.templates.map { PolicySource(file: $0.file, text: $0.text) })
    }

    /// The default of the policies that a document extends.
    private static func inheritedDefault(_ document: PolicyDocument, _ bundle: PolicyBundle) -> Tier? {
        let library = bundle.policies.compactMap { try? PolicyDocumentReader.read($0.text, file: $0.file).get() }
        var next = document.extends?.value
        for _ in library.indices {
            guard let parent = library.first(where: { $0.name.utf8Equals(next ?? "") }) else { return nil }
            if let defaults = parent.defaults { return defaults.tier }
            next = parent.extends?.value
        }
        return nil
    }

    /// - Parameter folder: where `extends` and the agents' files are found, if there is a home.
    /// - Throws: `PolicyErrors`.
    init(file: String, text source: [UInt8], folder: PolicyFolder?) throws {
        let parts = file.split(separator: "/").map(String.init)
        let name = parts.last ?? file
        let document = try PolicyDocumentReader.read(source, file: name).get()
        let templates = Self.templates
        var base = templates
        if let folder, let files = try? folder.bundle(active: templates.active, system: BuiltInPolicies.system) {
            base = files
            for template in templates.policies where base.source(template.file) == nil {
                base.policies.append(template)
            }
        }
        let agent = Self.agent(parts, document)
        if agent == nil { base.organisation = nil }
        let bundle = try Self.bundle(file: file, text: source, in: base)
        let compiled = try PolicyCompiler.compile(bundle, catalogue: Capabilities.catalogue)
        if let agent, let errors = compiled.brokenAgents[agent] { throw errors }

        let names = Capabilities.catalogue.names
        let rules = document.list + document.map
        let explicit = Set(names.filter { name in rules.contains { $0.pattern.matches(name) } })
        let complete = document.defaults != nil || document.extends != nil
        let covered = complete ? names.count : explicit.count
        let defaults = document.defaults?.tier ?? Self.inheritedDefault(document, bundle)
        let agents = agent == nil ? bundle.agents.keys.sorted() : []
        let limited = rules.filter { $0.rateLimit != nil }.map(\.pattern.text)
        var warnings = compiled.warnings.filter { $0.location.file == name || $0.location.file == "agents/\(name)" }
            .map(\.description)
        if agent == nil, document.extends == nil {
            let categories = Set(names.map { String($0.prefix { $0 != "." }) }).sorted()
            for category in categories where !explicit.contains(where: { $0.hasPrefix(category + ".") }) {
                let fallback = document.defaults.map { "default: \($0.tier.name)" } ?? "no default: blocked"
                warnings.append("No explicit rule for \(category).* (using \(fallback))")
            }
        }
        func counted(_ names: [String]) -> String {
            "\(names.count)" + (names.isEmpty ? "" : " (\(names.joined(separator: ", ")))")
        }
        var lines = [
            "Policy '\(document.name)' is valid.", "", "  Capabilities covered: \(covered)/\(names.count)",
            "  Default tier: \(defaults?.name ?? (agent == nil ? "none (blocked)" : "none"))",
            "  Agent overrides: \(counted(agents))", "  Rate limits: \(counted(limited))",
        ]
        if !warnings.isEmpty { lines += ["", "  Warnings:"] + warnings.map { "    - \($0)" } }
        text = lines.map(Console.visible).joined(separator: "\n")
        json = [
            "file": .string(file), "name": .string(document.name), "valid": true, "covered": .int(Int64(covered)),
            "capabilities": .int(Int64(names.count)), "default_tier": .optional(defaults?.name),
            "agents": .strings(agents), "rate_limits": .strings(limited), "warnings": .strings(warnings),
        ]
    }
}
