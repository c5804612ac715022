import Foundation
import KruxAudit
import KruxCore
import KruxCrypto
import KruxTestSupport
import Testing

/// Leaves in memory, hashed the slow way: every subtree from its leaves.
private struct Leaves: MerkleNodes {
    let hashes: [Digest]

    init(_ count: Int) { hashes = (0..<count).map { sha256([0, UInt8($0 & 255), UInt8($0 >> 8)]) } }

    func node(height: Int, index: Int64) -> Digest {
        Self.root(hashes[(Int(index) << height)..<(Int(index + 1) << height)])
    }

    /// RFC 6962, section 2.1, word for word.
    static func root(_ leaves: ArraySlice<Digest>) -> Digest {
        guard let first = leaves.first else { return sha256([UInt8]()) }
        if leaves.count == 1 { return first }
        var split = 1
        while split * 2 < leaves.count { split *= 2 }
        let middle = leaves.startIndex + split
        return sha256([1] + root(leaves[..<middle]).bytes + root(leaves[middle...]).bytes)
    }
}

@Suite struct MerkleTreeTests {
    private func vectors(_ name: String) throws -> [JSONValue] {
        let folder = (#filePath as NSString).deletingLastPathComponent + "/vectors/"
        let data = try Data(contentsOf: URL(fileURLWithPath: folder + name))
        return try #require(try JSONParser.parse([UInt8](data)).array)
    }

    private func hashes(_ value: JSONValue?) -> [Digest]? {
        let texts = value?.array ?? []
        let decoded = texts.compactMap { $0.string.flatMap { Base64.decode($0) }.flatMap { Digest($0) } }
        return decoded.count == texts.count ? decoded : nil
    }

    private func hash(_ value: JSONValue?) -> Digest? {
        value?.string.flatMap { Base64.decode($0) }.flatMap { Digest($0) }
    }

    /// Some roots are no hashes, only equal or not.
    private func root(_ value: JSONValue?) -> Digest? {
        value?.string.flatMap { Base64.decode($0) }.map { Digest($0) ?? sha256($0) }
    }

    @Test func publishedVectorsAreJudgedAsPublished() throws {
        var cases = 0
        for vector in try vectors("rfc6962-inclusion.json") {
            let refused = vector["wantErr"]?.bool
            var accepted = false
            if let index = vector["leafIdx"]?.int, let size = vector["treeSize"]?.int,
                let leaf = hash(vector["leafHash"]),
                let root = hash(vector["root"]), let proof = hashes(vector["proof"])
            {
                accepted = MerkleTree.verifiesInclusion(index: index, size: size, leaf: leaf, proof: proof, root: root)
            }
            #expect(accepted == (refused == false), "\(vector["case"]?.string ?? "") \(vector["desc"]?.string ?? "")")
            cases += 1
        }
        for vector in try vectors("rfc6962-consistency.json") {
            let refused = vector["wantErr"]?.bool
            var accepted = false
            if let first = vector["size1"]?.int, let second = vector["size2"]?.int,
                let firstRoot = root(vector["root1"]),
                let secondRoot = root(vector["root2"]), let proof = hashes(vector["proof"])
            {
                accepted = MerkleTree.verifiesConsistency(
                    from: first, to: second, firstRoot: firstRoot, secondRoot: secondRoot, proof: proof)
            }
            #expect(accepted == (refused == false), "\(vector["case"]?.string ?? "") \(vector["desc"]?.string ?? "")")
            cases += 1
        }
        #expect(cases == 196)
    }

    @Test func everyProofOfEveryTreeUpTo256Verifies() throws {
        let leaves = Leaves(257)
        let roots = (0...257).map { Leaves.root(leaves.hashes[..<$0]) }
        for size in 1...256 {
            #expect(try MerkleTree.root(size: Int64(size), leaves) == roots[size])
            for index in 0..<size {
                let proof = try MerkleTree.inclusion(index: Int64(index), size: Int64(size), leaves)
                func verifies(_ index: Int, _ size: Int, _ leaf: Digest, _ proof: [Digest], _ root: Digest) -> Bool {
                    MerkleTree.verifiesInclusion(
                        index: Int64(index), size: Int64(size), leaf: leaf, proof: proof, root: root)
                }
                guard verifies(index, size, leaves.hashes[index], proof, roots[size]),
                    !verifies(index, size, leaves.hashes[index + 1], proof, roots[size]),
                    !verifies(index, size, leaves.hashes[index], proof + [proof.first ?? .zero], roots[size]),
                    !verifies(index, size, leaves.hashes[index], proof, roots[size + 1]),
                    proof.isEmpty || !verifies(index, size, leaves.hashes[index], Array(proof.dropLast()), roots[size])
                else {
                    Issue.record("inclusion of \(index) in \(size)")
                    return
                }
            }
            for first in 1...size {
                let proof = try MerkleTree.consistency(from: Int64(first), to: Int64(size), leaves)
                func verifies(_ firstRoot: Digest, _ secondRoot: Digest, _ proof: [Digest]) -> Bool {
                    MerkleTree.verifiesConsistency(
                        from: Int64(first), to: Int64(size), firstRoot: firstRoot, secondRoot: secondRoot, proof: proof)
                }
                guard verifies(roots[first], roots[size], proof), !verifies(roots[first], roots[size], proof + [.zero]),
                    !verifies(.zero, roots[size], proof), !verifies(roots[first], .zero, proof)
                else {
                    Issue.record("consistency of \(first) with \(size)")
                    return
                }
            }
        }
    }

    @Test func aGrowingTreeHasTheRootOfItsLeaves() {
        let leaves = Leaves(1500)
        var frontier = MerkleFrontier()
        var tiles: [MerkleFrontier.Tile] = []
        #expect(frontier.root == MerkleTree.emptyRoot)
        for size in 1...1500 {
            frontier.append(leaves.hashes[size - 1])
            tiles += frontier.takeFullTiles()
            if size < 600 || size % 97 == 0 { #expect(frontier.root == Leaves.root(leaves.hashes[..<size])) }
        }
        #expect(tiles.map(\.number) == [0, 1, 2, 3, 4] && tiles.allSatisfy { $0.level == 0 })
        #expect(tiles[3].hashes == Array(leaves.hashes[768..<1024]))
    }

    @Test func aTreeOf65536LeavesMakesATileOfTiles() {
        var frontier = MerkleFrontier()
        var tiles: [MerkleFrontier.Tile] = []
        for index in 0..<65_536 {
            frontier.append(sha256([UInt8(index & 255), UInt8(index >> 8)]))
            tiles += frontier.takeFullTiles()
        }
        #expect(tiles.count == 257)
        #expect(tiles.last?.level == 1 && tiles.last?.number == 0)
        #expect(frontier.root == MerkleTree.root(of: tiles.last?.hashes ?? []))
    }
}

@Suite struct SignedNoteTests {
    /// The example of c2sp.org/signed-note.
    private let example = """
        This is an example message.

        — example.com/foo Uw2QOkn8srV1yJGh2VYRlL1Tnagv1YEq6TfXppzi2ONncAlTgK7Ztg1ERYNZXsYjOBH3mFXmRKuwHjG1Yu72IneyaQM=

        """
    private let verifier = "example.com/foo+530d903a+AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k"

    @Test func thePublishedExampleVerifies() throws {
        let note = try #require(SignedNote(example))
        let key = try #require(NoteKey(verifier: verifier))
        #expect(key.verifier == verifier && note.isSigned(by: key) && note.encoded == example)
        #expect(SignedNote(example.replacing("example message", with: "example Message"))?.isSigned(by: key) == false)
    }

    @Test func everyBitOfANoteCounts() throws {
        let key = try #require(NoteKey(verifier: verifier))
        let bytes = Array(example.utf8)
        for index in bytes.indices {
            for bit in 0..<8 {
                var changed = bytes
                changed[index] ^= 1 << bit
                guard let text = String(validating: changed, as: UTF8.self), let note = SignedNote(text) else {
                    continue
                }
                #expect(!note.isSigned(by: key), "byte \(index), bit \(bit)")
            }
        }
    }

    @Test(arguments: [
        "", "\n", "\n\n", "text", "text\n", "text\n\n", "text\n\nno signature\n", "text\n\n— name\n",
        "text\n\n— name AAAA\n",
        "text\n\n— na+me AAAAAAAA\n", "text\n\n— name AAAAAAAA", "te\u{1}xt\n\n— name AAAAAAAA\n",
        "text\n\n- name AAAAAAAA\n",
        "text\n\n— name AAAAAAAA\n\n",
    ]) func whatIsNoNoteIsRefused(_ text: String) { #expect(SignedNote(text) == nil) }

    @Test(arguments: [
        "o\n1\n", "o\n01\nAAAA\n", "o\n-1\nAAAA\n", "\n1\nAAAA\n", "o\n1\nAAAA\n",
        "o\n+1\n47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=\n",
    ])
    func whatIsNoCheckpointIsRefused(_ text: String) { #expect(Checkpoint(text) == nil) }

    @Test func aCosignatureBindsItsTime() throws {
        guard let key = SigningKey(seed: [UInt8](repeating: 3, count: 32)) else { throw TestFailure("no key") }
        let cosigner = NoteKey(name: "witness.example/w1", kind: .cosignature, publicKey: key.publicKey)
        let text = "o\n1\n47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=\n"
        let note = SignedNote(text: text, lines: [cosigner.sign(text, with: key, seconds: 1_679_315_147)])
        #expect(note.cosigned(by: cosigner) == 1_679_315_147)
        for index in note.lines[0].signature.indices {
            var changed = note
            var signature = note.lines[0].signature
            signature[index] ^= 1
            changed.lines = [.init(name: cosigner.name, keyID: cosigner.id, signature: signature)]
            #expect(changed.cosigned(by: cosigner) == nil)
        }
    }
}
