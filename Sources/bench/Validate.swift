internal import ArgumentParser
internal import Foundation

struct Validate: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Measure everything on one page, and fail where a figure is not what it has to be.")
    @Flag(help: "Smaller and shorter runs, one of each.") var quick = false
    @OptionGroup var output: OutputOptions

    func run() async throws {
        defer { Rig.end() }
        let rig = try Rig()
        var table = Table(columns: ["value", "limit", "passed"])
        /// What could not be measured, as wrk is not installed, neither passes nor fails.
        func check(_ name: String, _ value: Double?, least limit: Double) {
            table.rows.append((name + ", at least", [value, limit, value.map { $0 >= limit ? 1 : 0 }]))
        }
        func check(_ name: String, _ value: Double, most limit: Double) {
            table.rows.append((name + ", at most", [value, limit, value <= limit ? 1 : 0]))
        }
        let drained = try drain(
            rig, jobs: quick ? 50_000 : 200_000, symbols: 1, workers: [1, 2], runs: quick ? 1 : 3
        ).rows.map { $0.values.compactMap { $0 } }
        check("jobs/s of one worker", drained[1][0], least: 4001)
        check("one worker to the ceiling", drained[1][1], least: 0.85)
        check("two workers to one", drained[2][0] / drained[1][0], least: 1)
        check("Redis CPU a job to the ceiling's", drained[1][4], most: 1.15)
        let times = try await latency(rig, rate: 1000, seconds: quick ? 3 : 10).rows.map { $0.values.compactMap { $0 } }
        check("p50 at 1,000 jobs/s, bare round trips", times[1][0] / times[0][0], most: 4)
        check("p99 at 1,000 jobs/s, ms", times[1][1] / 1000, most: 1)
        check("L1 get, us", memoryCache().get / 1000, most: 1)
        check("hit ratio, %", hitRatio(), least: 96)
        let (cached, uncached) = (cachedAnswer(), try await uncachedMs(rig))
        check("cached answer p99, us", cached.p99, most: 99.9)
        check("cached answer times faster", uncached * 1000 / cached.p50, least: 314.7)
        let most = try memory(rig, waiting: quick ? 100_000 : 1_000_000).most
        check("MiB while \(quick ? "100,000" : "1,000,000") jobs wait", most, most: 64)
        check("the same, MB", most * 1.048576, most: 600)
        let exchange = try await SimulatedExchange(rig)
        let rates = try await exchange.rates(seconds: quick ? 2 : 5, connections: 64)
        check("HTTP requests/s to wrk's", rates.wrk.map { rates.client / $0 }, least: 0.7)
        let many = try await exchange.atOnce(1000)
        check("answered of 1,000 requests at once", many.answered, least: 1000)
        check("in flight of them", many.connections, least: 1000)
        check("start to first job, ms", try startMs(rig), most: 199.9)
        check("idle, % of a core", try idlePercent(rig, seconds: 5), most: 0.499)
        table.show(output)
        if table.rows.contains(where: { $0.values[2] == 0 }) { throw ExitCode(1) }
    }
}
