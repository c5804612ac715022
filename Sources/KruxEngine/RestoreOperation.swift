import Foundation
import KruxAudit
package import KruxCore
import KruxCrypto
import KruxRegistry
package import KruxStore
package import Logging

/// Puts a verified file in the database's place. A crash between any two steps leaves either the old database, or the
/// new one with `keys/head` against it, or none at all: in each case the gateway refuses to start and says what to do.
package struct RestoreOperation {
    private let home: Home
    private let log: Logger

    package init(home: Home, log: Logger) {
        self.home = home
        self.log = log
    }

    /// Whether the file is anything but the newest state of this home, with its keys.
    package static func needsEpoch(home: Home, _ open: () throws -> ReadOnlyStore) throws -> Bool {
        do {
            try open().read { try AuditLog.requireContinuable($0, home: home.root) }
            // Nothing newer is known, but a home that knows nothing has not seen this file either.
            return try HeadFile.read(home: home.root) == nil
        } catch is AuditError {
            return true
        }
    }

    /// - Parameter file: the backup; nil for what lies in the home already.
    /// - Returns: `{epoch?, root_key?, suspended, kept?}`.
    package func run(file: String?, needsEpoch: Bool, by principal: Principal) throws -> JSONObject {
        try home.create()
        var kept: String?
        if let file {
            let lock = try WriterLock(home: home.root)
            let incoming = "\(home.database).restoring-\(getpid())"
            try ReadOnlyStore(path: file, immutable: true).copy(to: incoming)
            do { kept = try setAside() } catch {
                unlink(incoming)
                throw error
            }
            guard rename(incoming, home.database) == 0 else {
                throw StructuredError(
                    .ioFailure, "cannot put the backup in place: \(String(cString: strerror(errno)))",
                    recovery: kept.map { ["The old database is `\($0)`: rename it back."] } ?? [])
            }
            try Store.synchronise(home.database)
            _ = consume lock
        }
        var detail: JSONObject = ["accepted": .bool(file == nil)]
        if let file { detail["file"] = .string((file as NSString).lastPathComponent) }
        if let kept { detail["kept"] = .string((kept as NSString).lastPathComponent) }
        let engine = try Engine(
            home: home, log: log, restore: needsEpoch ? Engine.Restore(principal: principal, detail: detail) : nil)
        var result: JSONObject = ["kept": .optional(kept)]
        if needsEpoch {
            let local = Engine.localAnchor(home)
            // What it vouches for may be rows that are not here any more.
            if access(local, F_OK) == 0, rename(local, free(local + ".before-restore")) != 0 {
                log.warning("checkpoints.log stays although rows may be lost", metadata: ["reason": "\(errno)"])
            }
            result["epoch"] = .int(engine.audit.epoch)
            result["root_key"] = .optional(engine.audit.publicKey?.bytes.hex)
        }
        result["suspended"] = .strings(engine.agents.all.filter(\.isSuspended).map(\.name.text))
        try engine.close()
        return result
    }

    /// Renames what is there, with its log; nil when there is nothing.
    private func setAside() throws -> String? {
        guard ["-wal", ""].contains(where: { access(home.database + $0, F_OK) == 0 }) else { return nil }
        let target = free(home.database + ".before-restore")
        // The log first: a database without its log would be an older one.
        for suffix in ["-wal", "-shm", ""] where access(home.database + suffix, F_OK) == 0 {
            guard rename(home.database + suffix, target + suffix) == 0 else {
                throw StructuredError(
                    .ioFailure, "cannot keep the old database as `\(target)`: \(String(cString: strerror(errno)))")
            }
        }
        return target
    }

    private func free(_ base: String) -> String {
        var number = 1
        while access("\(base)-\(number)", F_OK) == 0 { number += 1 }
        return "\(base)-\(number)"
    }
}
