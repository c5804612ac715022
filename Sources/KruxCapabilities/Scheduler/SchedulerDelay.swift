package import KruxCore
package import KruxStore

package struct SchedulerDelay: ChangingCapability {
    package static let declaration = CapabilityDeclaration(
        "scheduler.delay", "Calls a capability once, later, as you; decided and recorded then like any other.",
        whenToUse: "To come back to something.", effect: .write, sideEffects: ["a call is made later in your name"],
        tier: .notify,
        input: ObjectSchema(
            [.required("seconds", .integer(1...31_536_000), "How long to wait.")] + ScheduleTable.call),
        output: ScheduleTable.schema,
        errors: [
            .init(.invalidArguments, when: "the arguments do not fit", recovery: "correct what is named"),
            .init(.tooLarge, when: "you have 1,000 schedules", recovery: "end some"),
        ])

    package struct Input: CapabilityInput {
        let seconds: Int64, capability: String, arguments: JSONObject

        package init(_ arguments: Arguments) throws(StructuredError) {
            seconds = try arguments.int("seconds")
            capability = try arguments.text("capability")
            self.arguments = arguments.optionalMap("arguments") ?? [:]
        }
    }

    package func change(_ input: Input, _ context: CallContext, _ tx: WriteTx) throws -> Schedule {
        try ScheduleTable.insert(
            tx, input.capability, input.arguments, cron: nil, zone: nil, catchesUp: true,
            nextRun: context.clock.now().advanced(bySeconds: input.seconds), context)
    }
}
