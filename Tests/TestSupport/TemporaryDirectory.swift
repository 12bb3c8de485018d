internal import Foundation

/// A private directory under `/tmp` (a Unix socket's path may not be long), removed with its last owner.
package final class TemporaryDirectory: Sendable {
    package let path: String

    package init() throws {
        path = "/tmp/fleet-test-" + UUID().uuidString.prefix(12).lowercased()
        try FileManager.default.createDirectory(atPath: path, withIntermediateDirectories: true)
        Watchdog.shared.tell("d \(path)")
    }

    deinit { try? FileManager.default.removeItem(atPath: path) }

    package func file(_ name: String) -> String { path + "/" + name }

    /// Writes a file and returns its path.
    package func write(_ text: String, to name: String) throws -> String {
        try text.write(toFile: file(name), atomically: true, encoding: .utf8)
        return file(name)
    }
}

/// A shell that outlives this process by a moment and ends whatever the tests left behind, even after a crash.
final class Watchdog: Sendable {
    static let shared = Watchdog()
    private let pipe: Int32

    private init() {
        let script = """
            declare -A processes directories
            while read -r what name; do
                case $what in
                    +) processes[$name]=1 ;;
                    -) unset "processes[$name]" ;;
                    d) directories[$name]=1 ;;
                esac
            done
            [ ${#processes[@]} -gt 0 ] && kill -9 "${!processes[@]}"
            [ ${#directories[@]} -gt 0 ] && rm -rf -- "${!directories[@]}"
            """
        var ends: [Int32] = [-1, -1]
        _ = Glibc.pipe(&ends)
        for end in ends { _ = fcntl(end, F_SETFD, FD_CLOEXEC) }
        pipe = ends[1]
        _ = try? spawn(
            ["/bin/bash", "-c", script], environment: ProcessInfo.processInfo.environment, input: ends[0],
            output: "/dev/null", errors: "/dev/null")
        close(ends[0])
    }

    func tell(_ line: String) {
        let bytes = Array((line + "\n").utf8)
        _ = write(pipe, bytes, bytes.count)
    }
}
