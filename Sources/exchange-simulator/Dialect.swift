/// How one exchange speaks: its paths, rules and words. Refusals are thrown as `Answer`.
protocol Dialect: Sendable {
    static var name: String { get }
    /// `METHOD /path` of every endpoint, with its request weight where the exchange has such.
    static var endpoints: [String: Int] { get }
    static var placing: String { get }
    static var cancelling: String { get }
    static func markets(seed: UInt64) -> [Market]
    /// Counts the call against the limits of its address and key.
    static func admit(_ call: Call, _ venue: inout Venue) throws
    /// Checks key, signature and freshness of a private call.
    static func authorize(_ call: Call, _ venue: inout Venue) throws
    /// Refuses what the engine may no longer take at `venue.now`.
    static func fresh(_ call: Call, _ venue: Venue) throws
    static func execute(_ call: Call, _ venue: inout Venue) throws -> String
    /// Limit headers of an answer.
    static func headers(_ call: Call, _ venue: inout Venue) -> [(String, String)]
}

/// Where and in which words a call describes an order; the first side buys, the first type is the market order, and the
/// first lifetime is the default.
struct OrderForm: Sendable {
    let symbol, side, type, price, lifetime, client: String
    let sides, types, lifetimes: [String]
    let isClient: @Sendable (String) -> Bool

    /// The order a call asks for, in well-formed words; `inQuote` when the field `amount` counts quote.
    func order(_ call: Call, id: String, amount: String, inQuote: Bool, _ venue: Venue) throws -> Order {
        func number(_ field: String) throws -> Fixed {
            guard let value = Fixed(try need(field, call, venue)) else { throw venue.fail("number", ["name": field]) }
            // Eight decimals are the finest that any of the served assets has, except Bybit's quote amounts.
            guard value.places <= (inQuote ? 9 : 8) else { throw venue.fail("digits", ["name": field]) }
            return value
        }
        let market = try venue.market(need(symbol, call, venue)), type = try need(type, call, venue)
        let side = try need(side, call, venue), lifetime = call[lifetime] ?? lifetimes[0], client = call[client] ?? ""
        guard sides.contains(side) else { throw venue.fail("side") }
        guard types.contains(type) else { throw venue.fail("type") }
        guard lifetimes.contains(lifetime) else { throw venue.fail("lifetime") }
        guard client.isEmpty || isClient(client) else { throw venue.fail("client", ["name": self.client]) }
        let (size, buys) = (try number(amount), side == sides[0])
        let quoted = (size / venue.touch(market, buys: buys)).floored(to: venue.markets[market].rules["step"])
        return Order(
            id: id, client: client, market: market, buys: buys, amount: inQuote ? quoted : size,
            cost: inQuote ? size : .zero, price: type == types[0] ? nil : try number(price), lifetime: lifetime,
            words: ["side": side, "type": type, "symbol": venue.markets[market].id])
    }
}

/// A field that must be there.
func need(_ field: String, _ call: Call, _ venue: Venue) throws -> String {
    guard let value = call[field] else { throw venue.fail("missing", ["name": field]) }
    return value
}
/// Letters, digits, `-` and `_`, at most `count`.
func isWord(_ text: String, _ count: Int) -> Bool {
    text.utf8.count <= count
        && text.utf8.allSatisfy { 48...57 ~= $0 || 97...122 ~= $0 | 32 && $0 < 128 || $0 == 45 || $0 == 95 }
}
