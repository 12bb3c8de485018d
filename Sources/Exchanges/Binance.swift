internal import Foundation

/// Binance Spot, `/api/v3` (binance-spot-api-docs, `rest-api.md`, `errors.md`).
package struct Binance: ExchangeAPI {
    package let exchange = Exchange.binance
    package let keepsHistoryApart = false
    /// Up to 20 cost as much as one; 100 cost as much as 20 such requests.
    package let tickersAtOnce = 20
    package let baseURL: String
    package let credentials: Credentials?
    /// How long after its timestamp an order may still be accepted.
    private let receiveWindowMs = 5000
    /// The window is checked again before the matching engine, which may take ten seconds (`rest-api.md`).
    package let acceptance = Duration.seconds(15)

    package init(baseURL: String, credentials: Credentials?) {
        self.baseURL = baseURL
        self.credentials = credentials
    }

    /// REQUEST_WEIGHT 6000 a minute; ORDERS in 10 s and a day as the market list says, else the smaller of the documented
    /// samples.
    package func charges(for call: Call) -> [Charge] {
        let weight: Double =
            switch call {
            case .time, .cancel, .submit: 1.0
            case .instruments: 20
            case .tickers(let instruments): instruments.count <= 20 ? 2 : instruments.count <= 100 ? 40 : 80
            case .query, .history: 4
            }
        let charge = Charge("weight", .address, weight, burst: 300, perSecond: 94)
        guard case .submit(_, let order) = call else { return [charge] }
        let (short, day) = (order.instrument.ordersPer10s ?? 50, order.instrument.ordersPerDay ?? 160_000)
        return [
            charge, Charge("orders-10s", .account, 1, burst: short * 0.1, perSecond: short * 0.088),
            Charge("orders-day", .account, 1, burst: day * 0.1875, perSecond: day * 0.81 / 86_400),
        ]
    }

    package func usage(in response: HTTPResponse, of call: Call) -> [Usage] {
        [
            ("x-mbx-used-weight-1m", "weight", 60_000), ("x-mbx-order-count-10s", "orders-10s", 10_000),
            ("x-mbx-order-count-1d", "orders-day", 86_400_000),
        ].compactMap { header, name, window in
            response.headers[header].flatMap(Double.init).map { Usage(name: name, used: $0, windowMs: window) }
        }
    }

    package func request(_ call: Call, _ stamp: Stamp) throws(ExchangeError) -> HTTPRequest {
        switch call {
        case .time: return HTTPRequest(.get, baseURL + "/api/v3/time")
        case .instruments:
            // Closed markets too, thousands with two kilobytes each.
            let url = baseURL + "/api/v3/exchangeInfo?showPermissionSets=false"
            return HTTPRequest(.get, url, maxBodyBytes: 64 << 20)
        case .tickers(let instruments):
            let ids = instruments.map(\.id)
            let list = "[" + ids.map { "\"\($0)\"" }.joined(separator: ",") + "]"
            let query = formEncoded([ids.count == 1 ? ("symbol", ids[0]) : ("symbols", list)])
            return HTTPRequest(.get, baseURL + "/api/v3/ticker/24hr?" + query)
        case .submit(let order, let reference): return try signed(.post, parameters(order, reference), stamp)
        case .cancel(let order): return try signed(.delete, name(order), stamp)
        case .query(let order, _), .history(let order): return try signed(.get, name(order), stamp)
        }
    }

    private func name(_ order: OrderReference) -> [(String, String)] {
        [("symbol", order.instrument.id), ("origClientOrderId", order.clientOrderId)]
    }

    private func parameters(_ order: OrderRequest, _ reference: OrderReference) -> [(String, String)] {
        var parameters = [
            ("symbol", reference.instrument.id), ("side", order.side.rawValue.uppercased()),
            ("newClientOrderId", reference.clientOrderId), ("newOrderRespType", "FULL"), ("quantity", order.amount),
        ]
        guard let price = order.price, order.type == .limit else { return parameters + [("type", "MARKET")] }
        parameters.append(("price", price))
        if order.timeInForce == .po { return parameters + [("type", "LIMIT_MAKER")] }
        return parameters + [("type", "LIMIT"), ("timeInForce", order.timeInForce.rawValue)]
    }

    private func signed(
        _ method: HTTPRequest.Method, _ parameters: [(String, String)], _ stamp: Stamp
    ) throws(ExchangeError) -> HTTPRequest {
        let credentials = try credentialsOrThrow()
        let time = [("recvWindow", "\(receiveWindowMs)"), ("timestamp", "\(stamp.timestampMs)")]
        let payload = formEncoded(parameters + time)
        let signature = Signing.hex(Signing.hmac(.sha256, key: credentials.secret.utf8, payload.utf8))
        let text = payload + "&signature=" + signature
        let key = (name: "X-MBX-APIKEY", value: credentials.key)
        let url = baseURL + "/api/v3/order"
        if method != .post { return HTTPRequest(method, url + "?" + text, headers: [key]) }
        let form = (name: "Content-Type", value: "application/x-www-form-urlencoded")
        return HTTPRequest(.post, url, headers: [key, form], body: text)
    }

    package func read(_ response: HTTPResponse, to call: Call) throws(ExchangeError) -> Answer? {
        let body = JSON(body: response.body)
        guard response.status == 200 else { return try refusal(of: call, body, response) }
        return switch call {
        case .time: body["serverTime"].unixMs.map(Answer.time)
        case .instruments:
            .markets(body["symbols"].list?.compactMap { instrument($0, limits: body["rateLimits"].list ?? []) })
        case .tickers(let instruments):
            (instruments.count == 1 ? [body] : body.list).map { rows in
                .tickers(named(instruments, rows) { ticker($0, $1, response.receivedMs) })
            }
        case .submit(_, let reference), .cancel(let reference), .query(let reference, _), .history(let reference):
            order(body, reference.instrument).map(Answer.order)
        }
    }

    private func refusal(of call: Call, _ body: JSON, _ response: HTTPResponse) throws(ExchangeError) -> Answer {
        let code = body["code"].int ?? 0
        let message = body["msg"].text ?? "HTTP \(response.status)"
        let verdict: Verdict
        switch (response.status, code) {
        case (_, -2013) where call.isPrivate: return .absent
        case (_, -2011): return .absent
        case (403, _), (418, _), (429, _), (_, -1003), (_, -1015), (_, -1008): verdict = .wait
        case (500..., _), (_, -1000), (_, -1001), (_, -1006), (_, -1007): verdict = .unknown
        case (_, -1021): verdict = .resync
        case (_, -2010) where message == "Duplicate order sent.", (_, -1010) where message == "Duplicate order sent.":
            verdict = .dup
        case (401, _), (_, -1002), (_, -2008), (_, -2014), (_, -2015): verdict = .auth
        // Without a code it is the word of something on the way, which may have passed the request on.
        case (400..<500, 0): verdict = .unknown
        case (400..<500, _): verdict = .permanent
        default: verdict = .unknown
        }
        // Without a word from the exchange: the shortest ban, and the firewall's, which is unstated.
        let silence: Duration? = [418: .seconds(120), 403: .seconds(300)][response.status]
        // Overloaded (-1008): documented neither as placed nor as not. The firewall (403) is known to say no code.
        let isUncertain = code == -1008 || code == 0 && response.status != 403
        let exchangeCode = code == 0 ? "\(response.status)" : "\(code)"
        throw ExchangeError(
            verdict, answered: message, exchangeCode, response, retryAfter: silence, isUncertain: isUncertain,
            isNoMarket: code == -1121)
    }

    private func ticker(_ row: JSON, _ symbol: String, _ receivedMs: Int64) -> Ticker? {
        guard let last = row["lastPrice"].decimal else { return nil }
        return Ticker(
            symbol: symbol, bid: row["bidPrice"].decimal, ask: row["askPrice"].decimal, last: last,
            open: row["openPrice"].decimal, high: row["highPrice"].decimal, low: row["lowPrice"].decimal,
            baseVolume: row["volume"].decimal, quoteVolume: row["quoteVolume"].decimal,
            changePercent: row["priceChangePercent"].text, exchangeMs: row["closeTime"].unixMs, receivedMs: receivedMs)
    }

    private func order(_ body: JSON, _ instrument: Instrument) -> Order? {
        // The answer to a cancel names the cancel itself in clientOrderId.
        guard let id = body["origClientOrderId"].text ?? body["clientOrderId"].text else { return nil }
        let statuses: [String: OrderStatus] = [
            "NEW": .open, "FILLED": .filled, "PARTIALLY_FILLED": .partiallyFilled, "CANCELED": .canceled,
            "REJECTED": .rejected, "EXPIRED": .expired, "EXPIRED_IN_MATCH": .expired,
        ]
        let status = statuses[body["status"].text ?? ""]
        // A cost below zero means "unknown" on historic orders; it is no plain decimal and so yields no average.
        let filled = body["executedQty"].positive
        let average = filled.flatMap { filled in body["cummulativeQuoteQty"].positive.map { $0 / filled } }
        return Order(
            clientOrderId: id, exchangeOrderId: body["orderId"].text, symbol: instrument.symbol,
            side: body["side"].text.flatMap { Side(rawValue: $0.lowercased()) },
            type: body["type"].text.map { $0 == "MARKET" ? .market : .limit },
            status: status ?? .open,
            amount: body["origQty"].decimal, filled: body["executedQty"].decimal,
            averagePrice: average.map { "\($0.rounded(places: 12))" }, price: body["price"].positiveText,
            exchangeMs: body["updateTime"].unixMs ?? body["transactTime"].unixMs, createdMs: body["time"].unixMs,
            isPending: status == nil)
    }

    private func instrument(_ market: JSON, limits: [JSON]) -> Instrument? {
        func orders(_ interval: String, _ number: Int64) -> Double? {
            let limit = limits.first {
                $0["rateLimitType"].text == "ORDERS" && $0["interval"].text == interval
                    && $0["intervalNum"].int == number
            }
            return limit?["limit"].int.flatMap { $0 > 0 ? Double($0) : nil }
        }
        var filters: [String: JSON] = [:]
        for filter in market["filters"].list ?? [] { filters[filter["filterType"].text ?? ""] = filter }
        guard let id = market["symbol"].text, let base = market["baseAsset"].text,
            let quote = market["quoteAsset"].text, let tick = filters["PRICE_FILTER"]?["tickSize"].positive,
            let lot = filters["LOT_SIZE"], let step = lot["stepSize"].positive
        else { return nil }
        return Instrument(
            symbol: "\(base)/\(quote)", id: id, tick: tick, step: step, minAmount: lot["minQty"].positive,
            maxAmount: lot["maxQty"].positive,
            minNotional: (filters["NOTIONAL"] ?? filters["MIN_NOTIONAL"])?["minNotional"].positive,
            isTrading: market["status"].text == "TRADING",
            maxMarketAmount: filters["MARKET_LOT_SIZE"]?["maxQty"].positive, ordersPer10s: orders("SECOND", 10),
            ordersPerDay: orders("DAY", 1))
    }
}
