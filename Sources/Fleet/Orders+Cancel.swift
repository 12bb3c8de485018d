internal import Exchanges

extension Orders {
    /// Cancels an order by its job's id. One whose send has not begun is prevented: its journal is opened as canceled.
    /// The exchange is asked all the same: the journal of an old order may be gone.
    /// - Throws: `SetAside` while the order's own fate is open; `Refusal`, `JobExpired`, `ExchangeError`: a cancel can
    ///   always be repeated.
    package func cancel(_ orderId: String, _ symbol: String, _ job: Job) async throws -> Outcome {
        // Before all else, as to prevent an order needs nothing of the exchange; but not by a symbol that is a mistake.
        if session.markets.known(symbol) == nil {
            do { _ = try await session.markets.find(symbol) } catch let refusal as Refusal { throw refusal } catch {}
        }
        let journal = try await journals.cancel(orderId, symbol)
        var reference = try await reference(orderId, symbol)
        reference.exchangeOrderId = journal.exchangeOrderId
        // It may have been accepted that much later than it was sent.
        if journal.begunMs > 0 { reference.age = max(journal.knownFor, journal.age - session.api.acceptance) }
        if let status = journal.outcome?.status, [.rejected, .failed, .expired].contains(status) {
            return .ended(.rejected, code: "order_closed", "the order was not placed: it ended \(status.rawValue)")
        }
        if let known = journal.outcome, let outcome = Self.ending(known) { return outcome }
        if let id = journal.exchangeOrderId, let order = takeShown(id), let outcome = outcome(of: order) {
            return outcome
        }
        let answer = try await session.perform(.cancel(reference), for: job)
        // What is canceled may be hidden from who submitted it: then it was prevented, as far as he knows.
        func noteShown(_ id: String?) async {
            guard journal.state == "sending", journal.exchangeOrderId == nil else { return }
            await journals.noteShown(orderId, id, of: journal.owner)
        }
        if case .accepted(let id) = answer { await noteShown(id) }
        if case .order(let order) = answer {
            await noteShown(order.exchangeOrderId)
            if let outcome = outcome(of: order) { return outcome }
        }
        // What was sent is asked about past the deadline too.
        let asker = job.deadlineMs == nil ? job : nil
        var (isPrevented, isOpen) = (false, false)
        if journal.state == "canceled", case .absent = answer { isPrevented = true }
        for attempt in 0..<4 {
            if attempt > 0 { try await session.pause(for: .milliseconds(25 << attempt), job) }
            // A question that cannot be asked now is not waited for where nothing speaks for an old order.
            let found: Order?
            do { found = try await find(reference, begunMs: journal.begunMs, for: asker) } catch {
                let refusal = error as? ExchangeError
                if !isPrevented, refusal?.code != "older_order" {
                    // That it was refused says nothing of the cancel.
                    throw refusal.map { [.permanent, .auth].contains($0.verdict) ? $0.meaning(.unknown) : $0 } ?? error
                }
                found = nil
            }
            guard let order = found else { break }
            await noteShown(order.exchangeOrderId)
            if journal.state == "canceled", ![.open, .partiallyFilled].contains(order.status) {
                // Its own journal was gone: an old order, which was not prevented at all.
                _ = try await journals.end(job, id: orderId, ended(order), of: "")
            }
            if let outcome = outcome(of: order) { return outcome }
            isOpen = true
        }
        if isPrevented, !isOpen { return .ok(json(Order(prevented: reference.clientOrderId, symbol))) }
        // Its submit ends within minutes; until then there may be something to cancel, but each try takes tokens with
        // which the submit could find out.
        if journal.state == "sending", journal.outcome == nil, journal.age < .seconds(600) + window {
            // Soon after the order was sent, and soon after the cancel came.
            let age = min(journal.age, .milliseconds(nowMs() - job.enqueuedMs))
            throw SetAside(min(max(age / 4, .milliseconds(500)), .seconds(60)))
        }
        throw ExchangeError(.unknown, code: "cancel_unconfirmed", "the exchange does not show the order as canceled")
    }

    /// What a cancel ends with whose order has ended as its journal says; nil: it had not.
    private static func ending(_ outcome: Outcome) -> Outcome? {
        guard let data = jsonObject("{\(outcome.json)}")["data"] as? [String: Any],
            let status = (data["status"] as? String).flatMap(OrderStatus.init)
        else { return nil }
        return ending(status, jsonText(data))
    }

    /// What a cancel ends with when its order is shown like this; nil: it is still open.
    private func outcome(of order: Order) -> Outcome? { Self.ending(order.status, json(order)) }

    private static func ending(_ status: OrderStatus, _ data: String) -> Outcome? {
        switch status {
        case .canceled: return .ok(data)
        case .open, .partiallyFilled: return nil
        case .filled, .expired, .rejected:
            let text = "the order is \(status.rawValue) and cannot be canceled"
            return .ended(.rejected, code: "order_closed", text, data: data)
        }
    }
}
