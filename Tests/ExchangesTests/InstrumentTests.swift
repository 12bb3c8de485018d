import Foundation
import TestSupport
import Testing

@testable import Exchanges

@Suite("Decimals and market rules")
struct InstrumentTests {
    @Test(
        "a plain decimal is read digit for digit",
        arguments: [
            "0", "0.0", "1", "10", "0.00000789", "97123.45", "007.50", "123456789012345678901234567890",
            "0.12345678901234567890123456789",
        ])
    func plain(_ text: String) throws {
        let value = try #require(Decimal(wire: text))
        let other = try #require(Decimal(string: text, locale: Locale(identifier: "en_US_POSIX")))
        #expect(value == other)
    }

    @Test(
        "anything but a plain decimal is refused",
        arguments: [
            "", " ", "+1", "-1", "1e5", "1E-5", "7.89e-06", ".5", "5.", ".", "1.2.3", " 1", "1 ", "1,5", "1_000",
            "0x10",
            "nan", "NaN", "inf", "Infinity", "１", "٣", "1\u{0}", "1\n", "½",
            "12345678901234567890123456789012", "0.123456789012345678901234567890", String(repeating: "9", count: 1000),
        ])
    func notPlain(_ text: String) { #expect(Decimal(wire: text) == nil) }

    struct Case: Sendable, CustomTestStringConvertible {
        let order: OrderRequest
        var market = instrument(
            tick: Decimal(string: "0.1") ?? 0, step: Decimal(string: "0.001") ?? 0, minAmount: Decimal(string: "0.01"),
            maxAmount: 100, minNotional: 10)
        /// What the sentence says; nil: the order fits.
        let fault: [String]?
        var testDescription: String { "\(order.amount) at \(order.price ?? "market")" }
    }

    @Test(
        "an order is held against the market's rules, and the sentence says field, value and rule",
        arguments: [
            Case(order: order(amount: "0.01", price: "1000.0"), fault: nil),
            Case(order: order(amount: "100", price: "0.1"), fault: nil),
            Case(order: order(amount: "0.0100", price: "1000.10"), fault: nil),
            Case(order: order(.market, amount: "0.5", price: nil), fault: nil),
            Case(order: order(amount: "0.0105", price: "1000"), fault: ["amount", "0.0105", "multiple of 0.001"]),
            Case(order: order(amount: "0.009", price: "90000"), fault: ["amount", "0.009", "at least 0.01"]),
            Case(order: order(amount: "100.001", price: "1"), fault: ["amount", "100.001", "at most 100"]),
            Case(order: order(amount: "1", price: "100.05"), fault: ["price", "100.05", "multiple of 0.1"]),
            Case(order: order(amount: "0.01", price: "999.9"), fault: ["amount", "0.01", "at least 10"]),
            Case(order: order(amount: "0", price: "1"), fault: ["amount", "'0'", "above 0"]),
            Case(order: order(amount: "1", price: "0"), fault: ["price", "'0'", "above 0"]),
            Case(order: order(amount: "1e2", price: "1"), fault: ["amount", "1e2"]),
            Case(order: order(amount: "1", price: "-1"), fault: ["price", "-1"]),
            Case(
                order: order(.market, amount: "3", price: nil), market: instrument(maxAmount: 9, maxMarketAmount: 2),
                fault: ["amount", "'3'", "at most 2"]),
            Case(
                order: order(), market: instrument(isTrading: false), fault: ["symbol", "BTC/USDT", "open for trading"]),
        ])
    func rules(_ example: Case) throws {
        guard let fault = example.fault else {
            try example.market.check(example.order)
            return
        }
        let violation = try #require(throws: Instrument.Violation.self) { try example.market.check(example.order) }
        for part in fault { #expect(violation.description.contains(part), "\(violation.description)") }
    }

    @Test(
        "the rules of the exchanges' own market lists are read",
        arguments: [
            (Exchange.binance, "BTC/USDT", "BTCUSDT", "0.01", "0.00001"),
            (.binance, "SHIB/USDT", "SHIBUSDT", "0.00000001", "1"),
            (.binance, "１２３/４５６", "１２３４５６", nil, nil),
            (.bybit, "BTC/USDT", "BTCUSDT", "0.1", "0.000001"),
            (.kraken, "BTC/USD", "XXBTZUSD", "0.1", "0.00000001"),
            (.kraken, "BTC/USDT", "XBTUSDT", "0.1", "0.00000001"),
            (.kraken, "DOGE/USD", "XDGUSD", nil, "0.00000001"), (.kraken, "ETH/BTC", "XETHXXBT", nil, nil),
        ] as [(Exchange, String, String, String?, String?)])
    func markets(_ exchange: Exchange, _ symbol: String, _ id: String, _ tick: String?, _ step: String?) throws {
        let market = try #require(try ExchangesTests.markets(exchange)[symbol])
        #expect(market.id == id)
        if let tick { #expect("\(market.tick)" == tick) }
        if let step { #expect("\(market.step)" == step) }
    }

    @Test("Kraken's names of coins are those of the others")
    func krakenNames() throws {
        let names = [("XBT", "BTC"), ("LUNA", "LUNC"), ("LUNA2", "LUNA"), ("UST", "USTC"), ("REPV2", "REP")]
        let pairs = names.map {
            #""\#($0.0)":{"wsname":"\#($0.0)/USD","lot_decimals":8,"tick_size":"0.1","status":"post_only"}"#
        }
        let body = #"{"error":[],"result":{\#(pairs.joined(separator: ","))}}"#
        guard case .instruments(let list) = try api(.kraken).answer(to: .instruments, response(body)) else {
            Issue.record("markets were expected")
            return
        }
        #expect(Set(list.map { "\($0.id) \($0.symbol) \($0.isTrading)" }) == Set(names.map { "\($0) \($1)/USD true" }))
    }

    @Test("every market of the lists is read, and an order on its steps fits its rules", arguments: Exchange.allCases)
    func wholeLists(_ exchange: Exchange) throws {
        let all = try ExchangesTests.markets(exchange)
        let (file, count): (String, (JSONValue) -> Int) =
            switch exchange {
            case .binance: ("markets/binance-exchangeInfo.json", { $0["symbols"].list.count })
            case .bybit: ("markets/bybit-instruments-info-spot.json", { $0["result"]["list"].list.count })
            case .kraken: ("markets/kraken-AssetPairs.json", { $0["result"].members.count })
            }
        #expect(all.count == count(try fixture(file)))
        let orders: [Double?] = exchange == .binance ? [100, 200_000] : [nil, nil]
        #expect(all.values.allSatisfy { [$0.ordersPer10s, $0.ordersPerDay] == orders })
        for market in all.values where market.isTrading {
            let price = market.tick * 100_000_000
            let least = max(market.minAmount ?? market.step, (market.minNotional ?? 0) / price)
            var steps = least / market.step
            var whole = Decimal()
            NSDecimalRound(&whole, &steps, 0, .up)
            let amount = max(whole, 1) * market.step
            try market.check(order(amount: "\(amount)", price: "\(price)"))
            let off = "\(amount + market.step / 2)"
            #expect(throws: Instrument.Violation.self, "\(market.symbol)") {
                try market.check(order(amount: off, price: "\(price)"))
            }
        }
    }
}
