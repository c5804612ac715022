import AsyncHTTPClient
import CSandbox
import Foundation
package import KruxCore
import KruxSandbox
import KruxCrypto
import NIOCore

package struct NetworkDownload: Capability {
    package static let declaration = CapabilityDeclaration(
        "network.download", "Downloads a URL into a file of the workspace, which is there whole or not at all.",
        whenToUse: "For files, above all those too large for a reply.", effect: .external,
        sideEffects: ["the request reaches the host", "creates or replaces the file"], tier: .approvalRequired,
        input: [
            NetworkSchema.url, FileSchema.path("The file to write."),
            .optional("overwrite", .boolean, "Whether an existing file may be replaced.", default: true),
            .optional("timeout_seconds", .integer(1...86_400), "Give up after this long.", default: 600),
            .optional(
                "max_bytes", .integer(1...(1 << 40)), "Give up beyond this size.", default: .int(1 << 30)),
            NetworkSchema.followRedirects,
        ],
        output: ObjectSchema(
            [
                .required("path", .text, "The file."), .required("bytes", .count, "Its size."),
                .required("sha256", .text, "SHA-256 of its content, hexadecimal."),
                .required("created", .boolean, "Whether the file is new."),
                .required("url", .string(maxLength: 8300), "Where it came from."),
                .required("address", .text, "The address that was connected to."),
                .required("status", .integer(200...299), "HTTP status."),
                .optional("content_type", .string(maxLength: 128 << 10), "What the server says it is."),
            ] + NetworkSchema.redirects),
        errors: NetworkSchema.errors + [
            .init(.conflict, when: "the answer is no success", recovery: "look at the status, or at where it leads"),
            .init(.tooLarge, when: "it is larger than max_bytes", recovery: "allow more, or fetch a part"),
            FileSchema.outside, FileSchema.exists, FileSchema.full,
        ], connects: true)

    package struct Input: CapabilityInput {
        let url: WebURL, path: String, overwrite: Bool, timeout: Int64, most: Int64, follow: Bool

        package init(_ arguments: Arguments) throws(StructuredError) {
            url = try WebURL(try arguments.text("url"))
            path = try arguments.text("path")
            overwrite = try arguments.bool("overwrite")
            timeout = try arguments.int("timeout_seconds")
            most = try arguments.int("max_bytes")
            follow = try arguments.bool("follow_redirects")
        }
    }

    package struct Output: CapabilityOutput {
        let head: WebClient.Head
        let path: String, bytes: Int64, sha256: String, created: Bool

        package var json: JSONObject {
            var json: JSONObject = [
                "path": .string(path), "bytes": .int(bytes), "sha256": .string(sha256), "created": .bool(created),
                "url": .string(head.url.text), "address": .string(head.address.text), "status": .int(head.status),
                "redirects": .array(head.hops.map(\.json)),
            ]
            if let type = head.headers["content-type"] { json["content_type"] = type }
            return json
        }
    }

    package func run(_ input: Input, _ context: CallContext) async throws(StructuredError) -> Output {
        let workspace = context.workspace
        let path = try workspace.place(input.path)
        try workspace.requireChangeable(path, context.protected)
        // What can be told before anything is sent.
        if let existing = try workspace.status(path) {
            guard input.overwrite else { throw FileFailure.error(EEXIST, path.absolute) }
            try workspace.requireOwnFile(existing, path)
        }
        let request = WebClient.Request(url: input.url, method: "GET", headers: [], body: nil)
        return try await WebClient(context: context, crossesOrigins: context.carried == nil).send(
            request, follow: input.follow, timeoutSeconds: input.timeout
        ) { head, body in
            guard head.isSuccess else {
                throw StructuredError(
                    .conflict, "the answer is \(head.status)" + (head.stopped.map { ": \($0)" } ?? ""),
                    recovery: ["Look at it with network.http_request."],
                    context: ["status": .int(head.status), "location": head.headers["location"] ?? .null])
            }
            let file = try NewFile(workspace, path)
            for try await part in body {
                try file.append(Array(part.readableBytesView))
                CallProgress.current?.add(part.readableBytesView)
                guard file.bytes <= input.most else {
                    throw StructuredError(
                        .tooLarge, "it is larger than \(input.most) bytes", recovery: ["Allow more with max_bytes."])
                }
            }
            let (digest, isNew) = try file.finish(replace: input.overwrite)
            return Output(
                head: head, path: path.absolute, bytes: file.bytes, sha256: digest.hex, created: isNew)
        }
    }

    package func binding(_ input: Input, _ context: CallContext) throws(StructuredError) -> JSONObject {
        var binding = try context.workspace.binding([try context.workspace.place(input.path)])
        binding["sandbox"] = .object(context.confinement.settings.json)
        return binding
    }

    package func preview(_ input: Input, _ context: CallContext) throws(StructuredError) -> Preview {
        let path = try context.workspace.place(input.path)
        let what = try context.workspace.status(path) == nil ? "a new file" : "in place of what is there"
        return Preview("Downloads \(input.url.text) from \(input.url.address.host) to \(path.absolute), \(what)")
    }
}

/// A file that is being written beside the place it will take; gone unless it is finished.
final class NewFile: @unchecked Sendable {
    // Written by one task at a time: the one that reads the body.
    private let workspace: Workspace, path: Workspace.Path
    private let parent: Int32, descriptor: Int32, temporary: String
    private let existed: Bool
    private var hash = SHA256()
    private var isFinished = false
    private(set) var bytes: Int64 = 0

    init(_ workspace: Workspace, _ path: Workspace.Path) throws(StructuredError) {
        self.workspace = workspace
        self.path = path
        let existing = try workspace.status(path)
        existed = existing != nil
        parent = try workspace.openParent(path)
        do {
            let mode = existing.map { mode_t($0.st_mode & 0o777) } ?? 0o644
            (descriptor, temporary) = try workspace.createTemporary(
                in: parent, mode: mode, path, replacing: existing)
        } catch {
            close(parent)
            throw error
        }
    }

    func append(_ part: [UInt8]) throws(StructuredError) {
        try workspace.charge(path, bytes: Int64(part.count), files: bytes == 0 && !existed ? 1 : 0)
        try Workspace.writeAll(descriptor, part[...], path.absolute)
        hash.update(part)
        bytes += Int64(part.count)
    }

    /// - Returns: the digest of the content, and whether the file is new.
    func finish(replace: Bool) throws(StructuredError) -> (Digest, Bool) {
        let result = krux_renameat2(parent, temporary, parent, path.name, replace ? 0 : UInt32(1) /* NOREPLACE */)
        if result < 0 { throw FileFailure.error(-result, path.absolute) }
        isFinished = true
        return (hash.finish(), !existed)
    }

    deinit {
        if !isFinished {
            unlinkat(parent, temporary, 0)
            workspace.meter.forget()
        }
        close(descriptor)
        close(parent)
    }
}
