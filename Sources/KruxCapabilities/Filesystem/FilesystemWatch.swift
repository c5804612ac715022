import Foundation
package import KruxCore
import Synchronization

package struct FilesystemWatch: Capability {
    package static let declaration = CapabilityDeclaration(
        "filesystem.watch", "Waits for a change at or below a path.",
        whenToUse: "To react when a file appears or changes.", effect: .read, tier: .autonomous,
        input: [
            FileSchema.path("What to watch.", reach: .below),
            .optional("timeout_seconds", .integer(1...3600), "How long to wait.", default: 60),
        ],
        output: [
            .required(
                "changes",
                .array(
                    .object([
                        .required("path", .text, "What changed."),
                        .required("kind", .choice(["created", "changed", "removed"]), "How."),
                    ]), maxItems: 10_000), "What changed within a fifth of a second of the first change, by path."),
            .required("timed_out", .boolean, "Whether nothing happened."),
        ],
        errors: [
            FileSchema.missing, FileSchema.outside,
            .init(.tooLarge, when: "more than 20,000 folders lie below", recovery: "watch a smaller part"),
        ])

    package struct Input: CapabilityInput {
        let path: String, timeout: Int64

        package init(_ arguments: Arguments) throws(StructuredError) {
            path = try arguments.text("path")
            timeout = try arguments.int("timeout_seconds")
        }
    }

    package struct Output: CapabilityOutput {
        let changes: [(path: String, kind: String)]
        let timedOut: Bool

        package var json: JSONObject {
            [
                "changes": .array(
                    changes.prefix(10_000).map { ["path": .string($0.path), "kind": .string($0.kind)] }),
                "timed_out": .bool(timedOut),
            ]
        }
    }

    private static let mostFolders = 20_000
    /// What comes with the first change is told with it.
    private static let together: Int32 = 200

    /// What a place looked like: another change time is a change.
    private typealias Look = [String: [Int64]]

    private func look(_ workspace: Workspace, _ path: Workspace.Path) throws(StructuredError) -> Look {
        guard let status = try workspace.status(path) else { return [:] }
        var look: Look = [:]
        func add(_ entry: Workspace.Entry) {
            let times = [entry.status.st_mtim, entry.status.st_ctim].flatMap { [Int64($0.tv_sec), Int64($0.tv_nsec)] }
            // A folder changes with what is in it, which is told by itself.
            look[entry.path.absolute] =
                [Int64(entry.status.st_mode), Int64(entry.status.st_ino)]
                + (entry.kind == "directory" ? [] : times + [Int64(entry.status.st_size)])
        }
        add(Workspace.Entry(path: path, status: status))
        if status.st_mode & S_IFMT == S_IFDIR {
            try workspace.walk(path, depth: Workspace.deepest) { (entry) throws(StructuredError) in
                add(entry)
                return true
            }
        }
        return look
    }

    package func run(_ input: Input, _ context: CallContext) async throws(StructuredError) -> Output {
        let workspace = context.workspace
        let path = try workspace.place(input.path)
        try Self.begin(context.agent)
        defer { Self.watching.withLock { $0[context.agent.text, default: 1] -= 1 } }
        let notify = inotify_init1(Int32(IN_CLOEXEC))
        guard notify >= 0 else { throw FileFailure.error(errno, path.absolute) }
        defer { close(notify) }
        // Listening first, so that nothing falls between.
        try listen(notify, workspace, try workspace.status(path) == nil ? workspace.folder(of: path) : path)
        let before = try look(workspace, path)
        let deadline = ContinuousClock.now + .seconds(input.timeout)
        while true {
            let left = deadline - .now
            guard left > .zero, !Task.isCancelled else { return Output(changes: [], timedOut: true) }
            guard await Readable.wait(notify, milliseconds: Int32(min(left / .milliseconds(1), 3_600_000).rounded(.up)))
            else { continue }
            _ = await Readable.wait(-1, milliseconds: Self.together)
            let after = try look(workspace, path)
            let changes = Set(before.keys).union(after.keys).sorted().compactMap { name -> (String, String)? in
                switch (before[name], after[name]) {
                case (nil, _?): (name, "created")
                case (_?, nil): (name, "removed")
                case (let old, let new): old == new ? nil : (name, "changed")
                }
            }
            if !changes.isEmpty { return Output(changes: changes, timedOut: false) }
            // A folder that was made and is gone, or a look that changed nothing.
            var buffer = [UInt8](repeating: 0, count: 64 << 10)
            _ = read(notify, &buffer, buffer.count)
        }
    }

    /// Of each agent: the kernel has few to give.
    private static let mostAtOnce = 16
    private static let watching = Mutex<[String: Int]>([:])

    private static func begin(_ agent: AgentName) throws(StructuredError) {
        let isRoom = watching.withLock { watching in
            guard watching[agent.text, default: 0] < mostAtOnce else { return false }
            watching[agent.text, default: 0] += 1
            return true
        }
        guard isRoom else {
            throw StructuredError(
                .overloaded, "\(mostAtOnce) places are watched for you already", recovery: ["Let one end first."],
                retryable: true, retryAfter: 5)
        }
    }

    private func listen(_ notify: Int32, _ workspace: Workspace, _ path: Workspace.Path) throws(StructuredError) {
        let events =
            IN_CREATE | IN_DELETE | IN_MODIFY | IN_ATTRIB | IN_MOVED_FROM | IN_MOVED_TO | IN_DELETE_SELF | IN_MOVE_SELF
        var folders = 0
        func add(_ path: Workspace.Path) throws(StructuredError) {
            let descriptor = try workspace.open(path, openPathOnly)
            defer { close(descriptor) }
            folders += 1
            let added = inotify_add_watch(notify, "/proc/self/fd/\(descriptor)", UInt32(events))
            guard added >= 0, folders <= Self.mostFolders else {
                throw StructuredError(
                    .tooLarge, "more lies below `\(path.absolute)` than can be watched",
                    recovery: ["Watch a smaller part of it."])
            }
        }
        try add(path)
        guard let status = try workspace.status(path), status.st_mode & S_IFMT == S_IFDIR else { return }
        try workspace.walk(path, depth: Workspace.deepest) { (entry) throws(StructuredError) in
            if entry.kind == "directory" { try add(entry.path) }
            return true
        }
    }
}

/// Waits for a descriptor without holding a cooperative thread.
enum Readable {
    /// - Parameter descriptor: -1 waits for the time alone.
    /// - Returns: whether there is something to read.
    static func wait(_ descriptor: Int32, milliseconds: Int32) async -> Bool {
        await withCheckedContinuation { continuation in
            let thread = Thread {
                var waiting = pollfd(fd: descriptor, events: Int16(POLLIN), revents: 0)
                continuation.resume(returning: poll(&waiting, 1, milliseconds) > 0)
            }
            thread.stackSize = 64 << 10
            thread.start()
        }
    }
}
