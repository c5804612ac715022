import KruxApprovals
import Testing

@Suite struct ApprovalStateTests {
    /// Every transition there is; every other pair is refused.
    @Test func onlyTheseTransitionsExist() {
        let allowed: [(ApprovalState, ApprovalState.Event, ApprovalState)] = [
            (.pending, .approve, .approved), (.pending, .reject, .rejected), (.pending, .cancel, .cancelled),
            (.pending, .expire, .expired), (.approved, .execute, .executing), (.approved, .refuse, .refused),
            (.executing, .succeed, .succeeded), (.executing, .fail, .failed), (.executing, .loseTrack, .unknown),
            (.approved, .loseTrack, .unknown),
        ]
        for state in ApprovalState.allCases {
            for event in ApprovalState.Event.allCases {
                let expected = allowed.first { $0.0 == state && $0.1 == event }?.2
                #expect(state.after(event) == expected, "\(state) after \(event)")
            }
            let canEnd = ApprovalState.Event.allCases.contains { state.after($0) != nil }
            #expect(state.isFinal == !canEnd)
        }
    }
}
