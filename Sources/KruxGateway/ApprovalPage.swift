import HTTPTypes
import KruxCore

/// The pages of a link: plain HTML for a phone, without scripts.
enum ApprovalPage {
    /// Nobody reads more on a phone.
    private static let mostLines = 400

    static func question(_ request: JSONObject) -> HTTPReply {
        func row(_ title: String, _ text: String?) -> String {
            text.map { "<dt>\(title)</dt><dd>\(escape($0))</dd>" } ?? ""
        }
        let shown = request["shown"]
        var details = row("Request", request["id"]?.string) + row("Agent", request["agent"]?.string)
        details += row("Capability", request["capability"]?.string)
        for member in request["arguments"]?.object?.members ?? [] {
            details += row(escape(member.key), member.value.string ?? member.value.canonicalText)
        }
        details += row("Purpose", request["purpose"]?.string) + row("Effect", shown?["effect"]?.string)
        details += row("Rule", request["decision"]?["reason"]?.string ?? request["decision"]?["rule"]?.string)
        var preview = ""
        for segment in shown?["segments"]?.array ?? [] {
            preview += escape("\(segment["text"]?.string ?? "")  → \(segment["tier"]?.string ?? "-")") + "\n"
        }
        let lines = shown?["preview"]?["lines"]?.array?.compactMap(\.string) ?? []
        for line in lines.prefix(mostLines) { preview += escape(line) + "\n" }
        let left = (shown?["preview"]?["left"]?.int ?? 0) + Int64(max(0, lines.count - mostLines))
        if left > 0 { preview += "… \(left) more; see them with kruxos approve show --full\n" }
        // A text area: Enter in a line of its own would press the first button.
        let body = """
            <h1>\(escape(request["agent"]?.string ?? "An agent")) asks</h1><dl>\(details)</dl>\
            \(preview.isEmpty ? "" : "<pre>\(preview)</pre>")\
            <form method="post"><label>Reason <textarea name="reason" rows="2" maxlength="1000"></textarea></label>\
            <p><button name="decision" value="approve">Approve</button> \
            <button name="decision" value="reject">Reject</button></p></form>
            """
        return page(.ok, "Approve?", body)
    }

    static func answered(_ request: JSONObject) -> HTTPReply {
        let state = request["state"]?.string ?? ""
        let words = state == "pending" ? "has your approval, and waits for others'" : "is \(state)"
        return page(
            .ok, "Answered",
            "<h1>\(escape(request["id"]?.string ?? "")) \(escape(words))</h1><p>You can close this page.</p>")
    }

    static func problem(_ error: StructuredError) -> HTTPReply {
        let ways = error.recoveryActions.map { "<li>\(escape($0))</li>" }.joined()
        return page(
            error.kind.httpStatus, "Not answered",
            "<h1>Not answered</h1><p>\(escape(error.description))</p><ul>\(ways)</ul>")
    }

    private static func page(_ status: HTTPResponse.Status, _ title: String, _ body: String) -> HTTPReply {
        let html = """
            <!doctype html><html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">\
            <title>\(title) · KruxOS</title><style>body{font:16px sans-serif;max-width:40em;margin:1em auto;padding:0 1em}\
            dt{font-weight:bold}dd{margin:0 0 .5em;overflow-wrap:anywhere}pre{overflow:auto;background:#eee;padding:.5em}\
            button{font-size:1.2em;padding:.4em 1em}textarea{font-size:1em;width:100%;box-sizing:border-box}</style><body>\(body)</body></html>
            """
        var reply = HTTPReply(status: status, body: Array(html.utf8))
        let headers = [
            (
                "content-security-policy",
                "default-src 'none'; style-src 'unsafe-inline'; form-action 'self'; frame-ancestors 'none'"
            ),
            ("referrer-policy", "no-referrer"), ("cache-control", "no-store"), ("x-content-type-options", "nosniff"),
            ("content-type", "text/html; charset=utf-8"),
        ]
        for (name, value) in headers { if let name = HTTPField.Name(name) { reply.headers.append((name, value)) } }
        return reply
    }

    /// Text in HTML; what a browser would act on or hide is shown by its number.
    static func escape(_ text: String) -> String {
        var result = ""
        for scalar in text.unicodeScalars {
            switch scalar {
            case "&": result += "&amp;"
            case "<": result += "&lt;"
            case ">": result += "&gt;"
            case "\"": result += "&quot;"
            case "'": result += "&#39;"
            default:
                switch scalar.value {
                case 0..<9, 0xB..<0x20, 0x7F..<0xA0, 0x61C, 0x200B...0x200F, 0x2028...0x202E, 0x2060...0x206F, 0xFEFF:
                    result += "\\u{\(String(scalar.value, radix: 16))}"
                default: result.unicodeScalars.append(scalar)
                }
            }
        }
        return result
    }

    /// `application/x-www-form-urlencoded`.
    /// - Throws: `StructuredError` `.invalidRequest` for a field that stands twice: two answers are none.
    static func form(_ text: String) throws(StructuredError) -> [String: String] {
        func decode(_ part: Substring) -> String {
            var bytes: [UInt8] = []
            var rest = Array(part.utf8)[...]
            while let byte = rest.popFirst() {
                if byte == UInt8(ascii: "+") {
                    bytes.append(32)
                } else if byte == UInt8(ascii: "%"), rest.count >= 2,
                    let value = UInt8(String(decoding: rest.prefix(2), as: UTF8.self), radix: 16)
                {
                    bytes.append(value)
                    rest = rest.dropFirst(2)
                } else {
                    bytes.append(byte)
                }
            }
            return String(decoding: bytes, as: UTF8.self)
        }
        let pairs = text.split(separator: "&").map { pair -> (String, String) in
            let parts = pair.split(separator: "=", maxSplits: 1, omittingEmptySubsequences: false)
            return (decode(parts[0]), parts.count == 2 ? decode(parts[1]) : "")
        }
        var form: [String: String] = [:]
        for (name, value) in pairs where form.updateValue(value, forKey: name) != nil {
            throw StructuredError(.invalidRequest, "the form says something twice")
        }
        return form
    }
}
