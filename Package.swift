// swift-tools-version:6.2
import PackageDescription

let swiftSettings: [SwiftSetting] = [
    // Dynamic dispatch is written where it happens: the hot path has none.
    .enableUpcomingFeature("ExistentialAny"),
    // A member is visible only where its module is imported, so the rooms' import table is the truth.
    .enableUpcomingFeature("MemberImportVisibility"),
    // A room's imports stay its own business unless it says otherwise.
    .enableUpcomingFeature("InternalImportsByDefault"),
]

/// A room: one reason to change, imports checked by `.ci/check-imports` against the table in the README.
func room(
    _ name: String, _ dependencies: [Target.Dependency] = [], path: String? = nil, resources: [Resource]? = nil,
    exclude: [String] = []
) -> Target {
    .target(
        name: name, dependencies: dependencies, path: path, exclude: exclude, resources: resources,
        swiftSettings: swiftSettings)
}

func tests(_ name: String, _ dependencies: [Target.Dependency]) -> Target {
    .testTarget(
        name: name, dependencies: dependencies,
        exclude: [
            "EndToEndTests": ["peers", "released"], "KruxAuditTests": ["vectors"], "KruxEngineTests": ["traces"],
        ][name] ?? [],
        swiftSettings: swiftSettings)
}

let log: Target.Dependency = .product(name: "Logging", package: "swift-log")
let grdb: Target.Dependency = .product(name: "GRDB", package: "GRDB.swift")
let sqlite: Target.Dependency = .product(name: "GRDBSQLite", package: "GRDB.swift")
let hummingbird: Target.Dependency = .product(name: "Hummingbird", package: "hummingbird")
let hummingbirdCore: Target.Dependency = .product(name: "HummingbirdCore", package: "hummingbird")
let lifecycle: [Target.Dependency] = [
    .product(name: "ServiceLifecycle", package: "swift-service-lifecycle"),
    .product(name: "UnixSignals", package: "swift-service-lifecycle"),
]
let arguments: Target.Dependency = .product(name: "ArgumentParser", package: "swift-argument-parser")
let nio: [Target.Dependency] = [
    .product(name: "NIOCore", package: "swift-nio"),
    .product(name: "NIOPosix", package: "swift-nio"),
    .product(name: "NIOHTTP1", package: "swift-nio"),
]
let httpClient: Target.Dependency = .product(name: "AsyncHTTPClient", package: "async-http-client")
let httpTypes: Target.Dependency = .product(name: "HTTPTypes", package: "swift-http-types")

let package = Package(
    name: "kruxos",
    platforms: [.macOS(.v15)],
    products: [.executable(name: "kruxos", targets: ["kruxos"])],
    dependencies: [
        // Subcommands, help texts, completion scripts.
        .package(url: "https://github.com/apple/swift-argument-parser", from: "1.8.2"),
        // The gateway's and the libraries' diagnostics.
        .package(url: "https://github.com/apple/swift-log", from: "1.16.2"),
        // Sockets and HTTP/1 under the gateway.
        .package(url: "https://github.com/apple/swift-nio", from: "2.101.2"),
        // Header names and status codes as Hummingbird speaks them.
        .package(url: "https://github.com/apple/swift-http-types", from: "1.8.0"),
        // SQLite connections, statements and their cache.
        .package(url: "https://github.com/groue/GRDB.swift", from: "7.10.0"),
        // The HTTP server; without swift-configuration and full Foundation, which nothing here reads.
        .package(url: "https://github.com/hummingbird-project/hummingbird", from: "2.28.1", traits: []),
        // The HTTP client of everything the gateway sends of its own accord.
        .package(url: "https://github.com/swift-server/async-http-client", from: "1.37.0"),
        // TLS to mail servers; the HTTP client brings it along.
        .package(url: "https://github.com/apple/swift-nio-ssl", from: "2.37.6"),
        // Signals and an orderly stop.
        .package(url: "https://github.com/swift-server/swift-service-lifecycle", from: "2.13.0"),
    ],
    targets: [
        // System libraries.
        .systemLibrary(name: "CSodium", pkgConfig: "libsodium", providers: [.apt(["libsodium-dev"])]),
        .systemLibrary(name: "CYaml", pkgConfig: "yaml-0.1", providers: [.apt(["libyaml-dev"])]),
        // What of SQLite's interface is variadic; headers only, GRDBSQLite links the library.
        .target(name: "CSQLite"),
        // The launcher that confines a process, in C because it runs between fork and exec.
        .target(name: "CSandbox"),
        // Records that getaddrinfo does not give; glibc's resolver.
        .target(name: "CResolver", linkerSettings: [.linkedLibrary("resolv")]),
        // How wide a character is.
        .target(name: "CTerminal"),

        // Data compiled in.
        room("KruxMigrations", path: "migrations", resources: [.embedInCode("sql")]),
        room(
            "KruxPolicies", path: "policies",
            resources: [.embedInCode("yaml"), .embedInCode("schema"), .embedInCode("suites")], exclude: ["README.md"]),

        // Rooms, from the bottom up.
        room("KruxCore"),
        room("KruxCrypto", ["KruxCore", "CSodium"]),
        room("KruxPolicy", ["KruxCore", "KruxCrypto", "CYaml"]),
        room("KruxStore", ["KruxCore", "KruxMigrations", "CSQLite", grdb, sqlite, log]),
        room("KruxAudit", ["KruxCore", "KruxCrypto", "KruxStore"]),
        room("KruxRegistry", ["KruxCore", "KruxCrypto", "KruxStore", "KruxPolicy", "KruxAudit"]),
        room("KruxApprovals", ["KruxCore", "KruxStore", "KruxAudit"]),
        room("KruxSandbox", ["KruxCore", "CSandbox"]),
        // CSandbox for openat2 and renameat2, which glibc does not wrap.
        room(
            "KruxCapabilities",
            [
                "KruxCore", "KruxCrypto", "KruxStore", "KruxSandbox", "CSandbox", "CResolver", httpClient,
                .product(name: "NIOSSL", package: "swift-nio-ssl"),
            ] + nio),
        // The record's parts only for what it sends: checkpoints and witness requests.
        room(
            "KruxOutbound",
            [
                "KruxCore", "KruxCrypto", "KruxAudit", "KruxSandbox", httpClient,
                .product(name: "NIOCore", package: "swift-nio"), .product(name: "NIOHTTP1", package: "swift-nio"),
            ]),
        room(
            "KruxEngine",
            [
                "KruxCore", "KruxCrypto", "KruxPolicy", "KruxStore", "KruxAudit", "KruxRegistry", "KruxApprovals",
                "KruxSandbox", "KruxCapabilities", "KruxOutbound", "KruxPolicies", log,
            ]),
        room("KruxMCP", ["KruxCore"]),
        // A full-screen terminal: raw mode, keys, the width of text.
        room("KruxTerminal", ["CTerminal"]),
        room(
            "KruxGateway",
            [
                "KruxCore", "KruxCrypto", "KruxStore", "KruxAudit", "KruxEngine", "KruxMCP", hummingbird,
                hummingbirdCore, httpTypes, log,
            ] + nio + lifecycle),
        room(
            "KruxCLI",
            [
                "KruxCore", "KruxCrypto", "KruxPolicy", "KruxStore", "KruxAudit", "KruxRegistry", "KruxApprovals",
                "KruxSandbox", "KruxCapabilities", "KruxPolicies", "KruxEngine", "KruxMCP", "KruxGateway",
                "KruxTerminal", arguments,
                log,
            ]),
        .executableTarget(name: "kruxos", dependencies: ["KruxCLI"], swiftSettings: swiftSettings),
        .executableTarget(
            name: "KruxBenchmarks",
            dependencies: [
                "KruxCore", "KruxCrypto", "KruxPolicy", "KruxStore", "KruxAudit", "KruxSandbox", "KruxCapabilities",
                "KruxPolicies", "CAllocations", log,
            ],
            swiftSettings: swiftSettings),

        // Tests. EndToEndTests starts the real binary, so it is built with them.
        .target(
            name: "KruxTestSupport", dependencies: ["CSandbox", sqlite], path: "Tests/KruxTestSupport",
            swiftSettings: swiftSettings
        ),
        tests("KruxCoreTests", ["KruxCore"]),
        // Counts allocations, to hold the decision to none.
        .target(name: "CAllocations", path: "Tests/CAllocations"),
        tests("KruxPolicyTests", ["KruxCore", "KruxPolicy", "KruxPolicies", "KruxCapabilities", "CAllocations"]),
        tests("KruxStoreTests", ["KruxStore", "KruxTestSupport", sqlite, log]),
        tests("KruxAuditTests", ["KruxCore", "KruxCrypto", "KruxStore", "KruxAudit", "KruxTestSupport", sqlite, log]),
        tests(
            "KruxCapabilitiesTests",
            ["KruxCore", "KruxCrypto", "KruxSandbox", "KruxCapabilities", "KruxTestSupport"]),
        tests("KruxOutboundTests", ["KruxCrypto", "KruxAudit", "KruxOutbound", "KruxTestSupport"]),
        tests("KruxApprovalsTests", ["KruxApprovals"]),
        tests(
            "KruxEngineTests",
            [
                "KruxCore", "KruxCrypto", "KruxPolicy", "KruxRegistry", "KruxAudit", "KruxStore", "KruxApprovals",
                "KruxCapabilities",
                "KruxEngine", "KruxSandbox", "KruxTestSupport", log,
            ]),
        tests("EndToEndTests", ["KruxCore", "KruxCrypto", "KruxTestSupport", "kruxos"]),
    ],
    swiftLanguageModes: [.v6]
)
