import Exchanges
import Foundation
import Redis
import TestSupport
import Testing

@testable import Fleet

/// What other programs rely on, on real processes.
@Suite("Contract", .serialized, .timeLimit(.minutes(2)))
struct ContractTests {
    private static let common: Set = [
        "id", "kind", "exchange", "status", "attempt", "worker", "enqueued_ms", "started_ms", "finished_ms",
    ]
    private static let tickerFields: Set = [
        "symbol", "bid", "ask", "last", "open", "high", "low", "base_volume", "quote_volume", "change_percent",
        "exchange_ms", "received_ms",
    ]
    private static let orderFields: Set = [
        "client_order_id", "exchange_order_id", "symbol", "side", "type", "status", "amount", "filled",
        "average_price", "price", "exchange_ms",
    ]

    private func expectCommon(
        _ result: JSONValue, _ exchange: Exchange, _ kind: Kind, id: String, more: Set<String>
    ) {
        #expect(Set(result.members.keys) == Self.common.union(more), "\(result)")
        #expect(result["id"].text == id)
        #expect(result["kind"].text == kind.rawValue)
        #expect(result["exchange"].text == exchange.rawValue)
        #expect((result["attempt"].int ?? 0) >= 1)
        #expect(result["worker"].text?.isEmpty == false)
        let times = ["enqueued_ms", "started_ms", "finished_ms"].map { result[$0].int ?? 0 }
        #expect(times[0] > 1_700_000_000_000 && times[1] <= times[2], "\(times)")
    }

    private func expectDecimals(_ data: JSONValue, _ names: [String]) {
        for name in names {
            #expect(data[name].text.flatMap(Decimal.init(wire:)) != nil, "\(name) is no decimal text: \(data[name])")
        }
    }

    @Test("every kind of job is done, with the result that the contract describes", arguments: Exchange.allCases)
    func everyKind(_ exchange: Exchange) async throws {
        let stack = try await Stack()
        let worker = try await stack.worker(["FLEET_EXCHANGES": exchange.rawValue])

        let entry = try await stack.push(exchange, .fetchTicker, ["symbol": "BTC/USDT"])
        let ticker = try await stack.result(exchange, entry)
        expectCommon(ticker, exchange, .fetchTicker, id: entry, more: ["data", "source"])
        #expect(ticker["status"].text == "ok")
        #expect(ticker["source"].text == "exchange")
        #expect(Set(ticker["data"].members.keys).isSubset(of: Self.tickerFields))
        #expect(ticker["data"]["symbol"].text == "BTC/USDT")
        #expect((ticker["data"]["received_ms"].int ?? 0) > 1_700_000_000_000)
        expectDecimals(ticker["data"], ["bid", "ask", "last", "open", "high", "low", "base_volume"])
        let again = try await stack.run(exchange, .fetchTicker, ["symbol": "BTC/USDT", "max_age_ms": "60000"])
        #expect(["l1", "l2"].contains(again["source"].text))
        let fresh = try await stack.run(exchange, .fetchTicker, ["symbol": "BTC/USDT", "max_age_ms": "0"])
        #expect(fresh["source"].text == "exchange")

        let submitted = try await stack.run(exchange, .submitOrder, Stack.resting("rest-1"))
        expectCommon(submitted, exchange, .submitOrder, id: "rest-1", more: ["data"])
        #expect(submitted["status"].text == "ok", "\(submitted)")
        expectOrder(submitted["data"], status: "open")
        #expect(Decimal(wire: submitted["data"]["price"].text ?? "") == 32000)

        let bought = try await stack.run(exchange, .submitOrder, Stack.market("market-1"))
        #expect(bought["status"].text == "ok", "\(bought)")
        expectOrder(bought["data"], status: "filled")
        expectDecimals(bought["data"], ["amount", "filled", "average_price"])

        let canceled = try await stack.run(
            exchange, .cancelOrder, ["id": "cancel-1", "symbol": "BTC/USDT", "order_id": "rest-1"])
        expectCommon(canceled, exchange, .cancelOrder, id: "cancel-1", more: ["data"])
        #expect(canceled["status"].text == "ok", "\(canceled)")
        expectOrder(canceled["data"], status: "canceled")
        #expect(canceled["data"]["client_order_id"] == submitted["data"]["client_order_id"])

        let refreshed = try await stack.run(exchange, .refreshCache, ["symbols": "BTC/USDT,ETH/USDT,NO/SUCH"])
        #expect(refreshed["status"].text == "ok", "\(refreshed)")
        #expect(refreshed["data"]["refreshed"].int == 2)
        #expect(Array(refreshed["data"]["failed"].members.keys) == ["NO/SUCH"])
        #expect(refreshed["data"]["failed"]["NO/SUCH"].text?.contains("NO/SUCH") == true)
        let all = try await stack.run(exchange, .refreshCache, ["id": "all"])
        #expect((all["data"]["refreshed"].int ?? 0) >= 1, "what was asked for lately: \(all)")

        let orders = try await stack.orders(exchange)
        #expect(orders.count == 2)
        try await expectNothingLeft(stack, exchange)
        withExtendedLifetime(worker) {}
    }

    private func expectOrder(_ data: JSONValue, status: String) {
        #expect(Set(data.members.keys).isSubset(of: Self.orderFields), "\(data)")
        #expect(data["status"].text == status)
        #expect(data["symbol"].text == "BTC/USDT")
        #expect(data["client_order_id"].text?.isEmpty == false)
        #expect(data["exchange_order_id"].text?.isEmpty == false)
        #expect(data["side"].text == "buy")
    }

    private func expectNothingLeft(_ stack: Stack, _ exchange: Exchange) async throws {
        try await eventually("streams of \(exchange) are empty") {
            let left = try await stack.backlog(exchange)
            return left.entries == 0 && left.pending == 0
        }
    }

    @Test("a plain XADD is a job, its entry id the name of the result, and jobs may come before the first worker")
    func plainXADD() async throws {
        let stack = try await Stack()
        let early = try #require(
            try await stack.command(["XADD", "fleet:{kraken}:jobs:fetch_ticker", "*", "symbol", "BTC/USD"]).text)
        let order = try await stack.push(.bybit, .submitOrder, Stack.resting("early"))
        let worker = try await stack.worker()
        #expect(try await stack.result(.kraken, early)["data"]["symbol"].text == "BTC/USD")
        #expect(try await stack.result(.bybit, "early")["status"].text == "ok")
        let later = try #require(
            try await stack.command(["XADD", "fleet:{kraken}:jobs:fetch_ticker", "*", "symbol", "BTC/USD"]).text)
        let text = try await eventually("the result under the entry's id") {
            try await stack.command(["GET", .text("fleet:{kraken}:result:" + later)]).text
        }
        #expect(try JSONValue(text)["status"].text == "ok")
        _ = order
        withExtendedLifetime(worker) {}
    }

    @Test("reply_to answers a BLPOP, results live as long as they should, and a trace context comes back")
    func replies() async throws {
        let stack = try await Stack()
        let worker = try await stack.worker(["FLEET_RESULT_TTL": "300", "FLEET_ORDER_RESULT_TTL": "9000"])
        let key = "fleet:{binance}:reply:abc"
        let trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
        try await stack.push(
            .binance, .fetchTicker,
            [
                "id": "r-1", "symbol": "BTC/USDT", "reply_to": key, "result_ttl_s": "0", "traceparent": trace,
                "note": "x",
            ])
        let reply = try await stack.command(["BLPOP", .text(key), 4]).array?.last?.text
        let result = try JSONValue(try #require(reply))
        #expect(result["id"].text == "r-1" && result["status"].text == "ok")
        #expect(result["traceparent"].text == trace)
        #expect(try await stack.command(["GET", "fleet:{binance}:result:r-1"]) == .null, "result_ttl_s 0 stores none")

        _ = try await stack.run(.binance, .fetchTicker, ["id": "t-1", "symbol": "BTC/USDT", "reply_to": key + "2"])
        _ = try await stack.run(.binance, .fetchTicker, ["id": "t-2", "symbol": "BTC/USDT", "result_ttl_s": "5000"])
        _ = try await stack.run(.binance, .submitOrder, Stack.resting("o-1"))
        func timeToLive(_ key: String) async throws -> Int { try await stack.command(["TTL", .text(key)]).int ?? 0 }
        #expect((200...300).contains(try await timeToLive("fleet:{binance}:result:t-1")))
        #expect((4900...5000).contains(try await timeToLive("fleet:{binance}:result:t-2")))
        #expect((8900...9000).contains(try await timeToLive("fleet:{binance}:result:o-1")))
        #expect(try await timeToLive(key + "2") > 0, "a reply nobody fetches does not stay for ever")
        withExtendedLifetime(worker) {}
    }

    @Test("a reply_to of another type costs no other job its result")
    func replyToWrongType() async throws {
        let stack = try await Stack()
        let worker = try await stack.worker(["FLEET_EXCHANGES": "bybit"])
        try await stack.command(["SET", "fleet:{bybit}:reply:text", "x"])
        try await stack.push(
            .bybit, .fetchTicker, ["id": "a", "symbol": "BTC/USDT", "reply_to": "fleet:{bybit}:reply:text"])
        try await stack.push(.bybit, .fetchTicker, ["id": "b", "symbol": "ETH/USDT"])
        for id in ["a", "b"] { #expect(try await stack.result(.bybit, id)["status"].text == "ok") }
        try await expectNothingLeft(stack, .bybit)
        withExtendedLifetime(worker) {}
    }

    @Test("a deadline that has passed ends every kind as expired, and nothing is sent")
    func deadlines() async throws {
        let stack = try await Stack()
        let worker = try await stack.worker(["FLEET_EXCHANGES": "binance,kraken"])
        for exchange in [Exchange.binance, .kraken] {
            _ = try await stack.run(exchange, .fetchTicker, ["symbol": "ETH/USDT"])
            let past = ["deadline_ms": "1700000000000"]
            let jobs: [(Kind, [String: String])] = [
                (.fetchTicker, ["id": "d-ticker", "symbol": "BTC/USDT"]), (.submitOrder, Stack.resting("d-order")),
                (.fetchTicker, ["id": "d-cached", "symbol": "ETH/USDT", "max_age_ms": "3600000"]),
                (.cancelOrder, ["id": "d-cancel", "symbol": "BTC/USDT", "order_id": "x"]),
                (.refreshCache, ["id": "d-all"]),
            ]
            for (kind, fields) in jobs {
                let result = try await stack.run(exchange, kind, fields.merging(past) { $1 })
                #expect(result["status"].text == "expired", "\(result)")
                #expect(
                    result["error"]["code"].text?.isEmpty == false && result["error"]["message"].text?.isEmpty == false)
            }
            #expect(try await stack.orders(exchange).isEmpty)
            let future = ["deadline_ms": "9999999999999"]
            let result = try await stack.run(
                exchange, .fetchTicker, ["symbol": "BTC/USDT"].merging(future) { $1 })
            #expect(result["status"].text == "ok")
        }
        withExtendedLifetime(worker) {}
    }

    @Test("malformed jobs over the real stream are rejected with their sentence, and the others are served")
    func malformed() async throws {
        let stack = try await Stack()
        let worker = try await stack.worker(["FLEET_EXCHANGES": "binance"])
        var entries: [(entry: String, bad: BadJob)] = []
        for bad in BadJob.all {
            // Several have one id: each is looked up by a reply of its own, unless the reply itself is what is wrong.
            let ownReply = [("reply_to", Array("fleet:{binance}:reply:\(entries.count)".utf8))]
            let isReply = bad.fields.contains { $0.0 == "reply_to" }
            entries.append((try await stack.push(.binance, bad.kind, bad.fields + (isReply ? [] : ownReply)), bad))
            try await stack.push(.binance, .fetchTicker, ["id": "good-\(entries.count)", "symbol": "BTC/USDT"])
        }
        for (index, (entry, bad)) in entries.enumerated() {
            let result: JSONValue
            if bad.fields.contains(where: { $0.0 == "reply_to" }) {
                result = try await stack.result(.binance, entry)
            } else {
                let key = RedisArgument.text("fleet:{binance}:reply:\(index)")
                let text = try await eventually("the reply to \(bad)") { try await stack.command(["LPOP", key]).text }
                result = try JSONValue(text)
            }
            #expect(result["status"].text == "rejected", "\(bad)")
            let message = result["error"]["message"].text ?? ""
            for part in bad.says { #expect(message.contains(part), "\(message)") }
            #expect(try await stack.result(.binance, "good-\(index + 1)")["status"].text == "ok")
        }
        #expect(try await stack.orders(.binance).isEmpty)
        #expect(worker.program.exitStatus == nil)
        try await expectNothingLeft(stack, .binance)
    }

    @Test(
        "a symbol that the exchange does not have is rejected with its name",
        arguments: [Kind.fetchTicker, .submitOrder, .cancelOrder])
    func unknownSymbol(_ kind: Kind) async throws {
        let stack = try await Stack()
        let worker = try await stack.worker(["FLEET_EXCHANGES": "kraken"])
        var fields = Stack.resting("u-1", symbol: "NO/SUCH")
        fields["order_id"] = "x"
        let result = try await stack.run(.kraken, kind, fields)
        #expect(result["status"].text == "rejected")
        #expect(result["error"]["message"].text?.contains("NO/SUCH") == true)
        withExtendedLifetime(worker) {}
    }
}
