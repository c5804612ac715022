/// The schema's history, compiled in from the numbered files of `sql/`.
package enum Migrations {
    package struct Migration: Sendable {
        /// From 1; becomes SQLite's `user_version`.
        package let version: Int32
        package let name: String
        package let sql: String
    }

    /// In order, without gaps.
    package static let all: [Migration] = [
        // SwiftPM replaces the first character of an identifier that would be a digit.
        Migration(version: 1, name: "initial", sql: String(decoding: PackageResources._001_initial_sql, as: UTF8.self)),
        Migration(
            version: 2, name: "policy_language",
            sql: String(decoding: PackageResources._002_policy_language_sql, as: UTF8.self)),
        Migration(
            version: 3, name: "evidence", sql: String(decoding: PackageResources._003_evidence_sql, as: UTF8.self)),
        Migration(
            version: 4, name: "approvals", sql: String(decoding: PackageResources._004_approvals_sql, as: UTF8.self)),
        Migration(version: 5, name: "state", sql: String(decoding: PackageResources._005_state_sql, as: UTF8.self)),
        Migration(version: 6, name: "vault", sql: String(decoding: PackageResources._006_vault_sql, as: UTF8.self)),
    ]

    package static let latest: Int32 = Int32(all.count)
}
