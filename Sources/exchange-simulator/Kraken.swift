import Exchanges
import Foundation

/// Kraken spot REST.
struct Kraken: Dialect {
    /// The private counter and its decay a second, the engine's counter of a pair and its decay.
    private static let tier: (most: Double, decay: Double, engine: Double, engineDecay: Double) =
        switch ProcessInfo.processInfo.environment["KRAKEN_TIER"] {
        case "pro": (20, 1, 180, 3.75)
        case "intermediate": (20, 0.5, 125, 2.34)
        default: (15, 0.33, 60, 1)
        }
    let venue: Venue

    func admit(_ call: Call, _ endpoint: Endpoint, _ headers: inout [(String, String)]) throws {
        func charge(_ key: String, _ cost: Double, limit: Double, decay: Double, or rule: String) throws {
            if venue.limits.charge(key, cost, limit: limit, decay: decay, at: venue.now) { return }
            throw venue.fail(rule, counted: ["refused_for_limits", "over_limit"])
        }
        let tier = Kraken.tier
        var (pair, cost) = (call["pair"] ?? "", 1.0)
        switch endpoint.action {
        case .time, .instruments, .tickers, .fixed:
            // Assumed: about one a second is known to be safe, a burst of 15 is not documented.
            return try charge("public \(call.address)", 1, limit: 15, decay: 1, or: "public")
        case .query, .open, .history: return try charge("private", 1, limit: tier.most, decay: tier.decay, or: "429")
        case .cancel:
            guard let order = try venue.found(call, .cancel).first.map({ venue.orders[$0] }) else { return }
            let costs = [(5, 8.0), (10, 6), (15, 5), (45, 4), (90, 2), (300, 1)],
                age = (venue.now - order.accepted) / 1000
            (pair, cost) = (venue.markets[order.market].id, costs.first { age < $0.0 }?.1 ?? 0)
        case .place: pair = venue.markets[try venue.market(pair)].id
        }
        try charge("pair \(pair)", cost, limit: tier.engine, decay: tier.engineDecay, or: "engine")
    }
    func distrust(_ call: Call) -> String? {
        let nonce = call["nonce"] ?? "", secret = Data(base64Encoded: venue.secret) ?? Data()
        let message = Array(call.path.utf8) + Signing.sha256((nonce + call.body).utf8)
        let signature = Data(Signing.hmac(.sha512, key: secret, message)).base64EncodedString()
        if call.header("API-Key") != venue.key { return "key" }
        if call.header("API-Sign") != signature { return "signature" }
        guard let number = UInt64(nonce), number > venue.nonce else { return "nonce" }
        venue.nonce = number
        return nil
    }
    func checkFreshness(_ call: Call) throws {
        guard let text = call["deadline"] else { return }
        let date = try? Date.ISO8601FormatStyle(includingFractionalSeconds: true).parse(text)
        let left = date.map { $0.timeIntervalSince1970 * 1000 - Double(venue.now) } ?? .infinity
        if left > 60_000 { throw venue.fail("number", ["name": "deadline"]) }
        if left < 0 { throw venue.fail("stale") }
    }
}
