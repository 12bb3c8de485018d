import Exchanges
import Foundation
import Redis
import Synchronization
import TestSupport
import Testing

@testable import Fleet

@Suite("Orders: what must never go wrong", .serialized, .timeLimit(.minutes(3)))
struct OrderSafetyTests {
    private func sends(_ stack: Stack, _ exchange: Exchange) async throws -> Int {
        try await stack.requests(exchange, Stack.orderEndpoint[exchange] ?? "")
    }

    private func cancel(_ id: String, of order: String) -> [String: String] {
        ["id": id, "symbol": "BTC/USDT", "order_id": order]
    }

    // MARK: - A Redis that forgets

    @Test(
        "a Redis that may forget gets no orders, but tickers, until it is set right",
        arguments: [
            ("appendonly", "no", "yes", "appendonly is off"),
            ("maxmemory-policy", "allkeys-lru", "noeviction", "maxmemory-policy is allkeys-lru"),
        ])
    func volatileRedis(_ setting: String, _ bad: String, _ good: String, _ says: String) async throws {
        let stack = try await Stack(redisOptions: ["--" + setting, bad])
        let worker = try await stack.worker(["FLEET_EXCHANGES": "binance"])
        let trusting = try await stack.worker(["FLEET_EXCHANGES": "bybit", "FLEET_VOLATILE_ORDERS": "yes"])
        let refused = try await stack.run(.binance, .submitOrder, Stack.market("v-1"))
        #expect(refused["status"].text == "rejected" && refused["error"]["code"].text == "volatile_redis", "\(refused)")
        for word in [says, "expected " + (setting == "appendonly" ? "on" : good), "FLEET_VOLATILE_ORDERS"] {
            #expect(refused["error"]["message"].text?.contains(word) == true, "\(refused)")
        }
        #expect(try await sends(stack, .binance) == 0)
        #expect(try await stack.run(.binance, .fetchTicker, ["symbol": "BTC/USDT"])["status"].text == "ok")
        #expect(try await stack.run(.bybit, .submitOrder, Stack.market("v-1"))["status"].text == "ok")
        try await stack.command(["CONFIG", "SET", .text(setting), .text(good)])
        try await eventually("the worker has noticed") { worker.program.errors.contains(#""what":"taken again""#) }
        #expect(try await stack.run(.binance, .submitOrder, Stack.market("v-2"))["status"].text == "ok")
        let first = try await stack.run(.binance, .submitOrder, Stack.market("v-1"))
        #expect(first["error"]["code"].text == "volatile_redis", "an id keeps its first outcome")
        try await stack.command(["CONFIG", "SET", .text(setting), .text(bad)])
        try await eventually("the worker has noticed") {
            worker.program.errors.components(separatedBy: #""what":"refused: \#(says)"#).count == 3
        }
        #expect(try await stack.run(.binance, .submitOrder, Stack.market("v-3"))["status"].text == "rejected")
        #expect(try await stack.orders(.binance).count == 1)
        withExtendedLifetime(trusting) {}
    }

    // MARK: - A person's limits

    @Test("FLEET_MAX_ORDER_NOTIONAL refuses what is worth more, and what is paid in another currency")
    func notional() async throws {
        let stack = try await Stack()
        let worker = try await stack.worker(["FLEET_EXCHANGES": "binance", "FLEET_MAX_ORDER_NOTIONAL": "USDT=50"])
        let cases: [(fields: [String: String], says: [String]?)] = [
            (Stack.resting("n-0"), nil), (Stack.resting("n-1").merging(["amount": "0.002"]) { $1 }, ["'0.002'", "50"]),
            (Stack.market("n-2").merging(["amount": "0.0005"]) { $1 }, nil), (Stack.market("n-3"), ["'0.001'", "50"]),
            (Stack.market("n-4").merging(["symbol": "ETH/BTC", "amount": "0.01"]) { $1 }, ["'ETH/BTC'", "USDT"]),
            // It would be filled at twice its price.
            (Stack.resting("n-5").merging(["side": "sell"]) { $1 }, ["'0.001'", "50"]),
        ]
        for (fields, says) in cases {
            let result = try await stack.run(.binance, .submitOrder, fields)
            #expect(result["status"].text == (says == nil ? "ok" : "rejected"), "\(result)")
            guard let says else { continue }
            #expect(result["error"]["code"].text == "order_notional")
            for word in says + ["expected"] {
                #expect(result["error"]["message"].text?.contains(word) == true, "\(result)")
            }
        }
        #expect(try await sends(stack, .binance) == 2)
        withExtendedLifetime(worker) {}
    }

    @Test("what an order is worth goes by the dearest price there is now, and by its own where that is more")
    func dearest() async throws {
        let stack = try await Stack()
        let fake = FakeHTTPServer { request in
            if request.target.contains("exchangeInfo") { return .text(binanceMarkets) }
            if request.target.hasSuffix("/time") { return .text(#"{"serverTime":\#(wallClockMs())}"#) }
            let ticker = #"{"symbol":"BTCUSDT","lastPrice":"30000","bidPrice":"20000","askPrice":"40000"}"#
            if request.target.contains("ticker") { return .text(ticker) }
            return .text(#"{"clientOrderId":"o","orderId":7,"status":"FILLED"}"#)
        }
        let worker = try await stack.worker([
            "FLEET_EXCHANGES": "binance", "BINANCE_URL": fake.url, "FLEET_MAX_ORDER_NOTIONAL": "USDT=50",
        ])
        // Too long ago to go by.
        let old = #"\#(wallClockMs() - 6000) {"symbol":"BTC/USDT","last":"1"}"#
        try await stack.command(["SET", Stack.key(.binance, "cache:BTC/USDT"), .text(old)])
        let cases: [([String: String], String)] = [
            (Stack.market("d-0").merging(["amount": "0.0015"]) { $1 }, "rejected"), (Stack.market("d-1"), "ok"),
            (Stack.resting("d-2").merging(["side": "sell", "price": "60000"]) { $1 }, "rejected"),
        ]
        for (fields, status) in cases {
            let result = try await stack.run(.binance, .submitOrder, fields)
            #expect(result["status"].text == status, "\(result)")
        }
        withExtendedLifetime(worker) {}
    }

    @Test(
        "a limit that is no amount ends the worker at its start with a sentence",
        arguments: [
            "50", "USDT", "USDT=", "USDT=x", "USDT=-5", "USDT=0", "USDT=1e3", "USDT=5000,BTC", "=5", "USDT=1,usdt=2",
        ])
    func badNotional(_ value: String) async throws {
        let directory = try TemporaryDirectory()
        let program = try Program(
            [Program.binaries + "/worker"], environment: ["FLEET_MAX_ORDER_NOTIONAL": value], in: directory)
        #expect(try await program.exited() == 64)
        #expect(program.errors.contains("FLEET_MAX_ORDER_NOTIONAL='\(value)': expected a currency and a decimal"))
    }

    // MARK: - Pause and resume

    @Test("a paused kind is not read, an order in hand does not begin, cancels go through, and resume lets all go on")
    func paused() async throws {
        let stack = try await Stack()
        let worker = try await stack.worker()
        // The first order of a lane has to ask for the market list.
        try await stack.control(#"{"latency_ms":1500}"#)
        for exchange in Exchange.allCases { try await stack.push(exchange, .submitOrder, Stack.market("hand")) }
        for exchange in Exchange.allCases {
            try await eventually("it is in hand") { try await stack.backlog(exchange).pending == 1 }
            try await stack.command(["SADD", Stack.key(exchange, "paused"), "submit_order"])
        }
        for exchange in Exchange.allCases {
            try await eventually("it is put aside, and no other is read") {
                try await stack.command(["ZCARD", Stack.key(exchange, "delayed")]) == .integer(1)
            }
            #expect(try await sends(stack, exchange) == 0)
            #expect(try await stack.journal(exchange, "hand").isEmpty)
        }
        try await stack.endFaults()
        try await eventually("every lane says so") {
            worker.program.errors.components(separatedBy: #""what":"submit_order""#).count == 4
        }
        for exchange in Exchange.allCases {
            try await stack.push(exchange, .submitOrder, Stack.market("waiting"))
            try await stack.push(exchange, .submitOrder, Stack.market("canceled"))
            let result = try await stack.run(exchange, .cancelOrder, cancel("c", of: "canceled"))
            #expect(result["status"].text == "ok" && result["data"]["status"].text == "canceled", "\(result)")
            #expect(try await stack.run(exchange, .fetchTicker, ["symbol": "BTC/USDT"])["status"].text == "ok")
            try await eventually("the first has come back to its stream") {
                try await stack.backlog(exchange).entries == 3
            }
            #expect(try await stack.backlog(exchange).pending == 0, "none is read")
            #expect(try await sends(stack, exchange) == 0)
            try await stack.command(["SREM", Stack.key(exchange, "paused"), "submit_order"])
        }
        for exchange in Exchange.allCases {
            for id in ["hand", "waiting"] {
                let result = try await stack.result(exchange, id)
                #expect(result["status"].text == "ok" && result["attempt"].int == 1, "\(result)")
                #expect(try await stack.orders(exchange, jobId: id).count == 1)
            }
            #expect(try await stack.result(exchange, "canceled")["data"]["status"].text == "canceled")
            #expect(try await sends(stack, exchange) == 2)
        }
        withExtendedLifetime(worker) {}
    }

    @Test("what a read brings after its kind was paused does not begin")
    func pausedWhileReading() async throws {
        let stack = try await Stack()
        let worker = try await stack.worker(["FLEET_EXCHANGES": "binance"])
        #expect(try await stack.run(.binance, .fetchTicker, ["symbol": "BTC/USDT"])["status"].text == "ok")
        try await stack.command(["SADD", Stack.key(.binance, "paused"), "fetch_ticker"])
        try await eventually("the lane says so") { worker.program.errors.contains(#""what":"fetch_ticker""#) }
        // The read that blocks may still be one for all kinds.
        try await stack.push(.binance, .fetchTicker, ["id": "t", "symbol": "BTC/USDT", "max_age_ms": "86400000"])
        #expect(try await stack.run(.binance, .refreshCache, ["symbols": "BTC/USDT"])["status"].text == "ok")
        #expect(try await stack.command(["GET", Stack.key(.binance, "result:t")]) == .null)
        try await stack.command(["SREM", Stack.key(.binance, "paused"), "fetch_ticker"])
        #expect(try await stack.result(.binance, "t")["attempt"].int == 1)
        withExtendedLifetime(worker) {}
    }

    // MARK: - First outcomes

    @Test("an order that was refused answers the same id with its first outcome, whatever is asked then")
    func firstOutcome() async throws {
        let stack = try await Stack()
        let worker = try await stack.worker()
        let cases: [(id: String, change: [String: String], status: String, sends: Int)] = [
            ("rule", ["amount": "0.000000001"], "rejected", 0), ("funds", ["amount": "70"], "rejected", 1),
            ("late", ["deadline_ms": "1"], "expired", 0), ("market", ["symbol": "NO/SUCH"], "rejected", 0),
        ]
        for exchange in Exchange.allCases {
            for (id, change, status, count) in cases {
                let before = try await sends(stack, exchange)
                let fields = Stack.resting(id).merging(change) { $1 }
                let first = try await stack.run(exchange, .submitOrder, fields)
                #expect(first["status"].text == status, "\(first)")
                try await stack.command(["DEL", Stack.key(exchange, "result:" + id)])
                let again = try await stack.run(exchange, .submitOrder, Stack.market(id))
                #expect(again["status"].text == status && again["error"] == first["error"], "\(first) \(again)")
                #expect(try await sends(stack, exchange) == before + count)
            }
            #expect(try await stack.orders(exchange).isEmpty)
        }
        withExtendedLifetime(worker) {}
    }

    @Test("what cannot be understood does not take the place of an order's first outcome")
    func malformedAgain() async throws {
        let stack = try await Stack()
        let worker = try await stack.worker(["FLEET_EXCHANGES": "binance"])
        let first = try await stack.run(.binance, .submitOrder, Stack.resting("m"))
        try await stack.command(["DEL", Stack.key(.binance, "result:m")])
        let again = try await stack.run(.binance, .submitOrder, Stack.resting("m").merging(["amount": "0,001"]) { $1 })
        #expect(again["status"].text == "ok" && again["data"] == first["data"], "\(again)")
        // While an order is under way, its end is waited for.
        try await stack.journal(.binance, "w", ["state": "sending", "send_until_ms": "9999999999999", "sends": "1"])
        try await stack.push(.binance, .submitOrder, ["id": "w", "symbol": "BTC/USDT"])
        try await eventually("it was put aside") { try await stack.added(.binance, .submitOrder) > 3 }
        #expect(try await stack.command(["GET", Stack.key(.binance, "result:w")]) == .null)
        try await stack.journal(.binance, "w", ["state": "accepted", "outcome": #""status":"ok","data":{}"#])
        #expect(try await stack.result(.binance, "w")["status"].text == "ok")
        let other = try await stack.run(.binance, .submitOrder, ["id": "n", "symbol": "BTC/USDT"])
        #expect(other["status"].text == "rejected" && other["error"]["code"].text == "malformed_job", "\(other)")
        withExtendedLifetime(worker) {}
    }

    // MARK: - Uncertain orders

    @Test("an order proven absent is sent once more after the exchange's window; one that is canceled meanwhile is not")
    func provenAbsent() async throws {
        let stack = try await Stack()
        let worker = try await stack.worker()
        for exchange in Exchange.allCases { _ = try await stack.run(exchange, .submitOrder, Stack.resting("before")) }
        try await stack.control(#"{"drop_before_rate":1}"#)
        for exchange in Exchange.allCases {
            for id in ["again", "gone"] { try await stack.push(exchange, .submitOrder, Stack.market(id)) }
        }
        for exchange in Exchange.allCases {
            try await eventually("both sends are uncertain") {
                let journals = [try await stack.journal(exchange, "again"), try await stack.journal(exchange, "gone")]
                return journals.allSatisfy { $0["uncertain_ms"] != nil }
            }
        }
        try await stack.endFaults()
        for exchange in Exchange.allCases {
            try await stack.push(exchange, .cancelOrder, cancel("c", of: "gone"))
        }
        for (exchange, api) in zip(Exchange.allCases, try Configuration([:]).apis) {
            let result = try await stack.result(exchange, "again", within: .seconds(60))
            #expect(result["status"].text == "ok" && result["data"]["status"].text == "filled", "\(result)")
            let orders = try await stack.orders(exchange, jobId: "again")
            let journal = try await stack.journal(exchange, "again")
            #expect(orders.count == 1 && journal["sends"] == "2", "\(journal)")
            let waited = (orders.first?["accepted_ms"].int ?? 0) - (journal["begun_ms"].flatMap { Int($0) } ?? 0)
            #expect(waited >= Int(api.acceptance / .milliseconds(1)), "\(waited) ms after the first send")
            for id in ["gone", "c"] {
                let result = try await stack.result(exchange, id)
                #expect(result["status"].text == "ok" && result["data"]["status"].text == "canceled", "\(result)")
            }
            #expect(try await stack.orders(exchange, jobId: "gone").isEmpty)
            #expect(try await sends(stack, exchange) == 4, "one before, two that were lost, one again")
        }
        withExtendedLifetime(worker) {}
    }

    @Test("the end of an order that Redis refuses to write at first is not forgotten while the exchange hides it")
    func endRefused() async throws {
        let stack = try await Stack()
        let socket = stack.redis.withLock(\.socket)
        let refusals = Mutex(0)
        @Sendable func follow(_ master: [String]) {
            guard let cli = try? Program(["redis-cli", "-s", socket, "REPLICAOF"] + master, in: stack.directory) else {
                return
            }
            while cli.exitStatus == nil { usleep(1000) }
        }
        // Read-only for as long as the worker needs to be told so.
        let proxy = Proxy(to: .unix(socket)) { direction, _, bytes in
            let text = String(decoding: bytes, as: UTF8.self)
            if direction == .request, text.contains("$17\r\nfleet_journal_end\r\n"), refusals.withLock({ $0 == 0 }) {
                refusals.withLock { $0 = 1 }
                follow(["127.0.0.1", "1"])
            } else if direction == .answer, text.contains("READONLY"), refusals.withLock({ $0 == 1 }) {
                refusals.withLock { $0 = 2 }
                follow(["NO", "ONE"])
            }
            return true
        }
        let url = "redis://127.0.0.1:\(proxy.port)"
        let worker = try await stack.worker(["REDIS_URL": url, "FLEET_EXCHANGES": "binance"])
        try await stack.control(#"{"query_lag_ms":600000}"#)
        let result = try await stack.run(.binance, .submitOrder, Stack.market("refused"))
        #expect(result["status"].text == "ok" && result["data"]["status"].text == "filled", "\(result)")
        #expect(refusals.withLock { $0 } == 2)
        #expect(try await stack.orders(.binance, jobId: "refused").count == 1)
        withExtendedLifetime((worker, proxy)) {}
    }

    @Test("a refusal that reaches Redis after another worker has sent the order anew is not its outcome")
    func lateRefusal() async throws {
        let stack = try await Stack()
        let socket = stack.redis.withLock(\.socket)
        let refusals = Mutex(0)
        let fake = FakeHTTPServer.bybit(refusing: #"{"retCode":10004,"retMsg":"error sign!","time":1}"#)
        let proxy = Proxy(to: .unix(socket)) { direction, _, bytes in
            let text = String(decoding: bytes, as: UTF8.self)
            guard direction == .request, text.contains("$17\r\nfleet_journal_end\r\n") else { return true }
            refusals.withLock { $0 += 1 }
            // As if this worker had slept just here, and another had proven the order absent and sent it.
            let other = ["redis-cli", "-s", socket, "HSET", "fleet:{bybit}:order:late", "owner", "other 0-1"]
            guard let cli = try? Program(other, in: stack.directory) else { return true }
            while cli.exitStatus == nil { usleep(1000) }
            return true
        }
        let worker = try await stack.worker([
            "REDIS_URL": "redis://127.0.0.1:\(proxy.port)", "BYBIT_URL": fake.url, "FLEET_EXCHANGES": "bybit",
        ])
        try await stack.push(.bybit, .submitOrder, Stack.resting("late"))
        try await eventually("it was refused and put aside") { try await stack.added(.bybit, .submitOrder) > 1 }
        #expect(refusals.withLock { $0 } == 1)
        let journal = try await stack.journal(.bybit, "late")
        #expect(journal["state"] == "sending" && journal["outcome"] == nil, "\(journal)")
        try await stack.journal(.bybit, "late", ["state": "accepted", "outcome": #""status":"ok","data":{}"#])
        #expect(try await stack.result(.bybit, "late")["status"].text == "ok")
        withExtendedLifetime((worker, proxy, fake)) {}
    }

    @Test(
        "an order whose journal was overwritten ends unknown, and is not sent",
        arguments: [("SET", ["what is this?"]), ("HSET", ["outcome", "{}"])])
    func overwritten(_ command: String, _ value: [String]) async throws {
        let stack = try await Stack()
        try await stack.command([.text(command), Stack.key(.binance, "order:o")] + value)
        let worker = try await stack.worker(["FLEET_EXCHANGES": "binance"])
        let result = try await stack.run(.binance, .submitOrder, Stack.market("o"))
        #expect(result["status"].text == "unknown" && result["error"]["code"].text == "order_unknown", "\(result)")
        #expect(try await stack.orders(.binance).isEmpty)
        #expect(try await stack.command(["XLEN", Stack.key(.binance, "dead")]) == .integer(1))
        withExtendedLifetime(worker) {}
    }

    @Test("an order that an exchange may hide for longer is not sent again before that")
    func hidden() async throws {
        let stack = try await Stack()
        let worker = try await stack.worker(["FLEET_EXCHANGES": "binance", "FLEET_ORDER_LAG": "30"])
        _ = try await stack.run(.binance, .submitOrder, Stack.resting("before"))
        // Longer than the simulator is expected to, and than the window and the two questions after it.
        try await stack.control(#"{"drop_after_rate":1,"query_lag_ms":35000}"#)
        try await stack.push(.binance, .submitOrder, Stack.market("o"))
        try await eventually("nobody knows") { try await stack.journal(.binance, "o")["uncertain_ms"] != nil }
        try await stack.control(#"{"drop_after_rate":0}"#)
        let result = try await stack.result(.binance, "o", within: .seconds(90))
        #expect(result["status"].text == "ok" && result["data"]["status"].text == "filled", "\(result)")
        #expect(try await stack.orders(.binance, jobId: "o").count == 1)
        withExtendedLifetime(worker) {}
    }

    @Test("absurd times in a journal that somebody wrote stop no worker")
    func absurdJournal() async throws {
        let stack = try await Stack()
        for (id, time) in [("o", Int64.max), ("p", .min)] {
            try await stack.journal(
                .binance, id, ["state": "sending", "stamp_ms": "\(time)", "first_stamp_ms": "\(time)", "sent_ms": "1"])
        }
        let worker = try await stack.worker(["FLEET_EXCHANGES": "binance"])
        for id in ["o", "p"] { try await stack.push(.binance, .submitOrder, Stack.market(id)) }
        try await eventually("both were asked about") { try await stack.added(.binance, .submitOrder) > 5 }
        #expect(try await stack.orders(.binance).isEmpty && worker.program.exitStatus == nil)
    }

    @Test("an order that is shown late ends ok with its fill, whether its answer was lost or only acknowledged")
    func shownLate() async throws {
        let stack = try await Stack()
        let worker = try await stack.worker()
        for exchange in Exchange.allCases { _ = try await stack.run(exchange, .submitOrder, Stack.resting("before")) }
        try await stack.control(#"{"query_lag_ms":3000}"#)
        for exchange in Exchange.allCases {
            // One that was sent long ago in vain: the exchange has as long to show its second send.
            try await stack.journal(exchange, "anew", ["state": "released", "begun_ms": "1", "sent_ms": "1"])
            for id in ["told", "anew"] { try await stack.push(exchange, .submitOrder, Stack.market(id)) }
        }
        for exchange in Exchange.allCases {
            for id in ["told", "anew"] {
                try await eventually("it has been taken") { try await stack.orders(exchange, jobId: id).count == 1 }
            }
        }
        try await stack.control(#"{"drop_after_rate":1}"#)
        for exchange in Exchange.allCases { try await stack.push(exchange, .submitOrder, Stack.market("lost")) }
        for exchange in Exchange.allCases {
            try await eventually("its answer is lost") {
                try await stack.journal(exchange, "lost")["uncertain_ms"] != nil
            }
        }
        try await stack.control(#"{"drop_after_rate":0}"#)
        for exchange in Exchange.allCases {
            for id in ["told", "anew", "lost"] {
                let result = try await stack.result(exchange, id)
                #expect(result["status"].text == "ok" && result["data"]["status"].text == "filled", "\(result)")
                #expect(result["data"]["filled"].double == 0.001 && result["data"]["average_price"].double != nil)
                #expect(try await stack.orders(exchange, jobId: id).count == 1)
            }
            #expect(try await sends(stack, exchange) == 4)
        }
        withExtendedLifetime(worker) {}
    }

    @Test(
        "an order that the exchange does not show ends unknown, stays so when asked again, and is taken up once shown")
    func unknown() async throws {
        let stack = try await Stack()
        let worker = try await stack.worker()
        for exchange in Exchange.allCases {
            let first = try await stack.run(exchange, .submitOrder, Stack.market("u"))
            let id = try #require(first["data"]["exchange_order_id"].text)
            // The state of a worker that has got no further than the acknowledgement, long ago.
            try await stack.command(["DEL", Stack.key(exchange, "order:u"), Stack.key(exchange, "result:u")])
            try await stack.journal(
                exchange, "u",
                [
                    "state": "sending", "owner": "ghost 0-1", "begun_ms": "1", "sent_ms": "1", "send_until_ms": "2",
                    "sends": "1", "absent": "0", "exchange_order_id": id,
                ])
        }
        try await stack.control(#"{"query_lag_ms":600000}"#)
        for round in 1...2 {
            for exchange in Exchange.allCases {
                let asked = try await stack.requests(exchange, "rder")
                let result = try await stack.run(exchange, .submitOrder, Stack.market("u"))
                #expect(
                    result["status"].text == "unknown" && result["error"]["code"].text == "order_unknown", "\(result)")
                #expect(result["data"]["client_order_id"].text?.isEmpty == false, "what to look for")
                #expect(try await stack.requests(exchange, "rder") > asked, "asked once more")
                let dead = try await stack.dead(exchange)
                #expect(dead.count == round && dead.allSatisfy { $0["fleet_reason"] == "unknown" }, "\(dead)")
                try await stack.command(["DEL", Stack.key(exchange, "result:u")])
            }
        }
        try await stack.endFaults()
        for exchange in Exchange.allCases {
            let result = try await stack.run(exchange, .submitOrder, Stack.market("u"))
            #expect(result["status"].text == "ok" && result["data"]["status"].text == "filled", "\(result)")
            #expect(try await sends(stack, exchange) == 1)
        }
        withExtendedLifetime(worker) {}
    }
}
