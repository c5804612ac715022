package import KruxCore

package struct FilesystemList: Capability {
    package static let declaration = CapabilityDeclaration(
        "filesystem.list", "Lists a folder, or everything below it.",
        whenToUse: "To see what is there; use filesystem.search to find names by pattern.", effect: .read,
        tier: .autonomous,
        input: [
            .optional(
                "path", .path, "The folder.", default: ".", role: .path(followsLast: true, reach: .belowWhen("depth"))),
            .optional("depth", .integer(1...64), "Levels to descend; 1 is the folder alone.", default: 1),
            .optional("limit", .integer(1...10_000), "Most entries to return.", default: 1000),
            .optional("after", .path, "Go on after this path of the last page."),
        ],
        output: [
            .required("path", .text, "The canonical path of the folder."),
            .required("entries", .array(.object(FileSchema.entry), maxItems: 10_000), "In order of their paths."),
            .required("truncated", .boolean, "Whether there is more; pass the last path as after."),
            .required("unreadable", .count, "Names that are not UTF-8 and were left out."),
        ], errors: [FileSchema.missing, FileSchema.outside])

    package struct Input: CapabilityInput {
        let path: String, depth: Int64, limit: Int64, after: String?

        package init(_ arguments: Arguments) throws(StructuredError) {
            path = try arguments.text("path")
            depth = try arguments.int("depth")
            limit = try arguments.int("limit")
            after = arguments.optionalText("after")
        }
    }

    package struct Output: CapabilityOutput {
        let path: String, entries: [Workspace.Entry], truncated: Bool, unreadable: Int

        package var json: JSONObject {
            [
                "path": .string(path), "entries": .array(entries.map(\.json)), "truncated": .bool(truncated),
                "unreadable": .int(Int64(unreadable)),
            ]
        }
    }

    package func run(_ input: Input, _ context: CallContext) async throws(StructuredError) -> Output {
        let folder = try context.workspace.place(input.path)
        let unreadable = try context.workspace.entries(folder).unreadable
        var entries: [Workspace.Entry] = []
        var truncated = false
        // In depth-first order a page is found again by passing what came before its first entry.
        var passed = input.after == nil
        try context.workspace.walk(folder, depth: Int(input.depth)) { entry in
            if !passed {
                passed = entry.path.absolute.utf8Equals(input.after ?? "")
                return true
            }
            if entries.count == Int(input.limit) {
                truncated = true
                return false
            }
            entries.append(entry)
            return true
        }
        if !passed {
            throw StructuredError(
                .notFound, "`after` names nothing in this listing", recovery: ["List again from the start."])
        }
        return Output(path: folder.absolute, entries: entries, truncated: truncated, unreadable: unreadable)
    }
}
