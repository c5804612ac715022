package import KruxCore
package import KruxCrypto
package import KruxSandbox

/// One capability: its declaration and how it is done. One file each.
package protocol Capability: Sendable {
    associatedtype Input: CapabilityInput
    associatedtype Output: CapabilityOutput

    static var declaration: CapabilityDeclaration { get }

    /// Does it. Arguments fit the schema and their paths are canonical.
    func run(_ input: Input, _ context: CallContext) async throws(StructuredError) -> Output

    /// What must still be so when an approved call runs, besides agent, capability and arguments.
    /// `{files?: {path: what was there}, …}`; whatever it is, it is compared and shown.
    func binding(_ input: Input, _ context: CallContext) throws(StructuredError) -> JSONObject

    /// What a person is shown before they approve it.
    func preview(_ input: Input, _ context: CallContext) throws(StructuredError) -> Preview
}

/// A capability whose arguments are completed from files of the workspace before it is decided.
package protocol ResolvingCapability: Capability {
    static func resolve(_ arguments: JSONObject, _ workspace: Workspace) throws(StructuredError) -> JSONObject
}

extension Capability {
    package func binding(_ input: Input, _ context: CallContext) throws(StructuredError) -> JSONObject { [:] }

    package func preview(_ input: Input, _ context: CallContext) throws(StructuredError) -> Preview {
        Preview(Self.declaration)
    }
}

package protocol CapabilityInput: Sendable {
    init(_ arguments: Arguments) throws(StructuredError)
}

package protocol CapabilityOutput: Sendable {
    var json: JSONObject { get }
}

/// The input of a capability without arguments.
package struct NoInput: CapabilityInput {
    package init(_ arguments: Arguments) {}
}

/// Arguments that the schema has checked, read by name and type.
package struct Arguments: Sendable {
    private let object: JSONObject

    package init(_ object: JSONObject) { self.object = object }

    private func missing(_ name: String) -> StructuredError {
        StructuredError(.internalError, "the argument `\(name)` is not of its declared type")
    }

    func text(_ name: String) throws(StructuredError) -> String {
        guard let value = object[name]?.string else { throw missing(name) }
        return value
    }

    func int(_ name: String) throws(StructuredError) -> Int64 {
        guard let value = object[name]?.int else { throw missing(name) }
        return value
    }

    func bool(_ name: String) throws(StructuredError) -> Bool {
        guard let value = object[name]?.bool else { throw missing(name) }
        return value
    }

    func texts(_ name: String) throws(StructuredError) -> [String] {
        guard let values = object[name]?.array else { throw missing(name) }
        return values.compactMap(\.string)
    }

    func value(_ name: String) -> JSONValue? { object[name] }
    func optionalText(_ name: String) -> String? { object[name]?.string }
    func optionalInt(_ name: String) -> Int64? { object[name]?.int }
    func optionalMap(_ name: String) -> JSONObject? { object[name]?.object }
}

/// What a running capability knows of its call.
package struct CallContext: Sendable {
    package let agent: AgentName
    package let workspace: Workspace
    package let clock: WallClock
    package let host: HostServices
    /// The box of a process that it starts.
    package var confinement: Confinement
    /// Places that no agent changes.
    package let protected: ProtectedNames
    /// What of them is held while processes run.
    package let protectedFiles: ProtectedFiles
    /// What runs and has run.
    package let processes: ProcessTable
    /// Told of a background process that has ended: `{process, put_back?, duration_ms, stdout_bytes, stderr_bytes}`.
    package let processEnded: @Sendable (JSONObject) async -> Void
    /// Hides secrets in a text that people are shown.
    package let scrub: @Sendable (String) -> String
    /// What rules say of the same call with some arguments changed, such as where a redirect leads.
    package let redecide: @Sendable (JSONObject) throws(StructuredError) -> Redecision
    /// A secret of the vault for one use, sent to an address or not; `.blocked` beyond its scope.
    package let secret: @Sendable (String, WebAddress?) throws(StructuredError) -> SecretBytes
    package var nested: NestedCalls
    /// The request under which a person has approved the call.
    package var approval: String?
    /// Where a secret that stands in the arguments may be sent; nil where none does.
    package var carried: [HostPattern]?
    /// Bytes without values of the vault.
    package let hiding: @Sendable ([UInt8]) -> [UInt8]
    /// Records a step of the call before it is taken.
    package var report: @Sendable (JSONObject) async throws -> Void = { _ in }

    /// A decision on a step of a call.
    package struct Redecision: Sendable {
        package let tier: Tier
        package let sandbox: SandboxSettings
        package let reason: String?

        package init(tier: Tier, sandbox: SandboxSettings, reason: String?) {
            self.tier = tier
            self.sandbox = sandbox
            self.reason = reason
        }
    }

    package init(
        agent: AgentName, workspace: Workspace, clock: WallClock, host: HostServices,
        confinement: Confinement = Confinement(), protected: ProtectedNames = ProtectedNames([]),
        protectedFiles: ProtectedFiles? = nil, processes: ProcessTable,
        processEnded: @escaping @Sendable (JSONObject) async -> Void = { _ in },
        scrub: @escaping @Sendable (String) -> String = { $0 },
        redecide: @escaping @Sendable (JSONObject) throws(StructuredError) -> Redecision = { _ in
            Redecision(tier: .blocked, sandbox: SandboxSettings(), reason: nil)
        },
        secret: @escaping @Sendable (String, WebAddress?) throws(StructuredError) -> SecretBytes = {
            name, _ throws(StructuredError) in throw StructuredError(.vaultLocked, "there is no vault here")
        }, nested: NestedCalls = .none, hiding: @escaping @Sendable ([UInt8]) -> [UInt8] = { $0 }
    ) {
        self.hiding = hiding
        self.secret = secret
        self.nested = nested
        self.redecide = redecide
        self.confinement = confinement
        self.protected = protected
        self.processes = processes
        self.processEnded = processEnded
        self.protectedFiles = protectedFiles ?? ProtectedFiles(workspace: workspace)
        self.scrub = scrub
        self.agent = agent
        self.workspace = workspace
        self.clock = clock
        self.host = host
    }
}

/// A capability behind one shape, whatever its types.
package struct AnyCapability: Sendable {
    package let declaration: CapabilityDeclaration
    package let work: CapabilityWork
    /// Fills in what the workspace says, before the call is decided.
    package var resolve: (@Sendable (JSONObject, Workspace) throws(StructuredError) -> JSONObject)?
    package let binding: @Sendable (JSONObject, CallContext) throws(StructuredError) -> JSONObject
    package let preview: @Sendable (JSONObject, CallContext) throws(StructuredError) -> Preview

    package init<C: Capability>(_ capability: C) {
        declaration = C.declaration
        work = .run { (arguments, context) async throws(StructuredError) in
            try await capability.run(try C.Input(Arguments(arguments)), context).json
        }
        binding = { (arguments, context) throws(StructuredError) in
            try capability.binding(try C.Input(Arguments(arguments)), context)
        }
        preview = { (arguments, context) throws(StructuredError) in
            try capability.preview(try C.Input(Arguments(arguments)), context)
        }
    }
}

extension AnyCapability {
    package init<C: ResolvingCapability>(resolving capability: C) {
        self.init(capability)
        resolve = { (arguments, workspace) throws(StructuredError) in try C.resolve(arguments, workspace) }
    }

    /// One that touches the product's own state alone: nothing outside of it could change before it runs.
    init(_ declaration: CapabilityDeclaration, _ work: CapabilityWork) {
        self.declaration = declaration
        self.work = work
        binding = { (_, _) throws(StructuredError) in [:] }
        preview = { (_, _) throws(StructuredError) in Preview(declaration) }
    }
}

/// Every capability there is, and which of them this version can do.
package enum Capabilities {
    package static let implemented: [AnyCapability] =
        others + state(SessionPlace.self) + state(PersistentPlace.self) + state(SharedPlace.self)

    /// The same six verbs for each place.
    private static func state<Place: StatePlace>(_ place: Place.Type) -> [AnyCapability] {
        [
            AnyCapability(looking: StateGet<Place>()), AnyCapability(changing: StateSet<Place>()),
            AnyCapability(changing: StateDelete<Place>()), AnyCapability(looking: StateList<Place>()),
            AnyCapability(looking: StateQuery<Place>()), AnyCapability(looking: StateHistory<Place>()),
        ]
    }

    private static let others: [AnyCapability] = [
        AnyCapability(FilesystemRead()), AnyCapability(FilesystemWrite()), AnyCapability(FilesystemAppend()),
        AnyCapability(FilesystemList()), AnyCapability(FilesystemStat()), AnyCapability(FilesystemMkdir()),
        AnyCapability(FilesystemDelete()), AnyCapability(FilesystemRestore()), AnyCapability(FilesystemCopy()),
        AnyCapability(FilesystemMove()), AnyCapability(FilesystemSearch()), AnyCapability(FilesystemSearchContent()),
        AnyCapability(FilesystemEdit()), AnyCapability(FilesystemWatch()), AnyCapability(ProcessRun()),
        AnyCapability(ProcessList()), AnyCapability(ProcessMonitor()), AnyCapability(ProcessLogs()),
        AnyCapability(ProcessKill()), AnyCapability(GitInit()), AnyCapability(GitStatus()), AnyCapability(GitDiff()),
        AnyCapability(GitLog()), AnyCapability(GitBranch()), AnyCapability(GitCheckout()), AnyCapability(GitCommit()),
        AnyCapability(GitClone()), AnyCapability(resolving: GitPull()), AnyCapability(resolving: GitPush()),
        AnyCapability(NetworkHTTPRequest()), AnyCapability(NetworkDownload()), AnyCapability(NetworkDNSLookup()),
        AnyCapability(NetworkPortCheck()), AnyCapability(NetworkCredentialedRequest()), AnyCapability(SecretsList()),
        AnyCapability(SecretsUse()), AnyCapability(changing: SecretsRotateRequest()),
        AnyCapability(EmailList()), AnyCapability(EmailSearch()), AnyCapability(EmailRead()),
        AnyCapability(EmailDraft()),
        AnyCapability(EmailSend()), AnyCapability(EmailDelete()), AnyCapability(changing: SchedulerCronCreate()),
        AnyCapability(looking: SchedulerCronList()), AnyCapability(changing: SchedulerCronDelete()),
        AnyCapability(changing: SchedulerDelay()), AnyCapability(SystemTime()),
        AnyCapability(SystemInfo()), AnyCapability(SystemHealth()),
        AnyCapability(looking: StateSharedWatch()), AnyCapability(changing: CommsSend()),
        AnyCapability(changing: CommsBroadcast()), AnyCapability(changing: CommsSubscribe()),
        AnyCapability(changing: CommsReceive()), AnyCapability(changing: AlertsSend()),
        AnyCapability(looking: AlertsList()), AnyCapability(changing: AlertsAcknowledge()),
        AnyCapability(looking: SystemMetrics()), AnyCapability(looking: AgentBriefing()),
        AnyCapability(AgentWhoami()), AnyCapability(AgentCapabilities()), AnyCapability(AgentPolicy()),
        AnyCapability(AgentSession()),
    ]

    /// Declared and decidable, but answered with `CapabilityUnavailable`.
    static let declaredOnly: [CapabilityDeclaration] =
        DeclaredSecrets.all

    package static let catalogue = Catalogue(implemented.map(\.declaration) + declaredOnly)

    private static let byIndex: [AnyCapability?] = catalogue.declarations.map { declaration in
        implemented.first { $0.declaration.name == declaration.name }
    }

    /// The capability at a catalogue index; nil when this version only declares it.
    package static func implementation(at index: Int) -> AnyCapability? { byIndex[index] }
}
