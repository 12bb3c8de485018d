internal import Exchanges
internal import Foundation
package import Redis

/// Tickers of one exchange in two tiers: memory (L1) and Redis (L2), then the exchange.
@LaneActor
package final class Tickers {
    /// A ticker as the contract's JSON, and when it was received.
    package struct Cached: Sendable {
        package let json: String
        package let receivedMs: Int64
    }

    private typealias Found = (ticker: Cached, source: Outcome.Source)
    private let session: ExchangeSession
    private let redis: RedisClient
    private let keys: Keys
    /// In seconds, in both tiers.
    private let ttl: Int
    private let nowMs: @Sendable () -> Int64
    private var memory = Cache<String, Cached>(capacity: 1000)
    private let requests = SingleFlight<String, Found>()

    package init(session: ExchangeSession, redis: RedisClient, ttl: Int, nowMs: @escaping @Sendable () -> Int64) {
        (self.session, self.redis, self.ttl, self.nowMs) = (session, redis, ttl, nowMs)
        keys = Keys(session.api.exchange)
    }

    /// What L1 has, if it is at most `maxAgeMs` old. 0 never matches: it asks for the exchange's own answer.
    package func cached(_ symbol: String, maxAgeMs: Int64) -> Cached? {
        let now = nowMs()
        guard maxAgeMs > 0, let found = memory.get(symbol, at: now), now - found.receivedMs <= maxAgeMs else {
            return nil
        }
        return found
    }

    /// The ticker from the first tier that has it young enough. Jobs that ask for one symbol at once share one request.
    package func fetch(_ symbol: String, maxAgeMs: Int64, for job: Job) async throws -> (
        ticker: Cached, source: Outcome.Source
    ) {
        guard maxAgeMs > 0 else { return (try await ask(symbol, for: job), .exchange) }
        let askedMs = nowMs()
        while true {
            if let found = cached(symbol, maxAgeMs: maxAgeMs) { return (found, .l1) }
            do {
                let found = try await requests.join(symbol) { [self] in
                    try await lookUp(symbol, maxAgeMs: maxAgeMs, for: job)
                }
                // One from L2 for a job with more patience is no answer to this job; a new one always is.
                let receivedMs = found.ticker.receivedMs
                if receivedMs >= askedMs || nowMs() - receivedMs <= maxAgeMs { return found }
            } catch is JobExpired where job.deadlineMs.map({ nowMs() < $0 }) ?? true {
                // Another job's deadline, not this one's.
            }
        }
    }

    private func lookUp(_ symbol: String, maxAgeMs: Int64, for job: Job) async throws -> Found {
        let replies = await redis.pipeline([
            ["GET", .text(keys.cache(symbol))], ["ZADD", .text(keys.asked), .int(Int(nowMs())), .text(symbol)],
        ])
        struct Stamp: Decodable { let receivedMs: Int64 }
        let decoder = JSONDecoder()
        decoder.keyDecodingStrategy = .convertFromSnakeCase
        if let json = replies[0].text, let stamp = try? decoder.decode(Stamp.self, from: Data(json.utf8)),
            nowMs() - stamp.receivedMs <= maxAgeMs
        {
            let found = Cached(json: json, receivedMs: stamp.receivedMs)
            remember(symbol, found)
            return (found, .l2)
        }
        return (try await ask(symbol, for: job), .exchange)
    }

    private func ask(_ symbol: String, for job: Job) async throws -> Cached {
        let instrument = try await session.instrument(symbol)
        guard case .tickers(let tickers) = try await session.perform(.tickers([instrument]), for: job),
            let found = await store(tickers).first
        else { throw ExchangeError(.unknown, code: "malformed_answer", "the answer has no ticker of \(symbol)") }
        return found
    }

    /// Fetches the symbols in one request and stores them in both tiers; none: all that were asked for in the last ten
    /// minutes. - Returns: the count, and for each symbol without a ticker the reason.
    package func refresh(_ symbols: [String], for job: Job) async throws -> (refreshed: Int, failed: [String: String]) {
        var symbols = symbols
        if symbols.isEmpty {
            let asked = RedisArgument.text(keys.asked)
            let replies = await redis.pipeline([
                ["ZREMRANGEBYSCORE", asked, "-inf", .int(Int(nowMs()) - 600_000)], ["ZRANGE", asked, 0, 499],
            ])
            symbols = try replies[1].get().array?.compactMap(\.text) ?? []
        }
        var failed: [String: String] = [:]
        var instruments: [Instrument] = []
        for symbol in Set(symbols).sorted() {
            do { instruments.append(try await session.instrument(symbol)) } catch let error as Refusal {
                failed[symbol] = error.message
            }
        }
        guard !instruments.isEmpty,
            case .tickers(let tickers) = try await session.perform(.tickers(instruments), for: job)
        else { return (0, failed) }
        for symbol in Set(instruments.map(\.symbol)).subtracting(tickers.map(\.symbol)) {
            failed[symbol] = "the exchange gave no ticker"
        }
        return (await store(tickers).count, failed)
    }

    /// Writes both tiers. An answer that cannot be written to Redis still serves this worker.
    private func store(_ tickers: [Ticker]) async -> [Cached] {
        let stored = tickers.map { Cached(json: json($0), receivedMs: $0.receivedMs) }
        for (ticker, cached) in zip(tickers, stored) { remember(ticker.symbol, cached) }
        _ = await redis.pipeline(
            zip(tickers, stored).map { ["SET", .text(keys.cache($0.symbol)), .text($1.json), "EX", .int(ttl)] })
        return stored
    }

    private func remember(_ symbol: String, _ cached: Cached) {
        if let known = memory.get(symbol, at: nowMs()), known.receivedMs > cached.receivedMs { return }
        memory.set(symbol, cached, expiresMs: cached.receivedMs + Int64(ttl) * 1000)
    }
}
