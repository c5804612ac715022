import Foundation
import KruxTestSupport
import Testing

/// Crashes, power cuts and failing disks, by `peers/storage_faults.py`. `KRUXOS_TEST_FAULTS` multiplies the rounds.
@Suite(.serialized) struct StorageFaultTests {
    private static let factor = Int(ProcessInfo.processInfo.environment["KRUXOS_TEST_FAULTS"] ?? "") ?? 1

    @Test(arguments: [("kills", 5), ("copies", 3), ("backups", 4), ("powercuts", 2), ("strace", 2), ("reset", 6)])
    func nothingAcknowledgedIsLost(_ what: String, _ rounds: Int) async throws {
        try await withTemporaryFolder { folder in
            let told = try Peer.run("storage_faults.py", [Kruxos.path, folder, what, "\(rounds * Self.factor)", "30"])
            #expect(!told.isEmpty)
            print(told)
        }
    }
}
