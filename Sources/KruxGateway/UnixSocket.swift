import Foundation
import Glibc
package import KruxCore
import Synchronization

/// Unix sockets by folder and name: a path in `sockaddr_un` holds 107 bytes, and homes may be longer, so the folder is
/// named through a descriptor.
package enum UnixSocket {
    private static func failure(_ what: String) -> StructuredError {
        StructuredError(.ioFailure, "\(what): \(String(cString: strerror(errno)))")
    }

    private static func withAddress<R>(
        _ folder: String, _ name: String, _ body: (UnsafePointer<sockaddr>, socklen_t) -> R
    ) throws(StructuredError) -> R {
        let directory = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC)
        guard directory >= 0 else { throw failure("cannot open `\(folder)`") }
        defer { close(directory) }
        var address = sockaddr_un()
        address.sun_family = sa_family_t(AF_UNIX)
        let path = Array("/proc/self/fd/\(directory)/\(name)".utf8)
        withUnsafeMutableBytes(of: &address.sun_path) { $0.copyBytes(from: path) }
        return withUnsafePointer(to: &address) {
            $0.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                body($0, socklen_t(MemoryLayout<sockaddr_un>.size))
            }
        }
    }

    /// A listening socket, 0600.
    package static func bind(_ folder: String, _ name: String) throws(StructuredError) -> Int32 {
        let descriptor = socket(AF_UNIX, Int32(SOCK_STREAM.rawValue | SOCK_CLOEXEC.rawValue), 0)
        guard descriptor >= 0 else { throw failure("no socket") }
        let mask = umask(0o177)
        let result = try withAddress(folder, name) { Glibc.bind(descriptor, $0, $1) }
        umask(mask)
        guard result == 0, listen(descriptor, 64) == 0 else {
            let error = failure("cannot listen on `\(folder)/\(name)`")
            close(descriptor)
            throw error
        }
        return descriptor
    }

    /// A connection; nil when nobody listens.
    package static func connect(_ folder: String, _ name: String) throws(StructuredError) -> Int32? {
        guard access(folder, F_OK) == 0 else { return nil }
        let descriptor = socket(AF_UNIX, Int32(SOCK_STREAM.rawValue | SOCK_CLOEXEC.rawValue), 0)
        guard descriptor >= 0 else { throw failure("no socket") }
        let result = try withAddress(folder, name) { Glibc.connect(descriptor, $0, $1) }
        if result == 0 { return descriptor }
        let code = errno
        close(descriptor)
        if code == ENOENT || code == ECONNREFUSED { return nil }
        errno = code
        throw failure("cannot connect to `\(folder)/\(name)`")
    }
}

/// A stream socket as lines of JSON. Reading is one thread's; writing is anybody's.
package final class LineConnection: Sendable {
    private let descriptor: Int32
    private let longestLine: Int
    private let writing = Mutex(false)
    private let buffered = Mutex<[UInt8]>([])

    package init(_ descriptor: Int32, longestLine: Int) {
        self.descriptor = descriptor
        self.longestLine = longestLine
    }

    /// The next line without its end; nil at the end of the stream, or when a line is too long.
    package func read() -> [UInt8]? {
        buffered.withLock { buffer in
            var searched = 0
            while true {
                if let end = buffer[searched...].firstIndex(of: 0x0A) {
                    let line = Array(buffer[..<end])
                    buffer.removeFirst(end + 1)
                    return line
                }
                searched = buffer.count
                if buffer.count > longestLine { return nil }
                var chunk = [UInt8](repeating: 0, count: 64 << 10)
                let count = Glibc.read(descriptor, &chunk, chunk.count)
                if count < 0, errno == EINTR { continue }
                if count <= 0 { return nil }
                buffer += chunk[..<count]
            }
        }
    }

    /// Writes one line. A peer that is gone is noticed by the reader.
    package func write(_ json: JSONObject) { write(line: json.canonicalBytes()) }

    package func write(line: [UInt8]) {
        writing.withLock { _ in
            var rest = (line + [0x0A])[...]
            while !rest.isEmpty {
                let count = rest.withUnsafeBytes { send(descriptor, $0.baseAddress, $0.count, Int32(MSG_NOSIGNAL)) }
                if count < 0, errno == EINTR { continue }
                if count <= 0 { return }
                rest = rest.dropFirst(count)
            }
        }
    }

    /// Ends both directions; the reader sees the end of the stream.
    package func end() { shutdown(descriptor, Int32(SHUT_RDWR)) }
}
