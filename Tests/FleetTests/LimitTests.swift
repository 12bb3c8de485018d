import Exchanges
import Foundation
import Redis
import TestSupport
import Testing

@testable import Fleet

@Suite("Limits of the exchanges, kept by the fleet", .serialized, .timeLimit(.minutes(6)))
struct LimitTests {
    private static let symbols: [Exchange: [String]] = [
        .binance: ["BTC/USDT", "ETH/USDT"], .bybit: ["BTC/USDT", "ETH/USDT"], .kraken: ["BTC/USD", "ETH/USD"],
    ]

    /// Requests a second that the exchanges allow: weight 6000 a minute at 2 each; 600 in 5 s; one a second.
    private static let allowed: [Exchange: Double] = [.binance: 50, .bybit: 120, .kraken: 1]

    @Test("six workers at full speed for a minute: nothing over a limit, no ban, and nine tenths of the budget used")
    func budgetsUsed() async throws {
        let stack = try await Stack(limits: "on")
        var workers: [Stack.Worker] = []
        for _ in 0..<6 {
            workers.append(try await stack.worker(["FLEET_LIMITS": "on", "FLEET_CONCURRENCY": "8"]))
        }
        let feeding = Task {
            while !Task.isCancelled {
                for exchange in Exchange.allCases where try await stack.backlog(exchange).entries < 500 {
                    let jobs = (0..<500).map { index in
                        let symbol = Self.symbols[exchange]?[index % 2] ?? ""
                        return Stack.append(
                            exchange, .fetchTicker,
                            ["symbol": symbol, "max_age_ms": "0", "result_ttl_s": "5"].map { ($0, Array($1.utf8)) })
                    }
                    _ = await stack.pipeline(jobs)
                }
                try await Task.sleep(for: .milliseconds(50))
            }
        }
        defer { feeding.cancel() }
        let requests = {
            var counts: [Exchange: Int] = [:]
            for exchange in Exchange.allCases {
                counts[exchange] = try await stack.requests(exchange, Stack.tickerEndpoint[exchange] ?? "")
            }
            return counts
        }
        // The first requests spend what the buckets hold.
        try await eventually("the exchanges are under load") { try await requests().values.allSatisfy { $0 >= 9 } }
        let (before, start) = (try await requests(), ContinuousClock.now)
        let end = start + .seconds(60)
        try await eventually("a minute is over", within: .seconds(90)) { ContinuousClock.now >= end }
        let (after, seconds) = (try await requests(), (ContinuousClock.now - start) / .seconds(1))
        for (exchange, allowed) in Self.allowed {
            let part = Double((after[exchange] ?? 0) - (before[exchange] ?? 0)) / seconds / allowed
            print("\(exchange): \(Int(part * 1000) / 10) % of the budget used by 6 workers in a minute")
            #expect(part >= 0.9, "\(exchange)")
            let counted = try await stack.statistics(exchange)
            for name in ["refused_for_limits", "over_limit", "bans"] {
                #expect(counted[name].int == 0, "\(exchange) \(name)")
            }
        }
        withExtendedLifetime(workers) {}
    }

    @Test("a ban told to one worker stops all, for as long as the exchange said", arguments: Exchange.allCases)
    func banGate(_ exchange: Exchange) async throws {
        let stack = try await Stack()
        let only = ["FLEET_EXCHANGES": exchange.rawValue, "FLEET_LIMITS": "on"]
        let workers = [try await stack.worker(only), try await stack.worker(only)]
        let (symbol, endpoint) = (Self.symbols[exchange]?[0] ?? "", Stack.tickerEndpoint[exchange] ?? "")
        let job = ["symbol": symbol, "max_age_ms": "0"]
        for _ in 0..<4 { _ = try await stack.run(exchange, .fetchTicker, job) }
        try await stack.control(#"{"exchange":"\#(exchange.rawValue)","rate_limit_rate":1,"retry_after_s":8}"#)
        let before = try await stack.requests(exchange, endpoint)
        let first = try await stack.push(exchange, .fetchTicker, job)
        let gate = RedisArgument.text(Keys(exchange).gate("default"))
        try await eventually("the gate is closed") { try await stack.command(["PTTL", gate]).int ?? 0 > 0 }
        try await stack.endFaults()
        // Both workers have jobs to do, and neither calls.
        var entries = [first]
        for _ in 0..<20 { entries.append(try await stack.push(exchange, .fetchTicker, job)) }
        try await eventually("the gate is open again", within: .seconds(30)) {
            let left = try await stack.command(["PTTL", gate]).int ?? 0
            // With time enough left for the look at the requests.
            if left > 2000 { #expect(try await stack.requests(exchange, endpoint) == before + 1) }
            return left <= 0
        }
        for entry in entries {
            let result = try await stack.result(exchange, entry)
            #expect(result["status"].text == "ok", "\(result)")
        }
        withExtendedLifetime(workers) {}
    }

    @Test("a flood of tickers keeps no cancel and no order waiting for tokens or slots")
    func priorities() async throws {
        let stack = try await Stack()
        let worker = try await stack.worker(["FLEET_EXCHANGES": "binance", "FLEET_LIMITS": "on"])
        _ = try await stack.run(.binance, .submitOrder, Stack.resting("rests"))
        var waits: [[Int]] = []
        func trade(_ name: String) async throws {
            waits += [[], []]
            for index in 0..<10 {
                let id = "\(name)-\(index)"
                let order = try await stack.run(.binance, .submitOrder, Stack.resting(id))
                let cancel = try await stack.run(
                    .binance, .cancelOrder, ["id": "c-" + id, "symbol": "BTC/USDT", "order_id": id])
                for (kind, result) in [order, cancel].enumerated() {
                    #expect(result["status"].text == "ok", "\(result)")
                    let wait = (result["finished_ms"].int ?? 0) - (result["enqueued_ms"].int ?? 0)
                    waits[waits.count - 2 + kind].append(wait)
                }
            }
        }
        try await trade("quiet")
        let flood = (0..<100_000).map { index in
            Stack.append(
                .binance, .fetchTicker,
                [("symbol", Array(["BTC/USDT", "ETH/USDT"][index % 2].utf8)), ("max_age_ms", [48])])
        }
        #expect(await stack.pipeline(flood).allSatisfy { $0.error == nil })
        // Three quarters of a bucket of 300, at 2 each; the rest is kept for orders and cancels.
        try await eventually("the tickers' share of the bucket is used up") {
            try await stack.requests(.binance, Stack.tickerEndpoint[.binance] ?? "") >= 120
        }
        try await trade("flooded")
        let left = try await stack.backlog(.binance).entries
        // Five orders may go at once and 4.4 a second after them, whatever else waits.
        print(
            "beside \(left) waiting tickers took cancels \(waits[3]) ms, orders \(waits[2]) ms; "
                + "without them cancels \(waits[1]) ms")
        #expect(left > 0, "the flood must outlast the orders")
        // Ten to twenty more here, where a debug build shares two cores with its Redis, and forty on a loaded machine.
        let median = { (kind: Int) in waits[kind].sorted()[5] }
        #expect(median(3) <= median(1) + 75, "cancels waited for tickers")
        withExtendedLifetime(worker) {}
    }

    @Test("ticker jobs in hand go out as one request, and one bad symbol fails alone", arguments: Exchange.allCases)
    func batches(_ exchange: Exchange) async throws {
        let stack = try await Stack()
        let symbols = (Self.symbols[exchange] ?? []) + ["NO/SUCH"]
        var entries: [(symbol: String, id: String)] = []
        for index in 0..<300 {
            let symbol = symbols[index % 3]
            entries.append(
                (symbol, try await stack.push(exchange, .fetchTicker, ["symbol": symbol, "max_age_ms": "0"])))
        }
        let worker = try await stack.worker(["FLEET_EXCHANGES": exchange.rawValue])
        for (symbol, id) in entries {
            let result = try await stack.result(exchange, id)
            #expect(result["status"].text == (symbol == "NO/SUCH" ? "rejected" : "ok"), "\(result)")
            if symbol != "NO/SUCH" { #expect(result["data"]["symbol"].text == symbol) }
        }
        #expect(try await stack.requests(exchange, Stack.tickerEndpoint[exchange] ?? "") <= 10)
        withExtendedLifetime(worker) {}
    }
}
