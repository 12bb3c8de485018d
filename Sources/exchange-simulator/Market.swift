import Exchanges
import Foundation

/// A linear congruential generator: the same everywhere for one seed. Its high bits, which Swift uses, are good enough.
struct Seeded: RandomNumberGenerator {
    var state: UInt64

    mutating func next() -> UInt64 {
        state = state &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
        return state
    }
}

/// One instrument of `markets/instruments.json`: its rules, and a seeded random walk of its price, in ticks.
struct Market {
    /// `alias` is Kraken's altname, `entry` the line of the exchange's own list.
    let id, alias, entry: String
    /// tick, step, least, most, mostMarket, mostPrice, leastCost, mostCost: as far as the exchange has them.
    let rules: [String: Decimal]
    private let tick: Decimal
    /// Digits after the point of every price in an answer: as many as the exchange writes the tick with.
    let places: Int
    private let start: Int
    /// The price with 20 more bits, so that slow walks stay exact.
    private var fine: Int
    private var random: Seeded
    private var bid, ask, last, low, high: Int
    private var steps = 0
    /// The ticker as sent; nil after the price moved.
    var ticker: String?

    init(_ listing: [String: Any], id: String, of exchange: String, seed: UInt64) {
        let texts = listing["rules"] as? [String: String] ?? [:], price = Decimal(wire: "\(listing["start"] ?? "")")
        (self.id, alias) = (id, "\(listing["alias"] ?? "")")
        entry = render("\(exchange).instrument", ["id": id, "entry": jsonText(listing["entry"] ?? [:])])
        rules = texts.compactMapValues { Decimal(wire: $0) }
        (tick, places) = (rules["tick"] ?? 1, texts["tick"]?.split(separator: ".").last?.count ?? 1)
        start = NSDecimalNumber(decimal: (price ?? 1) / tick).intValue
        random = Seeded(state: id.utf8.reduce(seed) { ($0 ^ UInt64($1)) &* 0x100_0000_01B3 })
        (fine, bid, ask, last) = (start << 20, start, start + max(1, start / 20_000), start)
        (low, high) = (start - start / 50, start + start / 50)
    }

    private func price(_ ticks: Int) -> Decimal { Decimal(ticks) * tick }
    /// The price at which an order would match now.
    func touch(buys: Bool) -> Decimal { price(buys ? ask : bid) }

    /// What an amount of the quote currency is worth now, in whole steps.
    func amount(of quote: Decimal, buys: Bool) -> Decimal {
        let step = rules["step"] ?? 1
        return (quote / touch(buys: buys) / step).rounded(places: 0, .down) * step
    }

    /// Walks `count` steps of 100 ms, each at most 0.01 %, turning back at half and twice the start price.
    mutating func walk(_ count: Int) {
        for _ in 0..<count {
            let most = fine / 10_000
            fine = min(max(fine + Int.random(in: -most...most, using: &random), start << 19), start << 21)
            bid = fine >> 20
            ask = bid + max(1, bid / 20_000)
            last = Bool.random(using: &random) ? bid : ask
            (low, high) = (min(low, last), max(high, last))
        }
        (steps, ticker) = (steps + count, nil)
    }

    /// What a ticker says, by template name; volumes and sizes are made up, in whole units of the base.
    var values: [String: String] {
        let open = start - start / 100, change = Decimal(last - open) / Decimal(open)
        let volume = Decimal(10_000 + steps / 10), turnover = volume * price(last)
        let ticks = [
            "bid": bid, "ask": ask, "last": last, "low": low, "high": high, "open": open, "change": last - open,
        ]
        return ticks.mapValues { price($0).text(places) }.merging([
            "id": id, "volume": volume.text(8), "turnover": turnover.text(8), "trades": "\(steps)",
            "size": "\(1 + steps % 9)", "fraction": change.text(6), "percent": (change * 100).text(4),
        ]) { first, _ in first }
    }
}
