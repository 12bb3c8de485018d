internal import Exchanges
internal import Redis

/// What stands in an order's journal.
struct Journal {
    let state: String
    let outcome: Outcome?
    /// Who began the last send.
    let owner: String
    let exchangeOrderId: String?
    /// How long the exchange may still be about to accept the last send.
    let mayAppearFor: Duration
    /// Since the last send.
    let age: Duration
    let sends, absences: Int
    /// Sends, and requests that the exchange refused for their clock or nonce.
    let tries: Int
    /// The last request's time, unix milliseconds by the exchange's clock; 0: not known.
    let stampMs: Int64
    /// Since when no question about it has been answered.
    let unaskedFor: Duration
    /// Since when the exchange is known to have the order; zero: nobody knows.
    let knownFor: Duration
    /// Since when question after question has not found it.
    let hiddenFor: Duration
    /// The first request's time, as `stampMs`.
    let begunMs: Int64
    /// What was sent, and the rest of it; empty: not known.
    let symbol, request: String

    /// Whether the exchange has ever said that it has the order.
    var isKnown: Bool { exchangeOrderId != nil || knownFor > .zero }

    /// A quarter of the time so far, from a quarter of a second to ten.
    var step: SetAside { SetAside(min(max(age / 4, .milliseconds(250)), .seconds(10))) }

    /// Whether it can be the order's, as far as it says for what it was opened.
    func isOf(_ order: OrderRequest) -> Bool {
        ["", order.symbol].contains(symbol) && ["", order.terms].contains(request)
    }

    init(_ reply: RedisValue) throws(RedisError) {
        guard let values = reply.array, values.count >= 17, let state = values[0].text else {
            throw RedisError(.malformedReply, "an order's journal was expected")
        }
        // Somebody else may have written it: bounded, so that no sum of them overflows.
        let numbers = values.map { Int64(min(max($0.int ?? 0, -1 << 50), 1 << 50)) }
        self.state = state
        outcome = values[1].text.flatMap(Outcome.written)
        owner = values[2].text ?? ""
        exchangeOrderId = values[3].text.flatMap { $0.isEmpty ? nil : $0 }
        (mayAppearFor, age) = (.milliseconds(numbers[4]), .milliseconds(numbers[5]))
        (sends, absences, tries) = (Int(numbers[7]), Int(numbers[8]), Int(numbers[15]))
        (stampMs, unaskedFor, begunMs) = (numbers[9], .milliseconds(numbers[10]), numbers[11])
        (symbol, knownFor) = (values[12].text ?? "", .milliseconds(numbers[13]))
        (request, hiddenFor) = (values[14].text ?? "", .milliseconds(numbers[16]))
    }
}

extension OrderRequest {
    /// All but the symbol, e.g. `buy limit 0.01 50000 GTC`.
    var terms: String { "\(side) \(type) \(amount) \(price ?? "-") \(timeInForce.rawValue)" }
}

/// The journals of one exchange's orders, in Redis: whether an order was sent, and what became of it.
@LaneActor
final class Journals {
    private let redis: RedisClient
    private let keys: Keys
    private let consumer: String
    /// How long after its request was stamped an order may be accepted and shown, and how long it may be hidden.
    private let window, lag: Duration
    /// In seconds.
    private let ttl: Int

    init(redis: RedisClient, keys: Keys, consumer: String, window: Duration, lag: Duration, ttl: Int) {
        (self.redis, self.keys, self.consumer) = (redis, keys, consumer)
        (self.window, self.lag, self.ttl) = (window, lag, ttl)
    }

    private func call(
        _ function: String, _ id: String, _ arguments: [RedisArgument] = [], more: [String] = []
    ) async throws(RedisError) -> RedisValue {
        try await FunctionLibrary.call(function, [keys.order(id)] + more, arguments, on: redis)
    }

    /// As `call`, tried again for minutes: what is learnt of an order is known to nobody else.
    private func tell(_ function: String, _ id: String, _ arguments: [RedisArgument]) async throws(RedisError)
        -> RedisValue
    {
        var left = 600
        while true {
            do throws(RedisError) { return try await call(function, id, arguments) } catch {
                left -= 1
                if error.code == .server("WRONGTYPE") || left == 0 { throw error }
                guard (try? await LaneActor.sleep(for: .seconds(1))) != nil else { throw error }
            }
        }
    }

    func read(_ id: String) async throws(RedisError) -> Journal? {
        let reply = try await call("fleet_journal_read", id)
        return reply.array?.isEmpty == true ? nil : try Journal(reply)
    }

    /// Prevents an order that was not sent. - Returns: what stands. - Throws: `RedisError`; `Refusal` where the order
    ///   was sent for another symbol.
    func cancel(_ id: String, _ symbol: String) async throws -> Journal {
        do throws(RedisError) {
            let arguments: [RedisArgument] = [.int(ttl), .text(symbol)]
            return try Journal(try await call("fleet_journal_cancel", id, arguments, more: [keys.marker(id)]))
        } catch {
            guard error.code == .server("SYMBOL") else { throw error }
            let sent = error.message.drop { $0 != " " }.dropFirst()
            throw Refusal(code: "order_symbol", "symbol: '\(symbol)'; expected \(sent), which the order is for")
        }
    }

    func owner(_ job: Job) -> String { "\(consumer) \(job.entryId)" }

    /// Opens the journal for a request of that time, unix milliseconds by the exchange's clock; `absent` is what stood
    /// there when the order was found absent.
    /// - Throws: `SetAside` when it may not be: the next delivery looks what stands there.
    func begin(_ job: Job, _ order: OrderRequest, stampMs: Int64, absent: Journal? = nil) async throws {
        let arguments: [RedisArgument] = [
            .text(owner(job)), .int(Int(window / .milliseconds(1))), .int(life(job)),
            .text(Kind.submitOrder.rawValue), .int(Int(stampMs)), .text(order.symbol), .text(order.terms),
            .int(Int(lag / .milliseconds(1))), absent.map { .int($0.sends) } ?? "",
            absent.map { .int($0.tries) } ?? "",
        ]
        let standing = try await call("fleet_journal_begin", job.id, arguments, more: [keys.paused]).array ?? []
        switch standing.first?.text {
        case "begun": return
        case "paused": throw SetAside(Lease.heartbeat)
        default: throw SetAside(.milliseconds(standing.dropFirst().first?.text?.isEmpty == false ? 1 : 500))
        }
    }

    /// What cannot be noted is found out by the next delivery.
    func note(_ what: String, _ job: Job) async {
        _ = try? await tell("fleet_journal_note", job.id, [.text(what), .text(owner(job))])
    }

    /// Notes that the exchange has the order of the send that `owner` began, by its id where that is known.
    func noteShown(_ id: String, _ exchangeOrderId: String?, of owner: String) async {
        _ = try? await tell(
            "fleet_journal_note", id, ["acknowledged", .text(owner), .text(exchangeOrderId ?? "")])
    }

    /// Notes that the exchange did not show the order when it was asked after `seen` was read; `counts`: when it could no
    /// longer be about to accept it. Said once at most, as it counts each time.
    func noteAbsent(_ job: Job, _ seen: Journal, counts: Bool) async {
        let asked: [RedisArgument] = [
            .int(seen.sends), .int(seen.tries), counts ? "1" : "0", .int(Int(lag / .milliseconds(1))),
        ]
        _ = try? await call("fleet_journal_note", job.id, ["absent", "", ""] + asked)
    }

    /// Seconds to keep the journal of an order that has ended: no shorter than its result.
    private func life(_ job: Job) -> Int { max(ttl, job.resultTTL ?? 0) }

    /// Writes how the order of `job`, or of another `id`, ended: of the send that `owner` began, with nil where no send
    /// is under way, with "" where it was prevented.
    /// - Returns: what stands. - Throws: `RedisError`, `SetAside` while another send is under way; the next delivery
    ///   asks again.
    func end(_ job: Job, id: String? = nil, _ outcome: Outcome, of owner: String?) async throws -> Outcome {
        let state = outcome.status == .ok ? "accepted" : outcome.status.rawValue
        let arguments: [RedisArgument] = [
            .text(state), .text(outcome.json), .int(life(job)), owner == nil ? "1" : owner == "" ? "2" : "",
            .text(owner ?? ""),
        ]
        let reply = try await tell("fleet_journal_end", id ?? job.id, arguments)
        guard reply.text?.isEmpty == false else { throw SetAside(.milliseconds(500)) }
        return reply.text.flatMap(Outcome.written) ?? outcome
    }
}
