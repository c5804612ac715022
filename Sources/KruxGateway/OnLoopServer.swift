import HummingbirdCore
import Logging
import NIOCore

/// Runs each connection's handler on the connection's own event loop: a request is read, decided, handed to the writer,
/// and its reply written without a hop to another thread but the writer's.
struct OnLoopChannel: ServerChildChannel {
    private let http: HTTP1Channel

    /// An HTTP/1 server whose handlers run on their loops.
    static func builder(configuration: HTTP1Channel.Configuration) -> HTTPServerBuilder {
        HTTPServerBuilder { OnLoopChannel(http: HTTP1Channel(responder: $0, configuration: configuration)) }
    }

    func setup(channel: any Channel, logger: Logger) -> EventLoopFuture<HTTP1Channel.Value> {
        http.setup(channel: channel, logger: logger)
    }

    func handle(value: HTTP1Channel.Value, logger: Logger) async {
        await withTaskExecutorPreference(EventLoopExecutor(value.channel.eventLoop)) {
            await http.handle(value: value, logger: logger)
        }
    }
}

/// An event loop as a task executor; NIO has none of its own.
private final class EventLoopExecutor: TaskExecutor {
    private let eventLoop: any EventLoop

    init(_ eventLoop: any EventLoop) { self.eventLoop = eventLoop }

    func enqueue(_ job: consuming ExecutorJob) {
        let job = UnownedJob(job)
        let executor = asUnownedTaskExecutor()
        eventLoop.execute { job.runSynchronously(on: executor) }
    }
}
