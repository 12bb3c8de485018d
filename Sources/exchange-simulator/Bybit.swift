import Exchanges

/// Bybit v5, category spot; a unified account.
enum Bybit: Dialect {
    static let name = "bybit"
    static var instruments: [(id: String, entry: [String: Any])] {
        let result = object(PackageResources.bybit_instruments_info_spot_json)["result"] as? [String: Any]
        return (result?["list"] as? [[String: Any]] ?? []).map { ("\($0["symbol"] ?? "")", $0) }
    }

    static func admit(_ call: Call, _ venue: inout Venue) throws {
        let now = venue.now, address = call.address, limit = venue.speech.endpoints[call.endpoint] ?? 0
        if venue.limits.ban(address, at: now) != nil { throw venue.tally(venue.fail("403"), ["refused_for_limits"]) }
        guard venue.limits.roll(address, limit: 600, per: 5000, at: now).fits else {
            _ = venue.limits.breach(address, per: nil, first: 600_000, at: now)
            throw venue.tally(venue.fail("403"), ["refused_for_limits", "over_limit", "bans"])
        }
        guard limit == 0 || venue.limits.roll(call.endpoint, limit: limit, per: 1000, at: now).fits else {
            throw venue.over("418")
        }
    }
    static func headers(_ call: Call, _ venue: inout Venue) -> [(String, String)] {
        guard let limit = venue.speech.endpoints[call.endpoint], limit > 0 else { return [] }
        let state = venue.limits.roll(call.endpoint, limit: limit, per: 1000, at: venue.now, adding: false)
        let values = [
            ("X-Bapi-Limit", limit), ("X-Bapi-Limit-Status", state.left), ("X-Bapi-Limit-Reset-Timestamp", state.reset),
        ]
        return values.map { ($0, "\($1)") }
    }

    static func authorize(_ call: Call, _ venue: inout Venue) throws {
        let names = ["X-BAPI-TIMESTAMP", "X-BAPI-API-KEY", "X-BAPI-RECV-WINDOW", "X-BAPI-SIGN"]
        let sent = names.map(call.header)
        if sent[0].isEmpty || sent[1].isEmpty || sent[3].isEmpty {
            throw venue.unsigned("401")
        }
        if sent[1] != venue.key { throw venue.unsigned("key") }
        try fresh(call, venue)
        // Official clients sign the query as written and send it escaped, so both forms are taken.
        let texts = call.method == "GET" ? [call.query, decoded(Substring(call.query))] : [call.body]
        let signed = texts.contains { text in
            let message = sent[0...2].joined() + text
            return Signing.hex(Signing.hmacSHA256(key: venue.secret, message.utf8)) == sent[3]
        }
        if !signed { throw venue.unsigned("signature") }
    }
    static func fresh(_ call: Call, _ venue: Venue) throws {
        let stamp = call.header("X-BAPI-TIMESTAMP"), window = call.header("X-BAPI-RECV-WINDOW")
        let age = venue.now - max(0, Int(stamp) ?? 0)
        guard age > -1000, age <= Int(window.isEmpty ? "5000" : window) ?? 0 else {
            throw venue.fail("stale", ["stamp": stamp, "window": window])
        }
    }

    private static func done(_ result: String, _ venue: Venue) -> String {
        "{\"retCode\":0,\"retMsg\":\"OK\",\"result\":\(result),\"retExtInfo\":{},\"time\":\(venue.now)}"
    }
    private static func text(_ position: Int, _ venue: Venue) -> String {
        let order = venue.orders[position]
        let lost = order.state == .canceled || order.state == .expired
        let reasons: [Order.State: String] = [.canceled: "EC_PerCancelRequest", .expired: "EC_NoImmediateQtyToFill"]
        let more = [
            "reason": order.crossed ? "EC_PostOnlyWillTakeLiquidity" : reasons[order.state] ?? "EC_NoError",
            "cancelType": lost ? "CancelByUser" : "UNKNOWN", "price": order.price?.text ?? "0",
            "average": order.state == .filled ? order.fill.text : "",
            "wanted": (order.cost > .zero ? order.cost : order.amount).text,
        ]
        return venue.text(position, "order", more)
    }

    static func execute(_ call: Call, _ venue: inout Venue) throws -> String {
        if call.method == "GET", !call.body.isEmpty { throw venue.fail("body") }
        let spot = call["category"] == "spot"
        func listed(_ texts: [String], more: String = "") -> String {
            let category = quoted(call["category"] ?? "")
            return done("{\(more)\"category\":\(category),\"list\":[\(texts.joined(separator: ","))]}", venue)
        }
        func named() throws -> [Int] {
            do { return try call["symbol"].map { [try venue.market($0)] } ?? Array(venue.markets.indices) } catch {
                throw venue.fail("unlisted")
            }
        }
        switch call.endpoint {
        case "GET /v5/market/time":
            return done("{\"timeSecond\":\"\(venue.now / 1000)\",\"timeNano\":\"\(venue.now)000000\"}", venue)
        case "GET /v5/user/query-api": return done("{\"id\":\"1\",\"readOnly\":0,\"uta\":1,\"unified\":0}", venue)
        case "GET /v5/account/info": return done("{\"unifiedMarginStatus\":6,\"marginMode\":\"REGULAR_MARGIN\"}", venue)
        case "GET /v5/asset/coin/query-info": return done("{\"rows\":[]}", venue)
        case "GET /v5/account/wallet-balance":
            let wanted = venue.assets.filter { call["coin"]?.split(separator: ",").contains(Substring($0)) ?? true }
            let coins = wanted.map { render("bybit.balance", ["asset": $0, "free": Venue.balance]) }
            return done(render("bybit.wallet", ["coins": coins.joined(separator: ","), "free": Venue.balance]), venue)
        case _ where call["category"] == nil: throw venue.fail("category")
        // The other categories exist, but nothing is listed there.
        case _ where !spot && call.method == "GET": return listed([])
        case "GET /v5/market/instruments-info": return listed(try named().map { venue.markets[$0].entry })
        case "GET /v5/market/tickers": return listed(try named().map { venue.ticker($0) })
        case "GET /v5/market/orderbook":
            _ = try need("symbol", call, venue)
            let market = venue.markets[try named()[0]], count = Int(call["limit"] ?? "") ?? 1
            let values = [
                "id": market.id, "bids": market.bids(count), "asks": market.asks(count), "now": "\(venue.now)",
            ]
            return done(render("bybit.book", values), venue)
        case "GET /v5/order/realtime", "GET /v5/order/history":
            let isNamed = call["orderId"] != nil || call["orderLinkId"] != nil
            let market = try call["symbol"].map { try venue.market($0) }, past = call.path.hasSuffix("history")
            let whole = past ? Array(venue.orders.indices) : venue.openOrders(market)
            let all = isNamed ? venue.find(id: call["orderId"], client: call["orderLinkId"]) : whole
            let end = venue.find(id: call["cursor"] ?? "", client: nil).first ?? Int.max,
                count = min(50, max(1, Int(call["limit"] ?? "") ?? 20))
            let book = venue
            let rows = all.reversed().lazy.filter {
                $0 < end && book.sees($0) && (market == nil || book.orders[$0].market == market)
                    && (!past || book.orders[$0].state != .open)
            }
            let page = Array(rows.prefix(count + 1)),
                cursor = page.count > count ? venue.orders[page[count - 1]].id : ""
            return listed(page.prefix(count).map { text($0, venue) }, more: "\"nextPageCursor\":\"\(cursor)\",")
        case _ where !spot: throw venue.fail("category")
        case venue.speech.cancelling:
            let market = try venue.market(need("symbol", call, venue))
            let found = venue.find(id: call["orderId"], client: call["orderLinkId"])
            guard let position = found.last, venue.orders[position].market == market else { throw venue.fail("gone") }
            let state = venue.orders[position].state
            if state != .open { throw venue.fail(state.rawValue) }
            venue.cancel(position)
            return ack(venue.orders[position], venue)
        default:
            let isMarket = call["orderType"] == "Market",
                unit = call["marketUnit"] ?? (call["side"] == "Buy" ? "quoteCoin" : "baseCoin")
            let inQuote = isMarket && unit == "quoteCoin"
            var order = try order(
                call, id: "\(1_900_000_000_000_000_001 + venue.orders.count)", amount: "qty", inQuote: inQuote, venue)
            order.words["unit"] = isMarket ? unit : ""
            order.postOnly = order.lifetime == "PostOnly"
            if isMarket { order.lifetime = "IOC" }
            try venue.check(order, reusable: false, mostOpen: 500)
            let placed = venue.place(order)
            return ack(venue.orders[placed], venue)
        }
    }
    private static func ack(_ order: Order, _ venue: Venue) -> String {
        done("{\"orderId\":\"\(order.id)\",\"orderLinkId\":\(quoted(order.client))}", venue)
    }
}
