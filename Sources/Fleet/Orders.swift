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
    private let log: Logger
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

    package init(
        session: ExchangeSession, tickers: Tickers, redis: RedisClient, configuration: Configuration,
        consumer: String, log: Logger, nowMs: @escaping @Sendable () -> Int64
    ) {
        (self.session, self.tickers, self.configuration) = (session, tickers, configuration)
        (self.log, self.nowMs) = (log, nowMs)
        // A journal outlives the order's result.
        journals = Journals(
            redis: redis, keys: Keys(session.api.exchange), consumer: consumer, acceptance: session.api.acceptance,
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

    /// Sends the order, its journal opened for it when nothing more is waited for.
    private func send(_ order: OrderRequest, _ reference: OrderReference, _ job: Job) async throws -> Outcome {
        var isOpen = false
        let answer: Answer
        do {
            answer = try await session.perform(.submit(order, reference), for: job) { [self] stampMs in
                isOpen = true
                do { try await journals.begin(job, order, stampMs: stampMs) } catch let standing as SetAside {
                    isOpen = false
                    throw standing
                }
            }
        } catch let error as ExchangeError where error.mayHaveExecuted && isOpen {
            // That there is one of this id is an acknowledgement too, if without the exchange's id.
            await journals.note(error.verdict == .dup ? "acknowledged" : "uncertain", job)
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
        await journals.note("acknowledged", job, id ?? "")
        return try await resume(order, nil, job)
    }

    /// What became of the order of a job that another worker has had before, where the journal says nothing: Redis may
    /// have lost what that worker wrote down.
    private func foundAgain(
        _ order: OrderRequest, _ reference: OrderReference, _ job: Job
    ) async throws -> Outcome? {
        do {
            guard try await find(reference, begunMs: job.enqueuedMs) != nil else { return nil }
        } catch let error as ExchangeError where error.code == "older_order" {
            return nil
        } catch {
            log.info("order not asked", metadata: job.metadata.merging(["error": "\(error)"]) { $1 })
        }
        // It may exist, which the next delivery has to know too.
        try await journals.begin(job, order, stampMs: 0)
        return try await resume(order, nil, job)
    }

    /// One step with an order that may exist: whatever fails, it is tried again until patience ends. `journal` is read
    /// where it is not given.
    private func resume(_ order: OrderRequest, _ known: Journal?, _ job: Job) async throws -> Outcome {
        var journal = known
        if journal == nil { journal = try await journals.read(job.id) }
        guard let journal else {
            let text = "its journal was lost while it was sent, so it may exist"
            return .ended(.unknown, code: "order_unknown", text)
        }
        var reason = "the exchange does not show it"
        do {
            var reference = try await reference(job.id, order.symbol)
            reference.exchangeOrderId = journal.exchangeOrderId
            // It stays there while the job is put aside: who asks next asks for it too.
            if let id = journal.exchangeOrderId, acknowledged.count < 1000 {
                acknowledged[id] = Acknowledged(job: job, order: order, reference: reference, owner: journal.owner)
            }
            let outcome = try await reconcile(order, reference, journal, job)
            if let id = journal.exchangeOrderId { acknowledged[id] = nil }
            return outcome
        } catch let pause as SetAside {
            // Not asked yet, or not to be asked again yet: that is no reason to call it unknown. That calls are stopped is.
            var isAway = session.isStopped(trading: true)
            if isAway {
                await journals.note("unasked", job)
                // Of the first question after a long pause nobody knows yet whether it will be answered.
                awaySince = awaySince ?? .now
                isAway = awaySince.map { .now - $0 > .seconds(10) } ?? false
            }
            if journal.outcome == nil, !isAway || journal.unaskedFor <= patience.unproven {
                if journal.age > patience.unproven { log.warning("order still uncertain", metadata: job.metadata) }
                throw pause
            }
            if isAway { reason = "the exchange does not answer" }
        } catch let error as ExchangeError {
            reason = "the exchange could not be asked: \(error)"
        } catch let error as Refusal {
            // A market that is not in the list now may be there again soon.
            reason = error.message
        }
        // Counted from the first question: while nobody asked, nothing was learnt.
        await journals.note("unasked", job)
        guard journal.unaskedFor > patience.unproven || journal.outcome != nil else { throw journal.step }
        return try await unknown(order, journal, job, reason)
    }

    private func unknown(
        _ order: OrderRequest, _ journal: Journal, _ job: Job, _ reason: String
    ) async throws -> Outcome {
        log.error("order outcome unknown", metadata: job.metadata.merging(["reason": "\(reason)"]) { $1 })
        let ids = [
            "client_order_id": session.api.clientOrderId(jobId: job.id), "exchange_order_id": journal.exchangeOrderId,
        ]
        let advice = "the order may exist: \(reason); look it up by its client order id, then: producer order settle"
        return try await journals.end(
            job, .ended(.unknown, code: "order_unknown", advice, data: json(ids.compactMapValues { $0 })),
            of: journal.owner)
    }

    /// Asks for the order. Found, it is adopted once it rests, is filled or has ended; not found, it is sent again when
    /// that is safe. - Throws: `SetAside` until something is known.
    private func reconcile(
        _ order: OrderRequest, _ reference: OrderReference, _ journal: Journal, _ job: Job
    ) async throws -> Outcome {
        if let found = try await find(reference, begunMs: journal.begunMs) {
            if !order.matches(found) {
                return try await unknown(order, journal, job, "another order has its client order id")
            }
            if order.isEnding(found), journal.age < patience.ending { throw journal.step }
            return try await journals.end(job, ended(found), of: journal.owner)
        }
        if reference.exchangeOrderId != nil || journal.knownFor > .zero {
            // Acknowledged, so never sent again; the exchange shows it late.
            await journals.note("absent", job, sends: journal.sends)
            if journal.age < patience.ending || journal.absences < 2 { throw journal.step }
            return try await unknown(order, journal, job, "the exchange acknowledged it and does not show it")
        }
        guard session.knowsTime else {
            throw ExchangeError(.unknown, code: "no_clock", "it does not say what time it is")
        }
        // By two clocks, as one of them may have been set: Redis' and the exchange's own.
        let window = journal.stampMs + Int64(session.api.acceptance / .milliseconds(1)) - session.exchangeNowMs
        let left = max(journal.mayAppearFor, .milliseconds(window))
        guard left == .zero, journal.outcome == nil else {
            throw SetAside(min(journal.step.wait, max(left, .milliseconds(100))))
        }
        await journals.note("absent", job, sends: journal.sends)
        guard journal.absences >= 2 else { throw SetAside(.seconds(1)) }
        if let deadline = job.deadlineMs, nowMs() >= deadline {
            let text = "the order was not placed in time"
            return try await absent(order, job, .ended(.expired, code: "deadline", text))
        }
        if journal.sends >= job.maxAttempts {
            return try await absent(
                order, job, .ended(.failed, code: "not_placed", "sent \(journal.sends) times, never placed"))
        }
        return try await send(order, reference, job)
    }

    /// Ends an order that was never placed; the journal says whether that is certain.
    private func absent(_ order: OrderRequest, _ job: Job, _ outcome: Outcome) async throws -> Outcome {
        try await journals.begin(job, order, stampMs: 0)
        return try await journals.end(job, outcome, of: journals.owner(job))
    }

    func ended(_ order: Order) -> Outcome {
        if order.status != .rejected { return .ok(json(order)) }
        return .ended(.rejected, code: "exchange_refused", "the exchange rejected the order", data: json(order))
    }

    /// What becomes of an order whose job may kill workers; nil: it was never sent. The exchange is asked once, unless
    /// that may be what kills.
    package func giveUp(_ order: OrderRequest, _ job: Job, _ reason: String) async throws -> Outcome? {
        guard let journal = try await journals.read(job.id), journal.state == "sending" || journal.outcome != nil else {
            return nil
        }
        if let known = journal.outcome { return known }
        if job.deliveries <= 2 * Lease.maxDeliveries {
            do {
                let symbol = journal.symbol.isEmpty ? order.symbol : journal.symbol
                let found = try await find(try await reference(job.id, symbol), begunMs: journal.begunMs)
                if let found { return try await journals.end(job, ended(found), of: journal.owner) }
                // It may be shown yet; then it is looked at as any other.
                if journal.mayAppearFor > .zero { throw SetAside(journal.mayAppearFor + .seconds(1)) }
            } catch let pause as SetAside {
                // It could not be asked now: that is no reason to call it unknown.
                throw pause
            } catch {
                log.warning("order not asked", metadata: job.metadata.merging(["error": "\(error)"]) { $1 })
            }
        }
        let data = #"{"client_order_id":\#(quoted(session.api.clientOrderId(jobId: job.id)))}"#
        return try await journals.end(
            job, .ended(.unknown, code: "order_unknown", "it may exist; its job was \(reason)", data: data),
            of: journal.owner)
    }
}
