/// The policies that come with the binary.
package enum BuiltInPolicies {
    /// The system layer: always in force, never a file on disk.
    package static let system = PackageResources.system_yaml

    /// Written to a fresh home's `policies/` and ordinary files from then on: file name and text.
    package static let templates: [(file: String, text: [UInt8])] = [
        ("personal-permissive.yaml", PackageResources.personal_permissive_yaml),
        ("team-moderate.yaml", PackageResources.team_moderate_yaml),
        ("enterprise-restrictive.yaml", PackageResources.enterprise_restrictive_yaml),
    ]

    /// A test suite for each template, written to `policies/suites/`.
    package static let suites: [(file: String, text: [UInt8])] = [
        ("personal-permissive.test.yaml", PackageResources.personal_permissive_test_yaml),
        ("team-moderate.test.yaml", PackageResources.team_moderate_test_yaml),
        ("enterprise-restrictive.test.yaml", PackageResources.enterprise_restrictive_test_yaml),
    ]

    /// The JSON Schema of the policy language, for editors.
    package static let schema = PackageResources.policy_schema_json
}
