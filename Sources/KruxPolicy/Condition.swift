package import KruxCore

/// What a rule asks of a call. Three-valued: a value that is missing or cannot be judged is neither true nor false.
package struct Condition: Sendable, Equatable {
    package indirect enum Form: Sendable, Equatable {
        case test(Test)
        case all([Condition])
        case any([Condition])
        case not(Condition)
    }

    package enum Comparison: String, Sendable, CaseIterable {
        case lt, lte, gt, gte

        func holds(_ value: Int64, _ bound: Int64) -> Bool {
            switch self {
            case .lt: value < bound
            case .lte: value <= bound
            case .gt: value > bound
            case .gte: value >= bound
            }
        }
    }

    /// One question about one value. Of several wanted texts, one must fit.
    package enum Test: Sendable, Equatable {
        /// Directories as bytes, without a trailing slash.
        case pathPrefix([[UInt8]])
        /// Under none of them.
        case pathNotUnder([[UInt8]])
        case pathGlob([Pattern])
        /// Decoded bytes of the content.
        case contentSize(Comparison, Int64)
        case command([String])
        case commandPrefix([[String]])
        case commandGlob([Pattern])
        case argsContain([String])
        /// Lower case; `*.example.com` for hosts below.
        case host([String])
        case urlPrefix([WebAddress])
        case method([String])
        case port([Int64])
        /// Lower case.
        case recipient([String])
        case recipientDomain([String])
        case keyPrefix([String])
        case argument(String, ArgumentTest)
        /// Minutes since midnight; `until` excluded.
        case timeBetween(from: Int64, until: Int64, Zone)
        /// A bit for each weekday, Monday first.
        case days(UInt8, Zone)
        case sessionLabel([String])
        /// Seconds.
        case sessionAge(Int64)
        case sessionCalls(Int64)
    }

    package enum ArgumentTest: Sendable, Equatable {
        case equals([JSONValue])
        case notEquals([JSONValue])
        case matches([Pattern])
        case compares(Comparison, Int64)
        case exists(Bool)
    }

    /// A named zone; its table comes from the bundle when the policy is compiled.
    package struct Zone: Sendable, Equatable {
        package let name: String
        package var table: TimeZoneTable?
    }

    package let form: Form
    package let location: SourceLocation
    /// `{key: value}` as written: the condition's identity in explanations, records and the compiled form.
    package let source: JSONObject

    package static func == (a: Condition, b: Condition) -> Bool { a.source == b.source }

    /// The key as written.
    package var key: String { source.members.first?.key ?? "" }

    /// The key and value as written, on one line.
    package var text: String {
        guard let member = source.members.first else { return "" }
        return "\(member.key): \(member.value.string ?? member.value.canonicalText)"
    }

    /// The tests in it, at any depth.
    package var tests: [(test: Test, condition: Condition)] {
        switch form {
        case .test(let test): [(test, self)]
        case .all(let parts), .any(let parts): parts.flatMap(\.tests)
        case .not(let part): part.tests
        }
    }
}

extension Condition.Test {
    /// What of a capability's arguments the test reads.
    enum Reads: Equatable {
        case paths, content, line, host, url, method, port, recipients, key
        case argument(String)
        /// Nothing of the arguments.
        case circumstances
    }

    var reads: Reads {
        switch self {
        case .pathPrefix, .pathNotUnder, .pathGlob: .paths
        case .contentSize: .content
        case .command, .commandPrefix, .commandGlob, .argsContain: .line
        case .host: .host
        case .urlPrefix: .url
        case .method: .method
        case .port: .port
        case .recipient, .recipientDomain: .recipients
        case .keyPrefix: .key
        case .argument(let name, _): .argument(name)
        case .timeBetween, .days, .sessionLabel, .sessionAge, .sessionCalls: .circumstances
        }
    }
}

extension CapabilityDeclaration {
    /// The arguments a test reads; empty when the capability has none for it.
    func arguments(readBy reads: Condition.Test.Reads) -> [Property] {
        input.properties.filter { property in
            switch (reads, property.role) {
            case (.paths, .path), (.content, .content), (.line, .command), (.host, .host), (.host, .url),
                (.url, .url), (.method, .method), (.port, .port), (.port, .url), (.recipients, .recipient),
                (.key, .key):
                true
            case (.argument(let name), _): property.name.utf8Equals(name)
            default: false
            }
        }
    }
}
