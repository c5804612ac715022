import Foundation
package import KruxCore

package struct FilesystemMkdir: Capability {
    package static let declaration = CapabilityDeclaration(
        "filesystem.mkdir", "Makes a folder.", whenToUse: "Before writing into a folder that is not there yet.",
        effect: .write, sideEffects: ["creates folders"], tier: .notify,
        input: [
            FileSchema.path("The folder to make."),
            .optional(
                "parents", .boolean, "Make missing folders above it, and accept one that exists.", default: false),
        ],
        output: [
            .required("path", .text, "The canonical path."),
            .required("created", .count, "How many folders were made."),
        ], errors: [FileSchema.outside, FileSchema.exists, FileSchema.missing])

    package struct Input: CapabilityInput {
        let path: String, parents: Bool

        package init(_ arguments: Arguments) throws(StructuredError) {
            path = try arguments.text("path")
            parents = try arguments.bool("parents")
        }
    }

    package struct Output: CapabilityOutput {
        let path: String, created: Int
        package var json: JSONObject { ["path": .string(path), "created": .int(Int64(created))] }
    }

    package func run(_ input: Input, _ context: CallContext) async throws(StructuredError) -> Output {
        let path = try context.workspace.place(input.path)
        try context.workspace.requireChangeable(path, isFolder: true, context.protected)
        if input.parents { return Output(path: path.absolute, created: try context.workspace.makeFolders(path)) }
        let parent = try context.workspace.openParent(path)
        defer { close(parent) }
        try context.workspace.charge(path, bytes: 0, files: 1)
        guard mkdirat(parent, path.name, 0o755) == 0 else { throw FileFailure.error(errno, path.absolute) }
        try context.workspace.adopt(path, in: parent)
        return Output(path: path.absolute, created: 1)
    }
}
