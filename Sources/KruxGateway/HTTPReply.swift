import HTTPTypes
import Hummingbird
import KruxCore
import NIOCore

/// A reply before it is bytes.
struct HTTPReply: Sendable {
    var status: HTTPResponse.Status
    var body: [UInt8]
    var headers: [(HTTPField.Name, String)] = []

    static func json(_ status: HTTPResponse.Status, _ json: JSONObject) -> HTTPReply {
        HTTPReply(status: status, body: json.canonicalBytes())
    }

    /// `{status: failed | pending, error}` with the status code that fits.
    static func error(_ error: StructuredError) -> HTTPReply {
        let pending = error.isPending
        var reply = HTTPReply.json(
            pending ? .accepted : error.kind.httpStatus,
            ["status": pending ? "pending" : "failed", "error": error.json])
        if error.kind == .unauthenticated { reply.headers.append((.wwwAuthenticate, "Bearer realm=\"kruxos\"")) }
        if let seconds = error.retryAfter { reply.headers.append((.retryAfter, "\(seconds)")) }
        return reply
    }

    /// One buffer, one write.
    var response: Response {
        var fields = HTTPFields()
        fields[.contentType] = "application/json"
        // A header of the reply's own stands in its place.
        for (name, value) in headers { fields[name] = value }
        return Response(status: status, headers: fields, body: ResponseBody(byteBuffer: ByteBuffer(bytes: body)))
    }
}

extension StructuredError.Kind {
    /// The one place that maps errors to HTTP.
    var httpStatus: HTTPResponse.Status {
        switch self {
        case .invalidRequest, .invalidArguments, .wrongType: .badRequest
        case .unauthenticated: .unauthorized
        case .blocked, .approvalRejected, .outsideWorkspace, .addressRefused: .forbidden
        case .unknownCapability, .notFound: .notFound
        case .approvalPending: .accepted
        case .alreadyExists, .conflict, .pathChanged, .approvalRefused, .approvalCancelled, .approvalExpired: .conflict
        case .tooLarge: .contentTooLarge
        case .timedOut: .gatewayTimeout
        case .storageFull: HTTPResponse.Status(code: 507, reasonPhrase: "Insufficient Storage")
        case .capabilityUnavailable: .notImplemented
        case .confinementUnavailable, .unavailable, .vaultLocked: .serviceUnavailable
        case .overloaded, .rateLimited: .tooManyRequests
        case .ioFailure, .outcomeUnknown, .internalError: .internalServerError
        }
    }
}
