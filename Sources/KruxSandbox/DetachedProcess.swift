import CSandbox
import Foundation

/// Our own binary as a process that outlives this one, unconfined.
package enum DetachedProcess {
    /// Starts it with its standard error in a log file.
    /// - Returns: the read end of its standard output; the caller closes it. Nil when it could not be started, with
    ///   `errno` set.
    package static func start(arguments: [String], log: String) -> Int32? {
        var ends: [Int32] = [-1, -1]
        guard krux_pipe(&ends) == 0 else { return nil }
        let strings = CStrings(["kruxos"] + arguments)
        let result = krux_spawn_detached("/proc/self/exe", strings.pointer, ends[1], log)
        close(ends[1])
        guard result > 0 else {
            close(ends[0])
            errno = -result
            return nil
        }
        return ends[0]
    }
}
