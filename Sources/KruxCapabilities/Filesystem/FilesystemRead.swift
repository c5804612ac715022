import Foundation
package import KruxCore
import KruxCrypto

package struct FilesystemRead: Capability {
    static let largest: Int64 = 8 << 20

    package static let declaration = CapabilityDeclaration(
        "filesystem.read", "Reads a file, or a part of it.",
        whenToUse: "To see what a file holds; page through large ones with offset and limit.", effect: .read,
        tier: .autonomous,
        input: [
            FileSchema.path("The file, relative to the workspace or absolute under it."),
            .optional("offset", .count, "First byte to read, from 0.", default: 0),
            .optional("limit", .integer(1...largest), "Most bytes to read.", default: .int(1 << 20)),
            .optional(
                "encoding", .choice(["utf8", "base64"]), "How content is returned; base64 for what is not text.",
                default: "utf8"),
            .optional("checksum", .boolean, "Also return the SHA-256 of the whole file.", default: false),
        ],
        output: [
            .required("path", .text, "The canonical path that was read."),
            .required("content", .string(maxLength: 16 << 20), "The bytes read, in the given encoding."),
            .required("encoding", .choice(["utf8", "base64"]), "The encoding of content."),
            .required("size", .count, "Bytes of the whole file."),
            .required("offset", .count, "First byte returned."),
            .required("bytes", .count, "Bytes returned."),
            .optional("next_offset", .count, "Where to go on; absent at the end."),
            .optional("sha256", .text, "SHA-256 of the whole file, hexadecimal."),
        ],
        errors: [FileSchema.missing, FileSchema.outside, FileSchema.wrongType])

    package struct Input: CapabilityInput {
        let path: String, offset: Int64, limit: Int64, base64: Bool, checksum: Bool

        package init(_ arguments: Arguments) throws(StructuredError) {
            path = try arguments.text("path")
            offset = try arguments.int("offset")
            limit = try arguments.int("limit")
            base64 = try arguments.text("encoding") == "base64"
            checksum = try arguments.bool("checksum")
        }
    }

    package struct Output: CapabilityOutput {
        let path: String, content: String, base64: Bool, size: Int64, offset: Int64, bytes: Int64
        let nextOffset: Int64?, sha256: String?

        package var json: JSONObject {
            var json: JSONObject = [
                "path": .string(path), "content": .string(content), "encoding": base64 ? "base64" : "utf8",
                "size": .int(size), "offset": .int(offset), "bytes": .int(bytes),
            ]
            if let nextOffset { json["next_offset"] = .int(nextOffset) }
            if let sha256 { json["sha256"] = .string(sha256) }
            return json
        }
    }

    package func run(_ input: Input, _ context: CallContext) async throws(StructuredError) -> Output {
        let path = try context.workspace.place(input.path)
        let (descriptor, status) = try context.workspace.openFile(path, O_RDONLY)
        defer { close(descriptor) }
        let size = Int64(status.st_size)
        let wanted = max(0, min(input.limit, size - input.offset))
        var bytes = try Workspace.readAll(descriptor, count: Int(wanted), at: input.offset, path.absolute)
        let content: String
        if input.base64 {
            content = Base64.encode(bytes)
        } else {
            // A page may end inside a character: give it back to the next page.
            if input.offset + Int64(bytes.count) < size { bytes.removeLast(Self.openCharacter(bytes)) }
            guard let text = String(validating: bytes, as: UTF8.self) else {
                throw StructuredError(
                    .wrongType, "`\(path.absolute)` is not UTF-8 text at offset \(input.offset)",
                    recovery: ["Read it with encoding: base64."], context: ["path": .string(path.absolute)])
            }
            content = text
        }
        let end = input.offset + Int64(bytes.count)
        return Output(
            path: path.absolute, content: content, base64: input.base64, size: size, offset: input.offset,
            bytes: Int64(bytes.count), nextOffset: end < size && !bytes.isEmpty ? end : nil,
            sha256: input.checksum ? try Workspace.digest(descriptor, path.absolute).hex : nil)
    }

    /// Bytes at the end that begin a character without ending it.
    private static func openCharacter(_ bytes: [UInt8]) -> Int {
        for back in 1...4 where back <= bytes.count {
            let byte = bytes[bytes.count - back]
            if byte & 0xC0 == 0x80 { continue }
            let length = byte >= 0xF0 ? 4 : byte >= 0xE0 ? 3 : byte >= 0xC0 ? 2 : 1
            return length > back ? back : 0
        }
        return 0
    }
}
