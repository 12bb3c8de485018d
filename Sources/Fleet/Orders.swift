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
    private let consumer: String
    private let log: Logger
    private let nowMs: @Sendable () -> Int64

    package init(
        session: ExchangeSession, redis: RedisClient, journalTTL: Int, allowsOrders: Bool, consumer: String,
        log: Logger,
        nowMs: @escaping @Sendable () -> Int64
    ) {
        (self.session, self.redis, self.journalTTL) = (session, redis, max(journalTTL, 604_800))
        (self.allowsOrders, self.log, self.nowMs) = (allowsOrders, log, nowMs)
        self.consumer = consumer
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
        do {
            // Asked before anything is waited for: most repeated ids end here.
            let standing = await redis.pipeline([["HMGET", .text(keys.order(job.id)), "state", "outcome", "owner"]])
            let found = try standing[0].get().array?.map(\.text) ?? []
            if found.count == 3, let state = found[0], found[2] != owner(job) || found[1] != nil {
                throw Standing(state: state, outcome: found[1].flatMap(Outcome.written))
            }
            return try await end(job.id, try await send(order, reference, job))
        } catch let standing as Standing {
            if let earlier = standing.outcome { return earlier }
            if standing.state == "canceled" { return .ok(json(reference.order(.canceled, of: order))) }
            // Its sender has ten seconds for the request and knows the outcome first.
            let reason = "an earlier delivery of this job may have sent it"
            return try await end(job.id, await reconcile(reference, because: reason, tries: 12))
        }
    }

    /// Sends the order once; again only after an answer that says it was not executed. The journal is opened when
    /// nothing more is waited for, so an order that still waits can be handed back, expire or be canceled.
    /// - Throws: `Standing` and whatever came before the journal was opened; nothing after that.
    private func send(_ order: OrderRequest, _ reference: OrderReference, _ job: Job) async throws -> Outcome {
        var isOpen = false
        for attempt in 1... {
            do {
                let answer = try await session.perform(.submit(order, reference), for: job, mayStop: !isOpen) {
                    [self] in
                    if !isOpen { try await begin(job.id, state: "sending", owner(job)) }
                    isOpen = true
                }
                guard case .accepted(let id) = answer else {
                    if case .order(let order) = answer { return ended(order) }
                    return await reconcile(reference, because: "an answer without the order")
                }
                // Acknowledged only: asked until it rests, fills or ends.
                var known = reference
                known.exchangeOrderId = id
                return await reconcile(known, because: "acknowledged", tries: 10)
            } catch let error as ExchangeError where !error.mayHaveExecuted {
                let isFinal = error.verdict == .permanent || error.verdict == .auth
                if isFinal || attempt >= job.maxAttempts { return .ended(isFinal ? .rejected : .failed, error) }
                let wait = max(error.retryAfter ?? .zero, Retry.delay(attempt - 1))
                do { try await session.pause(for: wait, job, !isOpen) } catch {
                    guard isOpen else { throw error }
                    return .ended(.failed, code: "stopped", "the worker stopped before the order was sent again")
                }
            } catch {
                guard isOpen else { throw error }
                if error is JobExpired {
                    return .ended(.expired, code: "deadline", "the deadline passed before the order was sent again")
                }
                let refusal = (error as? ExchangeError).flatMap { $0.verdict == .permanent ? $0 : nil }
                return await reconcile(reference, because: "\(error)", refusal: refusal)
            }
        }
        return .ended(.failed, code: "attempts", "all attempts used up")
    }

    /// Finds out about an order that may exist. Not found within the time the exchange may still accept it, it ends as
    /// the exchange refused it where it did; else nothing is proven: the outcome is unknown, and a person decides.
    private func reconcile(
        _ reference: OrderReference, because reason: String, tries: Int = 8, refusal: ExchangeError? = nil
    ) async -> Outcome {
        log.info("asking for the order", metadata: ["order": "\(reference.clientOrderId)", "reason": "\(reason)"])
        if let found = await find(reference, tries: tries) { return ended(found) }
        if let refusal { return .ended(.rejected, refusal) }
        log.error("order outcome unknown", metadata: ["order": "\(reference.clientOrderId)"])
        let advice = "the order may exist (\(reason)), but the exchange does not show it; look up its client order id"
        let ids = ["client_order_id": reference.clientOrderId, "exchange_order_id": reference.exchangeOrderId]
        return .ended(.unknown, code: "order_unknown", advice, data: json(ids.compactMapValues { $0 }))
    }

    /// Asks for an order until the exchange shows it, waiting 50 ms, 100 ms, … 3.2 s between: 6.4 s for eight tries.
    private func find(_ reference: OrderReference, tries: Int) async -> Order? {
        for attempt in 0..<tries {
            if attempt > 0 { try? await session.pause(for: .milliseconds(25 << min(attempt, 7)), nil, false) }
            for call in [Call.query(reference), .history(reference)].prefix(session.api.keepsHistoryApart ? 2 : 1) {
                do {
                    let answer = try await session.perform(call, for: nil, mayStop: false)
                    if case .order(let order) = answer { return order }
                } catch {
                    log.info("order not asked", metadata: ["order": "\(reference.clientOrderId)", "error": "\(error)"])
                }
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
    /// The exchange is asked all the same: the journal of an old order may be gone.
    /// - Throws: `Refusal`, `JobExpired`, `ExchangeError`: a cancel can always be repeated.
    package func cancel(_ orderId: String, _ symbol: String, _ job: Job) async throws -> Outcome {
        let reference = reference(orderId, try await session.instrument(symbol))
        var isPrevented = false
        do { try await begin(orderId, state: "canceled", owner(job)); isPrevented = true } catch let standing
            as Standing
        {
            isPrevented = standing.state == "canceled"
            if let status = standing.outcome?.status, [.rejected, .failed, .expired].contains(status) {
                return .ended(.rejected, code: "order_closed", "the order was not placed: it ended \(status.rawValue)")
            }
        }
        let answer = try await session.perform(.cancel(reference), for: job)
        if case .order(let order) = answer { return .ok(json(order)) }
        if isPrevented, case .absent = answer { return .ok(json(reference.order(.canceled))) }
        for attempt in 0..<6 {
            if attempt > 0 { try await session.pause(for: .milliseconds(25 << attempt), job) }
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

    /// What stands in a journal that another job, or another delivery of this one, has opened.
    private struct Standing: Error {
        let state: String
        let outcome: Outcome?
    }

    private func owner(_ job: Job) -> String { "\(consumer) \(job.entryId)" }

    /// - Throws: `Standing` when the journal is open already; `RedisError`.
    private func begin(_ id: String, state: String, _ owner: String) async throws {
        let arguments: [RedisArgument] = [.text(state), .int(journalTTL), .int(Int(nowMs())), .text(owner)]
        let reply = try await FunctionLibrary.call("fleet_journal_begin", [keys.order(id)], arguments, on: redis)
        guard let values = reply.array, let state = values.first?.text else {
            throw RedisError(.malformedReply, "fleet_journal_begin: a state was expected")
        }
        if state != "begun" { throw Standing(state: state, outcome: values.last?.text.flatMap(Outcome.written)) }
    }

    /// Tries until it is written: what is known of an order must not be lost with a connection. Returns what stands.
    private func end(_ id: String, _ outcome: Outcome) async throws -> Outcome {
        let arguments: [RedisArgument] = [
            .text(outcome.status.rawValue), .text(outcome.json), .int(journalTTL), .int(Int(nowMs())),
        ]
        for attempt in 0... {
            do throws(RedisError) {
                let reply = try await FunctionLibrary.call("fleet_journal_end", [keys.order(id)], arguments, on: redis)
                return reply.text.flatMap(Outcome.written) ?? outcome
            } catch {
                log.warning("journal not written yet", metadata: ["order": "\(id)", "error": "\(error)"])
            }
            try await session.pause(for: Retry.delay(attempt), nil, false)
        }
        return outcome
    }
}
