import KruxCore
import KruxCrypto
import KruxStore
import Synchronization

/// The active agents by token, in memory: authentication reads no file.
package final class AgentDirectory: Sendable {
    private struct Tables {
        var byToken: [Digest: AgentRecord] = [:]
        var byName: [String: AgentRecord] = [:]
    }

    private let tables = Mutex(Tables())

    package init() {}

    /// Takes over what the table says. Call it after each change has become durable.
    package func reload(_ records: [AgentRecord]) {
        var next = Tables()
        for record in records {
            next.byName[record.name.text] = record
            if record.status == .active, !record.isSuspended, let hash = record.tokenHash {
                next.byToken[hash] = record
            }
        }
        tables.withLock { $0 = next }
    }

    /// The active agent whose token this is.
    package func authenticate(_ token: String) -> AgentRecord? {
        let hash = AgentToken(text: token).hash
        guard let record = tables.withLock({ $0.byToken[hash] }), let known = record.tokenHash,
            known.equalsInConstantTime(hash)
        else { return nil }
        return record
    }

    package func agent(named name: String) -> AgentRecord? { tables.withLock { $0.byName[name] } }
    package var all: [AgentRecord] { tables.withLock { $0.byName.values.sorted { $0.name.text < $1.name.text } } }
}
