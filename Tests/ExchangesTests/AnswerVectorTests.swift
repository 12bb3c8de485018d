import Foundation
import TestSupport
import Testing

@testable import Exchanges

/// Answers of the exchanges, and what an independent client read from them.
@Suite("Answers an independent client has read")
struct AnswerVectorTests {
    struct Vector: Sendable, CustomTestStringConvertible {
        let exchange: Exchange
        let json: JSONValue
        /// The answer's bytes; numbers are kept as they were written.
        let body: String
        var name: String { json["name"].text ?? "" }
        var parsed: JSONValue { json["ccxt_4_5_90_parsed"] }
        var testDescription: String { "\(exchange) \(name)" }

        static let all: [Vector] = Exchange.allCases.flatMap { exchange -> [Vector] in
            guard let text = try? fixtureText("responses-\(exchange).json"), let json = try? JSONValue(text),
                let raw = (try? JSONSerialization.jsonObject(with: Data(text.utf8))) as? [[String: Any]]
            else { return [] }
            return zip(json.list, raw).map { json, raw in
                // A list of open orders is taken as the answer to one query.
                let answer = raw["httpResponse"].map { ($0 as? [Any])?.count == 1 ? ($0 as? [Any])?[0] ?? $0 : $0 }
                let data = answer.flatMap { try? JSONSerialization.data(withJSONObject: $0) } ?? Data()
                return Vector(exchange: exchange, json: json, body: String(decoding: data, as: UTF8.self))
            }
        }
    }

    /// Answers to calls that the library does not make.
    static let exempt = ["binance fetchBalance", "bybit cancelAllOrders spot"]

    private func market(_ vector: Vector, _ symbol: String?) throws -> Instrument {
        try markets(vector.exchange)[try #require(symbol)] ?? instrument(try #require(symbol))
    }

    private func answer(_ vector: Vector, to call: Call) throws -> Answer {
        try api(vector.exchange).answer(
            to: call, response(vector.body, status: vector.json["httpStatus"].int ?? 200))
    }

    @Test("every answer is read here or named as none of ours")
    func allCovered() {
        #expect(Vector.all.count == 22)
        for vector in Vector.all where !Self.exempt.contains(vector.testDescription) {
            let isKnown = ["Ticker", "Order", "Time", "createMarketBuyOrderWithCost"].contains {
                vector.name.contains($0)
            }
            #expect(isKnown, "\(vector.testDescription)")
        }
    }

    @Test("tickers have the same figures", arguments: Vector.all.filter { $0.name.contains("Ticker") })
    func tickers(_ vector: Vector) throws {
        let rows =
            vector.parsed["symbol"].isNull ? vector.parsed.members : [vector.parsed["symbol"].text ?? "": vector.parsed]
        let instruments = try rows.keys.sorted().map { try market(vector, $0) }
        guard case .tickers(let tickers) = try answer(vector, to: .tickers(instruments)) else {
            Issue.record("no tickers")
            return
        }
        #expect(Set(tickers.map(\.symbol)) == Set(rows.keys))
        for ticker in tickers {
            let row = try #require(rows[ticker.symbol])
            var figures: [(String, String?)] = [
                ("bid", ticker.bid), ("ask", ticker.ask), ("last", ticker.last), ("open", ticker.open),
                ("high", ticker.high), ("low", ticker.low), ("baseVolume", ticker.baseVolume),
            ]
            if vector.exchange == .kraken {
                // Theirs are computed: the volume in the quote currency, and a change since midnight.
                #expect(ticker.quoteVolume == nil && ticker.changePercent == nil)
            } else {
                figures += [("quoteVolume", ticker.quoteVolume), ("percentage", ticker.changePercent)]
            }
            for (name, text) in figures {
                #expect(text.flatMap(Double.init) == row[name].double, "\(ticker.symbol) \(name)")
                if name != "percentage", let text { #expect(vector.body.contains("\"\(text)\""), "as it was written") }
            }
            if let time = row["timestamp"].int { #expect(ticker.exchangeMs == Int64(time)) }
            #expect(ticker.receivedMs == 1_700_000_000_000)
        }
    }

    @Test("times are the same", arguments: Vector.all.filter { $0.name.contains("Time") })
    func times(_ vector: Vector) throws {
        guard case .time(let time) = try answer(vector, to: .time) else {
            Issue.record("no time")
            return
        }
        #expect(Int(time) == vector.parsed.int)
    }

    @Test(
        "orders have the same state and figures",
        arguments: Vector.all.filter { $0.name.contains("Order") && !$0.name.contains("cancelAll") })
    func orders(_ vector: Vector) throws {
        let arguments = vector.json["ccxt_call"]["args"].list.compactMap(\.text)
        let symbol = arguments.first { $0.contains("/") } ?? "LTC/USDT"
        let market = try market(vector, symbol)
        let parsed = vector.parsed.list.first ?? vector.parsed
        let id = parsed["clientOrderId"].text ?? "my-1"
        let isQuery = vector.name.contains("fetch")
        let known = vector.exchange == .kraken && isQuery ? parsed["id"].text : nil
        let call: Call =
            if vector.name.contains("cancel") {
                .cancel(reference(id, market))
            } else if isQuery {
                .query(reference(id, exchangeOrderId: known, market))
            } else {
                submit(order(), market, id: id)
            }
        switch try answer(vector, to: call) {
        case .accepted(let exchangeOrderId):
            #expect(exchangeOrderId == parsed["id"].text)
            #expect(parsed["status"].isNull, "an acknowledgement says no more")
        case .absent: #expect(vector.parsed.isNull, "only an unknown id has no order")
        case .order(let order):
            expect(order, parsed, vector, symbol)
            if isQuery { #expect(order.createdMs == parsed["timestamp"].int.map(Int64.init)) }
        default: Issue.record("no order")
        }
    }

    @Test(
        "of several orders in an answer the one that was asked for is taken, of one id the newest",
        arguments: [
            (
                Exchange.bybit,
                #"{"retCode":0,"result":{"list":[{"orderLinkId":"x","orderId":"1"},{"orderLinkId":"my-1","orderId":"3","#
                    + #""createdTime":"1"},{"orderLinkId":"my-1","orderId":"2","createdTime":"2"}]}}"#
            ), (.kraken, #"{"error":[],"result":{"open":{"1":{"opentm":1},"2":{"opentm":3},"3":{"opentm":2}}}}"#),
            (
                .kraken,
                #"{"error":[],"result":{"open":{"1":{"opentm":3,"cl_ord_id":"x"},"#
                    + #""2":{"opentm":1,"cl_ord_id":"my-1"}}}}"#
            ),
        ])
    func oneOfMany(_ exchange: Exchange, _ body: String) throws {
        let call = Call.query(reference("my-1", instrument()))
        guard case .order(let order) = try api(exchange).answer(to: call, response(body)) else {
            Issue.record("no order")
            return
        }
        #expect(order.exchangeOrderId == "2")
    }

    @Test(
        "an order whose status is not known, or one before the engine has seen it, does not rest yet",
        arguments: [
            (Exchange.binance, "NEW", true), (.binance, "PENDING_NEW", false), (.binance, "", false),
            (.bybit, "New", true), (.bybit, "Created", false), (.kraken, "open", true), (.kraken, "pending", false),
        ])
    func pending(_ exchange: Exchange, _ status: String, _ rests: Bool) throws {
        let bodies: [Exchange: String] = [
            .binance: #"{"clientOrderId":"my-1","status":"\#(status)"}"#,
            .bybit: #"{"retCode":0,"result":{"list":[{"orderLinkId":"my-1","orderStatus":"\#(status)"}]}}"#,
            .kraken: #"{"error":[],"result":{"open":{"1":{"status":"\#(status)"}}}}"#,
        ]
        let call = Call.query(reference("my-1", instrument()))
        guard case .order(let found) = try api(exchange).answer(to: call, response(bodies[exchange] ?? "")) else {
            Issue.record("no order")
            return
        }
        #expect(found.status == .open && order().isEnding(found) != rests)
    }

    @Test(
        "an order that Kraken closed is filled only if all of it is",
        arguments: [("1.0", OrderStatus.filled), ("0.4", .canceled), ("0.0", .canceled)])
    func closed(_ filled: String, _ status: OrderStatus) throws {
        let body = #"{"error":[],"result":{"closed":{"1":{"status":"closed","vol":"1.00","vol_exec":"\#(filled)"}}}}"#
        let call = Call.history(reference("my-1", instrument()))
        guard case .order(let order) = try api(.kraken).answer(to: call, response(body)) else {
            Issue.record("no order")
            return
        }
        #expect(order.status == status && order.filled == filled)
    }

    private func expect(_ order: Order, _ parsed: JSONValue, _ vector: Vector, _ symbol: String) {
        #expect(order.symbol == symbol)
        #expect(order.exchangeOrderId == parsed["id"].text)
        // Binance names the cancel itself in the answer to one; Kraken's answers here were made with the older userref.
        let named = vector.name == "cancelOrder" ? "myOrder1" : parsed["clientOrderId"].text
        if vector.exchange != .kraken { #expect(order.clientOrderId == named) }
        #expect(order.side?.rawValue == parsed["side"].text)
        let type = parsed["type"].text
        #expect(order.type?.rawValue == (type == "limit_maker" ? "limit" : type))
        let theirs = parsed["status"].text
        let expected: [OrderStatus] =
            switch theirs {
            case "closed": [.filled]
            case "open": [.open, .partiallyFilled]
            default: [theirs.flatMap(OrderStatus.init) ?? .rejected]
            }
        #expect(expected.contains(order.status), "\(order.status) for \(theirs ?? "")")
        #expect(order.amount.flatMap(Double.init) == parsed["amount"].double)
        #expect(order.filled.flatMap(Double.init) == parsed["filled"].double)
        #expect(order.averagePrice.flatMap(Double.init) == parsed["average"].double)
        if order.type == .limit { #expect(order.price.flatMap(Double.init) == parsed["price"].double) }
        if order.type == .market { #expect(order.price == nil) }
    }
}
