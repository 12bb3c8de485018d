internal import Exchanges
internal import Foundation
package import Redis

/// Tickers of one exchange in two tiers, memory (L1) and Redis (L2), and which of them jobs have asked for.
@LaneActor
package final class TickerCache {
    /// A ticker as the contract's JSON, and when it was received.
    package struct Entry: Sendable {
        package let json: String
        package let receivedMs: Int64
        /// When the exchange made it, else when it was received.
        fileprivate let madeMs: Int64
        /// What a job that finds it in memory ends with: made once, asked for often.
        package let outcome: Outcome

        init(json: String, receivedMs: Int64) {
            (self.json, self.receivedMs) = (json, receivedMs)
            let name = #""exchange_ms":"#
            madeMs = json.range(of: name).flatMap { Int64(json[$0.upperBound...].prefix { $0.isNumber }) } ?? receivedMs
            outcome = .ok(json, source: .l1)
        }
    }

    private let redis: RedisClient
    private let keys: Keys
    /// In seconds, in both tiers.
    private let ttl: Int
    private let nowMs: @Sendable () -> Int64
    private var memory = Cache<String, Entry>(capacity: 1000)
    /// When jobs last asked for a symbol, unix milliseconds, and when that was last written to Redis.
    private var asked: [String: Int64] = [:]
    private var notedMs: Int64 = 0
    /// Who asked a longer time ago is not fetched for unless it asks again: longer than from one heartbeat to the next.
    private static let latelyMs: Int64 = 5000
    /// How far ahead of ours the clock may be by which a ticker was received: one from later counts as young for too long.
    private static let aheadMs: Int64 = 100

    package init(redis: RedisClient, keys: Keys, ttl: Int, nowMs: @escaping @Sendable () -> Int64) {
        (self.redis, self.keys, self.ttl, self.nowMs) = (redis, keys, ttl, nowMs)
    }

    /// What memory has, if it is at most `maxAgeMs` old. 0 never matches: it asks for the exchange's own answer.
    package func get(_ symbol: String, maxAgeMs: Int64) -> Entry? {
        let now = nowMs()
        guard maxAgeMs > 0, let found = memory.get(symbol, at: now),
            -Self.aheadMs...maxAgeMs ~= now - found.receivedMs
        else { return nil }
        asked[symbol] = now
        return found
    }

    /// What Redis has, and what jobs of other workers have asked for lately. It is kept in memory.
    func read(_ symbols: [String]) async -> [String: Entry] {
        let replies = await redis.pipeline([
            RedisCommand(["MGET"]) + symbols.map(keys.cache),
            [
                "ZRANGE", .text(keys.asked), "+inf", .int(Int(nowMs() - Self.latelyMs)), "BYSCORE", "REV", "LIMIT", 0,
                1000, "WITHSCORES",
            ],
        ])
        let all = replies[1].array?.compactMap(\.text) ?? []
        for index in stride(from: 0, to: all.count - 1, by: 2) {
            asked[all[index]] = max(asked[all[index]] ?? 0, Int64(all[index + 1]) ?? 0)
        }
        var found: [String: Entry] = [:]
        for (symbol, reply) in zip(symbols, replies[0].array ?? []) {
            // `<received ms> <JSON>`, as `fleet_cache_put` writes it.
            guard let parts = reply.text?.split(separator: " ", maxSplits: 1), parts.count == 2,
                let receivedMs = Int64(parts[0]), 0...nowMs() + Self.aheadMs ~= receivedMs
            else { continue }
            let entry = Entry(json: String(parts[1]), receivedMs: receivedMs)
            remember(symbol, entry)
            found[symbol] = entry
        }
        return found
    }

    /// Keeps a ticker in memory.
    func keep(_ ticker: Ticker) -> Entry {
        let entry = Entry(json: json(ticker), receivedMs: ticker.receivedMs)
        remember(ticker.symbol, entry)
        return entry
    }

    private func remember(_ symbol: String, _ entry: Entry) {
        let now = nowMs()
        // One from later than now was kept before the clock was set back.
        if let known = memory.get(symbol, at: now), known.madeMs > entry.madeMs,
            known.receivedMs <= now + Self.aheadMs
        {
            return
        }
        memory.set(symbol, entry, expiresMs: entry.receivedMs + Int64(ttl) * 1000)
    }

    /// Writes tickers to Redis, and which were asked for. What cannot be written still serves here.
    func share(_ entries: [String: Entry]) async {
        guard !entries.isEmpty else { return }
        let list = Array(entries)
        let put = FunctionLibrary.command(
            "fleet_cache_put", list.map { keys.cache($0.key) },
            [.int(ttl)] + list.flatMap { [.int(Int($0.value.receivedMs)), .text($0.value.json)] })
        _ = await redis.pipeline([put] + takeAsked())
    }

    /// A job has asked for the symbol.
    func noteAsked(_ symbol: String) { asked[symbol] = nowMs() }

    /// The symbols that were asked for lately, those whose ticker is the oldest first.
    func askedLately() -> [String] {
        let now = nowMs()
        return asked.filter { now - $0.value < Self.latelyMs }.keys
            .map { (symbol: $0, receivedMs: memory.get($0, at: now)?.receivedMs ?? 0) }
            .sorted { $0.receivedMs < $1.receivedMs }.map(\.symbol)
    }

    /// The symbols that jobs of any worker have asked for in the last ten minutes, at most 500.
    func allAsked() async throws(RedisError) -> [String] {
        await shareAsked()
        let key = RedisArgument.text(keys.asked)
        let replies = await redis.pipeline([
            ["ZREMRANGEBYSCORE", key, "-inf", .int(Int(nowMs()) - 600_000)], ["ZRANGE", key, -500, -1],
        ])
        return try replies[1].get().array?.compactMap(\.text) ?? []
    }

    /// Writes which symbols jobs have asked for, those that memory could answer too: what a refresh is to keep warm.
    func shareAsked() async { _ = await redis.pipeline(takeAsked()) }

    private func takeAsked() -> [RedisCommand] {
        let now = nowMs()
        asked = asked.filter { now - $0.value < 600_000 }
        let scores = asked.filter { $0.value >= notedMs }.flatMap { [RedisArgument.int(Int($0.value)), .text($0.key)] }
        guard !scores.isEmpty, redis.isConnected else { return [] }
        notedMs = now
        return [RedisCommand(["ZADD", .text(keys.asked)] + scores), ["EXPIRE", .text(keys.asked), 600]]
    }
}
