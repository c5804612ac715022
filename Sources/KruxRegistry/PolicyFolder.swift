import Foundation
package import KruxCore
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
    package func create(templates: [(file: String, text: [UInt8])], suites: [(file: String, text: [UInt8])]) throws {
        for folder in [path, path + "/agents", path + "/suites"] {
            if mkdir(folder, 0o700) != 0, errno != EEXIST { throw failure(folder) }
        }
        for template in templates + suites.map({ (file: "suites/\($0.file)", text: $0.text) }) {
            let file = "\(path)/\(template.file)"
            // A file that somebody emptied stays empty; a crash leaves all of one or nothing.
            if access(file, F_OK) != 0 { try save(file, template.text) }
        }
    }

    /// The folders in which a change may change a decision.
    package var watched: [String] {
        [path, path + "/agents"] + (requirements.map { [($0 as NSString).deletingLastPathComponent] } ?? [])
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
            let stem = (name as NSString).deletingPathExtension
            guard AgentName(stem) != nil else {
                throw StructuredError(
                    .invalidRequest, "`agents/\(name)` is named for no agent",
                    recovery: ["Rename it to the agent's name and `.yaml`, or move it out of the folder."])
            }
            if let twin = agents[stem] {
                throw StructuredError(
                    .invalidRequest, "`agents/\(name)` and `\(twin.file)` are both for the agent `\(stem)`",
                    recovery: ["Keep one of them in the folder."])
            }
            agents[stem] = PolicySource(file: "agents/\(name)", text: try read("\(path)/agents/\(name)"))
        }
        return TimeZones.resolved(
            PolicyBundle(
                system: PolicySource(file: "system.yaml", text: system), requirements: required,
                organisation: organisation, active: active, policies: policies, agents: agents))
    }

    /// Makes the files what `bundle` says, except the machine's own. What they were before is kept in
    /// `.replaced/<time>/`.
    /// - Returns: the files that were changed or put aside.
    package func write(_ bundle: PolicyBundle, now: Timestamp) throws -> [String] {
        var wanted: [String: [UInt8]] = [:]
        for source in bundle.policies + bundle.requirements + (bundle.organisation.map { [$0] } ?? []) {
            if !source.file.isAbsolutePath { wanted[source.file] = source.text }
        }
        for source in bundle.agents.values { wanted[source.file] = source.text }
        var found: [String: [UInt8]] = [:]
        for name in try yamlFiles(path) { found[name] = try read("\(path)/\(name)") }
        for name in try yamlFiles(path + "/agents") { found["agents/\(name)"] = try read("\(path)/agents/\(name)") }
        let changed = Set(wanted.keys).union(found.keys).filter { wanted[$0] != found[$0] }.sorted()
        if changed.isEmpty { return [] }
        let aside = "\(path)/.replaced/\(now.rfc3339)"
        for folder in ["\(path)/.replaced", aside, aside + "/agents", path + "/agents"] {
            if mkdir(folder, 0o700) != 0, errno != EEXIST { throw failure(folder) }
        }
        for name in changed {
            if let before = found[name] { try save("\(aside)/\(name)", before) }
            if let text = wanted[name] {
                try save("\(path)/\(name)", text)
            } else if unlink("\(path)/\(name)") != 0 {
                throw failure("\(path)/\(name)")
            }
        }
        return changed
    }

    /// Whole or not at all: written beside, made durable, renamed into place.
    private func save(_ file: String, _ text: [UInt8]) throws {
        let folder = (file as NSString).deletingLastPathComponent
        let beside = "\(folder)/.\((file as NSString).lastPathComponent).new"
        let descriptor = open(beside, O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW | O_CLOEXEC, 0o600)
        guard descriptor >= 0 else { throw failure(beside) }
        var rest = text[...]
        while !rest.isEmpty {
            let count = rest.withUnsafeBytes { Foundation.write(descriptor, $0.baseAddress, $0.count) }
            if count < 0, errno == EINTR { continue }
            guard count > 0 else {
                let error = failure(beside)
                close(descriptor)
                throw error
            }
            rest = rest.dropFirst(count)
        }
        let synced = fsync(descriptor) == 0
        close(descriptor)
        guard synced, rename(beside, file) == 0 else { throw failure(file) }
    }

    /// `*.yaml` and `*.yml`, by name; editors' swap and backup files are not policies.
    private func yamlFiles(_ folder: String) throws -> [String] {
        guard access(folder, F_OK) == 0 else { return [] }
        let names: [String]
        do { names = try FileManager.default.contentsOfDirectory(atPath: folder) } catch { throw failure(folder) }
        return names.filter { ($0.hasSuffix(".yaml") || $0.hasSuffix(".yml")) && !$0.hasPrefix(".") }.sorted()
    }

    private func read(_ file: String) throws -> [UInt8] {
        // Not blocking, so that a pipe without a writer is no trap.
        let descriptor = open(file, O_RDONLY | O_CLOEXEC | O_NONBLOCK)
        guard descriptor >= 0 else { throw failure(file) }
        defer { close(descriptor) }
        var status = stat()
        guard fstat(descriptor, &status) == 0 else { throw failure(file) }
        guard status.st_mode & S_IFMT == S_IFREG else {
            throw StructuredError(
                .ioFailure, "`\(file)` is no ordinary file", recovery: ["Move it out of the policies folder."])
        }
        var data: [UInt8] = []
        var chunk = [UInt8](repeating: 0, count: 64 << 10)
        while data.count <= 1 << 20 {
            let count = chunk.withUnsafeMutableBytes { Foundation.read(descriptor, $0.baseAddress, $0.count) }
            if count < 0, errno == EINTR { continue }
            if count < 0 { throw failure(file) }
            if count == 0 { break }
            data += chunk[..<count]
        }
        // The reader refuses what is too long or no UTF-8, with a place; a bundle holds text, so it is checked here too.
        guard data.count <= 1 << 20, String(validating: data, as: UTF8.self) != nil else {
            throw StructuredError(
                .invalidRequest, "`\(file)` is over 1 MiB or no UTF-8 text", recovery: ["Save it as UTF-8 text."])
        }
        return data
    }

    private func failure(_ file: String) -> StructuredError {
        StructuredError(
            .ioFailure, "`\(file)`: \(String(cString: strerror(errno)))",
            recovery: ["Check that the file exists and that you may read it."])
    }
}
