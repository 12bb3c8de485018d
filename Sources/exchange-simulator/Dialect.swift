/// How one exchange behaves. Refusals are thrown as `Answer`.
protocol Dialect: Sendable {
    static var name: String { get }
    /// The instrument list as the exchange publishes it, by id.
    static var instruments: [(id: String, entry: [String: Any])] { get }
    static func isClient(_ id: String) -> Bool
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

extension Dialect {
    /// The order a call asks for, in well-formed words; `inQuote` when the field `amount` counts quote.
    static func order(_ call: Call, id: String, amount: String, inQuote: Bool, _ venue: Venue) throws -> Order {
        let words = venue.speech
        func number(_ field: String) throws -> Fixed {
            guard let value = Fixed(try need(field, call, venue)) else { throw venue.fail("number", ["name": field]) }
            // Eight decimals are the finest that any of the served assets has, except Bybit's quote amounts.
            guard value.places <= (inQuote ? 9 : 8) else { throw venue.fail("digits", ["name": field]) }
            return value
        }
        let market = try venue.market(need(words.symbol, call, venue)), type = try need(words.type, call, venue)
        let side = try need(words.side, call, venue), lifetime = call[words.lifetime] ?? words.lifetimes[0]
        let client = call[words.client] ?? ""
        guard words.sides.contains(side) else { throw venue.fail("side") }
        guard words.types.contains(type) else { throw venue.fail("type") }
        guard words.lifetimes.contains(lifetime) else { throw venue.fail("lifetime") }
        guard client.isEmpty || isClient(client) else { throw venue.fail("client", ["name": words.client]) }
        let (size, buys) = (try number(amount), side == words.sides[0])
        let inBase = (size / venue.touch(market, buys: buys)).floored(to: venue.markets[market].rules["step"])
        return Order(
            id: id, client: client, market: market, buys: buys, amount: inQuote ? inBase : size,
            cost: inQuote ? size : .zero, price: type == words.types[0] ? nil : try number(words.price),
            lifetime: lifetime,
            words: ["side": side, "type": type, "symbol": venue.markets[market].id])
    }
    /// At most 36 letters, digits, `-` and `_`.
    static func isClient(_ id: String) -> Bool {
        id.utf8.count <= 36
            && id.utf8.allSatisfy { 48...57 ~= $0 || 97...122 ~= $0 | 32 && $0 < 128 || $0 == 45 || $0 == 95 }
    }
}

/// A field that must be there.
func need(_ field: String, _ call: Call, _ venue: Venue) throws -> String {
    guard let value = call[field] else { throw venue.fail("missing", ["name": field]) }
    return value
}
