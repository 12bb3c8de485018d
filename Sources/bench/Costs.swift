internal import ArgumentParser
internal import Exchanges
internal import Fleet
internal import Foundation
internal import Histogram
internal import Redis

struct Caches: Measurement {
    static let configuration = CommandConfiguration(commandName: "cache", abstract: "Measure both tiers of the cache.")
    @Flag(help: "Print JSON.") var json = false

    func measure(_ rig: Rig) async throws -> Table {
        try rig.begin(workers: 0)
        var cache = Cache<String, String>(capacity: 1000)
        let keys = (0..<1000).map { "S\($0)/USDT" }
        for key in keys { cache.set(key, Rig.ticker, expiresMs: .max) }
        func nsACall(_ call: (String) -> Void) -> Double {
            let begin = nowNs()
            for _ in 0..<300 { for key in keys { call(key) } }
            return Double(nowNs() - begin) / 300_000
        }
        let get = nsACall { _ = cache.get($0, at: 0) }
        let set = nsACall { cache.set($0, Rig.ticker, expiresMs: .max) }
        let cached = cachedAnswer(cache)
        let uncached = try await Load(rig.simulator, askers: 1, seconds: 1, latencyMs: 10).medianMs
        return Table(
            columns: ["value"],
            rows: [
                ("L1 get, ns", [get]), ("L1 set, ns", [set]), ("L2 get, us", [try await redisUs(rig)]),
                ("hit ratio, %", [hitRatio()]), ("cached answer p50, us", [cached.p50]),
                ("cached answer p99, us", [cached.p99]), ("uncached answer at 10 ms, ms", [uncached]),
                ("times faster", [uncached * 1000 / cached.p50]),
            ])
    }

    /// Microseconds of a look-up in the second tier, as a worker does it.
    @LaneActor private func redisUs(_ rig: Rig) async throws -> Double {
        let redis = try await RedisConnection.connect(
            to: RedisURL("unix://\(rig.socket)"), on: LaneActor.loop, name: "bench")
        defer { redis.close() }
        let begin = nowNs()
        for _ in 0..<10_000 { _ = try await redis.send(["MGET", .text(Rig.keys.cache("S0/USDT"))]) }
        return Double(nowNs() - begin) / 1e7
    }

    /// Percent of asks that the first tier answers: 1,000 symbols asked for by Zipf's law, 1,000 asks a second for five
    /// minutes, tickers kept for 30 s.
    private func hitRatio() -> Double {
        var cache = Cache<String, String>(capacity: 1000)
        /// Each symbol as often as it is asked for.
        let asks = (1...1000).flatMap { Array(repeating: "S\($0)/USDT", count: 10_000 / $0) }
        var hits = 0.0
        for ms in Int64(0)..<300_000 {
            let symbol = asks[Int.random(in: asks.indices)]
            if cache.get(symbol, at: ms) != nil {
                hits += 1
            } else {
                cache.set(symbol, Rig.ticker, expiresMs: ms + 30_000)
            }
        }
        return hits / 3000
    }

    /// Microseconds from an entry's fields to its result, the ticker found in memory.
    private func cachedAnswer(_ cache: Cache<String, String>) -> (p50: Double, p99: Double) {
        var (cache, times) = (cache, Histogram<UInt32>())
        let fields = Rig.fields.map { RedisValue.bytes(Array($0.utf8)) }
        for index in 0..<100_000 {
            let begin = nowNs()
            let job = Job(exchange: .binance, kind: .fetchTicker, entryId: "1700000000000-\(index)", fields: fields)
            guard case .fetchTicker(let symbol, _) = job.work, let found = cache.get(symbol, at: wallClockMs()),
                !Rig.result(of: job, found).isEmpty
            else { continue }
            times.record(nowNs() - begin)
        }
        return (times.us(50), times.us(99))
    }
}

struct Calls: Measurement {
    static let configuration = CommandConfiguration(
        commandName: "limiter", abstract: "Measure what a call for a budget and for an order's journal cost.",
        aliases: ["journal"])
    @Flag(help: "Print JSON.") var json = false

    /// What 20,000 calls of each function cost, one after another, beside a bare round trip.
    func measure(_ rig: Rig) throws -> Table {
        // A worker loads the function library.
        try rig.begin(workers: 1)
        try rig.begin(workers: 0)
        let keys = Rig.keys
        let budget = [keys.gate("default"), keys.limit("weight", "default"), "1", "0.75", "2", "1000000000", "94"]
        let begin = [keys.paused, "me 1-0", "10000", "604800", "submit_order"]
        let end = ["accepted", Outcome.ok(Rig.ticker).json, "604800", ""]
        let calls: [(name: String, command: (_ order: String) -> [String])] = [
            ("PING", { _ in ["PING"] }), ("fleet_limit_take", { _ in ["FCALL", "fleet_limit_take", "2"] + budget }),
            ("fleet_journal_begin", { ["FCALL", "fleet_journal_begin", "2", $0] + begin }),
            ("fleet_journal_end", { ["FCALL", "fleet_journal_end", "1", $0] + end }),
        ]
        var table = Table(columns: ["us_a_call", "redis_us_a_call"])
        for (name, command) in calls {
            let cost = try rig.cost {
                for index in 0..<20_000 { try rig.redis.call(command(keys.order("\(index)"))) }
            }
            table.rows.append((name, [cost.seconds, cost.redis].map { $0 * 1e6 / 20_000 }))
        }
        return table
    }
}
