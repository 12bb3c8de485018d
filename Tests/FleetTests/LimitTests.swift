import Exchanges
import Foundation
import Redis
import Synchronization
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

    /// Orders after which the budgets of both markets have long been used up: five, three or 50 a market at once, and
    /// then 4.4, 16 or one a market in a second.
    private static let orders: [Exchange: Int] = [.binance: 50, .bybit: 160, .kraken: 110]

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
        }
        feeding.cancel()
        for exchange in Exchange.allCases {
            try await stack.command(["XTRIM", Stack.key(exchange, "jobs:fetch_ticker"), "MAXLEN", 0])
            let symbols = Self.symbols[exchange] ?? []
            _ = await stack.pipeline(
                (0..<400).map { index in
                    let order = Stack.market("o-\(index)").merging(["symbol": symbols[index % 2]]) { $1 }
                    return Stack.append(exchange, .submitOrder, order.map { ($0, Array($1.utf8)) })
                })
        }
        for (exchange, count) in Self.orders {
            try await eventually("\(exchange) has the orders", within: .seconds(90)) {
                try await stack.requests(exchange, Stack.orderEndpoint[exchange] ?? "") >= count
            }
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
        let opens = Int64(Double(try await stack.command(["GET", gate]).text?.split(separator: " ").first ?? "") ?? 0)
        #expect(opens - wallClockMs() > 5000)
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

    @Test("a ban of an account stops its calls behind every address, and there no others")
    func accountGate() async throws {
        let stack = try await Stack()
        let times = Mutex<[(method: String, ms: Int64)]>([])
        let fake = FakeHTTPServer { request in
            if request.target.contains("exchangeInfo") { return .text(binanceMarkets) }
            if request.target.hasSuffix("/time") { return .text(#"{"serverTime":\#(wallClockMs())}"#) }
            if request.target.contains("ticker") { return .text(#"{"symbol":"BTCUSDT","lastPrice":"1"}"#) }
            times.withLock { $0.append((request.method, wallClockMs())) }
            if request.method == "POST" {
                return .text(#"{"code":-1003,"msg":"Too many requests."}"#, status: 429, headers: ["Retry-After": "5"])
            }
            return .text(#"{"code":-2011,"msg":"Unknown order sent."}"#, status: 400)
        }
        func worker(_ egress: String) async throws -> Stack.Worker {
            try await stack.worker([
                "FLEET_EXCHANGES": "binance", "BINANCE_URL": fake.url, "FLEET_LIMITS": "on", "FLEET_EGRESS": egress,
            ])
        }
        let first = try await worker("a")
        try await stack.push(.binance, .submitOrder, Stack.market("o"))
        try await eventually("the banned order is put off") {
            try await stack.journal(.binance, "o")["state"] == "released"
        }
        first.program.signal(SIGKILL)
        let second = try await worker("b")
        #expect(try await stack.run(.binance, .fetchTicker, ["symbol": "BTC/USDT"])["status"].text == "ok")
        let gate = try await stack.command(["EXISTS", .text(Keys(.binance).gate("b"))])
        #expect(gate == .integer(0), "the second address is not banned")
        let result = try await stack.run(
            .binance, .cancelOrder, ["id": "c", "symbol": "BTC/USDT", "order_id": "o"])
        #expect(result["data"]["status"].text == "canceled", "\(result)")
        let calls = times.withLock { $0 }
        let next = try #require(calls.firstIndex { $0.method == "DELETE" })
        let ban = try #require(calls[..<next].last { $0.method == "POST" })
        #expect(calls[next].ms - ban.ms >= 5000, "the account was called during its ban")
        withExtendedLifetime(second) {}
    }

    @Test("what others do with the account at Bybit slows its fleet down")
    func othersUse() async throws {
        let stack = try await Stack()
        let fake = FakeHTTPServer.bybit(
            refusing: #"{"retCode":170131,"retMsg":"Balance insufficient","time":1700000000000}"#,
            headers: ["X-Bapi-Limit": "10", "X-Bapi-Limit-Status": "0"])
        let worker = try await stack.worker([
            "FLEET_EXCHANGES": "bybit", "BYBIT_URL": fake.url, "FLEET_LIMITS": "on",
        ])
        // It is there for a second only.
        try await eventually("the budget is used up") {
            let result = try await stack.run(.bybit, .submitOrder, Stack.market(UUID().uuidString))
            #expect(result["status"].text == "rejected", "\(result)")
            let keys = try await stack.command(["KEYS", Stack.key(.bybit, "limit:create:*")]).array ?? []
            guard let key = keys.first?.text else { return false }
            let full =
                Double(try await stack.command(["GET", .text(key)]).text?.split(separator: " ").first ?? "") ?? 0
            // By what the fleet has used itself it would be full again in 169 ms at most.
            return full >= Double(result["finished_ms"].int ?? 0) + 170
        }
        withExtendedLifetime(worker) {}
    }

    @Test("a key that the exchange refuses is not used for other orders, but for cancels")
    func refusedKey() async throws {
        let stack = try await Stack()
        for index in 0..<20 { try await stack.push(.kraken, .submitOrder, Stack.resting("o-\(index)")) }
        let worker = try await stack.worker([
            "FLEET_EXCHANGES": "kraken", "KRAKEN_KEY": "wrong", "KRAKEN_SECRET": "c2VjcmV0",
        ])
        for index in 0..<20 {
            let result = try await stack.result(.kraken, "o-\(index)")
            #expect(result["status"].text == "rejected" && result["error"]["code"].text == "key_refused", "\(result)")
        }
        #expect(try await stack.statistics(.kraken)["signature_failures"].int ?? 5 < 5)
        let cancel = ["id": "c", "symbol": "BTC/USDT", "order_id": "another"]
        #expect(try await stack.run(.kraken, .cancelOrder, cancel)["error"]["code"].text == "key_refused")
        #expect(try await stack.requests(.kraken, "CancelOrder") == 1)
        withExtendedLifetime(worker) {}
    }

    @Test("what was taken for calls that were not made is there for others", arguments: ["line", "session"])
    @LaneActor
    func givenBack(_ how: String) async throws {
        let server = try await FunctionServer(streams: false)
        let now = Mutex(Int64(0))
        let nowMs = { @Sendable in now.withLock { $0 } }
        let limiter = Limiter(redis: server.client, keys: Keys(.kraken), egress: "e", account: "a", nowMs: nowMs)
        guard how == "line" else { return try await notSent(limiter, server) }
        let charges = [slowCharge]
        // All that there is.
        for _ in 0..<3 { try await limiter.take(charges, .cancel, ofAccount: false, deadlineMs: nil) }
        func calls() async throws -> String? {
            try await server.redis("INFO", "commandstats").text?.firstMatch(of: /fcall:calls=(\d+)/).map {
                String($0.1)
            }
        }
        let before = try await calls()
        try await withThrowingDiscardingTaskGroup { jobs in
            jobs.addImmediateTask { @LaneActor in
                try await limiter.take(charges, .cancel, ofAccount: false, deadlineMs: nil)
            }
            for _ in 0..<2 {
                jobs.addImmediateTask { @LaneActor in
                    await #expect(throws: JobExpired.self) {
                        try await limiter.take(charges, .cancel, ofAccount: false, deadlineMs: 1)
                    }
                }
            }
            try await eventually("the first has asked in vain") { try await calls() != before }
            // There is enough for the whole line, but for those behind the first it is too late.
            now.withLock { $0 = 1 }
            try await server.redis("DEL", Keys(.kraken).limit("slow", "a"))
        }
        let left = try await server.call(
            "fleet_limit_take", ["gate", Keys(.kraken).limit("slow", "a")], [3, "1", "1", "3", "1"])
        #expect(left.array?.first?.int ?? 0 >= 2, "\(left)")
    }

    /// Has calls stopped at every step between their tokens and their sending: each budget is full again at once.
    @LaneActor
    private func notSent(_ limiter: Limiter, _ server: FunctionServer) async throws {
        struct Stopped: Error {}
        let fake = FakeHTTPServer { _ in .text(#"{"error":[],"result":{"unixtime":1700000000}}"#) }
        let http = HTTPClient(now: wallClockMs)
        defer { http.close() }
        let hasNonce = Atomic(true)
        let session = try session(
            with: kraken(fake.url), http, limiter: limiter,
            nextNonce: { () async throws(RedisError) in
                if hasNonce.load(ordering: .relaxed) { return 1 }
                throw RedisError(.connectionLost, "none")
            })
        let budget = Keys(.kraken).limit("private", "a")
        await #expect(throws: Stopped.self) {
            try await session.perform(.query(reference()), for: nil) { _ in
                let isPaid = try await server.redis("EXISTS", budget) == .integer(1)
                #expect(isPaid, "it was paid for")
                throw Stopped()
            }
        }
        #expect(try await server.redis("EXISTS", budget) == .integer(0), "stopped when it was to be sent")
        hasNonce.store(false, ordering: .relaxed)
        await #expect(throws: RedisError.self) { try await session.perform(.query(reference()), for: nil) }
        #expect(try await server.redis("EXISTS", budget) == .integer(0), "stopped for want of a nonce")
        try await server.redis("DEL", Keys(.kraken).limit("public", "e"))
        _ = try await session.tickers([], session.admitTickers())
        let tickers = try await server.redis("EXISTS", Keys(.kraken).limit("public", "e"))
        #expect(tickers == .integer(0), "nothing was left to ask for")
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
