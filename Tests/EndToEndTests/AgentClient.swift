import Foundation
import KruxCore
import KruxTestSupport

/// An agent that calls over HTTP, as curl does.
struct AgentClient {
    let gateway: RealGateway
    let token: String

    /// The whole reply.
    func call(_ capability: String, _ arguments: JSONObject = [:]) throws -> JSONValue {
        let body: JSONValue = ["capability": .string(capability), "arguments": .object(arguments)]
        let reply = try Kruxos.execute(
            "/usr/bin/curl",
            [
                "-sS", "-H", "Authorization: Bearer \(token)", "--data-binary", "@-", gateway.agentsURL + "/v1/call",
            ], input: body.canonicalText)
        return try JSONParser.parse(reply.output)
    }

    /// The result of a call that succeeds.
    func done(_ capability: String, _ arguments: JSONObject = [:]) throws -> JSONValue {
        let reply = try call(capability, arguments)
        guard reply["status"] == "succeeded", let data = reply["data"] else {
            throw TestFailure("\(capability): \(reply.canonicalText)")
        }
        return data
    }

    /// Puts another organisation's policy in force, which decides a capability so.
    func setPolicy(_ text: String, _ capability: String, is tier: String) async throws {
        let kruxos = gateway.kruxos
        let file = kruxos.home + "/policies/org.yaml"
        try write(text, to: file + ".new")
        guard rename(file + ".new", file) == 0 else { throw TestFailure("no policy could be written") }
        for _ in 0..<300 {
            let told = try kruxos.run(
                "config", "check-policy", "--agent", "tester", "--capability", capability, "--json")
            if told.output.contains("\"tier\": \"\(tier)\"") { return }
            try await Task.sleep(for: .milliseconds(50))
        }
        throw TestFailure("\(capability) never became \(tier): \(try kruxos.run("status").output)")
    }

    /// A vault with secrets, unlocked.
    func addSecrets(
        _ secrets: [(name: String, value: String, options: [String])], in folder: String, isNew: Bool = true
    ) throws {
        let passphrase = folder + "/passphrase"
        try write("correct horse battery\n", to: passphrase)
        let home = ["--home", gateway.kruxos.home]
        if isNew {
            let made = try Kruxos.execute(Kruxos.path, ["vault", "init", "--passphrase-file", passphrase] + home)
            guard made.code == 0 else { throw TestFailure(made.errors) }
        }
        for (name, value, options) in secrets {
            let added = try Kruxos.execute(Kruxos.path, ["vault", "add", name] + options + home, input: value)
            guard added.code == 0 else { throw TestFailure(added.errors) }
        }
    }
}
