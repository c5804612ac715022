import ArgumentParser
import KruxCapabilities
import KruxCore

struct CapabilitiesCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "capabilities", abstract: "What agents can be allowed to do.",
        subcommands: [List.self, Show.self, Docs.self])

    struct List: ParsableCommand {
        static let configuration = CommandConfiguration(abstract: "List every capability.")
        @Argument(help: "Only those that begin so, such as git.") var prefix = ""
        @Flag(help: "Print JSON.") var json = false

        mutating func run() throws {
            let prefix = prefix
            let found = CapabilityText.all.filter { $0.name.text.utf8.starts(with: prefix.utf8) }
            if json { return Console.print(.array(found.map { .object(CapabilityText.json($0)) })) }
            guard !found.isEmpty else {
                throw StructuredError(
                    .notFound, "no capability begins with `\(prefix.prefix(100))`",
                    recovery: ["See all with `kruxos capabilities list`."])
            }
            var table = Table([
                .init("Capability", width: 30), .init("Effect", width: 12), .init("Usual tier", width: 18),
                .init("What it does"),
            ])
            table.rows = found.map { declaration in
                [
                    declaration.name.text, declaration.effect.rawValue, declaration.defaultTier.name,
                    declaration.summary + (CapabilityText.isDone(declaration) ? "" : " (not in this version)"),
                ]
            }
            Console.print(table.text)
        }
    }

    struct Show: ParsableCommand {
        static let configuration = CommandConfiguration(abstract: "Show one capability: what it takes, gives and does.")
        @Argument(help: "Its name, such as filesystem.read.") var name: String
        @Flag(help: "Print JSON.") var json = false

        mutating func run() throws {
            guard let declaration = Capabilities.catalogue[name] else {
                let hint = nearest(to: name, among: Capabilities.catalogue.names).map { "Did you mean `\($0)`?" }
                throw StructuredError(
                    .notFound, "there is no capability `\(name.prefix(100))`",
                    recovery: [hint, "See all with `kruxos capabilities list`."].compactMap { $0 })
            }
            if json { return Console.print(.object(CapabilityText.json(declaration))) }
            Console.print(CapabilityText.markdown(declaration).joined(separator: "\n"))
        }
    }

    struct Docs: ParsableCommand {
        static let configuration = CommandConfiguration(abstract: "Print the whole catalogue as Markdown.")

        mutating func run() throws { Console.print(CapabilityText.markdown) }
    }
}

/// The catalogue in words.
enum CapabilityText {
    static var all: [CapabilityDeclaration] {
        Capabilities.catalogue.declarations.sorted { $0.name.text.utf8.lexicographicallyPrecedes($1.name.text.utf8) }
    }

    static func isDone(_ declaration: CapabilityDeclaration) -> Bool {
        Capabilities.catalogue.index(of: declaration.name.text).flatMap(Capabilities.implementation) != nil
    }

    static func json(_ declaration: CapabilityDeclaration) -> JSONObject {
        [
            "name": .string(declaration.name.text), "summary": .string(declaration.summary),
            "when_to_use": .string(declaration.whenToUse), "effect": .string(declaration.effect.rawValue),
            "side_effects": .strings(declaration.sideEffects), "usual_tier": .string(declaration.defaultTier.name),
            "available": .bool(isDone(declaration)), "starts_process": .bool(declaration.startsProcess),
            "input_schema": declaration.input.jsonSchema, "output_schema": declaration.output.jsonSchema,
            "errors": .array(
                declaration.errors.map {
                    [
                        "error_type": .string($0.kind.rawValue), "when": .string($0.when),
                        "recovery": .string($0.recovery),
                    ]
                }),
        ]
    }

    /// Every capability by its first word.
    static var markdown: String {
        var lines = [
            "# Capabilities", "",
            "Written by `kruxos capabilities docs`. Every call is validated against the input's schema, decided by policy, "
                + "and recorded; besides the errors named here each may be answered with `InvalidArguments`, "
                + "`PermissionDenied`, `RateLimited`, `ApprovalPending`, `Unavailable` or `StorageFull`.",
        ]
        var group = ""
        for declaration in all {
            let first = String(declaration.name.text.prefix { $0 != "." })
            if first != group {
                group = first
                lines += ["", "## \(group)"]
            }
            lines += [""] + markdown(declaration)
        }
        return lines.joined(separator: "\n")
    }

    static func markdown(_ declaration: CapabilityDeclaration) -> [String] {
        var lines = ["### `\(declaration.name.text)`", "", declaration.summary + " " + declaration.whenToUse, ""]
        if !isDone(declaration) { lines += ["Declared, so that policies can cover it; not in this version.", ""] }
        let effects = declaration.sideEffects.isEmpty ? "" : ": \(declaration.sideEffects.joined(separator: "; "))"
        lines += [
            "- Effect: `\(declaration.effect.rawValue)`\(effects)", "- Usual tier: `\(declaration.defaultTier.name)`",
        ]
        if declaration.startsProcess { lines.append("- Starts a process, in the box that `sandbox:` says") }
        func table(_ title: String, _ schema: ObjectSchema) {
            guard !schema.properties.isEmpty else { return }
            lines += ["", "| \(title) | type | |", "|---|---|---|"]
            for property in schema.properties {
                let value = property.defaultValue.map { ", `\($0.canonicalText)` if absent" } ?? ""
                let need = property.required ? "" : value.isEmpty ? " (optional)" : " (optional\(value))"
                lines.append(
                    "| `\(property.name)` | \(property.type.words) | \(property.description.replacing("|", with: "\\|"))\(need) |"
                )
            }
        }
        table("takes", declaration.input)
        table("gives", declaration.output)
        if !declaration.errors.isEmpty {
            lines += ["", "| error | when | what to do |", "|---|---|---|"]
            lines += declaration.errors.map { "| `\($0.kind.rawValue)` | \($0.when) | \($0.recovery) |" }
        }
        return lines
    }
}

extension SchemaType {
    /// In words, for people.
    fileprivate var words: String {
        switch self {
        case .string(let least, let most):
            "text" + (least > 0 ? ", \(least) to \(most) bytes" : ", at most \(most) bytes")
        case .choice(let words): words.map { "`\($0)`" }.joined(separator: ", ")
        case .integer(let range):
            range.upperBound == JSONValue.maxInteger ? "number" : "number, \(range.lowerBound) to \(range.upperBound)"
        case .boolean: "`true` or `false`"
        case .array(let element, let most): "list of \(element.words), at most \(most)"
        case .object(let schema): "object of " + schema.properties.map { "`\($0.name)`" }.joined(separator: ", ")
        case .map(let element, let most): "object of any names, each \(element.words), at most \(most)"
        case .any: "any JSON"
        }
    }
}
