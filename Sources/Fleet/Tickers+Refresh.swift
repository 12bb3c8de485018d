internal import Exchanges

extension Tickers {
    /// Fetches the symbols in few requests and stores them in both tiers; none: all that were asked for in the last ten
    /// minutes. - Returns: the count, and for each symbol without a ticker the reason.
    package func refresh(_ symbols: [String], for job: Job) async throws -> (refreshed: Int, failed: [String: String]) {
        var failed: [String: String] = [:]
        var instruments: [Instrument] = []
        for symbol in Set(symbols.isEmpty ? try await cache.allAsked() : symbols).sorted() {
            do { instruments.append(try await session.markets.find(symbol, toTrade: false)) } catch let error as Refusal
            {
                failed[symbol] = error.message
            }
        }
        var count = 0
        let size = session.api.tickersAtOnce
        var batches = stride(from: 0, to: instruments.count, by: size).map { instruments[$0...].prefix(size) }
        while let batch = batches.popLast() {
            do {
                guard case .tickers(let tickers) = try await session.perform(.tickers(Array(batch)), for: job) else {
                    continue
                }
                let found = Dictionary(tickers.map { ($0.symbol, cache.keep($0)) }, uniquingKeysWith: { $1 })
                for symbol in batch.map(\.symbol) where found[symbol] == nil {
                    failed[symbol] = "the exchange gave no ticker"
                }
                count += found.count
                await cache.share(found)
            } catch let error as ExchangeError where error.verdict == .permanent && batch.count > 1 {
                batches += [batch.prefix(batch.count / 2), batch.dropFirst(batch.count / 2)]
            } catch let error as ExchangeError where error.verdict == .permanent {
                failed[batch.first?.symbol ?? ""] = error.message
            }
        }
        return (count, failed)
    }
}
