package import KruxCrypto
package import KruxStore

/// The tree of one epoch as the file holds it, up to a size: full tiles from the table, what is right of them from the
/// rows. Valid for the transaction it was made with.
package final class TileTree: MerkleNodes {
    package let epoch: Int64
    package let firstSeq: Int64
    package let size: Int64
    private let tx: any ReadTx
    private let origin: Digest
    private var tiles: [Int64: [Digest]] = [:]

    /// - Parameter size: at most the number of the epoch's rows.
    package init(_ tx: any ReadTx, installID: String, epoch: Int64, firstSeq: Int64, size: Int64) {
        self.tx = tx
        self.epoch = epoch
        self.firstSeq = firstSeq
        self.size = size
        origin = RowFormat.originDigest(installID: installID, epoch: epoch)
    }

    package func node(height: Int, index: Int64) throws -> Digest {
        let level = height / 8
        let first = index << Int64(height % 8)
        let hashes = try tile(level: level, number: first / MerkleFrontier.tileWidth)
        let start = Int(first % MerkleFrontier.tileWidth)
        let end = start + 1 << (height % 8)
        guard end <= hashes.count else {
            throw AuditError(.inconsistent, "the tree holds less than its size says", hint: "run `kruxos audit verify`")
        }
        return MerkleTree.root(of: hashes[start..<end])
    }

    /// Whole when full, else what there is of it at this size.
    package func tile(level: Int, number: Int64) throws -> [Digest] {
        let key = number << 3 | Int64(level)
        if let known = tiles[key] { return known }
        let width = min(MerkleFrontier.tileWidth, size >> Int64(8 * level) - number * MerkleFrontier.tileWidth)
        let hashes: [Digest]
        if width == MerkleFrontier.tileWidth {
            hashes = try stored(level: level, number: number)
        } else if width <= 0 {
            hashes = []
        } else if level == 0 {
            hashes = try leaves(from: number * MerkleFrontier.tileWidth, count: width)
        } else {
            hashes = try (0..<width).map {
                MerkleTree.root(of: try tile(level: level - 1, number: number * MerkleFrontier.tileWidth + $0))
            }
        }
        tiles[key] = hashes
        return hashes
    }

    private func stored(level: Int, number: Int64) throws -> [Digest] {
        let bytes = try tx.first(
            "SELECT hashes FROM tiles WHERE epoch = ? AND level = ? AND number = ?",
            [.int(epoch), .int(Int64(level)), .int(number)]
        ) { $0.blob(0) }
        guard let bytes, bytes.count == 8192 else {
            throw AuditError(
                .inconsistent, "tile \(number) of level \(level) is missing", hint: "run `kruxos audit verify`")
        }
        return stride(from: 0, to: 8192, by: 32).compactMap { Digest(bytes[$0..<$0 + 32]) }
    }

    /// Leaves computed from rows.
    private func leaves(from index: Int64, count: Int64) throws -> [Digest] {
        let rows = try tx.rows(
            "SELECT seq, prev, key_id, body_hash, sig FROM audit WHERE seq >= ? AND seq < ? ORDER BY seq",
            [.int(firstSeq + index), .int(firstSeq + index + count)]
        ) { ($0.int(0), $0.blob(1), $0.blob(2), $0.blob(3), $0.blob(4)) }
        return try rows.map { seq, prev, keyID, bodyHash, signature in
            guard let prev = Digest(prev), let keyID = Digest(keyID), let bodyHash = Digest(bodyHash) else {
                throw AuditError(.inconsistent, "row \(seq) cannot be read", hint: "run `kruxos audit verify`")
            }
            let head = RowFormat.head(
                originDigest: origin, epoch: epoch, seq: seq, prev: prev, keyID: keyID, bodyHash: bodyHash)
            return RowFormat.leaf(head: head, signature: signature)
        }
    }

    /// The hashes right of the last full tile of each level, to go on from.
    func edge() throws -> [[Digest]] {
        var edge: [[Digest]] = []
        var level = 0
        while size >> Int64(8 * level) > 0 {
            let full = size >> Int64(8 * (level + 1))
            edge.append(try tile(level: level, number: full))
            level += 1
        }
        return edge
    }
}
