import ArgumentParser
import Foundation
import KruxAudit
import KruxCore
import KruxCrypto
import KruxEngine
import KruxPolicy
import KruxRegistry
import KruxSandbox
import KruxStore

struct DoctorCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "doctor", abstract: "Look for what is wrong with a home, and say how to mend it.",
        discussion: "Changes nothing. `kruxos audit verify` checks the record itself.")

    @OptionGroup var common: CommonOptions

    mutating func run() async throws {
        var examination = Examination(home: try common.resolveHome())
        examination.run()
        if common.json {
            Console.print([
                "home": .string(examination.home.root),
                "healthy": .bool(!examination.findings.contains { $0.level == .problem }),
                "checks": .array(examination.findings.map(\.json)),
            ])
        } else {
            for finding in examination.findings { Console.print(finding.text) }
            let problems = examination.findings.count { $0.level == .problem }
            let warnings = examination.findings.count { $0.level == .warning }
            Console.print(
                problems + warnings == 0
                    ? "\nNothing is wrong." : "\n\(problems) problems, \(warnings) warnings.")
        }
        if examination.findings.contains(where: { $0.level == .problem }) { throw KruxExit.failed }
    }
}

/// One look at a home. The database's own files are read through SQLite only: closing any other descriptor on them
/// would drop the locks that a running gateway holds in this process's name.
private struct Examination {
    struct Finding {
        enum Level: String {
            case ok, warning, problem
        }

        let check: String
        let level: Level
        let detail: String
        let fix: String?

        var json: JSONValue {
            [
                "check": .string(check), "level": .string(level.rawValue), "detail": .string(detail),
                "fix": .optional(fix),
            ]
        }

        var text: String {
            let mark =
                switch level {
                case .ok: "✓"
                case .warning: "!"
                case .problem: "✗"
                }
            let line = "\(mark) \(check.padded(to: 14))\(Console.visible(detail))"
            return fix.map { "\(line)\n    → \(Console.visible($0))" } ?? line
        }
    }

    let home: Home
    private(set) var findings: [Finding] = []

    init(home: Home) { self.home = home }

    private mutating func add(_ check: String, _ level: Finding.Level, _ detail: String, fix: String? = nil) {
        findings.append(Finding(check: check, level: level, detail: detail, fix: fix))
    }

    mutating func run() {
        add("kruxos", .ok, "\(Engine.version), home \(home.root)")
        libraries()
        permissions()
        foreignFiles()
        space()
        clock()
        database()
        confinement()
        add(
            "bounds", .warning, "an agent that runs unconfined as your own user can reach this home past the gate",
            fix: "run agents as another user, or in a container, and let them in through the port only")
    }

    private mutating func libraries() {
        let version = Store.libraryVersion
        if Store.hasResetFault {
            add(
                "sqlite", .ok,
                "\(version) has the WAL-reset fault (3.7.0 to 3.51.2); one writer that alone checkpoints keeps clear of it"
            )
        } else {
            add("sqlite", .ok, version)
        }
        add("libsodium", .ok, Sodium.version)
        add("libyaml", .ok, YAMLLibrary.version)
    }

    private mutating func permissions() {
        var open: [String] = []
        var foreign: [String] = []
        let names = [
            "", "/keys", "/workspaces", "/policies", "/kruxos.db", "/kruxos.lock", "/checkpoints.log", "/backups",
        ]
        let keys = (try? FileManager.default.contentsOfDirectory(atPath: home.root + "/keys")) ?? []
        for path in names.map({ home.root + $0 }) + keys.map({ "\(home.root)/keys/\($0)" }) {
            var status = stat()
            guard lstat(path, &status) == 0 else { continue }
            if status.st_mode & 0o077 != 0 { open.append(path) }
            if status.st_uid != geteuid() { foreign.append(path) }
        }
        if !open.isEmpty {
            add(
                "permissions", .problem, "others may reach \(open.joined(separator: ", "))",
                fix: "chmod go= \(open.joined(separator: " "))")
        }
        if !foreign.isEmpty {
            add(
                "permissions", .problem, "\(foreign.joined(separator: ", ")) belongs to another user",
                fix: "chown -R \(OperatorClient.user) \(home.root), or run kruxos as the user whose home this is")
        }
        if open.isEmpty, foreign.isEmpty { add("permissions", .ok, "yours alone") }
    }

    private mutating func foreignFiles() {
        let known = [
            "kruxos.db", "kruxos.db-wal", "kruxos.db-shm", "kruxos.db.new", "kruxos.lock", "kruxos.sock", "keys",
            "workspaces",
            "policies",
            "gateway.log", "checkpoints.log", "backups", "requirements.yaml",
        ]
        let found = (try? FileManager.default.contentsOfDirectory(atPath: home.root)) ?? []
        let strange = found.filter { name in
            !known.contains(name) && !name.contains(".before-restore-") && !name.hasPrefix("kruxos.db.restoring-")
        }.sorted()
        if !strange.isEmpty {
            add(
                "files", .warning, "not made by kruxos: \(strange.joined(separator: ", "))",
                fix: "move them out of \(home.root)")
        }
        let keys = (try? FileManager.default.contentsOfDirectory(atPath: home.root + "/keys")) ?? []
        let strangeKeys = keys.filter { name in
            !(name == "head" || name == "digest.key" || name == "witness.key" || name.hasPrefix("row-")
                || name.hasPrefix("checkpoint-"))
        }
        if !strangeKeys.isEmpty {
            add(
                "files", .warning, "not made by kruxos: keys/\(strangeKeys.sorted().joined(separator: ", keys/"))",
                fix: "move them out of \(home.root)/keys")
        }
        if found.contains(where: { $0.hasPrefix("kruxos.db.restoring-") }) {
            add(
                "files", .warning, "a restore was interrupted",
                fix: "run `kruxos restore` again, and remove kruxos.db.restoring-*")
        }
        if strange.isEmpty, strangeKeys.isEmpty { add("files", .ok, "nothing foreign") }
    }

    private mutating func space() {
        let free = home.freeBytes
        let shown = free >> 30 > 0 ? "\(free >> 30) GiB" : "\(free >> 20) MiB"
        if free < 64 << 20 {
            add(
                "disk", .problem, "\(shown) free: below 64 MiB no effect begins",
                fix: "free some space, or prune old bodies with `kruxos audit prune`")
        } else if free < 1 << 30 {
            add("disk", .warning, "\(shown) free", fix: "free some space")
        } else {
            add("disk", .ok, "\(shown) free")
        }
        var status = statvfs()
        if statvfs(home.root, &status) == 0, status.f_flag & UInt(ST_RDONLY) != 0 {
            add(
                "disk", .problem, "the home's file system is read-only",
                fix: "mount it for writing: nothing can be recorded")
        }
    }

    private mutating func clock() {
        let now = Engine.systemClock.now()
        if now.civil.year < 2024 {
            add("clock", .problem, "it says \(now.rfc3339)", fix: "set it: rows carry this time")
        } else {
            add("clock", .ok, now.rfc3339)
        }
    }

    private mutating func database() {
        let store: ReadOnlyStore
        do { store = try ReadOnlyStore(path: home.database) } catch {
            let structured = error as? StoreError
            add("database", .problem, structured?.message ?? "\(error)", fix: structured?.hint ?? "restore a backup")
            return
        }
        defer { store.close() }
        do {
            let version = store.schemaVersion
            if version < Store.latestSchema {
                add(
                    "schema", .warning, "version \(version); this kruxos makes \(Store.latestSchema)",
                    fix: "start the gateway: it makes a backup and brings the file up to date")
            } else if try store.read(Store.schema) != Store.expectedSchema() {
                add(
                    "schema", .problem, "it is not the one this kruxos makes",
                    fix: "something changed the file: restore a backup")
            } else {
                add("schema", .ok, "version \(version)")
            }
            let damage = try store.integrityProblems()
            if damage.isEmpty {
                add("integrity", .ok, "every page and index is sound")
            } else {
                add(
                    "integrity", .problem, damage.joined(separator: "; "),
                    fix: "restore a backup with `kruxos restore FILE`")
            }
            try record(store)
            if version >= Store.latestSchema { try anchors(store) }
        } catch {
            add("database", .problem, "\(error)", fix: "restore a backup with `kruxos restore FILE`")
        }
    }

    private mutating func record(_ store: ReadOnlyStore) throws {
        let (head, last) = try store.read { tx in
            (try AuditLog.head(tx), try tx.first("SELECT max(time) FROM audit") { $0.optionalInt(0) } ?? nil)
        }
        let root = home.root
        do {
            try store.read { try AuditLog.requireContinuable($0, home: root) }
            add("keys", .ok, "the signing keys are here")
            add("head", .ok, head.map { "row \($0.seq) of epoch \($0.epoch)" } ?? "no row yet")
        } catch let error as AuditError {
            add(error.code == .lostKey ? "keys" : "head", .problem, error.message, fix: error.hint)
        }
        if let last, last > Engine.systemClock.now().microseconds + 60_000_000 {
            add(
                "clock", .warning,
                "the record holds rows from later than now: \(Timestamp(microseconds: last).rfc3339)",
                fix: "check the clock; queries by time will surprise you")
        }
    }

    private mutating func anchors(_ store: ReadOnlyStore) throws {
        let targets = try store.read(AnchorTable.all)
        for target in targets {
            if let problem = target.problem {
                add(
                    "anchor \(target.number)", .problem,
                    "fails since \(target.failingSince?.rfc3339 ?? "-"): \(problem)",
                    fix: "mend it and run `kruxos audit anchor send \(target.number)`")
            }
        }
        if targets.isEmpty {
            add(
                "anchors", .warning, "checkpoints are kept in this home only, so nobody else can tell lost rows",
                fix: "add one with `kruxos audit anchor add`, on another machine if you can")
        } else if targets.allSatisfy({ $0.problem == nil }) {
            add("anchors", .ok, "\(targets.count) configured")
        }
        let suspended = try store.read(AgentTable.all).filter(\.isSuspended).map(\.name.text)
        if !suspended.isEmpty {
            add(
                "agents", .warning, "suspended since a restore: \(suspended.joined(separator: ", "))",
                fix: "`kruxos agent resume NAME` lets them go on")
        }
    }

    private mutating func confinement() {
        let abi = ConfinedProcess.landlockABI
        let namespaces = (try? String(contentsOfFile: "/proc/sys/user/max_user_namespaces", encoding: .utf8))
            .flatMap { Int($0.trimmingCharacters(in: .whitespacesAndNewlines)) }
        var missing: [String] = []
        if abi < 1 { missing.append("Landlock") }
        if namespaces == 0 { missing.append("user namespaces") }
        if missing.isEmpty {
            add("confinement", .ok, "Landlock ABI \(abi), user namespaces")
        } else {
            add(
                "confinement", .problem,
                "this kernel lacks \(missing.joined(separator: " and ")): programs are refused",
                fix:
                    "allow user namespaces (sysctl user.max_user_namespaces) and use a kernel with Landlock, 5.13 or later"
            )
        }
    }
}
