import Foundation

/// One exchange: instruments, orders and counters. Every call settles it first, so `now` is the call's time, unix ms.
/// Not safe to share: `Server` guards it.
final class Venue {
    let name, key, secret: String
    let limited: Bool
    let speech: Speech
    private(set) var markets: [Market]
    private(set) var orders: [Order] = []
    private var byID: [String: Int] = [:]
    private var byClient: [String: [Int]] = [:]
    /// Open orders, oldest first.
    private var open: [Int] = []
    private(set) var now = 0
    /// The last step of the prices, a tenth of a second each.
    private var step: Int
    var limits = Limits()
    var faults: Faults
    /// The largest nonce accepted.
    var nonce: UInt64 = 0
    /// Orders that reach the engine at `due` (unix ms), after their connection ended; in the order of that time.
    var late: [(due: Int, call: Call, endpoint: Endpoint)] = []
    /// Of `GET /control/stats`.
    var requests: [String: Int] = [:]
    private var counts = ["refused_for_limits": 0, "over_limit": 0, "bans": 0, "signature_failures": 0]

    init(_ name: String, _ speech: Speech, key: String, secret: String, limited: Bool, seed: UInt64, now: Int) {
        (self.name, self.speech, self.key, self.secret, self.limited) = (name, speech, key, secret, limited)
        (step, faults) = (now / 100, Faults(seed: seed))
        let listings = object(PackageResources.instruments_json)[name] as? [String: [String: Any]] ?? [:]
        markets = listings.sorted { $0.key < $1.key }.map { Market($1, id: $0, seed: seed) }
    }

    /// Moves the prices to `time` and fills the orders they have reached then.
    func settle(at time: Int) {
        now = max(now, time)
        guard now / 100 > step else { return }
        for index in markets.indices { markets[index].walk(now / 100 - step) }
        step = now / 100
        for position in open where crosses(orders[position]) {
            close(position, .filled, at: orders[position].price ?? 0)
        }
    }

    /// - Throws: the refusal `rule` when there is no such market.
    func market(_ name: String?, _ rule: String = "symbol") throws -> Int {
        guard let index = markets.firstIndex(where: { $0.id == name || $0.alias == name }) else { throw fail(rule) }
        return index
    }
    /// The markets a call names; all of them when it names none.
    func named(_ call: Call) throws -> [Int] {
        let several = speech.several.flatMap { call[$0] }?.split { "[\",]".contains($0) }.map(String.init)
        guard let wanted = several ?? call[speech.symbol].map({ [$0] }) else { return Array(markets.indices) }
        return try wanted.map { try market($0, "unlisted") }
    }
    func instrument(_ index: Int) -> String {
        render("\(name).instrument", ["id": markets[index].id, "entry": markets[index].entry])
    }
    func ticker(_ index: Int) -> String {
        if let text = markets[index].ticker { return text }
        let times = ["time": "\(step * 100)", "openTime": "\(step * 100 - 86_400_000)"]
        let text = render("\(name).ticker", markets[index].values.merging(times) { $1 })
        markets[index].ticker = text
        return text
    }

    private func crosses(_ order: Order) -> Bool {
        let touch = markets[order.market].touch(buys: order.buys)
        return order.price.map { order.buys ? touch <= $0 : touch >= $0 } ?? true
    }
    /// Refuses an order that breaks a rule of its market, cannot be paid, or repeats a client id.
    private func check(_ order: Order) throws {
        let rules = markets[order.market].rules, isMarket = order.price == nil, amount = order.amount
        let price = order.price ?? markets[order.market].touch(buys: order.buys), cost = amount * price
        func over(_ value: Decimal, _ rule: String) -> Bool { value > rules[rule] ?? value }
        func under(_ value: Decimal, _ rule: String) -> Bool { value < rules[rule] ?? value }
        let others = byClient[order.client] ?? []
        let broken = [
            ("price", !isMarket && (price == 0 || !price.isMultiple(of: rules["tick"]) || over(price, "mostPrice"))),
            ("least", amount == 0 || under(amount, "least")), ("most", over(amount, "most")),
            ("step", !amount.isMultiple(of: rules["step"])), ("market", isMarket && over(amount, "mostMarket")),
            ("value", under(cost, "leastCost") || !isMarket && over(cost, "mostCost")),
            ("duplicate", others.contains { !speech.reusesClients || orders[$0].state == .open }),
            // No order changes what the account has: two million of any quote.
            ("funds", cost > 2_000_000),
            ("maker", order.isPostOnly && speech.refusesTakers && crosses(order)),
        ]
        if let rule = broken.first(where: \.1)?.0 { throw fail(rule, ["name": speech.amount]) }
    }
    /// Checks an order, stores it and matches it, whole or not at all; its position.
    func place(_ order: Order) throws -> Int {
        try check(order)
        let position = orders.count
        orders.append(order)
        (orders[position].accepted, orders[position].updated, byID[order.id]) = (now, now, position)
        if !order.client.isEmpty { byClient[order.client, default: []].append(position) }
        open.append(position)
        if crosses(order) {
            let touch = markets[order.market].touch(buys: order.buys)
            close(position, order.isPostOnly ? .crossed : .filled, at: touch)
        } else if ["IOC", "FOK"].contains(order.lifetime) {
            close(position, .expired)
        }
        return position
    }
    private func close(_ position: Int, _ state: Order.State, at price: Decimal = 0) {
        open.removeAll { $0 == position }
        (orders[position].state, orders[position].updated) = (state, now)
        if state == .filled { orders[position].fill = price }
    }

    /// The orders a call names by their ids or, without, by client id, or else `all`; only those that fit its other fields.
    private func identified(_ call: Call, else all: [Int]) throws -> [Int] {
        let market = try call[speech.symbol].map { try self.market($0) }, client = call[speech.orderClient]
        let ids = call[speech.orderID]?.split(separator: ",").compactMap { byID[String($0)] }
        return (ids ?? client.map { byClient[$0] ?? [] } ?? all).filter { position in
            let order = orders[position]
            return (market ?? order.market) == order.market && (client ?? order.client) == order.client
        }
    }
    /// The open order a call wants to cancel: the latest that fits.
    func cancellable(_ call: Call) throws -> Int {
        let fitting = try identified(call, else: [])
        if let position = fitting.last(where: { orders[$0].state == .open }) { return position }
        throw fail(fitting.last.map { orders[$0].state.rawValue } ?? "gone")
    }
    func cancel(_ call: Call) throws -> Int {
        let position = try cancellable(call)
        close(position, .canceled)
        return position
    }
    /// The orders a query sees: what it names, else all; open ones oldest first, the history newest first, at most 50.
    func found(_ call: Call, _ action: Action) throws -> [Int] {
        let found = try identified(call, else: action == .history ? Array(orders.indices) : open).filter { position in
            now - orders[position].accepted >= faults.whole("query_lag_ms")
                && (action == .query || (orders[position].state == .open) == (action == .open))
        }
        return action == .history ? Array(found.reversed().prefix(50)) : found
    }

    /// An order by a template, or the template's variant for the order's state.
    func text(_ position: Int, _ template: String) -> String {
        let order = orders[position], client = order.client.isEmpty ? speech.noClient : json(order.client)
        let words = (speech.states[order.state.rawValue] ?? [:]).merging(["client": client]) { $1 }
        return render(
            template, variant: order.state.rawValue, order.values(markets[order.market]).merging(words) { $1 })
    }
    /// The refusal `rule` in this exchange's words, counted under these names of the statistics.
    func fail(_ rule: String, _ values: [String: String] = [:], counted names: [String] = []) -> Answer {
        for name in names { counts[name, default: 0] += 1 }
        let text = render("\(name)!\(rule)", values.merging(["now": "\(now)"]) { first, _ in first })
        return Answer(status: Int(text.prefix(3)) ?? 500, body: String(text.dropFirst(4)))
    }
    var audit: String {
        let list = orders.indices.map { text($0, "audit") }.joined(separator: ",")
        return "{\"orders\":[\(list)],\"by_client_order_id\":\(json(byClient.mapValues(\.count)))}"
    }
    var statistics: String { json((counts as [String: Any]).merging(["requests": requests]) { $1 }) }
}
