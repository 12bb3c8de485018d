/// One order as the matching engine knows it; amounts in base, times in unix ms.
struct Order: Sendable {
    enum State: String { case open, filled, canceled, expired }
    let id: String
    var client: String
    let market: Int
    let buys: Bool
    var amount: Fixed
    /// What was asked for instead of an amount, in quote; else zero.
    var cost = Fixed.zero
    /// Nil for a market order.
    var price: Fixed?
    var lifetime = "GTC"
    var postOnly = false
    /// Words of the request that answers repeat.
    var words: [String: String] = [:]
    var state = State.open
    var fill = Fixed.zero
    var accepted = 0
    var updated = 0

    /// A post-only order that would have matched at once.
    var crossed: Bool { postOnly && state == .canceled && accepted == updated }
    /// For templates: amounts and costs with eight places, the client id as JSON.
    var values: [String: String] {
        let filled = state == .filled ? amount : .zero, rest = state == .open ? amount : .zero
        return words.merging([
            "id": id, "client": quoted(client), "price": (price ?? .zero).text(8), "amount": amount.text(8),
            "filled": filled.text(8), "spent": (filled * fill).text(8), "fill": fill.text(8), "cost": cost.text(8),
            "rest": rest.text(8), "restCost": (rest * (price ?? .zero)).text(8), "lifetime": lifetime,
            "accepted": "\(accepted)", "updated": "\(updated)",
        ]) { first, _ in first }
    }
}

/// One exchange: instruments, orders and counters. Every call settles it first, so `now` is the call's time, unix ms.
struct Venue: Sendable {
    /// Free of every asset, always: no order changes it.
    static let balance = "2000000"
    let name: String, key: String, secret: [UInt8], limited: Bool, speech: Speech
    private(set) var markets: [Market]
    private var names: [String: Int] = [:]
    private(set) var orders: [Order] = []
    private var byID: [String: Int] = [:]
    private var byClient: [String: [Int]] = [:]
    /// Open orders of each market, oldest first.
    private var open: [[Int]]
    private let started: Int
    private var step = 0
    private(set) var now: Int
    var limits = Limits()
    var faults = Faults()
    /// Of `GET /control/stats`.
    var requests: [String: Int] = [:]
    private var counts = ["refused_for_limits": 0, "over_limit": 0, "bans": 0, "signature_failures": 0]
    /// The largest nonce accepted.
    var nonce: UInt64 = 0
    /// Orders that reach the engine at `due` (unix ms), after their connection ended.
    var late: [(due: Int, call: Call)] = []

    init(_ name: String, _ speech: Speech, key: String, secret: [UInt8], markets: [Market], limited: Bool, now: Int) {
        (self.name, self.speech, self.key, self.secret, self.limited) = (name, speech, key, secret, limited)
        (self.markets, self.now, started, open) = (markets, now, now, markets.map { _ in [] })
        for (index, market) in markets.enumerated() { (names[market.id], names[market.alias]) = (index, index) }
    }

    /// Moves the prices to `time` and fills the orders they crossed.
    mutating func settle(at time: Int) {
        now = max(now, time)
        let target = (now - started) / 100
        for index in markets.indices where target > step {
            let seen = markets[index].walk(target - step)
            for position in open[index] {
                guard let price = orders[position].price else { continue }
                if orders[position].buys ? seen.ask <= price : seen.bid >= price { close(position, .filled, at: price) }
            }
        }
        step = max(step, target)
    }
    func market(_ name: String?) throws -> Int {
        guard let index = names[name ?? ""] else { throw fail("symbol") }
        return index
    }
    mutating func ticker(_ index: Int) -> String {
        if let text = markets[index].ticker { return text }
        let times = ["time": "\(started + step * 100)", "openTime": "\(started + step * 100 - 86_400_000)"]
        let text = render("\(name).ticker", markets[index].values.merging(times) { $1 })
        markets[index].ticker = text
        return text
    }

    /// The price at which an order would match now.
    func touch(_ market: Int, buys: Bool) -> Fixed {
        markets[market].price(buys ? markets[market].ask : markets[market].bid)
    }
    func crosses(_ order: Order) -> Bool {
        let touch = touch(order.market, buys: order.buys)
        return order.price.map { order.buys ? touch <= $0 : touch >= $0 } ?? true
    }

    /// Refuses an order that breaks a rule of its market, cannot be paid, or repeats a client id of an open order.
    func check(_ order: Order, reusable: Bool, mostOpen: Int) throws {
        let rules = markets[order.market].rules, last = markets[order.market].price(markets[order.market].last)
        let price = order.price ?? touch(order.market, buys: order.buys), cost = order.amount * price
        func over(_ value: Fixed, _ rule: String) -> Bool { rules[rule].map { $0 > .zero && value > $0 } ?? false }
        func under(_ value: Fixed, _ rule: String) -> Bool { value < rules[rule] ?? .zero }
        let broken: [(String, Bool)] = [
            ("price", order.price != nil && (price == .zero || !price.fits(rules["tick"]) || over(price, "mostPrice"))),
            ("percent", price > last * (rules["up"] ?? price) || price < last * (rules["down"] ?? .zero)),
            ("least", order.amount == .zero || under(order.amount, "least")), ("most", over(order.amount, "most")),
            ("step", !order.amount.fits(rules["step"])),
            ("market", order.price == nil && over(order.amount, "mostMarket")),
            ("value", under(cost, "leastCost") || order.price != nil && over(cost, "mostCost")),
            ("count", open[order.market].count >= mostOpen),
            ("duplicate", find(id: nil, client: order.client).contains { !reusable || orders[$0].state == .open }),
            ("funds", max(order.cost, order.buys ? cost : order.amount) > Fixed(Venue.balance) ?? .zero),
        ]
        if let rule = broken.first(where: \.1)?.0 { throw fail(rule, ["name": "volume"]) }
    }

    /// Stores a checked order and matches it, whole or not at all.
    mutating func place(_ order: Order) -> Int {
        let position = orders.count
        orders.append(order)
        (orders[position].accepted, orders[position].updated, byID[order.id]) = (now, now, position)
        if !order.client.isEmpty { byClient[order.client, default: []].append(position) }
        open[order.market].append(position)
        if crosses(order) {
            close(position, order.postOnly ? .canceled : .filled, at: touch(order.market, buys: order.buys))
        } else if order.lifetime == "IOC" || order.lifetime == "FOK" {
            close(position, .expired)
        }
        return position
    }
    mutating func cancel(_ position: Int) { close(position, .canceled) }
    private mutating func close(_ position: Int, _ state: Order.State, at price: Fixed = .zero) {
        open[orders[position].market].removeAll { $0 == position }
        (orders[position].state, orders[position].updated) = (state, now)
        guard state == .filled else { return }
        orders[position].fill = price
        // Binance's counts of unfilled orders; nobody else reads these two.
        limits.count("orders 10s", per: 10_000, at: now, adding: -1)
        limits.count("orders 1d", per: 86_400_000, at: now, adding: -1)
    }

    /// Positions by the id, or without one by the client id; oldest first.
    func find(id: String?, client: String?) -> [Int] {
        id.map { byID[$0].map { [$0] } ?? [] } ?? client.flatMap { byClient[$0] } ?? []
    }
    /// An order by a template of this exchange.
    func text(_ position: Int, _ template: String = "order", _ more: [String: String] = [:]) -> String {
        let order = orders[position], state = ["state": speech.states[order.state.rawValue] ?? ""]
        return render("\(name).\(template)", order.values.merging(more) { $1 }.merging(state) { $1 })
    }
    var assets: [String] { Set(markets.flatMap { [$0.base, $0.quote] }).sorted() }
    func openOrders(_ market: Int?) -> [Int] { market.map { open[$0] } ?? open.flatMap { $0 }.sorted() }
    /// Whether queries see it: not before `query_lag_ms`.
    func sees(_ position: Int) -> Bool { now - orders[position].accepted >= faults.whole("query_lag_ms") }

    /// The refusal `rule` in this exchange's words.
    func fail(_ rule: String, _ values: [String: String] = [:]) -> Answer {
        let text = render("\(name)!\(rule)", values.merging(["now": "\(now)"]) { first, _ in first })
        return Answer(status: Int(text.prefix(3)) ?? 500, body: String(text.dropFirst(4)))
    }
    /// The refusal of a request that broke a limit, or was not signed well.
    mutating func over(_ rule: String) -> Answer { tally(fail(rule), ["refused_for_limits", "over_limit"]) }
    mutating func unsigned(_ rule: String) -> Answer { tally(fail(rule), ["signature_failures"]) }
    /// Counts the answer under these names of the statistics.
    mutating func tally(_ answer: Answer, _ names: [String]) -> Answer {
        for name in names { counts[name, default: 0] += 1 }
        return answer
    }
    var audit: String {
        let list = orders.map { order in
            render(
                "audit",
                order.values.merging([
                    "symbol": markets[order.market].id, "side": order.buys ? "buy" : "sell",
                    "amount": order.amount.text,
                    "type": order.price == nil ? "market" : "limit", "state": order.state.rawValue,
                    "price": order.price.map { "\"\($0.text)\"" } ?? "null",
                ]) { $1 })
        }
        return
            "{\"orders\":[\(list.joined(separator: ","))],\"by_client_order_id\":\(json(byClient.mapValues(\.count)))}"
    }
    var statistics: String { json((counts as [String: Any]).merging(["requests": requests]) { $1 }) }
}
