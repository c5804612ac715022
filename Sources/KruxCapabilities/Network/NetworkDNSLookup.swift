import CResolver
import Foundation
package import KruxCore

package struct NetworkDNSLookup: Capability {
    package static let declaration = CapabilityDeclaration(
        "network.dns_lookup", "Asks the machine's resolver for the records of a host name.",
        whenToUse: "To see whether a name exists and what it stands for.", effect: .external,
        sideEffects: ["the name reaches a resolver"], tier: .notify,
        input: [
            NetworkSchema.host,
            .optional("type", .choice(["A", "AAAA", "CNAME", "MX", "TXT"]), "The record type.", default: "A"),
        ],
        output: [
            .required("host", .text, "The name that was asked for."),
            .required(
                "records", .array(.string(maxLength: 128 << 10), maxItems: 5000),
                "As the resolver gives them: addresses, names, `10 mail.example`, or texts."),
        ],
        errors: [
            .init(.notFound, when: "the name has no such record", recovery: "ask for another type"),
            .init(.ioFailure, when: "no resolver answers", recovery: "try again later"),
        ], connects: true)

    package struct Input: CapabilityInput {
        let host: String, type: String

        package init(_ arguments: Arguments) throws(StructuredError) {
            host = try HostName(try arguments.text("host")).text
            type = try arguments.text("type")
        }
    }

    package struct Output: CapabilityOutput {
        let host: String, records: [String]
        package var json: JSONObject { ["host": .string(host), "records": .strings(records)] }
    }

    package func run(_ input: Input, _ context: CallContext) async throws(StructuredError) -> Output {
        let (code, records) = try await Reach.unhurried { Self.ask(input.host, input.type) }
        switch -code {
        case 0: return Output(host: input.host, records: records)
        case ENOENT:
            throw StructuredError(.notFound, "there is no name `\(input.host)`", recovery: ["Check the name."])
        case ENODATA:
            throw StructuredError(
                .notFound, "`\(input.host)` has no \(input.type) record", recovery: ["Ask for another type."])
        default:
            throw StructuredError(
                .ioFailure, "no resolver gives an answer about `\(input.host)`", recovery: ["Try again later."],
                retryable: true)
        }
    }

    private static func ask(_ host: String, _ type: String) -> (Int32, [String]) {
        var records: [String] = []
        let code = withUnsafeMutablePointer(to: &records) { pointer in
            krux_dns_query(
                host, type,
                { context, text, length in
                    guard let context, let text else { return }
                    let bytes = UnsafeRawBufferPointer(start: text, count: Int(length))
                    context.assumingMemoryBound(to: [String].self).pointee.append(
                        String(decoding: bytes, as: UTF8.self))
                }, pointer)
        }
        return (code, records)
    }

    package func preview(_ input: Input, _ context: CallContext) throws(StructuredError) -> Preview {
        Preview("Asks the resolver for \(input.type) records of \(input.host)")
    }
}

/// A host as an argument names it.
struct HostName: Sendable {
    /// As `WebAddress.host` gives it.
    let text: String

    /// - Throws: `StructuredError` `.invalidArguments`.
    init(_ given: String) throws(StructuredError) {
        let bare = given.contains(":") && !given.hasPrefix("[") ? "[\(given)]" : given
        guard let host = WebAddress.host(bare) else {
            throw StructuredError(
                .invalidArguments, "`\(given.prefix(100))` is no host name or address",
                recovery: ["Name it like `example.com`, `192.0.2.1` or `[2001:db8::1]`."])
        }
        text = host
    }
}
