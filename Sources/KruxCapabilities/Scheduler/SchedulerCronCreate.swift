package import KruxCore
package import KruxStore

package struct SchedulerCronCreate: ChangingCapability {
    package static let declaration = CapabilityDeclaration(
        "scheduler.cron_create",
        "Calls a capability again and again, as you: each call is decided and recorded like any other.",
        whenToUse: "For work that recurs.", effect: .write, sideEffects: ["calls are made later in your name"],
        tier: .approvalRequired,
        input: ObjectSchema(
            [
                .required(
                    "schedule", .string(minLength: 6, maxLength: 256),
                    "Minute, hour, day of the month, month and weekday, such as `30 9 * * mon-fri`; or `@daily` and its kin."
                ),
                .optional(
                    "timezone", .string(minLength: 1, maxLength: 64), "The zone that is meant, by its IANA name.",
                    default: "UTC"),
                .optional(
                    "catch_up", .boolean, "Make up for missed calls, once, when the gateway runs again.",
                    default: false),
            ] + ScheduleTable.call), output: ScheduleTable.schema,
        errors: [
            .init(.invalidArguments, when: "schedule, zone or arguments do not fit", recovery: "correct what is named"),
            .init(.tooLarge, when: "you have 1,000 schedules", recovery: "end some"),
        ])

    package struct Input: CapabilityInput {
        let schedule: CronSchedule, zone: String, catchesUp: Bool, capability: String, arguments: JSONObject

        package init(_ arguments: Arguments) throws(StructuredError) {
            schedule = try CronSchedule(try arguments.text("schedule"))
            zone = try arguments.text("timezone")
            catchesUp = try arguments.bool("catch_up")
            capability = try arguments.text("capability")
            self.arguments = arguments.optionalMap("arguments") ?? [:]
        }
    }

    package func change(_ input: Input, _ context: CallContext, _ tx: WriteTx) throws -> Schedule {
        guard let zone = context.host.timeZone(input.zone) else {
            throw StructuredError(
                .invalidArguments, "there is no time zone `\(input.zone)`",
                recovery: ["Name it like `Europe/Berlin`, or `UTC`."])
        }
        guard let next = input.schedule.next(after: context.clock.now(), in: zone) else {
            throw StructuredError(
                .invalidArguments, "the schedule `\(input.schedule.text)` never comes",
                recovery: ["Check day and month."])
        }
        return try ScheduleTable.insert(
            tx, input.capability, input.arguments, cron: input.schedule.text, zone: input.zone,
            catchesUp: input.catchesUp, nextRun: next, context)
    }
}
