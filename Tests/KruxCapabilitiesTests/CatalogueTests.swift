import KruxCapabilities
import KruxCore
import Testing

@Suite struct CatalogueTests {
    @Test func everyCapabilityIsDeclaredOnceAndWhole() {
        let declarations = Capabilities.catalogue.declarations
        #expect(Set(declarations.map(\.name)).count == declarations.count)
        #expect(declarations.count >= 47)
        for declaration in declarations {
            #expect(!declaration.summary.isEmpty && !declaration.whenToUse.isEmpty)
            #expect(declaration.effect == .read ? declaration.sideEffects.isEmpty : true, "\(declaration.name)")
            #expect(declaration.name.toolName.utf8.count <= 64)
            for property in declaration.input.properties {
                if let value = property.defaultValue {
                    #expect(!property.required)
                    let (_, violations) = ObjectSchema([property]).validate([property.name: value])
                    #expect(violations.isEmpty, "\(declaration.name).\(property.name)'s default does not fit")
                }
            }
        }
    }

    @Test func theDocumentsCapabilitiesAreThere() {
        for name in [
            "filesystem.read", "filesystem.delete", "process.run", "process.kill", "email.list", "email.read",
            "email.send", "state.shared.get", "state.persistent.set", "git.push", "secrets.read_raw",
            "network.http_request",
        ] {
            #expect(Capabilities.catalogue[name] != nil, "\(name)")
        }
    }

    @Test func whatIsDoneIsCounted() { #expect(Capabilities.implemented.count == 82) }
}
