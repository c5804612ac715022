import KruxCapabilities
import KruxCore
import KruxPolicies
import KruxPolicy
import KruxRegistry

/// What `config validate` says of a file that compiles.
struct PolicyReport {
    let text: String

    /// - Parameter folder: where `extends` and the agents' files are found, if there is a home.
    /// - Throws: `PolicyErrors`.
    init(file: String, text source: [UInt8], folder: PolicyFolder?) throws {
        let name = file.split(separator: "/").last.map(String.init) ?? file
        let document = try PolicyDocumentReader.read(source, file: name).get()
        var bundle =
            (try? folder?.bundle(active: document.name, system: BuiltInPolicies.system))
            ?? PolicyBundle(
                system: PolicySource(file: "system.yaml", text: BuiltInPolicies.system), active: document.name,
                policies: BuiltInPolicies.templates.map { PolicySource(file: $0.file, text: $0.text) })
        bundle.organisation = nil
        bundle.policies.removeAll { other in
            other.file == name
                || (try? PolicyDocumentReader.read(other.text, file: other.file).get())?.name == document.name
        }
        bundle.policies.append(PolicySource(file: name, text: source))
        let compiled = try PolicyCompiler.compile(bundle, catalogue: Capabilities.catalogue)

        let names = Capabilities.catalogue.names
        let explicit = Set(
            names.filter { name in (document.list + document.map).contains { $0.pattern.matches(name) } })
        let covered = document.defaults == nil && document.extends == nil ? explicit.count : names.count
        let agents = bundle.agents.keys.sorted()
        var lines = [
            "Policy '\(document.name)' is valid.", "", "  Capabilities covered: \(covered)/\(names.count)",
            "  Default tier: \(document.defaults?.tier.name ?? "none (blocked)")",
            "  Agent overrides: \(agents.count)" + (agents.isEmpty ? "" : " (\(agents.joined(separator: ", ")))"),
            "  Rate limits: 0",
        ]
        var warnings = compiled.warnings.filter { $0.location.file == name }.map(\.description)
        if document.extends == nil {
            let categories = Set(names.map { String($0.prefix { $0 != "." }) }).sorted()
            for category in categories where !explicit.contains(where: { $0.hasPrefix(category + ".") }) {
                let fallback = document.defaults.map { "default: \($0.tier.name)" } ?? "no default: blocked"
                warnings.append("No explicit rule for \(category).* (using \(fallback))")
            }
        }
        if !warnings.isEmpty { lines += ["", "  Warnings:"] + warnings.map { "    - \($0)" } }
        text = lines.joined(separator: "\n")
    }
}
