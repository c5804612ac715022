package import KruxCore
import KruxCapabilities
import KruxCrypto
import KruxPolicy
package import KruxRegistry

/// Who calls, once known.
package struct Caller: Sendable {
    package let agent: AgentRecord
    package let session: Session
    /// The session is to be stored with the call's first row.
    let storeSession: Bool

    package var name: String { agent.name.text }
}

/// A capability as it is offered to an agent.
package struct Offered: Sendable {
    package let declaration: CapabilityDeclaration
    /// The tier of a call of which nothing more is known.
    package let tier: Tier
    /// Arguments change the tier.
    package let conditional: Bool
}

extension Engine {
    /// What the caller may call in some way, by name.
    package func offered(to caller: Caller) -> [Offered] {
        offers(to: caller).map {
            Offered(declaration: $0.declaration, tier: $0.tier, conditional: $0.conditional)
        }
    }

    /// An id that nobody can guess: 32 hexadecimal digits.
    package static func randomID() -> String { randomBytes(16).hex }

    /// RFC 4648 with padding; nil for anything else.
    package static func decodeBase64(_ text: String) -> [UInt8]? { Base64.decode(text) }
}

/// What an agent asks for.
package struct CallRequest: Sendable {
    package let capability: String
    package let arguments: JSONObject
    /// Why, in the agent's own words, for the person who may be asked.
    package let purpose: String?

    package init(capability: String, arguments: JSONObject, purpose: String? = nil) {
        self.capability = capability
        self.arguments = arguments
        self.purpose = purpose
    }

    /// Bytes of a purpose that anybody reads.
    package static let longestPurpose = 2000

    /// Seconds a caller may wait in one call.
    package static let longestWait: Int64 = 600

    /// Reads `{capability, arguments?, reason?, wait?}`, the one shape of a call on every way in. What does not fit is an error,
    /// never a default.
    /// - Parameter also: members that the way in reads itself.
    package static func decode(
        _ object: JSONObject, also: Set<String> = []
    ) throws(StructuredError) -> (request: CallRequest, wait: Int64) {
        func malformed(_ text: String) -> StructuredError {
            StructuredError(
                .invalidRequest, text,
                recovery: ["Send {\"capability\": \"filesystem.read\", \"arguments\": {\"path\": \"notes.txt\"}}."])
        }
        for key in object.keys
        where !["capability", "arguments", "reason", "wait"].contains(key) && !also.contains(key) {
            throw malformed("unknown member `\(key.prefix(64))`")
        }
        guard let capability = object["capability"]?.string else { throw malformed("`capability` must be a string") }
        let arguments: JSONObject
        switch object["arguments"] {
        case nil, .null?: arguments = [:]
        case .object(let given)?: arguments = given
        default: throw malformed("`arguments` must be an object")
        }
        var wait: Int64 = 0
        if let value = object["wait"], !value.isNull {
            guard let seconds = value.int, (0...longestWait).contains(seconds) else {
                throw malformed("`wait` must be 0 to \(longestWait) seconds")
            }
            wait = seconds
        }
        var purpose: String?
        if let value = object["reason"], !value.isNull {
            guard let text = value.string, text.utf8.count <= longestPurpose else {
                throw malformed("`reason` must be a text of at most \(longestPurpose) bytes")
            }
            purpose = text.isEmpty ? nil : text
        }
        return (CallRequest(capability: capability, arguments: arguments, purpose: purpose), wait)
    }
}

/// What it gets.
package enum CallReply: Sendable {
    /// The result, and the row of the record that tells of it.
    case succeeded(JSONObject, tier: Tier, seq: Int64)
    case failed(StructuredError)

    /// The request a call waits on.
    package var pendingRequest: String? {
        if case .failed(let error) = self, error.isPending { return error.context["request_id"]?.string }
        return nil
    }
}

extension Decision {
    /// As it stands in the record and in errors.
    func json(_ policy: CompiledPolicy) -> JSONObject {
        var json: JSONObject = ["tier": .string(tier.name), "layer": .string(layer.rawValue)]
        if cause != .rule { json["cause"] = .string(cause.rawValue) }
        if mode != .auto { json["mode"] = .string(mode.rawValue) }
        if indeterminate { json["indeterminate"] = true }
        if let rule, policy.rules.indices.contains(rule) {
            let record = policy.rules[rule]
            json["document"] = .string(record.document)
            json["rule"] = .string(record.pattern)
            json["source"] = .string("\(record.location.file):\(record.location.line)")
            if let reason = record.reason { json["reason"] = .string(reason) }
        }
        return json
    }
}
