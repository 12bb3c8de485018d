package import Exchanges
package import Logging
package import Redis

/// Orders of one exchange. Whatever happens, `submit` sends an order's request only after opening its journal, and a
/// journal that was open already is never sent again: it is asked about.
@LaneActor
package final class Orders {
    private let session: ExchangeSession
    private let redis: RedisClient
    private let keys: Keys
    /// In seconds; a journal outlives the order's result.
    private let journalTTL: Int
    private let allowsOrders: Bool
    private let log: Logger
    private let nowMs: @Sendable () -> Int64

    package init(
        session: ExchangeSession, redis: RedisClient, journalTTL: Int, allowsOrders: Bool, log: Logger,
        nowMs: @escaping @Sendable () -> Int64
    ) {
        (self.session, self.redis, self.journalTTL) = (session, redis, max(journalTTL, 604_800))
        (self.allowsOrders, self.log, self.nowMs) = (allowsOrders, log, nowMs)
        keys = Keys(session.api.exchange)
    }

    private func reference(_ jobId: String, _ instrument: Instrument) -> OrderReference {
        OrderReference(session.api.clientOrderId(jobId: jobId), instrument)
    }

    // MARK: - Submit

    /// - Throws: `Refusal`, `JobExpired`, and whatever stopped the job before its journal was opened.
    package func submit(_ order: OrderRequest, _ job: Job) async throws -> Outcome {
        guard allowsOrders else {
            throw Refusal(code: "live_orders_off", "in FLEET_MODE=live orders need FLEET_LIVE_ORDERS=yes")
        }
        let instrument = try await session.instrument(order.symbol)
        do { try instrument.check(order) } catch { throw Refusal(code: "order_rule", error.description) }
        let reference = reference(job.id, instrument)
        let journal = try await begin(job.id, state: "sending")
        if let earlier = journal.outcome { return earlier }
        if journal.state == "canceled" { return .ok(json(reference.order(.canceled, of: order))) }
        let outcome =
            journal.state == "begun"
            ? await send(order, reference, job)
            : await reconcile(reference, because: "an earlier delivery of this job may have sent it")
        // Two deliveries of one job at the same time: the one that sent it may know by now.
        if outcome.status == .unknown, let other = try await begin(job.id, state: "sending").outcome { return other }
        try await end(job.id, outcome)
        return outcome
    }

    /// Sends the order once; again only after an answer that says it was not executed.
    private func send(_ order: OrderRequest, _ reference: OrderReference, _ job: Job) async -> Outcome {
        for attempt in 1... {
            do {
                switch try await session.perform(.submit(order, reference), for: job, mayStop: false) {
                case .order(let order): return ended(order)
                case .accepted(let id):
                    // Acknowledged only: asked until it rests, fills or ends. If the exchange never shows it, the
                    // acknowledgement alone is the answer.
                    var known = reference
                    known.exchangeOrderId = id
                    return ended(await find(known, tries: 6) ?? known.order(.open, of: order))
                default: return await reconcile(reference, because: "an answer without the order")
                }
            } catch is JobExpired {
                return .ended(.expired, code: "deadline", "the deadline passed before the order was sent")
            } catch let error as ExchangeError where !error.mayHaveExecuted {
                let isFinal = error.verdict == .permanent || error.verdict == .auth
                if isFinal || attempt >= job.maxAttempts { return .ended(isFinal ? .rejected : .failed, error) }
                let wait = max(error.retryAfter ?? .zero, Retry.delay(attempt - 1))
                guard (try? await session.pause(for: wait, false)) != nil else { return .ended(.failed, error) }
            } catch {
                return await reconcile(reference, because: "\(error)")
            }
        }
        return .ended(.failed, code: "attempts", "all attempts used up")
    }

    /// Finds out about an order that may exist. Not found within the time the exchange may still accept it proves
    /// nothing: the outcome is unknown, and a person decides.
    private func reconcile(_ reference: OrderReference, because reason: String) async -> Outcome {
        log.warning("order uncertain", metadata: ["order": "\(reference.clientOrderId)", "reason": "\(reason)"])
        if let found = await find(reference, tries: 8) { return ended(found) }
        log.error("order outcome unknown", metadata: ["order": "\(reference.clientOrderId)"])
        let advice = "the order may exist (\(reason)), but the exchange does not show it; look up its client order id"
        return .ended(
            .unknown, code: "order_unknown", advice, data: json(["client_order_id": reference.clientOrderId]))
    }

    /// Asks for an order until the exchange shows it, waiting 50 ms, 100 ms, … 3.2 s between: 6.4 s for eight tries.
    private func find(_ reference: OrderReference, tries: Int) async -> Order? {
        for attempt in 0..<tries {
            if attempt > 0 { try? await session.pause(for: .milliseconds(25 << attempt), false) }
            for call in [Call.query(reference), .history(reference)].prefix(session.api.keepsHistoryApart ? 2 : 1) {
                let answer = try? await session.perform(call, for: nil, mayStop: false)
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
    /// - Throws: `Refusal`, `JobExpired`, `ExchangeError`: a cancel can always be repeated.
    package func cancel(_ orderId: String, _ symbol: String, _ job: Job) async throws -> Outcome {
        let reference = reference(orderId, try await session.instrument(symbol))
        let journal = try await begin(orderId, state: "canceled")
        if journal.state == "begun" || journal.state == "canceled" { return .ok(json(reference.order(.canceled))) }
        if case .order(let order) = try await session.perform(.cancel(reference), for: job) { return .ok(json(order)) }
        for attempt in 0..<6 {
            if attempt > 0 { try await session.pause(for: .milliseconds(25 << attempt), false) }
            guard let order = await find(reference, tries: 1) else { continue }
            switch order.status {
            case .canceled: return .ok(json(order))
            case .open, .partiallyFilled: continue
            case .filled, .expired, .rejected:
                let text = "the order is \(order.status.rawValue) and cannot be canceled"
                return .ended(.rejected, code: "order_closed", text, data: json(order))
            }
        }
        throw ExchangeError(.unknown, code: "cancel_unconfirmed", "the exchange does not show the order as canceled")
    }

    // MARK: - Journal

    private func begin(_ id: String, state: String) async throws(RedisError) -> (state: String, outcome: Outcome?) {
        let reply = try await FunctionLibrary.call(
            "fleet_journal_begin", key: keys.order(id), [.text(state), .int(journalTTL), .int(Int(nowMs()))], on: redis)
        guard let values = reply.array, let state = values.first?.text else {
            throw RedisError(.malformedReply, "fleet_journal_begin: a state was expected")
        }
        return (state, values.last?.text.flatMap(Outcome.written))
    }

    /// Tries until it is written: what is known of an order must not be lost with a connection.
    private func end(_ id: String, _ outcome: Outcome) async throws {
        let arguments: [RedisArgument] = [
            .text(outcome.status.rawValue), .text(outcome.json), .int(journalTTL), .int(Int(nowMs())),
        ]
        for attempt in 0... {
            do throws(RedisError) {
                _ = try await FunctionLibrary.call("fleet_journal_end", key: keys.order(id), arguments, on: redis)
                return
            } catch {
                log.warning("journal not written yet", metadata: ["order": "\(id)", "error": "\(error)"])
            }
            try await session.pause(for: Retry.delay(attempt), false)
        }
    }
}
