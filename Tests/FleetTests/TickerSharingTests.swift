import Exchanges
import Foundation
import Redis
import TestSupport
import Testing

@testable import Fleet

@Suite("Tickers that share requests, and slots that are kept", .serialized, .timeLimit(.minutes(1)))
struct TickerSharingTests {
    @Test("who asks while a request for the market is under way shares its answer")
    func singleFlight() async throws {
        let stack = try await Stack()
        let worker = try await stack.worker(["FLEET_EXCHANGES": "binance"])
        _ = try await stack.run(.binance, .fetchTicker, ["symbol": "ETH/USDT"])
        try await stack.control(#"{"latency_ms":3000}"#)
        let before = try await stack.requests(.binance, "ticker/24hr")
        for index in 0..<20 {
            try await stack.push(
                .binance, .fetchTicker, ["id": "s-\(index)", "symbol": "BTC/USDT", "max_age_ms": "30000"])
            try await eventually("it is in hand") { try await stack.backlog(.binance).pending == index + 1 }
        }
        for index in 0..<20 { #expect(try await stack.result(.binance, "s-\(index)")["status"].text == "ok") }
        #expect(try await stack.requests(.binance, "ticker/24hr") - before == 1)
        withExtendedLifetime(worker) {}
    }

    @Test("a worker of few slots keeps one for cancels")
    func keptSlot() async throws {
        let stack = try await Stack()
        let worker = try await stack.worker(["FLEET_EXCHANGES": "binance", "FLEET_CONCURRENCY": "4"])
        _ = try await stack.run(.binance, .submitOrder, Stack.resting("o"))
        try await stack.control(#"{"latency_ms":2000}"#)
        for index in 0..<8 {
            try await stack.push(
                .binance, .fetchTicker, ["id": "t-\(index)", "symbol": "BTC/USDT", "max_age_ms": "0"])
        }
        try await eventually("tickers are in hand") { try await stack.backlog(.binance).pending >= 2 }
        let cancel = try await stack.run(.binance, .cancelOrder, ["id": "c", "symbol": "BTC/USDT", "order_id": "o"])
        let ticker = try await stack.result(.binance, "t-0")
        #expect(cancel["status"].text == "ok", "\(cancel)")
        #expect((cancel["started_ms"].int ?? .max) < (ticker["finished_ms"].int ?? 0), "\(cancel) \(ticker)")
        withExtendedLifetime(worker) {}
    }

    /// A Kraken of eight pairs, one of which it knows no more.
    private func delisting() -> FakeHTTPServer {
        FakeHTTPServer { request in
            if request.target.contains("AssetPairs") {
                let pairs = (0..<8).map { number in
                    #""P\#(number)":{"wsname":"P\#(number)/USD","lot_decimals":8,"tick_size":"0.1","status":"online"}"#
                }
                return .text(#"{"error":[],"result":{\#(pairs.joined(separator: ","))}}"#)
            }
            let names = request.target.matches(of: /P\d/).map { String($0.0) }
            if names.contains("P0") { return .text(#"{"error":["EQuery:Unknown asset pair"]}"#) }
            let rows = names.map { #""\#($0)":{"c":["1.5","1"]}"# }
            return .text(#"{"error":[],"result":{\#(rows.joined(separator: ","))}}"#)
        }
    }

    @Test("a market that is gone costs the others few requests, and a refresh only itself")
    func delisted() async throws {
        let (stack, fake) = (try await Stack(), delisting())
        let symbols = (0..<8).map { "P\($0)/USD" }
        for symbol in symbols {
            try await stack.push(.kraken, .fetchTicker, ["id": String(symbol.prefix(2)), "symbol": symbol])
        }
        let worker = try await stack.worker(["FLEET_EXCHANGES": "kraken", "KRAKEN_URL": fake.url])
        for symbol in symbols {
            let result = try await stack.result(.kraken, String(symbol.prefix(2)))
            #expect(result["status"].text == (symbol == "P0/USD" ? "rejected" : "ok"), "\(result)")
        }
        // One for all, then halves of halves: beside the gone one 4, 2 and 1 of them.
        #expect(fake.requests.count { $0.target.contains("Ticker") } <= 7)
        let again = try await stack.run(.kraken, .fetchTicker, ["symbol": "P0/USD"])
        #expect(again["error"]["code"].text == "unknown_symbol", "\(again)")
        let other = try await stack.worker(["FLEET_EXCHANGES": "kraken", "KRAKEN_URL": fake.url])
        worker.program.signal(SIGKILL)
        let refresh = try await stack.run(
            .kraken, .refreshCache, ["symbols": symbols.joined(separator: ",")])
        #expect(refresh["data"]["refreshed"].int == 7, "\(refresh)")
        #expect(refresh["data"]["failed"].members.keys.map { $0 } == ["P0/USD"], "\(refresh)")
        withExtendedLifetime(other) {}
    }
}
