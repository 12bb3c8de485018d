internal import Exchanges
internal import Foundation
internal import Logging
internal import Redis

/// The markets of one exchange. One worker of the fleet loads the list, and the others take it from Redis.
@LaneActor
final class Markets {
    private let exchange: Exchange
    private let redis: RedisClient
    private let key: String
    private let log: Logger
    private let nowMs: @Sendable () -> Int64
    private let fetch: @LaneActor () async throws -> [Instrument]
    private var markets: [String: Instrument] = [:]
    private var loadedMs: Int64 = 0
    /// Until when the list serves however old it is, as it could not be renewed.
    private var renewAt = ContinuousClock.now
    private let loads = SharedLoad()

    /// `fetch` asks the exchange.
    init(
        api: any ExchangeAPI, redis: RedisClient, keys: Keys, log: Logger, nowMs: @escaping @Sendable () -> Int64,
        fetch: @escaping @LaneActor () async throws -> [Instrument]
    ) {
        (exchange, self.redis, self.log, self.nowMs, self.fetch) = (api.exchange, redis, log, nowMs, fetch)
        key = keys.markets(api.baseURL)
    }

    /// The market of a unified symbol. The list is loaded at first use and again when it is an hour old or the
    /// symbol is missing, or closed where that matters, at most once a minute; while it cannot be had, an older one
    /// serves. - Throws: `Refusal` when the exchange has no such market; what `fetch` throws.
    func find(_ symbol: String, toTrade: Bool = true) async throws -> Instrument {
        do { try await load(for: symbol, toTrade) } catch {
            guard markets[symbol] != nil else { throw error }
            renewAt = .now + .seconds(10)
            log.warning("market list not renewed", metadata: ["error": "\(error)"])
        }
        if let market = markets[symbol] { return market }
        throw Refusal(code: "unknown_symbol", "symbol: '\(symbol)'; expected a market of \(exchange.rawValue)")
    }

    /// The market, if the list is there and has it.
    func known(_ symbol: String) -> Instrument? { markets[symbol] }

    /// The market, if the list need not be loaded for it.
    func current(_ symbol: String) -> Instrument? { isLoaded(for: symbol, false) ? markets[symbol] : nil }

    /// Forgets a market that the exchange knows no more, until the list is loaded again.
    func forget(_ symbol: String) { markets[symbol] = nil }

    private func isLoaded(for symbol: String, _ toTrade: Bool) -> Bool {
        let isThere = markets[symbol].map { $0.isTrading || !toTrade } ?? false
        let age = nowMs() - loadedMs
        // A clock may have been set back, here or where the list was loaded.
        return isThere && .now < renewAt || 0...3_600_000 ~= age && (isThere || age <= 60_000)
    }

    /// Loads the list when it has to be. Who waits for another's loading shares its success and its failure.
    private func load(for symbol: String, _ toTrade: Bool) async throws {
        if isLoaded(for: symbol, toTrade) { return }
        try await loads.run(unless: { isLoaded(for: symbol, toTrade) }) {
            let claim = RedisArgument.text(key + ":claim")
            // It ends by itself in five seconds; who does not get it by then asks the exchange all the same.
            for _ in 0..<60 {
                await takeShared()
                if isLoaded(for: symbol, toTrade) { return }
                if await redis.pipeline([["SET", claim, "1", "NX", "PX", 5000]])[0] != .null { break }
                try await LaneActor.sleep(for: .milliseconds(100))
            }
            do { take(try await fetch(), nowMs()) } catch {
                _ = await redis.pipeline([["DEL", claim]])
                throw error
            }
            let list = try await LaneActor.apart { [markets] in
                String(decoding: try JSONEncoder().encode(Array(markets.values)), as: UTF8.self)
            }
            _ = await redis.pipeline([
                ["SET", .text(key), .text("\(loadedMs) \(list)"), "EX", 86_400], ["DEL", claim],
            ])
        }
    }

    /// Takes up what another worker has loaded, if it is newer: `<loaded, unix ms> <JSON>`.
    private func takeShared() async {
        let parts = await redis.pipeline([["GET", .text(key)]])[0].text?.split(separator: " ", maxSplits: 1)
        guard let parts, parts.count == 2, let sharedMs = Int64(parts[0]), sharedMs > loadedMs, sharedMs <= nowMs(),
            let list = try? await LaneActor.apart({
                try JSONDecoder().decode([Instrument].self, from: Data(parts[1].utf8))
            })
        else { return }
        take(list, sharedMs)
    }

    private func take(_ list: [Instrument], _ loadedMs: Int64) {
        markets = Dictionary(list.map { ($0.symbol, $0) }, uniquingKeysWith: { first, _ in first })
        self.loadedMs = loadedMs
    }
}
