import Foundation
import Glibc
import KruxCore

/// One HTTP/1.1 exchange with a gateway on this machine, for `quickstart`, which plays an agent. Nothing else in the
/// product is an HTTP client of this kind.
struct LoopbackClient {
    let host: String
    let port: UInt16
    let token: String

    func post(_ path: String, _ json: JSONObject) throws -> (status: Int, body: JSONValue) {
        try exchange("POST", path, json.canonicalBytes())
    }

    func get(_ path: String) throws -> (status: Int, body: JSONValue) { try exchange("GET", path, []) }

    private func exchange(_ method: String, _ path: String, _ body: [UInt8]) throws -> (status: Int, body: JSONValue) {
        func failure(_ text: String) -> StructuredError {
            StructuredError(
                .unavailable, "the gateway on port \(port) \(text)", recovery: ["Look into gateway.log in its home."])
        }
        let descriptor = socket(AF_INET, Int32(SOCK_STREAM.rawValue | SOCK_CLOEXEC.rawValue), 0)
        defer { close(descriptor) }
        var address = sockaddr_in()
        address.sin_family = sa_family_t(AF_INET)
        address.sin_port = port.bigEndian
        inet_pton(AF_INET, host, &address.sin_addr)
        let connected = withUnsafePointer(to: &address) {
            $0.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                connect(descriptor, $0, socklen_t(MemoryLayout<sockaddr_in>.size))
            }
        }
        guard descriptor >= 0, connected == 0 else { throw failure("does not answer") }
        let head =
            "\(method) \(path) HTTP/1.1\r\nHost: \(host):\(port)\r\nAuthorization: Bearer \(token)\r\n"
            + "Content-Type: application/json\r\nContent-Length: \(body.count)\r\nConnection: close\r\n\r\n"
        var rest = (Array(head.utf8) + body)[...]
        while !rest.isEmpty {
            let count = rest.withUnsafeBytes { send(descriptor, $0.baseAddress, $0.count, Int32(MSG_NOSIGNAL)) }
            if count <= 0 { throw failure("hung up") }
            rest = rest.dropFirst(count)
        }
        var reply: [UInt8] = []
        var buffer = [UInt8](repeating: 0, count: 64 << 10)
        while true {
            let count = recv(descriptor, &buffer, buffer.count, 0)
            if count < 0, errno == EINTR { continue }
            if count <= 0 { break }
            reply += buffer[..<count]
            if let (_, length, start) = Self.head(reply), let length, reply.count >= start + length { break }
        }
        guard let (status, length, start) = Self.head(reply) else { throw failure("answered with no HTTP") }
        let content = length == nil ? Self.dechunk(reply[start...]) : Array(reply[start...])
        return (status, try JSONParser.parse(content))
    }

    private static func head(_ bytes: [UInt8]) -> (status: Int, length: Int?, start: Int)? {
        guard let end = bytes.firstRange(of: Array("\r\n\r\n".utf8)) else { return nil }
        let lines = String(decoding: bytes[..<end.lowerBound], as: UTF8.self).split(separator: "\r\n")
        let words = lines.first?.split(separator: " ") ?? []
        guard words.count >= 2, let status = Int(words[1]) else { return nil }
        let length = lines.dropFirst().first { $0.lowercased().hasPrefix("content-length:") }
            .flatMap { Int($0.dropFirst(15).filter { $0 != " " }) }
        return (status, length, end.upperBound)
    }

    private static func dechunk(_ bytes: ArraySlice<UInt8>) -> [UInt8] {
        var result: [UInt8] = []
        var rest = bytes
        while let line = rest.firstRange(of: Array("\r\n".utf8)),
            let size = Int(String(decoding: rest[..<line.lowerBound], as: UTF8.self), radix: 16), size > 0
        {
            let start = line.upperBound
            guard start + size <= rest.endIndex else { break }
            result += rest[start..<start + size]
            rest = rest[(start + size)...].dropFirst(2)
        }
        return result
    }
}
