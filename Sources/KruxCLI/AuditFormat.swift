import KruxAudit
import KruxCapabilities
import KruxCore
import KruxEngine

/// How rows are written.
enum AuditFormat {
    /// - Parameter header: for a table and CSV, whether their first line is written.
    static func print(_ records: [AuditRecord], _ format: AuditCommand.Format, header: Bool = true) {
        switch format {
        case .json: Console.print(.array(records.map(\.json)))
        case .jsonl: for record in records { Console.print(record.json.canonicalText) }
        case .csv:
            let text = csv(records)
            Console.print(header ? text : text.split(separator: "\r\n").dropFirst().joined(separator: "\r\n"))
        case .cef: for record in records { Console.print(cef(record)) }
        case .ocsf: for record in records { Console.print(ocsf(record).canonicalText) }
        case .table:
            let text = table(records)
            Console.printTable(header ? text : text.split(separator: "\n").dropFirst().joined(separator: "\n"))
        }
    }

    /// ArcSight Common Event Format, version 0: `CEF:0|vendor|product|version|class|name|severity|extension`. In the
    /// header `\` and `|` are escaped, in values `\`, `=` and line ends.
    static func cef(_ record: AuditRecord) -> String {
        func head(_ text: String) -> String { escaped(text, ["|"]) }
        func value(_ text: String) -> String { escaped(text, ["="]) }
        let name =
            record.text("capability") ?? record.body?["detail"]?["action"]?.string ?? record.text("phase") ?? "pruned"
        var fields: [(String, String?)] = [
            ("rt", record.time.map { "\($0.microseconds / 1000)" }), ("externalId", "\(record.seq)"),
            ("suser", record.text("principal")), ("act", record.text("capability")),
            ("outcome", record.text("outcome")), ("reason", record.body?["decision"]?["reason"]?.string),
            ("msg", details(record)),
        ]
        let custom: [(String, String?)] = [
            ("agent", record.text("agent")), ("session", record.text("session")), ("tier", record.tier),
            ("request", record.text("request")), ("rule", record.body?["decision"]?["source"]?.string),
        ]
        for (index, (label, text)) in custom.enumerated() where text != nil {
            fields += [("cs\(index + 1)Label", label), ("cs\(index + 1)", text)]
        }
        let text = fields.compactMap { key, text in text.flatMap { $0.isEmpty ? nil : "\(key)=\(value($0))" } }
        return
            "CEF:0|KruxOS|kruxos|\(Engine.version)|\(head(record.text("phase") ?? "pruned"))|\(head(name))|\(severity(record) * 2)|\(text.joined(separator: " "))"
    }

    /// `\` and the separators escaped, line ends as `\n`, other control characters as spaces. Scalar by scalar: `\r\n` and a
    /// letter with its accents are one Character.
    private static func escaped(_ text: String, _ separators: Set<Unicode.Scalar>) -> String {
        var result = String.UnicodeScalarView()
        for scalar in text.unicodeScalars {
            switch scalar.value {
            case 0x0A, 0x0D, 0x85, 0x2028, 0x2029: result.append(contentsOf: "\\n".unicodeScalars)
            case 0..<0x20, 0x7F..<0xA0: result.append(" ")
            default:
                if scalar == "\\" || separators.contains(scalar) { result.append("\\") }
                result.append(scalar)
            }
        }
        return String(result)
    }

    /// 1 informational to 5 critical.
    private static func severity(_ record: AuditRecord) -> Int {
        switch record.text("outcome") {
        case "denied", "refused", "rejected": 3
        case "failed", "unknown": 2
        default: record.text("phase") == "key" || record.text("phase") == "prune" ? 2 : 1
        }
    }

    /// OCSF 1.3 API Activity (class 6003), one object.
    static func ocsf(_ record: AuditRecord) -> JSONValue {
        // 2 is Read; what else a capability does is told by its name, and 99 is Other.
        let catalogue = Capabilities.catalogue
        let index = record.text("capability").flatMap { catalogue.index(of: $0) }
        let effect: Int64 = index.map { catalogue.declarations[$0].effect == .read } == true ? 2 : 99
        let outcome = record.text("outcome")
        let status: Int64 =
            switch outcome {
            case "succeeded", "approved": 1
            case "failed", "denied", "rejected", "refused", "cancelled", "expired": 2
            default: 99
            }
        let principal = record.text("principal") ?? "unknown"
        var event: JSONObject = [
            "category_uid": 6, "category_name": "Application Activity", "class_uid": 6003, "class_name": "API Activity",
            "activity_id": .int(effect), "type_uid": .int(600_300 + effect),
            "severity_id": .int(Int64(severity(record))),
            "time": .int((record.time?.microseconds ?? 0) / 1000), "status_id": .int(status),
            "status": .optional(outcome),
            "metadata": [
                "version": "1.3.0", "uid": .string("\(record.seq)"), "log_name": "kruxos",
                "product": ["name": "kruxos", "vendor_name": "KruxOS", "version": .string(Engine.version)],
            ],
            "actor": [
                "user": ["name": .string(principal), "type_id": principal.hasPrefix("agent:") ? 3 : 1],
                "session": ["uid": .optional(record.text("session"))],
            ],
            "api": [
                "operation": .string(record.text("capability") ?? record.body?["detail"]?["action"]?.string ?? "-"),
                "service": ["name": "kruxos"], "request": ["uid": .string(record.text("request") ?? "\(record.seq)")],
            ],
            "src_endpoint": ["name": .string(record.text("agent") ?? principal)],
            "message": .string(details(record)),
        ]
        if let body = record.body { event["unmapped"] = .object(body) }
        if let duration = record.body?["duration_us"]?.int { event["duration"] = .int(duration / 1000) }
        return .object(event)
    }

    /// A call's arguments on one line.
    static func arguments(_ record: AuditRecord) -> String {
        guard let arguments = record.body?["arguments"]?.object else { return "" }
        let name = record.text("capability") ?? ""
        if let index = Capabilities.catalogue.index(of: name) {
            return summarise(arguments, of: Capabilities.catalogue.declarations[index])
        }
        return arguments.isEmpty ? "" : JSONValue.object(arguments).canonicalText
    }

    static func table(_ records: [AuditRecord]) -> String {
        var table = Table([
            .init("Seq"), .init("Time"), .init("Phase"), .init("Who"), .init("Capability"), .init("Tier"),
            .init("Outcome"), .init("Details"),
        ])
        table.rows = records.map { record in
            [
                "\(record.seq)", record.time?.short ?? "-", record.text("phase") ?? "-",
                who(record), record.text("capability") ?? "-",
                record.tier ?? "-", record.text("outcome") ?? "-", details(record).cut(to: 80, marked: true),
            ]
        }
        return table.text
    }

    /// Who acted: the agent of a call, the person of an answer.
    static func who(_ record: AuditRecord) -> String {
        let principal = record.text("principal") ?? "-"
        return principal.hasPrefix("agent:") ? String(principal.dropFirst(6)) : principal
    }

    /// The one thing of a row that says most.
    static func details(_ record: AuditRecord) -> String {
        if let request = record.text("request") {
            let text = record.text("reason") ?? record.body?["error"]?["description"]?.string
            return text.map { $0.hasPrefix(request) ? $0 : "\(request): \($0)" } ?? request
        }
        if let error = record.body?["error"]?["description"]?.string { return error }
        if let action = record.body?["detail"]?["action"]?.string {
            let subject = record.body?["detail"]?["policy"]?.string.map { " \($0)" } ?? ""
            return action + subject
        }
        if let path = record.body?["arguments"]?["path"]?.string { return path }
        return record.body?["arguments"]?["command"]?.string ?? ""
    }

    /// RFC 4180.
    static func csv(_ records: [AuditRecord]) -> String {
        let columns = [
            "seq", "time", "phase", "principal", "agent", "session", "capability", "tier", "outcome", "request",
        ]
        func quoted(_ text: String) -> String {
            let scalars = text.unicodeScalars
            // A cell that begins like a formula would be run by a spreadsheet.
            let safe = scalars.first.map { "=+-@\t\r".unicodeScalars.contains($0) } == true ? "'" + text : text
            guard scalars.contains(where: { $0 == "," || $0 == "\"" || $0.value == 10 || $0.value == 13 }) else {
                return safe
            }
            var doubled = String.UnicodeScalarView()
            for scalar in safe.unicodeScalars {
                if scalar == "\"" { doubled.append(scalar) }
                doubled.append(scalar)
            }
            return "\"" + String(doubled) + "\""
        }
        let lines = records.map { record in
            columns.map { column -> String in
                switch column {
                case "seq": "\(record.seq)"
                case "time": record.time?.rfc3339 ?? ""
                case "tier": record.tier ?? ""
                default: quoted(record.text(column) ?? "")
                }
            }.joined(separator: ",")
        }
        return ([columns.joined(separator: ",")] + lines).joined(separator: "\r\n")
    }
}
