import KruxAudit
import KruxCapabilities
import KruxCore
import KruxRegistry
import KruxStore
import Logging

/// What goes on after the call that began it has been answered.
extension Engine {
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
