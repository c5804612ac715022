import Foundation
import KruxCore
import NIOPosix
import Synchronization

/// Which addresses the gate connects to on an agent's behalf: public ones that are not this machine's own, and those that
/// rules add. A name is looked up once, and what was judged is what is connected to.
struct Reach: Sendable {
    /// From `sandbox: {addresses: […]}`.
    let allowed: [AddressRange]

    func permits(_ address: NetworkAddress) -> Bool {
        allowed.contains { $0.contains(address) } || address.isPublic && !Self.own.contains(address)
    }

    /// What of a host's addresses may be connected to, in the resolver's order.
    /// - Parameter host: as `WebAddress.host` gives it.
    /// - Throws: `StructuredError` `.notFound` for no such name, `.addressRefused` when none of its addresses may be
    ///   reached, `.ioFailure` when no resolver answers.
    func addresses(of host: String) async throws(StructuredError) -> [NetworkAddress] {
        let found: [NetworkAddress]
        let literal = host.hasPrefix("[") ? String(host.dropFirst().dropLast()) : host
        if let address = NetworkAddress(literal) {
            found = [address]
        } else {
            found = try await Self.lookUp(host)
        }
        let permitted = found.filter(permits)
        guard permitted.isEmpty else { return permitted }
        throw Self.refusal(host, found)
    }

    static func refusal(_ host: String, _ found: [NetworkAddress]) -> StructuredError {
        let shown = found.prefix(5).map(\.text)
        return StructuredError(
            .addressRefused, "`\(host)` is \(shown.joined(separator: ", ")), which is not a public address",
            agent: "The host is on a private network or this machine itself, which your policy does not let you reach.",
            recovery: ["Ask your supervisor for a rule with `sandbox: {addresses: […]}` if you need it."],
            context: ["host": .string(host), "addresses": .strings(shown)])
    }

    /// Threads that may wait for a resolver, which take their time; those who ask do not wait longer than they want to.
    static let pool: NIOThreadPool = {
        let pool = NIOThreadPool(numberOfThreads: 16)
        pool.start()
        return pool
    }()

    /// getaddrinfo(3); a task that is cancelled does not wait for its end.
    private static func lookUp(_ host: String) async throws(StructuredError) -> [NetworkAddress] {
        try await unhurried { resolve(host) }.get()
    }

    /// Runs what may wait on a thread of its own kind.
    /// - Throws: `StructuredError` `.timedOut` when the task is cancelled meanwhile.
    static func unhurried<R: Sendable>(_ work: @escaping @Sendable () -> R) async throws(StructuredError) -> R {
        let box = WaitingBox<R>()
        let result: R? = await withTaskCancellationHandler {
            await withCheckedContinuation { continuation in
                box.set(continuation)
                pool.submit { state in
                    box.resume(state == .active ? work() : nil)
                }
            }
        } onCancel: {
            box.resume(nil)
        }
        guard let result else {
            throw StructuredError(
                .timedOut, "no resolver gave an answer in time", recovery: ["Try again later."], retryable: true)
        }
        return result
    }

    private static func resolve(_ host: String) -> Result<[NetworkAddress], StructuredError> {
        var hints = addrinfo()
        hints.ai_socktype = Int32(SOCK_STREAM.rawValue)
        var list: UnsafeMutablePointer<addrinfo>?
        // With a dot at its end it is this name and none below the machine's own domain.
        let code = getaddrinfo(host.contains(".") ? host + "." : host, nil, &hints, &list)
        guard code == 0 else {
            let why = String(cString: gai_strerror(code))
            if code == EAI_NONAME || code == noData {
                return .failure(
                    StructuredError(
                        .notFound, "there is no host `\(host)`: \(why)", recovery: ["Check the name."],
                        context: ["host": .string(host)]))
            }
            return .failure(
                StructuredError(
                    .ioFailure, "`\(host)` cannot be looked up: \(why)", recovery: ["Try again later."],
                    retryable: true, context: ["host": .string(host)]))
        }
        defer { freeaddrinfo(list) }
        var found: [NetworkAddress] = []
        for entry in sequence(first: list, next: { $0?.pointee.ai_next }) {
            guard let address = entry?.pointee.ai_addr.flatMap(address), !found.contains(address) else { continue }
            found.append(address)
        }
        return .success(found)
    }

    private static let noData: Int32 = -5

    private static func address(_ pointer: UnsafeMutablePointer<sockaddr>) -> NetworkAddress? {
        let raw = UnsafeRawPointer(pointer)
        switch Int32(pointer.pointee.sa_family) {
        case AF_INET:
            let address = raw.loadUnaligned(as: sockaddr_in.self).sin_addr
            return NetworkAddress(bytes: withUnsafeBytes(of: address) { Array($0) })
        case AF_INET6:
            let address = raw.loadUnaligned(as: sockaddr_in6.self).sin6_addr
            return NetworkAddress(bytes: withUnsafeBytes(of: address) { Array($0) })
        default: return nil
        }
    }

    /// The addresses of this machine's interfaces: what is public by its number may lead to a service of this machine.
    private static var own: Set<NetworkAddress> {
        var list: UnsafeMutablePointer<ifaddrs>?
        guard getifaddrs(&list) == 0 else { return [] }
        defer { freeifaddrs(list) }
        var found: Set<NetworkAddress> = []
        for entry in sequence(first: list, next: { $0?.pointee.ifa_next }) {
            if let address = entry?.pointee.ifa_addr.flatMap(address) { found.insert(address) }
        }
        return found
    }
}

/// Who waits for a result that may come from either of two, once.
private final class WaitingBox<R: Sendable>: Sendable {
    private enum State {
        case idle
        case waiting(CheckedContinuation<R?, Never>)
        case done
    }
    private let state = Mutex(State.idle)

    func set(_ continuation: CheckedContinuation<R?, Never>) {
        let isDone = state.withLock { state in
            if case .done = state { return true }
            state = .waiting(continuation)
            return false
        }
        if isDone { continuation.resume(returning: nil) }
    }

    func resume(_ result: R?) {
        let continuation = state.withLock { state -> CheckedContinuation<R?, Never>? in
            defer { state = .done }
            if case .waiting(let continuation) = state { return continuation }
            return nil
        }
        continuation?.resume(returning: result)
    }
}
