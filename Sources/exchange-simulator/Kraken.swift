import Exchanges
import Foundation

/// Kraken spot REST.
enum Kraken: Dialect {
    static let name = "kraken"
    static var instruments: [(id: String, entry: [String: Any])] {
        let pairs = object(PackageResources.kraken_AssetPairs_json)["result"] as? [String: [String: Any]] ?? [:]
        return pairs.sorted { $0.key < $1.key }.map { ($0, $1) }
    }
    /// A UUID with or without dashes, or up to 18 printable characters.
    static func isClient(_ id: String) -> Bool {
        let isHex = id.utf8.count == 32 && id.allSatisfy(\.isHexDigit)
        return isHex || UUID(uuidString: id) != nil || id.utf8.count <= 18 && id.utf8.allSatisfy { 32...126 ~= $0 }
    }
    /// The private counter and its decay, the engine's counter of a pair and its decay, most open orders of a pair.
    private static let tier: (most: Double, decay: Double, engine: Double, engineDecay: Double, open: Int) =
        switch ProcessInfo.processInfo.environment["KRAKEN_TIER"] {
        case "pro": (20, 1, 180, 3.75, 225)
        case "intermediate": (20, 0.5, 125, 2.34, 80)
        default: (15, 0.33, 60, 1, 60)
        }
    private static let assets: [String: String] =
        (object(PackageResources.kraken_Assets_json)["result"] as? [String: Any] ?? [:]).mapValues(json)

    static func admit(_ call: Call, _ venue: inout Venue) throws {
        if call.path.hasPrefix("/0/public/") {
            // Assumed: about one a second is known to be safe, a burst of 15 is not documented.
            if venue.limits.charge("public \(call.address)", 1, limit: 15, decay: 1, at: venue.now) { return }
            throw venue.over("public")
        }
        let cost = Double(venue.speech.endpoints[call.endpoint] ?? 1)
        if cost == 0 || venue.limits.charge("private", cost, limit: tier.most, decay: tier.decay, at: venue.now) {
            return
        }
        throw venue.over("429")
    }
    /// The engine's counter of a pair; counted before the order is looked at.
    private static func charge(_ market: Int, _ cost: Double, _ venue: inout Venue) throws {
        guard venue.limited else { return }
        if venue.limits.charge("pair \(market)", cost, limit: tier.engine, decay: tier.engineDecay, at: venue.now) {
            return
        }
        throw venue.over("engine")
    }
    static func headers(_ call: Call, _ venue: inout Venue) -> [(String, String)] { [] }

    static func authorize(_ call: Call, _ venue: inout Venue) throws {
        if call.header("API-Key") != venue.key { throw venue.unsigned("key") }
        let nonce = call["nonce"] ?? ""
        let message = Array(call.path.utf8) + Signing.sha256((nonce + call.body).utf8)
        let expected = Data(Signing.hmacSHA512(key: venue.secret, message)).base64EncodedString()
        if call.header("API-Sign") != expected { throw venue.unsigned("signature") }
        guard let number = UInt64(nonce), number > venue.nonce else { throw venue.fail("nonce") }
        venue.nonce = number
        try fresh(call, venue)
    }
    static func fresh(_ call: Call, _ venue: Venue) throws {
        guard let text = call["deadline"], call.endpoint == venue.speech.placing else { return }
        let exact = Date.ISO8601FormatStyle(includingFractionalSeconds: true)
        guard let date = (try? exact.parse(text)) ?? (try? Date.ISO8601FormatStyle().parse(text)) else {
            throw venue.fail("number", ["name": "deadline"])
        }
        let left = date.timeIntervalSince1970 * 1000 - Double(venue.now)
        if left > 60_000 { throw venue.fail("number", ["name": "deadline"]) }
        if left < 0 { throw venue.fail("stale") }
    }

    private static func done(_ result: String) -> String { "{\"error\":[],\"result\":\(result)}" }
    /// The 16 letters of a transaction id, from the order's number.
    private static func txid(_ number: Int) -> String {
        var random = SplitMix(state: UInt64(number))
        let alphabet = Array("ABCDEFGHIJKLMNOPQRSTUVWXYZ234567")
        let letters = String((0..<16).map { _ in alphabet[Int(random.next() >> 59)] })
        return "O\(letters.prefix(5))-\(letters.dropFirst(5).prefix(5))-\(letters.suffix(6))"
    }
    private static func seconds(_ milliseconds: Int) -> String {
        Fixed(units: Int128(milliseconds) * 10_000_000).text(4)
    }
    private static func description(_ order: Order, _ venue: Venue) -> String {
        let market = venue.markets[order.market], price = order.price.map { " \($0.text(market.places))" } ?? ""
        let side = order.buys ? "buy" : "sell", type = order.price == nil ? "market" : "limit"
        return "\(side) \(order.amount.text(8)) \(market.alias) @ \(type)\(price)"
    }
    private static func text(_ position: Int, _ venue: Venue) -> String {
        let order = venue.orders[position]
        let reasons: [Order.State: String] = [.canceled: "\"User requested\"", .expired: "\"Order cannot be filled\""]
        let more = [
            "reason": order.crossed ? "\"Post only order\"" : reasons[order.state] ?? "null",
            "opened": seconds(order.accepted), "pair": venue.markets[order.market].alias,
            "closed": order.state == .open ? "" : ",\"closetm\":\(seconds(order.updated))",
            "descr": description(order, venue),
        ]
        return venue.text(position, "order", more)
    }
    private static func book(_ name: String, _ found: [Int], _ venue: Venue, _ tail: String = "") -> String {
        done("{\"\(name)\":{\(found.map { text($0, venue) }.joined(separator: ","))}\(tail)}")
    }

    static func execute(_ call: Call, _ venue: inout Venue) throws -> String {
        let chosen =
            try call["pair"].map { try $0.split(separator: ",").map { try venue.market(String($0)) } }
            ?? Array(venue.markets.indices)
        func matches(_ position: Int) -> Bool {
            let order = venue.orders[position]
            return venue.sees(position) && (call["cl_ord_id"] ?? order.client) == order.client
                && (call["userref"] ?? order.words["userref"]) == order.words["userref"]
        }
        switch call.endpoint {
        case "GET /0/public/Time":
            var (seconds, parts, text) = (time_t(venue.now / 1000), tm(), [CChar](repeating: 0, count: 64))
            gmtime_r(&seconds, &parts)
            let count = strftime(&text, text.count, "%a, %d %b %y %H:%M:%S +0000", &parts)
            let date = String(decoding: text.prefix(count).map { UInt8(bitPattern: $0) }, as: UTF8.self)
            return done("{\"unixtime\":\(venue.now / 1000),\"rfc1123\":\"\(date)\"}")
        case "GET /0/public/SystemStatus":
            return done("{\"status\":\"online\",\"timestamp\":\"\(seconds(venue.now))\"}")
        case "GET /0/public/Assets": return done("{\(assets.map { "\"\($0)\":\($1)" }.joined(separator: ","))}")
        case "GET /0/public/AssetPairs":
            return done(
                "{\(chosen.map { "\"\(venue.markets[$0].id)\":\(venue.markets[$0].entry)" }.joined(separator: ","))}")
        case "GET /0/public/Ticker": return done("{\(chosen.map { venue.ticker($0) }.joined(separator: ","))}")
        case "GET /0/public/Depth":
            let market = venue.markets[try venue.market(need("pair", call, venue))],
                count = Int(call["count"] ?? "") ?? 100
            let tail = ",\(venue.now / 1000)"
            return done(
                "{\"\(market.id)\":{\"asks\":\(market.asks(count, tail)),\"bids\":\(market.bids(count, tail))}}")
        case "POST /0/private/Balance", "POST /0/private/BalanceEx":
            let lines = assets.keys.sorted().map { asset in
                call.path.hasSuffix("Ex")
                    ? render("kraken.balance", ["asset": asset, "free": Venue.balance])
                    : "\"\(asset)\":\"\(Venue.balance).0000000000\""
            }
            return done("{\(lines.joined(separator: ","))}")
        case "POST /0/private/OpenOrders": return book("open", venue.openOrders(nil).filter(matches), venue)
        case "POST /0/private/ClosedOrders":
            let client = call["cl_ord_id"]
            let source = client == nil ? Array(venue.orders.indices) : venue.find(id: nil, client: client)
            let all = source.reversed().filter { venue.orders[$0].state != .open && matches($0) }
            return book(
                "closed", Array(all.dropFirst(max(0, Int(call["ofs"] ?? "") ?? 0)).prefix(50)), venue,
                ",\"count\":\(all.count)")
        case "POST /0/private/QueryOrders":
            let found = try need("txid", call, venue).split(separator: ",").prefix(50).flatMap {
                venue.find(id: String($0), client: nil)
            }
            return done("{\(found.filter(matches).map { text($0, venue) }.joined(separator: ","))}")
        case venue.speech.cancelling:
            let client = call["cl_ord_id"]
            let found = venue.find(id: client == nil ? try need("txid", call, venue) : nil, client: client)
            if found.isEmpty, client == nil { throw venue.fail("never") }
            guard let position = found.last(where: { venue.orders[$0].state == .open }) else {
                throw venue.fail("gone")
            }
            let costs = [(5, 8.0), (10, 6), (15, 5), (45, 4), (90, 2), (300, 1)]
            let age = (venue.now - venue.orders[position].accepted) / 1000
            try charge(venue.orders[position].market, costs.first { age < $0.0 }?.1 ?? 0, &venue)
            venue.cancel(position)
            return done("{\"count\":1}")
        default: return try place(call, &venue)
        }
    }

    private static func place(_ call: Call, _ venue: inout Venue) throws -> String {
        try charge(try venue.market(need("pair", call, venue)), 1, &venue)
        let flags = (call["oflags"] ?? "").split(separator: ","), inQuote = flags.contains("viqc")
        guard flags.allSatisfy({ ["post", "fcib", "fciq", "nompp", "viqc"].contains($0) }),
            !inQuote || call["ordertype"] == "market" && call["type"] == "buy"
        else {
            throw venue.fail("surplus", ["name": "oflags"])
        }
        if let reference = call["userref"], call["cl_ord_id"] != nil || Int32(reference) == nil {
            throw venue.fail("surplus", ["name": "userref"])
        }
        var order = try order(call, id: txid(venue.orders.count + 1), amount: "volume", inQuote: inQuote, venue)
        order.postOnly = flags.contains("post")
        order.words["userref"] = call["userref"] ?? "0"
        order.words["flags"] = quoted(call["oflags"] ?? "fciq")
        if order.client.isEmpty { order.words["client"] = "null" }
        try venue.check(order, reusable: true, mostOpen: venue.limited ? tier.open : Int.max)
        let description = "\"descr\":{\"order\":\"\(description(order, venue))\"}"
        if call["validate"] == "true" || call["validate"] == "1" { return done("{\(description)}") }
        _ = venue.place(order)
        return done("{\(description),\"txid\":[\"\(order.id)\"]}")
    }
}
