import Foundation
import KruxCore
import Synchronization

/// How much an agent may keep in its workspace; nil for as much as the disk holds.
package struct Quota: Sendable, Equatable {
    package var bytes: Int64?
    /// Files, folders and links.
    package var files: Int64?

    package init(bytes: Int64?, files: Int64?) {
        self.bytes = bytes
        self.files = files
    }
}

/// What a workspace holds, counted when a quota asks for it and kept up to date from then on; processes, deletions and
/// moves make it count again.
final class QuotaMeter: Sendable {
    struct Usage: Sendable, Equatable {
        var bytes: Int64 = 0
        var files: Int64 = 0
    }

    private struct State {
        var quota: Quota?
        /// Nil until it is counted.
        var usage: Usage?
    }
    private let state = Mutex(State())

    func set(_ quota: Quota?) { state.withLock { $0.quota = quota } }
    func forget() { state.withLock { $0.usage = nil } }

    /// Takes room for what is about to be written.
    /// - Parameter count: looks what is there.
    /// - Throws: `StructuredError` `.storageFull` where it would be more than the quota.
    func charge(bytes: Int64, files: Int64, _ count: () throws(StructuredError) -> Usage) throws(StructuredError) {
        let failure = state.withLock { state -> StructuredError? in
            guard let quota = state.quota else { return nil }
            var usage = Usage()
            if let known = state.usage {
                usage = known
            } else {
                do throws(StructuredError) { usage = try count() } catch { return error }
            }
            usage.bytes += bytes
            usage.files += files
            func full(_ what: String, _ used: Int64, _ most: Int64) -> StructuredError {
                StructuredError(
                    .storageFull, "the workspace may hold \(most) \(what), and would hold \(used)",
                    agent: "Your workspace has reached its quota.",
                    recovery: ["Delete what is not needed.", "Ask your supervisor for more: `kruxos agent quota`."],
                    context: ["most": .int(most), "would_hold": .int(used), "what": .string(what)])
            }
            if let most = quota.bytes, usage.bytes > most { return full("bytes", usage.bytes, most) }
            if let most = quota.files, usage.files > most { return full("files", usage.files, most) }
            state.usage = usage
            return nil
        }
        if let failure { throw failure }
    }
}

extension Workspace {
    package func setQuota(_ quota: Quota?) { meter.set(quota) }

    /// Room for what is about to be written; see `QuotaMeter.charge`.
    func charge(bytes: Int64, files: Int64 = 0) throws(StructuredError) {
        try meter.charge(bytes: bytes, files: files) { () throws(StructuredError) in
            var usage = QuotaMeter.Usage()
            _ = try walk(try place(root), depth: Self.deepest) { (entry) throws(StructuredError) in
                usage.files += 1
                if entry.kind == "file" { usage.bytes += Int64(entry.status.st_size) }
                return true
            }
            return usage
        }
    }
}
