import Foundation
import KruxCore
package import KruxPolicy

/// The policy files of a home: templates and custom policies, `org.yaml`, `requirements.yaml`, `agents/<name>.yaml`;
/// and the machine's `/etc/kruxos/requirements.yaml`, which holds for every home.
package struct PolicyFolder: Sendable {
    package let path: String
    /// An administrator's file above every home, if there is one.
    private let requirements: String?

    package init(path: String, requirements: String? = "/etc/kruxos/requirements.yaml") {
        self.path = path
        self.requirements = requirements
    }

    /// Writes the templates that are not there yet into a fresh folder.
    package func create(templates: [(file: String, text: [UInt8])]) throws {
        for folder in [path, path + "/agents"] {
            if mkdir(folder, 0o700) != 0, errno != EEXIST { throw failure(folder) }
        }
        for template in templates {
            let file = "\(path)/\(template.file)"
            let descriptor = open(file, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0o600)
            if descriptor < 0 {
                if errno == EEXIST { continue }
                throw failure(file)
            }
            defer { close(descriptor) }
            guard write(descriptor, template.text, template.text.count) == template.text.count else {
                throw failure(file)
            }
        }
    }

    /// Everything a decision depends on, as the files stand now.
    /// - Throws: `StructuredError` when a file cannot be read: a policy that is there but unreadable is no policy.
    package func bundle(active: String, system: [UInt8]) throws -> PolicyBundle {
        var policies: [PolicySource] = []
        var organisation: PolicySource?
        var required: [PolicySource] = []
        if let requirements, access(requirements, F_OK) == 0 {
            required.append(PolicySource(file: requirements, text: try read(requirements)))
        }
        for name in try yamlFiles(path) {
            let source = PolicySource(file: name, text: try read("\(path)/\(name)"))
            switch name {
            case "org.yaml": organisation = source
            case "requirements.yaml": required.append(source)
            default: policies.append(source)
            }
        }
        var agents: [String: PolicySource] = [:]
        for name in try yamlFiles(path + "/agents") {
            let stem = String(name.split(separator: ".")[0])
            agents[stem] = PolicySource(file: "agents/\(name)", text: try read("\(path)/agents/\(name)"))
        }
        return PolicyBundle(
            system: PolicySource(file: "system.yaml", text: system), requirements: required,
            organisation: organisation, active: active, policies: policies, agents: agents)
    }

    /// `*.yaml` and `*.yml`, by name; editors' swap and backup files are not policies.
    private func yamlFiles(_ folder: String) throws -> [String] {
        guard access(folder, F_OK) == 0 else { return [] }
        let names: [String]
        do { names = try FileManager.default.contentsOfDirectory(atPath: folder) } catch { throw failure(folder) }
        return names.filter { ($0.hasSuffix(".yaml") || $0.hasSuffix(".yml")) && !$0.hasPrefix(".") }.sorted()
    }

    private func read(_ file: String) throws -> [UInt8] {
        guard let data = FileManager.default.contents(atPath: file) else { throw failure(file) }
        // The reader refuses what is too long or no UTF-8, with a place; a bundle holds text, so it is checked here too.
        guard data.count <= 1 << 20, String(validating: data, as: UTF8.self) != nil else {
            throw StructuredError(
                .invalidRequest, "`\(file)` is over 1 MiB or no UTF-8 text", recovery: ["Save it as UTF-8 text."])
        }
        return [UInt8](data)
    }

    private func failure(_ file: String) -> StructuredError {
        StructuredError(
            .ioFailure, "`\(file)`: \(String(cString: strerror(errno)))",
            recovery: ["Check that the file exists and that you may read it."])
    }
}
