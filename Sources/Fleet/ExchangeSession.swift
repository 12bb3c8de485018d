package import Exchanges
internal import Foundation
package import Logging
internal import Metrics
package import Redis
internal import ServiceLifecycle

/// One exchange as a lane sees it: every request passes breaker and limiter, is stamped with the exchange's clock or a
/// nonce, and its answer is judged.
@LaneActor
package final class ExchangeSession {
    package nonisolated let api: any ExchangeAPI
    private let http: HTTPClient
    private let nowMs: @Sendable () -> Int64
    private let nextNonce: @LaneActor () async throws(RedisError) -> UInt64
    private let metrics: LaneMetrics
    private let log: Logger
    private let limiter: Limiter?
    private let events: Events
    /// By `Call.isPrivate`: trading and market data fail apart.
    private var breakers = [true: Breaker(), false: Breaker()]
    /// What the exchange's clock said, when by one of ours that nobody sets, and until when that may serve.
    private var clock: (theirsMs: Int64, at: ContinuousClock.Instant, until: ContinuousClock.Instant)?
    private let clockLoads = SharedLoad()
    private let noncedCalls = Turnstile()
    /// Why the exchange refused the key of an order, and until when no other is sent: Kraken locks out who goes on.
    private var keyRefusal: (error: ExchangeError, until: ContinuousClock.Instant)?
    private let redis: RedisClient
    private let keys: Keys
    private(set) lazy var markets = Markets(api: api, redis: redis, keys: keys, log: log, nowMs: nowMs) {
        [unowned self] in
        if case .instruments(let list) = try await perform(.instruments, for: nil) { list } else { [] }
    }

    package init(
        api: any ExchangeAPI, http: HTTPClient, limiter: Limiter?, events: Events, redis: RedisClient, keys: Keys,
        metrics: LaneMetrics, log: Logger, nowMs: @escaping @Sendable () -> Int64,
        nextNonce: @escaping @LaneActor () async throws(RedisError) -> UInt64
    ) {
        (self.api, self.http, self.metrics, self.log) = (api, http, metrics, log)
        (self.nowMs, self.nextNonce) = (nowMs, nextNonce)
        (self.limiter, self.events, self.redis, self.keys) = (limiter, events, redis, keys)
    }

    /// Unix milliseconds by the exchange's clock; by ours where no private call was made yet.
    package var exchangeNowMs: Int64 {
        clock.map { $0.theirsMs + Int64($0.at.duration(to: .now) / .milliseconds(1)) } ?? nowMs()
    }

    /// Whether the exchange has said what time it is.
    package var knowsTime: Bool { clock != nil }

    /// Whether calls of this class are stopped for now, so that jobs that need them had better wait in their stream.
    package func isStopped(trading: Bool) -> Bool {
        (breakers[trading]?.isStopping(at: .now) ?? false) || (limiter?.isClosed ?? false)
    }

    /// Shows which breakers stop calls: one that has cooled down waits for somebody to call.
    func tellBreakers() {
        for (trading, breaker) in breakers {
            metrics.breakers[trading]?.record(breaker.isStopping(at: .now) ? 1 : 0)
        }
    }

    /// Asks for the exchange's time again when it has served its time, until cancelled: no order waits for that.
    func keepClock() async {
        while (try? await LaneActor.sleep(for: .seconds(5))) != nil {
            if let clock, clock.until < .now { _ = try? await perform(.time, for: nil) }
        }
    }

    /// Sends a call and returns the exchange's answer. A wrong clock or nonce is set right and the call sent again: the
    /// exchange has not executed it.
    ///
    /// The deadline of `job` holds. `beforeSend` runs when the request is made and stamped (with unix milliseconds by the
    /// exchange's clock) and nothing more is waited for; what it throws stops the call.
    /// - Throws: `ExchangeError`; before anything was sent `SetAside`, `JobExpired` and, in a stopping worker,
    ///   `CancellationError`.
    package func perform(
        _ call: Call, for job: Job?, beforeSend: @LaneActor (_ stampMs: Int64) async throws -> Void = { _ in }
    ) async throws -> Answer {
        for attempt in 1... {
            do {
                return try await admitted(call, job, beforeSend)
            } catch let error as ExchangeError where error.verdict == .resync && attempt < 8 {
                // Kraken's is a nonce: another worker's overtook it.
                if api.exchange != .kraken { clock = nil }
                log.info("sending again", metadata: ["reason": "\(error.message)", "attempt": "\(attempt)"])
            }
        }
        throw CancellationError()
    }

    private func admitted(
        _ call: Call, _ job: Job?, _ beforeSend: @LaneActor (_ stampMs: Int64) async throws -> Void
    ) async throws -> Answer {
        try checkKey(for: call)
        if call.isPrivate, clock == nil {
            do {
                try await clockLoads.run(unless: { clock != nil }) { _ = try await admitted(.time, job, { _ in }) }
            } catch let error where !call.isSubmit && (error is ExchangeError || error is SetAside) {
                // Only an order needs to be sure of the time: a cancel goes by our clock while theirs cannot be had.
                log.debug("exchange's time not known", metadata: ["error": "\(error)"])
            } catch let error as ExchangeError {
                // Whatever became of this request, the one it was made for has not been sent.
                throw error.meaning(.wait)
            }
        }
        // Whoever stands in a long line is better off in the stream: there no worker's death counts against it.
        let share = share(of: call, job)
        if noncedCalls.waiting >= (share == .cancel ? 16 : 8), call.isPrivate { throw SetAside(.milliseconds(400)) }
        let permit = try await admission(call, job, share)
        // Nil until there is an answer: nothing was learnt of the exchange's health.
        var isHealthy: Bool?
        defer { report(isHealthy, call, permit) }
        guard isNonced(call) else { return try await sent(call, job, permit, beforeSend, &isHealthy) }
        // Nonces must arrive in order, and requests overtake each other: one nonced call at a time. A late one of
        // another worker is refused as an invalid nonce, not executed, and sent again with a new one.
        await noncedCalls.enter(first: share == .cancel)
        defer { noncedCalls.leave() }
        return try await sent(call, job, permit, beforeSend, &isHealthy)
    }

    private func isNonced(_ call: Call) -> Bool { api.exchange == .kraken && call.isPrivate }

    private func checkKey(for call: Call) throws {
        if call.isSubmit, let keyRefusal, .now < keyRefusal.until { throw keyRefusal.error }
    }

    private func share(of call: Call, _ job: Job?) -> Limiter.Share {
        switch job?.kind {
        case .cancelOrder: .cancel
        case .refreshCache: .refresh
        case .fetchTicker: .ticker
        case .submitOrder, nil: .order
        }
    }

    private func sent(
        _ call: Call, _ job: Job?, _ permit: Breaker.Permit,
        _ beforeSend: @LaneActor (_ stampMs: Int64) async throws -> Void, _ isHealthy: inout Bool?
    ) async throws -> Answer {
        let request: HTTPRequest
        do {
            func checkDeadline() throws { if let end = job?.deadlineMs, nowMs() >= end { throw JobExpired() } }
            try checkDeadline()
            // A ban, or the key's refusal, may have come while it stood in line.
            if isNonced(call), limiter?.isClosed == true { throw SetAside(.seconds(1)) }
            try checkKey(for: call)
            let nonce = isNonced(call) ? try await nextNonce() : 0
            // Stamped before the journal is opened: however long this process is stopped after that, an exchange that
            // might take the order for absent by then refuses a request with this time.
            let stamp = Stamp(timestampMs: exchangeNowMs, nonce: nonce)
            request = try api.request(call, stamp)
            try await beforeSend(stamp.timestampMs)
            try checkDeadline()
        } catch {
            await limiter?.giveBack(api.charges(for: call))
            throw error
        }
        let start = ContinuousClock.now
        do {
            let response = try await http.send(request)
            let duration = start.duration(to: .now)
            metrics.requestDuration.record(duration: duration)
            await limiter?.correct(api.usage(in: response, of: call), api.charges(for: call), after: duration)
            // A list of all markets is megabytes.
            let answer =
                response.body.count > 100_000
                ? try await LaneActor.apart { [api] in try api.answer(to: call, response) }
                : try api.answer(to: call, response)
            // As if it had been read at this end of its way: a stamp may come too early, by that, and never too late.
            // One that was long on its way serves for want of a better one.
            let isSlow = duration > .seconds(1)
            if case .time(let theirs) = answer, !isSlow || clock == nil {
                clock = (theirs, .now, .now + (isSlow ? .zero : .seconds(300)))
            }
            isHealthy = duration < .seconds(5)
            metrics.requests["ok"]?.increment()
            return answer
        } catch let error as HTTPError {
            isHealthy = error.cause == .cancelled ? nil : false
            metrics.requests["no_answer"]?.increment()
            let verdict: Verdict = error.cause == .notSent ? .wait : .unknown
            if isHealthy == false, let pause = ofProbe(call, permit) { throw pause }
            throw ExchangeError(verdict, code: "exchange_unreachable", error.description)
        } catch let error as ExchangeError {
            isHealthy = error.verdict == .wait && !error.isOutage ? nil : !error.isOutage
            metrics.requests[error.verdict.rawValue]?.increment()
            if error.verdict == .wait, let pause = error.retryAfter {
                if limiter?.isClosed != true {
                    events.tell("gate", "closed for \(pause): \(error.code) \(error.exchangeCode ?? "")")
                }
                await limiter?.close(for: pause, ofAccount: call.isPrivate)
            }
            if call.isSubmit, error.verdict == .auth, error.exchangeCode?.hasPrefix("EAPI:Invalid") == true {
                keyRefusal = (error.hiding(api.credentials), .now + .seconds(10))
            }
            if error.exchangeCode?.hasPrefix("EService:Deadline") == true { clock = nil }
            if error.exchangeCode?.hasPrefix("EOrder:Rate limit") == true, let charge = api.charges(for: call).first {
                // Others have used up the pair's counter at Kraken, which says so in no other way: no attempt of the job.
                throw SetAside(.seconds(charge.cost / charge.perSecond))
            }
            if isHealthy == false, let pause = ofProbe(call, permit) { throw pause }
            throw error.hiding(api.credentials)
        }
    }

    /// What a job ends its turn with when the call it made was the probe of an exchange that is not back: it is no
    /// attempt of the job. Of an order it has to be known what became of it.
    private func ofProbe(_ call: Call, _ permit: Breaker.Permit) -> SetAside? {
        permit.isProbe && !call.isSubmit ? SetAside(.seconds(5)) : nil
    }

    /// Waits for the limiter; what would wait for long, or for the breaker, is set aside.
    private func admission(_ call: Call, _ job: Job?, _ share: Limiter.Share) async throws -> Breaker.Permit {
        if let deadline = job?.deadlineMs, nowMs() >= deadline { throw JobExpired() }
        guard let permit = breakers[call.isPrivate]?.permit(at: .now) else { throw SetAside(.seconds(1)) }
        if permit.isProbe, await limiter?.beginProbe(trading: call.isPrivate) == false {
            _ = breakers[call.isPrivate]?.record(success: nil, permit, at: .now, wait: .seconds(1))
            throw SetAside(.seconds(1))
        }
        if permit.isProbe { events.tell("breaker", "\(call.isPrivate ? "trading" : "market") half-open") }
        do {
            try await limiter?.take(
                api.charges(for: call), share, ofAccount: call.isPrivate, deadlineMs: job?.deadlineMs)
        } catch {
            report(nil, call, permit)
            throw error
        }
        return permit
    }

    /// Waits until a ticker request may be made. - Throws: as `perform` before anything was sent.
    package func admitTickers() async throws -> Breaker.Permit { try await admission(.tickers([]), nil, .ticker) }

    /// Makes the admitted request; for no markets, gives back what admission took.
    package func tickers(_ instruments: [Instrument], _ permit: Breaker.Permit) async throws -> [Ticker] {
        let call = Call.tickers(instruments)
        var isHealthy: Bool?
        defer { report(isHealthy, call, permit) }
        if instruments.isEmpty { await limiter?.giveBack(api.charges(for: call)) }
        guard !instruments.isEmpty,
            case .tickers(let tickers) = try await sent(call, nil, permit, { _ in }, &isHealthy)
        else { return [] }
        return tickers
    }

    /// Waits, but no longer than to the deadline of `job`. - Throws: `CancellationError` when the worker stops.
    package func pause(for duration: Duration, _ job: Job?) async throws {
        let left = job?.deadlineMs.map { Duration.milliseconds(min(max(0, $0 - nowMs()), 1_000_000_000)) }
        let wait = min(duration, left ?? duration)
        if Task.isShuttingDownGracefully { throw CancellationError() }
        try await cancelWhenGracefulShutdown { try await Task.sleep(for: wait) }
    }

    private func report(_ isHealthy: Bool?, _ call: Call, _ permit: Breaker.Permit) {
        if permit.isProbe { Task { await limiter?.endProbe(trading: call.isPrivate, failed: isHealthy == false) } }
        guard let state = breakers[call.isPrivate]?.record(success: isHealthy, permit, at: .now) else { return }
        tellBreakers()
        events.tell("breaker", "\(call.isPrivate ? "trading" : "market") \(state)")
    }
}
