internal import Exchanges
internal import Logging

/// What becomes of an order that may exist.
extension Orders {
    /// What became of the order of a job that another worker has had before, where the journal says nothing: Redis may
    /// have lost what that worker wrote down.
    func foundAgain(
        _ order: OrderRequest, _ reference: OrderReference, _ job: Job
    ) async throws -> Outcome? {
        var found: Order?
        do {
            found = try await find(reference, begunMs: job.enqueuedMs)
            if found == nil { return nil }
        } catch let error as ExchangeError where error.code == "older_order" {
            return nil
        } catch {
            log.info("order not asked", metadata: job.metadata.merging(["error": "\(error)"]) { $1 })
        }
        // It may exist, which the next delivery has to know too.
        try await journals.begin(job, order, stampMs: 0)
        if let found { await journals.noteShown(job.id, found.exchangeOrderId, of: journals.owner(job)) }
        return try await resume(order, nil, job)
    }

    /// One step with an order that may exist: whatever fails, it is tried again until patience ends. `journal` is read
    /// where it is not given.
    func resume(_ order: OrderRequest, _ known: Journal?, _ job: Job) async throws -> Outcome {
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
            // It stays there while the job is put aside: who asks next asks for it too, where one can ask for several.
            if let id = journal.exchangeOrderId, session.api.ordersAtOnce > 1, acknowledged.count < 1000 {
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

    func unknown(
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
            if order.isEnding(found), journal.age < patience.ending {
                // It may be hidden again, between the list of open orders and that of ended ones.
                if journal.exchangeOrderId == nil {
                    await journals.noteShown(job.id, found.exchangeOrderId, of: journal.owner)
                }
                throw journal.step
            }
            return try await journals.end(job, ended(found), of: journal.owner)
        }
        // By two clocks, as one of them may have been set: Redis' and the exchange's own.
        let ours = journal.stampMs + Int64(window / .milliseconds(1)) - session.exchangeNowMs
        let left = max(journal.mayAppearFor, .milliseconds(ours))
        await journals.noteAbsent(
            job, journal, counts: journal.isKnown || session.knowsTime && left == .zero)
        if journal.isKnown {
            // Acknowledged, so never sent again; the exchange shows it late.
            if journal.age < max(patience.ending, window) || journal.absences < 2 { throw journal.step }
            return try await unknown(order, journal, job, "the exchange said that it has it and does not show it")
        }
        guard session.knowsTime else {
            throw ExchangeError(.unknown, code: "no_clock", "it does not say what time it is")
        }
        guard left == .zero, journal.outcome == nil else {
            throw SetAside(min(journal.step.wait, max(left, .milliseconds(100))))
        }
        guard journal.absences >= 2 else { throw SetAside(.seconds(1)) }
        // Nobody asked for long: it may have been shown meanwhile, and hidden again as it changed.
        guard journal.hiddenFor >= lag else { throw SetAside(min(journal.step.wait, lag - journal.hiddenFor)) }
        if let deadline = job.deadlineMs, nowMs() >= deadline {
            let text = "the order was not placed in time"
            return try await absent(order, job, journal, .ended(.expired, code: "deadline", text))
        }
        if journal.sends >= job.maxAttempts {
            return try await absent(
                order, job, journal, .ended(.failed, code: "not_placed", "sent \(journal.sends) times, never placed"))
        }
        return try await send(order, reference, job, absent: journal)
    }

    /// Ends an order that was never placed; the journal says whether that is certain.
    private func absent(
        _ order: OrderRequest, _ job: Job, _ journal: Journal, _ outcome: Outcome
    ) async throws -> Outcome {
        try await journals.begin(job, order, stampMs: 0, absent: journal)
        return try await journals.end(job, outcome, of: journals.owner(job))
    }

    func ended(_ order: Order) -> Outcome {
        if order.status != .rejected { return .ok(json(order)) }
        return .ended(.rejected, code: "exchange_refused", "the exchange rejected the order", data: json(order))
    }

    /// What becomes of an order whose job may kill workers; nil: it was never sent. The exchange is asked once, unless
    /// that may be what kills.
    func giveUp(_ order: OrderRequest, _ job: Job, _ reason: String) async throws -> Outcome? {
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
            } catch let error where error is ExchangeError || error is Refusal {
                // All else says that it could not be asked now, which is no reason to call it unknown.
                log.warning("order not asked", metadata: job.metadata.merging(["error": "\(error)"]) { $1 })
            }
        }
        let data = #"{"client_order_id":\#(quoted(session.api.clientOrderId(jobId: job.id)))}"#
        return try await journals.end(
            job, .ended(.unknown, code: "order_unknown", "it may exist; its job was \(reason)", data: data),
            of: journal.owner)
    }
}
