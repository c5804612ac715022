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
}
