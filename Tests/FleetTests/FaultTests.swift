import Exchanges
import Foundation
import Redis
import Synchronization
import TestSupport
import Testing

@testable import Fleet

@Suite("Faults around a worker", .serialized, .timeLimit(.minutes(2)))
struct FaultTests {
    @Test("an exchange that fails every request fails the job after its attempts, and the next one is ok when it works")
    func failingExchange() async throws {
        let stack = try await Stack()
        let worker = try await stack.worker()
        for exchange in Exchange.allCases { _ = try await stack.run(exchange, .fetchTicker, ["symbol": "BTC/USDT"]) }
        try await stack.control(#"{"error_rate":1}"#)
        for exchange in Exchange.allCases {
            let before = try await stack.requests(exchange, Stack.tickerEndpoint[exchange] ?? "")
            let result = try await stack.run(
                exchange, .fetchTicker, ["id": "f", "symbol": "BTC/USDT", "max_age_ms": "0", "max_attempts": "2"])
            #expect(result["status"].text == "failed", "\(result)")
            #expect(result["attempt"].int == 2)
            #expect(result["error"]["code"].text?.isEmpty == false)
            #expect(try await stack.requests(exchange, Stack.tickerEndpoint[exchange] ?? "") == before + 2)
        }
        try await stack.endFaults()
        for exchange in Exchange.allCases {
            let result = try await stack.run(
                exchange, .fetchTicker, ["id": "g", "symbol": "BTC/USDT", "max_age_ms": "0"])
            #expect(result["status"].text == "ok", "\(result)")
        }
        withExtendedLifetime(worker) {}
    }

    @Test(
        "an open breaker leaves jobs in their stream without an attempt, and they are served when the exchange is back")
    func openBreaker() async throws {
        let stack = try await Stack()
        let worker = try await stack.worker(["FLEET_EXCHANGES": "binance"])
        _ = try await stack.run(.binance, .fetchTicker, ["symbol": "BTC/USDT"])
        try await stack.control(#"{"error_rate":1}"#)
        let failed = try await stack.run(
            .binance, .fetchTicker, ["id": "f", "symbol": "BTC/USDT", "max_age_ms": "0", "max_attempts": "5"])
        #expect(failed["status"].text == "failed")
        try await eventually("the breaker shows open") {
            let page = try await Stack.get(worker.metricsPort, "/metrics").map {
                String(decoding: $0.body, as: UTF8.self)
            }
            return page?.contains(/fleet_breaker_open\{[^}]*class="market"[^}]*\} 1/) == true
        }
        try await stack.push(.binance, .fetchTicker, ["id": "w", "symbol": "BTC/USDT", "max_age_ms": "0"])
        try await stack.endFaults()
        let result = try await stack.result(.binance, "w")
        #expect(result["status"].text == "ok")
        #expect(result["attempt"].int == 1, "waiting burns no attempt")
    }

    @Test("one worker of the fleet at a time finds out whether an exchange is back, and none soon after a failure")
    func probes() async throws {
        let stack = try await Stack()
        let worker = try await stack.worker(["FLEET_EXCHANGES": "binance", "FLEET_LIMITS": "on"])
        _ = try await stack.run(.binance, .fetchTicker, ["symbol": "BTC/USDT"])
        let probe = RedisArgument.text(Keys(.binance).probe("default", trading: false))
        try await stack.control(#"{"error_rate":1}"#)
        let ticker = { ["id": $0, "symbol": "BTC/USDT", "max_age_ms": "0", "max_attempts": "90"] }
        for index in 0..<10 { try await stack.push(.binance, .fetchTicker, ticker("p-\(index)")) }
        try await eventually("a probe has failed") {
            (1...5000).contains(try await stack.command(["PTTL", probe]).int ?? 0)
        }
        // As if another worker were at it.
        try await stack.command(["SET", probe, "another"])
        try await stack.endFaults()
        let asked = try await stack.requests(.binance, "ticker/24hr")
        let aside = try await Stack.figure(worker, "^fleet_job_moves_total.*set_aside")
        try await eventually("it has asked for a probe again") {
            try await Stack.figure(worker, "^fleet_job_moves_total.*set_aside") >= aside + 20
        }
        #expect(try await stack.requests(.binance, "ticker/24hr") == asked)
        try await stack.command(["DEL", probe])
        for index in 0..<10 { #expect(try await stack.result(.binance, "p-\(index)")["status"].text == "ok") }
        try await eventually("the next may probe at once") { try await stack.command(["EXISTS", probe]).int == 0 }
    }

    @Test("a rate limit is waited out and costs no job")
    func rateLimited() async throws {
        let stack = try await Stack()
        let worker = try await stack.worker()
        try await stack.control(#"{"rate_limit_rate":0.5,"retry_after_s":0}"#)
        for exchange in Exchange.allCases {
            for index in 0..<5 {
                try await stack.push(
                    exchange, .fetchTicker,
                    ["id": "l-\(index)", "symbol": "BTC/USDT", "max_age_ms": "0", "max_attempts": "100"])
            }
        }
        for exchange in Exchange.allCases {
            for index in 0..<5 {
                let result = try await stack.result(exchange, "l-\(index)", within: .seconds(90))
                #expect(result["status"].text == "ok", "\(result)")
                if index == 4, exchange == .kraken { try await stack.endFaults() }
            }
        }
        withExtendedLifetime(worker) {}
    }

    @Test(
        "what was not written by a worker is no cached ticker",
        arguments: [
            "-9223372036854775808 {}", "9223372036854775807 {}", "99999999999999999999 {}", "1e9 {}", "{}", "",
        ])
    func foreignCache(_ value: String) async throws {
        let stack = try await Stack()
        let worker = try await stack.worker(["FLEET_EXCHANGES": "binance"])
        try await stack.command(["SET", Stack.key(.binance, "cache:BTC/USDT"), .text(value)])
        let result = try await stack.run(
            .binance, .fetchTicker, ["symbol": "BTC/USDT", "max_age_ms": "\(Int64.max)"])
        #expect(result["source"].text == "exchange" && result["data"]["last"].text != nil, "\(result)")
        withExtendedLifetime(worker) {}
    }

    @Test(
        "a market list that no worker can have written by now is not used, also while there is no other",
        arguments: ["ahead", "rubbish", "no list"])
    func foreignMarkets(_ kind: String) async throws {
        let stack = try await Stack()
        let isUp = Atomic(false)
        let fake = FakeHTTPServer { request in
            guard isUp.load(ordering: .relaxed) else { return .text("", status: 503) }
            let market = #"{"wsname":"XBT/USD","lot_decimals":8,"tick_size":"0.1","status":"online"}"#
            if request.target.contains("AssetPairs") { return .text(#"{"error":[],"result":{"NEW":\#(market)}}"#) }
            return .text(#"{"error":[],"result":{"NEW":{"c":["2","1"]},"XXBTZUSD":{"c":["1","1"]}}}"#)
        }
        let list = String(decoding: try JSONEncoder().encode([reference().instrument]), as: UTF8.self)
        let texts = ["ahead": "\(wallClockMs() + 86_400_000) \(list)", "no list": "\(wallClockMs()) {}"]
        let key = Keys(.kraken).markets(fake.url)
        try await stack.command(["SET", .text(key), .text(texts[kind] ?? "rubbish")])
        let worker = try await stack.worker(["FLEET_EXCHANGES": "kraken", "KRAKEN_URL": fake.url])
        let job = ["id": "f", "symbol": "BTC/USD", "max_attempts": "1"]
        #expect(try await stack.run(.kraken, .fetchTicker, job)["status"].text == "failed")
        #expect(!fake.requests.contains { $0.target.contains("Ticker") })
        isUp.store(true, ordering: .relaxed)
        let result = try await stack.run(.kraken, .fetchTicker, job.merging(["id": "g"]) { $1 })
        #expect(result["data"]["last"].text == "2", "\(result)")
        let stamp = try await stack.command(["GET", .text(key)]).text?.split(separator: " ").first
        #expect(stamp.flatMap { Int64($0) } ?? .max <= wallClockMs(), "the next worker has a good one")
        withExtendedLifetime(worker) {}
    }

    @Test("a market that is not in a list that cannot be renewed costs no other its ticker")
    func unknownMarket() async throws {
        let stack = try await Stack()
        let fake = FakeHTTPServer { request in
            if request.target.contains("AssetPairs") { return .text("", status: 503) }
            return .text(#"{"error":[],"result":{"XXBTZUSD":{"c":["1","1"]}}}"#)
        }
        // Old enough to be looked at again for a market that it has not.
        let list = String(decoding: try JSONEncoder().encode([reference().instrument]), as: UTF8.self)
        try await stack.command([
            "SET", .text(Keys(.kraken).markets(fake.url)), .text("\(wallClockMs() - 61_000) \(list)"),
        ])
        for (id, symbol) in [("known", "BTC/USD"), ("not", "NOPE/USD")] {
            try await stack.push(.kraken, .fetchTicker, ["id": id, "symbol": symbol, "max_attempts": "1"])
        }
        let worker = try await stack.worker(["FLEET_EXCHANGES": "kraken", "KRAKEN_URL": fake.url])
        #expect(try await stack.result(.kraken, "not")["status"].text == "failed")
        #expect(try await stack.result(.kraken, "known")["status"].text == "ok")
        withExtendedLifetime(worker) {}
    }

    @Test("a name that nobody looks up holds up no other exchange, and no stop")
    func silentNames() async throws {
        let stack = try await Stack()
        let (source, library) = (stack.directory.file("silent.c"), stack.directory.file("silent.so"))
        let code = #"""
            #define _GNU_SOURCE
            #include <dlfcn.h>
            #include <netdb.h>
            #include <string.h>
            #include <unistd.h>
            int getaddrinfo(const char *name, const char *port, const struct addrinfo *hints, struct addrinfo **found) {
                while (name && strcmp(name, "silent.example") == 0) pause();
                int (*next)(const char *, const char *, const struct addrinfo *, struct addrinfo **);
                *(void **)&next = dlsym(RTLD_NEXT, "getaddrinfo");
                return next(name, port, hints, found);
            }
            """#
        try code.write(toFile: source, atomically: true, encoding: .utf8)
        let compiler = try Program(["clang", "-shared", "-fPIC", "-o", library, source], in: stack.directory)
        #expect(try await compiler.exited() == 0, "\(compiler.errors)")
        let worker = try await stack.worker([
            "LD_PRELOAD": library, "BINANCE_URL": "http://silent.example", "FLEET_EXCHANGES": "binance,bybit",
        ])
        let job = ["symbol": "BTC/USDT", "max_attempts": "1"]
        #expect(try await stack.run(.binance, .fetchTicker, job)["status"].text == "failed")
        #expect(try await stack.run(.bybit, .fetchTicker, job)["status"].text == "ok")
        worker.program.signal(SIGTERM)
        #expect(try await worker.program.exited() == 0)
    }

    @Test("a stream key of another type stops its own kind only, and is served once the key is gone")
    func wrongType() async throws {
        let stack = try await Stack()
        try await stack.command(["SET", "fleet:{binance}:jobs:submit_order", "not a stream"])
        let worker = try await stack.worker()
        #expect(try await stack.run(.binance, .fetchTicker, ["symbol": "BTC/USDT"])["status"].text == "ok")
        #expect(try await stack.run(.bybit, .submitOrder, Stack.resting("b"))["status"].text == "ok")
        try await eventually("the log names the key") {
            worker.program.errors.contains("fleet:{binance}:jobs:submit_order")
        }
        try await stack.command(["DEL", "fleet:{binance}:jobs:submit_order"])
        #expect(try await stack.run(.binance, .submitOrder, Stack.resting("a"))["status"].text == "ok")
        withExtendedLifetime(worker) {}
    }

    @Test("a stream that turns into another type while the worker runs, or whose group is destroyed, is served again")
    func brokenWhileRunning() async throws {
        let stack = try await Stack()
        let worker = try await stack.worker(["FLEET_EXCHANGES": "kraken"])
        #expect(try await stack.run(.kraken, .fetchTicker, ["symbol": "BTC/USD"])["status"].text == "ok")
        try await stack.command(["SET", "fleet:{kraken}:jobs:fetch_ticker", "x"])
        #expect(try await stack.run(.kraken, .refreshCache, ["symbols": "BTC/USD"])["status"].text == "ok")
        try await stack.command(["DEL", "fleet:{kraken}:jobs:fetch_ticker"])
        #expect(try await stack.run(.kraken, .fetchTicker, ["symbol": "BTC/USD"])["status"].text == "ok")
        try await stack.command(["XGROUP", "DESTROY", "fleet:{kraken}:jobs:fetch_ticker", "workers"])
        #expect(try await stack.run(.kraken, .fetchTicker, ["symbol": "BTC/USD"])["status"].text == "ok")
        try await stack.command(["FLUSHALL"])
        try await stack.command(["FUNCTION", "FLUSH"])
        #expect(try await stack.run(.kraken, .fetchTicker, ["symbol": "BTC/USD"])["status"].text == "ok")
        #expect(try await stack.run(.kraken, .submitOrder, Stack.resting("x"))["status"].text == "ok")
        withExtendedLifetime(worker) {}
    }

    enum BadAnswer: CaseIterable { case html, empty, tenMegabytes, otherTypes, redirect, notUTF8, hangUp }

    private func reply(_ kind: BadAnswer, elsewhere: String) -> FakeHTTPServer.Reply {
        switch kind {
        case .html: .text("<html>Down for maintenance</html>", headers: ["Content-Type": "text/html"])
        case .empty: .text("")
        case .tenMegabytes: .text("[\"" + String(repeating: "x", count: 10_000_000) + "\"]")
        case .otherTypes: .text(#"{"symbol":5,"lastPrice":{"a":[1]},"bidPrice":true,"closeTime":"now"}"#)
        case .redirect: .text("", status: 302, headers: ["Location": elsewhere])
        case .notUTF8: .answer(body: [0xff, 0xfe, 0x00, 0x7b])
        case .hangUp: .hangUp
        }
    }

    @Test("an answer that is no answer ends the job clearly, and no other job is lost", arguments: BadAnswer.allCases)
    func badAnswers(_ kind: BadAnswer) async throws {
        let stack = try await Stack()
        let elsewhere = FakeHTTPServer { _ in .text("{}") }
        let bad = reply(kind, elsewhere: elsewhere.url)
        let fake = FakeHTTPServer { request in
            if request.target.contains("exchangeInfo") { return .text(binanceMarkets) }
            if request.target.contains("time") { return .text(#"{"serverTime":1700000000000}"#) }
            return bad
        }
        let worker = try await stack.worker(["BINANCE_URL": fake.url, "FLEET_EXCHANGES": "binance,bybit"])
        for index in 0..<3 {
            try await stack.push(
                .binance, .fetchTicker,
                ["id": "b-\(index)", "symbol": "BTC/USDT", "max_age_ms": "0", "max_attempts": "1"])
            try await stack.push(.bybit, .fetchTicker, ["id": "y-\(index)", "symbol": "BTC/USDT", "max_age_ms": "0"])
        }
        for index in 0..<3 {
            let result = try await stack.result(.binance, "b-\(index)")
            #expect(result["status"].text == "failed", "\(result)")
            #expect(result["error"]["code"].text?.isEmpty == false)
            let message = result["error"]["message"].text ?? ""
            #expect(!message.isEmpty && message.count < 300)
            #expect(try await stack.result(.bybit, "y-\(index)")["status"].text == "ok")
        }
        #expect(elsewhere.requests.isEmpty, "redirects are not followed")
        #expect(worker.program.exitStatus == nil)
    }

    @Test(
        "an order's answer that is no answer never counts as done",
        arguments: [BadAnswer.html, .empty, .otherTypes, .redirect])
    func badOrderAnswers(_ kind: BadAnswer) async throws {
        let stack = try await Stack()
        let elsewhere = FakeHTTPServer { _ in .text("{}") }
        let bad = reply(kind, elsewhere: elsewhere.url)
        let markets =
            #"{"error":[],"result":{"XBTUSDT":{"wsname":"XBT/USDT","lot_decimals":8,"tick_size":"0.1","status":"online"}}}"#
        let fake = FakeHTTPServer { request in
            if request.target.contains("AssetPairs") { return .text(markets) }
            if request.target.contains("Time") { return .text(#"{"error":[],"result":{"unixtime":1700000000}}"#) }
            // The exchange shows the order all the same: it was taken.
            if request.target.contains("OpenOrders") {
                let order =
                    #"{"status":"open","opentm":1700000000.5,"vol":"0.001","vol_exec":"0","descr":{"type":"buy","ordertype":"limit","price":"32000"}}"#
                return .text(#"{"error":[],"result":{"open":{"OABC":\#(order)}}}"#)
            }
            return bad
        }
        let worker = try await stack.worker(["KRAKEN_URL": fake.url, "FLEET_EXCHANGES": "kraken"])
        let result = try await stack.run(.kraken, .submitOrder, Stack.resting("o-1"))
        #expect(result["status"].text == "ok", "\(result)")
        #expect(result["data"]["exchange_order_id"].text == "OABC", "adopted from the exchange's own list")
        #expect(fake.requests.filter { $0.target.contains("AddOrder") }.count == 1)
        #expect(worker.program.exitStatus == nil)
    }

    @Test("a worker that starts before Redis says so, waits, and serves once Redis is up")
    func redisLate() async throws {
        let stack = try await Stack()
        let directory = try TemporaryDirectory()
        let environment = stack.environment(["REDIS_URL": "unix://" + directory.file("redis.sock")])
        let program = try Program([Program.binaries + "/worker"], environment: environment, in: directory)
        try await eventually("the worker says that Redis is away") { program.errors.contains("redis away") }
        let port = try await eventually("the worker serves metrics") {
            program.errors.firstMatch(of: /"metrics served".*"port":"(\d+)"/).flatMap { Int($0.1) }
        }
        #expect(try await Stack.get(port, "/healthz")?.status == 200, "alive, whatever Redis does")
        #expect(try await Stack.get(port, "/readyz")?.status == 503)
        #expect(program.exitStatus == nil)
        let server = try await RedisServer(["--appendonly", "yes"], in: directory)
        try await eventually("the worker is ready") { try await Stack.get(port, "/readyz")?.status == 200 }
        let job = try await stack.producer(
            ["fetch-ticker", "bybit", "BTC/USDT", "--wait"], ["REDIS_URL": server.url])
        #expect(job.status == 0, "\(job.errors)")
        program.signal(SIGTERM)
        #expect(try await program.exited() == 0)
    }

    @Test("a worker asked to stop while Redis is away stops")
    func stopWithoutRedis() async throws {
        let directory = try TemporaryDirectory()
        let program = try Program(
            [Program.binaries + "/worker"],
            environment: [
                "REDIS_URL": "unix://" + directory.file("none.sock"), "FLEET_METRICS_PORT": "0", "LOG_FORMAT": "json",
            ], in: directory)
        try await eventually("the worker runs") { program.errors.contains("metrics served") }
        program.signal(SIGTERM)
        #expect(try await program.exited() == 0)
    }

    @Test("Redis killed and started again in the middle loses no job, and each order is made once")
    func redisRestarted() async throws {
        let stack = try await Stack()
        let worker = try await stack.worker()
        try await stack.control(#"{"latency_ms":100}"#)
        for exchange in Exchange.allCases {
            for index in 0..<10 {
                try await stack.push(exchange, .submitOrder, Stack.market("o-\(index)"))
                try await stack.push(
                    exchange, .fetchTicker, ["id": "t-\(index)", "symbol": "BTC/USDT", "max_age_ms": "0"])
            }
        }
        _ = try await stack.result(.bybit, "t-0")
        try await stack.restartRedis()
        try await stack.endFaults()
        for exchange in Exchange.allCases {
            for index in 0..<10 {
                let order = try await stack.result(exchange, "o-\(index)", within: .seconds(60))
                #expect(order["status"].text == "ok", "\(order)")
                #expect(try await stack.result(exchange, "t-\(index)")["status"].text == "ok")
                #expect(try await stack.orders(exchange, jobId: "o-\(index)").count == 1)
            }
        }
        #expect(worker.program.exitStatus == nil)
    }
}
