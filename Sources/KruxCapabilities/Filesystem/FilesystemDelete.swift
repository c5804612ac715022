import Foundation
package import KruxCore

package struct FilesystemDelete: Capability {
    package static let declaration = CapabilityDeclaration(
        "filesystem.delete", "Moves a file or folder to the agent's trash.",
        whenToUse: "To remove something; filesystem.restore brings it back.", effect: .destructive,
        sideEffects: ["the path is gone from the workspace", "the trash holds what was there"],
        tier: .approvalRequired,
        input: [
            FileSchema.path(
                "What to delete; a symbolic link is deleted itself.", followsLast: false, reach: .belowWhen("recursive")
            ),
            .optional("recursive", .boolean, "Whether a folder with something in it may go.", default: false),
        ],
        output: [
            .required("path", .text, "The canonical path that is gone."),
            .required("type", .choice(["file", "directory", "symlink", "other"]), "What it was."),
            .required("trash_id", .text, "What filesystem.restore needs."),
        ],
        errors: [
            FileSchema.missing, FileSchema.outside,
            .init(.conflict, when: "the folder is not empty", recovery: "pass recursive"),
        ])

    package struct Input: CapabilityInput {
        let path: String, recursive: Bool

        package init(_ arguments: Arguments) throws(StructuredError) {
            path = try arguments.text("path")
            recursive = try arguments.bool("recursive")
        }
    }

    package struct Output: CapabilityOutput {
        let path: String, kind: String, trashID: String
        package var json: JSONObject {
            ["path": .string(path), "type": .string(kind), "trash_id": .string(trashID)]
        }
    }

    package func run(_ input: Input, _ context: CallContext) async throws(StructuredError) -> Output {
        let path = try context.workspace.place(input.path)
        try context.workspace.requireRemovable(path, context.protected)
        guard let status = try context.workspace.status(path) else { throw FileFailure.error(ENOENT, path.absolute) }
        let kind = Workspace.Entry(path: path, status: status).kind
        if kind == "directory", !input.recursive, !path.isRoot {
            let (entries, unreadable) = try context.workspace.entries(path)
            if !entries.isEmpty || unreadable > 0 { throw FileFailure.error(ENOTEMPTY, path.absolute) }
        }
        let id = try context.protectedFiles.undisturbed { () throws(StructuredError) in
            try Trash(workspace: context.workspace).take(path, at: context.clock.now())
        }
        return Output(path: path.absolute, kind: kind, trashID: id)
    }

    /// What is deleted is what was looked at.
    package func binding(_ input: Input, _ context: CallContext) throws(StructuredError) -> JSONObject {
        try context.workspace.binding([try context.workspace.place(input.path)])
    }

    package func preview(_ input: Input, _ context: CallContext) throws(StructuredError) -> Preview {
        try context.workspace.preview(
            "Moves to the trash", try context.workspace.place(input.path), suffix: "; filesystem.restore brings it back"
        )
    }
}
