import KruxCore

/// Schema parts and errors that the file capabilities share.
enum FileSchema {
    static func path(_ description: String, followsLast: Bool = true, reach: PathReach = .itself) -> Property {
        .required("path", .path, description, role: .path(followsLast: followsLast, reach: reach))
    }

    static let entry: ObjectSchema = [
        .required("path", .text, "Absolute path in the workspace."),
        .required("name", .text, "Name within its folder."),
        .required("type", .choice(["file", "directory", "symlink", "other"]), "What it is."),
        .required("size", .count, "Bytes."),
        .required("modified", .text, "RFC 3339 time of the last change of its content."),
    ]

    static let missing = CapabilityDeclaration.DeclaredError(
        .notFound, when: "nothing is at the path", recovery: "find it with filesystem.search")
    static let outside = CapabilityDeclaration.DeclaredError(
        .outsideWorkspace, when: "the path leaves the workspace", recovery: "use a path under the workspace")
    static let exists = CapabilityDeclaration.DeclaredError(
        .alreadyExists, when: "something is there already", recovery: "choose another name or pass overwrite")
    static let wrongType = CapabilityDeclaration.DeclaredError(
        .wrongType, when: "it is not a regular file, or not text", recovery: "name a file, or ask for base64")
    static let full = CapabilityDeclaration.DeclaredError(
        .storageFull, when: "the disk is full", recovery: "delete what is not needed")
}
