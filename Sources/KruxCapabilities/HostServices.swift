package import KruxCore

/// What `agent.*` and `system.*` ask of the gate that runs them.
package struct HostServices: Sendable {
    package struct AgentProfile: Sendable {
        package let name: String, purpose: String
        package let createdAt: Timestamp

        package init(name: String, purpose: String, createdAt: Timestamp) {
            self.name = name
            self.purpose = purpose
            self.createdAt = createdAt
        }
    }

    package struct SessionProfile: Sendable {
        package let id: String, via: String
        package let startedAt: Timestamp
        package let calls: Int64

        package init(id: String, via: String, startedAt: Timestamp, calls: Int64) {
            self.id = id
            self.via = via
            self.startedAt = startedAt
            self.calls = calls
        }
    }

    package struct PolicyProfile: Sendable {
        package let name: String, digest: String
        package let description: String?

        package init(name: String, digest: String, description: String?) {
            self.name = name
            self.digest = digest
            self.description = description
        }
    }

    /// A capability the agent may call in some way, and the tier of a call of which nothing more is known.
    package struct Offer: Sendable {
        package let declaration: CapabilityDeclaration
        package let tier: Tier
        /// The tier depends on the arguments.
        package let conditional: Bool

        package init(declaration: CapabilityDeclaration, tier: Tier, conditional: Bool) {
            self.declaration = declaration
            self.tier = tier
            self.conditional = conditional
        }
    }

    package struct Health: Sendable {
        package let status: String
        package let findings: [String]
        package let uptimeSeconds: Int64

        package init(status: String, findings: [String], uptimeSeconds: Int64) {
            self.status = status
            self.findings = findings
            self.uptimeSeconds = uptimeSeconds
        }
    }

    /// A secret that the agent may use, without its value.
    package struct SecretProfile: Sendable {
        package let name: String
        package let capabilities: [String], hosts: [String]
        package let version: Int64
        package let changedAt: Timestamp

        package init(name: String, capabilities: [String], hosts: [String], version: Int64, changedAt: Timestamp) {
            self.name = name
            self.capabilities = capabilities
            self.hosts = hosts
            self.version = version
            self.changedAt = changedAt
        }
    }

    package let version: String
    package let agent: @Sendable () throws(StructuredError) -> AgentProfile
    package let session: @Sendable () -> SessionProfile
    package let policy: @Sendable () -> PolicyProfile
    package let offers: @Sendable () -> [Offer]
    package let health: @Sendable () -> Health
    package let secrets: @Sendable () throws(StructuredError) -> [SecretProfile]
    /// By its IANA name; nil for none.
    package let timeZone: @Sendable (String) -> TimeZoneTable?
    /// Keeps mail of an account for so many seconds before it is sent, with the request that it was approved by.
    package let holdMail: @Sendable (String, OutgoingMail, Int64, String?) async throws(StructuredError) -> HeldMail
    /// Takes held mail back.
    package let cancelMail: @Sendable (String) async throws(StructuredError) -> Void

    package init(
        version: String, agent: @escaping @Sendable () throws(StructuredError) -> AgentProfile,
        session: @escaping @Sendable () -> SessionProfile, policy: @escaping @Sendable () -> PolicyProfile,
        offers: @escaping @Sendable () -> [Offer], health: @escaping @Sendable () -> Health,
        secrets: @escaping @Sendable () throws(StructuredError) -> [SecretProfile] = { [] },
        timeZone: @escaping @Sendable (String) -> TimeZoneTable? = { _ in nil },
        holdMail: @escaping @Sendable (String, OutgoingMail, Int64, String?) async throws(StructuredError) -> HeldMail =
            {
                _, _, _, _ throws(StructuredError) in throw StructuredError(.unavailable, "no mail is held here")
            },
        cancelMail: @escaping @Sendable (String) async throws(StructuredError) -> Void = {
            id throws(StructuredError) in throw MessageID.unknown(id)
        }
    ) {
        self.holdMail = holdMail
        self.cancelMail = cancelMail
        self.timeZone = timeZone
        self.secrets = secrets
        self.version = version
        self.agent = agent
        self.session = session
        self.policy = policy
        self.offers = offers
        self.health = health
    }
}
