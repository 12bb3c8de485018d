internal import Foundation

/// Binance Spot, `/api/v3` (binance-spot-api-docs, `rest-api.md`, `errors.md`).
package struct Binance: ExchangeAPI {
    package let exchange = Exchange.binance
    package let keepsHistoryApart = false
    /// REQUEST_WEIGHT 6000 a clock-aligned minute; ORDERS 50 in 10 s, the smaller of the two documented samples.
    package let limits = [
        Limit(name: "weight", capacity: 1000, perSecond: 83), Limit(name: "orders", capacity: 10, perSecond: 4),
    ]
    private let baseURL: String
    package let credentials: Credentials?
    /// How long after its timestamp an order may still be accepted.
    private let receiveWindowMs = 5000

    package init(baseURL: String, credentials: Credentials?) {
        self.baseURL = baseURL
        self.credentials = credentials
    }

    package func clientOrderId(jobId: String) -> String { clientOrderId36(jobId) }

    package func cost(of call: Call) -> [Double] {
        switch call {
        case .time, .cancel: [1, 0]
        case .instruments: [20, 0]
        case .tickers(let instruments): [instruments.count <= 20 ? 2 : instruments.count <= 100 ? 40 : 80, 0]
        case .submit: [1, 1]
        case .query, .history: [4, 0]
        }
    }

    package func request(_ call: Call, _ stamp: Stamp) throws(ExchangeError) -> HTTPRequest {
        switch call {
        case .time: return HTTPRequest(.get, baseURL + "/api/v3/time")
        case .instruments: return HTTPRequest(.get, baseURL + "/api/v3/exchangeInfo?showPermissionSets=false")
        case .tickers(let instruments):
            let ids = instruments.map(\.id)
            let query =
                ids.count == 1
                ? [("symbol", ids[0])] : [("symbols", "[" + ids.map { "\"\($0)\"" }.joined(separator: ",") + "]")]
            return HTTPRequest(.get, baseURL + "/api/v3/ticker/24hr?" + formEncoded(query))
        case .submit(let order, let reference): return try signed(.post, parameters(order, reference), stamp)
        case .cancel(let order): return try signed(.delete, parameters(order), stamp)
        case .query(let order), .history(let order): return try signed(.get, parameters(order), stamp)
        }
    }

    private func parameters(_ order: OrderReference) -> [(String, String)] {
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
        let signature = Signing.hex(Signing.hmacSHA256(key: credentials.secret.utf8, payload.utf8))
        let text = payload + "&signature=" + signature
        let key = (name: "X-MBX-APIKEY", value: credentials.key)
        let url = baseURL + "/api/v3/order"
        if method != .post { return HTTPRequest(method, url + "?" + text, headers: [key]) }
        let form = (name: "Content-Type", value: "application/x-www-form-urlencoded")
        return HTTPRequest(.post, url, headers: [key, form], body: text)
    }

    package func answer(to call: Call, _ response: HTTPResponse) throws(ExchangeError) -> Answer {
        guard response.status == 200 else { return try refusal(of: call, response) }
        let body = try JSON(response)
        let answer: Answer? =
            switch call {
            case .time: body["serverTime"].int.flatMap(unixMs).map(Answer.time)
            case .instruments:
                body["symbols"].list.flatMap { $0.isEmpty ? nil : .instruments($0.compactMap(instrument)) }
            case .tickers(let instruments):
                (instruments.count == 1 ? [body] : body.list).map { rows in
                    .tickers(named(instruments, rows) { ticker($0, $1, response.receivedMs) })
                }
            case .submit(_, let reference), .cancel(let reference), .query(let reference), .history(let reference):
                order(body, reference.instrument).map(Answer.order)
            }
        guard let answer else { throw .malformed(response) }
        return answer
    }

    private func refusal(of call: Call, _ response: HTTPResponse) throws(ExchangeError) -> Answer {
        let body = try? JSON(response)
        let code = body?["code"].int ?? 0
        let message = body?["msg"].text ?? "HTTP \(response.status)"
        let verdict: Verdict
        switch (response.status, code) {
        case (_, -2013) where call.isPrivate: return .absent
        case (_, -2011): return .absent
        case (403, _), (418, _), (429, _), (_, -1003), (_, -1015), (_, -1008): verdict = .wait
        case (500..., _), (_, -1000), (_, -1001), (_, -1006), (_, -1007): verdict = .unknown
        case (_, -1021): verdict = .resync
        case (_, -2010) where message == "Duplicate order sent.": verdict = .dup
        case (401, _), (_, -1002), (_, -2008), (_, -2014), (_, -2015): verdict = .auth
        case (400..<500, _): verdict = .permanent
        default: verdict = .unknown
        }
        // Overloaded (-1008): documented neither as placed nor as not.
        let exchangeCode = code == 0 ? "\(response.status)" : "\(code)"
        throw ExchangeError(verdict, answered: message, exchangeCode, response, isUncertain: code == -1008)
    }

    private func ticker(_ row: JSON, _ symbol: String, _ receivedMs: Int64) -> Ticker? {
        guard let last = row["lastPrice"].decimal else { return nil }
        return Ticker(
            symbol: symbol, bid: row["bidPrice"].decimal, ask: row["askPrice"].decimal, last: last,
            open: row["openPrice"].decimal, high: row["highPrice"].decimal, low: row["lowPrice"].decimal,
            baseVolume: row["volume"].decimal, quoteVolume: row["quoteVolume"].decimal,
            changePercent: row["priceChangePercent"].text, exchangeMs: row["closeTime"].int, receivedMs: receivedMs)
    }

    private func order(_ body: JSON, _ instrument: Instrument) -> Order? {
        // The answer to a cancel names the cancel itself in clientOrderId.
        guard let id = body["origClientOrderId"].text ?? body["clientOrderId"].text else { return nil }
        let statuses: [String: OrderStatus] = [
            "FILLED": .filled, "PARTIALLY_FILLED": .partiallyFilled, "CANCELED": .canceled, "REJECTED": .rejected,
            "EXPIRED": .expired, "EXPIRED_IN_MATCH": .expired,
        ]
        // A cost below zero means "unknown" on historic orders; it is no plain decimal and so yields no average.
        let filled = body["executedQty"].positive
        let average = filled.flatMap { filled in body["cummulativeQuoteQty"].positive.map { $0 / filled } }
        return Order(
            clientOrderId: id, exchangeOrderId: body["orderId"].text, symbol: instrument.symbol,
            side: body["side"].text.flatMap { Side(rawValue: $0.lowercased()) },
            type: body["type"].text.map { $0 == "MARKET" ? .market : .limit },
            status: statuses[body["status"].text ?? ""] ?? .open,
            amount: body["origQty"].decimal, filled: body["executedQty"].decimal,
            averagePrice: average.map { "\($0.rounded(places: 8))" }, price: body["price"].positiveText,
            exchangeMs: body["updateTime"].int ?? body["transactTime"].int)
    }

    private func instrument(_ market: JSON) -> Instrument? {
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
            maxMarketAmount: filters["MARKET_LOT_SIZE"]?["maxQty"].positive)
    }
}
