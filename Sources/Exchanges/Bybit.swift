internal import Foundation

/// Bybit v5, category spot (bybit-exchange/docs, `docs/v5`).
package struct Bybit: ExchangeAPI {
    package let exchange = Exchange.bybit
    package let keepsHistoryApart = true
    /// One or all of them in one request, at one price; what was not asked for is dropped.
    package let tickersAtOnce = 1000
    package let baseURL: String
    package let credentials: Credentials?
    private let receiveWindowMs = 5000
    /// The processing is asynchronous, of unstated length: as Binance's.
    package let acceptance = Duration.seconds(15)

    package init(baseURL: String, credentials: Credentials?) {
        self.baseURL = baseURL
        self.credentials = credentials
    }

    /// 600 requests in 5 s an address; in a rolling second an endpoint and account: 20 order requests, 50 queries.
    package func charges(for call: Call) -> [Charge] {
        let request = Charge("requests", .address, 1, burst: 25, perSecond: 110)
        return switch call {
        case .time, .instruments, .tickers: [request]
        case .submit: [request, Charge("create", .account, 1, burst: 3, perSecond: 16)]
        case .cancel: [request, Charge("cancel", .account, 1, burst: 3, perSecond: 16)]
        case .query: [request, Charge("realtime", .account, 1, burst: 6, perSecond: 42)]
        case .history: [request, Charge("history", .account, 1, burst: 6, perSecond: 42)]
        }
    }

    /// An account with limits other than 20 and 50 has used the same part of these. What is refilled within the window
    /// is nothing to be corrected.
    package func usage(in response: HTTPResponse, of call: Call) -> [Usage] {
        func header(_ name: String) -> Double { response.headers[name].flatMap(Double.init) ?? -1 }
        let (limit, left) = (header("x-bapi-limit"), header("x-bapi-limit-status"))
        guard call.isPrivate, limit > 0, left >= 0, let charge = charges(for: call).last else { return [] }
        let used = (1 - left / limit) * (charge.perSecond < 20 ? 20 : 50)
        return used > charge.perSecond ? [Usage(name: charge.name, used: used, windowMs: 1000, rolls: true)] : []
    }

    package func request(_ call: Call, _ stamp: Stamp) throws(ExchangeError) -> HTTPRequest {
        switch call {
        case .time: return HTTPRequest(.get, baseURL + "/v5/market/time")
        case .instruments: return HTTPRequest(.get, baseURL + "/v5/market/instruments-info?category=spot")
        case .tickers(let instruments):
            // One market or all of them: there is no list.
            let symbol = instruments.count == 1 ? [("symbol", instruments[0].id)] : []
            return HTTPRequest(.get, baseURL + "/v5/market/tickers?" + formEncoded([("category", "spot")] + symbol))
        case .submit(let order, let reference):
            return try signed(.post, "/v5/order/create", parameters(order, reference), stamp)
        case .cancel(let order):
            return try signed(.post, "/v5/order/cancel", [("symbol", order.instrument.id)] + name(order), stamp)
        case .query(let order, _): return try signed(.get, "/v5/order/realtime", name(order), stamp)
        case .history(let order): return try signed(.get, "/v5/order/history", name(order), stamp)
        }
    }

    private func name(_ order: OrderReference) -> [(String, String)] { [("orderLinkId", order.clientOrderId)] }

    private func parameters(_ order: OrderRequest, _ reference: OrderReference) -> [(String, String)] {
        let parameters = [
            ("symbol", reference.instrument.id), ("side", order.side == .buy ? "Buy" : "Sell"),
            ("orderLinkId", reference.clientOrderId), ("qty", order.amount),
        ]
        guard let price = order.price, order.type == .limit else {
            // Without the unit, a market buy's amount would be in the quote currency.
            return parameters + [("orderType", "Market"), ("marketUnit", "baseCoin")]
        }
        let timeInForce = order.timeInForce == .po ? "PostOnly" : order.timeInForce.rawValue
        return parameters + [("orderType", "Limit"), ("price", price), ("timeInForce", timeInForce)]
    }

    private func signed(
        _ method: HTTPRequest.Method, _ path: String, _ parameters: [(String, String)], _ stamp: Stamp
    ) throws(ExchangeError) -> HTTPRequest {
        let credentials = try credentialsOrThrow()
        let parameters = [("category", "spot")] + parameters
        // Ids, symbols and decimals: nothing here needs escaping, and Bybit's symbols are letters and digits.
        let json = "{" + parameters.map { "\"\($0)\":\"\($1)\"" }.joined(separator: ",") + "}"
        let payload = method == .post ? json : formEncoded(parameters)
        let text = "\(stamp.timestampMs)\(credentials.key)\(receiveWindowMs)\(payload)"
        let headers = [
            ("X-BAPI-API-KEY", credentials.key), ("X-BAPI-TIMESTAMP", "\(stamp.timestampMs)"),
            ("X-BAPI-RECV-WINDOW", "\(receiveWindowMs)"),
            ("X-BAPI-SIGN", Signing.hex(Signing.hmac(.sha256, key: credentials.secret.utf8, text.utf8))),
        ]
        let url = baseURL + path
        if method != .post { return HTTPRequest(method, url + "?" + payload, headers: headers) }
        return HTTPRequest(.post, url, headers: headers + [("Content-Type", "application/json")], body: payload)
    }

    package func read(_ response: HTTPResponse, to call: Call) throws(ExchangeError) -> Answer? {
        guard response.status == 200 else {
            let verdict: Verdict =
                switch response.status {
                case 403, 418, 429: .wait
                case 401: .auth
                case 404: .permanent
                // The word of something on the way, which may have passed the request on.
                default: .unknown
                }
            // 403 is the limit of the address: Bybit wants ten minutes of silence.
            let silence: Duration? = response.status == 403 ? .seconds(600) : nil
            throw ExchangeError(
                verdict, answered: "HTTP \(response.status)", "\(response.status)", response, retryAfter: silence)
        }
        let body = JSON(body: response.body)
        guard let code = body["retCode"].int else { return nil }
        if code != 0 {
            let isGone = [170213, 110001].contains(code)
            switch call {
            case .query where isGone, .history where isGone: return .absent
            // Ended, or about to be: who cancels looks at the order after that.
            case .cancel where isGone || [170139, 170142, 170143, 170190, 170212, 110008, 110010].contains(code):
                return .absent
            default: throw refusal(code, of: call, body, response)
            }
        }
        let rows = body["result"]["list"].list
        return switch call {
        case .time: body["time"].unixMs.map(Answer.time)
        case .instruments: .markets(rows?.compactMap(instrument))
        case .tickers(let instruments):
            rows.map { rows in
                .tickers(named(instruments, rows) { ticker($0, $1, body["time"].unixMs, response.receivedMs) })
            }
        case .submit, .cancel: body["result"]["orderId"].text.map(Answer.accepted)
        case .query(let reference, _), .history(let reference):
            rows.map { rows in
                let ours = rows.filter { $0["orderLinkId"].text == reference.clientOrderId }.map {
                    order($0, reference)
                }
                return ours.max { $0.createdMs ?? 0 < $1.createdMs ?? 0 }.map(Answer.order) ?? .absent
            }
        }
    }

    private func refusal(_ code: Int64, of call: Call, _ body: JSON, _ response: HTTPResponse) -> ExchangeError {
        let verdict: Verdict =
            switch code {
            case 10006, 10018, 429, 170222, 170005: .wait
            case 10002, -1: .resync
            case 10000, 10016, 170007, 170146, 170147, 170001, 170032, 170149, 170234: .unknown
            // It is being processed, or locked, or a cancel of it failed: later it may be otherwise.
            case 170035, 110079, 170144, 170150, 170191: .unknown
            case 170141, 110072, 110030, 10014, 12141, 30001: .dup
            case 10003, 10004, 10005, 10007, 10009, 10010, 10024, 10027, 10028, 33004, -2015: .auth
            // Those of orders and of parameters; what others mean for an order nobody says.
            case 10001, 10029, 110_000..<111_000, 170_000..<171_000: .permanent
            default: call.isSubmit ? .unknown : .permanent
            }
        let reset = JSON(response.headers["x-bapi-limit-reset-timestamp"]).unixMs
        let wait = reset.flatMap { reset in body["time"].unixMs.map { min(max(0, reset - $0), 60_000) } } ?? 1000
        let text = body["retMsg"].text ?? ""
        return ExchangeError(
            verdict, answered: text, "\(code)", response, retryAfter: verdict == .wait ? .milliseconds(wait) : nil,
            isNoMarket: [10029, 170121].contains(code) || text.hasPrefix("Not supported symbol"))
    }

    private func ticker(_ row: JSON, _ symbol: String, _ exchangeMs: Int64?, _ receivedMs: Int64) -> Ticker? {
        guard let last = row["lastPrice"].decimal else { return nil }
        // The change is a fraction on the wire: 0.0068 is 0.68 percent.
        let change = row["price24hPcnt"].text.flatMap { Decimal(string: $0, locale: Locale(identifier: "en_US_POSIX")) }
        return Ticker(
            symbol: symbol, bid: row["bid1Price"].decimal, ask: row["ask1Price"].decimal, last: last,
            open: row["prevPrice24h"].decimal, high: row["highPrice24h"].decimal, low: row["lowPrice24h"].decimal,
            baseVolume: row["volume24h"].decimal, quoteVolume: row["turnover24h"].decimal,
            changePercent: change.map { "\($0 * 100)" }, exchangeMs: exchangeMs, receivedMs: receivedMs)
    }

    private func order(_ row: JSON, _ reference: OrderReference) -> Order {
        let statuses: [String: OrderStatus] = [
            "New": .open, "Filled": .filled, "PartiallyFilled": .partiallyFilled, "Cancelled": .canceled,
            "Rejected": .rejected, "PartiallyFilledCanceled": .canceled, "Deactivated": .canceled,
        ]
        let status = statuses[row["orderStatus"].text ?? ""]
        return Order(
            clientOrderId: reference.clientOrderId, exchangeOrderId: row["orderId"].text,
            symbol: reference.instrument.symbol, side: row["side"].text.flatMap { Side(rawValue: $0.lowercased()) },
            type: row["orderType"].text.flatMap { OrderType(rawValue: $0.lowercased()) },
            status: status ?? .open,
            amount: row["qty"].decimal, filled: row["cumExecQty"].decimal, averagePrice: row["avgPrice"].positiveText,
            price: row["price"].positiveText, exchangeMs: row["updatedTime"].unixMs,
            createdMs: row["createdTime"].unixMs, isPending: status == nil)
    }

    /// `minOrderAmt` is the minimum; `minOrderQty` is no longer checked by Bybit.
    private func instrument(_ market: JSON) -> Instrument? {
        let lot = market["lotSizeFilter"]
        guard let id = market["symbol"].text, let base = market["baseCoin"].text, let quote = market["quoteCoin"].text,
            let tick = market["priceFilter"]["tickSize"].positive, let step = lot["basePrecision"].positive
        else { return nil }
        return Instrument(
            symbol: "\(base)/\(quote)", id: id, tick: tick, step: step, minAmount: nil,
            maxAmount: lot["maxLimitOrderQty"].positive, minNotional: lot["minOrderAmt"].positive,
            isTrading: market["status"].text == "Trading", maxMarketAmount: lot["maxMarketOrderQty"].positive)
    }
}
