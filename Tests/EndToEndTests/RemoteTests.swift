import Foundation
import KruxCore
import KruxTestSupport
import Testing

/// Remote repositories over HTTP, with a login that the agent never sees.
@Suite struct RemoteTests {
    private static let policy = """
        name: org
        defaults: { tier: autonomous }
        capabilities:
          git.*: { tier: autonomous, sandbox: { addresses: [127.0.0.0/8] } }
        """

    @Test func workGoesToARemoteAndBack() async throws {
        try await withTemporaryFolder { folder in
            let served = folder + "/served"
            try FileManager.default.createDirectory(atPath: served, withIntermediateDirectories: true)
            let bare = try Kruxos.execute(
                "/usr/bin/git", ["init", "-q", "--bare", "-b", "main", served + "/project.git"])
            #expect(bare.code == 0)
            let server = try PeerProcess("git_server.py", [served, "agent:hunter2-hunter2"])
            defer { server.stop() }
            let port = server.firstLine
            try await RealGateway.with(policies: ["org.yaml": Self.policy]) { gateway, token in
                let kruxos = gateway.kruxos
                let passphrase = folder + "/passphrase"
                try write("correct horse battery\n", to: passphrase)
                #expect(try kruxos.run("vault", "init", "--passphrase-file", passphrase).code == 0)
                let added = try kruxos.run(
                    "vault", "add", "remote", "--capability", "git.*", "--host", "localhost:\(port)", "--plain-http",
                    input: "hunter2-hunter2\n")
                #expect(added.code == 0, "\(added.errors)")
                func call(_ capability: String, _ arguments: JSONObject) throws -> JSONValue {
                    let body: JSONValue = ["capability": .string(capability), "arguments": .object(arguments)]
                    let reply = try Kruxos.execute(
                        "/usr/bin/curl",
                        [
                            "-sS", "-H", "Authorization: Bearer \(token)", "-d", body.canonicalText,
                            gateway.agentsURL + "/v1/call",
                        ])
                    return try JSONParser.parse(reply.output)
                }
                func done(_ capability: String, _ arguments: JSONObject) throws -> JSONValue {
                    let reply = try call(capability, arguments)
                    #expect(reply["status"] == "succeeded", "\(capability): \(reply.canonicalText)")
                    return reply["data"] ?? .null
                }
                let url = JSONValue.string("http://localhost:\(port)/project.git")
                // Without the login it is not let in; with a repository of this machine git is not started at all.
                #expect(try call("git.clone", ["url": url, "path": "none"])["status"] == "failed")
                let local = try call("git.clone", ["url": .string("file://\(served)/project.git"), "path": "none"])
                #expect(local["error"]?["error_type"] == "InvalidArguments")
                let login: JSONObject = ["secret": "remote", "username": "agent"]
                func with(_ arguments: JSONObject) -> JSONObject {
                    JSONObject(arguments.members.map { ($0.key, $0.value) } + login.members.map { ($0.key, $0.value) })
                }
                _ = try done("git.clone", with(["url": url, "path": "a"]))
                _ = try done("filesystem.write", ["path": "a/file.txt", "content": "one\n"])
                _ = try done("git.commit", ["path": "a", "message": "one", "files": ["file.txt"]])
                let pushed = try done("git.push", with(["path": "a"]))
                #expect(pushed["connections"]?.array?.isEmpty == false)
                _ = try done("git.clone", with(["url": url, "path": "b"]))
                _ = try done("filesystem.write", ["path": "b/file.txt", "content": "two\n"])
                _ = try done("git.commit", ["path": "b", "message": "two", "files": ["file.txt"]])
                _ = try done("git.push", with(["path": "b"]))
                _ = try done("git.pull", with(["path": "a"]))
                #expect(try done("filesystem.read", ["path": "a/file.txt"])["content"] == "two\n")
                let log = try Kruxos.execute(
                    "/usr/bin/git", ["-C", served + "/project.git", "log", "--format=%s", "main"])
                #expect(log.output == "two\none\n", "\(log.errors)")
                #expect(try kruxos.run("audit", "verify").code == 0)
            }
        }
    }
}
