internal import Exchanges
internal import Foundation
package import Redis

/// Answers those who ask for tickers of one exchange: from the cache, else with as few requests as will do.
@LaneActor
package final class Tickers {
    package typealias Found = (ticker: TickerCache.Entry, source: Outcome.Source)
    private struct Waiter {
        let continuation: CheckedContinuation<Found, any Error>
        let maxAgeMs: Int64
        let deadlineMs: Int64?
    }
    /// A market that jobs wait for and no request has taken up yet.
    private struct Wanted {
        let symbol: String
        var instrument: Instrument?
        var waiters: [Waiter]
    }

    let session: ExchangeSession
    let cache: TickerCache
    /// Whose claims are this worker's.
    private let owner: String
    private let redis: RedisClient
    private let keys: Keys
    private let nowMs: @Sendable () -> Int64
    /// In the order of the first ask.
    private var wanted: [Wanted] = []
    /// The markets that a request is under way for, and who joined it since.
    private var underWay: [String: [Waiter]] = [:]
    private let queued = AsyncStream.makeStream(of: Void.self, bufferingPolicy: .bufferingNewest(1))
    private var isStopped = false
    /// What this worker has claimed to fetch for all.
    private var held: Set<String> = []
    package init(
        session: ExchangeSession, cache: TickerCache, owner: String, redis: RedisClient,
        nowMs: @escaping @Sendable () -> Int64
    ) {
        (self.session, self.cache, self.owner, self.redis, self.nowMs) = (session, cache, owner, redis, nowMs)
        keys = Keys(session.api.exchange)
    }

    /// The ticker from the first tier that has it young enough. What jobs ask for while no request can be made goes out
    /// together, one request for many symbols and for all who ask for one.
    package func fetch(_ symbol: String, maxAgeMs: Int64, for job: Job) async throws -> Found {
        if let found = cache.get(symbol, maxAgeMs: maxAgeMs) { return (found, .l1) }
        return try await withCheckedThrowingContinuation { (continuation: CheckedContinuation<Found, any Error>) in
            if isStopped { return continuation.resume(throwing: CancellationError()) }
            let waiter = Waiter(continuation: continuation, maxAgeMs: maxAgeMs, deadlineMs: job.deadlineMs)
            // Its answer is received after this: young enough for all but who wants a request of his own.
            if maxAgeMs > 0, underWay[symbol]?.append(waiter) != nil { return }
            want(Wanted(symbol: symbol, waiters: [waiter]))
        }
    }

    private func want(_ one: Wanted) {
        if let index = wanted.firstIndex(where: { $0.symbol == one.symbol }) {
            wanted[index].waiters += one.waiters
            wanted[index].instrument = one.instrument ?? wanted[index].instrument
        } else {
            wanted.append(one)
        }
        queued.continuation.yield()
    }

    /// Serves those who ask, until cancelled. One request at a time waits for its admission; many are under way.
    package func run() async {
        await withDiscardingTaskGroup { requests in
            for await _ in queued.stream {
                while !wanted.isEmpty, !Task.isCancelled {
                    var claimed: [Wanted] = []
                    do {
                        // Redis first: it needs no admission, and serves while the exchange is away.
                        await answerFromRedis()
                        nameMarkets(&requests)
                        let others: [Wanted]
                        (claimed, others) = await claim()
                        if !others.isEmpty { requests.addTask { await self.lookAgain(for: others) } }
                        if claimed.isEmpty { continue }
                        let start = ContinuousClock.now
                        let permit = try await session.admitTickers()
                        wanted = inTime(wanted)
                        // Another worker may have fetched it meanwhile.
                        if .now - start > .milliseconds(20) { await answerFromRedis() }
                        let batch = take(claimed)
                        for one in batch { underWay[one.symbol, default: []] += [] }
                        requests.addTask { [claimed] in
                            await self.request(batch, permit)
                            await self.release(claimed)
                        }
                    } catch {
                        let left = wanted
                        wanted = []
                        end(left, with: .failure(error))
                        await release(claimed)
                    }
                }
            }
            isStopped = true
            end(wanted, with: .failure(CancellationError()))
            wanted = []
        }
    }

    /// What the next request is to bring: what is wanted, but for what another worker fetches just now, and as far as it
    /// costs nothing what jobs have asked for lately, oldest first, so that all of it ages together.
    /// - Returns: that, and what was left to others and is wanted no more.
    private func claim() async -> (mine: [Wanted], others: [Wanted]) {
        let size = session.api.tickersAtOnce
        // Whose time is over while others wait in `underWay`.
        wanted.removeAll { $0.waiters.isEmpty }
        var next = Array(wanted.prefix(size).prefix { $0.instrument != nil })
        // Who wants the exchange's own answer, or nearly so, shares with nobody.
        let own = next.filter { $0.waiters.contains { $0.maxAgeMs < 100 } }
        if own.count == next.count { return (next, []) }
        next.removeAll { $0.waiters.contains { $0.maxAgeMs < 100 } }
        // A few wait for a request that is under way, so that all who ask meanwhile go together in the next.
        let isFew = own.isEmpty && next.count < size
        let busy = Set(wanted.map(\.symbol)).union(underWay.keys)
        let lately = cache.askedLately().filter { !busy.contains($0) }
        // More than fit, as some will be others'.
        next += lately.prefix(10 * (size - own.count - next.count)).map {
            Wanted(symbol: $0, instrument: session.markets.known($0), waiters: [])
        }
        next.removeAll { $0.instrument == nil }
        let claims = claiming(next.map(\.symbol), ms: 2000, most: size - own.count, isFew: isFew)
        let granted = await redis.pipeline([claims])[0].array
        let shared = next.indices.filter { granted?[$0].int != 0 }.prefix(size - own.count).map { next[$0] }
        let mine = own + shared
        held.formUnion(shared.map(\.symbol))
        let left = Set(next.map(\.symbol)).subtracting(mine.map(\.symbol))
        let others = wanted.filter { left.contains($0.symbol) }
        wanted.removeAll { left.contains($0.symbol) }
        if mine.contains(where: { !$0.waiters.isEmpty }) { return (mine, others) }
        await release(mine)
        return ([], others)
    }

    /// Takes what was claimed, with who waits for it now, from what is wanted; nothing when nobody does.
    private func take(_ claimed: [Wanted]) -> [Wanted] {
        let waiters = Dictionary(wanted.map { ($0.symbol, $0.waiters) }, uniquingKeysWith: +)
        let batch = claimed.map {
            Wanted(symbol: $0.symbol, instrument: $0.instrument, waiters: waiters[$0.symbol] ?? [])
        }
        let symbols = Set(claimed.map(\.symbol))
        wanted.removeAll { symbols.contains($0.symbol) }
        return batch.contains { !$0.waiters.isEmpty } ? batch : []
    }

    /// Lets those who are left to others know what is wanted here too, and asks again in a moment.
    private func lookAgain(for others: [Wanted]) async {
        for one in others { cache.noteAsked(one.symbol) }
        await cache.shareAsked()
        try? await LaneActor.sleep(for: .milliseconds(20))
        wantAgain(others)
    }

    private func wantAgain(_ all: [Wanted]) {
        for one in inTime(all) {
            if isStopped { end([one], with: .failure(CancellationError())) } else { want(one) }
        }
    }

    /// Gives claims up, in a moment: who has just looked into Redis in vain would fetch again.
    private func release(_ claimed: [Wanted]) async {
        let symbols = claimed.map(\.symbol).filter { held.remove($0) != nil }
        guard !symbols.isEmpty else { return }
        _ = await redis.pipeline([
            claiming(symbols, ms: 100, most: symbols.count), ["DEL", .text(keys.fetching)],
        ])
    }

    private func claiming(_ symbols: [String], ms: Int, most: Int, isFew: Bool = false) -> RedisCommand {
        let limits: [RedisArgument] = [.text(owner), .int(ms), .int(most)] + (isFew ? [100] : [])
        let claims = symbols.map(keys.fetch) + (isFew ? [keys.fetching] : [])
        return FunctionLibrary.command("fleet_fetch_claim", claims, limits)
    }

    /// Answers those of the next request who can be answered from L2.
    private func answerFromRedis() async {
        let symbols = wanted.prefix(session.api.tickersAtOnce)
            .filter { $0.waiters.contains { $0.maxAgeMs > 0 } }.map(\.symbol)
        guard !symbols.isEmpty else { return }
        for (symbol, found) in await cache.read(symbols) {
            guard let index = wanted.firstIndex(where: { $0.symbol == symbol }) else { continue }
            let age = nowMs() - found.receivedMs
            for waiter in wanted[index].waiters where age <= waiter.maxAgeMs && waiter.maxAgeMs > 0 {
                waiter.continuation.resume(returning: (found, .l2))
                cache.noteAsked(symbol)
            }
            wanted[index].waiters.removeAll { age <= $0.maxAgeMs && $0.maxAgeMs > 0 }
        }
        wanted.removeAll { $0.waiters.isEmpty }
    }

    /// Names the markets of those who are next. Who needs the list for that waits for it beside the others; who wants a
    /// market that the exchange has not is refused.
    private func nameMarkets(_ requests: inout DiscardingTaskGroup) {
        for index in wanted.indices.prefix(session.api.tickersAtOnce) where wanted[index].instrument == nil {
            wanted[index].instrument = session.markets.current(wanted[index].symbol)
        }
        let unnamed = wanted.prefix(session.api.tickersAtOnce).filter { $0.instrument == nil }
        let symbols = Set(unnamed.map(\.symbol))
        wanted.removeAll { symbols.contains($0.symbol) }
        if !unnamed.isEmpty { requests.addTask { await self.name(unnamed) } }
    }

    private func name(_ unnamed: [Wanted]) async {
        var failure: (any Error)?
        for var one in unnamed {
            do {
                // The list is not asked for again for each of them.
                if let failure, session.markets.known(one.symbol) == nil { throw failure }
                one.instrument = try await session.markets.find(one.symbol, toTrade: false)
                wantAgain([one])
            } catch {
                if !(error is Refusal) { failure = error }
                end([one], with: .failure(error))
            }
        }
    }

    /// Those who still have time; the others are told that theirs is over.
    private func inTime(_ all: some Sequence<Wanted>) -> [Wanted] {
        let now = nowMs()
        let isLate = { (waiter: Waiter) in waiter.deadlineMs.map { $0 <= now } ?? false }
        return all.compactMap { one in
            for waiter in one.waiters where isLate(waiter) { waiter.continuation.resume(throwing: JobExpired()) }
            var one = one
            one.waiters.removeAll(where: isLate)
            return one.waiters.isEmpty && underWay[one.symbol]?.isEmpty ?? true ? nil : one
        }
    }

    private func request(_ batch: [Wanted], _ permit: Breaker.Permit) async {
        do {
            await answer(batch, with: try await session.tickers(batch.compactMap(\.instrument), permit))
        } catch let error as ExchangeError where error.verdict == .permanent && batch.count > 1 {
            // One of them the exchange does not know any more: it must not cost the others their answer.
            await requestApart([batch.prefix(batch.count / 2), batch.dropFirst(batch.count / 2)])
        } catch {
            if (error as? ExchangeError)?.code == "unknown_symbol", let one = batch.first {
                session.markets.forget(one.symbol)
            }
            finish(batch, with: .failure(error))
        }
    }

    private func requestApart(_ parts: [ArraySlice<Wanted>]) async {
        for part in parts {
            do {
                let permit = try await session.admitTickers()
                let left = inTime(part)
                for symbol in Set(part.map(\.symbol)).subtracting(left.map(\.symbol)) { underWay[symbol] = nil }
                await request(left, permit)
            } catch { finish(part, with: .failure(error)) }
        }
    }

    private func answer(_ batch: [Wanted], with tickers: [Ticker]) async {
        let found = Dictionary(tickers.map { ($0.symbol, cache.keep($0)) }, uniquingKeysWith: { $1 })
        let missing = batch.filter { found[$0.symbol] == nil }
        // Bybit leaves out what it does not know any more, and says so when that is asked for alone.
        let areFew = batch.count > 1 && missing.count <= 5
        for one in batch {
            let symbol = one.symbol
            if let ticker = found[symbol] {
                if !one.waiters.isEmpty { cache.noteAsked(symbol) }
                finish([one], with: .success((ticker, .exchange)))
            } else if !areFew {
                let text = "the answer has no ticker of \(symbol)"
                finish([one], with: .failure(ExchangeError(.unknown, code: "malformed_answer", text)))
            }
        }
        await cache.share(found)
        if areFew { await requestApart(missing.map { [$0] }) }
    }

    private func end(_ all: some Sequence<Wanted>, with result: Result<Found, any Error>) {
        for waiter in all.flatMap(\.waiters) { waiter.continuation.resume(with: result) }
    }

    /// Ends those whose request is over, and who joined it.
    private func finish(_ batch: some Sequence<Wanted>, with result: Result<Found, any Error>) {
        for one in batch {
            for waiter in one.waiters + (underWay.removeValue(forKey: one.symbol) ?? []) {
                waiter.continuation.resume(with: result)
            }
        }
    }
}
