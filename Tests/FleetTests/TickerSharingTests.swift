import Exchanges
import Foundation
import Redis
import Synchronization
import TestSupport
import Testing

@testable import Fleet

@Suite("Tickers that share requests, and slots that are kept", .serialized, .timeLimit(.minutes(2)))
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
        try await stack.push(.binance, .fetchTicker, ["id": "s-20", "symbol": "BTC/USDT", "max_age_ms": "0"])
        for index in 0...20 { #expect(try await stack.result(.binance, "s-\(index)")["status"].text == "ok") }
        #expect(try await stack.requests(.binance, "ticker/24hr") - before == 2, "and who wants his own has it")
        withExtendedLifetime(worker) {}
    }

    @Test("no tier serves a ticker for longer than FLEET_CACHE_TTL, however old a job takes it")
    func cacheEnds() async throws {
        let stack = try await Stack()
        let worker = try await stack.worker(["FLEET_EXCHANGES": "binance", "FLEET_CACHE_TTL": "1"])
        let job = ["symbol": "BTC/USDT", "max_age_ms": "3600000"]
        _ = try await stack.run(.binance, .fetchTicker, job)
        try await eventually("it is fetched again") {
            try await stack.run(.binance, .fetchTicker, job)["source"].text == "exchange"
        }
        withExtendedLifetime(worker) {}
    }

    @Test("a ticker that the exchange made earlier replaces a later one in no tier")
    func olderTicker() async throws {
        let stack = try await Stack()
        let worker = try await stack.worker(["FLEET_EXCHANGES": "binance"])
        let (now, later) = (wallClockMs(), wallClockMs() + 3_600_000)
        let json = #"{"exchange_ms":\#(later),"received_ms":\#(now),"symbol":"BTC/USDT"}"#
        try await stack.command(["SET", Stack.key(.binance, "cache:BTC/USDT"), .text("\(now) \(json)")])
        func ask(_ maxAgeMs: Int) async throws -> JSONValue {
            let id = UUID().uuidString
            return try await stack.run(
                .binance, .fetchTicker, ["id": id, "symbol": "BTC/USDT", "max_age_ms": "\(maxAgeMs)"])
        }
        #expect(try await ask(30_000)["source"].text == "l2")
        #expect(try await ask(0)["source"].text == "exchange")
        let memory = try await ask(30_000)
        #expect(memory["source"].text == "l1" && memory["data"]["exchange_ms"].int == Int(later), "\(memory)")
        let shared = try await stack.command(["GET", Stack.key(.binance, "cache:BTC/USDT")]).text
        #expect(shared?.contains("\(later)") == true)
        withExtendedLifetime(worker) {}
    }

    @Test("a ticker that a clock far ahead of ours received is served from no tier")
    @LaneActor
    func aheadOfUs() async throws {
        let server = try await FunctionServer(streams: false)
        let now = Mutex(Int64(10_000))
        let cache = TickerCache(redis: server.client, keys: server.keys, ttl: 60) { now.withLock { $0 } }
        try await server.redis("SET", server.keys.cache("BTC/USDT"), "10000 {}")
        for (ours, isServed) in [(Int64(9899), false), (9900, true), (9899, false), (10_000, true)] {
            now.withLock { $0 = ours }
            // After the first that is served, memory has it too.
            #expect(await cache.read(["BTC/USDT"]).isEmpty != isServed, "\(ours)")
            #expect((cache.get("BTC/USDT", maxAgeMs: 30_000) != nil) == isServed, "\(ours)")
        }
        // Set back, it does not keep what comes from then on out of memory.
        now.withLock { $0 = 5000 }
        let late = #"{"symbol":"BTC/USDT","receivedMs":5000}"#
        _ = cache.keep(try JSONDecoder().decode(Ticker.self, from: Data(late.utf8)))
        #expect(cache.get("BTC/USDT", maxAgeMs: 30_000)?.receivedMs == 5000)
    }

    @Test("a refresh without symbols fetches those that memory has answered too")
    func askedInMemory() async throws {
        let stack = try await Stack()
        let worker = try await stack.worker(["FLEET_EXCHANGES": "binance"])
        _ = try await stack.run(.binance, .refreshCache, ["symbols": "LTC/USDT"])
        let none = try await stack.run(.binance, .refreshCache, ["note": "all"])
        #expect(none["data"]["refreshed"].int == 0, "a refresh asks for nothing itself: \(none)")
        let ticker = try await stack.run(.binance, .fetchTicker, ["symbol": "LTC/USDT", "max_age_ms": "30000"])
        #expect(ticker["source"].text == "l1", "\(ticker)")
        #expect(try await stack.run(.binance, .refreshCache, ["note": "all"])["data"]["refreshed"].int == 1)
        withExtendedLifetime(worker) {}
    }

    @Test("an outage takes no attempt of a job that waits for its end, and its probes are told")
    func outage() async throws {
        let stack = try await Stack()
        let worker = try await stack.worker(["FLEET_EXCHANGES": "binance"])
        _ = try await stack.run(.binance, .fetchTicker, ["symbol": "BTC/USDT"])
        try await stack.control(#"{"error_rate":1}"#)
        for index in 0..<60 {
            try await stack.push(
                .binance, .fetchTicker, ["id": "o-\(index)", "symbol": "BTC/USDT", "max_age_ms": "0"])
        }
        try await eventually("five probes have failed", within: .seconds(50)) {
            worker.program.errors.components(separatedBy: #""what":"market half-open""#).count > 5
        }
        #expect(try await stack.dead(.binance).isEmpty)
        try await stack.endFaults()
        for index in 0..<60 { #expect(try await stack.result(.binance, "o-\(index)")["status"].text == "ok") }
        try await eventually("the page says it is over") {
            try await Stack.figure(worker, "^fleet_breaker_open.*market") == 0
        }
    }

    @Test("one of several workers loads the market list, and is not waited for for ever")
    func marketList() async throws {
        let stack = try await Stack()
        try await stack.control(#"{"latency_ms":3000}"#)
        let only = ["FLEET_EXCHANGES": "binance", "FLEET_KINDS": "fetch_ticker", "FLEET_CONCURRENCY": "1"]
        var workers = [try await stack.worker(only), try await stack.worker(only), try await stack.worker(only)]
        let symbols = ["BTC/USDT", "ETH/USDT", "LTC/USDT"]
        for symbol in symbols {
            try await stack.push(.binance, .fetchTicker, ["id": symbol.prefix(3) + "-1", "symbol": symbol])
        }
        try await eventually("each has a job") { try await stack.backlog(.binance).pending == 3 }
        for symbol in symbols {
            #expect(try await stack.result(.binance, symbol.prefix(3) + "-1")["status"].text == "ok")
        }
        #expect(try await stack.requests(.binance, "exchangeInfo") == 1)
        try await stack.endFaults()
        workers = []
        // Nobody is loading it, though it looks so.
        let keys = try await stack.command(["KEYS", Stack.key(.binance, "markets:*")]).array?.compactMap(\.text) ?? []
        let list = try #require(keys.first)
        try await stack.command(["DEL", .text(list)])
        try await stack.command(["SET", .text(list + ":claim"), "1"])
        workers = [try await stack.worker(only)]
        #expect(try await stack.run(.binance, .fetchTicker, ["symbol": "XRP/USDT"])["status"].text == "ok")
        #expect(try await stack.requests(.binance, "exchangeInfo") == 2)
        withExtendedLifetime(workers) {}
    }

    @Test("a ticker whose deadline passes while it waits for the limiter is not asked for")
    func lateForLimiter() async throws {
        let stack = try await Stack(limits: "on")
        let worker = try await stack.worker(["FLEET_EXCHANGES": "kraken", "FLEET_LIMITS": "on"])
        #expect(try await stack.run(.kraken, .fetchTicker, ["symbol": "BTC/USD"])["status"].text == "ok")
        let before = try await stack.requests(.kraken, Stack.tickerEndpoint[.kraken] ?? "")
        // Of eight tokens tickers may take six, and one comes back in a second: there is one in a second and a half.
        let budget = RedisArgument.text(Keys(.kraken).limit("public", "default"))
        try await stack.command(["SET", budget, .text("\(wallClockMs() + 6600)")])
        let job = ["symbol": "BTC/USD", "max_age_ms": "0", "deadline_ms": "\(wallClockMs() + 700)"]
        let result = try await stack.run(.kraken, .fetchTicker, job)
        #expect(result["status"].text == "expired", "\(result)")
        #expect(try await stack.requests(.kraken, Stack.tickerEndpoint[.kraken] ?? "") == before)
        withExtendedLifetime(worker) {}
    }

    @Test("a stray refusal that does not speak of the market leaves orders of it alone")
    func strayRefusal() async throws {
        let stack = try await Stack()
        let fake = FakeHTTPServer { request in
            if request.target.contains("exchangeInfo") { return .text(binanceMarkets) }
            if request.target.contains("time") { return .text(#"{"serverTime":\#(wallClockMs())}"#) }
            if request.target.contains("ticker") { return .text(#"{"code":-1100,"msg":"x"}"#, status: 400) }
            return .text(#"{"clientOrderId":"o","orderId":1,"status":"FILLED","side":"BUY","origQty":"0.001"}"#)
        }
        let worker = try await stack.worker(["FLEET_EXCHANGES": "binance", "BINANCE_URL": fake.url])
        #expect(try await stack.run(.binance, .fetchTicker, ["symbol": "BTC/USDT"])["status"].text == "rejected")
        let order = try await stack.run(.binance, .submitOrder, Stack.market("o"))
        #expect(order["data"]["status"].text == "filled", "\(order)")
        withExtendedLifetime(worker) {}
    }

    @Test("a ticker that one worker fetches is fetched by no other that wants it too")
    func sharedByAll() async throws {
        let stack = try await Stack()
        let settings = ["FLEET_EXCHANGES": "binance"]
        let workers = try await [stack.worker(settings), stack.worker(settings)]
        _ = try await stack.run(.binance, .fetchTicker, ["symbol": "ETH/USDT"])
        try await stack.control(#"{"latency_ms":1500}"#)
        let before = try await stack.requests(.binance, "ticker/24hr")
        var pushed = 0
        try await eventually("both have jobs in hand") {
            pushed += 1
            try await stack.push(
                .binance, .fetchTicker, ["id": "s-\(pushed)", "symbol": "BTC/USDT", "max_age_ms": "30000"])
            let consumers = try await stack.command([
                "XINFO", "CONSUMERS", Stack.key(.binance, "jobs:fetch_ticker"), "workers",
            ])
            return consumers.array?.allSatisfy { Int(Stack.pairs($0.array ?? [])["pending"] ?? "") ?? 0 > 0 } == true
        }
        for number in 1...pushed { #expect(try await stack.result(.binance, "s-\(number)")["status"].text == "ok") }
        #expect(try await stack.requests(.binance, "ticker/24hr") - before == 1)
        withExtendedLifetime(workers) {}
    }

    @Test("what is asked for while another worker fetches goes out together")
    func gathered() async throws {
        let stack = try await Stack()
        let settings = ["FLEET_EXCHANGES": "binance", "FLEET_KINDS": "fetch_ticker", "FLEET_CONCURRENCY": "2"]
        let workers = try await [stack.worker(settings), stack.worker(settings)]
        _ = try await stack.run(.binance, .fetchTicker, ["symbol": "ETH/USDT"])
        let before = try await stack.requests(.binance, "ticker/24hr")
        // A third one, which is at it for as long as it says so.
        let fetching: RedisCommand = ["SET", Stack.key(.binance, "fetching"), "another", "PX", 1000]
        try await stack.command(fetching)
        let symbols = ["BTC/USDT", "LTC/USDT", "XRP/USDT"]
        for symbol in symbols {
            try await stack.push(.binance, .fetchTicker, ["id": "g-" + symbol.prefix(3), "symbol": symbol])
        }
        try await eventually("all of them are wanted") {
            try await stack.command(fetching)
            return try await stack.command(["ZCARD", Stack.key(.binance, "asked")]) == .integer(4)
        }
        #expect(try await stack.requests(.binance, "ticker/24hr") == before)
        try await stack.command(["DEL", Stack.key(.binance, "fetching")])
        for symbol in symbols {
            #expect(try await stack.result(.binance, "g-" + symbol.prefix(3))["status"].text == "ok")
        }
        #expect(try await stack.requests(.binance, "ticker/24hr") == before + 1)
        withExtendedLifetime(workers) {}
    }

    @Test("who takes no answer older than 100 ms does not wait while another worker fetches")
    func gathersNotForAll() async throws {
        let stack = try await Stack()
        let worker = try await stack.worker(["FLEET_EXCHANGES": "binance"])
        let fetching: RedisCommand = ["SET", Stack.key(.binance, "fetching"), "another", "PX", 1000]
        try await stack.command(fetching)
        try await stack.push(
            .binance, .fetchTicker, ["id": "g", "symbol": "BTC/USDT", "max_age_ms": "50"])
        try await eventually("it is answered") {
            try await stack.command(fetching)
            return try await stack.command(["EXISTS", Stack.key(.binance, "result:g")]) == .integer(1)
        }
        withExtendedLifetime(worker) {}
    }

    @Test("what was asked for lately comes along with what is asked for now")
    func comesAlong() async throws {
        let (stack, fake) = (try await Stack(), delisting())
        let worker = try await stack.worker(["FLEET_EXCHANGES": "kraken", "KRAKEN_URL": fake.url])
        for symbol in ["P1/USD", "P2/USD"] {
            #expect(try await stack.run(.kraken, .fetchTicker, ["symbol": symbol])["status"].text == "ok")
        }
        try await eventually("the first has aged") {
            let again = ["id": UUID().uuidString, "symbol": "P1/USD", "max_age_ms": "150"]
            return try await stack.run(.kraken, .fetchTicker, again)["source"].text == "exchange"
        }
        let last = try #require(fake.requests.last { $0.target.contains("Ticker") }?.target)
        #expect(last.contains("P1") && last.contains("P2"), "\(last)")
        withExtendedLifetime(worker) {}
    }

    @Test("a worker of few slots keeps one for cancels", arguments: [Kind.fetchTicker, .submitOrder])
    func keptSlot(_ kind: Kind) async throws {
        let stack = try await Stack()
        let worker = try await stack.worker(["FLEET_EXCHANGES": "binance", "FLEET_CONCURRENCY": "4"])
        _ = try await stack.run(.binance, .submitOrder, Stack.resting("o"))
        try await stack.control(#"{"latency_ms":2000}"#)
        for index in 0..<8 {
            let job = ["id": "t-\(index)", "symbol": "BTC/USDT", "max_age_ms": "0"]
            try await stack.push(.binance, kind, kind == .fetchTicker ? job : Stack.market("t-\(index)"))
        }
        try await eventually("they are in hand") { try await stack.backlog(.binance).pending >= 2 }
        let cancel = try await stack.run(.binance, .cancelOrder, ["id": "c", "symbol": "BTC/USDT", "order_id": "o"])
        let first = try await stack.result(.binance, "t-0")
        #expect(cancel["status"].text == "ok", "\(cancel)")
        #expect((cancel["started_ms"].int ?? .max) < (first["finished_ms"].int ?? 0), "\(cancel) \(first)")
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

    @Test("a market that is missing among all is asked for alone, and then known to be gone")
    func missing() async throws {
        let stack = try await Stack()
        let fake = FakeHTTPServer { request in
            func list(_ rows: String) -> FakeHTTPServer.Reply {
                .text(#"{"retCode":0,"retMsg":"OK","result":{"list":[\#(rows)]},"time":1700000000000}"#)
            }
            if request.target.contains("instruments") {
                let markets = ["BTC", "OLD"].map { base in
                    #"{"symbol":"\#(base)USDT","baseCoin":"\#(base)","quoteCoin":"USDT","status":"Trading","#
                        + #""priceFilter":{"tickSize":"0.1"},"lotSizeFilter":{"basePrecision":"0.001"}}"#
                }
                return list(markets.joined(separator: ","))
            }
            if request.target.contains("OLDUSDT") {
                return .text(#"{"retCode":10001,"retMsg":"Not supported symbols"}"#)
            }
            return list(#"{"symbol":"BTCUSDT","lastPrice":"1"}"#)
        }
        for symbol in ["OLD/USDT", "BTC/USDT"] {
            try await stack.push(.bybit, .fetchTicker, ["id": String(symbol.prefix(3)), "symbol": symbol])
        }
        let worker = try await stack.worker(["FLEET_EXCHANGES": "bybit", "BYBIT_URL": fake.url])
        #expect(try await stack.result(.bybit, "BTC")["status"].text == "ok")
        let gone = try await stack.result(.bybit, "OLD")
        #expect(gone["status"].text == "rejected" && gone["error"]["code"].text == "unknown_symbol", "\(gone)")
        _ = try await stack.run(.bybit, .fetchTicker, ["symbol": "OLD/USDT"])
        let asked = fake.requests.map(\.target).filter { $0.contains("tickers") }
        #expect(asked.count == 2 && !asked[0].contains("symbol"), "\(asked)")
        withExtendedLifetime(worker) {}
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
