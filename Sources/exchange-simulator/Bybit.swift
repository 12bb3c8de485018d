import Exchanges

/// Bybit v5, category spot; a unified account.
struct Bybit: Dialect {
    static let name = "bybit"
    let venue: Venue

    func orderID(_ number: Int) -> String { "\(1_900_000_000_000_000_000 + number)" }

    func admit(_ call: Call, _ endpoint: Endpoint) throws {
        let now = venue.now, address = call.address
        if venue.limits.bans[address] ?? 0 > now { throw venue.fail("403", counted: ["refused_for_limits"]) }
        guard venue.limits.roll(address, limit: 600, per: 5000, at: now).fits else {
            venue.limits.bans[address] = now + 600_000
            throw venue.fail("403", counted: ["refused_for_limits", "over_limit", "bans"])
        }
        let limit = endpoint.cost
        guard limit == 0 || venue.limits.roll(call.endpoint, limit: limit, per: 1000, at: now).fits else {
            throw venue.fail("418", counted: ["refused_for_limits", "over_limit"])
        }
    }
    func headers(_ call: Call, _ endpoint: Endpoint, _ answer: Answer) -> [(String, String)] {
        guard endpoint.cost > 0 else { return [] }
        let state = venue.limits.roll(call.endpoint, limit: endpoint.cost, per: 1000, at: venue.now, adding: false)
        return [
            ("X-Bapi-Limit", "\(endpoint.cost)"), ("X-Bapi-Limit-Status", "\(state.left)"),
            ("X-Bapi-Limit-Reset-Timestamp", "\(state.reset)"),
        ]
    }

    func distrust(_ call: Call) -> String? {
        let sent = ["X-BAPI-TIMESTAMP", "X-BAPI-API-KEY", "X-BAPI-RECV-WINDOW", "X-BAPI-SIGN"].map(call.header)
        if [sent[0], sent[1], sent[3]].contains("") { return "401" }
        if sent[1] != venue.key { return "key" }
        let message = sent[0...2].joined() + (call.method == "GET" ? call.query : call.body)
        return Signing.hex(Signing.hmacSHA256(key: venue.secret.utf8, message.utf8)) == sent[3] ? nil : "signature"
    }
    func checkFreshness(_ call: Call) throws {
        let stamp = call.header("X-BAPI-TIMESTAMP"), window = call.header("X-BAPI-RECV-WINDOW")
        let age = venue.now - max(0, Int(stamp) ?? 0)
        guard age > -1000, age <= Int(window.isEmpty ? "5000" : window) ?? 0 else {
            throw venue.fail("stale", ["stamp": stamp, "window": window])
        }
    }
}
