import Foundation
package import KruxCore

package struct FilesystemStat: Capability {
    package static let declaration = CapabilityDeclaration(
        "filesystem.stat", "Tells what is at a path, without reading it.",
        whenToUse: "To check existence, size or time; a symbolic link is described itself.", effect: .read,
        tier: .autonomous, input: [FileSchema.path("The place to look at.", followsLast: false)],
        output: [
            .required("exists", .boolean, "Whether anything is there."),
            .required("path", .text, "The canonical path."),
            .optional("type", .choice(["file", "directory", "symlink", "other"]), "What it is."),
            .optional("size", .count, "Bytes."),
            .optional("mode", .text, "Permission bits, octal."),
            .optional("links", .count, "Names the file has."),
            .optional("modified", .text, "RFC 3339 time of the last change of its content."),
        ], errors: [FileSchema.outside])

    package struct Input: CapabilityInput {
        let path: String
        package init(_ arguments: Arguments) throws(StructuredError) { path = try arguments.text("path") }
    }

    package struct Output: CapabilityOutput {
        let path: Workspace.Path
        let status: stat?

        package var json: JSONObject {
            var json: JSONObject = ["exists": .bool(status != nil), "path": .string(path.absolute)]
            guard let status else { return json }
            let entry = Workspace.Entry(path: path, status: status)
            json["type"] = .string(entry.kind)
            json["size"] = .int(Int64(status.st_size))
            json["mode"] = .string("0" + String(status.st_mode & 0o7777, radix: 8))
            json["links"] = .int(Int64(status.st_nlink))
            json["modified"] = .string(entry.modified.rfc3339)
            return json
        }
    }

    package func run(_ input: Input, _ context: CallContext) async throws(StructuredError) -> Output {
        let path = try context.workspace.place(input.path)
        return Output(path: path, status: try context.workspace.status(path))
    }
}
