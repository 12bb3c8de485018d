import Exchanges
import Foundation

/// Binance spot: rest-api.md, errors.md and filters.md of its documentation.
struct Binance: Dialect {
    let venue: Venue

    func admit(_ call: Call, _ endpoint: Endpoint, _ headers: inout [(String, String)]) throws {
        let now = venue.now, minute = 60_000, refused = ["refused_for_limits"], over = refused + ["over_limit"]
        if let end = venue.limits.bans[call.address], end > now {
            throw venue.fail("418", counted: refused, until: end)
        }
        let isOne = call["symbol"] ?? call["symbols"] != nil, weight = isOne ? endpoint.costOfOne : nil
        let used = venue.limits.count(call.address, per: minute, at: now, adding: weight ?? endpoint.cost)
        headers = [("X-MBX-USED-WEIGHT-1M", "\(used)")]
        if used > 6000 {
            // Assumed: a ban is for going on after a 429, the documentation gives no number.
            guard venue.limits.count("refused \(call.address)", per: minute, at: now) > 10 else {
                throw venue.fail("429", counted: over, until: (now / minute + 1) * minute)
            }
            venue.limits.bans[call.address] = now + 120_000
            throw venue.fail("418", counted: over + ["bans"], until: now + 120_000)
        }
        for (name, length, most) in [("10S", 10_000, 100), ("1D", 86_400_000, 200_000)] where endpoint.action == .place
        {
            let count = venue.limits.count(name, per: length, at: now)
            headers.append(("X-MBX-ORDER-COUNT-\(name)", "\(count)"))
            if count > most { throw venue.fail("orders\(name)", counted: over, until: (now / length + 1) * length) }
        }
    }
    func distrust(_ call: Call) -> String? {
        let key = call.header("X-MBX-APIKEY")
        if key != venue.key { return key.isEmpty ? "nokey" : "key" }
        let payload = [call.query, call.body].map { text in
            text.split(separator: "&").filter { !$0.hasPrefix("signature=") }.joined(separator: "&")
        }
        let signature = Signing.hex(Signing.hmac(.sha256, key: venue.secret.utf8, payload.joined().utf8))
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
