import Exchanges
import Foundation
import Redis
import TestSupport
import Testing

@testable import Fleet

@Suite("Orders: at most one execution", .serialized, .timeLimit(.minutes(3)))
struct OrderTests {
    @Test("the same submit id again answers with the first outcome and sends nothing", arguments: Exchange.allCases)
    func sameIdTwice(_ exchange: Exchange) async throws {
        let stack = try await Stack()
        let worker = try await stack.worker(["FLEET_EXCHANGES": exchange.rawValue])
        let key = "fleet:{\(exchange.rawValue)}:reply:r"
        var outcomes: [JSONValue] = []
        for amount in ["0.001", "0.001", "0.005"] {
            let fields = Stack.market("twice").merging(["reply_to": key, "amount": amount]) { $1 }
            try await stack.push(exchange, .submitOrder, fields)
            let text = try await stack.command(["BLPOP", .text(key), 4]).array?.last?.text
            outcomes.append(try JSONValue(try #require(text)))
        }
        #expect(outcomes[0]["status"].text == "ok")
        #expect(outcomes[1]["data"] == outcomes[0]["data"])
        #expect(
            outcomes[2]["data"] == outcomes[0]["data"], "the id is the order's identity, whatever else the job says")
        #expect(try await stack.orders(exchange).count == 1)
        #expect(try await stack.requests(exchange, Stack.orderEndpoint[exchange] ?? "") == 1)
        withExtendedLifetime(worker) {}
    }

    @Test("many copies of many orders, over two workers, make each order once")
    func copiesOverTwoWorkers() async throws {
        let stack = try await Stack()
        let workers = [
            try await stack.worker(["FLEET_EXCHANGES": "binance"]),
            try await stack.worker(["FLEET_EXCHANGES": "binance"]),
        ]
        try await stack.control(#"{"latency_ms":20}"#)
        let commands = (0..<300).map { index in
            Stack.append(
                .binance, .submitOrder, Stack.market("copy-\(index % 30)").map { ($0.key, Array($0.value.utf8)) })
        }
        #expect(await stack.pipeline(commands).allSatisfy { $0.error == nil })
        for index in 0..<30 { _ = try await stack.result(.binance, "copy-\(index)") }
        try await eventually("all copies are done") {
            let left = try await stack.backlog(.binance)
            return left.entries == 0 && left.pending == 0
        }
        #expect(try await stack.orders(.binance).count == 30)
        for index in 0..<30 {
            #expect(try await stack.result(.binance, "copy-\(index)")["status"].text == "ok")
        }
        withExtendedLifetime(workers) {}
    }

    @Test(
        "a cancel that comes before its order prevents the send: both end ok, the order canceled",
        arguments: Exchange.allCases)
    func cancelFirst(_ exchange: Exchange) async throws {
        let stack = try await Stack()
        let worker = try await stack.worker(["FLEET_EXCHANGES": exchange.rawValue])
        let cancel = try await stack.run(
            exchange, .cancelOrder, ["id": "c-1", "symbol": "BTC/USDT", "order_id": "never"])
        #expect(cancel["status"].text == "ok")
        #expect(cancel["data"]["status"].text == "canceled")
        let submit = try await stack.run(exchange, .submitOrder, Stack.market("never"))
        #expect(submit["status"].text == "ok")
        #expect(submit["data"]["status"].text == "canceled")
        #expect(try await stack.orders(exchange).isEmpty)
        #expect(try await stack.requests(exchange, Stack.orderEndpoint[exchange] ?? "") == 0)
        let again = try await stack.run(
            exchange, .cancelOrder, ["id": "c-2", "symbol": "BTC/USDT", "order_id": "never"])
        #expect(again["status"].text == "ok")
        withExtendedLifetime(worker) {}
    }

    @Test("cancels and orders that wait together: the cancels go first, and nothing is sent")
    func cancelsGoFirst() async throws {
        let stack = try await Stack()
        for index in 0..<10 {
            try await stack.push(.bybit, .submitOrder, Stack.market("w-\(index)"))
            try await stack.push(
                .bybit, .cancelOrder, ["id": "cw-\(index)", "symbol": "BTC/USDT", "order_id": "w-\(index)"])
        }
        let worker = try await stack.worker(["FLEET_EXCHANGES": "bybit"])
        for index in 0..<10 {
            let cancel = try await stack.result(.bybit, "cw-\(index)")
            #expect(cancel["status"].text == "ok", "\(cancel)")
            #expect(try await stack.result(.bybit, "w-\(index)")["data"]["status"].text == "canceled")
        }
        #expect(try await stack.orders(.bybit).isEmpty)
        withExtendedLifetime(worker) {}
    }

    @Test("a cancel of an order that is filled is rejected and says so", arguments: Exchange.allCases)
    func cancelFilled(_ exchange: Exchange) async throws {
        let stack = try await Stack()
        let worker = try await stack.worker(["FLEET_EXCHANGES": exchange.rawValue])
        _ = try await stack.run(exchange, .submitOrder, Stack.market("filled"))
        let result = try await stack.run(
            exchange, .cancelOrder, ["id": "c", "symbol": "BTC/USDT", "order_id": "filled"])
        #expect(result["status"].text == "rejected", "\(result)")
        #expect(result["error"]["message"].text?.isEmpty == false)
        withExtendedLifetime(worker) {}
    }

    @Test(
        "an order whose answer is lost exists once at the exchange and ends ok, found by its client order id",
        arguments: Exchange.allCases)
    func answerLost(_ exchange: Exchange) async throws {
        let stack = try await Stack()
        let worker = try await stack.worker(["FLEET_EXCHANGES": exchange.rawValue])
        // The market list and the clock are known before the answers are lost.
        _ = try await stack.run(exchange, .submitOrder, Stack.resting("before"))
        try await stack.control(#"{"exchange":"\#(exchange.rawValue)","drop_after_rate":1}"#)
        for fields in [Stack.market("lost-1"), Stack.resting("lost-2")] {
            try await stack.push(exchange, .submitOrder, fields)
        }
        try await eventually("both orders have been taken") { try await stack.orders(exchange).count == 3 }
        try await stack.endFaults()
        let bought = try await stack.result(exchange, "lost-1")
        let resting = try await stack.result(exchange, "lost-2")
        #expect(bought["status"].text == "ok" && bought["data"]["status"].text == "filled", "\(bought)")
        #expect(resting["status"].text == "ok" && resting["data"]["status"].text == "open", "\(resting)")
        for id in ["lost-1", "lost-2"] {
            let orders = try await stack.orders(exchange, jobId: id)
            #expect(orders.count == 1)
            #expect(
                try await stack.result(exchange, id)["data"]["exchange_order_id"].text
                    == orders.first?["exchange_order_id"].text)
        }
        withExtendedLifetime(worker) {}
    }

    @Test(
        "an order that never arrived is not reported as done, and never sent blindly again",
        arguments: Exchange.allCases)
    func neverArrived(_ exchange: Exchange) async throws {
        let stack = try await Stack()
        let worker = try await stack.worker(["FLEET_EXCHANGES": exchange.rawValue])
        _ = try await stack.run(exchange, .submitOrder, Stack.resting("before"))
        let endpoint = Stack.orderEndpoint[exchange] ?? ""
        try await stack.control(#"{"exchange":"\#(exchange.rawValue)","drop_before_rate":1}"#)
        try await stack.push(exchange, .submitOrder, Stack.market("lost"))
        try await eventually("the send has begun") { try await stack.requests(exchange, endpoint) >= 2 }
        try await stack.endFaults()
        let result = try await stack.result(exchange, "lost", within: .seconds(100))
        let orders = try await stack.orders(exchange, jobId: "lost")
        // Either a person is asked, or the exchange was proven not to have it before it was sent again.
        switch result["status"].text {
        case "unknown":
            #expect(orders.isEmpty)
            #expect(result["error"]["message"].text?.isEmpty == false)
            #expect(try await stack.requests(exchange, endpoint) == 2)
        case "ok": #expect(orders.count == 1)
        default: Issue.record("\(result)")
        }
        withExtendedLifetime(worker) {}
    }

    @Test(
        "a worker killed in the middle of a send: the next one finds the order and sends nothing",
        arguments: Exchange.allCases)
    func killedInSend(_ exchange: Exchange) async throws {
        let stack = try await Stack()
        let first = try await stack.worker(["FLEET_EXCHANGES": exchange.rawValue])
        _ = try await stack.run(exchange, .submitOrder, Stack.resting("before"))
        try await stack.control(#"{"exchange":"\#(exchange.rawValue)","drop_after_rate":1}"#)
        try await stack.push(exchange, .submitOrder, Stack.market("orphan"))
        try await eventually("the order has been taken") {
            try await stack.orders(exchange, jobId: "orphan").count == 1
        }
        first.program.stop()
        try await stack.endFaults()
        let second = try await stack.worker(["FLEET_EXCHANGES": exchange.rawValue])
        // Pushed again, as its caller would who got no answer.
        let result = try await stack.run(exchange, .submitOrder, Stack.market("orphan"))
        #expect(result["status"].text == "ok" && result["data"]["status"].text == "filled", "\(result)")
        #expect(try await stack.orders(exchange, jobId: "orphan").count == 1)
        withExtendedLifetime(second) {}
    }

    @Test("an order that breaks the market's rules is rejected before anything is sent")
    func rules() async throws {
        let stack = try await Stack()
        let worker = try await stack.worker(["FLEET_EXCHANGES": "binance"])
        let changes: [([String: String], String)] = [
            (["amount": "0.0000001"], "amount"), (["price": "32000.001"], "price"),
            (["amount": "0.0001", "price": "1"], "amount"),
        ]
        for (index, (change, field)) in changes.enumerated() {
            let fields = Stack.resting("rule-\(index)").merging(change) { $1 }
            let result = try await stack.run(.binance, .submitOrder, fields)
            #expect(result["status"].text == "rejected")
            #expect(result["error"]["message"].text?.contains(field) == true, "\(result)")
        }
        #expect(try await stack.orders(.binance).isEmpty)
        withExtendedLifetime(worker) {}
    }

    @Test("live mode without FLEET_LIVE_ORDERS=yes rejects every order")
    func liveOrdersOff() async throws {
        let stack = try await Stack()
        let url = stack.simulatorURL
        let worker = try await stack.worker([
            "FLEET_MODE": "live", "FLEET_LIMITS": "on", "BINANCE_URL": url + "/binance", "BYBIT_URL": url + "/bybit",
            "KRAKEN_URL": url + "/kraken", "FLEET_EXCHANGES": "bybit", "BYBIT_KEY": "sim-bybit-key",
            "BYBIT_SECRET": "sim-bybit-secret",
        ])
        let result = try await stack.run(.bybit, .submitOrder, Stack.market("live-1"))
        #expect(result["status"].text == "rejected")
        #expect(result["error"]["message"].text?.contains("FLEET_LIVE_ORDERS") == true)
        #expect(try await stack.orders(.bybit).isEmpty)
        withExtendedLifetime(worker) {}
    }
}
