import Foundation
import TestSupport
import Testing

@Suite("Bench", .serialized, .timeLimit(.minutes(2)))
struct BenchTests {
    /// Runs it to its end and takes the rows of its JSON by name.
    private func bench(_ arguments: [String]) async throws -> [String: JSONValue] {
        let program = try Program([Program.binaries + "/bench"] + arguments, in: TemporaryDirectory())
        let status = try await program.exited()
        try #require(status == 0, "\(program.errors)")
        return Dictionary(
            uniqueKeysWithValues: try JSONValue(program.output)["rows"].list.map { ($0["name"].text ?? "", $0) })
    }

    @Test("drain counts every job of each number of workers, beside the ceiling of the same run")
    func drain() async throws {
        let rows = try await bench(["drain", "--jobs", "2000", "--workers", "1,2", "--runs", "1", "--json"])
        #expect(Set(rows.keys) == ["ceiling", "1 worker", "2 workers"])
        for (name, row) in rows {
            #expect(try #require(row["jobs_per_s"].double) > 10, "\(name)")
            #expect(try #require(row["redis_us_a_job"].double) > 0.1, "\(name)")
        }
        #expect(rows["ceiling"]?["of_ceiling"].double == 1)
    }

    @Test("cache measures both tiers, and a hit ratio that Zipf's law allows")
    func cache() async throws {
        let rows = try await bench(["cache", "--json"])
        let value = { (name: String) in try #require(rows[name]?["value"].double) }
        #expect(try value("L1 get, ns") > 1)
        #expect(try value("L2 get, us") > 1)
        #expect(try (80...100).contains(value("hit ratio, %")))
        #expect(try value("uncached answer at 10 ms, ms") >= 10)
    }

    @Test("what it starts ends with it, also when it is told to stop")
    func stop() async throws {
        let files = try TemporaryDirectory()
        let program = try Program(
            [Program.binaries + "/bench", "memory", "--waiting", "10000000"],
            environment: ["TMPDIR": files.path + "/"], in: TemporaryDirectory())
        let tasks = "/proc/\(program.pid)/task"
        let started = try await eventually("redis-server and a worker run") {
            let pids = try FileManager.default.contentsOfDirectory(atPath: tasks).flatMap { task in
                let list = try? String(contentsOfFile: "\(tasks)/\(task)/children", encoding: .utf8)
                return (list ?? "").split(separator: " ").compactMap { pid_t($0) }
            }
            return pids.count >= 2 ? pids : nil
        }
        program.signal(SIGTERM)
        #expect(try await program.exited() == 128 + SIGTERM)
        try await eventually("its children are gone") { started.allSatisfy { kill($0, 0) != 0 } }
        #expect(try FileManager.default.contentsOfDirectory(atPath: files.path) == [])
    }

    @Test(
        "wrong usage ends with 64 and says what was expected",
        arguments: [
            ["nonsense"], ["drain", "--jobs", "0"], ["drain", "--workers", "1,x"], ["latency", "--rate", "-1"],
        ])
    func usage(_ arguments: [String]) async throws {
        let program = try Program([Program.binaries + "/bench"] + arguments, in: TemporaryDirectory())
        #expect(try await program.exited() == 64)
        #expect(!program.errors.isEmpty)
    }
}
