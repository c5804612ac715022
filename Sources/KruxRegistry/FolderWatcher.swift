import Foundation
import Glibc
import Synchronization

/// Tells when policy files change, with inotify: a thread that sleeps until something happens. Saves by rename, swap
/// files, and a folder that is replaced or made later are all changes; a burst of them is told once it is over.
package final class FolderWatcher: Sendable {
    /// A burst is over after this long without a change, or after the longer time in any case.
    private static let quietMilliseconds: Int32 = 25
    private static let longestMilliseconds: Int64 = 60

    private let inotify: Int32
    /// A pipe whose closing ends the thread.
    private let wake: Int32
    private let waker: Int32
    private let stopped = Mutex(false)
    private let folders: [String]

    /// - Parameters:
    ///   - folders: watched with their parents, so that one which is made later is seen. Those that are not there are
    ///     no error.
    ///   - changed: called on the watcher's thread.
    /// - Returns: nil when the system has no inotify instance left.
    package init?(folders: [String], changed: @escaping @Sendable () -> Void) {
        inotify = inotify_init1(Int32(IN_CLOEXEC) | Int32(IN_NONBLOCK))
        guard inotify >= 0 else { return nil }
        var ends: [Int32] = [-1, -1]
        guard pipe(&ends) == 0 else {
            Glibc.close(inotify)
            return nil
        }
        // Nothing is forked from here between the two calls: the zygote is older than every engine.
        for end in ends { _ = fcntl(end, F_SETFD, FD_CLOEXEC) }
        wake = ends[0]
        waker = ends[1]
        self.folders = folders
        let names = watch()
        let thread = Thread { [self] in loop(names, changed) }
        thread.name = "kruxos.policies"
        thread.stackSize = 1 << 20
        thread.start()
    }

    package func stop() {
        let first = stopped.withLock { stopped in
            defer { stopped = true }
            return !stopped
        }
        if first { Glibc.close(waker) }
    }

    /// What a watch descriptor stands for: a folder whose every file counts, or a parent of which one name does.
    private enum Watched {
        case folder
        case parent(of: Set<String>)
    }

    private func watch() -> [Int32: Watched] {
        var watched: [Int32: Watched] = [:]
        let changes = UInt32(
            IN_CLOSE_WRITE | IN_MOVED_FROM | IN_MOVED_TO | IN_DELETE | IN_CREATE | IN_ATTRIB | IN_DELETE_SELF
                | IN_MOVE_SELF)
        for folder in folders {
            let descriptor = inotify_add_watch(inotify, folder, changes | UInt32(IN_ONLYDIR))
            if descriptor >= 0 { watched[descriptor] = .folder }
        }
        for folder in folders {
            let parent = (folder as NSString).deletingLastPathComponent
            let name = (folder as NSString).lastPathComponent
            let mask = UInt32(IN_CREATE | IN_MOVED_TO | IN_MOVED_FROM | IN_DELETE) | UInt32(IN_ONLYDIR)
            // A parent that is watched itself needs no second watch: every name in it counts.
            if folders.contains(parent), access(parent, F_OK) == 0 { continue }
            let descriptor = inotify_add_watch(inotify, parent, mask)
            guard descriptor >= 0 else { continue }
            if case .parent(let names)? = watched[descriptor] {
                watched[descriptor] = .parent(of: names.union([name]))
            } else {
                watched[descriptor] = .parent(of: [name])
            }
        }
        return watched
    }

    private func loop(_ initial: [Int32: Watched], _ changed: @Sendable () -> Void) {
        var watched = initial
        defer {
            Glibc.close(inotify)
            Glibc.close(wake)
        }
        while true {
            wait(milliseconds: -1)
            if stopped.withLock({ $0 }) { return }
            guard drain(watched) else { continue }
            let start = Self.milliseconds()
            while Self.milliseconds() - start < Self.longestMilliseconds, wait(milliseconds: Self.quietMilliseconds) {
                if stopped.withLock({ $0 }) { return }
                _ = drain(watched)
            }
            // Folders may be new ones of the same name. Adding a watch twice is adding it once.
            watched = watch()
            changed()
        }
    }

    /// Whether something happened in time.
    @discardableResult
    private func wait(milliseconds: Int32) -> Bool {
        var descriptors = [
            pollfd(fd: inotify, events: Int16(POLLIN), revents: 0), pollfd(fd: wake, events: Int16(POLLIN), revents: 0),
        ]
        while true {
            let ready = poll(&descriptors, 2, milliseconds)
            if ready < 0, errno == EINTR { continue }
            return ready > 0
        }
    }

    /// Takes what happened; whether any of it counts.
    private func drain(_ watched: [Int32: Watched]) -> Bool {
        var counts = false
        // Aligned for `inotify_event`, and room for a few with the longest names.
        let size = 16 << 10
        let buffer = UnsafeMutableRawPointer.allocate(byteCount: size, alignment: MemoryLayout<inotify_event>.alignment)
        defer { buffer.deallocate() }
        while true {
            let count = read(inotify, buffer, size)
            if count < 0, errno == EINTR { continue }
            guard count > 0 else { return counts }
            var offset = 0
            while offset + MemoryLayout<inotify_event>.size <= count {
                let event = buffer.load(fromByteOffset: offset, as: inotify_event.self)
                let nameStart = offset + MemoryLayout<inotify_event>.size
                let name =
                    event.len == 0
                    ? "" : String(cString: buffer.advanced(by: nameStart).assumingMemoryBound(to: CChar.self))
                switch watched[event.wd] {
                case .parent(let names)?: counts = counts || names.contains(name)
                // An overflow has no descriptor; what was lost may have counted.
                // A file that is made is told of again once it is written and closed; until then it may be half there.
                case .folder?:
                    let made = event.mask & UInt32(IN_CREATE) != 0 && event.mask & UInt32(IN_ISDIR) == 0
                    counts = counts || !made || Self.isLink(name, in: folders)
                case nil: counts = true
                }
                offset = nameStart + Int(event.len)
            }
        }
    }

    /// A link is whole once it is made.
    private static func isLink(_ name: String, in folders: [String]) -> Bool {
        folders.contains { folder in
            var status = stat()
            return lstat("\(folder)/\(name)", &status) == 0 && status.st_mode & S_IFMT == S_IFLNK
        }
    }

    private static func milliseconds() -> Int64 {
        var time = timespec()
        clock_gettime(CLOCK_MONOTONIC, &time)
        return Int64(time.tv_sec) * 1000 + Int64(time.tv_nsec) / 1_000_000
    }
}
