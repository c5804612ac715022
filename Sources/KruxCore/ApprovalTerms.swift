/// How the questions of a rule are answered. Of several rules that ask, the terms of all must be met.
package struct ApprovalTerms: Sendable, Equatable {
    /// Supervisors by name, or `role:NAME`; empty for any.
    package var approvers: [String]
    /// So many different people must agree; one who does not is enough to reject.
    package var quorum: Int64
    /// After so long without an answer the request is over; nil for never.
    package var expiresSeconds: Int64?
    /// So long after the question, and again after each such time, people are reminded.
    package var remindAfterSeconds: Int64?

    package init(
        approvers: [String] = [], quorum: Int64 = 1, expiresSeconds: Int64? = nil, remindAfterSeconds: Int64? = nil
    ) {
        self.approvers = approvers
        self.quorum = quorum
        self.expiresSeconds = expiresSeconds
        self.remindAfterSeconds = remindAfterSeconds
    }

    package static let largestQuorum: Int64 = 20
    package static let longestSeconds: Int64 = 366 * 86_400

    /// `{approvers: [name], quorum, expires?, remind_after?}`, times in seconds: in the compiled form and with requests.
    package var json: JSONObject {
        var json: JSONObject = ["approvers": .strings(approvers), "quorum": .int(quorum)]
        if let expiresSeconds { json["expires"] = .int(expiresSeconds) }
        if let remindAfterSeconds { json["remind_after"] = .int(remindAfterSeconds) }
        return json
    }

    package init(json: JSONObject) {
        self.init(
            approvers: json["approvers"]?.array?.compactMap(\.string) ?? [], quorum: json["quorum"]?.int ?? 1,
            expiresSeconds: json["expires"]?.int, remindAfterSeconds: json["remind_after"]?.int)
    }
}

/// Somebody who may answer: a supervisor by name, with the role the registry gives them.
package struct Approver: Sendable, Hashable {
    package let name: String
    package let role: String?

    package init(name: String, role: String?) {
        self.name = name
        self.role = role
    }
}

extension ApprovalTerms {
    package func admits(_ approver: Approver) -> Bool {
        approvers.isEmpty
            || approvers.contains { entry in
                entry.hasPrefix("role:")
                    ? approver.role.map { entry.dropFirst(5).utf8.elementsEqual($0.utf8) } ?? false
                    : entry.utf8Equals(approver.name)
            }
    }

    /// How many more must agree when `agreed` have.
    package func missing(after agreed: some Sequence<Approver>) -> Int64 {
        max(0, quorum - Int64(Set(agreed.filter(admits).map(\.name)).count))
    }

    /// Who is asked, in words: `alice or anybody with role security`.
    package var whom: String {
        approvers.isEmpty
            ? "any supervisor"
            : approvers.map { $0.hasPrefix("role:") ? "anybody with role \($0.dropFirst(5))" : $0 }
                .joined(separator: " or ")
    }
}
