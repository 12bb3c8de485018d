package import Exchanges
package import Logging
internal import Metrics
internal import ServiceLifecycle

/// One exchange as a lane sees it: every request passes breaker and limiter, is stamped with the exchange's clock or a
/// nonce, and its answer is judged.
@LaneActor
package final class ExchangeSession {
    package let api: any ExchangeAPI
    private let http: HTTPClient
    private let nowMs: @Sendable () -> Int64
    private let nextNonce: @LaneActor () async throws(ExchangeError) -> UInt64
    private let metrics: LaneMetrics
    private let log: Logger
    private var limiter: Limiter?
    /// By `Call.isPrivate`: trading and market data fail apart.
    private var breakers = [true: Breaker(), false: Breaker()]
    private var clockOffsetMs: Int64?
    private var instruments: [String: Instrument] = [:]
    private var instrumentsLoadedMs: Int64 = 0
    private let noncedCalls = Turnstile()
    private let instrumentLoads = Turnstile()

    package init(
        api: any ExchangeAPI, http: HTTPClient, usesLimits: Bool, metrics: LaneMetrics, log: Logger,
        nowMs: @escaping @Sendable () -> Int64, nextNonce: @escaping @LaneActor () async throws(ExchangeError) -> UInt64
    ) {
        self.api = api
        self.http = http
        self.nowMs = nowMs
        self.nextNonce = nextNonce
        self.metrics = metrics
        self.log = log
        limiter = usesLimits ? Limiter(api.limits, at: .now) : nil
    }

    /// Whether calls of this class are stopped for now, so that jobs that need them had better wait in their stream.
    package func isStopped(trading: Bool) -> Bool { breakers[trading]?.isStopping(at: .now) ?? false }

    /// The market of a unified symbol, nil when the exchange has none. The list is fetched at first use and kept for an
    /// hour; a symbol that is not in it has it fetched again, at most once a minute.
    package func instrument(_ symbol: String, for job: Job?) async throws -> Instrument? {
        try await instrumentLoads.pass { [self] in
            let age = nowMs() - instrumentsLoadedMs
            let isKnown = instruments[symbol] != nil
            guard age > 3_600_000 || (!isKnown && age > 60_000) else { return }
            guard case .instruments(let list) = try await perform(.instruments, for: job) else { return }
            instruments = Dictionary(list.map { ($0.symbol, $0) }, uniquingKeysWith: { first, _ in first })
            instrumentsLoadedMs = nowMs()
        }
        return instruments[symbol]
    }

    /// Sends a call and returns the exchange's answer. A wrong clock or nonce is set right and the call sent again: the
    /// exchange has not executed it.
    /// - Parameters:
    ///   - job: whose deadline holds; nil: none.
    ///   - mayPause: whether a stopping worker gives up waiting for breaker and limiter (`CancellationError`).
    /// - Throws: `ExchangeError`; `JobExpired`; `CancellationError` before anything was sent.
    package func perform(_ call: Call, for job: Job?, mayPause: Bool = true) async throws -> Answer {
        for attempt in 1... {
            do {
                return try await admitted(call, for: job, mayPause)
            } catch let error as ExchangeError where error.verdict == .resync && attempt < 8 {
                clockOffsetMs = nil
                log.info("sending again", metadata: ["reason": "\(error.message)", "attempt": "\(attempt)"])
            }
        }
        throw CancellationError()
    }

    private func admitted(_ call: Call, for job: Job?, _ mayPause: Bool) async throws -> Answer {
        // Nonces must arrive in order, and requests of one process overtake each other: one nonced call at a time.
        // Between processes a late one is refused as an invalid nonce, not executed, and sent again with a new one.
        guard api.exchange == .kraken, call.isPrivate else { return try await sent(call, for: job, mayPause) }
        return try await noncedCalls.pass { [self] in try await sent(call, for: job, mayPause) }
    }

    private func sent(_ call: Call, for job: Job?, _ mayPause: Bool) async throws -> Answer {
        if call.isPrivate, clockOffsetMs == nil { try await synchronizeClock(for: job, mayPause) }
        let permit = try await admission(call, for: job, mayPause)
        var nonce: UInt64 = 0
        let request: HTTPRequest
        do {
            if api.exchange == .kraken, call.isPrivate { nonce = try await nextNonce() }
            request = try api.request(call, Stamp(timestampMs: nowMs() + (clockOffsetMs ?? 0), nonce: nonce))
        } catch {
            breakers[call.isPrivate]?.release(permit, at: .now)
            throw error
        }
        let start = ContinuousClock.now
        do {
            let response = try await http.send(request)
            metrics.requestDuration.record(duration: start.duration(to: .now))
            let answer = try api.answer(to: call, response)
            record(success: true, call, permit)
            metrics.requested("ok")
            return answer
        } catch let error as HTTPError {
            if error.kind == .cancelled {
                breakers[call.isPrivate]?.release(permit, at: .now)
            } else {
                record(success: false, call, permit)
            }
            metrics.requested("no_answer")
            let isSent = error.kind != .notSent
            throw ExchangeError(
                isSent ? .unknown : .wait, code: "exchange_unreachable", error.description, mayHaveExecuted: isSent)
        } catch let error as ExchangeError {
            record(success: error.verdict != .unknown, call, permit)
            metrics.requested(error.verdict.rawValue)
            if error.verdict == .wait, let pause = error.retryAfter { limiter?.close(for: pause, at: .now) }
            throw error
        }
    }

    /// Waits for breaker and limiter. The deadline is looked at after every wait, so just before the request too.
    private func admission(_ call: Call, for job: Job?, _ mayPause: Bool) async throws -> Breaker.Permit {
        while true {
            if let deadline = job?.deadlineMs, nowMs() >= deadline { throw JobExpired() }
            let now = ContinuousClock.now
            if let permit = breakers[call.isPrivate]?.permit(at: now) {
                guard let wait = limiter?.take(api.cost(of: call), at: now) else { return permit }
                breakers[call.isPrivate]?.release(permit, at: now)
                try await pause(for: wait, mayPause)
            } else {
                try await pause(for: .milliseconds(100), mayPause)
            }
        }
    }

    /// - Throws: `CancellationError` when the worker stops and `mayPause`.
    package func pause(for duration: Duration, _ mayPause: Bool = true) async throws {
        guard mayPause else { return try await Task.sleep(for: duration) }
        if Task.isShuttingDownGracefully { throw CancellationError() }
        try await cancelWhenGracefulShutdown { try await Task.sleep(for: duration) }
    }

    private func synchronizeClock(for job: Job?, _ mayPause: Bool) async throws {
        let before = nowMs()
        guard case .time(let theirs) = try await perform(.time, for: job, mayPause: mayPause) else { return }
        clockOffsetMs = theirs - (before + nowMs()) / 2
    }

    private func record(success: Bool, _ call: Call, _ permit: Breaker.Permit) {
        guard let state = breakers[call.isPrivate]?.record(success: success, permit, at: .now) else { return }
        metrics.breaker(trading: call.isPrivate, isOpen: state != .closed)
        log.warning("breaker", metadata: ["class": call.isPrivate ? "trading" : "market", "state": "\(state)"])
    }
}

/// The job's deadline passed before it was executed.
package struct JobExpired: Error {}

/// Lets one caller through at a time, in the order they came.
@LaneActor
final class Turnstile {
    private var isTaken = false
    private var waiters: [CheckedContinuation<Void, Never>] = []

    func pass<Value: Sendable>(_ body: @LaneActor () async throws -> Value) async rethrows -> Value {
        if isTaken { await withCheckedContinuation { waiters.append($0) } }
        isTaken = true
        defer {
            // Handed on directly, so that a newcomer cannot slip in between.
            if waiters.isEmpty { isTaken = false } else { waiters.removeFirst().resume() }
        }
        return try await body()
    }
}
