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
    var isLimited: Bool { state.withLock { $0.quota != nil } }
    func forget() { state.withLock { $0.usage = nil } }

    /// Takes room for what is about to be written.
    /// - Parameter count: looks what is there.
    /// - Throws: `StructuredError` `.storageFull` where it would be more than the quota.
    func charge(bytes: Int64, files: Int64, _ count: () throws(StructuredError) -> Usage) throws(StructuredError) {
        let failure = state.withLock { state -> StructuredError? in
            guard let quota = state.quota else { return nil }
            if let known = state.usage, let charged = Self.charged(known, bytes, files, quota) {
                state.usage = charged
                return nil
            }
            // What was charged for and did not come about is no reason to refuse: it is counted again.
            let counted: Usage
            do throws(StructuredError) { counted = try count() } catch { return error }
            state.usage = Self.charged(counted, bytes, files, quota)
            return state.usage == nil ? Self.refusal(counted, bytes, files, quota) : nil
        }
        if let failure { throw failure }
    }
}

extension QuotaMeter {
    /// Nil where it is more than the quota.
    private static func charged(_ usage: Usage, _ bytes: Int64, _ files: Int64, _ quota: Quota) -> Usage? {
        let charged = Usage(bytes: usage.bytes + bytes, files: usage.files + files)
        let fits = quota.bytes.map { charged.bytes <= $0 } ?? true && quota.files.map { charged.files <= $0 } ?? true
        return fits ? charged : nil
    }

    private static func refusal(_ usage: Usage, _ bytes: Int64, _ files: Int64, _ quota: Quota) -> StructuredError {
        func full(_ what: String, _ used: Int64, _ most: Int64) -> StructuredError {
            StructuredError(
                .storageFull, "the workspace may hold \(most) \(what), and would hold \(used)",
                agent: "Your workspace has reached its quota.",
                recovery: ["Delete what is not needed.", "Ask your supervisor for more: `kruxos agent quota`."],
                context: ["most": .int(most), "would_hold": .int(used), "what": .string(what)])
        }
        if let most = quota.bytes, usage.bytes + bytes > most { return full("bytes", usage.bytes + bytes, most) }
        return full("files", usage.files + files, quota.files ?? 0)
    }
}

extension Workspace {
    package func setQuota(_ quota: Quota?) { meter.set(quota) }

    /// Room for what is about to be written to `path`; see `QuotaMeter.charge`. What is mounted is not counted.
    func charge(_ path: Path, bytes: Int64, files: Int64 = 0) throws(StructuredError) {
        guard path.root === root else { return }
        try meter.charge(bytes: bytes, files: files) { () throws(StructuredError) in
            try usage(Path(root, []))
        }
    }

    /// What lies at `path`, which counts as well unless it is the root.
    func usage(_ path: Path) throws(StructuredError) -> QuotaMeter.Usage {
        var usage = QuotaMeter.Usage()
        func count(_ entry: Entry) {
            usage.files += 1
            if entry.kind == "file" { usage.bytes += Int64(entry.status.st_size) }
        }
        if !path.isRoot {
            guard let status = try status(path) else { return usage }
            count(Entry(path: path, status: status))
            guard status.st_mode & S_IFMT == S_IFDIR else { return usage }
        }
        _ = try walk(path, depth: Self.deepest) { (entry) throws(StructuredError) in
            count(entry)
            return true
        }
        return usage
    }
}
