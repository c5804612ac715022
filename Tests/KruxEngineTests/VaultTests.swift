import Foundation
import KruxAudit
import KruxCapabilities
import KruxCore
import KruxCrypto
import KruxEngine
import KruxStore
import KruxTestSupport
import Logging
import Testing

/// Secrets: what they may be used for, what is written of them, and who can open them.
@Suite struct VaultTests {
    private static let passphrase = Base64.encode(Array("correct horse battery".utf8))
    private static let value = "ghp_0123456789abcdefXYZ"

    private struct Fixture {
        let home: Home
        let engine: Engine

        static func with<R>(_ policy: String = "", _ body: (Fixture) async throws -> R) async throws -> R {
            try await withTemporaryFolder { folder in
                let home = Home(root: folder + "/home")
                try write(
                    "name: org\ncapabilities:\n  \"*\": { tier: autonomous }\n" + policy,
                    to: "\(home.policies)/org.yaml")
                let engine = try Engine(home: home, log: Logger(label: "test"))
                for name in ["one", "two"] {
                    _ = try await engine.operate(
                        .agentCreate, ["name": .string(name), "purpose": "tests"], by: .supervisor("owner"))
                }
                let fixture = Fixture(home: home, engine: engine)
                try await fixture.operate(.vaultInit, ["passphrase": .string(passphrase)])
                let result = try await body(fixture)
                try engine.close()
                let verdict = try AuditVerifier.verify { try ReadOnlyStore(path: home.database) }
                #expect(verdict.isIntact)
                return result
            }
        }

        @discardableResult
        func operate(_ command: Engine.OperatorCommand, _ parameters: JSONObject) async throws -> JSONObject {
            try await engine.operate(command, parameters, by: .supervisor("owner"))
        }

        func add(_ name: String, _ scope: JSONObject, value: String = VaultTests.value) async throws {
            var parameters = scope
            parameters["name"] = .string(name)
            parameters["value"] = .string(Base64.encode(Array(value.utf8)))
            try await operate(.vaultAdd, parameters)
        }

        func call(_ agent: String, _ capability: String, _ arguments: JSONObject) async throws -> Result<
            JSONObject, StructuredError
        > {
            let reply = await engine.call(
                CallRequest(capability: capability, arguments: arguments),
                by: try engine.caller(agentNamed: agent, via: "test"))
            switch reply {
            case .succeeded(let data, _, _): return .success(data)
            case .failed(let error): return .failure(error)
            }
        }

        func use(_ agent: String, _ name: String, _ command: String, capability: String = "process.run") async throws
            -> Result<JSONObject, StructuredError>
        {
            try await call(
                agent, "secrets.use",
                [
                    "name": .string(name), "capability": .string(capability),
                    "arguments": ["command": .string(command), "shell": true], "argument": "env.TOKEN",
                ])
        }
    }

    private func kind(_ result: Result<JSONObject, StructuredError>) -> StructuredError.Kind? {
        if case .failure(let error) = result { error.kind } else { nil }
    }

    @Test func aSecretIsUsedAndStandsNowhere() async throws {
        try await Fixture.with { fixture in
            try await fixture.add("token", ["capabilities": ["process.run"]])
            let command =
                "printf %s \"$TOKEN\" | sha256sum; echo $TOKEN; printf %s $TOKEN | base64; printf %s $TOKEN | xxd -p 2>/dev/null || printf %s $TOKEN | od -An -tx1 | tr -d ' \\n'; echo $TOKEN > left"
            let result = try await fixture.use("one", "token", command).get()["result"]
            let output = try #require(result?["stdout"]?.string)
            #expect(output.contains(sha256(Array(Self.value.utf8)).hex), "\(output)")
            for form in [Self.value, Base64.encode(Array(Self.value.utf8)), Array(Self.value.utf8).hex] {
                #expect(!output.contains(form), "\(output)")
            }
            // Nor in what a later call reads, nor in the file of the gate.
            let read = try await fixture.call("one", "filesystem.read", ["path": "left"]).get()
            #expect(read["content"]?.string?.contains(Self.value) == false)
            for file in ["kruxos.db", "kruxos.db-wal"] {
                let data = FileManager.default.contents(atPath: fixture.home.root + "/" + file) ?? Data()
                #expect(data.firstRange(of: Data(Self.value.utf8)) == nil)
            }
        }
    }

    @Test func aSecretIsForWhatItSays() async throws {
        try await Fixture.with { fixture in
            try await fixture.add("narrow", ["capabilities": ["filesystem.*"], "agents": ["one"]])
            #expect(kind(try await fixture.use("one", "narrow", "true")) == .blocked)
            #expect(kind(try await fixture.use("two", "narrow", "true")) == .notFound)
            #expect(kind(try await fixture.use("one", "other", "true")) == .notFound)
            #expect(
                kind(try await fixture.use("one", "narrow", "true", capability: "secrets.read_raw"))
                    == .invalidArguments)
            let mine = try await fixture.call("one", "secrets.list", [:]).get()["secrets"]?.array
            #expect(mine?.compactMap { $0["name"]?.string } == ["narrow"])
            #expect(try await fixture.call("two", "secrets.list", [:]).get()["secrets"]?.array == [])
            // A host it may not be sent to is never asked for.
            try await fixture.add(
                "web", ["capabilities": ["network.credentialed_request"], "hosts": ["api.example.com"]])
            for url in ["https://evil.example/", "https://api.example.com:8443/", "http://api.example.com/"] {
                let sent = try await fixture.call(
                    "one", "network.credentialed_request", ["url": .string(url), "secret": "web"])
                #expect(kind(sent) == .blocked, "\(url): \(sent)")
            }
        }
    }

    @Test func whoLocksTheVaultTakesItAway() async throws {
        try await Fixture.with { fixture in
            try await fixture.add("token", ["capabilities": ["process.run"]])
            try await fixture.operate(.vaultLock, [:])
            #expect(kind(try await fixture.use("one", "token", "true")) == .vaultLocked)
            let wrong = Base64.encode(Array("wrong horse battery".utf8))
            await #expect(throws: StructuredError.self) {
                try await fixture.operate(.vaultUnlock, ["passphrase": .string(wrong)])
            }
            #expect(kind(try await fixture.use("one", "token", "true")) == .vaultLocked)
            let next = Base64.encode(Array("another horse battery".utf8))
            try await fixture.operate(
                .vaultPassphrase, ["current": .string(Self.passphrase), "passphrase": .string(next)])
            await #expect(throws: StructuredError.self) {
                try await fixture.operate(.vaultUnlock, ["passphrase": .string(Self.passphrase)])
            }
            try await fixture.operate(.vaultUnlock, ["passphrase": .string(next)])
            #expect(kind(try await fixture.use("one", "token", "true")) == nil)
        }
    }

    /// Commands on an open vault whose parameters are of another type, missing, huge or no text change nothing.
    @Test func oddParametersChangeNoVault() async throws {
        try await Fixture.with { fixture in
            let scope: JSONObject = ["capabilities": ["process.run"], "hosts": []]
            try await fixture.add("kept", scope)
            let deep = (0..<200).reduce(JSONValue.null) { inner, _ in [inner] }
            let odd: [JSONValue] = [
                .null, true, 7, -1, .double(1.5), "", "\u{0}", "a\u{0}b", "../x",
                .string(String(repeating: "x", count: 1 << 20)),
                [], [7], [:], ["name": "kept"], deep,
            ]
            let good: [(Engine.OperatorCommand, JSONObject)] = [
                (.vaultAdd, ["name": "new", "value": "eA==", "capabilities": ["process.run"], "hosts": []]),
                (.vaultRotate, ["name": "kept", "value": "eA=="]), (.vaultRevoke, ["name": "kept"]),
            ]
            for (command, parameters) in good {
                for name in parameters.keys {
                    for value in odd {
                        // No hosts are hosts as well.
                        if name == "hosts", value == .null || value == [] { continue }
                        var parameters = parameters
                        parameters[name] = value
                        await #expect(throws: (any Error).self, "\(command) \(name) \("\(value)".prefix(60))") {
                            try await fixture.operate(command, parameters)
                        }
                    }
                }
            }
            for (name, value) in [
                ("hosts", JSONValue.array(["a b"])), ("agents", "one"), ("agents", [7]), ("agents", ["one", 7]),
                ("agents", ["nobody"]), ("agents", ["one": true]), ("plain_http", "no"), ("plain_http", 0),
            ] {
                var parameters = good[0].1
                parameters[name] = value
                await #expect(throws: (any Error).self, "\(name) \(value)") {
                    try await fixture.operate(.vaultAdd, parameters)
                }
            }
            let used = try await fixture.use("one", "kept", "test -n \"$TOKEN\"").get()
            #expect(used["result"]?["exit_code"] == 0, "\(used)")
            let listed = try await fixture.call("one", "secrets.list", [:]).get()
            #expect(listed["secrets"]?.array?.compactMap { $0["name"]?.string } == ["kept"], "\(listed)")
        }
    }

    /// What a secret is for cannot be widened in the file, nor an old value put back under a new version.
    @Test func aChangedScopeDoesNotOpen() async throws {
        try await Fixture.with { fixture in
            try await fixture.add("token", ["capabilities": ["filesystem.read"]])
            let database = fixture.home.database
            let changed = try Kruxos.execute(
                "/usr/bin/sqlite3",
                [
                    database,
                    "PRAGMA trusted_schema = ON; UPDATE secrets SET scope = replace(scope, 'filesystem.read', 'process.run')",
                ])
            #expect(changed.code == 0, "\(changed.errors)")
            #expect(kind(try await fixture.use("one", "token", "true")) == .conflict)
        }
    }

    @Test func rotatedAndRevoked() async throws {
        try await Fixture.with { fixture in
            try await fixture.add("token", ["capabilities": ["process.run"]])
            let next = "another-value-0123456789"
            let rotated = try await fixture.operate(
                .vaultRotate, ["name": "token", "value": .string(Base64.encode(Array(next.utf8)))])
            #expect(rotated["version"] == 2)
            let output = try await fixture.use("one", "token", "printf %s $TOKEN | sha256sum").get()["result"]
            #expect(output?["stdout"]?.string?.contains(sha256(Array(next.utf8)).hex) == true)
            try await fixture.operate(.vaultRevoke, ["name": "token"])
            #expect(kind(try await fixture.use("one", "token", "true")) == .notFound)
            // Its old values are nowhere in the file.
            try await fixture.add("token", ["capabilities": ["process.run"]])
            #expect(kind(try await fixture.use("one", "token", "true")) == nil)
        }
    }

    /// What asks for approval inside is covered by a person's answer to the outer call, and by nothing else.
    @Test func theInnerCallIsDecided() async throws {
        let policy = "  process.run: { tier: approval_required }\n  filesystem.write: { tier: blocked }\n"
        try await Fixture.with(policy) { fixture in
            try await fixture.add("token", ["capabilities": ["process.run", "filesystem.*"]])
            #expect(kind(try await fixture.use("one", "token", "true")) == .blocked)
            let deleted = try await fixture.call(
                "one", "secrets.use",
                [
                    "name": "token", "capability": "filesystem.write", "arguments": ["path": "x"],
                    "argument": "content",
                ])
            #expect(kind(deleted) == .blocked)
        }
        try await Fixture.with(policy + "  secrets.use: { tier: approval_required }\n") { fixture in
            try await fixture.add("token", ["capabilities": ["process.run"]])
            let asked = try await fixture.use("one", "token", "printf %s $TOKEN | wc -c > counted")
            guard case .failure(let pending) = asked, let id = pending.context["request_id"]?.string else {
                throw TestFailure("\(asked)")
            }
            let shown = try fixture.engine.supervisedApproval(id)["shown"]?["effect"]?.string ?? ""
            #expect(shown.hasPrefix("With the secret `token` as env.TOKEN: Gives a line to /bin/sh"), "\(shown)")
            try await fixture.operate(.approvalDecide, ["id": .string(id), "approve": true])
            await fixture.engine.runApproved(id)
            let read = try await fixture.call("one", "filesystem.read", ["path": "counted"]).get()
            #expect(read["content"] == .string("\(Self.value.utf8.count)\n"))
        }
    }

    /// What rules read, and what names something, gets no secret: it would be shown, or sent where nobody decided.
    @Test(arguments: [
        ("network.http_request", "url"), ("network.dns_lookup", "host"), ("process.run", "command"),
        ("process.run", "args"), ("process.run", "env"), ("process.run", "env.A.B"), ("filesystem.write", "path"),
        ("git.push", "username"), ("network.http_request", "method"), ("no.such", "x"), ("process.run", ""),
    ])
    func noSecretGoesThere(_ capability: String, _ argument: String) async throws {
        try await Fixture.with { fixture in
            try await fixture.add("token", ["capabilities": ["network.*", "process.run", "filesystem.*", "git.*"]])
            let result = try await fixture.call(
                "one", "secrets.use",
                [
                    "name": "token", "capability": .string(capability), "arguments": [:],
                    "argument": .string(argument.isEmpty ? "." : argument),
                ])
            #expect([.invalidArguments, .unknownCapability].contains(kind(result)), "\(result)")
        }
    }

    /// Guesses that are read back tell nothing of a short secret, in any form.
    @Test func aShortSecretIsNotToldByWhatIsHidden() async throws {
        try await Fixture.with { fixture in
            try await fixture.add("pin", ["capabilities": ["process.run"]], value: "483920")
            let guesses = "483920 343833393230 \(Base64.encode(Array("483920".utf8)))"
            _ = try await fixture.call("one", "filesystem.write", ["path": "g", "content": .string(guesses)]).get()
            #expect(
                try await fixture.call("one", "filesystem.read", ["path": "g"]).get()["content"] == .string(guesses))
        }
    }

    /// draft-irtf-cfrg-xchacha-03, A.3.1.
    @Test func theCipherIsXChaCha20Poly1305() throws {
        let key = try SecretBytes((0x80...0x9F).map { UInt8($0) })
        let nonce = (0x40...0x57).map { UInt8($0) }
        let context: [UInt8] = [0x50, 0x51, 0x52, 0x53, 0xC0, 0xC1, 0xC2, 0xC3, 0xC4, 0xC5, 0xC6, 0xC7]
        let text =
            "Ladies and Gentlemen of the class of '99: If I could offer you only one tip for the future, sunscreen would be it."
        let sealed = try #require(
            [UInt8](
                hex:
                    "bd6d179d3e83d43b9576579493c0e939572a1700252bfaccbed2902c21396cbb731c7f1b0b4aa6440bf3a82f4eda7e39ae64c6708c54c216cb96b72e1213b4522f8c9ba40db5d945b11b69b982c1bb9e3f3fac2bc369488f76b2383565d3fff921f9664c97637da9768812f615c68b13b52ec0875924c1c7987947deafd8780acf49"
            ))
        let opened = try #require(try Seal.open(nonce + sealed, key: key, context: context))
        #expect(opened.withBytes { String(decoding: $0, as: UTF8.self) } == text)
        for place in sealed.indices {
            var changed = nonce + sealed
            changed[24 + place] ^= 1
            #expect(try Seal.open(changed, key: key, context: context) == nil)
        }
        #expect(try Seal.open(nonce + sealed, key: key, context: context + [0]) == nil)
    }
}
