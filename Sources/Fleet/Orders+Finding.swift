internal import Exchanges

/// How the exchange is asked about orders.
extension Orders {
    /// The order where the exchange shows it, else nil: so too for one that was made before `begunMs`, by the same id,
    /// with an hour for clocks that differ. - Throws: when it could not be asked.
    func find(_ reference: OrderReference, begunMs: Int64 = 0, for cancel: Job? = nil) async throws -> Order? {
        if let id = reference.exchangeOrderId, session.api.ordersAtOnce > 1 {
            return try await findWithOthers(id, reference, for: cancel)
        }
        for call in [Call.query(reference), .history(reference)].prefix(session.api.keepsHistoryApart ? 2 : 1) {
            let answer = try await session.perform(call, for: cancel)
            awaySince = nil
            guard case .order(let order) = answer else { continue }
            guard let madeMs = order.createdMs, madeMs < begunMs - 3_600_000 else { return order }
            // Where it shows one order an id, this one may stand before that which is meant.
            if !session.api.keepsHistoryApart {
                throw ExchangeError(.unknown, code: "older_order", "it shows an older order of the same id")
            }
        }
        return nil
    }

    /// Asks for all orders together that are asked about, and writes down what became of the others: a question an order is
    /// more than Kraken allows. Who finds that another has asked for it meanwhile looks into its journal again.
    private func findWithOthers(_ id: String, _ reference: OrderReference, for cancel: Job?) async throws -> Order? {
        let isListed = acknowledged[id] != nil
        // Put aside, a cancel stays in the list, so that who asks next asks for its order too.
        if !isListed, canceling[id] == nil { canceling[id] = Canceling(reference: reference) }
        await questions.enter()
        defer { questions.leave() }
        if isListed, acknowledged[id] == nil { throw SetAside(.milliseconds(1)) }
        if let order = takeShown(id) { return order }
        acknowledged = acknowledged.filter { .now - $0.value.since < patience.unproven }
        canceling = canceling.filter { .now - $0.value.since < patience.unproven }
        var others = canceling.filter { $0.value.shown == nil }.mapValues(\.reference)
            .merging(acknowledged.mapValues(\.reference)) { $1 }
        others[id] = nil
        let call = Call.query(reference, others: Array(others.values.prefix(session.api.ordersAtOnce - 1)))
        let answer: Answer
        do { answer = try await session.perform(call, for: cancel) } catch let error as ExchangeError
            where error.verdict == .permanent && !others.isEmpty
        {
            // One that it does not know must not cost the others their answer.
            (acknowledged, canceling) = ([:], [:])
            answer = try await session.perform(.query(reference), for: cancel)
        }
        (canceling[id], awaySince) = (nil, nil)
        if case .order(let order) = answer { return order }
        guard case .orders(let found) = answer else { return nil }
        for (other, order) in found where other != id {
            if ![.open, .partiallyFilled].contains(order.status) { canceling[other]?.shown = order }
            guard let one = acknowledged[other], !one.order.isEnding(order) else { continue }
            acknowledged[other] = nil
            _ = try? await journals.end(one.job, ended(order), of: one.owner)
        }
        return found[id]
    }

    /// How an order that a cancel asks about has ended, if another's question has shown it.
    func takeShown(_ exchangeOrderId: String) -> Order? {
        canceling[exchangeOrderId]?.shown == nil ? nil : canceling.removeValue(forKey: exchangeOrderId)?.shown
    }
}
