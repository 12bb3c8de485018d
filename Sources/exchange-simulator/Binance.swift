import Exchanges
import Foundation

/// Binance spot: rest-api.md, errors.md and filters.md of its documentation.
struct Binance: Dialect {
    static let name = "binance"
    private static let orderLimits = [
        (name: "10S", length: 10_000, most: 100, text: "100 orders per 10 SECOND"),
        (name: "1D", length: 86_400_000, most: 200_000, text: "200000 orders per 1 DAY"),
    ]
    let venue: Venue

    func orderID(_ number: Int) -> String { "\(number)" }

    private func weight(_ call: Call, _ endpoint: Endpoint) -> Int {
        let one = call["symbol"] != nil, several = call["symbols"].map { $0.split(separator: ",").count } ?? 101
        return switch endpoint.action {
        case .tickers: one || several <= 20 ? 2 : several <= 100 ? 40 : 80
        case .open: one ? 6 : 80
        default: endpoint.cost
        }
    }
    private func count(_ key: String, per length: Int, adding: Int = 0) -> Int {
        venue.limits.count(key, per: length, at: venue.now, adding: adding)
    }
    func admit(_ call: Call, _ endpoint: Endpoint) throws {
        func refuse(_ rule: String, until end: Int, _ counted: [String], _ name: String = "") -> Answer {
            let values = ["until": "\(end)", "name": name]
            var answer = venue.fail(rule, values, counted: ["refused_for_limits"] + counted)
            answer.headers = [("Retry-After", "\((end - venue.now + 999) / 1000)")]
            return answer
        }
        let now = venue.now, address = call.address, minute = 60_000
        if let end = venue.limits.bans[address], end > now { throw refuse("418", until: end, []) }
        if count(address, per: minute, adding: weight(call, endpoint)) > 6000 {
            // Assumed: the documentation bans for going on after a 429, without a number.
            guard count("refused \(address)", per: minute, adding: 1) > 10 else {
                throw refuse("429", until: (now / minute + 1) * minute, ["over_limit"])
            }
            venue.limits.bans[address] = now + 120_000
            throw refuse("418", until: now + 120_000, ["over_limit", "bans"])
        }
        for limit in Binance.orderLimits where endpoint.action == .place {
            guard count(limit.name, per: limit.length) >= limit.most else { continue }
            throw refuse("orders", until: (now / limit.length + 1) * limit.length, ["over_limit"], limit.text)
        }
    }
    func headers(_ call: Call, _ endpoint: Endpoint, _ answer: Answer) -> [(String, String)] {
        // Orders and cancels cost weight only when they are refused; orders that are filled at once do not count as such.
        let places = endpoint.action == .place, isDone = answer.status == 200
        let used = count(call.address, per: 60_000, adding: isDone && (places || endpoint.action == .cancel) ? -1 : 0)
        let unfilled = places && isDone && venue.orders.last?.state != .filled ? 1 : 0
        let counts = Binance.orderLimits.map { limit in
            ("X-MBX-ORDER-COUNT-\(limit.name)", "\(count(limit.name, per: limit.length, adding: unfilled))")
        }
        return [("X-MBX-USED-WEIGHT-1M", "\(used)")] + (places ? counts : [])
    }

    func distrust(_ call: Call) -> String? {
        let key = call.header("X-MBX-APIKEY")
        if key != venue.key { return key.isEmpty ? "nokey" : "key" }
        let payload = [call.query, call.body].map { text in
            text.split(separator: "&").filter { !$0.hasPrefix("signature=") }.joined(separator: "&")
        }
        let signature = Signing.hex(Signing.hmacSHA256(key: venue.secret.utf8, payload.joined().utf8))
        return call["signature"]?.lowercased() == signature ? nil : "signature"
    }
    func checkFreshness(_ call: Call) throws {
        guard let stamp = Int(call["timestamp"] ?? "") else { throw venue.fail("missing", ["name": "timestamp"]) }
        guard let window = Decimal(wire: call["recvWindow"] ?? "5000"), window <= 60_000 else {
            throw venue.fail("window")
        }
        let age = venue.now - max(stamp, 0)
        if age <= -1000 || Decimal(age) > window { throw venue.fail(age < 0 ? "early" : "stale") }
    }
}
