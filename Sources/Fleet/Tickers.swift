package import Exchanges
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

    package enum Source: String, Sendable, CaseIterable { case l1, l2, exchange }

    private let session: ExchangeSession
    private let redis: RedisClient
    private let keys: Keys
    private let ttl: Int
    private let nowMs: @Sendable () -> Int64
    private var memory = Cache<String, Cached>(capacity: 1000)
    /// Those who wait for a request that another job sends.
    private var waiters: [String: [CheckedContinuation<Result<(Cached, Source), any Error>, Never>]] = [:]

    package init(
        session: ExchangeSession, redis: RedisClient, ttl: Int, nowMs: @escaping @Sendable () -> Int64
    ) {
        self.session = session
        self.redis = redis
        self.ttl = ttl
        self.nowMs = nowMs
        keys = Keys(session.api.exchange)
    }

    /// What L1 has, if it is at most `maxAgeMs` old. 0 never matches: it asks for the exchange's own answer.
    package func cached(_ symbol: String, maxAgeMs: Int64) -> Cached? {
        let now = nowMs()
        guard maxAgeMs > 0, let found = memory.get(symbol, at: now), now - found.receivedMs <= maxAgeMs else { return nil }
        return found
    }

    /// The ticker from the first tier that has it young enough. Jobs that ask for one symbol at once share one request.
    package func fetch(_ symbol: String, maxAgeMs: Int64, for job: Job) async throws -> (Cached, Source) {
        guard maxAgeMs > 0 else { return (try await ask(symbol, for: job), .exchange) }
        if let found = cached(symbol, maxAgeMs: maxAgeMs) { return (found, .l1) }
        if waiters[symbol] != nil {
            let (found, source) = try await withCheckedContinuation { waiters[symbol]?.append($0) }.get()
            if nowMs() - found.receivedMs <= maxAgeMs { return (found, source) }
            return try await fetch(symbol, maxAgeMs: maxAgeMs, for: job)
        }
        waiters[symbol] = []
        let result: Result<(Cached, Source), any Error>
        do {
            result = .success(try await lookUp(symbol, maxAgeMs: maxAgeMs, for: job))
        } catch {
            result = .failure(error)
        }
        for waiter in waiters.removeValue(forKey: symbol) ?? [] { waiter.resume(returning: result) }
        return try result.get()
    }

    private func lookUp(_ symbol: String, maxAgeMs: Int64, for job: Job) async throws -> (Cached, Source) {
        let replies = await redis.pipeline([
            ["GET", .text(keys.cache(symbol))], ["ZADD", .text(keys.asked), .int(Int(nowMs())), .text(symbol)],
        ])
        if let json = replies.first?.text, let receivedMs = Self.receivedMs(json), nowMs() - receivedMs <= maxAgeMs {
            let found = Cached(json: json, receivedMs: receivedMs)
            remember(symbol, found)
            return (found, .l2)
        }
        return (try await ask(symbol, for: job), .exchange)
    }

    private func ask(_ symbol: String, for job: Job) async throws -> Cached {
        let instrument = try await session.knownInstrument(symbol, for: job)
        guard case .tickers(let tickers) = try await session.perform(.tickers([instrument]), for: job),
            let ticker = tickers.first
        else { throw ExchangeError(.unknown, code: "malformed_answer", "no ticker of \(symbol) in the answer") }
        return await store([ticker])[0]
    }

    /// Fetches the symbols in one request and stores them in both tiers; none: all that were asked for in the last ten
    /// minutes. - Returns: the count, and for each symbol without a ticker the reason.
    package func refresh(_ symbols: [String], for job: Job) async throws -> (refreshed: Int, failed: [String: String]) {
        var symbols = symbols
        if symbols.isEmpty {
            let since = Int(nowMs() - 600_000)
            let replies = await redis.pipeline([
                ["ZREMRANGEBYSCORE", .text(keys.asked), "-inf", .text("(\(since)")],
                ["ZRANGE", .text(keys.asked), 0, 499],
            ])
            symbols = try replies[1].get().array?.compactMap(\.text) ?? []
        }
        var failed: [String: String] = [:]
        var instruments: [Instrument] = []
        for symbol in Set(symbols).sorted() {
            do {
                instruments.append(try await session.knownInstrument(symbol, for: job))
            } catch let error as Refusal {
                failed[symbol] = error.message
            }
        }
        guard !instruments.isEmpty else { return (0, failed) }
        guard case .tickers(let tickers) = try await session.perform(.tickers(instruments), for: job) else { return (0, failed) }
        let named = Set(tickers.map(\.symbol))
        for instrument in instruments where !named.contains(instrument.symbol) {
            failed[instrument.symbol] = "the exchange gave no ticker"
        }
        return (await store(tickers).count, failed)
    }

    /// Writes both tiers. An answer that cannot be written to Redis still serves this worker.
    private func store(_ tickers: [Ticker]) async -> [Cached] {
        let stored = tickers.map { ticker in
            let cached = Cached(json: json(ticker), receivedMs: ticker.receivedMs)
            remember(ticker.symbol, cached)
            return cached
        }
        let commands = zip(tickers, stored).map { ticker, cached -> RedisCommand in
            ["SET", .text(keys.cache(ticker.symbol)), .text(cached.json), "EX", .int(ttl)]
        }
        _ = await redis.pipeline(commands)
        return stored
    }

    private func remember(_ symbol: String, _ cached: Cached) {
        if let known = memory.get(symbol, at: nowMs()), known.receivedMs > cached.receivedMs { return }
        memory.set(symbol, cached, expiresMs: cached.receivedMs + Int64(ttl) * 1000)
    }

    private static func receivedMs(_ json: String) -> Int64? {
        struct Stamp: Decodable { let received_ms: Int64 }
        return try? JSONDecoder().decode(Stamp.self, from: Data(json.utf8)).received_ms
    }
}

/// A job that is refused before anything is sent.
package struct Refusal: Error {
    package let code: String
    package let message: String

    package init(code: String, message: String) {
        self.code = code
        self.message = message
    }
}

extension ExchangeSession {
    /// - Throws: `Refusal` when the exchange has no such market.
    package func knownInstrument(_ symbol: String, for job: Job) async throws -> Instrument {
        if let instrument = try await instrument(symbol, for: job) { return instrument }
        throw Refusal(
            code: "unknown_symbol", message: "symbol: '\(symbol)'; expected a market of \(api.exchange.rawValue)")
    }
}
