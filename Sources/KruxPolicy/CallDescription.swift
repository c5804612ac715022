package import KruxCore

/// A call as somebody describes it, without a workspace to look into: paths are made absolute and their `.` and `..`
/// are taken away by their text alone.
package struct CallDescription: Sendable {
    package let arguments: JSONObject
    /// Whether every argument that the capability needs is there, so that what is missing is absent.
    package let isComplete: Bool

    package init(agent: String, declaration: CapabilityDeclaration, arguments: JSONObject) {
        let (filled, violations) = declaration.input.validate(arguments)
        isComplete = violations.isEmpty
        // A default stands for a decision only when the call is one.
        var result = isComplete ? filled : arguments
        for property in declaration.input.properties {
            switch property.role {
            case .path, .workingDirectory:
                guard let text = result[property.name]?.string else { continue }
                result[property.name] = .string(Self.canonical(text, agent: agent))
            default: continue
            }
        }
        self.arguments = result
    }

    private static func canonical(_ text: String, agent: String) -> String {
        let absolute = text.isAbsolutePath ? text : "/workspace/\(agent)/\(text)"
        var components: [String] = []
        for component in absolute.pathComponents {
            switch component {
            case ".": continue
            case "..": _ = components.popLast()
            default: components.append(component)
            }
        }
        return "/" + components.joined(separator: "/")
    }
}
