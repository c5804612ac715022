import ArgumentParser
import Foundation
import KruxCore
import KruxCrypto
import KruxEngine
import KruxRegistry
import KruxStore

struct VaultCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "vault", abstract: "Secrets that agents use by name and never see.",
        discussion: """
            Values and passphrases come from standard input, from a prompt, or (a passphrase) from a file; never from the \
            command line. Each secret is for the capabilities and hosts that are named with it, and for nothing else. The \
            gateway keeps the key while it is unlocked; with it, it hides the values in records and replies.
            """,
        subcommands: [
            Init.self, Unlock.self, Lock.self, Add.self, List.self, Rotate.self, Revoke.self, Passphrase.self,
        ])

    struct PassphraseOption: ParsableArguments {
        @Option(help: "Read the passphrase from this file.") var passphraseFile: String?
    }

    struct Init: AsyncParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Make the vault; nobody can open it without its passphrase.")
        @OptionGroup var common: CommonOptions
        @OptionGroup var source: PassphraseOption

        mutating func run() async throws {
            let passphrase = try SecretInput.passphrase(source.passphraseFile, confirm: true)
            let result = try await VaultCommand.run(common, .vaultInit, ["passphrase": .string(passphrase)])
            VaultCommand.report(common, result, "The vault is made.")
        }
    }

    struct Unlock: AsyncParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Give the running gateway the key, until it stops or the vault is locked.")
        @OptionGroup var common: CommonOptions
        @OptionGroup var source: PassphraseOption

        mutating func run() async throws {
            guard let connection = try OperatorClient.connect(try common.resolveHome()) else {
                throw StructuredError(
                    .unavailable, "no gateway runs that could keep the key",
                    recovery: ["Start it with `kruxos serve`; other vault commands ask for the passphrase themselves."])
            }
            let passphrase = try SecretInput.passphrase(source.passphraseFile, confirm: false)
            let result = try OperatorClient.ask(
                connection, Engine.OperatorCommand.vaultUnlock.rawValue, ["passphrase": .string(passphrase)])
            VaultCommand.report(common, result, "The vault is unlocked.")
        }
    }

    struct Lock: AsyncParsableCommand {
        static let configuration = CommandConfiguration(abstract: "Take the key from the running gateway.")
        @OptionGroup var common: CommonOptions

        mutating func run() async throws {
            VaultCommand.report(
                common, try await VaultCommand.run(common, .vaultLock, [:]), "The vault is locked.")
        }
    }

    struct Passphrase: AsyncParsableCommand {
        static let configuration = CommandConfiguration(abstract: "Change the vault's passphrase.")
        @OptionGroup var common: CommonOptions
        @Option(help: "Read the present passphrase from this file.") var currentFile: String?
        @OptionGroup var source: PassphraseOption

        mutating func run() async throws {
            let current = try SecretInput.passphrase(currentFile, confirm: false, prompt: "Present passphrase: ")
            let next = try SecretInput.passphrase(source.passphraseFile, confirm: true, prompt: "New passphrase: ")
            let result = try await VaultCommand.run(
                common, .vaultPassphrase, ["current": .string(current), "passphrase": .string(next)])
            VaultCommand.report(common, result, "The passphrase is changed.")
        }
    }

    struct Add: AsyncParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Add a secret; its value comes from standard input.",
            discussion: """
                Example: kruxos vault add github --capability network.credentialed_request --host api.github.com < token
                """)
        @OptionGroup var common: CommonOptions
        @Argument(help: "Its name.") var name: String
        @Option(help: "A capability that may use it, or `git.*`; several times for several.") var capability: [String] =
            []
        @Option(help: "A host it may be sent to, such as `api.example.com` or `*.example.com:8443`.") var host:
            [String] = []
        @Option(help: "An agent it is for; every agent whose policy lets it if absent.") var agent: [String] = []
        @Flag(help: "It may be sent without encryption, too.") var plainHTTP = false
        @OptionGroup var source: PassphraseOption

        mutating func run() async throws {
            let value = try SecretInput.value("Value of \(name): ")
            let parameters: JSONObject = [
                "name": .string(name), "value": .string(value), "capabilities": .strings(capability),
                "hosts": .strings(host), "agents": .strings(agent), "plain_http": .bool(plainHTTP),
            ]
            let result = try await VaultCommand.runOpened(common, .vaultAdd, parameters, source)
            if common.json { return Console.print(.object(result)) }
            Console.print("Secret \(name) added, for \(capability.joined(separator: ", ")).")
            if result["is_short"]?.bool ?? false {
                Console.print("It is so short that it is hidden in records, and not where it stands in a reply.")
            }
            if host.isEmpty {
                Console.print("It may be sent to no host: name one with --host for capabilities that send it.")
            }
        }
    }

    struct Rotate: AsyncParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Give a secret a new value, from standard input; what it is for stays.")
        @OptionGroup var common: CommonOptions
        @Argument(help: "Its name.") var name: String
        @OptionGroup var source: PassphraseOption

        mutating func run() async throws {
            let value = try SecretInput.value("New value of \(name): ")
            let result = try await VaultCommand.runOpened(
                common, .vaultRotate, ["name": .string(name), "value": .string(value)], source)
            if common.json { return Console.print(.object(result)) }
            Console.print("Secret \(name) rotated: version \(result["version"]?.int ?? 0).")
        }
    }

    struct Revoke: AsyncParsableCommand {
        static let configuration = CommandConfiguration(abstract: "Forget a secret's value for good.")
        @OptionGroup var common: CommonOptions
        @Argument(help: "Its name.") var name: String

        mutating func run() async throws {
            let result = try await VaultCommand.run(common, .vaultRevoke, ["name": .string(name)])
            if common.json { return Console.print(.object(result)) }
            Console.print("Secret \(name) revoked. Backups made before still hold it, sealed.")
        }
    }

    struct List: AsyncParsableCommand {
        static let configuration = CommandConfiguration(abstract: "List secrets and what they are for; never values.")
        @OptionGroup var common: CommonOptions

        mutating func run() async throws {
            let secrets = try common.openForReading().read(VaultTable.all)
            if common.json { return Console.print(.array(secrets.map { .object($0.json) })) }
            if secrets.isEmpty { return Console.print("No secrets.") }
            var table = Table([
                .init("Name", width: 16), .init("State", width: 8), .init("Version", width: 8),
                .init("Changed", width: 17), .init("Agents", width: 12), .init("Hosts", width: 24),
                .init("Capabilities"),
            ])
            table.rows = secrets.map { secret in
                let hosts = secret.scope.hosts.map(\.text).joined(separator: ", ")
                return [
                    secret.name, secret.sealed == nil ? "revoked" : "active", "\(secret.version)",
                    secret.changedAt.short, secret.scope.agents?.joined(separator: ", ") ?? "any",
                    hosts.isEmpty ? "none" : hosts, secret.scope.capabilities.joined(separator: ", "),
                ]
            }
            Console.printTable(table.text)
        }
    }

    // MARK: Shared

    fileprivate static func run(
        _ common: CommonOptions, _ command: Engine.OperatorCommand, _ parameters: JSONObject
    ) async throws -> JSONObject {
        try await OperatorClient(home: try common.resolveHome()).run(command, parameters)
    }

    /// With the key that the gateway keeps, or with the passphrase.
    fileprivate static func runOpened(
        _ common: CommonOptions, _ command: Engine.OperatorCommand, _ parameters: JSONObject,
        _ source: PassphraseOption
    ) async throws -> JSONObject {
        var parameters = parameters
        if let file = source.passphraseFile {
            parameters["passphrase"] = .string(try SecretInput.passphrase(file, confirm: false))
        }
        do {
            return try await run(common, command, parameters)
        } catch let error as StructuredError where error.kind == .vaultLocked && source.passphraseFile == nil {
            guard SecretInput.hasTerminal else {
                throw StructuredError(
                    .vaultLocked, "the vault is locked",
                    recovery: ["Unlock it with `kruxos vault unlock`, or give `--passphrase-file`."])
            }
            parameters["passphrase"] = .string(try SecretInput.prompted("Passphrase: "))
            return try await run(common, command, parameters)
        }
    }

    fileprivate static func report(_ common: CommonOptions, _ result: JSONObject, _ text: String) {
        if common.json { return Console.print(.object(result)) }
        Console.print(text)
    }
}

/// What nobody should see on a screen, in a process list or in a shell's history; as base64.
enum SecretInput {
    /// From a file, from standard input where that is no terminal, or from the terminal.
    static func passphrase(_ file: String?, confirm: Bool, prompt: String = "Passphrase: ") throws -> String {
        if let file {
            guard let data = FileManager.default.contents(atPath: file) else {
                throw StructuredError(
                    .notFound, "`\(file)` cannot be read", recovery: ["Name a file with the passphrase."])
            }
            return line([UInt8](data))
        }
        if isatty(STDIN_FILENO) == 0 { return line(try standardInput()) }
        let first = try prompted(prompt)
        if confirm, try prompted("Once more: ") != first {
            throw StructuredError(
                .invalidArguments, "the two passphrases are not the same", recovery: ["Try again."])
        }
        return first
    }

    /// Standard input, or what is typed at the terminal.
    static func value(_ prompt: String) throws -> String {
        if isatty(STDIN_FILENO) == 1 { return try prompted(prompt) }
        return line(try standardInput())
    }

    static var hasTerminal: Bool {
        let terminal = open("/dev/tty", O_RDWR | O_CLOEXEC)
        if terminal >= 0 { close(terminal) }
        return terminal >= 0
    }

    private static func standardInput() throws -> [UInt8] {
        let data = try FileHandle.standardInput.read(upToCount: 1 << 20) ?? Data()
        return [UInt8](data)
    }

    /// Without the line's end that editors and `echo` put there.
    private static func line(_ bytes: [UInt8]) -> String {
        var bytes = bytes
        if bytes.last == 10 { bytes.removeLast() }
        if bytes.last == 13 { bytes.removeLast() }
        return Base64.encode(bytes)
    }

    /// Asked at the terminal, without an echo.
    static func prompted(_ prompt: String) throws -> String {
        let terminal = open("/dev/tty", O_RDWR | O_CLOEXEC)
        guard terminal >= 0 else {
            throw StructuredError(
                .invalidRequest, "there is no terminal to ask at", recovery: ["Give it on standard input."])
        }
        defer { close(terminal) }
        var before = termios()
        tcgetattr(terminal, &before)
        var quiet = before
        quiet.c_lflag &= ~tcflag_t(ECHO)
        tcsetattr(terminal, TCSAFLUSH, &quiet)
        defer { tcsetattr(terminal, TCSAFLUSH, &before) }
        func show(_ text: String) { _ = text.withCString { Foundation.write(terminal, $0, strlen($0)) } }
        show(prompt)
        var bytes: [UInt8] = []
        var byte: UInt8 = 0
        while Foundation.read(terminal, &byte, 1) == 1, byte != 10 { bytes.append(byte) }
        show("\n")
        return line(bytes)
    }
}
