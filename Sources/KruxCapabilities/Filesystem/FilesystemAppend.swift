import Foundation
package import KruxCore

package struct FilesystemAppend: Capability {
    package static let declaration = CapabilityDeclaration(
        "filesystem.append", "Adds to the end of a file, creating it if needed.",
        whenToUse: "For logs and notes that grow; use filesystem.write to replace a file.", effect: .write,
        sideEffects: ["extends or creates the file"], tier: .notify,
        input: ObjectSchema([FileSchema.path("The file to extend.")] + Content.properties),
        output: [
            .required("path", .text, "The canonical path."),
            .required("bytes", .count, "Bytes added."),
            .required("size", .count, "Bytes of the file afterwards."),
        ], errors: [FileSchema.outside, FileSchema.wrongType, FileSchema.full, FileSchema.missing])

    package struct Input: CapabilityInput {
        let path: String, content: Content

        package init(_ arguments: Arguments) throws(StructuredError) {
            path = try arguments.text("path")
            content = try Content(arguments)
        }
    }

    package struct Output: CapabilityOutput {
        let path: String, bytes: Int, size: Int64

        package var json: JSONObject {
            ["path": .string(path), "bytes": .int(Int64(bytes)), "size": .int(size)]
        }
    }

    package func run(_ input: Input, _ context: CallContext) async throws(StructuredError) -> Output {
        let path = try context.workspace.place(input.path)
        try context.workspace.requireChangeable(path, context.protected)
        let isNew = try context.workspace.status(path) == nil
        try context.workspace.charge(path, bytes: Int64(input.content.bytes.count), files: isNew ? 1 : 0)
        let (descriptor, _) = try context.workspace.openFile(path, O_WRONLY | O_APPEND | O_CREAT, mode: 0o644)
        defer { close(descriptor) }
        if isNew, path.root.mount != nil {
            let parent = try context.workspace.openParent(path)
            defer { close(parent) }
            try context.workspace.adopt(descriptor, path, in: parent)
        }
        try Workspace.writeAll(descriptor, input.content.bytes[...], path.absolute)
        var status = stat()
        guard fstat(descriptor, &status) == 0 else { throw FileFailure.error(errno, path.absolute) }
        return Output(path: path.absolute, bytes: input.content.bytes.count, size: Int64(status.st_size))
    }

    package func preview(_ input: Input, _ context: CallContext) throws(StructuredError) -> Preview {
        try context.workspace.preview(
            writing: input.content.bytes, to: try context.workspace.place(input.path), appending: true, context.scrub)
    }
}
