import Foundation
package import KruxCore

package struct FilesystemSearch: Capability {
    package static let declaration = CapabilityDeclaration(
        "filesystem.search", "Finds files and folders by name.",
        whenToUse: "To find a file whose folder you do not know; use filesystem.list to see one folder.",
        effect: .read, tier: .autonomous,
        input: [
            .required(
                "pattern", .string(minLength: 1, maxLength: 1024),
                "Shell pattern for the name (`*.swift`), or for the path below the folder if it has a slash (`src/**`)."
            ),
            .optional(
                "path", .path, "The folder to search.", default: ".", role: .path(followsLast: true, reach: .below)),
            .optional("type", .choice(["any", "file", "directory"]), "What to find.", default: "any"),
            .optional("limit", .integer(1...10_000), "Most matches to return.", default: 1000),
        ],
        output: [
            .required("path", .text, "The canonical folder that was searched."),
            .required("matches", .array(.object(FileSchema.entry), maxItems: 10_000), "In order of their paths."),
            .required("truncated", .boolean, "Whether there are more."),
            .required("visited", .count, "Entries looked at."),
        ], errors: [FileSchema.missing, FileSchema.outside])

    /// A tree with more entries is searched in part, and the reply says so.
    private static let mostVisited: Int64 = 200_000

    package struct Input: CapabilityInput {
        let pattern: String, path: String, kind: String, limit: Int64

        package init(_ arguments: Arguments) throws(StructuredError) {
            pattern = try arguments.text("pattern")
            path = try arguments.text("path")
            kind = try arguments.text("type")
            limit = try arguments.int("limit")
        }
    }

    package struct Output: CapabilityOutput {
        let path: String
        var matches: [Workspace.Entry] = []
        var truncated = false
        var visited: Int64 = 0

        package var json: JSONObject {
            [
                "path": .string(path), "matches": .array(matches.map(\.json)), "truncated": .bool(truncated),
                "visited": .int(visited),
            ]
        }
    }

    package func run(_ input: Input, _ context: CallContext) async throws(StructuredError) -> Output {
        if input.pattern.utf8.contains(0) {
            throw StructuredError(.invalidArguments, "the pattern contains a NUL byte", recovery: ["Leave it out."])
        }
        let folder = try context.workspace.place(input.path)
        var output = Output(path: folder.absolute)
        let wholePath = input.pattern.utf8.contains(UInt8(ascii: "/"))
        let pattern = input.pattern.replacing("**", with: "*")
        let prefix = folder.absolute.utf8.count + 1
        try context.workspace.walk(folder, depth: Workspace.deepest) { entry in
            output.visited += 1
            if output.visited > Self.mostVisited {
                output.truncated = true
                return false
            }
            if input.kind != "any", entry.kind != input.kind { return true }
            let subject =
                wholePath
                ? String(decoding: entry.path.absolute.utf8.dropFirst(prefix), as: UTF8.self) : entry.path.name
            guard fnmatch(pattern, subject, FNM_PERIOD) == 0 else { return true }
            if output.matches.count == Int(input.limit) {
                output.truncated = true
                return false
            }
            output.matches.append(entry)
            return true
        }
        return output
    }
}
