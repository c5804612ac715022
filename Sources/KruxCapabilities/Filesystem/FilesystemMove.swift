import Foundation
package import KruxCore

package struct FilesystemMove: Capability {
    package static let declaration = CapabilityDeclaration(
        "filesystem.move", "Renames or moves a file or folder.",
        whenToUse: "To rename; use filesystem.copy to keep the original.", effect: .write,
        sideEffects: ["the source is gone", "creates or replaces the destination"], tier: .notify,
        input: [
            .required(
                "source", .path, "What to move; a symbolic link is moved itself.",
                role: .path(followsLast: false, reach: .below)),
            .required(
                "destination", .path, "The new path itself, not the folder to put it in.",
                role: .path(followsLast: false, reach: .below)),
            .optional("overwrite", .boolean, "Whether an existing file may be replaced.", default: false),
        ],
        output: [
            .required("source", .text, "The canonical source, gone now."),
            .required("destination", .text, "The canonical destination."),
        ], errors: [FileSchema.missing, FileSchema.exists, FileSchema.outside])

    package struct Input: CapabilityInput {
        let source: String, destination: String, overwrite: Bool

        package init(_ arguments: Arguments) throws(StructuredError) {
            source = try arguments.text("source")
            destination = try arguments.text("destination")
            overwrite = try arguments.bool("overwrite")
        }
    }

    package struct Output: CapabilityOutput {
        let source: String, destination: String
        package var json: JSONObject { ["source": .string(source), "destination": .string(destination)] }
    }

    package func run(_ input: Input, _ context: CallContext) async throws(StructuredError) -> Output {
        let source = try context.workspace.place(input.source)
        let destination = try context.workspace.place(input.destination)
        try context.workspace.requireSameProtection(source, destination, keepsSource: false, context.protected)
        try context.protectedFiles.undisturbed { () throws(StructuredError) in
            try context.workspace.transfer(source, to: destination, replace: input.overwrite)
        }
        return Output(source: source.absolute, destination: destination.absolute)
    }

    package func binding(_ input: Input, _ context: CallContext) throws(StructuredError) -> JSONObject {
        let workspace = context.workspace
        return try workspace.binding([try workspace.place(input.source), try workspace.place(input.destination)])
    }

    package func preview(_ input: Input, _ context: CallContext) throws(StructuredError) -> Preview {
        let destination = try context.workspace.place(input.destination)
        let replaced = input.overwrite ? try context.workspace.status(destination) : nil
        return try context.workspace.preview(
            "Moves", try context.workspace.place(input.source),
            suffix: " to \(destination.absolute)" + (replaced == nil ? "" : ", replacing what is there"))
    }
}
