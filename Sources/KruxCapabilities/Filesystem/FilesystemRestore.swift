package import KruxCore

package struct FilesystemRestore: Capability {
    package static let declaration = CapabilityDeclaration(
        "filesystem.restore", "Brings a deleted file or folder back.",
        whenToUse: "After filesystem.delete, with the trash_id it returned.", effect: .write,
        sideEffects: ["the file or folder is back", "the trash no longer holds it"], tier: .notify,
        input: [
            .required("trash_id", .string(minLength: 1, maxLength: 64), "What filesystem.delete returned."),
            .optional(
                "path", .path, "Where to put it; where it came from if absent.",
                role: .path(followsLast: false, reach: .below)),
        ],
        output: [
            .required("path", .text, "Where it is now."), .required("trash_id", .text, "The id it had in the trash."),
        ], errors: [FileSchema.missing, FileSchema.exists, FileSchema.outside])

    package struct Input: CapabilityInput {
        let trashID: String, path: String?

        package init(_ arguments: Arguments) throws(StructuredError) {
            trashID = try arguments.text("trash_id")
            path = arguments.optionalText("path")
        }
    }

    package struct Output: CapabilityOutput {
        let path: String, trashID: String
        package var json: JSONObject { ["path": .string(path), "trash_id": .string(trashID)] }
    }

    package func run(_ input: Input, _ context: CallContext) async throws(StructuredError) -> Output {
        let trash = Trash(workspace: context.workspace)
        let destination: Workspace.Path
        let origin = try trash.origin(input.trashID)
        destination = try context.workspace.place(input.path ?? origin)
        try context.workspace.requireChangeable(destination, isFolder: true, context.protected)
        if context.protected.leads(destination.components), !destination.absolute.utf8Equals(origin) {
            throw Workspace.isProtected(destination)
        }
        try context.protectedFiles.undisturbed { () throws(StructuredError) in
            try trash.restore(input.trashID, to: destination)
        }
        return Output(path: destination.absolute, trashID: input.trashID)
    }
}
