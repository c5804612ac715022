import CSandbox
import Foundation
package import KruxCore
import KruxCrypto

package struct FilesystemEdit: Capability {
    package static let declaration = CapabilityDeclaration(
        "filesystem.edit", "Replaces a passage of a text file, if it is there exactly once.",
        whenToUse: "To change part of a file and see the difference; filesystem.write replaces all of it.",
        effect: .write, sideEffects: ["changes the file"], tier: .notify,
        input: [
            FileSchema.path("The file to change."),
            .required("expected", .string(minLength: 1, maxLength: 1 << 20), "The passage as it is now."),
            .required(
                "replacement", .string(maxLength: 1 << 20), "The passage as it shall be.",
                role: .content(encoding: "encoding")),
            .optional("all", .boolean, "Replace it wherever it is, not only once.", default: false),
        ],
        output: [
            .required("path", .text, "The canonical path."),
            .required("replaced", .count, "How many passages were replaced."),
            .required("diff", .string(maxLength: 8 << 20), "Unified diff of the change; empty where it is too large."),
            .required("sha256", .text, "SHA-256 of the content as it is now, hexadecimal."),
        ],
        errors: [
            FileSchema.missing, FileSchema.outside, FileSchema.wrongType, FileSchema.full,
            .init(
                .conflict, when: "the passage is not there, or more than once",
                recovery: "read the file again, and name a passage with more of its surroundings, or pass all"),
        ])

    package struct Input: CapabilityInput {
        let path: String, expected: String, replacement: String, all: Bool

        package init(_ arguments: Arguments) throws(StructuredError) {
            path = try arguments.text("path")
            expected = try arguments.text("expected")
            replacement = try arguments.text("replacement")
            all = try arguments.bool("all")
        }
    }

    package struct Output: CapabilityOutput {
        let path: String, replaced: Int, diff: String, sha256: String

        package var json: JSONObject {
            [
                "path": .string(path), "replaced": .int(Int64(replaced)), "diff": .string(diff),
                "sha256": .string(sha256),
            ]
        }
    }

    static let largest = 32 << 20

    /// What the file holds and what it will hold.
    private func change(_ input: Input, _ context: CallContext) throws(StructuredError) -> (
        path: Workspace.Path, before: [UInt8], after: [UInt8], replaced: Int
    ) {
        let workspace = context.workspace
        let path = try workspace.place(input.path)
        try workspace.requireChangeable(path, context.protected)
        let (descriptor, status) = try workspace.openFile(path, O_RDONLY)
        defer { close(descriptor) }
        guard status.st_size <= Self.largest else {
            throw StructuredError(
                .tooLarge, "`\(path.absolute)` has \(status.st_size) bytes, more than can be edited",
                recovery: ["Change it with process.run (`sed`), or write it anew."])
        }
        let before = try Workspace.readAll(descriptor, count: Int(status.st_size), at: 0, path.absolute)
        let places = Self.places(of: Array(input.expected.utf8), in: before)
        guard !places.isEmpty, input.all || places.count == 1 else {
            throw StructuredError(
                .conflict,
                places.isEmpty
                    ? "`\(path.absolute)` does not hold the passage"
                    : "`\(path.absolute)` holds the passage \(places.count) times",
                recovery: [
                    places.isEmpty
                        ? "Read the file again: it must hold the passage byte by byte, with its spaces and line breaks."
                        : "Give more of what surrounds it, or pass `all`."
                ], context: ["path": .string(path.absolute), "found": .int(Int64(places.count))])
        }
        let size = before.count + places.count * (input.replacement.utf8.count - input.expected.utf8.count)
        guard size <= Self.largest else {
            throw StructuredError(
                .tooLarge, "`\(path.absolute)` would have \(size) bytes, more than \(Self.largest)",
                recovery: ["Write it in parts with filesystem.append."])
        }
        var after: [UInt8] = []
        after.reserveCapacity(before.count)
        var end = 0
        for place in places {
            after += before[end..<place]
            after += Array(input.replacement.utf8)
            end = place + input.expected.utf8.count
        }
        after += before[end...]
        return (path, before, after, places.count)
    }

    /// Where a passage begins, from the start, none within another.
    private static func places(of passage: [UInt8], in text: [UInt8]) -> [Int] {
        var found: [Int] = []
        text.withUnsafeBytes { text in
            passage.withUnsafeBytes { passage in
                var start = 0
                while let base = text.baseAddress, start + passage.count <= text.count,
                    let hit = krux_memmem(base + start, text.count - start, passage.baseAddress, passage.count)
                {
                    let place = base.distance(to: hit)
                    found.append(place)
                    start = place + passage.count
                }
            }
        }
        return found
    }

    package func run(_ input: Input, _ context: CallContext) async throws(StructuredError) -> Output {
        let (path, before, after, replaced) = try change(input, context)
        _ = try context.workspace.writeAtomically(path, after, replace: true, durable: false)
        let diff = UnifiedDiff.lines(from: before, to: after)?.joined(separator: "\n") ?? ""
        return Output(path: path.absolute, replaced: replaced, diff: diff, sha256: sha256(after).hex)
    }

    package func binding(_ input: Input, _ context: CallContext) throws(StructuredError) -> JSONObject {
        try context.workspace.binding([try context.workspace.place(input.path)])
    }

    package func preview(_ input: Input, _ context: CallContext) throws(StructuredError) -> Preview {
        let (path, _, after, _) = try change(input, context)
        return try context.workspace.preview(writing: after, to: path, context.scrub)
    }
}
