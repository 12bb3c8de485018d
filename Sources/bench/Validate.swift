internal import ArgumentParser
internal import Fleet
internal import Foundation

struct Validate: Measurement {
    static let configuration = CommandConfiguration(
        abstract: "Measure everything on one page, and fail where a figure is not what it has to be.")
    @Flag(help: "Print JSON.") var json = false

    func measure(_ rig: Rig) async throws -> Table {
        var table = Table(columns: ["value", "limit", "passed"])
        /// What could not be measured, as wrk is not installed, neither passes nor fails.
        func check(_ name: String, _ value: Double, least: Double = -.infinity, most: Double = .infinity) {
            let passed: Double = least...most ~= value ? 1 : 0
            let (bound, limit) = least.isFinite ? ("at least", least) : ("at most", most)
            table.rows.append(("\(name), \(bound)", [value, limit, value.isNaN ? .nan : passed]))
        }
        let drained = try Drain.parse(["--workers", "1,2"]).measure(rig)
        let (one, two) = (drained["1 worker", "jobs_per_s"], drained["2 workers", "jobs_per_s"])
        check("jobs/s of one worker", one, least: 4001)
        check("one worker to the ceiling", drained["1 worker", "of_ceiling"], least: 0.85)
        check("two workers to one", two / one, least: 1)
        check("Redis CPU a job to the ceiling's", drained["1 worker", "of_ceiling's"], most: 1.15)

        let times = try Latency.parse([]).measure(rig)
        let ratio = times["job to reply", "p50_us"] / times["bare XADD", "p50_us"]
        check("p50 at 1,000 jobs/s, bare round trips", ratio, most: 4)
        check("p99 at 1,000 jobs/s, ms", times["job to reply", "p99_us"] / 1000, most: 1)

        let caches = try await Caches.parse([]).measure(rig)
        check("L1 get, us", caches["L1 get, ns", "value"] / 1000, most: 1)
        check("hit ratio, %", caches["hit ratio, %", "value"], least: 96)
        check("cached answer p99, us", caches["cached answer p99, us", "value"], most: 99.9)
        check("cached answer times faster", caches["times faster", "value"], least: 314.7)

        let most = try Memory.parse([]).measure(rig)["most while 1000000 wait", "resident_mib"]
        check("MiB while 1,000,000 jobs wait", most, most: 64)
        check("the same, MB", most * 1.048576, most: 600)

        let requests = try await HTTP.parse([]).measure(rig)
        let atOnce = "1000 orders at once, 2 s each"
        check("HTTP requests/s to wrk's", requests["client", "of_wrk"], least: 0.7)
        check("ok of 1,000 orders at once", requests[atOnce, "answered"], least: 1000)
        check("in flight of them in one worker", requests[atOnce, "in_flight"], least: 1000)

        let shared = try await Sharing.parse([]).measure(rig)
        check("HTTP requests/s of 10,000 ticker jobs", shared["all", "per_s"], most: 12)
        check("the same after the first second", shared["all", "after_1_s"], most: 12)
        let waited = try await Sharing.parse(["--waiting"]).measure(rig)
        check("HTTP requests of 10,000 that wait", waited["all", "requests"], most: 12)

        check("start to first job, ms", try startMs(rig), most: 199.9)
        check("idle, % of a core", try idlePercent(rig), most: 0.499)
        table.passes = table.rows.allSatisfy { $0.values[2] != 0 }
        return table
    }
}

/// Milliseconds from the start of a worker to the reply to a job that waits for it.
private func startMs(_ rig: Rig) throws -> Double {
    let times = try (0..<5).map { _ in
        try rig.begin(workers: 0)
        let reply = Rig.keys.reply("bench")
        try rig.redis.call(["XADD", Rig.stream, "*", "reply_to", reply] + Rig.fields)
        let begin = nowNs()
        try rig.startWorker()
        let answer = try rig.redis.call(["BLPOP", reply, "20"], \.[1].text)
        if answer.isEmpty { throw NotMeasured("a worker did not do its first job") }
        return Double(nowNs() - begin) / 1e6
    }
    return median(times)
}

/// Percent of a core that a worker of all exchanges uses in five seconds without anything to do.
private func idlePercent(_ rig: Rig) throws -> Double {
    try rig.begin(workers: 1, exchanges: "binance,bybit,kraken")
    sleep(2)
    let cost = rig.cost { sleep(5) }
    return cost.clients / cost.seconds * 100
}
