import Foundation
import KruxAudit
import KruxCrypto
import KruxOutbound
import KruxTestSupport
import Testing

/// A target that does not answer as it should must not keep the gateway.
@Suite struct AnchorSenderTests {
    private let note = SignedNote(
        text: "example.com/log\n5\n47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=\n", lines: [])

    /// Sends with a deadline of one second and returns why it failed.
    private func failure(_ kind: AnchorTarget.Kind) async throws -> String {
        do {
            _ = try await AnchorSender(timeoutSeconds: 1).send(note, to: kind, old: 0) { _ in [] }
        } catch let error as AnchorSender.Failure {
            return error.reason
        }
        throw TestFailure("it was sent")
    }

    /// Answers with its head at once and then with a byte every 50 ms, until the client is gone.
    private func drippingWitness() throws -> UInt16 {
        let listener = socket(AF_INET, Int32(SOCK_STREAM.rawValue) | Int32(SOCK_CLOEXEC.rawValue), 0)
        var address = sockaddr_in()
        address.sin_family = sa_family_t(AF_INET)
        address.sin_addr.s_addr = UInt32(0x7F00_0001).bigEndian
        var length = socklen_t(MemoryLayout<sockaddr_in>.size)
        let port = withUnsafeMutablePointer(to: &address) {
            $0.withMemoryRebound(to: sockaddr.self, capacity: 1) { address -> UInt16? in
                guard bind(listener, address, length) == 0, listen(listener, 1) == 0,
                    getsockname(listener, address, &length) == 0
                else { return nil }
                return address.withMemoryRebound(to: sockaddr_in.self, capacity: 1) { $0.pointee.sin_port.bigEndian }
            }
        }
        Thread.detachNewThread {
            let client = accept(listener, nil, nil)
            // An answer to nothing would be no answer.
            var buffer = [UInt8](repeating: 0, count: 4096)
            _ = recv(client, &buffer, buffer.count, 0)
            let head = Array("HTTP/1.1 200 OK\r\nContent-Length: 5000\r\n\r\n".utf8)
            var sent = send(client, head, head.count, Int32(MSG_NOSIGNAL))
            while sent > 0 {
                usleep(50_000)
                sent = send(client, [120], 1, Int32(MSG_NOSIGNAL))
            }
            close(client)
            close(listener)
        }
        return try #require(port)
    }

    @Test func aWitnessThatAnswersDropByDropIsGivenUp() async throws {
        let url = "http://127.0.0.1:\(try drippingWitness())"
        guard let key = SigningKey(seed: [UInt8](repeating: 1, count: 32)) else { throw TestFailure("no key") }
        let verifier = NoteKey(name: "w.example", kind: .cosignature, publicKey: key.publicKey)
        let reason = try await failure(.witness(url: url, verifier: verifier))
        #expect(reason == "the witness did not answer within 1 s")
    }

    @Test func aCommandThatDoesNotEndIsKilledWithAllItStarted() async throws {
        try await withTemporaryFolder { folder in
            let reason = try await failure(
                .command(arguments: ["/bin/sh", "-c", "sleep 600 & echo $! > \(folder)/child; wait"]))
            #expect(reason.contains("did not end within 1 s"), "\(reason)")
            let child = try String(contentsOfFile: folder + "/child", encoding: .utf8).trimmingCharacters(
                in: .whitespacesAndNewlines)
            // Dead, whether somebody has taken note of it or not.
            let state = try? String(contentsOfFile: "/proc/\(child)/stat", encoding: .utf8).split(separator: " ")[2]
            #expect(state == nil || state == "Z" || state == "X", "\(state ?? "")")
        }
    }

    /// What it left behind holds its output open; its own end counts.
    @Test func aCommandThatLeavesAChildBehindHasEnded() async throws {
        try await withTemporaryFolder { folder in
            let line = "cat > \(folder)/note; sleep 600 & echo $! > \(folder)/child"
            _ = try await AnchorSender(timeoutSeconds: 30).send(
                note, to: .command(arguments: ["/bin/sh", "-c", line]), old: 0
            ) { _ in [] }
            #expect(try String(contentsOfFile: folder + "/note", encoding: .utf8) == note.encoded)
            let child = try String(contentsOfFile: folder + "/child", encoding: .utf8)
            kill(try #require(pid_t(child.dropLast())), SIGKILL)
        }
    }

    @Test func aPipeAndADeviceAreNoFiles() async throws {
        try await withTemporaryFolder { folder in
            #expect(mkfifo(folder + "/pipe", 0o600) == 0)
            for path in [folder + "/pipe", "/dev/null"] {
                let reason = try await failure(.file(path: path))
                #expect(reason.contains("is no regular file"), "\(reason)")
            }
            #expect(try await failure(.file(path: folder + "/missing/file")).contains("cannot open"))
        }
    }
}
