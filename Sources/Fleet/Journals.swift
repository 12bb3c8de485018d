internal import Exchanges
internal import Redis

/// What stands in an order's journal.
struct Journal {
    let state: String
    let outcome: Outcome?
    /// Who began the last send.
    let owner: String
    var exchangeOrderId: String?
    /// How long the exchange may still be about to accept the last send.
    var mayAppearFor = Duration.zero
    /// Since the last send.
    var age = Duration.zero
    var (sends, absences) = (1, 0)
    /// The last request's time, unix milliseconds by the exchange's clock; 0: not known.
    var stampMs: Int64 = 0
    /// Since when no question about it has been answered.
    var unaskedFor = Duration.zero
    /// Since when the exchange is known to have the order; zero: nobody knows.
    var knownFor = Duration.zero
    /// The first request's time, as `stampMs`.
    var begunMs: Int64 = 0
    /// What it was sent or canceled for; empty: not known.
    var symbol = ""

    /// A quarter of the time so far, from a quarter of a second to ten.
    var step: SetAside { SetAside(min(max(age / 4, .milliseconds(250)), .seconds(10))) }

    /// One just opened.
    init(owner: String, mayAppearFor: Duration, begunMs: Int64) {
        (state, outcome, self.owner) = ("sending", nil, owner)
        (self.mayAppearFor, self.begunMs) = (mayAppearFor, begunMs)
    }

    init(_ reply: RedisValue) throws(RedisError) {
        guard let values = reply.array, values.count >= 14, let state = values[0].text else {
            throw RedisError(.malformedReply, "an order's journal was expected")
        }
        let numbers = values.map { Int64($0.int ?? 0) }
        self.state = state
        outcome = values[1].text.flatMap(Outcome.written)
        owner = values[2].text ?? ""
        exchangeOrderId = values[3].text.flatMap { $0.isEmpty ? nil : $0 }
        (mayAppearFor, age) = (.milliseconds(numbers[4]), .milliseconds(numbers[5]))
        (sends, absences) = (Int(numbers[7]), Int(numbers[8]))
        (stampMs, unaskedFor, begunMs) = (numbers[9], .milliseconds(numbers[10]), numbers[11])
        (symbol, knownFor) = (values[12].text ?? "", .milliseconds(numbers[13]))
    }
}

/// The journals of one exchange's orders, in Redis: whether an order was sent, and what became of it.
@LaneActor
final class Journals {
    private let redis: RedisClient
    private let keys: Keys
    private let consumer: String
    /// How long the exchange may accept an order after its request was stamped.
    private let acceptance: Duration
    /// In seconds.
    private let ttl: Int

    init(redis: RedisClient, keys: Keys, consumer: String, acceptance: Duration, ttl: Int) {
        (self.redis, self.keys, self.consumer) = (redis, keys, consumer)
        (self.acceptance, self.ttl) = (acceptance, ttl)
    }

    private func call(
        _ function: String, _ id: String, _ arguments: [RedisArgument] = [], more: [String] = []
    ) async throws(RedisError) -> RedisValue {
        try await FunctionLibrary.call(function, [keys.order(id)] + more, arguments, on: redis)
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

    /// Opens the journal for a request of that time, unix milliseconds by the exchange's clock.
    /// - Throws: `SetAside` when it may not be: the next delivery looks what stands there.
    func begin(_ job: Job, _ symbol: String, stampMs: Int64) async throws {
        let arguments: [RedisArgument] = [
            .text(owner(job)), .int(Int(acceptance / .milliseconds(1))), .int(life(job)),
            .text(Kind.submitOrder.rawValue), .int(Int(stampMs)), .text(symbol),
        ]
        let standing = try await call("fleet_journal_begin", job.id, arguments, more: [keys.paused]).array ?? []
        switch standing.first?.text {
        case "begun": return
        case "paused": throw SetAside(Lease.heartbeat)
        default: throw SetAside(.milliseconds(standing.dropFirst().first?.text?.isEmpty == false ? 1 : 500))
        }
    }

    /// What cannot be noted now is found out by the next delivery.
    func note(_ what: String, _ job: Job, _ exchangeOrderId: String = "", sends: Int = 0) async {
        let arguments: [RedisArgument] = [.text(what), .text(owner(job)), .text(exchangeOrderId), .int(sends)]
        _ = try? await call("fleet_journal_note", job.id, arguments)
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
        let reply = try await call("fleet_journal_end", id ?? job.id, arguments)
        guard reply.text?.isEmpty == false else { throw SetAside(.milliseconds(500)) }
        return reply.text.flatMap(Outcome.written) ?? outcome
    }
}
