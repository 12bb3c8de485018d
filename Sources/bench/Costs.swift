internal import ArgumentParser
internal import Exchanges
internal import Fleet
internal import Foundation
internal import Histogram
internal import Redis

struct Caches: AsyncParsableCommand {
    static let configuration = CommandConfiguration(commandName: "cache", abstract: "Measure both tiers of the cache.")
    @OptionGroup var output: OutputOptions

    func run() async throws {
        defer { Rig.end() }
        let rig = try Rig()
        var table = Table(columns: ["value"])
        let (get, set) = memoryCache()
        let uncached = try await uncachedMs(rig)
        let cached = cachedAnswer()
        table.rows = [
            ("L1 get, ns", [get]), ("L1 set, ns", [set]), ("L2 get, us", [try await redisCache(rig)]),
            ("hit ratio, %", [hitRatio()]), ("cached answer p50, us", [cached.p50]),
            ("cached answer p99, us", [cached.p99]), ("uncached answer at 10 ms, ms", [uncached]),
            ("times faster", [uncached * 1000 / cached.p50]),
        ]
        table.show(output)
    }
}

/// Nanoseconds of a look-up and of a write in a full first tier.
func memoryCache() -> (get: Double, set: Double) {
    var cache = Cache<String, String>(capacity: 1000)
    let keys = (0..<1000).map { "S\($0)/USDT" }
    for key in keys { cache.set(key, Rig.ticker, expiresMs: .max) }
    var found = 0
    func timed(_ work: (String) -> Void) -> Double {
        let begin = nowNs()
        for _ in 0..<300 { for key in keys { work(key) } }
        return Double(nowNs() - begin) / 300_000
    }
    let get = timed { if cache.get($0, at: 0) != nil { found += 1 } }
    let set = timed { cache.set($0, Rig.ticker, expiresMs: .max) }
    precondition(found == 300_000)
    return (get, set)
}

/// Microseconds of a look-up in the second tier, as a worker does it.
@LaneActor private func redisCache(_ rig: sending Rig) async throws -> Double {
    try rig.clear()
    let redis = try await RedisConnection.connect(
        to: RedisURL("unix://\(rig.socket)"), on: LaneActor.loop, name: "bench")
    defer { redis.close() }
    let begin = nowNs()
    for _ in 0..<10_000 { _ = try await redis.send(["MGET", .text(Rig.keys.cache("S0/USDT"))]) }
    return Double(nowNs() - begin) / 1e7
}

/// Percent of asks that the first tier answers: 1,000 symbols asked for by Zipf's law, 1,000 asks a second for five
/// minutes, tickers kept for 30 s.
func hitRatio() -> Double {
    var cache = Cache<String, String>(capacity: 1000)
    var sums: [Double] = []
    for rank in 1...1000 { sums.append((sums.last ?? 0) + 1 / Double(rank)) }
    var hits = 0
    for ms in Int64(0)..<300_000 {
        let point = Double.random(in: 0..<(sums.last ?? 1))
        var (low, high) = (0, 999)
        while low < high {
            if sums[(low + high) / 2] > point { high = (low + high) / 2 } else { low = (low + high) / 2 + 1 }
        }
        if cache.get("S\(low)/USDT", at: ms) != nil {
            hits += 1
        } else {
            cache.set("S\(low)/USDT", Rig.ticker, expiresMs: ms + 30_000)
        }
    }
    return Double(hits) / 3000
}

/// Microseconds from an entry's fields to its result, the ticker found in memory.
func cachedAnswer() -> (p50: Double, p99: Double) {
    var cache = Cache<String, String>(capacity: 1000)
    cache.set("BTC/USDT", Rig.ticker, expiresMs: .max)
    var histogram = Histogram<UInt32>()
    let fields = ["symbol", "BTC/USDT", "max_age_ms", "86400000"].map { RedisValue.bytes(Array($0.utf8)) }
    for index in 0..<100_000 {
        let begin = nowNs()
        let job = Job(exchange: .binance, kind: .fetchTicker, entryId: "1700000000000-\(index)", fields: fields)
        guard case .fetchTicker(let symbol, _) = job.work, let found = cache.get(symbol, at: wallClockMs()) else {
            continue
        }
        let result = Outcome.ok(found, source: .l1).result(
            of: job, worker: "a-worker-of-8-12345-abcd", startedMs: 0, finishedMs: wallClockMs())
        if !result.isEmpty { histogram.record(nowNs() - begin) }
    }
    return (Double(histogram.valueAtPercentile(50)) / 1000, Double(histogram.valueAtPercentile(99)) / 1000)
}

/// Milliseconds of a ticker that is fetched, from an exchange that takes 10 ms.
func uncachedMs(_ rig: Rig) async throws -> Double {
    let exchange = try await SimulatedExchange(rig)
    defer { exchange.close() }
    try await exchange.delay(10)
    var times: [Double] = []
    for _ in 0..<50 {
        let begin = nowNs()
        try await exchange.fetch()
        times.append(Double(nowNs() - begin) / 1e6)
    }
    try await exchange.delay(0)
    return median(times)
}

/// What 20,000 calls of each function cost, one after another, beside a bare round trip.
struct Calls: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "limiter", abstract: "Measure what a call for a budget and for an order's journal cost.",
        aliases: ["journal"])
    @OptionGroup var output: OutputOptions

    func run() async throws {
        defer { Rig.end() }
        let (rig, keys, count) = (try Rig(), Rig.keys, 20_000)
        // A worker loads the function library.
        Rig.stop(try rig.workers(1))
        let budget = [keys.gate("default"), keys.limit("weight", "default"), "1", "0.75", "2", "1000000000", "94"]
        let end = ["accepted", Outcome.ok(Rig.ticker).json, "604800", ""]
        let calls: [(String, (String) -> [String])] = [
            ("PING", { _ in ["PING"] }), ("fleet_limit_take", { _ in ["FCALL", "fleet_limit_take", "2"] + budget }),
            (
                "fleet_journal_begin",
                { ["FCALL", "fleet_journal_begin", "2", $0, keys.paused, "me 1-0", "10000", "604800", "submit_order"] }
            ), ("fleet_journal_end", { ["FCALL", "fleet_journal_end", "1", $0] + end }),
        ]
        var table = Table(columns: ["us_a_call", "redis_us_a_call"])
        for (name, call) in calls {
            let (seconds, begin) = (try rig.redisSeconds(), nowNs())
            for index in 0..<count { try rig.redis.call(call(keys.order("\(index)"))) { _ in } }
            let spent = [Double(nowNs() - begin) / 1e9, try rig.redisSeconds() - seconds]
            table.rows.append((name, spent.map { $0 * 1e6 / Double(count) }))
        }
        table.show(output)
    }
}
