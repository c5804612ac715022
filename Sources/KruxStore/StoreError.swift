/// Why the store could not do what was asked.
package struct StoreError: Error, Sendable, Equatable, CustomStringConvertible {
    package enum Code: Sendable, Equatable {
        /// The file is of another application, or no SQLite database at all.
        case foreignFile
        /// The schema is newer than this binary.
        case newerSchema
        /// The schema is older than what is asked of it.
        case olderSchema
        /// Another process is the writer.
        case locked
        /// There is no database where one was expected.
        case missing
        /// No space left, or the disk is read-only.
        case storageFull
        /// SQLite says the file is damaged.
        case corrupt
        /// A constraint of the schema refused the change.
        case constraint
        case inputOutput
        case stopped
    }

    package let code: Code
    package let message: String
    /// What to do next.
    package let hint: String?

    package init(_ code: Code, _ message: String, hint: String? = nil) {
        self.code = code
        self.message = message
        self.hint = hint
    }

    package var description: String { message + (hint.map { "; \($0)" } ?? "") }
    package static func == (a: StoreError, b: StoreError) -> Bool { a.code == b.code }
}
