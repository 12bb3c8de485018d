import Foundation
import TestSupport
import Testing

@Suite("Start of a worker", .timeLimit(.minutes(2)))
struct WorkerStartTests {
    @Test("a metrics port that is taken ends it with a sentence that names the port and its variable")
    func takenPort() async throws {
        let stack = try await Stack()
        let first = try await stack.worker()
        let second = try stack.launch(["FLEET_METRICS_PORT": "\(first.metricsPort)"])
        #expect(try await second.exited() == 1)
        let sentence = "FLEET_METRICS_PORT: '\(first.metricsPort)' (Address already in use); expected a free port"
        #expect(second.errors.hasSuffix("worker: \(sentence)\n"), "\(second.errors)")
        #expect(!second.errors.contains("CancellationError"), "\(second.errors)")
    }

    @Test(
        "settings that are not usable end it with 64, also where that cannot be written",
        arguments: ["2>/dev/full", "2>&-", "2> >(exit); wait $!"])
    func lostErrors(_ redirection: String) async throws {
        let program = try Program(
            ["bash", "-c", "exec \(redirection); exec \(Program.binaries)/worker"],
            environment: ["FLEET_MODE": "fast"], in: try TemporaryDirectory())
        #expect(try await program.exited() == 64)
    }

    @Test("it may open as many files as the hard limit allows, whatever the soft one is")
    func openFiles() async throws {
        let stack = try await Stack()
        let worker = try Program(
            ["sh", "-c", "ulimit -Sn 256 && exec \(Program.binaries)/worker"], environment: stack.environment(),
            in: stack.directory)
        try await eventually("the worker starts") { worker.errors.contains("worker starts") }
        let limits = try String(contentsOfFile: "/proc/\(worker.pid)/limits", encoding: .utf8)
        let files = try #require(limits.firstMatch(of: /Max open files +(\d+) +(\d+)/))
        #expect(files.1 == files.2)
    }
}
