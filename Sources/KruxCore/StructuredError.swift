/// The one shape of every error that leaves the gate, over HTTP, JSON-RPC, MCP and in the record.
package struct StructuredError: Error, Sendable, Equatable {
    /// What kind of error, in the words clients match on.
    package enum Kind: String, Sendable, CaseIterable {
        case invalidRequest = "InvalidRequest"
        case invalidArguments = "InvalidArguments"
        case unauthenticated = "Unauthenticated"
        case unknownCapability = "UnknownCapability"
        case capabilityUnavailable = "CapabilityUnavailable"
        case blocked = "PermissionDenied"
        case rateLimited = "RateLimited"
        case approvalPending = "ApprovalPending"
        case approvalRejected = "ApprovalRejected"
        case approvalRefused = "ApprovalRefused"
        case approvalCancelled = "ApprovalCancelled"
        case approvalExpired = "ApprovalExpired"
        case notFound = "NotFound"
        case alreadyExists = "AlreadyExists"
        case wrongType = "WrongType"
        case outsideWorkspace = "OutsideWorkspace"
        case addressRefused = "AddressRefused"
        case pathChanged = "PathChanged"
        case tooLarge = "TooLarge"
        case timedOut = "TimedOut"
        case confinementUnavailable = "ConfinementUnavailable"
        case vaultLocked = "VaultLocked"
        case storageFull = "StorageFull"
        case conflict = "Conflict"
        case ioFailure = "IOFailure"
        case outcomeUnknown = "OutcomeUnknown"
        case unavailable = "Unavailable"
        case overloaded = "Overloaded"
        case internalError = "InternalError"
    }

    package var kind: Kind
    /// What happened, for a person who reads a log.
    package var description: String
    /// What happened and what it means, for the agent.
    package var agentDescription: String
    /// What the agent can do next, most useful first.
    package var recoveryActions: [String]
    /// Whether the same call may succeed later without any change.
    package var retryable: Bool
    /// Seconds to wait before trying again, when that is known.
    package var retryAfter: Int64?
    /// Facts for programs: the path, the limit, the rule, the request id.
    package var context: JSONObject

    /// Whether a person's answer is waited for.
    package var isPending: Bool {
        kind == .approvalPending || kind == .rateLimited && context["request_id"] != nil
    }

    package init(
        _ kind: Kind, _ description: String, agent: String? = nil, recovery: [String] = [], retryable: Bool = false,
        retryAfter: Int64? = nil, context: JSONObject = [:]
    ) {
        self.kind = kind
        self.description = description
        self.agentDescription = agent ?? description
        self.recoveryActions = recovery
        self.retryable = retryable
        self.retryAfter = retryAfter
        self.context = context
    }

    package var json: JSONValue {
        [
            "error_type": .string(kind.rawValue),
            "description": .string(description),
            "agent_description": .string(agentDescription),
            "recovery_actions": .strings(recoveryActions),
            "retryable": .bool(retryable),
            "retry_after": .optional(retryAfter),
            "context": .object(context),
        ]
    }

    /// Reads what `json` wrote; nil when the shape is another.
    package init?(json: JSONValue) {
        guard let kind = json["error_type"]?.string.flatMap(Kind.init(rawValue:)),
            let description = json["description"]?.string
        else { return nil }
        self.init(
            kind, description, agent: json["agent_description"]?.string,
            recovery: json["recovery_actions"]?.array?.compactMap(\.string) ?? [],
            retryable: json["retryable"]?.bool ?? false, retryAfter: json["retry_after"]?.int,
            context: json["context"]?.object ?? [:])
    }
}
