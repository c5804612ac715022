package import KruxCore
import KruxSandbox

package struct ProcessLogs: Capability {
    package static let declaration = CapabilityDeclaration(
        "process.logs", "Reads the output of a process, whole and while it runs.",
        whenToUse: "To page through output that was cut, or to follow a background run.", effect: .read,
        tier: .autonomous,
        input: [
            ProcessSchema.identifier,
            .optional("stream", .choice(["stdout", "stderr"]), "Which output.", default: "stdout"),
            .optional("offset", .count, "First byte.", default: 0),
            .optional("limit", .integer(1...(8 << 20)), "Most bytes.", default: .int(1 << 20)),
        ],
        output: [
            .required(
                "content", .string(maxLength: 32 << 20), "The output; bytes that are not UTF-8 are replaced."),
            .required("bytes", .count, "Bytes of it that were read."),
            .required("size", .count, "Bytes that are kept so far, of at most 64 MiB."),
            .required("running", .boolean, "Whether more may come."),
            .optional("next_offset", .count, "Where to go on; absent at the end of a process that has ended."),
        ], errors: [ProcessSchema.unknown])

    package struct Input: CapabilityInput {
        let id: String, stream: ConfinedProcess.Stream, offset: Int64, limit: Int64

        package init(_ arguments: Arguments) throws(StructuredError) {
            id = try arguments.text("process_id")
            stream = ConfinedProcess.Stream(rawValue: try arguments.text("stream")) ?? .stdout
            offset = try arguments.int("offset")
            limit = try arguments.int("limit")
        }
    }

    package struct Output: CapabilityOutput {
        let bytes: [UInt8], offset: Int64, size: Int64, isRunning: Bool

        package var json: JSONObject {
            var json: JSONObject = [
                "content": .string(String(decoding: bytes, as: UTF8.self)), "bytes": .int(Int64(bytes.count)),
                "size": .int(size), "running": .bool(isRunning),
            ]
            let next = offset + Int64(bytes.count)
            if isRunning || next < size { json["next_offset"] = .int(next) }
            return json
        }
    }

    package func run(_ input: Input, _ context: CallContext) async throws(StructuredError) -> Output {
        var (bytes, size, isRunning) = try context.processes.output(
            input.id, of: context.agent, input.stream, at: input.offset, limit: Int(input.limit))
        // A character at the end that is not whole comes with the next page.
        if input.offset + Int64(bytes.count) < size || isRunning {
            let cut = bytes.suffix(3).reversed().prefix { $0 & 0xC0 == 0x80 }.count
            if let lead = bytes.dropLast(cut).last, lead >= 0xC0, bytes.count > cut + 1 {
                let needed = lead >= 0xF0 ? 3 : lead >= 0xE0 ? 2 : 1
                if cut < needed { bytes.removeLast(cut + 1) }
            }
        }
        return Output(bytes: bytes, offset: input.offset, size: size, isRunning: isRunning)
    }
}
