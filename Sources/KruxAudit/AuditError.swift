/// Why the record could not be written or read.
package struct AuditError: Error, Sendable, Equatable, CustomStringConvertible {
    package enum Code: Sendable, Equatable {
        /// The private key of the current epoch is missing or is not the one the record names.
        case lostKey
        /// The record contradicts itself.
        case inconsistent
        case invalidFilter
        /// The database is not the one that `keys/head` has seen last.
        case wrongHead
        /// There is no such row, receipt or key.
        case notFound
    }

    package let code: Code
    package let message: String
    package let hint: String?

    package init(_ code: Code, _ message: String, hint: String? = nil) {
        self.code = code
        self.message = message
        self.hint = hint
    }

    package var description: String { message + (hint.map { "; \($0)" } ?? "") }
    package static func == (a: AuditError, b: AuditError) -> Bool { a.code == b.code }
}
