import Foundation
import KruxCapabilities
package import KruxCore
import KruxRegistry
import KruxStore
import Logging

/// What agents deleted, until it is old enough to go.
extension Engine {
    /// Days that deleted things are kept, unless a supervisor says otherwise.
    package static let usualTrashDays: Int64 = 30
    private static let trashSetting = "trash_days"

    /// Something deleted.
    package struct Trashed: Sendable {
        package let agent: String, id: String
        /// Where it came from.
        package let path: String
        package let deletedAt: Timestamp?

        package var json: JSONObject {
            [
                "agent": .string(agent), "trash_id": .string(id), "path": .string(path),
                "deleted_at": .optional(deletedAt?.rfc3339),
            ]
        }
    }

    /// What the trash of a home holds, oldest first; needs no gateway and no lock.
    package static func trash(of home: Home, agent: String?) -> [Trashed] {
        let folder = home.root + "/workspaces/.trash"
        func names(_ path: String) -> [String] { (try? FileManager.default.contentsOfDirectory(atPath: path)) ?? [] }
        return names(folder).filter { agent == nil || $0 == agent }.flatMap { name in
            names("\(folder)/\(name)").filter { $0.hasPrefix("tr_") }.map { id in
                let data = FileManager.default.contents(atPath: "\(folder)/\(name)/\(id)/info.json") ?? Data()
                let info = try? JSONParser.parse([UInt8](data))
                // What does not say when has the time of its folder.
                var status = stat()
                let isThere = stat("\(folder)/\(name)/\(id)", &status) == 0
                let changed = isThere ? Timestamp(microseconds: Int64(status.st_mtim.tv_sec) * 1_000_000) : nil
                return Trashed(
                    agent: name, id: id, path: info?["path"]?.string ?? "-",
                    deletedAt: info?["deleted_at"]?.string.flatMap { Timestamp(parsing: $0) } ?? changed)
            }
        }.sorted { ($0.deletedAt?.microseconds ?? 0, $0.id) < ($1.deletedAt?.microseconds ?? 0, $1.id) }
    }

    static func trashDays(_ tx: any ReadTx) throws -> Int64 {
        try tx.first("SELECT value FROM meta WHERE key = ?", [.text(trashSetting)]) { Int64($0.text(0)) }.flatMap { $0 }
            ?? usualTrashDays
    }

    func setTrashDays(_ input: OperatorInput, by principal: Principal) throws -> JSONObject {
        let days = try input.int("days")
        guard (1...36_500).contains(days) else {
            throw StructuredError(
                .invalidArguments, "deleted things are kept for 1 to 36,500 days", recovery: ["Choose such a number."])
        }
        try change("trash retention set", agent: nil, by: principal, now: clock.now(), detail: ["days": .int(days)]) {
            try $0.execute(
                "INSERT INTO meta (key, value) VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET value = excluded.value",
                [.text(Self.trashSetting), .text("\(days)")])
        }
        return ["days": .int(days)]
    }

    /// Removes for good what was deleted before a time.
    func emptyTrash(_ input: OperatorInput, by principal: Principal) throws -> JSONObject {
        let seconds = try input.optionalInt("older_than_seconds") ?? 0
        return try emptyTrash(
            before: clock.now().advanced(bySeconds: -max(0, seconds)), agent: try input.optionalText("agent"),
            by: principal
        )
    }

    /// - Returns: `{removed, failed}`; the row is there before anything is gone.
    func emptyTrash(before time: Timestamp, agent: String?, by principal: Principal) throws -> JSONObject {
        let old = Self.trash(of: home, agent: agent).filter { $0.deletedAt.map { $0 < time } ?? false }
        if old.isEmpty { return ["removed": 0, "failed": 0] }
        try change(
            "trash emptied", agent: agent, by: principal, now: clock.now(),
            detail: ["things": .int(Int64(old.count)), "before": .string(time.rfc3339)]
        ) { _ in }
        var failed = 0
        for thing in old {
            do {
                let name = AgentName(thing.agent)
                guard try name.map({ try Trash(workspace: try workspace($0)).remove(thing.id) }) == true else {
                    throw StructuredError(.ioFailure, "some of it cannot be removed")
                }
            } catch {
                failed += 1
                log.warning(
                    "something in the trash could not be removed",
                    metadata: ["thing": "\(thing.agent)/\(thing.id)", "reason": "\(error)"])
            }
        }
        return ["removed": .int(Int64(old.count - failed)), "failed": .int(Int64(failed))]
    }

    func emptyTrashAsConfigured(now: Timestamp) {
        do {
            let days = try store.read(Self.trashDays)
            _ = try emptyTrash(before: now.advanced(bySeconds: -days * 86_400), agent: nil, by: .system)
        } catch {
            log.error("the trash could not be emptied", metadata: ["reason": "\(Self.structured(error).description)"])
        }
    }
}
