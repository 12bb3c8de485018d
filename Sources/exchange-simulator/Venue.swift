import Exchanges
import Foundation

/// One exchange: instruments, orders and counters. Every call settles it first, so `now` is the call's time, unix ms.
/// Not safe to share: `Server` guards it.
final class Venue {
    let name, key, secret: String, limited: Bool, speech: Speech
    private(set) var markets: [Market]
    private(set) var orders: [Order] = []
    private var byClient: [String: [Int]] = [:]
    /// Open orders, oldest first.
    private var open: [Int] = []
    private(set) var now: Int
    var limits = Limits()
    var faults: Faults
    /// The largest nonce accepted.
    var nonce: UInt64 = 0
    /// Orders that reach the engine at `due` (unix ms), after their connection ended; in the order of that time.
    var late: [(due: Int, call: Call, endpoint: Endpoint)] = []
    /// Of `GET /control/stats`.
    var requests: [String: Int] = [:]
    private var counts = ["refused_for_limits": 0, "over_limit": 0, "bans": 0, "signature_failures": 0]

    /// - Throws: when the file of a secret cannot be read.
    init(_ name: String, limited: Bool, markets count: Int, seed: UInt64, now: Int) throws {
        let speeches = try JSONDecoder().decode([String: Speech].self, from: Data(PackageResources.speech_json))
        guard let speech = speeches[name] else { throw CocoaError(.coderValueNotFound) }
        func setting(_ kind: String) throws -> String? {
            // An empty variable is an unset one, as compose files make them.
            let environment = ProcessInfo.processInfo.environment.filter { !$0.value.isEmpty }
            let variable = "\(name)_\(kind)".uppercased()
            let file = try environment["\(variable)_FILE"].map { try String(contentsOfFile: $0, encoding: .utf8) }
            return environment[variable] ?? file?.trimmingCharacters(in: .whitespacesAndNewlines)
        }
        (key, secret) = (try setting("key") ?? speech.key, try setting("secret") ?? speech.secret)
        (self.name, self.speech, self.limited, self.now) = (name, speech, limited, now)
        faults = Faults(random: Seeded(state: seed))
        let all = jsonObject(String(decoding: PackageResources.instruments_json, as: UTF8.self))
        var listings = all[name] as? [String: [String: Any]] ?? [:]
        // Made up after Bitcoin's, which is XBT at Kraken.
        let base = name == "kraken" ? "XBT" : "BTC", model = jsonText(listings["\(base)USDT"] ?? [:])
        while listings.count < count {
            let own = String(format: "S%03ld", listings.count)
            listings["\(own)USDT"] = jsonObject(model.replacing(base, with: own))
        }
        markets = listings.sorted { $0.key < $1.key }.map { Market($1, id: $0, of: name, seed: seed) }
    }

    /// Moves the prices to `time` and fills the orders they have reached then.
    func settle(at time: Int) {
        let steps = time / 100 - now / 100
        now = max(now, time)
        guard steps > 0 else { return }
        for index in markets.indices { markets[index].walk(steps) }
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
    func ticker(_ index: Int) -> String {
        if let text = markets[index].ticker { return text }
        let times = ["time": "\(now)", "openTime": "\(now - 86_400_000)"]
        let text = render("\(name).ticker", markets[index].values.merging(times) { $1 })
        markets[index].ticker = text
        return text
    }

    private func crosses(_ order: Order) -> Bool {
        let touch = markets[order.market].touch(buys: order.buys)
        return order.price.map { order.buys ? touch <= $0 : touch >= $0 } ?? true
    }
    /// Refuses an order that breaks a rule of its market, repeats a client id or costs more than the account has.
    private func check(_ order: Order) throws {
        let rules = markets[order.market].rules, isMarket = order.price == nil, amount = order.amount
        let price = order.price ?? markets[order.market].touch(buys: order.buys), cost = amount * price
        func over(_ value: Decimal, _ rule: String) -> Bool { value > rules[rule] ?? value }
        func under(_ value: Decimal, _ rule: String) -> Bool { value < rules[rule] ?? value }
        // A whole quotient has no digits after the point.
        func isOff(_ value: Decimal, _ rule: String) -> Bool { (value / (rules[rule] ?? 1)).exponent < 0 }
        let others = byClient[order.client] ?? []
        let broken = [
            ("price", !isMarket && (price == 0 || isOff(price, "tick") || over(price, "mostPrice"))),
            ("least", amount == 0 || under(amount, "least")), ("most", over(amount, "most")),
            ("step", isOff(amount, "step")), ("market", isMarket && over(amount, "mostMarket")),
            ("value", under(cost, "leastCost") || !isMarket && over(cost, "mostCost")),
            ("duplicate", others.contains { !speech.reusesClients || orders[$0].state == .open }),
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

    /// Of the orders a call names by ids or client id, else of all, those that `action` is about, newest first.
    func found(_ call: Call, _ action: Action) throws -> [Int] {
        let market = try call[speech.symbol].map { try self.market($0) }, client = call[speech.orderClient]
        let ids = call[speech.orderID]?.split(separator: ",").compactMap { id in orders.lastIndex { $0.id == id } }
        let all = ids ?? client.map { byClient[$0] ?? [] } ?? (action == .history ? Array(orders.indices) : open)
        // The engine knows an order at once, queries see it later.
        let latest = action == .cancel ? now : now - faults.whole("query_lag_ms")
        let found = all.reversed().filter { position in
            let order = orders[position], isOpen = order.state == .open
            return (market ?? order.market) == order.market && (client ?? order.client) == order.client
                && order.accepted <= latest && (action == .query || isOpen == (action != .history))
        }
        return action == .history ? Array(found.prefix(50)) : found
    }
    func cancel(_ call: Call) throws -> Int {
        guard let position = try found(call, .cancel).first else {
            throw fail(try found(call, .query).first.map { orders[$0].state.rawValue } ?? "gone")
        }
        close(position, .canceled)
        return position
    }

    /// An order by a template, or the template's variant for the order's state.
    func text(_ position: Int, _ template: String) -> String {
        let order = orders[position]
        return render(template, variant: order.state.rawValue, order.values(markets[order.market], speech))
    }
    /// The refusal `rule` in this exchange's words, counted under these names of the statistics; `until`: unix ms.
    func fail(_ rule: String, _ values: [String: String] = [:], counted: [String] = [], until: Int? = nil) -> Answer {
        for name in counted { counts[name, default: 0] += 1 }
        let text = render("\(name)!\(rule)", values.merging(["now": "\(now)", "until": "\(until ?? now)"]) { $1 })
        let wait = until.map { [("Retry-After", "\(($0 - now + 999) / 1000)")] } ?? []
        return Answer(status: Int(text.prefix(3)) ?? 500, body: String(text.dropFirst(4)), headers: wait)
    }
    var audit: String {
        let list = orders.indices.map { text($0, "audit") }.joined(separator: ",")
        return "{\"orders\":[\(list)],\"by_client_order_id\":\(jsonText(byClient.mapValues(\.count)))}"
    }
    var statistics: String { jsonText((counts as [String: Any]).merging(["requests": requests]) { $1 }) }
}
