import Foundation
package import KruxCore

package struct FilesystemCopy: Capability {
    package static let declaration = CapabilityDeclaration(
        "filesystem.copy", "Copies a file, or a folder with all that is in it.",
        whenToUse: "To keep the original; use filesystem.move to rename.", effect: .write,
        sideEffects: ["creates or replaces the destination"], tier: .notify,
        input: [
            .required(
                "source", .path, "What to copy.",
                role: .path(followsLast: true, reach: .belowWhen("recursive"))),
            .required(
                "destination", .path, "The new path itself, not the folder to put it in.",
                role: .path(followsLast: true, reach: .belowWhen("recursive"))),
            .optional("overwrite", .boolean, "Whether an existing file may be replaced.", default: false),
            .optional("recursive", .boolean, "Whether to copy a folder.", default: false),
        ],
        output: [
            .required("source", .text, "The canonical source."),
            .required("destination", .text, "The canonical destination."),
            .required("files", .count, "Files copied."),
            .required("bytes", .count, "Bytes copied."),
            .required("skipped", .count, "Symbolic links and special files left out."),
        ], errors: [FileSchema.missing, FileSchema.exists, FileSchema.outside, FileSchema.wrongType, FileSchema.full])

    package struct Input: CapabilityInput {
        let source: String, destination: String, overwrite: Bool, recursive: Bool

        package init(_ arguments: Arguments) throws(StructuredError) {
            source = try arguments.text("source")
            destination = try arguments.text("destination")
            overwrite = try arguments.bool("overwrite")
            recursive = try arguments.bool("recursive")
        }
    }

    package struct Output: CapabilityOutput {
        let source: String, destination: String
        var files: Int64 = 0
        var bytes: Int64 = 0
        var skipped: Int64 = 0

        package var json: JSONObject {
            [
                "source": .string(source), "destination": .string(destination), "files": .int(files),
                "bytes": .int(bytes), "skipped": .int(skipped),
            ]
        }
    }

    package func run(_ input: Input, _ context: CallContext) async throws(StructuredError) -> Output {
        let workspace = context.workspace
        let source = try workspace.place(input.source)
        let destination = try workspace.place(input.destination)
        try workspace.requireSameProtection(source, destination, keepsSource: true, context.protected)
        var output = Output(source: source.absolute, destination: destination.absolute)
        guard let status = try workspace.status(source) else { throw FileFailure.error(ENOENT, source.absolute) }
        guard status.st_mode & S_IFMT == S_IFDIR else {
            output.bytes = try workspace.copyFile(source, destination, replace: input.overwrite)
            output.files = 1
            return output
        }
        guard input.recursive else {
            throw StructuredError(
                .wrongType, "`\(source.absolute)` is a directory", recovery: ["Pass recursive: true to copy it."])
        }
        if source.root === destination.root,
            destination.components.count >= source.components.count,
            zip(destination.components, source.components).allSatisfy({ $0.utf8Equals($1) })
        {
            throw StructuredError(
                .invalidArguments, "a folder cannot be copied into itself", recovery: ["Name a destination outside it."]
            )
        }
        try workspace.makeFolders(destination)
        try workspace.walk(source, depth: Workspace.deepest) { entry throws(StructuredError) in
            let below = entry.path.components.dropFirst(source.components.count)
            let target = Workspace.Path(destination.root, destination.components + below)
            // A copy of a whole folder may hold such a place; one that is there already is not written over.
            if context.protected.place(target.components) != nil, entry.kind != "directory",
                try workspace.status(target) != nil
            {
                throw Workspace.isProtected(target)
            }
            switch entry.kind {
            case "directory": try workspace.makeFolders(target)
            case "file":
                output.bytes += try workspace.copyFile(entry.path, target, replace: input.overwrite)
                output.files += 1
            default: output.skipped += 1
            }
            return true
        }
        return output
    }

    package func binding(_ input: Input, _ context: CallContext) throws(StructuredError) -> JSONObject {
        let workspace = context.workspace
        return try workspace.binding([try workspace.place(input.source), try workspace.place(input.destination)])
    }

    package func preview(_ input: Input, _ context: CallContext) throws(StructuredError) -> Preview {
        let destination = try context.workspace.place(input.destination)
        let replaced = input.overwrite ? try context.workspace.status(destination) : nil
        return try context.workspace.preview(
            "Copies", try context.workspace.place(input.source),
            suffix: " to \(destination.absolute)" + (replaced == nil ? "" : ", replacing what is there"))
    }
}
