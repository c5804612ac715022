import Foundation
import KruxAudit
import KruxCore
import KruxCrypto
import KruxOutbound
import KruxStore
import Logging
import Synchronization

extension Engine {
    /// The append-only file of checkpoints in the home. An owner who makes it append-only (`chattr +a`) has an anchor
    /// that programs of the same user cannot take back.
    package static func localAnchor(_ home: Home) -> String { home.root + "/checkpoints.log" }
    private static let localSeconds: Int64 = 60

    // MARK: Commands

    func addAnchor(_ input: OperatorInput, by principal: Principal) throws -> JSONObject {
        let kind: AnchorTarget.Kind
        let target = try input.text("target")
        switch try input.text("kind") {
        case "file":
            guard target.hasPrefix("/") else {
                throw StructuredError(
                    .invalidArguments, "an anchor's file is an absolute path", recovery: ["Give one."])
            }
            kind = .file(path: target)
        case "command":
            let words = (try? JSONParser.parse(target))?.array?.compactMap(\.string) ?? []
            guard let first = words.first, !first.isEmpty else {
                throw StructuredError(
                    .invalidArguments, "an anchor's command is a program and its arguments", recovery: ["Name one."])
            }
            kind = .command(arguments: words)
        default:
            guard let url = URL(string: target), ["http", "https"].contains(url.scheme ?? ""), url.host != nil else {
                throw StructuredError(
                    .invalidArguments, "a witness is named by the address of its submission prefix",
                    recovery: ["Write https://witness.example/path."])
            }
            guard let text = try input.optionalText("verifier"), let key = NoteKey(verifier: text),
                key.kind == .cosignature
            else {
                throw StructuredError(
                    .invalidArguments, "a witness's verifier key is `<name>+<id>+<key>` of an Ed25519 cosigner",
                    recovery: ["Its operator tells it; `kruxos witness key` prints that of a KruxOS witness."])
            }
            kind = .witness(url: target.hasSuffix("/") ? String(target.dropLast()) : target, verifier: key)
        }
        let every = try input.int("every_seconds")
        guard (1...31_536_000).contains(every) else {
            throw StructuredError(
                .invalidArguments, "an interval is 1 s to 1 year", recovery: ["Give 5m, for example."])
        }
        let now = clock.now()
        let added = kind
        try change(
            "anchor added", agent: nil, by: principal, now: now,
            detail: ["kind": .string(try input.text("kind")), "target": .string(target), "every_seconds": .int(every)]
        ) { _ = try AnchorTable.add($0, added, everySeconds: every, now: now) }
        lastTried.withLock { $0 = [:] }
        checkpointSigned.yield()
        let all = try store.read(AnchorTable.all)
        return all.last?.json ?? [:]
    }

    func removeAnchor(_ input: OperatorInput, by principal: Principal) throws -> JSONObject {
        let number = try input.int("number")
        try change(
            "anchor removed", agent: nil, by: principal, now: clock.now(), detail: ["number": .int(number)]
        ) { try AnchorTable.remove($0, number) }
        return ["removed": .int(number)]
    }

    /// Sends now, whatever the schedule says.
    func sendAnchors(_ input: OperatorInput) async throws -> JSONObject {
        _ = try await checkpointJSON()
        let wanted = try input.optionalInt("number")
        for target in try store.read(AnchorTable.all) where wanted == nil || target.number == wanted {
            await deliver(to: target)
        }
        return ["anchors": .array(try store.read(AnchorTable.all).map { .object($0.json) })]
    }

    // MARK: The schedule

    /// Sends checkpoints on, each target as often as it was configured and only when there is something new. Returns
    /// when the engine drains.
    package func runAnchors() async {
        var local: (epoch: Int64, size: Int64, at: Int64)?
        while !Task.isCancelled {
            guard let newest = audit.newestCheckpoint else {
                if await !checkpointSigned.wait(within: nil) { return }
                continue
            }
            let now = clock.monotonic() / 1_000_000
            var next: Int64?
            if local.map({ $0.epoch != newest.epoch || $0.size != newest.size }) ?? true {
                let wait = local.map { $0.at + Self.localSeconds - now } ?? 0
                if wait <= 0 {
                    appendLocally(newest.note)
                    local = (newest.epoch, newest.size, now)
                } else {
                    next = wait
                }
            }
            for target in (try? store.read(AnchorTable.all)) ?? [] {
                if let sent = target.sent, sent.epoch == newest.epoch, sent.size >= newest.size { continue }
                let last = lastTried.withLock { $0[target.number] }
                let wait = last.map { $0 + target.everySeconds - now } ?? 0
                if wait > 0 {
                    next = min(next ?? wait, wait)
                    continue
                }
                lastTried.withLock { $0[target.number] = now }
                await deliver(to: target)
                // A failure is tried again by itself.
                next = min(next ?? target.everySeconds, target.everySeconds)
            }
            if await !checkpointSigned.wait(within: next) { return }
        }
    }

    func appendLocally(_ note: String) {
        do {
            try AnchorSender.append(note, to: Self.localAnchor(home))
        } catch {
            log.warning("a checkpoint could not be kept in the home", metadata: ["reason": "\(error)"])
        }
    }

    private func deliver(to target: AnchorTarget) async {
        guard let newest = audit.newestCheckpoint, let note = SignedNote(newest.note) else { return }
        let store = store
        let now = clock.now()
        do {
            let old = target.sent.flatMap { $0.epoch == newest.epoch ? $0.size : nil } ?? 0
            let signed = try await AnchorSender().send(note, to: target.kind, old: old) { old in
                try store.read { try AnchorTable.consistency($0, epoch: newest.epoch, from: old, to: newest.size) }
            }
            try await store.writer.write { tx in
                try AnchorTable.arrived(
                    tx, target.number, epoch: newest.epoch, size: newest.size, cosignature: nil, now: now)
                if signed.lines.count > note.lines.count {
                    try AnchorTable.keep(tx, signed, epoch: newest.epoch, size: newest.size)
                }
            }
        } catch {
            let reason = (error as? AnchorSender.Failure)?.reason ?? Self.structured(error).description
            log.warning("a checkpoint did not arrive", metadata: ["anchor": "\(target.number)", "reason": "\(reason)"])
            do {
                try await store.writer.write { try AnchorTable.failed($0, target.number, reason, now: now) }
            } catch {
                log.error("the failure of an anchor could not be stored", metadata: ["reason": "\(error)"])
            }
        }
    }
}

/// Says that a checkpoint was signed; several at once are one. One task waits.
final class CheckpointSignal: Sendable {
    private struct State {
        var raised = false
        var finished = false
        var waiter: CheckedContinuation<Bool, Never>?
    }

    private let state = Mutex(State())

    func yield() { wake { $0.raised = true } }
    func finish() { wake { $0.finished = true } }

    private func wake(_ change: (inout State) -> Void) {
        let (waiter, goOn) = state.withLock { state -> (CheckedContinuation<Bool, Never>?, Bool) in
            change(&state)
            guard let waiter = state.waiter else { return (nil, true) }
            state.waiter = nil
            state.raised = false
            return (waiter, !state.finished)
        }
        waiter?.resume(returning: goOn)
    }

    /// Returns when there is a checkpoint or the time is over; false once finished.
    func wait(within seconds: Int64?) async -> Bool {
        let timer = seconds.map { seconds in
            Task {
                do { try await Task.sleep(for: .seconds(seconds)) } catch { return }
                yield()
            }
        }
        defer { timer?.cancel() }
        return await withCheckedContinuation { continuation in
            let answer = state.withLock { state -> Bool? in
                if state.finished { return false }
                if state.raised {
                    state.raised = false
                    return true
                }
                state.waiter = continuation
                return nil
            }
            if let answer { continuation.resume(returning: answer) }
        }
    }
}
