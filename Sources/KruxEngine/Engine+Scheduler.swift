import KruxAudit
import KruxCapabilities
import KruxCore
import KruxRegistry
import KruxStore
import Logging
import Synchronization

/// Calls that agents have put off: each made at its time as a call like any other.
extension Engine {
    /// What is this late is not called as if it were on time: the gateway did not run, or the machine slept.
    private static let graceSeconds: Int64 = 60
    private static let mostCounted = 10_000

    /// Until the gateway stops.
    package func runSchedules() async {
        await withDiscardingTaskGroup { group in
            while !isDraining.withLock({ $0 }) {
                do {
                    var failure: (any Error)?
                    // One that cannot be begun keeps no other from it.
                    for held in try store.read({ try HeldMailTable.due($0, at: clock.now()) }) {
                        do {
                            if try beginMail(held) { group.addTask { [self] in await sendHeldMail(held) } }
                        } catch { failure = error }
                    }
                    for schedule in try store.read({ try ScheduleTable.due($0, at: clock.now()) }) {
                        if isDraining.withLock({ $0 }) { break }
                        do {
                            if try begin(schedule, now: clock.now()) {
                                group.addTask { [self] in await run(schedule) }
                            }
                        } catch { failure = error }
                    }
                    if let failure { throw failure }
                    let next = try store.read { tx in
                        [try ScheduleTable.nextDue(tx), try HeldMailTable.nextDue(tx)].compactMap { $0 }.min()
                    }
                    if isDraining.withLock({ $0 }) { break }
                    await schedulesDue.wait(until: next, now: clock.now())
                } catch {
                    log.error(
                        "schedules cannot be looked at", metadata: ["reason": "\(Self.structured(error).description)"])
                    await schedulesDue.wait(until: clock.now().advanced(bySeconds: 5), now: clock.now())
                }
            }
        }
    }

    /// Settles in one transaction that a schedule runs now, or what of it was missed, and when it comes again; so that no
    /// crash makes it run twice.
    /// - Returns: whether it runs now.
    private func begin(_ schedule: Schedule, now: Timestamp) throws -> Bool {
        guard let due = schedule.nextRun else { return false }
        var next: Timestamp?
        var missed: Int64 = 0
        var runs = true
        var detail: JSONObject = [
            "job_id": .string(schedule.id), "due": .string(due.rfc3339), "capability": .string(schedule.capability),
        ]
        let late = (now.microseconds - due.microseconds) / 1_000_000
        if let problem = schedule.problem {
            // It cannot be what was decided when it was planned, and ends.
            runs = false
            missed = 1
            detail["reason"] = .string(problem)
        } else if let text = schedule.cron, let cron = try? CronSchedule(text) {
            let zone = TimeZones.table(schedule.zone ?? "UTC") ?? .utc
            if late > Self.graceSeconds {
                // Every time that has passed, this one with them.
                missed = Int64(max(1, cron.count(from: due, through: now, in: zone, most: Self.mostCounted)))
                runs = schedule.catchesUp
                detail["reason"] = "the gateway did not run"
            }
            next = cron.next(after: now, in: zone)
        } else if schedule.cron != nil {
            runs = false
            missed = 1
            detail["reason"] = "its five fields are no schedule"
        } else if late > Self.graceSeconds {
            detail["late_seconds"] = .int(late)
        }
        if running.withLock({ $0.contains(schedule.id) }) {
            runs = false
            missed = max(1, missed)
            detail["reason"] = "the last call still runs"
        }
        do { _ = try caller(agentNamed: schedule.agent, via: "schedule") } catch {
            runs = false
            missed = max(1, missed)
            detail["reason"] = .string(Self.structured(error).description)
        }
        // One call that cannot be made now will not be made.
        if missed > 0 { detail["missed"] = .int(missed) }
        detail["event"] = runs ? "called" : "missed"
        if let next { detail["next"] = .string(next.rfc3339) }
        var body = AuditBody(time: now, phase: .progress, principal: .system)
        body.agent = schedule.agent
        body.capability = schedule.cron == nil ? "scheduler.delay" : "scheduler.cron_create"
        body.members = [("detail", .object(detail))]
        let bytes = body.canonicalBytes()
        let audit = audit
        let (ran, count) = (runs ? now : nil, missed)
        try store.writer.writeAndWait { [next] tx in
            try ScheduleTable.advance(tx, schedule.id, ran: ran, missed: count, next: next)
            try audit.append(bytes, tx)
        }
        if runs { running.withLock { _ = $0.insert(schedule.id) } }
        return runs
    }

    private func run(_ schedule: Schedule) async {
        defer { running.withLock { _ = $0.remove(schedule.id) } }
        do {
            let caller = try caller(agentNamed: schedule.agent, via: "schedule")
            let request = CallRequest(
                capability: schedule.capability, arguments: schedule.arguments, purpose: "Planned as \(schedule.id)")
            // Its own rows tell how it ended.
            _ = await call(request, by: caller)
        } catch {
            log.warning(
                "a planned call could not be made",
                metadata: ["schedule": "\(schedule.id)", "reason": "\(Self.structured(error).description)"])
        }
    }

    /// A supervisor ends one.
    func endSchedule(_ input: OperatorInput, by principal: Principal) throws -> JSONObject {
        let id = try input.text("id")
        guard let schedule = try store.read({ try ScheduleTable.find($0, id) }), schedule.nextRun != nil else {
            throw StructuredError(
                .notFound, "there is no schedule `\(id.prefix(64))` that waits",
                recovery: ["See `kruxos schedule list`."])
        }
        try change(
            "schedule ended", agent: schedule.agent, by: principal, now: clock.now(), detail: ["job_id": .string(id)]
        ) { try ScheduleTable.end($0, id) }
        schedulesDue.changed()
        return try store.read { try ScheduleTable.find($0, id) }?.json ?? [:]
    }
}
