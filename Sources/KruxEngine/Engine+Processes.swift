import KruxAudit
import KruxCapabilities
import KruxCore
import KruxRegistry
import KruxStore
import Logging

/// What goes on after the call that began it has been answered.
extension Engine {
    /// A step of a call that is under way, durable before it is taken.
    func report(_ detail: JSONObject, _ record: CallRecord, intent: Int64) async throws {
        var body = AuditBody(time: clock.now(), phase: .progress, principal: .agent(record.caller.agent.name))
        body.agent = record.caller.agent.name.text
        body.session = record.caller.session.id
        body.capability = record.prepared?.declaration.name.text
        body.request = record.approval
        body.intent = intent
        body.members = [("detail", redactor.scrub(.object(detail)))]
        let bytes = body.canonicalBytes()
        let audit = audit
        try await store.writer.write { tx in _ = try audit.append(bytes, tx) }
    }

    /// While a call takes long, a row after ten seconds, and after each time as long again up to an hour.
    func reportProgress(_ progress: CallProgress, _ record: CallRecord, intent: Int64) async {
        var elapsed: Int64 = 0
        var pause: Int64 = 10
        while true {
            do { try await Task.sleep(for: .seconds(pause)) } catch { return }
            elapsed += pause
            pause = min(elapsed, 3600)
            let amount = progress.amount
            do {
                try await report(
                    [
                        "elapsed_seconds": .int(elapsed), "bytes": .int(amount.bytes), "lines": .int(amount.lines),
                    ], record, intent: intent)
            } catch {
                // The outcome says more, and waits until it can be written.
                log.debug("progress could not be recorded", metadata: ["intent": "\(intent)"])
            }
        }
    }

    /// After a crash: what processes had changed that is protected is put back, and the end of those in the background
    /// recorded.
    func recoverProcesses(now: Timestamp) throws {
        var rows: [(agent: String, detail: JSONObject)] = []
        for name in Trash.incomplete(home: home.root) {
            guard let agent = AgentName(name) else { continue }
            do { try Trash(workspace: try workspace(agent)).removeIncomplete() } catch {
                log.error(
                    "what a crash left in the trash could not be removed",
                    metadata: ["agent": "\(name)", "reason": "\(Self.structured(error).description)"])
            }
        }
        for name in ProtectedFiles.left(in: home.protected) {
            guard let agent = AgentName(name) else { continue }
            do {
                guard let changes = try protectedFiles(agent).recover(at: now) else { continue }
                rows.append((name, ["recovered": true, "put_back": .strings(changes)]))
            } catch {
                // The agent's processes do not start until it is mended; everything else goes on.
                log.error(
                    "what was protected in a workspace could not be looked after",
                    metadata: ["agent": "\(name)", "reason": "\(Self.structured(error).description)"])
                rows.append((name, ["recovered": false, "error": Self.structured(error).json]))
            }
        }
        let lost = processes.lost()
        rows += lost.map { ($0.agent, ["process": .object($0.process)]) }
        if rows.isEmpty { return }
        let bodies = rows.map { row in
            var body = AuditBody(time: now, phase: .progress, principal: .system)
            body.agent = row.agent
            body.capability = "process.run"
            body.members = [("detail", redactor.scrub(.object(row.detail)))]
            return body.canonicalBytes()
        }
        let audit = audit
        try store.writer.writeAndWait { tx in
            for body in bodies { try audit.append(body, tx) }
        }
        for (agent, process) in lost { processes.forget(agent, process) }
    }

    /// A background process has ended: its own row, because the call that started it has its outcome since long.
    func processEnded(_ report: JSONObject, _ caller: Caller) async {
        var body = AuditBody(time: clock.now(), phase: .progress, principal: .agent(caller.agent.name))
        body.agent = caller.agent.name.text
        body.session = caller.session.id
        body.capability = "process.run"
        body.members = [("detail", redactor.scrub(.object(report)))]
        let bytes = body.canonicalBytes()
        let audit = audit
        do {
            try await store.writer.write { tx in _ = try audit.append(bytes, tx) }
        } catch {
            log.error(
                "the end of a process could not be recorded",
                metadata: [
                    "process": "\(report["process"]?["process_id"]?.string ?? "-")",
                    "reason": "\(Self.structured(error).description)",
                ])
        }
    }
}
