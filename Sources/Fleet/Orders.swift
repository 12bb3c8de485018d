internal import Exchanges
package import Logging
package import Redis

/// Orders of one exchange. Whatever happens, `submit` sends an order's request only after opening its journal, and a
/// journal that was open already is never sent again: it is asked about.
@LaneActor
package final class Orders {
    private let session: ExchangeSession
    private let redis: RedisClient
    private let keys: Keys
    private let journalTTL: Int
    private let allowsOrders: Bool
    private let log: Logger
    private let nowMs: @Sendable () -> Int64

    package init(
        session: ExchangeSession, redis: RedisClient, journalTTL: Int, allowsOrders: Bool, log: Logger,
        nowMs: @escaping @Sendable () -> Int64
    ) {
        self.session = session
        self.redis = redis
        self.journalTTL = max(journalTTL, 604_800)
        self.allowsOrders = allowsOrders
        self.log = log
        self.nowMs = nowMs
        keys = Keys(session.api.exchange)
    }

    // MARK: - Submit

    package func submit(_ fields: Job.OrderFields, _ job: Job) async throws -> Outcome {
        guard allowsOrders else {
            throw Refusal(code: "live_orders_off", message: "FLEET_MODE=live sends orders with FLEET_LIVE_ORDERS=yes only")
        }
        let instrument = try await session.knownInstrument(fields.symbol, for: job)
        let order = OrderRequest(
            clientOrderId: session.api.clientOrderId(jobId: job.id), side: fields.side, type: fields.type,
            amount: fields.amount, price: fields.price, timeInForce: fields.timeInForce)
        do { try instrument.check(order) } catch { throw Refusal(code: "order_rule", message: error.description) }
        let reference = OrderReference(clientOrderId: order.clientOrderId, instrument: instrument)
        let journal = try await begin(job.id, state: "sending")
        if let earlier = journal.outcome { return earlier }
        if journal.state == "canceled" { return canceled(reference) }
        let outcome: Outcome
        if journal.state == "begun" {
            outcome = await send(order, reference, job)
        } else {
            outcome = await reconcile(reference, because: "an earlier delivery of this job may have sent it")
        }
        try await end(job.id, state: outcome.status.rawValue, outcome)
        return outcome
    }

    /// Sends the order once; again only after an answer that says it was not executed.
    private func send(_ order: OrderRequest, _ reference: OrderReference, _ job: Job) async -> Outcome {
        for attempt in 1...job.maxAttempts {
            do {
                let answer = try await session.perform(
                    .submit(order, reference.instrument), for: job, mayPause: false)
                switch answer {
                case .order(let order): return ended(order)
                case .accepted(let id): return await settled(reference, order, exchangeOrderId: id)
                default: return await reconcile(reference, because: "an answer without the order")
                }
            } catch is JobExpired {
                return .ended(.expired, code: "deadline", "the deadline passed before the order was sent")
            } catch let error as ExchangeError {
                if error.mayHaveExecuted { return await reconcile(reference, because: error.message) }
                if error.verdict == .permanent || error.verdict == .auth { return .ended(.rejected, error) }
                if attempt == job.maxAttempts { return .ended(.failed, error) }
                let wait = max(error.retryAfter ?? .zero, Retry.delay(attempt - 1))
                guard (try? await session.pause(for: wait, false)) != nil else { return .ended(.failed, error) }
            } catch {
                return await reconcile(reference, because: "\(error)")
            }
        }
        return .ended(.failed, code: "attempts", "all attempts used up")
    }

    /// The order as it stands once it rests, fills or ends. An exchange that acknowledges only is asked until it knows
    /// the order; if it never does, the acknowledgement alone is the answer.
    private func settled(_ reference: OrderReference, _ order: OrderRequest, exchangeOrderId: String?) async -> Outcome {
        let known = OrderReference(
            clientOrderId: reference.clientOrderId, exchangeOrderId: exchangeOrderId, instrument: reference.instrument)
        if let found = await find(known, tries: 6) { return ended(found) }
        return ended(
            Order(
                clientOrderId: order.clientOrderId, exchangeOrderId: exchangeOrderId,
                symbol: reference.instrument.symbol, side: order.side, type: order.type, status: .open,
                amount: order.amount, price: order.price))
    }

    /// Finds out about an order that may exist. Not found within the time the exchange may still accept it (receive
    /// window or deadline, at most ten seconds) proves nothing: the outcome is unknown, and a person decides.
    private func reconcile(_ reference: OrderReference, because reason: String) async -> Outcome {
        log.warning("order uncertain", metadata: ["order": "\(reference.clientOrderId)", "reason": "\(reason)"])
        if let found = await find(reference, tries: 8) { return ended(found) }
        log.error("order outcome unknown", metadata: ["order": "\(reference.clientOrderId)"])
        return .ended(
            .unknown, code: "order_unknown",
            "the order may exist (\(reason)) and the exchange does not show it; look it up by its client order id",
            data: json(["client_order_id": reference.clientOrderId]))
    }

    /// Asks for an order until the exchange shows it, waiting 50 ms, 100 ms, … at most 3.2 s between.
    private func find(_ reference: OrderReference, tries: Int) async -> Order? {
        for attempt in 0..<tries {
            if attempt > 0 { try? await session.pause(for: .milliseconds(25 << min(attempt, 7)), false) }
            for call in session.api.keepsHistoryApart ? [Call.query(reference), .history(reference)] : [.query(reference)] {
                let answer = try? await session.perform(call, for: nil, mayPause: false)
                if case .order(let order) = answer { return order }
            }
        }
        return nil
    }

    private func ended(_ order: Order) -> Outcome {
        if order.status != .rejected { return .ok(json(order)) }
        return .ended(.rejected, code: "exchange_refused", "the exchange rejected the order", data: json(order))
    }

    // MARK: - Cancel

    /// Cancels an order by its job's id. One whose send has not begun is prevented: its journal is opened as canceled.
    package func cancel(_ orderId: String, _ symbol: String, _ job: Job) async throws -> Outcome {
        let instrument = try await session.knownInstrument(symbol, for: job)
        let reference = OrderReference(
            clientOrderId: session.api.clientOrderId(jobId: orderId), instrument: instrument)
        let journal = try await begin(orderId, state: "canceled")
        if journal.state == "begun" || journal.state == "canceled" { return canceled(reference) }
        let answer = try await session.perform(.cancel(reference), for: job)
        if case .order(let order) = answer { return .ok(json(order)) }
        var last: Order?
        for attempt in 0..<6 {
            if attempt > 0 { try await session.pause(for: .milliseconds(25 << attempt), false) }
            last = await find(reference, tries: 1) ?? last
            if last?.status == .canceled, let last { return .ok(json(last)) }
            if let last, last.status != .open, last.status != .partiallyFilled { break }
        }
        guard let last else {
            return .ended(.rejected, code: "order_not_found", "order_id: the exchange has no order '\(orderId)'")
        }
        if last.status == .open || last.status == .partiallyFilled {
            throw ExchangeError(.unknown, code: "cancel_unconfirmed", "the order is still open after its cancel")
        }
        return .ended(
            .rejected, code: "order_closed", "the order is \(last.status.rawValue) and cannot be canceled",
            data: json(last))
    }

    private func canceled(_ reference: OrderReference) -> Outcome {
        .ok(
            json(
                Order(
                    clientOrderId: reference.clientOrderId, symbol: reference.instrument.symbol, status: .canceled)))
    }

    // MARK: - Journal

    private func begin(_ id: String, state: String) async throws(RedisError) -> (state: String, outcome: Outcome?) {
        let reply = try await FunctionLibrary.call(
            "fleet_journal_begin", key: keys.order(id), [.text(state), .int(journalTTL), .int(Int(nowMs()))], on: redis)
        guard let values = reply.array, let state = values.first?.text else {
            throw RedisError(.malformedReply, "fleet_journal_begin: a state was expected")
        }
        return (state, values.count > 1 ? values[1].text.flatMap(Outcome.init(json:)) : nil)
    }

    /// Tries until it is written: what is known of an order must not be lost with a connection.
    private func end(_ id: String, state: String, _ outcome: Outcome) async throws {
        for attempt in 0... {
            do throws(RedisError) {
                _ = try await FunctionLibrary.call(
                    "fleet_journal_end", key: keys.order(id),
                    [.text(state), .text(outcome.json), .int(journalTTL), .int(Int(nowMs()))], on: redis)
                return
            } catch {
                log.warning("journal not written yet", metadata: ["order": "\(id)", "error": "\(error)"])
                try await session.pause(for: Retry.delay(attempt), false)
            }
        }
    }
}
