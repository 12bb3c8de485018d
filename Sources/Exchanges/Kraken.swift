internal import Foundation

/// Kraken Spot, `/0` (docs.kraken.com).
package struct Kraken: ExchangeAPI {
    package enum Tier: String, Sendable, CaseIterable { case starter, intermediate, pro }

    package let exchange = Exchange.kraken
    package let keepsHistoryApart = true
    package let tickersAtOnce = 100
    package let ordersAtOnce = 50
    /// The private counter and the engine's, one a pair: most and decay a second, as documented. Public calls are about
    /// one a second an address, by third parties' word.
    private let budget: (counter: Double, decay: Double, engine: Double, engineDecay: Double)
    package let baseURL: String
    package let credentials: Credentials?
    /// After its deadline the engine refuses an order; Kraken takes 2…60 s from now.
    private let deadlineMs: Int64 = 10_000
    package let acceptance = Duration.seconds(12)

    package init(baseURL: String, credentials: Credentials?, tier: Tier = .starter) {
        self.baseURL = baseURL
        self.credentials = credentials
        budget =
            switch tier {
            case .starter: (15, 0.33, 60, 1)
            case .intermediate: (20, 0.5, 125, 2.34)
            case .pro: (20, 1, 180, 3.75)
            }
    }

    /// A UUID from the job id's SHA-256: free text is documented, but reports disagree on its alphabet.
    package func clientOrderId(jobId: String) -> String {
        var digest = Array(Signing.sha256(jobId.utf8).prefix(16))
        digest[6] = digest[6] & 0x0f | 0x80
        digest[8] = digest[8] & 0x3f | 0x80
        let hex = Array(Signing.hex(digest))
        return [0..<8, 8..<12, 12..<16, 16..<20, 20..<32].map { String(hex[$0]) }.joined(separator: "-")
    }

    package func charges(for call: Call) -> [Charge] {
        // What the cancel of an order younger than five seconds costs; less of an older one.
        let (cancel, most) = (8.0, budget.engine - 2)
        let costs: KeyValuePairs<Duration, Double> = [
            .seconds(5): cancel, .seconds(10): 6, .seconds(15): 5, .seconds(45): 4, .seconds(90): 2,
        ]
        func engine(_ order: OrderReference, _ cost: Double, burst: Double) -> Charge {
            Charge("engine-" + order.instrument.id, .account, cost, burst: burst, perSecond: budget.engineDecay)
        }
        func counter(_ cost: Double) -> Charge {
            Charge("private", .account, cost, burst: budget.counter - 1, perSecond: budget.decay)
        }
        return switch call {
        case .time, .instruments, .tickers: [Charge("public", .address, 1, burst: 8, perSecond: 0.98)]
        // Orders take nine tenths of this: room for a cancel is left, which would otherwise wait for ever behind them.
        case .submit(_, let order): [engine(order, 1, burst: (most - cancel) / 0.9)]
        case .cancel(let order):
            [engine(order, costs.first { order.age ?? .zero < $0.key }?.value ?? 1, burst: most)]
        // Without its id an order is asked for in two calls, paid together: one by one, those who have paid for the first
        // would take from each other what the second costs.
        case .query(let order, _): [counter(order.exchangeOrderId == nil ? 2 : 1)]
        case .history(let order): order.exchangeOrderId == nil ? [] : [counter(1)]
        }
    }

    package func request(_ call: Call, _ stamp: Stamp) throws(ExchangeError) -> HTTPRequest {
        func name(_ order: OrderReference) -> (String, String) { ("cl_ord_id", order.clientOrderId) }
        switch call {
        case .time: return HTTPRequest(.get, baseURL + "/0/public/Time")
        case .instruments: return HTTPRequest(.get, baseURL + "/0/public/AssetPairs")
        case .tickers(let instruments):
            let pairs = instruments.map(\.id).joined(separator: ",")
            return HTTPRequest(.get, baseURL + "/0/public/Ticker?" + formEncoded([("pair", pairs)]))
        case .submit(let order, let reference):
            return try signed("AddOrder", parameters(order, reference, stamp), stamp)
        case .cancel(let order): return try signed("CancelOrder", [name(order)], stamp)
        case .query(let order, let others):
            let ids = ([order] + others).compactMap(\.exchangeOrderId).joined(separator: ",")
            if !ids.isEmpty { return try signed("QueryOrders", [("txid", ids)], stamp) }
            return try signed("OpenOrders", [name(order)], stamp)
        case .history(let order): return try signed("ClosedOrders", [name(order), ("without_count", "true")], stamp)
        }
    }

    private func parameters(_ order: OrderRequest, _ reference: OrderReference, _ stamp: Stamp) -> [(String, String)] {
        let deadline = Date(timeIntervalSince1970: Double(stamp.timestampMs + deadlineMs) / 1000)
        var parameters = [
            ("pair", reference.instrument.id), ("type", order.side.rawValue), ("ordertype", order.type.rawValue),
            ("volume", order.amount), ("cl_ord_id", reference.clientOrderId),
            ("deadline", deadline.formatted(.iso8601)),
        ]
        guard let price = order.price, order.type == .limit else { return parameters }
        parameters.append(("price", price))
        switch order.timeInForce {
        case .gtc: return parameters
        case .ioc, .fok: return parameters + [("timeinforce", order.timeInForce.rawValue)]
        case .po: return parameters + [("oflags", "post")]
        }
    }

    private func signed(
        _ method: String, _ parameters: [(String, String)], _ stamp: Stamp
    ) throws(ExchangeError) -> HTTPRequest {
        let credentials = try credentialsOrThrow()
        guard let secret = Data(base64Encoded: credentials.secret) else {
            throw ExchangeError(.auth, code: "no_key", "KRAKEN_SECRET is not base64")
        }
        let path = "/0/private/" + method
        let body = formEncoded([("nonce", "\(stamp.nonce)")] + parameters)
        let digest = Signing.sha256("\(stamp.nonce)\(body)".utf8)
        let signature = Data(Signing.hmac(.sha512, key: secret, path.utf8 + digest)).base64EncodedString()
        return HTTPRequest(
            .post, baseURL + path,
            headers: [
                ("API-Key", credentials.key), ("API-Sign", signature),
                ("Content-Type", "application/x-www-form-urlencoded"),
            ], body: body)
    }

    package func read(_ response: HTTPResponse, to call: Call) throws(ExchangeError) -> Answer? {
        guard response.status == 200 else {
            let verdict: Verdict = [403, 418, 429].contains(response.status) ? .wait : .unknown
            // Any other status than 200 leaves open what became of an order.
            throw ExchangeError(
                verdict, answered: "HTTP \(response.status)", "\(response.status)", response, isUncertain: true)
        }
        let body = JSON(body: response.body)
        // Some are also seen with a space behind the colon.
        guard let errors = body["error"].list?.compactMap({ $0.text?.replacing(": ", with: ":") }) else { return nil }
        // Entries that begin with W are warnings beside a result.
        if let error = errors.first(where: { $0.hasPrefix("E") }) {
            let isUnknown = error.contains(/^EOrder:(Unknown|Invalid) order/)
            switch call {
            case .cancel where isUnknown: return .absent
            // Of several it does not say which.
            case .query(_, let others) where isUnknown && others.isEmpty: return .absent
            default: break
            }
            throw refusal(error, of: call, response)
        }
        let result = body["result"]
        return switch call {
        case .time: result["unixtime"].secondsAsMs.map(Answer.time)
        case .instruments: .markets(result.members?.compactMap(instrument))
        case .tickers(let instruments):
            result.members.map { rows in
                .tickers(instruments.compactMap { ticker(rows[$0.id], $0.symbol, response.receivedMs) })
            }
        case .submit: result["txid"].list?.first?.text.map(Answer.accepted)
        case .cancel: result["count"].int.map { $0 > 0 ? .accepted(exchangeOrderId: nil) : .absent }
        case .query(let reference, let others) where !others.isEmpty:
            result.members.map { rows in
                let found = ([reference] + others).compactMap { one in
                    one.exchangeOrderId.flatMap { id in rows[id].map { (id, order(id, $0, one)) } }
                }
                return .orders(Dictionary(found) { $1 })
            }
        case .query(let reference, _):
            newest((reference.exchangeOrderId == nil ? result["open"] : result).members, reference)
        case .history(let reference): newest(result["closed"].members, reference)
        }
    }

    private func refusal(_ error: String, of call: Call, _ response: HTTPResponse) -> ExchangeError {
        let verdicts: KeyValuePairs<String, Verdict> = [
            "EAPI:Rate limit": .wait, "EOrder:Rate limit": .wait, "EOrder:Domain rate limit": .wait,
            "EService:Throttled": .wait, "EService:Market in": .wait,
            "EAuth:Rate limit": .wait, "EAuth:Too many requests": .wait, "EGeneral:Too many requests": .wait,
            "EGeneral:Temporary lockout": .wait, "EService:Deadline": .permanent, "EService:": .unknown,
            "EGeneral:Internal error": .unknown, "EDatabase:": .unknown, "EAPI:Invalid key": .auth,
            "EAPI:Invalid signature": .auth, "EGeneral:Permission denied": .auth, "EAuth:": .auth,
            // With more words it speaks of a market that is closed to residents of a country, not of the key.
            "EAccount:Invalid permissions:": .permanent, "EAccount:": .auth, "EAPI:Invalid nonce": .resync,
            "EGeneral:Invalid arguments:cl_ord_id not unique": .dup, "EGeneral:Invalid arguments": .permanent,
            "EOrder:": .permanent, "EQuery:": .permanent, "EFunding:": .permanent,
            "EBM:": .permanent, "ETrade:": .permanent,
        ]
        // What others mean for an order nobody says.
        let verdict = verdicts.first { error.hasPrefix($0.key) }?.value ?? (call.isSubmit ? .unknown : .permanent)
        // Unstated: a lockout is a quarter of an hour by third parties' word; the counter of a key is emptied in part.
        // What concerns a pair alone says nothing of how long.
        let isOfPair = error.hasPrefix("EOrder:") || error.hasPrefix("EService:Market in")
        var wait: Duration? = verdict == .wait && !isOfPair ? .seconds(5) : nil
        if error.hasPrefix("EGeneral:Temporary lockout") { wait = .seconds(900) }
        // `EService:Throttled:1700000005` names the second from which requests are taken again.
        if verdict == .wait, let end = error.split(separator: ":").last?.trimmingCharacters(in: .whitespaces),
            let until = JSON(end).secondsAsMs
        {
            // By two clocks: a wrong one of ours must neither stop the fleet for long nor let it go on at once.
            wait = .milliseconds(min(max(1000, until - response.receivedMs), 60_000))
        }
        return ExchangeError(
            verdict, answered: error, error, response, retryAfter: wait,
            isUncertain: error.hasPrefix("EService:Deadline elapsed"),
            isNoMarket: error.hasPrefix("EQuery:Unknown asset pair"))
    }

    /// Kraken's `open` is today's at midnight UTC, the other figures cover 24 hours: no change in percent is given.
    private func ticker(_ row: JSON?, _ symbol: String, _ receivedMs: Int64) -> Ticker? {
        guard let row, let last = row["c"].list?.first?.decimal else { return nil }
        return Ticker(
            symbol: symbol, bid: row["b"].list?.first?.decimal, ask: row["a"].list?.first?.decimal, last: last,
            open: row["o"].decimal, high: row["h"].list?.last?.decimal, low: row["l"].list?.last?.decimal,
            baseVolume: row["v"].list?.last?.decimal, receivedMs: receivedMs)
    }

    /// Ended orders can share one client order id: the newest is the one meant.
    private func newest(_ rows: [String: JSON]?, _ reference: OrderReference) -> Answer? {
        guard let rows else { return nil }
        let ours = rows.filter { $1["cl_ord_id"].text ?? reference.clientOrderId == reference.clientOrderId }
        let newest = ours.max { ($0.value["opentm"].secondsAsMs ?? 0) < ($1.value["opentm"].secondsAsMs ?? 0) }
        return newest.map { .order(order($0, $1, reference)) } ?? .absent
    }

    private func order(_ id: String, _ row: JSON, _ reference: OrderReference) -> Order {
        let filled = row["vol_exec"].positive
        let statuses: [String: OrderStatus] = [
            "open": filled == nil ? .open : .partiallyFilled, "canceled": .canceled, "expired": .expired,
            // What was filled in part and then canceled is closed too.
            "closed": row["vol_exec"].text != nil && filled ?? 0 < row["vol"].positive ?? 0 ? .canceled : .filled,
        ]
        let status = statuses[row["status"].text ?? ""]
        return Order(
            clientOrderId: reference.clientOrderId, exchangeOrderId: id, symbol: reference.instrument.symbol,
            side: row["descr"]["type"].text.flatMap(Side.init),
            type: row["descr"]["ordertype"].text.map { $0 == "market" ? .market : .limit }, status: status ?? .open,
            amount: row["vol"].decimal, filled: row["vol_exec"].decimal, averagePrice: row["price"].positiveText,
            price: row["descr"]["price"].positiveText,
            exchangeMs: row["closetm"].secondsAsMs ?? row["opentm"].secondsAsMs, createdMs: row["opentm"].secondsAsMs,
            isPending: status == nil)
    }

    private func instrument(_ id: String, _ pair: JSON) -> Instrument? {
        // Kraken's own names in `wsname`, by ccxt's list of them.
        let renamed = [
            "XBT": "BTC", "XDG": "DOGE", "LUNA": "LUNC", "LUNA2": "LUNA", "UST": "USTC", "REPV2": "REP", "FEE": "KFEE",
        ]
        guard let names = pair["wsname"].text?.split(separator: "/").map(String.init), names.count == 2,
            let decimals = pair["lot_decimals"].int, 0...18 ~= decimals, let tick = pair["tick_size"].positive
        else { return nil }
        return Instrument(
            symbol: names.map { renamed[$0] ?? $0 }.joined(separator: "/"), id: id, tick: tick,
            step: Decimal(sign: .plus, exponent: -Int(decimals), significand: 1),
            minAmount: pair["ordermin"].positive, maxAmount: nil, minNotional: pair["costmin"].positive,
            // In the last two the exchange itself says which orders it takes.
            isTrading: ["online", "post_only", "limit_only"].contains(pair["status"].text))
    }
}
