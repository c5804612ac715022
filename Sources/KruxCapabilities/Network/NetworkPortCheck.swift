package import KruxCore
import KruxSandbox
import NIOCore
import NIOPosix

package struct NetworkPortCheck: Capability {
    package static let declaration = CapabilityDeclaration(
        "network.port_check", "Tells whether a TCP port answers, by opening a connection and closing it.",
        whenToUse: "To see whether a service is up.", effect: .external,
        sideEffects: ["a connection is opened and closed"], tier: .notify,
        input: [
            NetworkSchema.host, .required("port", .integer(1...65535), "The port.", role: .port),
            .optional("timeout_seconds", .integer(1...60), "Give up after this long.", default: 5),
        ],
        output: [
            .required("host", .text, "What was tried."), .required("port", .integer(1...65535), "The port."),
            .required("address", .text, "The address that was tried last."),
            .required("open", .boolean, "Whether it answered."),
            .required("latency_ms", .count, "Milliseconds until it was clear."),
        ], errors: [NetworkSchema.refused, NetworkSchema.noHost], connects: true)

    package struct Input: CapabilityInput {
        let host: String, port: Int64, timeout: Int64

        package init(_ arguments: Arguments) throws(StructuredError) {
            host = try HostName(try arguments.text("host")).text
            port = try arguments.int("port")
            timeout = try arguments.int("timeout_seconds")
        }
    }

    package struct Output: CapabilityOutput {
        let host: String, port: Int64, address: NetworkAddress, isOpen: Bool, milliseconds: Int64

        package var json: JSONObject {
            [
                "host": .string(host), "port": .int(port), "address": .string(address.text), "open": .bool(isOpen),
                "latency_ms": .int(milliseconds),
            ]
        }
    }

    package func run(_ input: Input, _ context: CallContext) async throws(StructuredError) -> Output {
        let addresses = try await Reach(allowed: context.confinement.settings.addresses).addresses(of: input.host)
        let begun = ContinuousClock.now
        var last = addresses[0]
        for address in addresses.prefix(4) {
            last = address
            if await Self.answers(address, Int(input.port), input.timeout) {
                return Output(
                    host: input.host, port: input.port, address: address, isOpen: true,
                    milliseconds: Int64((ContinuousClock.now - begun) / .milliseconds(1)))
            }
        }
        return Output(
            host: input.host, port: input.port, address: last, isOpen: false,
            milliseconds: Int64((ContinuousClock.now - begun) / .milliseconds(1)))
    }

    private static func answers(_ address: NetworkAddress, _ port: Int, _ seconds: Int64) async -> Bool {
        do {
            let channel = try await ClientBootstrap(group: MultiThreadedEventLoopGroup.singleton)
                .connectTimeout(.seconds(seconds)).connect(host: address.text, port: port).get()
            try? await channel.close()
            return true
        } catch {
            // Refused, unreachable or silent: each is the answer.
            return false
        }
    }

    package func binding(_ input: Input, _ context: CallContext) throws(StructuredError) -> JSONObject {
        ["sandbox": .object(context.confinement.settings.json)]
    }

    package func preview(_ input: Input, _ context: CallContext) throws(StructuredError) -> Preview {
        Preview("Opens a connection to \(input.host) port \(input.port) and closes it")
    }
}
