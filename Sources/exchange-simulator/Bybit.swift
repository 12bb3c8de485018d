import Exchanges

/// Bybit v5, category spot; a unified account. Its windows roll.
struct Bybit: Dialect {
    let venue: Venue

    func admit(_ call: Call, _ endpoint: Endpoint, _ headers: inout [(String, String)]) throws {
        let now = venue.now, refused = ["refused_for_limits"], over = refused + ["over_limit"]
        if venue.limits.bans[call.address] ?? 0 > now { throw venue.fail("403", counted: refused) }
        if venue.limits.countRolling(call.address, within: 5000, at: now) > 600 {
            venue.limits.bans[call.address] = now + 600_000
            throw venue.fail("403", counted: over + ["bans"])
        }
        guard endpoint.cost > 0 else { return }
        let left = endpoint.cost - venue.limits.countRolling(call.endpoint, within: 1000, at: now)
        headers = [
            ("X-Bapi-Limit", "\(endpoint.cost)"), ("X-Bapi-Limit-Status", "\(max(0, left))"),
            ("X-Bapi-Limit-Reset-Timestamp", "\(left < 0 ? now + 1000 : now)"),
        ]
        if left < 0 { throw venue.fail("418", counted: over) }
    }
    func distrust(_ call: Call) -> String? {
        let sent = ["X-BAPI-TIMESTAMP", "X-BAPI-API-KEY", "X-BAPI-RECV-WINDOW", "X-BAPI-SIGN"].map(call.header)
        if [sent[0], sent[1], sent[3]].contains("") { return "401" }
        if sent[1] != venue.key { return "key" }
        let message = sent[0...2].joined() + (call.method == "GET" ? call.query : call.body)
        return Signing.hex(Signing.hmac(.sha256, key: venue.secret.utf8, message.utf8)) == sent[3] ? nil : "signature"
    }
    func checkFreshness(_ call: Call) throws {
        let stamp = call.header("X-BAPI-TIMESTAMP"), window = call.header("X-BAPI-RECV-WINDOW")
        let age = venue.now - max(0, Int(stamp) ?? 0)
        let most = Int(window.isEmpty ? "5000" : window) ?? 0
        if age <= -1000 || age > most { throw venue.fail("stale", ["stamp": stamp, "window": window]) }
    }
}
