import Exchanges
import Foundation
import Logging
import Redis
import Synchronization
import TestSupport
import Testing

@testable import Fleet

/// What an exchange shows or does not show, and what that proves of an order.
@Suite("Orders: what proves what became of them", .serialized, .timeLimit(.minutes(3)))
struct OrderEvidenceTests {
    private static let binance = ["FLEET_EXCHANGES": "binance"]

    /// A journal as a dead worker left it: the send is `ago` ms old and may be accepted for another `left` ms.
    private func leave(_ stack: Stack, _ id: String, ago: Int64, left: Int64, _ more: [String: String] = [:])
        async throws
    {
        let now = wallClockMs()
        try await stack.journal(
            .binance, id,
            [
                "state": "sending", "owner": "ghost 0-1", "begun_ms": "\(now - ago)", "sent_ms": "\(now - ago)",
                "send_until_ms": "\(now + left)", "sends": "1", "absent": "0", "uncertain_ms": "\(now - ago)",
            ].merging(more) { $1 })
    }

    /// An order whose worker died long ago with its last delivery.
    private func orphan(_ stack: Stack, _ exchange: Exchange, _ order: [String: String], deliveries: Int = 1)
        async throws
    {
        let stream = Stack.key(exchange, "jobs:submit_order")
        // Where a worker was, there is the group.
        _ = await stack.pipeline([["XGROUP", "CREATE", stream, "workers", "0", "MKSTREAM"]])
        let entry = try await stack.push(exchange, .submitOrder, order)
        try await stack.command(["XREADGROUP", "GROUP", "workers", "ghost", "STREAMS", stream, ">"])
        try await stack.command([
            "XCLAIM", stream, "workers", "ghost", 0, .text(entry), "IDLE", 60_000, "RETRYCOUNT", .int(deliveries),
        ])
    }

    @Test("a journal lives as long as the order's result", arguments: [true, false])
    func journalLife(_ isOwn: Bool) async throws {
        let stack = try await Stack()
        let month = 2_592_000
        let setting = ["FLEET_ORDER_RESULT_TTL": isOwn ? "60" : "\(month)"]
        let worker = try await stack.worker(Self.binance.merging(setting) { $1 })
        let order = Stack.market("o").merging(isOwn ? ["result_ttl_s": "\(month)"] : [:]) { $1 }
        #expect(try await stack.run(.binance, .submitOrder, order)["status"].text == "ok")
        let left = try await stack.command(["TTL", Stack.key(.binance, "order:o")]).int ?? 0
        #expect((month - 60...month).contains(left))
        withExtendedLifetime(worker) {}
    }

    @Test(
        "an id used again for another order does not end with what became of the first",
        arguments: [Exchange.binance, .kraken], [["side": "sell"], ["price": "32001"]])
    func anotherOrder(_ exchange: Exchange, _ other: [String: String]) async throws {
        let stack = try await Stack()
        let worker = try await stack.worker(["FLEET_EXCHANGES": exchange.rawValue])
        #expect(try await stack.run(exchange, .submitOrder, Stack.resting("o"))["status"].text == "ok")
        for key in ["order:o", "result:o"] { try await stack.command(["DEL", Stack.key(exchange, key)]) }
        try await stack.control(#"{"drop_before_rate":1}"#)
        try await stack.push(exchange, .submitOrder, Stack.resting("o").merging(other) { $1 })
        try await eventually("its send is uncertain") {
            try await stack.journal(exchange, "o")["uncertain_ms"] != nil
        }
        try await stack.endFaults()
        let result = try await stack.result(exchange, "o")
        #expect(result["status"].text == "unknown", "\(result)")
        #expect(result["error"]["message"].text?.contains("another order has its client order id") == true, "\(result)")
        #expect(try await stack.orders(exchange, jobId: "o").count == 1)
        withExtendedLifetime(worker) {}
    }

    @Test("an order made long before this one was sent is not taken for it")
    func olderOrder() async throws {
        let stack = try await Stack()
        let worker = try await stack.worker(Self.binance)
        let order = try await stack.run(.binance, .submitOrder, Stack.resting("o"))
        let made = Int64(try #require(order["data"]["exchange_ms"].int))
        try await eventually("it has rested for a while") { wallClockMs() > made + 100 }
        _ = try await stack.run(.binance, .cancelOrder, ["id": "c", "symbol": "BTC/USDT", "order_id": "o"])
        for key in ["order:o", "result:o"] { try await stack.command(["DEL", Stack.key(.binance, key)]) }
        // More than an hour after the old order was made, if not after it ended.
        let (later, asked) = ("\(made + 3_600_050)", "\(wallClockMs() - 301_000)")
        try await leave(stack, "o", ago: 60_000, left: -1, ["first_stamp_ms": later, "unasked_ms": asked])
        // Binance shows one order an id: whether it would show the one that is meant nobody says.
        let result = try await stack.run(.binance, .submitOrder, Stack.resting("o"))
        #expect(result["status"].text == "unknown", "\(result)")
        #expect(result["error"]["message"].text?.contains("an older order of the same id") == true, "\(result)")
        #expect(try await stack.orders(.binance, jobId: "o").count == 1)
        withExtendedLifetime(worker) {}
    }

    @Test("an order whose job may kill workers is not called unknown before the exchange's window has passed")
    func poisonInWindow() async throws {
        let stack = try await Stack()
        try await leave(stack, "o", ago: 100, left: 4000)
        try await orphan(stack, .binance, Stack.market("o"), deliveries: 3)
        let worker = try await stack.worker(Self.binance)
        let result = try await stack.result(.binance, "o")
        #expect(result["status"].text == "ok" && result["data"]["status"].text == "filled", "\(result)")
        #expect(try await stack.orders(.binance, jobId: "o").count == 1)
        withExtendedLifetime(worker) {}
    }

    @Test("an order whose job may kill workers ends as the exchange shows it")
    func poisonShown() async throws {
        let stack = try await Stack()
        let first = try await stack.worker(Self.binance)
        #expect(try await stack.run(.binance, .submitOrder, Stack.market("o"))["status"].text == "ok")
        first.program.signal(SIGKILL)
        for key in ["order:o", "result:o"] { try await stack.command(["DEL", Stack.key(.binance, key)]) }
        try await leave(stack, "o", ago: 2000, left: -1)
        try await orphan(stack, .binance, Stack.market("o"), deliveries: 3)
        let second = try await stack.worker(Self.binance)
        let result = try await stack.result(.binance, "o")
        #expect(result["status"].text == "ok" && result["data"]["status"].text == "filled", "\(result)")
        withExtendedLifetime(second) {}
    }

    @Test("time in which nobody asked counts for nothing: one failed question later an order is not unknown")
    func patience() async throws {
        let stack = try await Stack()
        let worker = try await stack.worker(Self.binance)
        _ = try await stack.run(.binance, .submitOrder, Stack.resting("before"))
        try await leave(stack, "n", ago: 600_000, left: -582_000, ["unasked_ms": "\(wallClockMs() - 200_000)"])
        try await leave(stack, "o", ago: 600_000, left: -582_000)
        try await stack.control(#"{"error_rate":1}"#)
        for id in ["n", "o"] { try await stack.push(.binance, .submitOrder, Stack.market(id)) }
        try await eventually("a question has failed") { try await stack.journal(.binance, "o")["unasked_ms"] != nil }
        try await stack.endFaults()
        for id in ["n", "o"] {
            let result = try await stack.result(.binance, id)
            #expect(result["status"].text == "ok" && result["data"]["status"].text == "filled", "\(result)")
            #expect(try await stack.orders(.binance, jobId: id).count == 1)
        }
        // And in which nobody answered counts.
        try await leave(stack, "p", ago: 600_000, left: -582_000, ["unasked_ms": "\(wallClockMs() - 301_000)"])
        try await stack.control(#"{"error_rate":1}"#)
        #expect(try await stack.run(.binance, .submitOrder, Stack.market("p"))["status"].text == "unknown")
        #expect(try await stack.command(["SCARD", Stack.key(.binance, "unsettled")]) == .integer(1))
        withExtendedLifetime(worker) {}
    }

    @Test("while an exchange is away for long its uncertain orders end unknown, though calls to it are stopped")
    func away() async throws {
        let stack = try await Stack()
        let worker = try await stack.worker(Self.binance)
        _ = try await stack.run(.binance, .submitOrder, Stack.resting("before"))
        try await stack.control(#"{"error_rate":1}"#)
        // The failures that open a breaker, and then more.
        let ids = (0..<12).map { "o-\($0)" }
        for some in [ids.prefix(5), ids.dropFirst(5)] {
            for id in some {
                try await leave(stack, id, ago: 600_000, left: -582_000, ["unasked_ms": "\(wallClockMs() - 301_000)"])
                try await stack.push(.binance, .submitOrder, Stack.market(id))
            }
            for id in some { #expect(try await stack.result(.binance, id)["status"].text == "unknown") }
        }
        #expect(try await stack.requests(.binance, "GET /api/v3/order") < ids.count)
        withExtendedLifetime(worker) {}
    }

    @Test("an order that was acknowledged is looked for for a minute before it is unknown")
    func acknowledgedUnseen() async throws {
        let stack = try await Stack()
        let worker = try await stack.worker(Self.binance)
        let first = try await stack.run(.binance, .submitOrder, Stack.market("o"))
        let id = try #require(first["data"]["exchange_order_id"].text)
        for key in ["order:o", "result:o"] { try await stack.command(["DEL", Stack.key(.binance, key)]) }
        try await leave(stack, "o", ago: 30_000, left: -1, ["exchange_order_id": id, "absent": "2"])
        try await stack.control(#"{"query_lag_ms":600000}"#)
        let asked = try await stack.requests(.binance, "GET /api/v3/order")
        try await stack.push(.binance, .submitOrder, Stack.market("o"))
        try await eventually("it is looked for") {
            try await stack.requests(.binance, "GET /api/v3/order") > asked
        }
        try await stack.endFaults()
        let result = try await stack.result(.binance, "o")
        #expect(result["status"].text == "ok" && result["data"]["status"].text == "filled", "\(result)")
        withExtendedLifetime(worker) {}
    }

    @Test("calls that are stopped for a moment make no order unknown that nobody has asked about for long")
    func stoppedForAMoment() async throws {
        let stack = try await Stack()
        try await leave(stack, "o", ago: 600_000, left: -582_000, ["unasked_ms": "\(wallClockMs() - 301_000)"])
        let worker = try await stack.worker(Self.binance.merging(["FLEET_LIMITS": "on"]) { $1 })
        try await leave(stack, "p", ago: 60_000, left: -1)
        let gate = Keys(.binance).gate("default")
        try await stack.command(FunctionLibrary.command("fleet_limit_close", [gate], [4000]))
        try await stack.push(.binance, .submitOrder, Stack.market("p"))
        try await eventually("it is noted") { try await stack.journal(.binance, "p")["unasked_ms"] != nil }
        let result = try await stack.run(.binance, .submitOrder, Stack.market("o"))
        #expect(result["status"].text == "ok" && result["data"]["status"].text == "filled", "\(result)")
        withExtendedLifetime(worker) {}
    }

    @Test("an order whose journal is lost while it is sent ends unknown")
    func journalLostInSend() async throws {
        let stack = try await Stack()
        let worker = try await stack.worker(Self.binance)
        _ = try await stack.run(.binance, .submitOrder, Stack.resting("before"))
        try await stack.control(#"{"latency_ms":1500,"drop_after_rate":1}"#)
        try await stack.push(.binance, .submitOrder, Stack.market("o"))
        try await eventually("it is sent") { try await stack.journal(.binance, "o")["state"] == "sending" }
        try await stack.command(["DEL", Stack.key(.binance, "order:o")])
        let result = try await stack.result(.binance, "o")
        #expect(result["status"].text == "unknown" && result["error"]["code"].text == "order_unknown", "\(result)")
        #expect(try await stack.orders(.binance, jobId: "o").count == 1)
        withExtendedLifetime(worker) {}
    }

    @Test("an order of which the exchange has said that it has one of its id is never sent again")
    func duplicate() async throws {
        let stack = try await Stack()
        let fake = FakeHTTPServer { request in
            if request.target.contains("exchangeInfo") { return .text(binanceMarkets) }
            if request.target.hasSuffix("/time") { return .text(#"{"serverTime":\#(wallClockMs())}"#) }
            if request.method == "POST" { return .text(#"{"code":-2010,"msg":"Duplicate order sent."}"#, status: 400) }
            return .text(#"{"code":-2013,"msg":"Order does not exist."}"#, status: 400)
        }
        let worker = try await stack.worker(Self.binance.merging(["BINANCE_URL": fake.url]) { $1 })
        try await stack.push(.binance, .submitOrder, Stack.resting("o"))
        try await eventually("it is noted") { try await stack.journal(.binance, "o")["acknowledged_ms"] != nil }
        // As if it had been looked for in vain for a minute since.
        let before = ["sent_ms": "\(wallClockMs() - 61_000)", "send_until_ms": "1", "absent": "2"]
        try await stack.journal(.binance, "o", before)
        let result = try await stack.result(.binance, "o")
        #expect(result["status"].text == "unknown", "\(result)")
        #expect(fake.requests.count { $0.method == "POST" } == 1)
        withExtendedLifetime(worker) {}
    }

    @Test(
        "an order that was shown once is never sent again, nor called prevented, though it is hidden then",
        arguments: [Kind.submitOrder, .cancelOrder])
    func hiddenAgain(_ asker: Kind) async throws {
        let stack = try await Stack()
        let isHidden = Atomic(false)
        let fake = FakeHTTPServer { request in
            if request.target.contains("exchangeInfo") { return .text(binanceMarkets) }
            if request.target.hasSuffix("/time") { return .text(#"{"serverTime":\#(wallClockMs())}"#) }
            if request.method == "POST" { return .text("", status: 502) }
            if request.method == "DELETE" { return .text(#"{"code":-2011,"msg":"Unknown order sent."}"#, status: 400) }
            return isHidden.load(ordering: .relaxed)
                ? .text(#"{"code":-2013,"msg":"Order does not exist."}"#, status: 400)
                : .text(#"{"clientOrderId":"o","orderId":7,"status":"NEW"}"#)
        }
        let worker = try await stack.worker(Self.binance.merging(["BINANCE_URL": fake.url]) { $1 })
        if asker == .submitOrder {
            try await stack.push(.binance, .submitOrder, Stack.market("o"))
        } else {
            try await leave(stack, "o", ago: 1000, left: 60_000)
            try await stack.push(.binance, .cancelOrder, ["id": "c", "symbol": "BTC/USDT", "order_id": "o"])
        }
        try await eventually("it is noted") { try await stack.journal(.binance, "o")["exchange_order_id"] == "7" }
        isHidden.store(true, ordering: .relaxed)
        // As if it had been looked for in vain for a minute since.
        let before = ["sent_ms": "\(wallClockMs() - 61_000)", "send_until_ms": "1", "absent": "2"]
        try await stack.journal(.binance, "o", before)
        if asker == .cancelOrder { try await stack.push(.binance, .submitOrder, Stack.market("o")) }
        let result = try await stack.result(.binance, "o")
        #expect(result["status"].text == "unknown", "\(result)")
        #expect(fake.requests.count { $0.method == "POST" } == (asker == .submitOrder ? 1 : 0))
        withExtendedLifetime(worker) {}
    }

    @Test(
        "an order that nobody has asked about for long may be hidden because it has changed: it is not sent again at once"
    )
    func longUnasked() async throws {
        let stack = try await Stack()
        let questions = Atomic(0)
        let fake = FakeHTTPServer { request in
            if request.target.contains("exchangeInfo") { return .text(binanceMarkets) }
            if request.target.hasSuffix("/time") { return .text(#"{"serverTime":\#(wallClockMs())}"#) }
            // Three absences are two and the look at them.
            let isHidden = request.method == "GET" && questions.add(1, ordering: .relaxed).newValue <= 3
            return isHidden
                ? .text(#"{"code":-2013,"msg":"Order does not exist."}"#, status: 400)
                : .text(#"{"clientOrderId":"o","orderId":7,"status":"FILLED"}"#)
        }
        try await leave(stack, "o", ago: 100_000, left: -1)
        let worker = try await stack.worker(Self.binance.merging(["BINANCE_URL": fake.url]) { $1 })
        let result = try await stack.run(.binance, .submitOrder, Stack.market("o"))
        #expect(result["data"]["status"].text == "filled", "\(result)")
        #expect(!fake.requests.contains { $0.method == "POST" })
        // A cancel needs no question then, though the exchange hides it again.
        questions.store(0, ordering: .relaxed)
        let cancel = try await stack.run(.binance, .cancelOrder, ["id": "c", "symbol": "BTC/USDT", "order_id": "o"])
        #expect(cancel["status"].text == "rejected" && cancel["data"]["status"].text == "filled", "\(cancel)")
        #expect(!fake.requests.contains { $0.method == "DELETE" })
        withExtendedLifetime(worker) {}
    }

    @Test("an answer of Binance that is not the end of an order, or of a cancel, is not taken for it")
    func notTheEnd() async throws {
        let stack = try await Stack()
        let answers = Atomic(0)
        let fake = FakeHTTPServer { request in
            if request.target.contains("exchangeInfo") { return .text(binanceMarkets) }
            if request.target.hasSuffix("/time") { return .text(#"{"serverTime":\#(wallClockMs())}"#) }
            // To the order itself, and to the first question.
            let status = answers.add(1, ordering: .relaxed).newValue < 3 ? "NEW" : "FILLED"
            return .text(#"{"clientOrderId":"o","orderId":7,"status":"\#(status)","side":"BUY","type":"MARKET"}"#)
        }
        let worker = try await stack.worker(Self.binance.merging(["BINANCE_URL": fake.url]) { $1 })
        let order = try await stack.run(.binance, .submitOrder, Stack.market("o"))
        #expect(order["status"].text == "ok" && order["data"]["status"].text == "filled", "\(order)")
        let cancel = try await stack.run(.binance, .cancelOrder, ["id": "c", "symbol": "BTC/USDT", "order_id": "o"])
        #expect(cancel["status"].text == "rejected" && cancel["error"]["code"].text == "order_closed", "\(cancel)")
        withExtendedLifetime(worker) {}
    }

    @Test("a market that was closed when the list was loaded is looked at again before an order is refused")
    func reopened() async throws {
        let stack = try await Stack()
        let isOpen = Atomic(false)
        let fake = FakeHTTPServer { request in
            if request.target.contains("exchangeInfo") {
                let status = isOpen.load(ordering: .relaxed) ? "TRADING" : "BREAK"
                return .text(binanceMarkets.replacing("TRADING", with: status))
            }
            if request.target.hasSuffix("/time") { return .text(#"{"serverTime":\#(wallClockMs())}"#) }
            return .text(#"{"clientOrderId":"o","orderId":7,"status":"FILLED"}"#)
        }
        let settings = Self.binance.merging(["BINANCE_URL": fake.url]) { $1 }
        let first = try await stack.worker(settings)
        let refused = try await stack.run(.binance, .submitOrder, Stack.market("a"))
        #expect(refused["error"]["code"].text == "order_rule", "\(refused)")
        first.program.signal(SIGKILL)
        isOpen.store(true, ordering: .relaxed)
        // As if the list were older than a minute.
        let key = RedisArgument.text(Keys(.binance).markets(fake.url))
        let list = try #require(try await stack.command(["GET", key]).text)
        let json = list.drop { $0 != " " }
        try await stack.command(["SET", key, .text("\(wallClockMs() - 61_000)\(json)")])
        let second = try await stack.worker(settings)
        let lists = { fake.requests.filter { $0.target.contains("exchangeInfo") }.count }
        _ = try await stack.run(.binance, .fetchTicker, ["symbol": "BTC/USDT", "max_attempts": "1"])
        #expect(lists() == 1, "a ticker needs no open market")
        let taken = try await stack.run(.binance, .submitOrder, Stack.market("b"))
        #expect(taken["status"].text == "ok" && lists() == 2, "\(taken)")
        withExtendedLifetime(second) {}
    }

    @Test("acknowledged orders of Kraken are asked about together: a question an order is more than it allows")
    func askedTogether() async throws {
        let stack = try await Stack(limits: "on")
        let workers = try await [
            stack.worker(["FLEET_EXCHANGES": "kraken", "FLEET_LIMITS": "on"]),
            stack.worker(["FLEET_EXCHANGES": "kraken", "FLEET_LIMITS": "on"]),
        ]
        for number in 0..<40 { try await stack.push(.kraken, .submitOrder, Stack.resting("o-\(number)")) }
        for number in 0..<40 {
            let result = try await stack.result(.kraken, "o-\(number)")
            #expect(result["status"].text == "ok" && result["data"]["status"].text == "open", "\(result)")
            #expect(result["data"]["client_order_id"].text?.isEmpty == false, "\(result)")
        }
        // Fifteen at once and one in three seconds.
        #expect(try await stack.requests(.kraken, "QueryOrders") <= 30)
        #expect(try await stack.statistics(.kraken)["over_limit"].int == 0)
        withExtendedLifetime(workers) {}
    }

    @Test("many cancels at Kraken are confirmed with few questions, more than which it does not allow")
    func canceledTogether() async throws {
        let stack = try await Stack()
        let worker = try await stack.worker(["FLEET_EXCHANGES": "kraken", "FLEET_LIMITS": "on"])
        let numbers = 0..<40
        for number in numbers { try await stack.push(.kraken, .submitOrder, Stack.resting("o-\(number)")) }
        for number in numbers { _ = try await stack.result(.kraken, "o-\(number)") }
        // So old that to cancel one costs a point of its pair's counter, not eight.
        for number in numbers {
            try await stack.journal(.kraken, "o-\(number)", ["sent_ms": "\(wallClockMs() - 200_000)"])
        }
        let before = try await stack.requests(.kraken, "QueryOrders")
        for number in numbers {
            try await stack.push(
                .kraken, .cancelOrder, ["id": "c-\(number)", "symbol": "BTC/USDT", "order_id": "o-\(number)"])
        }
        for number in numbers {
            let result = try await stack.result(.kraken, "c-\(number)")
            #expect(result["data"]["status"].text == "canceled" && result["attempt"].int == 1, "\(result)")
        }
        #expect(try await stack.requests(.kraken, "QueryOrders") - before <= 30)
        #expect(try await stack.requests(.kraken, "ClosedOrders") == 0)
        withExtendedLifetime(worker) {}
    }

    @Test(
        "another order under the id of one that is uncertain or waits is not sent, and ends with what becomes of the first",
        arguments: [["symbol": "ETH/USDT"], ["side": "sell"], ["amount": "0.002"]], ["sending", "released"])
    func otherUnderWay(_ change: [String: String], _ state: String) async throws {
        let stack = try await Stack()
        let worker = try await stack.worker(Self.binance)
        _ = try await stack.run(.binance, .submitOrder, Stack.resting("before"))
        // Found absent twice and out of its window: the first may be sent again, no other.
        let before = ["symbol": "BTC/USDT", "request": "buy market 0.001 - GTC", "absent": "2", "state": state]
        try await leave(stack, "o", ago: 4000, left: -1, before)
        let other = Stack.market("o").merging(change) { $1 }
        try await stack.push(.binance, .submitOrder, other)
        try await eventually("it is put aside") {
            try await stack.command(["ZCARD", Stack.key(.binance, "delayed")]) == .integer(1)
        }
        let result = try await stack.run(.binance, .submitOrder, Stack.market("o"))
        #expect(result["data"]["symbol"].text == "BTC/USDT", "\(result)")
        try await eventually("the other has ended") {
            let (entries, _) = try await stack.backlog(.binance)
            return try await stack.command(["ZCARD", Stack.key(.binance, "delayed")]) == .integer(0) && entries == 0
        }
        let outcome = try await stack.result(.binance, "o")["data"]
        #expect(outcome["symbol"].text == "BTC/USDT" && outcome["side"].text == "buy", "\(outcome)")
        let orders = try await stack.orders(.binance, jobId: "o")
        #expect(orders.count == 1 && orders.first?["amount"].text.flatMap { Decimal(wire: $0) } == 0.001, "\(orders)")
        withExtendedLifetime(worker) {}
    }

    @Test(
        "an order whose worker died is asked about before it is sent, where Redis has lost its journal",
        arguments: Exchange.allCases)
    func journalLost(_ exchange: Exchange) async throws {
        let stack = try await Stack()
        let first = try await stack.worker(["FLEET_EXCHANGES": exchange.rawValue])
        #expect(try await stack.run(exchange, .submitOrder, Stack.market("o"))["status"].text == "ok")
        first.program.signal(SIGKILL)
        for key in ["order:o", "result:o"] { try await stack.command(["DEL", Stack.key(exchange, key)]) }
        try await orphan(stack, exchange, Stack.market("o"))
        let second = try await stack.worker(["FLEET_EXCHANGES": exchange.rawValue])
        let result = try await stack.result(exchange, "o")
        #expect(result["status"].text == "ok" && result["data"]["status"].text == "filled", "\(result)")
        #expect(try await stack.journal(exchange, "o")["acknowledged_ms"] != nil, "it may be hidden again")
        #expect(try await stack.orders(exchange, jobId: "o").count == 1)
        withExtendedLifetime(second) {}
    }

    @Test(
        "nor is it sent when it cannot be asked about, and what no rule would let go is refused then too",
        arguments: [(["price": "32000.001"], "order_rule"), (["amount": "0.002"], "order_notional"), ([:], nil)])
    func journalLostUnasked(_ change: [String: String], _ code: String?) async throws {
        let stack = try await Stack()
        let fake = FakeHTTPServer { request in
            if request.target.contains("exchangeInfo") { return .text(binanceMarkets) }
            if request.target.hasSuffix("/time") { return .text(#"{"serverTime":\#(wallClockMs())}"#) }
            return .text("", status: 503)
        }
        try await orphan(stack, .binance, Stack.resting("o").merging(change) { $1 })
        let settings = ["BINANCE_URL": fake.url, "FLEET_MAX_ORDER_NOTIONAL": "USDT=50"]
        let worker = try await stack.worker(Self.binance.merging(settings) { $1 })
        if let code {
            let result = try await stack.result(.binance, "o")
            #expect(result["status"].text == "rejected" && result["error"]["code"].text == code, "\(result)")
        } else {
            try await eventually("it is asked about") { try await stack.journal(.binance, "o")["unasked_ms"] != nil }
            let journal = try await stack.journal(.binance, "o")
            #expect(journal["stamp_ms"] == "0" && journal["sends"] == nil, "opened without a send: \(journal)")
        }
        #expect(!fake.requests.contains { $0.method == "POST" })
        withExtendedLifetime(worker) {}
    }

    @Test("a cancel of an uncertain order leaves the questions about it and others the tokens they need")
    func cancelOfUncertain() async throws {
        let tier = ["KRAKEN_TIER": "pro"]
        let stack = try await Stack(limits: "on", simulatorEnvironment: tier)
        let worker = try await stack.worker(tier.merging(["FLEET_EXCHANGES": "kraken", "FLEET_LIMITS": "on"]) { $1 })
        _ = try await stack.run(.kraken, .submitOrder, Stack.resting("before"))
        try await stack.control(#"{"drop_before_rate":1}"#)
        try await stack.push(.kraken, .submitOrder, Stack.resting("lost"))
        try await eventually("it is uncertain") { try await stack.journal(.kraken, "lost")["uncertain_ms"] != nil }
        try await stack.endFaults()
        try await stack.control(#"{"drop_after_rate":1}"#)
        for id in ["a", "b"] { try await stack.push(.kraken, .submitOrder, Stack.resting(id)) }
        try await eventually("they are sent") { try await stack.orders(.kraken).count == 3 }
        try await stack.endFaults()
        let cancel = ["id": "c", "symbol": "BTC/USDT", "order_id": "lost"]
        try await stack.push(.kraken, .cancelOrder, cancel)
        for id in ["a", "b", "c", "lost"] {
            let result = try await stack.result(.kraken, id, within: .seconds(90))
            #expect(result["status"].text == "ok", "\(result)")
        }
        #expect(try await stack.orders(.kraken, jobId: "lost").isEmpty)
        withExtendedLifetime(worker) {}
    }

    @Test("another order under the id of one that nobody has come back for in an hour ends unknown, and is not sent")
    func otherForgotten() async throws {
        let stack = try await Stack()
        let worker = try await stack.worker(Self.binance)
        try await leave(stack, "o", ago: 3_601_000, left: -1, ["symbol": "BTC/USDT", "absent": "2"])
        let other = Stack.market("o").merging(["symbol": "ETH/USDT"]) { $1 }
        let result = try await stack.run(.binance, .submitOrder, other)
        #expect(result["status"].text == "unknown", "\(result)")
        #expect(result["error"]["message"].text?.contains("another order was sent under its id") == true, "\(result)")
        let known = #""status":"unknown","error":{"code":"order_unknown","message":"known"}"#
        try await leave(
            stack, "p", ago: 4000, left: -1, ["symbol": "BTC/USDT", "state": "unknown", "outcome": known])
        let answer = try await stack.run(.binance, .submitOrder, other.merging(["id": "p"]) { $1 })
        #expect(answer["error"]["message"].text == "known", "what is known of the first is said at once: \(answer)")
        #expect(try await stack.orders(.binance).isEmpty)
        withExtendedLifetime(worker) {}
    }

    @Test("while the exchange does not say what time it is, an order it does not show is not taken for absent")
    func noClock() async throws {
        let stack = try await Stack()
        let isShown = Atomic(false)
        let fake = FakeHTTPServer { request in
            if request.target.contains("exchangeInfo") { return .text(binanceMarkets) }
            if request.target.hasSuffix("/time") { return .text("", status: 503) }
            if isShown.load(ordering: .relaxed) { return .text(#"{"clientOrderId":"o","status":"FILLED"}"#) }
            return .text(#"{"code":-2013,"msg":"Order does not exist."}"#, status: 400)
        }
        try await leave(stack, "o", ago: 2000, left: -1)
        let worker = try await stack.worker(Self.binance.merging(["BINANCE_URL": fake.url]) { $1 })
        // Sent as often as it may be: taken for absent, it has failed.
        try await stack.push(.binance, .submitOrder, Stack.market("o").merging(["max_attempts": "1"]) { $1 })
        try await eventually("it was asked about more often than an absence takes, or has ended") {
            let asked = fake.requests.count { $0.target.contains("origClientOrderId") }
            return try await stack.journal(.binance, "o")["outcome"] != nil || asked > 3
        }
        #expect(try await stack.journal(.binance, "o")["absent"] == "0")
        isShown.store(true, ordering: .relaxed)
        let result = try await stack.result(.binance, "o")
        #expect(result["data"]["status"].text == "filled", "\(result)")
        withExtendedLifetime(worker) {}
    }

    /// A Kraken that takes orders as T1, T2 … and answers each question by their ids.
    private func kraken(_ answer: @escaping @Sendable ([String]) -> String) -> FakeHTTPServer {
        let sent = Atomic(0)
        return FakeHTTPServer { request in
            if request.target.contains("AssetPairs") {
                let market = #"{"wsname":"XBT/USDT","lot_decimals":8,"tick_size":"0.1","status":"online"}"#
                return .text(#"{"error":[],"result":{"XBTUSDT":\#(market)}}"#)
            }
            if request.target.contains("Time") {
                return .text(#"{"error":[],"result":{"unixtime":\#(wallClockMs() / 1000)}}"#)
            }
            if request.target.contains("AddOrder") {
                let number = sent.add(1, ordering: .relaxed).newValue
                return .text(#"{"error":[],"result":{"txid":["T\#(number)"]}}"#)
            }
            return .text(answer(request.body.matches(of: /T\d/).map { String($0.0) }))
        }
    }

    private static func rows(_ ids: [String], _ status: String) -> String {
        let rows = ids.map { #""\#($0)":{"status":"\#(status)","vol":"0.001","descr":{"type":"buy"}}"# }
        return #"{"error":[],"result":{\#(rows.joined(separator: ","))}}"#
    }

    @Test("an order of Kraken that may not rest is not done while a question for others shows it as open")
    func openAmongOthers() async throws {
        let stack = try await Stack()
        let isOpen = Atomic(true)
        let fake = kraken { Self.rows($0, isOpen.load(ordering: .relaxed) ? "open" : "closed") }
        let worker = try await stack.worker(["FLEET_EXCHANGES": "kraken", "KRAKEN_URL": fake.url])
        for id in ["o-1", "o-2"] { try await stack.push(.kraken, .submitOrder, Stack.market(id)) }
        try await eventually("they are asked about together") {
            fake.requests.contains { $0.body.contains("T1") && $0.body.contains("T2") }
        }
        isOpen.store(false, ordering: .relaxed)
        for id in ["o-1", "o-2"] {
            let result = try await stack.result(.kraken, id)
            #expect(result["data"]["status"].text == "filled", "\(result)")
        }
        withExtendedLifetime(worker) {}
    }

    @Test("an order that Kraken does not know costs those asked about together with it nothing")
    func unknownAmongOthers() async throws {
        let stack = try await Stack()
        let fake = kraken {
            $0.contains("T1") ? #"{"error":["EOrder:Unknown order"]}"# : Self.rows($0, "closed")
        }
        let worker = try await stack.worker(["FLEET_EXCHANGES": "kraken", "KRAKEN_URL": fake.url])
        try await stack.push(.kraken, .submitOrder, Stack.market("o-1"))
        try await eventually("the first is asked about") { fake.requests.contains { $0.body.contains("txid=T1") } }
        for id in ["o-2", "o-3"] { try await stack.push(.kraken, .submitOrder, Stack.market(id)) }
        for id in ["o-2", "o-3"] {
            let result = try await stack.result(.kraken, id)
            #expect(result["data"]["status"].text == "filled", "\(result)")
        }
        #expect(fake.requests.contains { $0.body.contains("T1") && $0.body.contains("%2C") }, "it was among others")
        #expect(try await stack.journal(.kraken, "o-1")["state"] == "sending")
        withExtendedLifetime(worker) {}
    }

    // MARK: - Cancels

    @Test("a question about a cancel that Kraken refuses to answer is no refusal of the cancel")
    func refusedConfirmation() async throws {
        let stack = try await Stack()
        let questions = Atomic(0)
        let fake = kraken { ids in
            // To the cancel, which goes by our id.
            if ids.isEmpty { return #"{"error":[],"result":{"count":1,"pending":true}}"# }
            let number = questions.add(1, ordering: .relaxed).newValue
            if number == 2 { return #"{"error":["EOrder:Unknown order"]}"# }
            return Self.rows(ids, number == 1 ? "open" : "canceled")
        }
        let worker = try await stack.worker(["FLEET_EXCHANGES": "kraken", "KRAKEN_URL": fake.url])
        #expect(try await stack.run(.kraken, .submitOrder, Stack.resting("o"))["data"]["status"].text == "open")
        let cancel = try await stack.run(.kraken, .cancelOrder, ["id": "c", "symbol": "BTC/USDT", "order_id": "o"])
        #expect(cancel["status"].text == "ok" && cancel["attempt"].int == 2, "\(cancel)")
        withExtendedLifetime(worker) {}
    }

    @Test("a cancel whose order stays open for a while is given more time with each attempt")
    func slowCancel() async throws {
        let stack = try await Stack()
        let fake = kraken { ids in
            ids.isEmpty ? #"{"error":[],"result":{"count":1,"pending":true}}"# : Self.rows(ids, "open")
        }
        let worker = try await stack.worker(["FLEET_EXCHANGES": "kraken", "KRAKEN_URL": fake.url])
        #expect(try await stack.run(.kraken, .submitOrder, Stack.resting("o"))["data"]["status"].text == "open")
        let cancel = ["id": "c", "symbol": "BTC/USDT", "order_id": "o", "fleet_attempt": "3"]
        try await stack.push(.kraken, .cancelOrder, cancel)
        try await eventually("it is put off for eight seconds") {
            let texts = try await stack.command(["ZRANGE", Stack.key(.kraken, "delayed"), 0, -1, "WITHSCORES"]).texts
            return texts.count == 2 && (Int64(texts[1]) ?? 0) > wallClockMs() + 4000
        }
        withExtendedLifetime(worker) {}
    }

    @Test(
        "a refused cancel by a symbol that there is not prevents nothing, in a worker that has no market list yet too")
    func coldTypo() async throws {
        let stack = try await Stack()
        let cancel = ["id": "c", "symbol": "NO/SUCH", "order_id": "o"]
        try await stack.push(.binance, .cancelOrder, cancel)
        let worker = try await stack.worker(Self.binance)
        #expect(try await stack.result(.binance, "c")["error"]["code"].text == "unknown_symbol")
        let result = try await stack.run(.binance, .submitOrder, Stack.market("o"))
        #expect(result["data"]["status"].text == "filled", "\(result)")
        withExtendedLifetime(worker) {}
    }

    @Test("a cancel by another symbol than the order's is refused, and names it", arguments: Exchange.allCases)
    func otherSymbol(_ exchange: Exchange) async throws {
        let stack = try await Stack()
        let worker = try await stack.worker(["FLEET_EXCHANGES": exchange.rawValue])
        _ = try await stack.run(exchange, .submitOrder, Stack.resting("o"))
        let refused = try await stack.run(
            exchange, .cancelOrder, ["id": "c", "symbol": "ETH/USDT", "order_id": "o"])
        #expect(refused["status"].text == "rejected" && refused["attempt"].int == 1, "\(refused)")
        #expect(refused["error"]["message"].text == "symbol: 'ETH/USDT'; expected BTC/USDT, which the order is for")
        let done = try await stack.run(exchange, .cancelOrder, ["id": "d", "symbol": "BTC/USDT", "order_id": "o"])
        #expect(done["data"]["status"].text == "canceled", "\(done)")
        withExtendedLifetime(worker) {}
    }

    @Test(
        "a cancel does not take an older order of the same id, canceled long ago, for the one it is to cancel",
        arguments: [Exchange.binance, .kraken])
    func olderCanceled(_ exchange: Exchange) async throws {
        let stack = try await Stack()
        let worker = try await stack.worker(["FLEET_EXCHANGES": exchange.rawValue])
        _ = try await stack.run(exchange, .submitOrder, Stack.resting("o"))
        let cancel = ["id": "c", "symbol": "BTC/USDT", "order_id": "o", "max_attempts": "1"]
        #expect(try await stack.run(exchange, .cancelOrder, cancel)["data"]["status"].text == "canceled")
        // As if all that were two hours ago, and another order sent under the id since that is not shown yet.
        try await stack.command(["HDEL", Stack.key(exchange, "order:o"), "exchange_order_id"])
        let known = #"{"status":"ok","data":{"status":"open"}}"#
        let later = "\(wallClockMs() + 7_200_000)"
        try await stack.journal(exchange, "o", ["first_stamp_ms": later, "state": "accepted", "outcome": known])
        let result = try await stack.run(exchange, .cancelOrder, cancel.merging(["id": "d"]) { $1 })
        #expect(result["error"]["code"].text == "cancel_unconfirmed", "\(result)")
        #expect(try await stack.journal(exchange, "o")["outcome"] == known)
        withExtendedLifetime(worker) {}
    }

    @Test("a cancel needs neither market data nor the exchange's time, once some worker has loaded the markets")
    func marketDataDown() async throws {
        let stack = try await Stack()
        let first = try await stack.worker(Self.binance)
        _ = try await stack.run(.binance, .submitOrder, Stack.resting("o"))
        let lists = try await stack.requests(.binance, "exchangeInfo")
        let fake = FakeHTTPServer { request in
            guard request.target.hasPrefix("/api/v3/order") else { return .text("", status: 503) }
            let id = request.target.contains("origClientOrderId=o&") ? "o" : "?"
            return .text(#"{"origClientOrderId":"\#(id)","orderId":1,"status":"CANCELED","side":"BUY","type":"LIMIT"}"#)
        }
        first.program.signal(SIGKILL)
        // The same address as far as the list of markets goes.
        let shared = try #require(
            try await stack.command(["KEYS", Stack.key(.binance, "markets:*")]).array?.first?.text)
        let own = Keys(.binance).markets(fake.url)
        try await stack.command(["RENAME", .text(shared), .text(own)])
        let second = try await stack.worker(Self.binance.merging(["BINANCE_URL": fake.url]) { $1 })
        let result = try await stack.run(.binance, .cancelOrder, ["id": "c", "symbol": "BTC/USDT", "order_id": "o"])
        #expect(result["status"].text == "ok" && result["data"]["status"].text == "canceled", "\(result)")
        #expect(try await stack.requests(.binance, "exchangeInfo") == lists && lists == 1)
        withExtendedLifetime(second) {}
    }
}
