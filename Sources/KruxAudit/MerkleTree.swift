package import KruxCrypto

/// Gives the hashes of complete subtrees.
package protocol MerkleNodes {
    /// The hash of the `index`-th subtree of 2^`height` leaves.
    func node(height: Int, index: Int64) throws -> Digest
}

/// The Merkle tree of RFC 6962, section 2.1, over leaf hashes. Proofs are made from complete subtrees, of which a tree
/// of n leaves has at most 2·log₂ n to be looked up for one proof.
package enum MerkleTree {
    /// `MTH({})`, the SHA-256 of nothing.
    package static let emptyRoot = sha256([UInt8]())

    /// `SHA-256(0x01 ‖ left ‖ right)`.
    package static func node(_ left: Digest, _ right: Digest) -> Digest {
        withUnsafeTemporaryAllocation(byteCount: 65, alignment: 1) { bytes in
            bytes[0] = 1
            left.withBytes { UnsafeMutableRawBufferPointer(rebasing: bytes[1..<33]).copyMemory(from: $0) }
            right.withBytes { UnsafeMutableRawBufferPointer(rebasing: bytes[33..<65]).copyMemory(from: $0) }
            return sha256(UnsafeRawBufferPointer(bytes))
        }
    }

    /// `MTH` over hashes that stand for equal complete subtrees, but the last, which may be smaller.
    package static func root(of hashes: some RandomAccessCollection<Digest>) -> Digest {
        guard let first = hashes.first else { return emptyRoot }
        if hashes.count == 1 { return first }
        let split = hashes.index(hashes.startIndex, offsetBy: Int(largestPower(below: Int64(hashes.count))))
        return node(root(of: hashes[..<split]), root(of: hashes[split...]))
    }

    package static func root(size: Int64, _ nodes: some MerkleNodes) throws -> Digest {
        size == 0 ? emptyRoot : try hash(0, size, nodes)
    }

    /// `PATH(index, D[size])`: from the leaf's sibling up.
    package static func inclusion(index: Int64, size: Int64, _ nodes: some MerkleNodes) throws -> [Digest] {
        precondition((0..<size).contains(index))
        func path(_ index: Int64, _ start: Int64, _ count: Int64) throws -> [Digest] {
            if count == 1 { return [] }
            let left = largestPower(below: count)
            return index < left
                ? try path(index, start, left) + [hash(start + left, count - left, nodes)]
                : try path(index - left, start + left, count - left) + [hash(start, left, nodes)]
        }
        return try path(index, 0, size)
    }

    /// `PROOF(first, D[second])`; empty for equal sizes and for a `first` of 0.
    package static func consistency(from first: Int64, to second: Int64, _ nodes: some MerkleNodes) throws -> [Digest] {
        precondition(0 <= first && first <= second)
        func proof(_ first: Int64, _ start: Int64, _ count: Int64, complete: Bool) throws -> [Digest] {
            if first == count { return complete ? [] : [try hash(start, count, nodes)] }
            let left = largestPower(below: count)
            return first <= left
                ? try proof(first, start, left, complete: complete) + [hash(start + left, count - left, nodes)]
                : try proof(first - left, start + left, count - left, complete: false) + [hash(start, left, nodes)]
        }
        return first == 0 ? [] : try proof(first, 0, second, complete: true)
    }

    /// RFC 9162, section 2.1.3.2.
    package static func verifiesInclusion(
        index: Int64, size: Int64, leaf: Digest, proof: [Digest], root: Digest
    ) -> Bool {
        guard index >= 0, index < size else { return false }
        var (node, last) = (index, size - 1)
        var result = leaf
        for sibling in proof {
            if last == 0 { return false }
            if node & 1 == 1 || node == last {
                result = Self.node(sibling, result)
                while node & 1 == 0, node != 0 { (node, last) = (node >> 1, last >> 1) }
            } else {
                result = Self.node(result, sibling)
            }
            (node, last) = (node >> 1, last >> 1)
        }
        return last == 0 && result == root
    }

    /// RFC 9162, section 2.1.4.2; false for an empty first tree.
    package static func verifiesConsistency(
        from first: Int64, to second: Int64, firstRoot: Digest, secondRoot: Digest, proof: [Digest]
    ) -> Bool {
        guard first >= 0, first <= second else { return false }
        // Everything grows from nothing, so a proof of that is none.
        if first == 0 { return false }
        if first == second { return proof.isEmpty && firstRoot == secondRoot }
        var path = proof[...]
        // A complete first tree is its own first node.
        if first & (first - 1) == 0 { path = [firstRoot] + path }
        guard let start = path.popFirst() else { return false }
        var (node, last) = (first - 1, second - 1)
        while node & 1 == 1 { (node, last) = (node >> 1, last >> 1) }
        var (old, new) = (start, start)
        for hash in path {
            if last == 0 { return false }
            if node & 1 == 1 || node == last {
                old = Self.node(hash, old)
                new = Self.node(hash, new)
                while node & 1 == 0, node != 0 { (node, last) = (node >> 1, last >> 1) }
            } else {
                new = Self.node(new, hash)
            }
            (node, last) = (node >> 1, last >> 1)
        }
        return last == 0 && old == firstRoot && new == secondRoot
    }

    /// `MTH(D[start ..< start + count])`, where `start` is a multiple of the power of two at or above `count`.
    private static func hash(_ start: Int64, _ count: Int64, _ nodes: some MerkleNodes) throws -> Digest {
        if count & (count - 1) == 0 {
            let height = count.trailingZeroBitCount
            return try nodes.node(height: height, index: start >> Int64(height))
        }
        let left = largestPower(below: count)
        return node(try hash(start, left, nodes), try hash(start + left, count - left, nodes))
    }

    /// The largest power of two smaller than `count`, which is at least 2.
    private static func largestPower(below count: Int64) -> Int64 { 1 << (63 - (count - 1).leadingZeroBitCount) }
}

/// A tree that grows leaf by leaf. It keeps what no full tile holds yet: at most 255 hashes for each level of tiles.
package struct MerkleFrontier: Sendable {
    /// 256 hashes of complete subtrees of height 8 × `level`.
    package struct Tile: Sendable {
        package let level: Int
        package let number: Int64
        package let hashes: [Digest]

        package var bytes: [UInt8] {
            var bytes: [UInt8] = []
            bytes.reserveCapacity(hashes.count * 32)
            for hash in hashes { hash.withBytes { bytes.append(contentsOf: $0) } }
            return bytes
        }
    }

    package static let tileWidth: Int64 = 256

    package private(set) var size: Int64 = 0
    /// The hashes right of the last full tile, by level.
    private var edge: [[Digest]] = []
    /// Tiles that have become full and were not taken yet.
    private var full: [Tile] = []

    package init() {}

    /// A tree of which full tiles are stored.
    /// - Parameter edge: for each level the hashes right of its last full tile.
    package init(size: Int64, edge: [[Digest]]) {
        self.size = size
        self.edge = edge
    }

    package mutating func append(_ leaf: Digest) {
        push(leaf, 0)
        size += 1
    }

    private mutating func push(_ hash: Digest, _ level: Int) {
        if edge.count == level { edge.append([]) }
        edge[level].append(hash)
        guard edge[level].count == Int(Self.tileWidth) else { return }
        full.append(Tile(level: level, number: size >> Int64(8 * (level + 1)), hashes: edge[level]))
        push(MerkleTree.root(of: edge[level]), level + 1)
        edge[level] = []
    }

    package mutating func takeFullTiles() -> [Tile] {
        defer { full = [] }
        return full
    }

    package var root: Digest {
        var rest: Digest?
        for hashes in edge {
            // What is left of the levels below stands at the end, smaller than its neighbours.
            let row = rest.map { hashes + [$0] } ?? hashes
            if !row.isEmpty { rest = MerkleTree.root(of: row) }
        }
        return rest ?? MerkleTree.emptyRoot
    }
}
