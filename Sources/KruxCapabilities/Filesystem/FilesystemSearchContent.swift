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
                "regex", .boolean, "Whether query is a regular expression.", default: false),
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
            .required("truncated", .boolean, "Whether there may be more: over the limit, or after 20 seconds."),
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

    private static let longestSearch = Duration.seconds(20)

    package func run(_ input: Input, _ context: CallContext) async throws(StructuredError) -> Output {
        // On a thread of its own: it reads and computes for long, which no cooperative thread may.
        let found: Result<Output, StructuredError> = await withCheckedContinuation { continuation in
            let thread = Thread {
                let result: Result<Output, StructuredError>
                do throws(StructuredError) { result = .success(try search(input, context)) } catch {
                    result = .failure(error)
                }
                continuation.resume(returning: result)
            }
            thread.name = "kruxos.search"
            thread.stackSize = 8 << 20
            thread.start()
        }
        return try found.get()
    }

    private func search(_ input: Input, _ context: CallContext) throws(StructuredError) -> Output {
        let workspace = context.workspace
        let deadline = ContinuousClock.now + Self.longestSearch
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
            let bytes = try Workspace.readAll(descriptor, count: Int(opened.st_size), at: 0, entry.path.absolute)
            guard !bytes.contains(0) else {
                output.skipped += 1
                return true
            }
            var number: Int64 = 0
            for line in bytes.split(separator: UInt8(ascii: "\n"), omittingEmptySubsequences: false) {
                number += 1
                if number & 0xFF == 0, ContinuousClock.now > deadline {
                    output.isTruncated = true
                    return false
                }
                guard matcher.matches(line) else { continue }
                if output.matches.count >= Int(input.limit) {
                    output.isTruncated = true
                    return false
                }
                let text = String(decoding: line.prefix(4 * Self.longestLine), as: UTF8.self)
                output.matches.append((entry.path.absolute, number, String(text.prefix(Self.longestLine))))
            }
            return true
        }
        if status.st_mode & S_IFMT == S_IFDIR {
            try workspace.walk(path, depth: Workspace.deepest, search)
        } else {
            _ = try search(Workspace.Entry(path: path, status: status))
        }
        return output
    }
}

/// Looks for a text or an expression in lines, in time proportional to the text whatever the expression.
private struct LineMatcher {
    private let text: [UInt8]?
    private let pattern: Pattern?
    private let ignoresCase: Bool

    init(_ query: String, isExpression: Bool, ignoresCase: Bool) throws(StructuredError) {
        self.ignoresCase = ignoresCase
        guard isExpression else {
            text = Array((ignoresCase ? query.lowercased() : query).utf8)
            pattern = nil
            return
        }
        text = nil
        // A part of the line is looked for, so anything may stand around it unless `^` or `$` says that nothing does.
        var inner = Substring(ignoresCase ? Self.lowered(query) : query)
        var (before, after) = (".*", ".*")
        if inner.first == "^" {
            inner.removeFirst()
            before = ""
        }
        if inner.last == "$", !inner.dropLast().hasSuffix("\\") {
            inner.removeLast()
            after = ""
        }
        do throws(Pattern.Malformed) {
            pattern = try Pattern("\(before)(\(inner))\(after)", .regularExpression)
        } catch {
            throw StructuredError(
                .invalidArguments, "`query` \(error.message)",
                recovery: ["Correct it, or leave `regex` out to find it as it stands."])
        }
    }

    /// In lower case, but for the letters of classes such as `\S`.
    private static func lowered(_ query: String) -> String {
        var result = ""
        var isEscaped = false
        for character in query {
            result += isEscaped ? String(character) : character.lowercased()
            isEscaped = character == "\\" && !isEscaped
        }
        return result
    }

    func matches(_ line: ArraySlice<UInt8>) -> Bool {
        if let text, !ignoresCase {
            return line.withUnsafeBytes { line in
                text.withUnsafeBytes { krux_memmem(line.baseAddress, line.count, $0.baseAddress, $0.count) != nil }
            }
        }
        let decoded = String(decoding: line, as: UTF8.self)
        let read = ignoresCase ? decoded.lowercased() : decoded
        if let pattern { return pattern.fits(read) }
        return read.utf8.firstRange(of: text ?? []) != nil
    }
}
