package import KruxCore
package import KruxStore

/// What notifiers have yet to be told: written in the transaction of what it tells, so that a crash loses nothing.
package struct Delivery: Sendable {
    package let number: Int64
    package let notifier: String
    /// `{event, time, agent, capability, summary, request?}`.
    package let message: JSONObject
    package let request: String?
    package let dueAt: Timestamp
    package let attempts: Int64
}

package enum Deliveries {
    package static func insert(
        _ tx: WriteTx, notifier: String, message: JSONObject, request: String?, dueAt: Timestamp
    ) throws {
        try tx.execute(
            "INSERT INTO deliveries (notifier, message, request, due_at) VALUES (?, ?, ?, ?)",
            [.text(notifier), .text(message.canonicalText), .optional(request), .int(dueAt.microseconds)])
    }

    package static func nextDue(_ tx: any ReadTx) throws -> Timestamp? {
        try tx.first("SELECT min(due_at) FROM deliveries") { $0.optionalInt(0) }?.map(Timestamp.init(microseconds:))
    }

    /// Notifiers that something is due for.
    package static func dueNotifiers(_ tx: any ReadTx, at now: Timestamp) throws -> [String] {
        try tx.rows(
            "SELECT DISTINCT notifier FROM deliveries WHERE due_at <= ? ORDER BY notifier", [.int(now.microseconds)]
        ) { $0.text(0) }
    }

    /// What a notifier is to be told by `time`, in order.
    package static func due(_ tx: any ReadTx, for notifier: String, by time: Timestamp) throws -> [Delivery] {
        try tx.rows(
            "SELECT number, notifier, message, request, due_at, attempts FROM deliveries WHERE notifier = ? AND due_at <= ? ORDER BY number LIMIT 200",
            [.text(notifier), .int(time.microseconds)]
        ) { row in
            Delivery(
                number: row.int(0), notifier: row.text(1), message: (try? JSONParser.parse(row.text(2)))?.object ?? [:],
                request: row.optionalText(3), dueAt: Timestamp(microseconds: row.int(4)), attempts: row.int(5))
        }
    }

    package static func remove(_ tx: WriteTx, _ deliveries: [Delivery]) throws {
        for delivery in deliveries {
            try tx.execute("DELETE FROM deliveries WHERE number = ?", [.int(delivery.number)])
        }
    }

    package static func postpone(_ tx: WriteTx, _ deliveries: [Delivery], until time: Timestamp, problem: String?)
        throws
    {
        for delivery in deliveries {
            try tx.execute(
                "UPDATE deliveries SET due_at = ?, attempts = attempts + ?, problem = ? WHERE number = ?",
                [.int(time.microseconds), .int(problem == nil ? 0 : 1), .optional(problem), .int(delivery.number)])
        }
    }

    /// What could not be told as yet, and why.
    package static func problems(_ tx: any ReadTx) throws -> [(notifier: String, problem: String)] {
        try tx.rows("SELECT notifier, max(problem) FROM deliveries WHERE problem IS NOT NULL GROUP BY notifier") {
            ($0.text(0), $0.text(1))
        }
    }
}

/// One-time links that answer a request. Only their hashes are kept.
package struct ApprovalLink: Sendable {
    package let request: String
    package let bindingDigest: [UInt8]
    /// In whose name it answers.
    package let principal: String
    package let expiresAt: Timestamp
    package let usedAt: Timestamp?

    package init(
        request: String, bindingDigest: [UInt8], principal: String, expiresAt: Timestamp, usedAt: Timestamp?
    ) {
        self.request = request
        self.bindingDigest = bindingDigest
        self.principal = principal
        self.expiresAt = expiresAt
        self.usedAt = usedAt
    }
}

package enum ApprovalLinks {
    package static func insert(_ tx: WriteTx, hash: [UInt8], _ link: ApprovalLink) throws {
        try tx.execute(
            "INSERT INTO approval_links (token_hash, request, binding_digest, principal, expires_at) VALUES (?, ?, ?, ?, ?)",
            [
                .blob(hash), .text(link.request), .blob(link.bindingDigest), .text(link.principal),
                .int(link.expiresAt.microseconds),
            ])
    }

    package static func find(_ tx: any ReadTx, hash: [UInt8]) throws -> ApprovalLink? {
        try tx.first(
            "SELECT request, binding_digest, principal, expires_at, used_at FROM approval_links WHERE token_hash = ?",
            [.blob(hash)]
        ) {
            ApprovalLink(
                request: $0.text(0), bindingDigest: $0.blob(1), principal: $0.text(2),
                expiresAt: Timestamp(microseconds: $0.int(3)),
                usedAt: $0.optionalInt(4).map(Timestamp.init(microseconds:)))
        }
    }

    /// - Returns: whether this was its one use.
    package static func use(_ tx: WriteTx, hash: [UInt8], now: Timestamp) throws -> Bool {
        try tx.execute(
            "UPDATE approval_links SET used_at = ? WHERE token_hash = ? AND used_at IS NULL",
            [.int(now.microseconds), .blob(hash)]) == 1
    }

    /// Links that answer nothing any more.
    package static func forget(_ tx: WriteTx, before time: Timestamp) throws {
        try tx.execute("DELETE FROM approval_links WHERE expires_at < ?", [.int(time.microseconds)])
    }
}
