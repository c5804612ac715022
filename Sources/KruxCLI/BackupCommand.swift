import ArgumentParser
import Foundation
import KruxAudit
import KruxCore
import KruxEngine
import KruxStore

struct BackupCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "backup",
        abstract: "Copy the database to a file, whole and verified, while the gateway runs or not.",
        discussion: """
            Everything that was answered before it began is in it. The signing keys and the agents' workspaces are not: \
            without its keys a restored record goes on in a new epoch.
            """)

    @OptionGroup var common: CommonOptions
    @Argument(help: "The file to write; one that is there is replaced once the new one has been verified.") var file:
        String

    mutating func run() async throws {
        let source = try common.openForReading()
        let home = try common.resolveHome()
        var status = stat()
        let exists = stat(file, &status) == 0
        if exists {
            guard status.st_mode & S_IFMT == S_IFREG else {
                throw StructuredError(.invalidArguments, "`\(file)` is no regular file", recovery: ["Choose another."])
            }
            var own = stat()
            guard stat(home.database, &own) != 0 || own.st_ino != status.st_ino || own.st_dev != status.st_dev else {
                throw StructuredError(
                    .invalidArguments, "`\(file)` is the database itself", recovery: ["Choose another file."])
            }
        }
        // Nothing of the home is overwritten, and nothing is put where only kruxos writes.
        let folder = (file as NSString).deletingLastPathComponent
        if let target = realpath(folder.isEmpty ? "." : folder, nil), let own = realpath(home.root, nil) {
            let (place, root) = (String(cString: target), String(cString: own))
            free(target)
            free(own)
            if place == root || place.hasPrefix(root + "/"), place != root + "/backups" {
                throw StructuredError(
                    .invalidArguments, "`\(file)` lies in the home itself",
                    recovery: ["Choose a place outside, best on another disk, or \(home.root)/backups."])
            }
        }
        let temporary = "\(file).partial-\(getpid())"
        do {
            try source.copy(to: temporary)
            let bar = ProgressBar("verifying")
            var options = AuditVerifier.Options()
            if !common.json { options.progress = { bar.show($0, of: $1) } }
            let verdict = try AuditVerifier.verify({ try ReadOnlyStore(path: temporary, immutable: true) }, options)
            bar.clear()
            // Epochs that a restore began are this home's own business, and told by `audit verify`.
            guard verdict.isIntact || verdict.isOnlyUnvouched else {
                throw StructuredError(
                    .ioFailure, "the copy does not verify, so no backup was made: \(verdict.text)",
                    recovery: ["Run `kruxos audit verify` and `kruxos doctor`."])
            }
            if exists, chmod(temporary, status.st_mode & 0o777) != 0 {
                throw StructuredError(
                    .ioFailure, "cannot set the mode of `\(temporary)`: \(String(cString: strerror(errno)))")
            }
            guard rename(temporary, file) == 0 else {
                throw StructuredError(.ioFailure, "cannot write `\(file)`: \(String(cString: strerror(errno)))")
            }
            try Store.synchronise(file)
            var written = stat()
            let size: Int64 = stat(file, &written) == 0 ? Int64(written.st_size) : 0
            if common.json {
                return Console.print([
                    "file": .string(file), "bytes": .int(size), "rows": .int(verdict.rows),
                    "verdict": .string(verdict.word),
                ])
            }
            Console.print("\(verdict.rows) rows, \(size / 1024) KiB, verified: \(Console.visible(file))")
        } catch {
            unlink(temporary)
            throw error
        }
    }
}
