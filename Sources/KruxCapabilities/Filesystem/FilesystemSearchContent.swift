import CSandbox
import Foundation
package import KruxCore

package struct FilesystemSearchContent: Capability {
    package static let declaration = CapabilityDeclaration(
        "filesystem.search_content", "Finds lines of text files by what they hold.",
        whenToUse: "To find where something is mentioned; filesystem.search finds files by their names.",
        effect: .read, tier: .autonomous,
        input: [
            .required("query", .string(minLength: 1, maxLength: 4096), "The text or expression to find."),
            .optional(
                "path", .path, "Where to search: a folder with all below it, or a file.", default: ".",
                role: .path(followsLast: true, reach: .below)),
            .optional(
                "regex", .boolean, "Whether query is a regular expression, of POSIX's extended kind.", default: false),
            .optional("ignore_case", .boolean, "Whether upper and lower case are one.", default: false),
            .optional("limit", .integer(1...10_000), "Most matches to return.", default: 1000),
        ],
        output: [
            .required(
                "matches",
                .array(
                    .object([
                        .required("path", .text, "The file."), .required("line", .count, "Line, from 1."),
                        .required("text", .string(maxLength: 1 << 16), "The line, at most 1000 characters of it."),
                    ]), maxItems: 10_000), "In order of path and line."),
            .required("truncated", .boolean, "Whether there are more."),
            .required("skipped", .count, "Files that are no text, larger than 16 MiB, or cannot be read."),
        ],
        errors: [
            FileSchema.missing, FileSchema.outside,
            .init(.invalidArguments, when: "the expression is none", recovery: "correct it, or leave regex out"),
        ])

    package struct Input: CapabilityInput {
        let query: String, path: String, isExpression: Bool, ignoresCase: Bool, limit: Int64

        package init(_ arguments: Arguments) throws(StructuredError) {
            query = try arguments.text("query")
            path = try arguments.text("path")
            isExpression = try arguments.bool("regex")
            ignoresCase = try arguments.bool("ignore_case")
            limit = try arguments.int("limit")
            if query.utf8.contains(0) || query.contains(where: \.isNewline) {
                throw StructuredError(
                    .invalidArguments, "`query` holds a line break or a NUL byte, and lines are searched",
                    recovery: ["Search for a part of one line."])
            }
        }
    }

    package struct Output: CapabilityOutput {
        var matches: [(path: String, line: Int64, text: String)] = []
        var isTruncated = false
        var skipped: Int64 = 0

        package var json: JSONObject {
            [
                "matches": .array(
                    matches.map { ["path": .string($0.path), "line": .int($0.line), "text": .string($0.text)] }),
                "truncated": .bool(isTruncated), "skipped": .int(skipped),
            ]
        }
    }

    private static let largest = 16 << 20
    private static let longestLine = 1000

    package func run(_ input: Input, _ context: CallContext) async throws(StructuredError) -> Output {
        let workspace = context.workspace
        let matcher = try LineMatcher(input.query, isExpression: input.isExpression, ignoresCase: input.ignoresCase)
        let path = try workspace.place(input.path)
        guard let status = try workspace.status(path) else { throw FileFailure.error(ENOENT, path.absolute) }
        var output = Output()
        // One file's lines; false once there are enough.
        func search(_ entry: Workspace.Entry) throws(StructuredError) -> Bool {
            guard entry.kind == "file" else { return true }
            guard entry.status.st_size <= Self.largest, entry.status.st_nlink <= 1,
                let (descriptor, opened) = try? workspace.openFile(entry.path, O_RDONLY)
            else {
                output.skipped += 1
                return true
            }
            defer { close(descriptor) }
            let bytes = try Workspace.readAll(descriptor, count: Int(opened.st_size), at: 0, entry.path)
            guard !bytes.contains(0) else {
                output.skipped += 1
                return true
            }
            var number: Int64 = 0
            for line in bytes.split(separator: UInt8(ascii: "\n"), omittingEmptySubsequences: false) {
                number += 1
                guard matcher.matches(line) else { continue }
                if output.matches.count >= Int(input.limit) {
                    output.isTruncated = true
                    return false
                }
                let text = String(decoding: line.prefix(4 * Self.longestLine), as: UTF8.self)
                output.matches.append((entry.path.absolute, number, String(text.prefix(Self.longestLine))))
            }
            return !Task.isCancelled
        }
        if status.st_mode & S_IFMT == S_IFDIR {
            try workspace.walk(path, depth: Workspace.deepest, search)
        } else {
            _ = try search(Workspace.Entry(path: path, status: status))
        }
        return output
    }
}

/// Looks for a text or an expression in lines. POSIX's expressions: they have no construct whose time explodes but
/// repetition counts, which are refused beyond 255 by the C library itself.
private final class LineMatcher {
    private let text: [UInt8]?
    private var expression = regex_t()
    private let isCompiled: Bool

    init(_ query: String, isExpression: Bool, ignoresCase: Bool) throws(StructuredError) {
        guard isExpression || ignoresCase else {
            text = Array(query.utf8)
            isCompiled = false
            return
        }
        text = nil
        let special: Set<Character> = ["\\", ".", "[", "]", "(", ")", "*", "+", "?", "{", "}", "|", "^", "$"]
        let pattern = isExpression ? query : query.map { special.contains($0) ? "\\\($0)" : String($0) }.joined()
        let code = regcomp(&expression, pattern, REG_EXTENDED | REG_NOSUB | (ignoresCase ? REG_ICASE : 0))
        isCompiled = code == 0
        guard code == 0 else {
            var message = [CChar](repeating: 0, count: 200)
            regerror(code, &expression, &message, message.count)
            throw StructuredError(
                .invalidArguments,
                "`query` is no regular expression: \(String(decoding: message.prefix { $0 != 0 }.map { UInt8(bitPattern: $0) }, as: UTF8.self))",
                recovery: ["Correct it, or leave `regex` out to find it as it stands."])
        }
    }

    deinit { if isCompiled { regfree(&expression) } }

    func matches(_ line: ArraySlice<UInt8>) -> Bool {
        if let text {
            return line.withUnsafeBytes { line in
                text.withUnsafeBytes { krux_memmem(line.baseAddress, line.count, $0.baseAddress, $0.count) != nil }
            }
        }
        // regexec reads to a NUL; a line holds none.
        let terminated = line.map { CChar(bitPattern: $0) } + [0]
        return regexec(&expression, terminated, 0, nil, 0) == 0
    }
}
