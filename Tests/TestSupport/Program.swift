package import Foundation
private import Synchronization

/// A process started by a test, its output in files. It is killed with its last owner, and by the watchdog when the
/// tests themselves end early.
package final class Program: Sendable {
    package let pid: pid_t
    private let outputFile, errorFile: String
    private let directory: TemporaryDirectory
    private let status = Mutex<Int32?>(nil)

    /// Where the programs of this build are.
    package static let binaries: String =
        ProcessInfo.processInfo.environment["FLEET_BIN"]
        ?? Bundle.main.executableURL?.resolvingSymlinksInPath().deletingLastPathComponent().path ?? "."

    /// - Parameters:
    ///   - command: a path, or a name that is looked up in `PATH`, and the arguments.
    ///   - environment: added to `PATH`; nothing else of ours is passed on.
    package init(
        _ command: [String], environment: [String: String] = [:], input: String = "/dev/null",
        in directory: TemporaryDirectory
    ) throws {
        self.directory = directory
        let name = (command[0] as NSString).lastPathComponent + "-" + UUID().uuidString.prefix(8)
        outputFile = directory.file(name + ".out")
        errorFile = directory.file(name + ".err")
        let inherited = ["PATH": ProcessInfo.processInfo.environment["PATH"] ?? "/usr/bin:/bin"]
        let descriptor = open(input, O_RDONLY | O_CLOEXEC)
        defer { close(descriptor) }
        pid = try spawn(
            command, environment: inherited.merging(environment) { $1 }, input: descriptor, output: outputFile,
            errors: errorFile)
        Watchdog.shared.tell("+ \(pid)")
    }

    deinit { stop() }

    package var output: String { (try? String(contentsOfFile: outputFile, encoding: .utf8)) ?? "" }
    package var errors: String { (try? String(contentsOfFile: errorFile, encoding: .utf8)) ?? "" }

    package func signal(_ number: Int32) { if exitStatus == nil { kill(pid, number) } }

    /// The exit code, or 128 + the signal that ended it; nil while it runs.
    package var exitStatus: Int32? {
        status.withLock { status in
            if status == nil {
                var raw: Int32 = 0
                guard waitpid(pid, &raw, WNOHANG) == pid else { return nil }
                status = raw & 0x7f == 0 ? (raw >> 8) & 0xff : 128 + (raw & 0x7f)
                Watchdog.shared.tell("- \(pid)")
            }
            return status
        }
    }

    /// Waits for the end. - Returns: the exit status.
    package func exited(within limit: Duration = .seconds(60)) async throws -> Int32 {
        try await eventually("process \(pid) ends", within: limit) { exitStatus }
    }

    /// Kills it and waits for the kernel to have taken it away.
    package func stop() {
        guard exitStatus == nil else { return }
        kill(pid, SIGKILL)
        var raw: Int32 = 0
        waitpid(pid, &raw, 0)
        status.withLock { $0 = 128 + SIGKILL }
        Watchdog.shared.tell("- \(pid)")
    }
}

struct SpawnFailed: Error {
    let command: [String]
    let code: Int32
}

/// Starts a process with the descriptor as its input and the files as its outputs.
func spawn(
    _ command: [String], environment: [String: String], input: Int32, output: String, errors: String
) throws -> pid_t {
    var actions = posix_spawn_file_actions_t()
    posix_spawn_file_actions_init(&actions)
    defer { posix_spawn_file_actions_destroy(&actions) }
    posix_spawn_file_actions_adddup2(&actions, input, 0)
    let flags = O_WRONLY | O_CREAT | O_TRUNC | O_APPEND
    posix_spawn_file_actions_addopen(&actions, 1, output, flags, 0o600)
    posix_spawn_file_actions_addopen(&actions, 2, errors, flags, 0o600)
    let arguments = command.map { strdup($0) } + [nil]
    let variables = environment.map { strdup("\($0)=\($1)") } + [nil]
    defer { for text in arguments + variables { free(text) } }
    var pid: pid_t = 0
    let code = posix_spawnp(&pid, command[0], &actions, nil, arguments, variables)
    guard code == 0 else { throw SpawnFailed(command: command, code: code) }
    return pid
}
