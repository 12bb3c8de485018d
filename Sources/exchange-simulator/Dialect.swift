import Exchanges
import Foundation

/// What one exchange does in its own way; its words are in its `Speech`. Refusals are thrown as `Answer`.
protocol Dialect {
    var venue: Venue { get }
    /// Counts a call against the limits of its address, its key and the engine, and reports them in `headers`.
    func admit(_ call: Call, _ endpoint: Endpoint, _ headers: inout [(String, String)]) throws
    /// Why the key or the signature of a private call is refused.
    func distrust(_ call: Call) -> String?
    /// Refuses what the engine may no longer take at `venue.now`.
    func checkFreshness(_ call: Call) throws
}

extension Dialect {
    /// Brings the exchange to `now` (unix ms): late orders reach the engine when they are due, if still fresh then.
    func settle(at now: Int) {
        while let (due, call, endpoint) = venue.late.first, due <= now {
            venue.late.removeFirst()
            venue.settle(at: due)
            // Nobody waits for the answer any more.
            if (try? checkFreshness(call)) != nil { _ = try? execute(call, endpoint) }
        }
        venue.settle(at: now)
    }

    /// The answer, or nil: close the connection without a word.
    func answer(_ call: Call) -> Answer? {
        guard let endpoint = venue.speech.endpoints[call.endpoint] else {
            return venue.fail("404", ["path": call.path, "method": call.method])
        }
        venue.requests[call.endpoint, default: 0] += 1
        if venue.faults.draw("rate_limit_rate") {
            let end = venue.now + venue.faults.whole("retry_after_s") * 1000
            return venue.fail(venue.faults.pick(["429", "418"]), counted: ["refused_for_limits"], until: end)
        }
        func broken() -> Answer { venue.fail(venue.faults.pick(["500", "502", "503"])) }
        if venue.faults.draw("error_rate") { return broken() }
        if venue.faults.draw("drop_before_rate") { return nil }
        var answer: Answer, headers: [(String, String)] = []
        do {
            if !endpoint.action.isPublic {
                if let rule = distrust(call) {
                    throw venue.fail(rule, counted: rule == "nonce" ? [] : ["signature_failures"])
                }
                try checkFreshness(call)
            }
            if venue.limited { try admit(call, endpoint, &headers) }
            if endpoint.action == .place, venue.faults.draw("late_accept_rate") {
                venue.late.append((venue.now + venue.faults.whole("late_accept_ms"), call, endpoint))
                venue.late.sort { $0.due < $1.due }
                return venue.faults.pick([nil, broken()])
            }
            answer = Answer(body: try execute(call, endpoint))
        } catch { answer = error as? Answer ?? venue.fail("500") }
        answer.headers += headers
        return venue.faults.draw("drop_after_rate") ? nil : answer
    }

    private func execute(_ call: Call, _ endpoint: Endpoint) throws -> String {
        for check in endpoint.checks ?? [] where !call.fits(check) {
            throw venue.fail(check.refusal, ["name": check.fields.last ?? ""])
        }
        let name = venue.name
        let items =
            switch endpoint.action {
            case .time, .fixed: [""]
            // Of other categories than spot there are none.
            case .instruments:
                call["category"] ?? "spot" == "spot" ? try venue.named(call).map { venue.markets[$0].entry } : []
            case .tickers: try venue.named(call).map(venue.ticker)
            case .place: [venue.text(try venue.place(try order(call)), "\(name).place")]
            case .cancel: [venue.text(try venue.cancel(call), "\(name).cancel")]
            case .query, .open, .history: try venue.found(call, endpoint.action).map { venue.text($0, "\(name).order") }
            }
        if items.isEmpty, endpoint.action == .query, venue.speech.refusesUnknown { throw venue.fail("unknown") }
        let values = [
            "now": "\(venue.now)", "seconds": "\(venue.now / 1000)", "count": "\(items.count)",
            "items": items.joined(separator: ","), "first": items.first ?? "",
        ]
        let variant = call[venue.speech.symbol] == nil ? "" : "one", path = call.path.split(separator: "/").last ?? ""
        return render("\(name):\(endpoint.action)", variant: endpoint.action == .fixed ? "\(path)" : variant, values)
    }
    /// The order that a call asks for whose words were checked.
    private func order(_ call: Call) throws -> Order {
        let speech = venue.speech, type = call[speech.type] ?? "", isMarket = type.lowercased() == "market"
        func number(_ field: String) -> Decimal { Decimal(wire: call[field] ?? "") ?? 0 }
        let market = try venue.market(call[speech.symbol]), side = call[speech.side] ?? ""
        let isInQuote = isMarket && call.fits(speech.inQuote)
        return Order(
            id: String(format: speech.orderIDs, venue.orders.count + 1), client: call[speech.client] ?? "",
            side: side, type: type, lifetime: call[speech.lifetime] ?? "GTC", market: market, accepted: venue.now,
            amount: isInQuote
                ? venue.markets[market].amount(of: number(speech.quoteAmount), buys: side.lowercased() == "buy")
                : number(speech.amount),
            price: isMarket ? nil : number(speech.price),
            isPostOnly: call.fits(speech.postOnly), updated: venue.now)
    }
}
