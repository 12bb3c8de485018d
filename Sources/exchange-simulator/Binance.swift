import Exchanges

/// Binance spot: rest-api.md, errors.md and filters.md of its documentation.
enum Binance: Dialect {
    static let name = "binance"
    private static let orderLimits = [
        ("orders 10s", 10_000, 100, "100 orders per 10 SECOND"),
        ("orders 1d", 86_400_000, 200_000, "200000 orders per 1 DAY"),
    ]

    static var instruments: [(id: String, entry: [String: Any])] {
        let list = object(PackageResources.binance_exchangeInfo_json)["symbols"] as? [[String: Any]] ?? []
        return list.map { ("\($0["symbol"] ?? "")", $0) }
    }
    private static func weight(_ call: Call, _ venue: Venue) -> Int {
        let one = call["symbol"] != nil, several = call["symbols"].map { $0.split(separator: ",").count }
        let depth = Int(call["limit"] ?? "") ?? 100
        return switch call.path {
        case "/api/v3/ticker/24hr": one || several ?? 101 <= 20 ? 2 : several ?? 101 <= 100 ? 40 : 80
        case "/api/v3/ticker/bookTicker", "/api/v3/ticker/price": one ? 2 : 4
        case "/api/v3/depth": depth <= 100 ? 5 : depth <= 500 ? 25 : depth <= 1000 ? 50 : 250
        case "/api/v3/openOrders": one ? 6 : 80
        default: venue.speech.endpoints[call.endpoint] ?? 1
        }
    }
    static func admit(_ call: Call, _ venue: inout Venue) throws {
        let now = venue.now, address = call.address
        func refuse(_ rule: String, _ end: Int, _ counts: [String], _ name: String = "") -> Answer {
            var answer = venue.fail(rule, ["until": "\(end)", "name": name])
            answer.headers = [("Retry-After", "\((end - now + 999) / 1000)")]
            return venue.tally(answer, ["refused_for_limits"] + counts)
        }
        if let end = venue.limits.ban(address, at: now) { throw refuse("418", end, []) }
        let used = venue.limits.count("weight \(address)", per: 60_000, at: now, adding: weight(call, venue))
        let raw = venue.limits.count("raw \(address)", per: 300_000, at: now, adding: 1)
        if used > 6000 || raw > 300_000 {
            let length = used > 6000 ? 60_000 : 300_000
            if let end = venue.limits.breach(address, per: length, first: 120_000, at: now) {
                throw refuse("418", end, ["over_limit", "bans"])
            }
            throw refuse("429", (now / length + 1) * length, ["over_limit"])
        }
        for (key, length, most, text) in orderLimits where call.endpoint == venue.speech.placing {
            guard venue.limits.count(key, per: length, at: now) >= most else { continue }
            throw refuse("orders", (now / length + 1) * length, ["over_limit"], text)
        }
    }
    static func headers(_ call: Call, _ venue: inout Venue) -> [(String, String)] {
        let counts = orderLimits.map { "\(venue.limits.count($0.0, per: $0.1, at: venue.now))" }
        let used = venue.limits.count("weight \(call.address)", per: 60_000, at: venue.now)
        let orders = [("X-MBX-ORDER-COUNT-10S", counts[0]), ("X-MBX-ORDER-COUNT-1D", counts[1])]
        return [("X-MBX-USED-WEIGHT-1M", "\(used)")] + (call.endpoint == venue.speech.placing ? orders : [])
    }

    static func authorize(_ call: Call, _ venue: inout Venue) throws {
        let key = call.header("X-MBX-APIKEY")
        if key != venue.key { throw venue.unsigned(key.isEmpty ? "nokey" : "key") }
        try fresh(call, venue)
        let signature = try need("signature", call, venue)
        let payload = [call.query, call.body].map { text in
            text.split(separator: "&").filter { !$0.hasPrefix("signature=") }.joined(separator: "&")
        }
        let expected = Signing.hex(Signing.hmacSHA256(key: venue.secret, payload.joined().utf8))
        if signature.lowercased() != expected { throw venue.unsigned("signature") }
    }
    static func fresh(_ call: Call, _ venue: Venue) throws {
        guard let stamp = Int(try need("timestamp", call, venue)) else {
            throw venue.fail("missing", ["name": "timestamp"])
        }
        guard let window = Fixed(call["recvWindow"] ?? "5000"), window.units <= 600_000_000_000_000 else {
            throw venue.fail("window")
        }
        // Microseconds are told by their size.
        let age = venue.now - (stamp > 100_000_000_000_000 ? stamp / 1000 : max(stamp, 0))
        if age <= -1000 { throw venue.fail("early") }
        if Int128(age) * 10_000_000_000 > window.units { throw venue.fail("stale") }
    }

    /// The markets a call names; all of them when it names none.
    private static func chosen(_ call: Call, _ venue: Venue) throws -> [Int] {
        let several = call["symbols"].map { object(Array("{\"list\":\($0)}".utf8))["list"] as? [String] ?? [""] }
        if call["symbol"] != nil, several != nil { throw venue.fail("both") }
        guard let names = several ?? call["symbol"].map({ [$0] }) else { return Array(venue.markets.indices) }
        return try names.map { try venue.market($0) }
    }

    static func execute(_ call: Call, _ venue: inout Venue) throws -> String {
        func list(_ texts: [String]) -> String {
            call["symbol"] == nil || call.path == "/api/v3/openOrders" ? "[\(texts.joined(separator: ","))]" : texts[0]
        }
        switch call.endpoint {
        case "GET /api/v3/ping": return "{}"
        // Currencies and other markets, which general clients load too: there are none.
        case _ where call.path.hasPrefix("/sapi/"): return "[]"
        case "GET /fapi/v1/exchangeInfo", "GET /dapi/v1/exchangeInfo": return "{\"symbols\":[]}"
        case "GET /api/v3/time": return "{\"serverTime\":\(venue.now)}"
        case "GET /api/v3/exchangeInfo":
            let entries = try chosen(call, venue).map { venue.markets[$0].entry }.joined(separator: ",")
            return render("binance.info", ["now": "\(venue.now)", "symbols": entries])
        case "GET /api/v3/ticker/24hr" where call["type"] != "MINI":
            return list(try chosen(call, venue).map { venue.ticker($0) })
        case "GET /api/v3/ticker/24hr", "GET /api/v3/ticker/bookTicker", "GET /api/v3/ticker/price":
            let template = "binance.\(call.path.split(separator: "/").last ?? "")", time = "\(venue.now)"
            return list(
                try chosen(call, venue).map {
                    render(template, venue.markets[$0].values.merging(["time": time]) { $1 })
                })
        case "GET /api/v3/depth":
            let market = venue.markets[try venue.market(need("symbol", call, venue))],
                count = Int(call["limit"] ?? "") ?? 100
            return "{\"lastUpdateId\":\(venue.now),\"bids\":\(market.bids(count)),\"asks\":\(market.asks(count))}"
        case "GET /api/v3/account":
            let balances = venue.assets.map { render("binance.balance", ["asset": $0, "free": Venue.balance]) }
            return render("binance.account", ["now": "\(venue.now)", "balances": balances.joined(separator: ",")])
        case "GET /api/v3/rateLimit/order":
            let counts = orderLimits.map { "\(venue.limits.count($0.0, per: $0.1, at: venue.now))" }
            return render("binance.counts", ["short": counts[0], "day": counts[1]])
        case "GET /api/v3/openOrders":
            let market = try call["symbol"].map { try venue.market($0) }
            return list(venue.openOrders(market).filter(venue.sees).map { venue.text($0) })
        case "GET /api/v3/order", venue.speech.cancelling:
            let market = try venue.market(need("symbol", call, venue)),
                cancels = call.endpoint == venue.speech.cancelling
            if call["orderId"] == nil { _ = try need("origClientOrderId", call, venue) }
            let found = venue.find(id: call["orderId"], client: call["origClientOrderId"]).last {
                venue.orders[$0].market == market && (cancels ? venue.orders[$0].state == .open : venue.sees($0))
            }
            guard let found else { throw venue.fail(cancels ? "gone" : "unknown") }
            if let client = call["origClientOrderId"], client != venue.orders[found].client {
                throw venue.fail("mismatch")
            }
            guard cancels else { return venue.text(found) }
            venue.limits.count("weight \(call.address)", per: 60_000, at: venue.now, adding: -1)
            venue.cancel(found)
            return venue.text(found, "cancel", ["cancel": quoted(call["newClientOrderId"] ?? "cancel_\(venue.now)")])
        default: return try place(call, &venue)
        }
    }

    private static func place(_ call: Call, _ venue: inout Venue) throws -> String {
        let size = call["type"] == "MARKET" && call["quoteOrderQty"] != nil ? "quoteOrderQty" : "quantity"
        let needed = ["LIMIT": [size, "price", "timeInForce"], "MARKET": [size], "LIMIT_MAKER": [size, "price"]][
            call["type"] ?? ""]
        for name in ["timeInForce", size, "quantity", "quoteOrderQty", "price"] {
            guard let needed else { continue }
            if needed.contains(name) {
                _ = try need(name, call, venue)
            } else if call[name] != nil {
                throw venue.fail("surplus", ["name": name])
            }
        }
        let id = "\(venue.orders.count + 1)"
        var order = try order(call, id: id, amount: size, inQuote: size != "quantity", venue)
        if order.client.isEmpty { order.client = "web_\(id)" }
        order.postOnly = call["type"] == "LIMIT_MAKER"
        let kind = call["newOrderRespType"] ?? (order.postOnly ? "ACK" : "FULL")
        guard ["ACK", "RESULT", "FULL"].contains(kind) else { throw venue.fail("answer") }
        try venue.check(order, reusable: true, mostOpen: 200)
        if order.postOnly, venue.crosses(order) { throw venue.fail("maker") }
        if call.endpoint != venue.speech.placing { return "{}" }
        for limit in orderLimits { venue.limits.count(limit.0, per: limit.1, at: venue.now, adding: 1) }
        venue.limits.count("weight \(call.address)", per: 60_000, at: venue.now, adding: -1)
        let position = venue.place(order), placed = venue.orders[position], market = venue.markets[placed.market]
        let fee = (placed.buys ? placed.amount : placed.amount * placed.fill) / (Fixed("1000") ?? .zero)
        let fill = venue.text(
            position, "fill", ["fee": fee.text(8), "feeAsset": placed.buys ? market.base : market.quote, "trade": id])
        return venue.text(position, kind, ["fills": placed.state == .filled ? fill : ""])
    }
}
