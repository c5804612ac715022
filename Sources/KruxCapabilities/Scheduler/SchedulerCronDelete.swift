package import KruxCore
package import KruxStore

package struct SchedulerCronDelete: ChangingCapability {
    package static let declaration = CapabilityDeclaration(
        "scheduler.cron_delete", "Ends a schedule, or a call that waits for its time.",
        whenToUse: "When planned work is not needed any more.", effect: .write, sideEffects: ["it is called no more"],
        tier: .notify,
        input: [.required("job_id", .string(minLength: 1, maxLength: 64), "The schedule.")],
        output: ScheduleTable.schema,
        errors: [.init(.notFound, when: "there is no such schedule of yours", recovery: "see scheduler.cron_list")])

    package struct Input: CapabilityInput {
        let id: String
        package init(_ arguments: Arguments) throws(StructuredError) { id = try arguments.text("job_id") }
    }

    package func change(_ input: Input, _ context: CallContext, _ tx: WriteTx) throws -> Schedule {
        guard let found = try ScheduleTable.find(tx, input.id), found.agent.utf8Equals(context.agent.text),
            found.nextRun != nil
        else {
            throw StructuredError(
                .notFound, "there is no schedule `\(input.id)` of yours", recovery: ["See scheduler.cron_list."])
        }
        try ScheduleTable.end(tx, input.id)
        return try ScheduleTable.find(tx, input.id) ?? found
    }
}
