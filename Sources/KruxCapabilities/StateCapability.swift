package import KruxCore
package import KruxStore

/// A capability that changes the product's own state and nothing else: what it does stands in the transaction of its row,
/// so that the one is never there without the other.
package protocol ChangingCapability: Sendable {
    associatedtype Input: CapabilityInput
    associatedtype Output: CapabilityOutput

    static var declaration: CapabilityDeclaration { get }

    /// Does it. What it throws as a `StructuredError` undoes it, and is the call's outcome.
    func change(_ input: Input, _ context: CallContext, _ tx: WriteTx) throws -> Output

    /// What people are told besides the record; nil for nothing.
    func notice(_ input: Input) -> String?

    /// Seconds it waits at most until it is ready.
    func patience(_ input: Input) -> Int64
    func isReady(_ input: Input, _ context: CallContext, _ tx: any ReadTx) throws -> Bool
}

extension ChangingCapability {
    package func notice(_ input: Input) -> String? { nil }
    package func patience(_ input: Input) -> Int64 { 0 }
    package func isReady(_ input: Input, _ context: CallContext, _ tx: any ReadTx) throws -> Bool { true }
}

/// A capability that reads the product's own state.
package protocol LookingCapability: Sendable {
    associatedtype Input: CapabilityInput
    associatedtype Output: CapabilityOutput

    static var declaration: CapabilityDeclaration { get }

    /// - Parameter isLast: whether the call ends with this look, whatever it sees.
    /// - Returns: nil to wait for a change of the state and look again.
    func look(_ input: Input, _ context: CallContext, _ tx: any ReadTx, isLast: Bool) throws -> Output?

    /// Seconds it waits for a change at most.
    func patience(_ input: Input) -> Int64
}

extension LookingCapability {
    package func patience(_ input: Input) -> Int64 { 0 }
}

/// How a capability is done.
package enum CapabilityWork: Sendable {
    /// By itself, outside of the product's state.
    case run(@Sendable (JSONObject, CallContext) async throws(StructuredError) -> JSONObject)
    /// In the transaction of its row.
    case change(Change)
    /// On a snapshot of the state, again after each change while it has patience.
    case look(
        @Sendable (JSONObject, CallContext, any ReadTx, _ isLast: Bool) throws -> JSONObject?,
        patience: @Sendable (JSONObject) throws -> Int64)
}

/// How a `ChangingCapability` is done.
package struct Change: Sendable {
    package let apply: @Sendable (JSONObject, CallContext, WriteTx) throws -> JSONObject
    package let notice: @Sendable (JSONObject) throws -> String?
    package let patience: @Sendable (JSONObject) throws -> Int64
    package let isReady: @Sendable (JSONObject, CallContext, any ReadTx) throws -> Bool
}

extension AnyCapability {
    package init<C: ChangingCapability>(changing capability: C) {
        self.init(
            C.declaration,
            .change(
                Change(
                    apply: { arguments, context, tx in
                        try capability.change(try C.Input(Arguments(arguments)), context, tx).json
                    }, notice: { capability.notice(try C.Input(Arguments($0))) },
                    patience: { capability.patience(try C.Input(Arguments($0))) },
                    isReady: { arguments, context, tx in
                        try capability.isReady(try C.Input(Arguments(arguments)), context, tx)
                    })))
    }

    package init<C: LookingCapability>(looking capability: C) {
        self.init(
            C.declaration,
            .look(
                { arguments, context, tx, isLast in
                    try capability.look(try C.Input(Arguments(arguments)), context, tx, isLast: isLast)?.json
                }, patience: { capability.patience(try C.Input(Arguments($0))) }))
    }
}
