/// The type of a capability's argument or result, one step narrower than JSON Schema: what can be checked exactly and
/// shown to a model.
package indirect enum SchemaType: Sendable, Equatable {
    /// Lengths in UTF-8 bytes.
    case string(minLength: Int = 0, maxLength: Int = 4096)
    case choice([String])
    case integer(ClosedRange<Int64>)
    case boolean
    case array(SchemaType, maxItems: Int)
    case object(ObjectSchema)
    /// An object of any keys.
    case map(SchemaType, maxItems: Int)
    /// Any JSON value.
    case any

    package static var text: SchemaType { .string() }
    package static var path: SchemaType { .string(minLength: 1, maxLength: 4096) }
    package static var count: SchemaType { .integer(0...JSONValue.maxInteger) }
}

/// What an argument means to policy conditions, canonicalisation and display.
package enum ArgumentRole: Sendable, Equatable {
    /// A path in the agent's workspace; canonicalised before the decision, read by `path_prefix`. `followsLast`:
    /// whether a symbolic link at its end stands for what it points to, or for itself.
    case path(followsLast: Bool, reach: PathReach = .itself)
    /// A directory of the workspace to work in: canonicalised and bound, but no condition reads it.
    case workingDirectory
    /// The bytes to be written; `content_size_*` reads their decoded length. `encoding` names the argument that says
    /// `utf8` or `base64`.
    case content(encoding: String)
    /// The program to execute; `command` and its kin read it. `arguments` names the argument with its words, `shell`
    /// the one that makes the program's text a shell's, `environment` the one with its variables.
    case command(arguments: String, shell: String, environment: String)
    /// An absolute URL; `url_prefix`, `host` and `port` read it.
    case url
    /// A host name or address.
    case host
    /// A TCP port.
    case port
    /// An HTTP method.
    case method
    /// Who gets a message: one text or a list of them.
    case recipient
    /// A key of stored state. `reachesBelow`: the call reads every key that begins so.
    case key(reachesBelow: Bool = false)
}

/// How much of what lies below a path a call touches. A rule for a folder must hold for a call on the folder above.
package enum PathReach: Sendable, Equatable {
    case itself
    case below
    /// Below when the named argument is true, or an integer over 1.
    case belowWhen(String)
}

package struct Property: Sendable, Equatable {
    package let name: String
    package let type: SchemaType
    package let description: String
    package let required: Bool
    package let defaultValue: JSONValue?
    package let role: ArgumentRole?

    package static func required(
        _ name: String, _ type: SchemaType, _ description: String, role: ArgumentRole? = nil
    ) -> Property {
        Property(name: name, type: type, description: description, required: true, defaultValue: nil, role: role)
    }

    package static func optional(
        _ name: String, _ type: SchemaType, _ description: String, default value: JSONValue? = nil,
        role: ArgumentRole? = nil
    ) -> Property {
        Property(name: name, type: type, description: description, required: false, defaultValue: value, role: role)
    }
}

/// An object with exactly these properties.
package struct ObjectSchema: Sendable, Equatable, ExpressibleByArrayLiteral {
    package let properties: [Property]

    package init(_ properties: [Property]) { self.properties = properties }
    package init(arrayLiteral elements: Property...) { properties = elements }

    package func property(_ name: String) -> Property? { properties.first { $0.name.utf8Equals(name) } }
}

/// One way in which a value does not fit.
package struct SchemaViolation: Sendable, Equatable {
    /// `/args/3`: JSON Pointer (RFC 6901).
    package let pointer: String
    package let message: String
}

extension ObjectSchema {
    /// The object with defaults filled in, or every violation. A null member counts as absent.
    package func validate(_ object: JSONObject, at pointer: String = "") -> (JSONObject, [SchemaViolation]) {
        var result = JSONObject()
        var violations: [SchemaViolation] = []
        // The first few say enough: a hostile object may hold a million.
        for member in object.members where property(member.key) == nil && violations.count < 20 {
            let hint =
                nearest(to: String(member.key.prefix(64)), among: properties.map(\.name)).map {
                    "; did you mean `\($0)`?"
                } ?? ""
            violations.append(
                SchemaViolation(pointer: "\(pointer)/\(member.key.prefix(64))", message: "unknown argument\(hint)"))
        }
        for property in properties {
            let at = "\(pointer)/\(property.name)"
            if let value = object[property.name], !value.isNull {
                result[property.name] = property.type.validate(value, at: at, &violations)
            } else if property.required {
                violations.append(SchemaViolation(pointer: at, message: "is missing"))
            } else if let value = property.defaultValue {
                result[property.name] = value
            }
        }
        return (result, violations)
    }

    /// JSON Schema 2020-12.
    package var jsonSchema: JSONValue {
        var schema: JSONObject = ["type": "object", "additionalProperties": false]
        schema["properties"] = .object(
            JSONObject(
                properties.map { property in
                    var entry = property.type.jsonSchema.object ?? [:]
                    entry["description"] = .string(property.description)
                    if let value = property.defaultValue { entry["default"] = value }
                    return (property.name, .object(entry))
                }))
        let required = properties.filter(\.required).map(\.name)
        if !required.isEmpty { schema["required"] = .strings(required) }
        return .object(schema)
    }
}

extension SchemaType {
    fileprivate func validate(_ value: JSONValue, at pointer: String, _ violations: inout [SchemaViolation])
        -> JSONValue
    {
        func wrong(_ message: String) -> JSONValue {
            violations.append(SchemaViolation(pointer: pointer, message: message))
            return value
        }
        switch (self, value) {
        case (.string(let low, let high), .string(let text)):
            let length = text.utf8.count
            if length < low { return wrong("is empty or too short: at least \(low) bytes are needed") }
            if length > high { return wrong("is too long: \(length) bytes, at most \(high)") }
        case (.choice(let choices), .string(let text)):
            if !choices.contains(where: { $0.utf8Equals(text) }) {
                return wrong("must be one of \(choices.map { "`\($0)`" }.joined(separator: ", "))")
            }
        case (.integer(let range), .int(let number)):
            if !range.contains(number) {
                return wrong("must be between \(range.lowerBound) and \(range.upperBound)")
            }
        case (.boolean, .bool), (.any, _): break
        case (.array(let element, let maxItems), .array(let elements)):
            if elements.count > maxItems { return wrong("has \(elements.count) items, at most \(maxItems)") }
            return .array(
                elements.enumerated().map { element.validate($1, at: "\(pointer)/\($0)", &violations) })
        case (.object(let schema), .object(let object)):
            let (result, found) = schema.validate(object, at: pointer)
            violations += found
            return .object(result)
        case (.map(let element, let maxItems), .object(let object)):
            if object.count > maxItems { return wrong("has \(object.count) members, at most \(maxItems)") }
            return .object(
                JSONObject(
                    object.members.map {
                        ($0.key, element.validate($0.value, at: "\(pointer)/\($0.key.prefix(64))", &violations))
                    }))
        default: return wrong("must be \(expected), not \(value.typeName)")
        }
        return value
    }

    private var expected: String {
        switch self {
        case .string, .choice: "a string"
        case .integer: "an integer"
        case .boolean: "a boolean"
        case .array: "an array"
        case .object, .map: "an object"
        case .any: "a value"
        }
    }

    package var jsonSchema: JSONValue {
        switch self {
        case .string(let low, let high):
            var schema: JSONObject = ["type": "string", "maxLength": .int(Int64(high))]
            if low > 0 { schema["minLength"] = .int(Int64(low)) }
            return .object(schema)
        case .choice(let choices): return ["type": "string", "enum": .strings(choices)]
        case .integer(let range):
            return ["type": "integer", "minimum": .int(range.lowerBound), "maximum": .int(range.upperBound)]
        case .boolean: return ["type": "boolean"]
        case .array(let element, let maxItems):
            return ["type": "array", "items": element.jsonSchema, "maxItems": .int(Int64(maxItems))]
        case .object(let schema): return schema.jsonSchema
        case .map(let element, let maxItems):
            return [
                "type": "object", "additionalProperties": element.jsonSchema, "maxProperties": .int(Int64(maxItems)),
            ]
        case .any: return [:]
        }
    }
}
