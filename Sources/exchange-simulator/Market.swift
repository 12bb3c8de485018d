/// SplitMix64: small, fast, and the same everywhere for one seed.
struct SplitMix: Sendable {
    var state: UInt64
    mutating func next() -> UInt64 {
        state &+= 0x9E37_79B9_7F4A_7C15
        let word = (state ^ (state >> 30)) &* 0xBF58_476D_1CE4_E5B9
        return (word ^ (word >> 27)) &* 0x94D0_49BB_1331_11EB
    }
}

/// One instrument: its rules as the exchange publishes them, and a seeded random walk of its price, in ticks.
struct Market: Sendable {
    /// Start prices in US dollars; an unlisted asset starts at 1.
    private static let dollars = [
        "BTC": "64000", "ETH": "3200", "LTC": "72", "SOL": "145", "XRP": "0.52", "SHIB": "0.0000178", "ADA": "0.45",
        "DOGE": "0.12", "BNB": "580", "EUR": "1.08",
    ]
    /// `entry` is the line of the instrument list as JSON; `alias` is Kraken's altname.
    let id, alias, base, quote, entry: String
    let tick: Fixed
    /// Digits after the point of every price in an answer.
    let places: Int
    /// tick, step, least, most, mostMarket, mostPrice, leastCost, mostCost, up, down: as far as the exchange has them.
    let rules: [String: Fixed]
    /// The price with 20 more bits, so that slow walks stay exact.
    private var fine: Int
    private let start: Int
    private var random: SplitMix
    private(set) var bid, ask, last, low, high: Int
    private var steps = 0
    /// The ticker as sent; nil after the price moved.
    var ticker: String?

    /// `names` is where the entry has base and quote, `rules` maps each rule to where the entry has it.
    init(_ entry: [String: Any], id: String, _ names: [String], rules: [String: String], seed: UInt64) {
        var numbers: [String: Fixed] = [:]
        let nested = entry.values.compactMap { $0 as? [String: Any] } + (entry["filters"] as? [[String: Any]] ?? [])
        for part in [entry] + nested {
            let prefix = part["filterType"].map { "\($0)." } ?? ""
            for (name, value) in part { numbers[prefix + name] = scalar(value).flatMap { Fixed($0) } }
        }
        // Kraken has base and quote in one, with its own names of two coins.
        let pair = "\(entry["wsname"] ?? "")".replacing("XBT", with: "BTC").replacing("XDG", with: "DOGE")
        let coins = names.isEmpty ? pair.split(separator: "/").map(String.init) : names.map { "\(entry[$0] ?? "")" }
        (self.id, base, quote, self.entry) = (id, coins.first ?? "", coins.last ?? "", json(entry))
        (alias, self.rules) = (entry["altname"] as? String ?? id, rules.compactMapValues { numbers[$0] ?? Fixed($0) })
        tick = self.rules["tick"] ?? .zero
        // Binance writes eight places everywhere, Bybit as many as the tick has.
        places = entry["pair_decimals"] as? Int ?? (entry["filters"] == nil ? tick.places : 8)
        let worth = [base, quote].compactMap { Fixed(Market.dollars[$0] ?? "1") }
        start = max(50, Int(clamping: (worth[0] / worth[1]).units / max(tick.units, 1)))
        random = SplitMix(state: id.utf8.reduce(seed) { ($0 ^ UInt64($1)) &* 0x100_0000_01B3 })
        (fine, bid, ask, last) = (start << 20, start, start + max(1, start / 20_000), start)
        (low, high) = (start - start / 50, start + start / 50)
    }

    func price(_ ticks: Int) -> Fixed { Fixed(units: Int128(ticks) * tick.units) }

    /// Walks `count` steps of 100 ms, each at most 0.01 %, turning back at half and twice the start price.
    /// - Returns: the lowest ask and the highest bid on the way.
    mutating func walk(_ count: Int) -> (ask: Fixed, bid: Fixed) {
        var (lowest, highest) = (Int.max, 0)
        for _ in 0..<count {
            let word = random.next()
            let move = (fine / 10_000 * (Int(word & 0xFFFF) - 0x8000)) >> 15
            fine = min(max(fine + move, start << 19), start << 21)
            bid = fine >> 20
            ask = bid + max(1, bid / 20_000)
            last = word >> 63 == 0 ? bid : ask
            (low, high, lowest, highest) = (min(low, last), max(high, last), min(lowest, ask), max(highest, bid))
        }
        (steps, ticker) = (steps + count, nil)
        return (price(lowest), price(highest))
    }

    /// What a ticker says, by template name; volumes and sizes are made up, in whole units of the base.
    var values: [String: String] {
        let (volume, open) = (Fixed(units: Int128(10_000 + steps / 10) * 10_000_000_000), start - start / 100)
        let change = (last - open) * 1_000_000 / open
        let ticks = [
            "bid": bid, "ask": ask, "last": last, "low": low, "high": high, "open": open, "mean": (low + high) / 2,
            "change": last - open,
        ]
        let fraction = Fixed(units: Int128(change) * 10_000)
        return ticks.mapValues { price($0).text(places) }.merging([
            "id": id, "volume": volume.text(8), "turnover": (volume * price((low + high) / 2)).text(8),
            "trades": "\(steps)", "bidSize": "\(size(0))", "askSize": "\(size(1))", "fraction": fraction.text(6),
            "percent": Fixed(units: fraction.units * 100).text(4),
        ]) { first, _ in first }
    }
    private func size(_ level: Int) -> Int { 1 + (steps + level * 7) % 9 }

    /// One side of the book as JSON, best first: price, size and `tail` of at most 100 levels.
    func bids(_ count: Int, _ tail: String = "") -> String { levels(bid, -1, min(count, bid), tail) }
    func asks(_ count: Int, _ tail: String = "") -> String { levels(ask, 1, count, tail) }
    private func levels(_ best: Int, _ way: Int, _ count: Int, _ tail: String) -> String {
        let levels = (0..<max(0, min(count, 100))).map { level in
            "[\"\(price(best + way * level).text(places))\",\"\(size(level * 2 + (way + 1) / 2))\"\(tail)]"
        }
        return "[\(levels.joined(separator: ","))]"
    }
}
