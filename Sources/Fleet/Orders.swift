package import Exchanges
internal import Foundation
package import Logging
package import Redis

/// Orders of one exchange: at most one execution of a job id, or a person is asked.
///
/// A request goes out only after the order's journal was opened for it, and carries a time that was fixed before: the
/// exchange refuses it when it comes late, however long this process was stopped in between. A journal that is open is
/// asked about, in short steps with the job put aside between them, so that a worker's death costs one step. What is
/// found is adopted. What is not may be sent again only when the exchange can no longer be about to accept the first
/// request and has not shown it twice since.
@LaneActor
package final class Orders {
    let session: ExchangeSession
    private let tickers: Tickers
    let journals: Journals
    private let configuration: Configuration
    let log: Logger
    let nowMs: @Sendable () -> Int64
    /// Orders that the exchange has acknowledged and that were not seen to rest or end yet, by its ids.
    var acknowledged: [String: Acknowledged] = [:]
    struct Acknowledged {
        let job: Job
        let order: OrderRequest
        let reference: OrderReference
        let owner: String
        let since = ContinuousClock.now
    }
    /// Orders that cancels ask about, by the exchange's ids, and how they had ended when another's question showed it.
    var canceling: [String: Canceling] = [:]
    struct Canceling {
        let reference: OrderReference
        var shown: Order?
        let since = ContinuousClock.now
    }
    let questions = Turnstile()
    /// Since when calls have been stopped and no question was answered.
    var awaySince: ContinuousClock.Instant?
    /// How long an order that nobody answers for is asked about, and one that should end watched.
    let patience = (unproven: Duration.seconds(300), ending: Duration.seconds(60))
    /// How long after its time stamp an order may be shown for the first time, and how long after a change again.
    let window, lag: Duration

    package init(
        session: ExchangeSession, tickers: Tickers, redis: RedisClient, configuration: Configuration,
        consumer: String, log: Logger, nowMs: @escaping @Sendable () -> Int64
    ) {
        (self.session, self.tickers, self.configuration) = (session, tickers, configuration)
        (self.log, self.nowMs) = (log, nowMs)
        lag = .seconds(configuration.orderLag)
        window = session.api.acceptance + lag
        // A journal outlives the order's result.
        journals = Journals(
            redis: redis, keys: Keys(session.api.exchange), consumer: consumer, window: window, lag: lag,
            ttl: max(configuration.orderResultTTL, 604_800))
    }

    func reference(_ jobId: String, _ symbol: String) async throws -> OrderReference {
        OrderReference(session.api.clientOrderId(jobId: jobId), try await session.markets.find(symbol))
    }

    /// `volatility` says why Redis may not hold orders, if so.
    /// - Throws: `SetAside`, `Refusal`, `JobExpired`, `ExchangeError` and `CancellationError`, the last four only when
    ///   the order was certainly not executed; `RedisError`.
    package func submit(_ order: OrderRequest, _ job: Job, volatility: String?) async throws -> Outcome {
        let journal = try await journals.read(job.id)
        if let journal {
            if journal.state == "canceled" {
                return .ok(json(Order(prevented: session.api.clientOrderId(jobId: job.id), order.symbol, order)))
            }
            // A question more may settle what nobody knew.
            if let known = journal.outcome, known.status != .unknown { return known }
            let isReleased = journal.state == "released"
            if !journal.isOf(order) {
                // Another order has this id: what becomes of it is the answer.
                if let known = journal.outcome { return known }
                if journal.age < .seconds(3600) { throw journal.step }
                if !isReleased {
                    return try await unknown(order, journal, job, "another order was sent under its id")
                }
            }
            if !isReleased { return try await resume(order, journal, job) }
        }
        if let deadline = job.deadlineMs, nowMs() >= deadline { throw JobExpired() }
        guard configuration.allowsOrders else {
            throw Refusal(code: "live_orders_off", "in FLEET_MODE=live orders need FLEET_LIVE_ORDERS=yes")
        }
        if let volatility {
            throw Refusal(
                code: "volatile_redis", "\(volatility), or FLEET_VOLATILE_ORDERS=yes: an order could be forgotten")
        }
        let reference = try await reference(job.id, order.symbol)
        do { try reference.instrument.check(order) } catch { throw Refusal(code: "order_rule", error.description) }
        try await checkNotional(order, job)
        // Behind all checks: what it opens a journal for may be sent later.
        if journal == nil, job.deliveries > 1, let found = try await foundAgain(order, reference, job) { return found }
        return try await send(order, reference, job)
    }

    private func checkNotional(_ order: OrderRequest, _ job: Job) async throws {
        guard !configuration.maxOrderNotional.isEmpty else { return }
        let quote = order.symbol.split(separator: "/").last.map(String.init) ?? ""
        guard let most = configuration.maxOrderNotional[quote] else {
            let listed = configuration.maxOrderNotional.keys.sorted().joined(separator: ", ")
            throw Refusal(code: "order_notional", "symbol '\(order.symbol)': expected a quote currency of \(listed)")
        }
        var price = order.price.flatMap(Decimal.init(wire:))
        // A limit to sell is filled at the market's price where that is better.
        if price == nil || order.side == .sell {
            struct Prices: Decodable { let ask, bid, last: String? }
            let ticker = try await tickers.fetch(order.symbol, maxAgeMs: 5000, for: job).ticker
            let prices = try? JSONDecoder().decode(Prices.self, from: Data(ticker.json.utf8))
            let known = [prices?.ask, prices?.bid, prices?.last].compactMap { $0.flatMap(Decimal.init(wire:)) }.max()
            price = known.map { max($0, price ?? 0) }
        }
        guard let price, let amount = Decimal(wire: order.amount), price * amount <= most else {
            let text = "amount '\(order.amount)': expected price × amount of at most \(most) \(quote)"
            throw Refusal(code: "order_notional", text)
        }
    }

    /// Sends the order, its journal opened for it when nothing more is waited for; `absent` is the journal of a send
    /// before, which was found absent.
    func send(
        _ order: OrderRequest, _ reference: OrderReference, _ job: Job, absent: Journal? = nil
    ) async throws -> Outcome {
        var isOpen = false
        let answer: Answer
        do {
            answer = try await session.perform(.submit(order, reference), for: job) { [self] stampMs in
                isOpen = true
                do {
                    try await journals.begin(job, order, stampMs: stampMs, absent: absent)
                } catch let standing as SetAside {
                    isOpen = false
                    throw standing
                }
            }
        } catch let error as ExchangeError where error.mayHaveExecuted && isOpen {
            // That there is one of this id is an acknowledgement too, if without the exchange's id.
            if error.verdict == .dup {
                await journals.noteShown(job.id, nil, of: journals.owner(job))
            } else {
                await journals.note("uncertain", job)
            }
            log.warning("order uncertain", metadata: job.metadata.merging(["reason": "\(error)"]) { $1 })
            return try await resume(order, nil, job)
        } catch let error as ExchangeError where isOpen && (error.verdict == .permanent || error.verdict == .auth) {
            return try await journals.end(job, .ended(.rejected, error), of: journals.owner(job))
        } catch {
            // Certainly not executed: what waits to be sent can wait in its stream, expire or be canceled there.
            if isOpen { await journals.note("released", job) }
            throw error
        }
        // The exchange has it: what fails from here on leaves the journal open.
        var id: String?
        if case .accepted(let given) = answer { id = given }
        if case .order(let known) = answer {
            if !order.isEnding(known) { return try await journals.end(job, ended(known), of: journals.owner(job)) }
            id = known.exchangeOrderId
        }
        await journals.noteShown(job.id, id, of: journals.owner(job))
        return try await resume(order, nil, job)
    }
}
