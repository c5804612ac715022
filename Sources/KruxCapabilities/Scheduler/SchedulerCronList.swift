package import KruxCore
package import KruxStore

package struct SchedulerCronList: LookingCapability {
    package static let declaration = CapabilityDeclaration(
        "scheduler.cron_list", "Lists what will be called in your name.", whenToUse: "To see what is planned.",
        effect: .read, tier: .autonomous, input: [],
        output: [.required("jobs", .array(.object(ScheduleTable.schema), maxItems: 1000), "By next call.")])

    package struct Output: CapabilityOutput {
        let jobs: [Schedule]
        package var json: JSONObject { ["jobs": .array(jobs.map { .object($0.json) })] }
    }

    package func look(_ input: NoInput, _ context: CallContext, _ tx: any ReadTx, isLast: Bool) throws -> Output? {
        Output(jobs: try ScheduleTable.all(tx, agent: context.agent.text))
    }
}
