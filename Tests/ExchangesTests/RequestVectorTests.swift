import Foundation
import TestSupport
import Testing

@testable import Exchanges

/// Requests that an independent client made with a frozen clock, beside ours for the same call.
@Suite("Requests of an independent client")
struct RequestVectorTests {
    struct Vector: Sendable, CustomTestStringConvertible {
        let exchange: Exchange
        let json: JSONValue
        var name: String { json["name"].text ?? "" }
        var testDescription: String { "\(exchange) \(name)" }

        static let all: [Vector] = Exchange.allCases.flatMap { exchange in
            let list = (try? fixture("requests-\(exchange).json"))?.list ?? []
            return list.map { Vector(exchange: exchange, json: $0) }
        }
    }

    /// Vectors of calls that the library does not make, and why.
    static let exempt: [Exchange: [String: String]] = [
        .binance: [
            "tickers-all": "a call names its markets",
            "orderbook-5": "no order books",
            "market-buy-with-price-arg": "amounts are in the base currency, never quoteOrderQty",
            "query-by-order-id": "orders are asked for by client order id",
            "open-orders-symbol": "no list of open orders",
            "unfilled-order-count": "no order counts",
            "doc-hmac-ltcbtc": "documentation of the signature alone: no client order id",
            "doc-hmac-non-ascii": "documentation of the signature alone: no client order id",
        ],
        .bybit: [
            "orderbook-1": "no order books",
            "market-sell-quote-cost": "amounts are in the base currency, never quoteCoin",
            "query-by-order-id-realtime": "orders are asked for by client order id",
            "query-weird-client-id": "signed unencoded there; our ids have nothing to encode",
            "cancel-by-order-id": "orders are canceled by client order id",
            "open-orders-symbol": "no list of open orders",
            "balances": "no balances",
        ],
        .kraken: [
            "orderbook-1": "no order books",
            "limit-buy-post-and-fciq": "fees are left in their own currency: post alone (see below)",
            "limit-validate-only": "no dry runs",
            "limit-conditional-close-brackets": "no conditional orders",
            "cancel-by-txid": "orders are canceled by client order id",
            "balances": "no balances",
            "doc-addorder-xbtusd": "documentation of the signature alone: no client order id",
        ],
    ]

    /// The same call in our words; nil: none of ours.
    private func call(_ vector: Vector) throws -> Call? {
        let input = vector.json["input"]
        let markets = try markets(vector.exchange)
        func market(_ symbol: String?) throws -> Instrument {
            try #require(markets[symbol ?? ""], "\(vector.name): no market \(symbol ?? "nil")")
        }
        switch input["op"].text {
        case "fetchTime": return .time
        case "fetchTicker": return .tickers([try market(input["symbol"].text)])
        case "fetchTickers": return .tickers(try input["symbols"].list.map { try market($0.text) })
        case "createOrder":
            let sent = parameters(vector)
            let type = try #require(input["type"].text.flatMap(OrderType.init))
            let inForce = input["params"]["timeInForce"].text.flatMap(TimeInForce.init)
            let order = OrderRequest(
                symbol: try #require(input["symbol"].text),
                side: try #require(input["side"].text.flatMap(Side.init)), type: type,
                amount: try #require(sent["quantity"] ?? sent["qty"] ?? sent["volume"]),
                price: type == .limit ? sent["price"] : nil,
                timeInForce: input["params"]["postOnly"] == .bool(true) ? .po : inForce ?? .gtc)
            let id = try #require(input["clientOrderId"].text)
            return submit(order, try market(input["symbol"].text), id: id)
        case "fetchOrder":
            let id = try #require(input["clientOrderId"].text)
            let known = input["id"].text.flatMap { $0.isEmpty ? nil : $0 }
            return .query(reference(id, exchangeOrderId: known, try market(input["symbol"].text)))
        case "cancelOrder":
            return .cancel(reference(try #require(input["clientOrderId"].text), try market(input["symbol"].text)))
        case "implicit":
            let parameters = input["params"]
            let id = try #require(parameters["orderLinkId"].text ?? parameters["cl_ord_id"].text)
            return .query(reference(id, try market("BTC/USDT")))
        default: return nil
        }
    }

    /// What the independent client sent, but for the signature.
    private func parameters(_ vector: Vector) -> [String: String] {
        let derived = vector.json["derived"]
        var all: [String: String] = [:]
        for pair in derived["query_params"].list + derived["body_params"].list {
            all[pair[0].text ?? ""] = pair[1].text
        }
        for (name, value) in derived["json_body"].members { all[name] = value.text }
        all["signature"] = nil
        return all
    }

    private func parameters(_ request: HTTPRequest) throws -> [String: String] {
        let query = try #require(URLComponents(string: request.url)).queryItems ?? []
        var all = Dictionary(uniqueKeysWithValues: query.map { ($0.name, $0.value ?? "") })
        if let body = request.body, body.hasPrefix("{") {
            for (name, value) in try JSONValue(body).members { all[name] = value.text }
        } else if let body = request.body {
            for item in try #require(URLComponents(string: "?" + body)).queryItems ?? [] { all[item.name] = item.value }
        }
        all["signature"] = nil
        return all
    }

    @Test("our request has the same method, path and parameters", arguments: Vector.all)
    func sameRequest(_ vector: Vector) throws {
        if Self.exempt[vector.exchange]?[vector.name] != nil { return }
        let call = try #require(try call(vector), "neither built here nor exempt, with a reason")
        let keys = vector.json["credentials"]
        let credentials = Credentials(key: try #require(keys["apiKey"].text), secret: try #require(keys["secret"].text))
        let time = Int64(vector.json["timestamp_ms"].int ?? 0)
        let nonce = UInt64(vector.json["nonce"].int ?? 0)
        let ours = try api(vector.exchange, credentials: credentials).request(
            call, stamp(timestampMs: time, nonce: nonce))
        let expected = vector.json["expected"]
        let (url, theirURL) = (try #require(URL(string: ours.url)), try #require(expected["url"].text))
        #expect(ours.method.rawValue == expected["method"].text)
        #expect(url.path == URL(string: theirURL)?.path)
        #expect(url.host == URL(string: theirURL)?.host)

        var (sent, theirs) = (try parameters(ours), parameters(vector))
        // The client's own ways, and the two things we add.
        switch vector.exchange {
        case .binance:
            if vector.name != "limit-recvwindow-5000", theirs["recvWindow"] != nil {
                #expect(theirs["recvWindow"] == "10000")
                #expect(sent["recvWindow"] == "5000", "orders are sent with a short receive window")
                (sent["recvWindow"], theirs["recvWindow"]) = (nil, nil)
            }
        case .bybit:
            // GTC is the default there and said here.
            if case .submit(let order, _) = call, order.type == .limit {
                theirs["timeInForce"] = theirs["timeInForce"] ?? "GTC"
            }
        case .kraken:
            (theirs["trades"], theirs["userref"]) = (nil, nil)
            if case .submit = call {
                #expect(sent["deadline"] != nil, "an order carries the time after which the engine refuses it")
                sent["deadline"] = nil
            }
        }
        #expect(sent == theirs)
        for (name, value) in expected["headers"].members where !["X-BAPI-SIGN", "API-Sign", "Referer"].contains(name) {
            if ours.body == nil, name == "Content-Type" { continue }
            #expect(ours.headers.first { $0.name == name }?.value == value.text, "header \(name)")
        }
        try expectSigned(ours, vector, credentials, time)
    }

    /// Our request carries the signature of exactly its own bytes.
    private func expectSigned(
        _ request: HTTPRequest, _ vector: Vector, _ credentials: Credentials, _ time: Int64
    ) throws {
        guard !vector.json["derived"]["signature"].isNull else {
            return #expect(!request.headers.contains { $0.name.lowercased().contains("api") })
        }
        let query = request.url.split(separator: "?", maxSplits: 1).dropFirst().first.map(String.init)
        let payload = request.body ?? query ?? ""
        let (path, secret) = (URL(string: request.url)?.path ?? "", credentials.secret)
        switch vector.exchange {
        case .binance:
            let parts = payload.components(separatedBy: "&signature=")
            try #require(parts.count == 2)
            #expect(parts[1] == Signing.hex(Signing.hmac(.sha256, key: secret.utf8, parts[0].utf8)))
        case .bybit:
            let text = "\(time)\(credentials.key)5000\(payload)"
            let signature = request.headers.first { $0.name == "X-BAPI-SIGN" }?.value
            #expect(signature == Signing.hex(Signing.hmac(.sha256, key: secret.utf8, text.utf8)))
        case .kraken:
            let nonce = try #require(try parameters(request)["nonce"])
            let message = Array(path.utf8) + Signing.sha256((nonce + payload).utf8)
            let key = try #require(Data(base64Encoded: secret))
            let signature = request.headers.first { $0.name == "API-Sign" }?.value
            #expect(signature == Data(Signing.hmac(.sha512, key: key, message)).base64EncodedString())
        }
    }

    @Test("our signature of the same text is the same", arguments: Vector.all)
    func sameSignature(_ vector: Vector) throws {
        let derived = vector.json["derived"]
        guard let signature = derived["signature"].text else {
            return #expect(derived["string_to_sign"].isNull && derived["sha256_input"].isNull)
        }
        let secret = try #require(vector.json["credentials"]["secret"].text)
        if let text = derived["string_to_sign"].text {
            return #expect(Signing.hex(Signing.hmac(.sha256, key: secret.utf8, text.utf8)) == signature)
        }
        let digest = Signing.sha256(try #require(derived["sha256_input"].text).utf8)
        #expect(Signing.hex(digest) == derived["sha256_hex"].text)
        let message = Array(try #require(derived["path"].text).utf8) + digest
        if let hex = derived["hmac_message_hex"].text { #expect(Signing.hex(message) == hex) }
        let key = try #require(Data(base64Encoded: secret))
        #expect(Data(Signing.hmac(.sha512, key: key, message)).base64EncodedString() == signature)
    }

    @Test("every exemption names a vector that exists")
    func exemptionsAreUsed() {
        #expect(Vector.all.count == 63)
        for (exchange, names) in Self.exempt {
            let known = Set(Vector.all.filter { $0.exchange == exchange }.map(\.name))
            #expect(Set(names.keys).isSubset(of: known))
        }
    }
}
