/// Where a request stands. Pure: what happens to it is an event, and an event that does not fit is refused.
package enum ApprovalState: String, Sendable, CaseIterable {
    case pending, approved, executing, succeeded, failed, unknown, refused, rejected, cancelled, expired

    package enum Event: Sendable, CaseIterable {
        /// A supervisor's answer.
        case approve, reject
        /// The agent withdrew it.
        case cancel
        /// Its time is over.
        case expire
        /// The gateway starts it.
        case execute
        /// The decision or what it was bound to is another now.
        case refuse
        case succeed, fail
        /// A crash between intent and outcome, or a restore.
        case loseTrack
    }

    /// The state after `event`, nil when it cannot happen here.
    package func after(_ event: Event) -> ApprovalState? {
        switch (self, event) {
        case (.pending, .approve): .approved
        case (.pending, .reject): .rejected
        case (.pending, .cancel): .cancelled
        case (.pending, .expire): .expired
        case (.approved, .execute): .executing
        case (.approved, .refuse): .refused
        case (.executing, .succeed): .succeeded
        case (.executing, .fail): .failed
        // An approved request of a restored file may have run after the backup was made.
        case (.executing, .loseTrack), (.approved, .loseTrack): .unknown
        default: nil
        }
    }

    /// Nothing happens to it any more; every wait gets the stored result.
    package var isFinal: Bool {
        switch self {
        case .pending, .approved, .executing: false
        default: true
        }
    }
}
