package import KruxCore
package import KruxCrypto

/// What kind of thing a row tells.
package enum AuditPhase: String, Sendable, CaseIterable {
    /// An effect is about to start.
    case intent
    /// A call has ended: with an `intent` for an effect, alone for a read and for what was not run.
    case outcome
    /// What a call began that went on after its outcome has ended: a background process.
    case progress
    /// A request for approval was made, decided or withdrawn.
    case approval
    case policy
    /// An agent, a setting or the gateway itself changed.
    case admin
    /// A signing key begins, or an epoch.
    case key
    /// Bodies were forgotten.
    case prune
}

/// How a call or a request ended.
package enum AuditOutcome: String, Sendable, CaseIterable {
    case succeeded, failed, denied, pending, approved, rejected, cancelled, expired, refused, unknown
}

/// The content of a row before it is signed. Everything is optional but time, phase and principal.
package struct AuditBody: Sendable {
    package var time: Timestamp
    package var phase: AuditPhase
    package var principal: Principal
    /// The agent concerned, also where a supervisor acts.
    package var agent: String?
    package var session: String?
    package var capability: String?
    package var outcome: AuditOutcome?
    /// The `seq` of the intent this row completes.
    package var intent: Int64?
    /// The approval request concerned.
    package var request: String?
    package var durationMicroseconds: Int64?
    /// Further members: `arguments`, `arguments_digest`, `facts`, `decision`, `error`, `detail`, …
    package var members: [(String, JSONValue)] = []

    package init(time: Timestamp, phase: AuditPhase, principal: Principal) {
        self.time = time
        self.phase = phase
        self.principal = principal
    }

    /// Canonical JSON with a random 16-byte salt, so that equal rows have different digests and a pruned body cannot
    /// be guessed from its hash. Numbers that are no integers are written as text: the record holds integers only.
    package func canonicalBytes(salt: [UInt8] = randomBytes(16)) -> [UInt8] {
        var body: JSONObject = [
            "v": 1, "salt": .string(salt.hex), "time": .int(time.microseconds), "phase": .string(phase.rawValue),
            "principal": .string(principal.text),
        ]
        if let agent { body["agent"] = .string(agent) }
        if let session { body["session"] = .string(session) }
        if let capability { body["capability"] = .string(capability) }
        if let outcome { body["outcome"] = .string(outcome.rawValue) }
        if let intent { body["intent"] = .int(intent) }
        if let request { body["request"] = .string(request) }
        if let durationMicroseconds { body["duration_us"] = .int(durationMicroseconds) }
        for (key, value) in members { body[key] = value.withoutFractions }
        return body.canonicalBytes()
    }
}

extension JSONValue {
    /// Numbers that RFC 8785 readers may round differently become their text.
    var withoutFractions: JSONValue {
        switch self {
        case .double: .string(canonicalText)
        case .array(let elements): .array(elements.map(\.withoutFractions))
        case .object(let object): .object(JSONObject(object.members.map { ($0.key, $0.value.withoutFractions) }))
        default: self
        }
    }
}

/// The signed part of a row and how it is hashed, byte for byte:
///
///     head = "kruxos/row/v1\0" ‖ SHA-256(origin)[32] ‖ u64be epoch ‖ u64be seq ‖ prev[32] ‖ key_id[32] ‖ SHA-256(body)[32]
///     sig  = Ed25519(head)
///     leaf = SHA-256(0x00 ‖ head ‖ sig)
///
/// `origin` is `kruxos/<install id>/<epoch>`; `prev` is the leaf of the row before, 32 zero bytes for an epoch's first.
package enum RowFormat {
    private static let prefix = Array("kruxos/row/v1\0".utf8)
    package static let headLength = 14 + 32 + 8 + 8 + 32 + 32 + 32

    package static func origin(installID: String, epoch: Int64) -> String { "kruxos/\(installID)/\(epoch)" }

    package static func originDigest(installID: String, epoch: Int64) -> Digest {
        sha256(Array(origin(installID: installID, epoch: epoch).utf8))
    }

    package static func head(
        originDigest: Digest, epoch: Int64, seq: Int64, prev: Digest, keyID: Digest, bodyHash: Digest
    ) -> [UInt8] {
        var head: [UInt8] = []
        head.reserveCapacity(headLength)
        head += prefix
        originDigest.withBytes { head.append(contentsOf: $0) }
        withUnsafeBytes(of: UInt64(bitPattern: epoch).bigEndian) { head.append(contentsOf: $0) }
        withUnsafeBytes(of: UInt64(bitPattern: seq).bigEndian) { head.append(contentsOf: $0) }
        prev.withBytes { head.append(contentsOf: $0) }
        keyID.withBytes { head.append(contentsOf: $0) }
        bodyHash.withBytes { head.append(contentsOf: $0) }
        return head
    }

    /// What an epoch's checkpoint key signs for the keys of the next:
    ///
    ///     kruxos/epoch/v1\n<origin of the new epoch>\n<row key in hex>\n<checkpoint key in hex>\n
    package static func voucher(installID: String, epoch: Int64, row: PublicKey, checkpoint: PublicKey) -> [UInt8] {
        let origin = origin(installID: installID, epoch: epoch)
        return Array("kruxos/epoch/v1\n\(origin)\n\(row.bytes.hex)\n\(checkpoint.bytes.hex)\n".utf8)
    }

    package static func leaf(head: [UInt8], signature: Signature) -> Digest {
        var bytes: [UInt8] = []
        bytes.reserveCapacity(1 + headLength + 64)
        bytes.append(0)
        bytes += head
        bytes += signature
        return sha256(bytes)
    }
}
