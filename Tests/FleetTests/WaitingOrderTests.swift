import Exchanges
import Foundation
import Redis
import TestSupport
import Testing

@testable import Fleet

@Suite("Orders that wait, and cancels", .serialized, .timeLimit(.minutes(2)))
struct WaitingOrderTests {
    /// More orders than the limiter lets through at once, so that the last ones wait.
    private func pushMany(_ stack: Stack, _ count: Int, _ more: [String: String] = [:]) async throws {
        for index in 0..<count {
            try await stack.push(.binance, .submitOrder, Stack.market("w-\(index)").merging(more) { $1 })
        }
        try await eventually("the first orders have been taken") { try await stack.orders(.binance).count >= 5 }
    }

    @Test("a cancel prevents an order that waits for the limiter")
    func cancelWaiting() async throws {
        let stack = try await Stack()
        let worker = try await stack.worker(["FLEET_EXCHANGES": "binance", "FLEET_LIMITS": "on"])
        try await pushMany(stack, 100)
        let cancel = try await stack.run(
            .binance, .cancelOrder, ["id": "c", "symbol": "BTC/USDT", "order_id": "w-99"])
        let order = try await stack.result(.binance, "w-99")
        #expect(cancel["status"].text == "ok" && cancel["data"]["status"].text == "canceled", "\(cancel)")
        #expect(order["status"].text == "ok" && order["data"]["status"].text == "canceled", "\(order)")
        #expect(try await stack.orders(.binance, jobId: "w-99").isEmpty)
        withExtendedLifetime(worker) {}
    }

    @Test("an order that waits ends expired at its deadline, and is not sent")
    func expires() async throws {
        let stack = try await Stack()
        let worker = try await stack.worker(["FLEET_EXCHANGES": "binance", "FLEET_LIMITS": "on"])
        try await pushMany(stack, 40, ["deadline_ms": "\(wallClockMs() + 3000)"])
        var expired = 0
        for index in 0..<40 where try await stack.result(.binance, "w-\(index)")["status"].text == "expired" {
            #expect(try await stack.orders(.binance, jobId: "w-\(index)").isEmpty)
            expired += 1
        }
        #expect(expired > 0)
        withExtendedLifetime(worker) {}
    }

    @Test("orders that wait when their worker stops are handed back and sent once by the next")
    func handedBack() async throws {
        let stack = try await Stack()
        let first = try await stack.worker(["FLEET_EXCHANGES": "binance", "FLEET_LIMITS": "on"])
        try await pushMany(stack, 40)
        first.program.signal(SIGTERM)
        try await eventually("the first worker has stopped") { first.program.exitStatus != nil }
        #expect(first.program.exitStatus == 0)
        let left = try await stack.backlog(.binance)
        let delayed = try await stack.command(["ZCARD", "fleet:{binance}:delayed"]).int ?? 0
        #expect(left.entries + delayed > 0, "the last ones were waiting")
        #expect(left.pending == 0, "none stays with a worker that is gone")
        let second = try await stack.worker(["FLEET_EXCHANGES": "binance"])
        for index in 0..<40 {
            #expect(try await stack.result(.binance, "w-\(index)")["status"].text == "ok")
            #expect(try await stack.orders(.binance, jobId: "w-\(index)").count == 1)
        }
        withExtendedLifetime(second) {}
    }

    @Test("a cancel reaches an order whose journal is gone", arguments: Exchange.allCases)
    func journalGone(_ exchange: Exchange) async throws {
        let stack = try await Stack()
        let worker = try await stack.worker(["FLEET_EXCHANGES": exchange.rawValue])
        _ = try await stack.run(exchange, .submitOrder, Stack.resting("old"))
        #expect(try await stack.command(["DEL", .text("fleet:{\(exchange.rawValue)}:order:old")]) == .integer(1))
        let cancel = try await stack.run(
            exchange, .cancelOrder, ["id": "c", "symbol": "BTC/USDT", "order_id": "old"])
        #expect(cancel["status"].text == "ok" && cancel["data"]["status"].text == "canceled", "\(cancel)")
        #expect(try await stack.orders(exchange, jobId: "old").map { $0["status"].text } == ["canceled"])
        withExtendedLifetime(worker) {}
    }

    @Test("a cancel of a filled order whose journal is gone says that it is filled", arguments: Exchange.allCases)
    func filledJournalGone(_ exchange: Exchange) async throws {
        let stack = try await Stack()
        let worker = try await stack.worker(["FLEET_EXCHANGES": exchange.rawValue])
        _ = try await stack.run(exchange, .submitOrder, Stack.market("old"))
        #expect(try await stack.command(["DEL", Stack.key(exchange, "order:old")]) == .integer(1))
        let cancel = try await stack.run(
            exchange, .cancelOrder, ["id": "c", "symbol": "BTC/USDT", "order_id": "old"])
        #expect(cancel["status"].text == "rejected" && cancel["error"]["code"].text == "order_closed", "\(cancel)")
        #expect(cancel["data"]["status"].text == "filled", "\(cancel)")
        try await stack.command(["DEL", Stack.key(exchange, "result:old")])
        let again = try await stack.run(exchange, .submitOrder, Stack.market("old"))
        #expect(again["data"]["status"].text == "filled", "the same id answers with what became of it: \(again)")
        #expect(try await stack.orders(exchange, jobId: "old").count == 1)
        withExtendedLifetime(worker) {}
    }

    @Test("a cancel prevents its order while the exchange answers nothing but errors")
    func cancelWhileAway() async throws {
        let stack = try await Stack()
        let worker = try await stack.worker(["FLEET_EXCHANGES": "binance"])
        try await stack.control(#"{"error_rate":1}"#)
        try await stack.push(
            .binance, .cancelOrder, ["id": "c", "symbol": "BTC/USDT", "order_id": "o", "max_attempts": "1"])
        #expect(try await stack.result(.binance, "c")["status"].text == "failed")
        let since = Int(try await stack.journal(.binance, "o")["cancel_ms"] ?? "") ?? 0
        let until = try await stack.command(["PEXPIRETIME", Stack.key(.binance, "order:o")]).int ?? 0
        #expect((until - since + 500) / 1000 == 604_800, "it prevents it for seven days")
        try await stack.endFaults()
        let order = try await stack.run(.binance, .submitOrder, Stack.market("o"))
        #expect(order["status"].text == "ok" && order["data"]["status"].text == "canceled", "\(order)")
        #expect(try await stack.orders(.binance).isEmpty)
        withExtendedLifetime(worker) {}
    }

    @Test("an order that was prevented ends so in a worker that never reached the exchange")
    func preventedAway() async throws {
        let stack = try await Stack()
        let first = try await stack.worker(["FLEET_EXCHANGES": "binance"])
        let cancel = ["id": "c", "symbol": "BTC/USDT", "order_id": "o"]
        #expect(try await stack.run(.binance, .cancelOrder, cancel)["status"].text == "ok")
        first.program.signal(SIGKILL)
        let away = FakeHTTPServer { _ in .text("", status: 503) }
        let second = try await stack.worker(["FLEET_EXCHANGES": "binance", "BINANCE_URL": away.url])
        let order = try await stack.run(.binance, .submitOrder, Stack.market("o"))
        #expect(order["status"].text == "ok" && order["data"]["status"].text == "canceled", "\(order)")
        withExtendedLifetime(second) {}
    }

    @Test("an order that failed and was canceled since is not sent when it is replayed")
    func canceledThenReplayed() async throws {
        let stack = try await Stack()
        let worker = try await stack.worker(["FLEET_EXCHANGES": "binance"])
        _ = try await stack.run(.binance, .submitOrder, Stack.resting("before"))
        try await stack.control(#"{"rate_limit_rate":1,"retry_after_s":1}"#)
        let order = Stack.market("o").merging(["max_attempts": "1"]) { $1 }
        #expect(try await stack.run(.binance, .submitOrder, order)["status"].text == "failed")
        try await stack.endFaults()
        let cancel = ["id": "c", "symbol": "BTC/USDT", "order_id": "o"]
        #expect(try await stack.run(.binance, .cancelOrder, cancel)["error"]["code"].text == "order_closed")
        let replayed = try await stack.producer(["dead", "replay", "--all"])
        #expect(replayed.output == "1 replayed\n", "\(replayed.errors)")
        let result = try await stack.result(.binance, "o")
        #expect(result["status"].text == "ok" && result["data"]["status"].text == "canceled", "\(result)")
        #expect(try await stack.orders(.binance, jobId: "o").isEmpty)
        withExtendedLifetime(worker) {}
    }

    @Test("a cancel with a symbol that there is not is refused, and prevents nothing")
    func cancelOfNoMarket() async throws {
        let stack = try await Stack()
        let worker = try await stack.worker(["FLEET_EXCHANGES": "binance"])
        _ = try await stack.run(.binance, .fetchTicker, ["symbol": "BTC/USDT"])
        let cancel = try await stack.run(
            .binance, .cancelOrder, ["id": "c", "symbol": "BTC/USDTX", "order_id": "o"])
        #expect(cancel["error"]["code"].text == "unknown_symbol", "\(cancel)")
        let order = try await stack.run(.binance, .submitOrder, Stack.market("o"))
        #expect(order["data"]["status"].text == "filled", "\(order)")
        withExtendedLifetime(worker) {}
    }

    /// Of the simulator's key, as a worker names it.
    private var spentCounter: RedisArgument {
        let account = Signing.hex(Signing.sha256("sim-kraken-key".utf8).prefix(6))
        return Stack.key(.kraken, "limit:private:\(account)")
    }

    @Test("a cancel that prevented its order ends without a question that would have to wait")
    func cancelWithoutQuestion() async throws {
        let stack = try await Stack()
        let worker = try await stack.worker(["FLEET_EXCHANGES": "kraken", "FLEET_LIMITS": "on"])
        try await stack.command(["SET", spentCounter, .text("\(wallClockMs() + 600_000)")])
        let cancel = try await stack.run(.kraken, .cancelOrder, ["id": "c", "symbol": "BTC/USD", "order_id": "o"])
        #expect(cancel["status"].text == "ok" && cancel["data"]["status"].text == "canceled", "\(cancel)")
        #expect(try await stack.requests(.kraken, "CancelOrder") == 1)
        withExtendedLifetime(worker) {}
    }

    @Test("a cancel that the exchange takes of an order that it does not show is not taken for done")
    func cancelTaken() async throws {
        let stack = try await Stack()
        let fake = FakeHTTPServer.bybit(refusing: #"{"retCode":0,"result":{"orderId":"7","list":[]},"time":1}"#)
        let worker = try await stack.worker(["FLEET_EXCHANGES": "bybit", "BYBIT_URL": fake.url])
        let cancel = ["id": "c", "symbol": "BTC/USDT", "order_id": "o", "max_attempts": "1"]
        let result = try await stack.run(.bybit, .cancelOrder, cancel)
        #expect(result["error"]["code"].text == "cancel_unconfirmed", "\(result)")
        withExtendedLifetime(worker) {}
    }

    @Test("cancels that come together go out while there is room for them, and none is put aside")
    func cancelsTogether() async throws {
        let stack = try await Stack()
        let worker = try await stack.worker(["FLEET_EXCHANGES": "kraken", "FLEET_LIMITS": "on"])
        for index in 0..<5 {
            try await stack.push(
                .kraken, .cancelOrder, ["id": "c-\(index)", "symbol": "BTC/USD", "order_id": "o-\(index)"])
        }
        for index in 0..<5 { #expect(try await stack.result(.kraken, "c-\(index)")["status"].text == "ok") }
        #expect(try await stack.added(.kraken, .cancelOrder) == 5)
        withExtendedLifetime(worker) {}
    }

    @Test("a key that the exchange repeats in its refusal is in no result and no log")
    func repeatedKey() async throws {
        let stack = try await Stack()
        let fake = FakeHTTPServer.bybit(
            refusing: #"{"retCode":10004,"retMsg":"error sign! origin_string[1key-of-ours5000]","time":1}"#)
        let worker = try await stack.worker([
            "BYBIT_URL": fake.url, "FLEET_EXCHANGES": "bybit", "BYBIT_KEY": "key-of-ours", "BYBIT_SECRET": "secret",
        ])
        let result = try await stack.run(.bybit, .submitOrder, Stack.resting("o-1"))
        #expect(result["status"].text == "rejected")
        #expect(result["error"]["message"].text == "error sign! origin_string[1***5000]")
        #expect(!worker.program.errors.contains("key-of-ours"))
    }
}
