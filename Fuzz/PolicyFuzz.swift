import KruxCapabilities
import KruxCore
import KruxPolicy

/// libFuzzer's entry: the bytes are a policy, up to a line `%%`, and a command line after it. Whatever they are, reading
/// ends without a trap, what compiles is read back from its own bytes and decides the same, and the explanation agrees
/// with the decision.
@_cdecl("LLVMFuzzerTestOneInput")
public func fuzzPolicy(_ start: UnsafePointer<UInt8>?, _ count: Int) -> CInt {
    let bytes = start.map { Array(UnsafeBufferPointer(start: $0, count: count)) } ?? []
    let mark = Array("\n%%\n".utf8)
    var split = bytes.count
    if bytes.count >= mark.count {
        for index in 0...(bytes.count - mark.count) where bytes[index...].starts(with: mark) {
            split = index
            break
        }
    }
    let policy = Array(bytes[..<split])
    let line = String(decoding: bytes[min(bytes.count, split + mark.count)...].prefix(4096), as: UTF8.self)
    check(policy, line)
    return 0
}

private func check(_ text: [UInt8], _ line: String) {
    let bundle = PolicyBundle(
        system: PolicySource(file: "system.yaml", text: Array("capabilities: {secrets.export: {tier: blocked}}".utf8)),
        active: "fuzzed", policies: [PolicySource(file: "fuzzed.yaml", text: Array("name: fuzzed\n".utf8) + text)],
        agents: ["a": PolicySource(file: "agents/a.yaml", text: text)])
    guard let compiled = try? PolicyCompiler.compile(bundle, catalogue: Capabilities.catalogue) else { return }
    let form = compiled.form
    guard let read = try? CompiledPolicy(form: form, catalogue: Capabilities.catalogue), read.form == form else {
        fatalError("the compiled form does not read back")
    }
    _ = PolicyLint.findings(compiled)
    let calls: [(String, JSONObject)] = [
        ("filesystem.write", ["path": .string("/workspace/a/\(line.prefix(100))"), "content": .string(line)]),
        ("filesystem.move", ["source": "/workspace/a/x", "destination": "/workspace/a/y"]),
        ("process.run", ["command": .string(line), "shell": true]),
        ("process.run", ["command": "bash", "args": ["-c", .string(line)]]),
        ("network.http_request", ["url": .string(line)]),
        ("email.send", ["to": [.string(line), "a@b.example"], "subject": .string(line), "body": ""]),
        ("state.shared.list", ["prefix": .string(line)]),
    ]
    for (name, arguments) in calls {
        guard let declaration = Capabilities.catalogue[name], let index = compiled.index(of: name) else { continue }
        for agent in ["a", "b"] {
            let filled = declaration.input.validate(arguments).0
            let facts = CallFacts(
                agent: agent, capability: index, declaration: declaration, arguments: filled,
                time: Timestamp(microseconds: 1_767_225_600_000_000))
            let decision = compiled.decide(facts)
            if decision != read.decide(facts) { fatalError("the compiled form decides otherwise") }
            if decision != compiled.explain(facts).decision { fatalError("the explanation disagrees") }
            if decision.tier != .blocked, compiled.blocksEveryCall(facts) { fatalError("hidden, and allowed") }
        }
    }
}
