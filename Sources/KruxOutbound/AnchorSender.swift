import AsyncHTTPClient
import Foundation
package import KruxAudit
package import KruxCrypto
import KruxSandbox
import NIOCore
import NIOHTTP1

/// Sends checkpoints to where they are kept. Every target is a person's own choice; nothing else is ever contacted.
package struct AnchorSender: Sendable {
    /// Why a checkpoint did not arrive, in a person's words.
    package struct Failure: Error, Sendable {
        package let reason: String
    }

    /// The proof of growth from a size to the checkpoint's.
    package typealias Proof = @Sendable (_ old: Int64) throws -> [Digest]

    private let timeoutSeconds: Int
    private static let longestReply = 64 << 10

    /// - Parameter timeoutSeconds: what a target may take altogether.
    package init(timeoutSeconds: Int = 30) { self.timeoutSeconds = timeoutSeconds }

    /// - Parameter old: the size that a witness was sent last; it is asked when it knows another.
    /// - Returns: the note as it is now, with a witness's cosignature.
    /// - Throws: `Failure`.
    package func send(_ note: SignedNote, to kind: AnchorTarget.Kind, old: Int64, proof: @escaping Proof) async throws
        -> SignedNote
    {
        switch kind {
        case .file(let path): try Self.append(note.encoded, to: path)
        case .command(let arguments):
            do {
                let result = try await Task.detached {
                    try OwnerProcess.run(arguments, input: note.encoded, timeoutSeconds: timeoutSeconds)
                }.value
                guard result.code == 0 else {
                    throw Failure(reason: "the command ended with \(result.code): \(result.errors.suffix(300))")
                }
            } catch let error as SandboxError {
                throw Failure(reason: error.message)
            }
        case .witness(let url, let verifier):
            // One deadline over everything: a witness that answers drop by drop is one that does not answer.
            return try await withThrowingTaskGroup(of: SignedNote.self) { group in
                group.addTask { try await submit(note, url, verifier, old: old, proof: proof) }
                group.addTask {
                    try await Task.sleep(for: .seconds(timeoutSeconds))
                    throw slow
                }
                defer { group.cancelAll() }
                guard let signed = try await group.next() else { throw Failure(reason: "the witness did not answer") }
                return signed
            }
        }
        return note
    }

    /// Appends a checkpoint and waits for the disk.
    package static func append(_ note: String, to path: String) throws {
        func failure(_ what: String) -> Failure {
            Failure(reason: "cannot \(what) `\(path)`: \(String(cString: strerror(errno)))")
        }
        // A pipe without a reader would keep us waiting.
        let descriptor = open(path, O_RDWR | O_APPEND | O_CREAT | O_CLOEXEC | O_NONBLOCK, 0o600)
        guard descriptor >= 0 else { throw failure("open") }
        defer { close(descriptor) }
        var status = stat()
        guard fstat(descriptor, &status) == 0, status.st_mode & S_IFMT == S_IFREG else {
            throw Failure(reason: "`\(path)` is no regular file")
        }
        // What a crash cut off is ended, so that this one stands by itself.
        var end: [UInt8] = [10, 10]
        if status.st_size > 1 { pread(descriptor, &end, 2, status.st_size - 2) }
        let bytes = Array(((end == [10, 10] ? "" : "\n\n") + note + "\n").utf8)
        guard write(descriptor, bytes, bytes.count) == bytes.count else {
            let error = failure("write")
            ftruncate(descriptor, status.st_size)
            throw error
        }
        guard fsync(descriptor) == 0 else { throw failure("sync") }
    }

    private var slow: Failure { Failure(reason: "the witness did not answer within \(timeoutSeconds) s") }

    private func submit(_ note: SignedNote, _ url: String, _ verifier: NoteKey, old: Int64, proof: @escaping Proof)
        async throws
        -> SignedNote
    {
        guard let checkpoint = Checkpoint(note.text) else { throw Failure(reason: "the checkpoint cannot be read") }
        // The address that was chosen, and no other.
        var configuration = HTTPClient.Configuration(redirectConfiguration: .disallow)
        configuration.timeout.connect = .seconds(10)
        let client = HTTPClient(eventLoopGroupProvider: .singleton, configuration: configuration)
        do {
            var size = old
            for attempt in 0..<2 {
                let request = WitnessRequest(
                    old: size, proof: try proof(size), note: SignedNote(text: note.text, lines: note.lines),
                    checkpoint: checkpoint)
                var post = HTTPClientRequest(url: url + "/add-checkpoint")
                post.method = .POST
                post.headers.add(name: "user-agent", value: "kruxos")
                post.body = .bytes(ByteBuffer(string: request.text))
                let response = try await client.execute(post, timeout: .seconds(Int64(timeoutSeconds)))
                let body = String(buffer: try await response.body.collect(upTo: Self.longestReply))
                switch response.status.code {
                case 200:
                    guard let lines = SignedNote.lines(Array(body.utf8)[...]) else {
                        throw Failure(reason: "the witness's reply cannot be read")
                    }
                    let signed = SignedNote(
                        text: note.text,
                        lines: note.lines
                            + lines.filter { line in
                                line.name == verifier.name && line.keyID == verifier.id
                            })
                    guard signed.cosigned(by: verifier) != nil else {
                        throw Failure(reason: "the witness's reply is not signed by \(verifier.name)")
                    }
                    try await client.shutdown()
                    return signed
                case 409 where attempt == 0:
                    guard let known = Checkpoint.size(body.dropLast(body.hasSuffix("\n") ? 1 : 0)) else {
                        throw Failure(reason: "the witness's reply cannot be read")
                    }
                    guard known <= checkpoint.size else {
                        throw Failure(
                            reason:
                                "the witness has seen a larger tree than this one: rows were lost, or somebody else signs with this key"
                        )
                    }
                    size = known
                case 404:
                    throw Failure(reason: "the witness does not know this log: give its operator `kruxos audit key`")
                case 422: throw Failure(reason: "the witness says this record is not the one it has seen before")
                default: throw Failure(reason: "the witness answers \(response.status.code): \(body.prefix(200))")
                }
            }
            throw Failure(reason: "the witness does not agree on the size it has seen")
        } catch {
            try await client.shutdown()
            if error is Failure { throw error }
            if let error = error as? HTTPClientError, error == .deadlineExceeded { throw slow }
            throw Failure(reason: "the witness cannot be reached: \(error)")
        }
    }
}
