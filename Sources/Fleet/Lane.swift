internal import CoreMetrics
package import Exchanges
package import Logging
internal import Redis
internal import ServiceLifecycle

/// All streams of one exchange, served by one reader: reads jobs, runs them, hands their results to the finisher.
@LaneActor
package final class Lane {
    package nonisolated let exchange: Exchange
    let keys: Keys
    let consumer: String
    let configuration: Configuration
    let log: Logger
    let metrics: LaneMetrics
    let clock: FleetClock
    /// One connection for the read that blocks, one for orders and cancels, which must not stand behind the results of
    /// a thousand tickers, and one for everything else.
    let reading, trading, writing: RedisClient
    var isConnected: Bool { reading.isConnected && trading.isConnected && writing.isConnected }
    let session: ExchangeSession
    let cache: TickerCache
    private let tickers: Tickers
    private let limiter: Limiter
    private let orders: Orders
    private lazy var finisher = finisher(over: writing)
    private lazy var tradeFinisher = finisher(over: trading)
    private let freed = AsyncStream.makeStream(of: Void.self, bufferingPolicy: .bufferingNewest(1))
    /// The entries read and not yet off their stream, and when the lease of each was last known to begin.
    var inHand: [Kind: [String: ContinuousClock.Instant]] = [:]
    var inHandCount: Int { inHand.values.reduce(0) { $0 + $1.count } }
    /// Those of them that still run: the others wait only for Redis to confirm their end.
    private var running = 0
    /// Slots that more jobs may fill: a worker that runs ahead of Redis by two thousand results waits for it.
    var freeSlots: Int { min(configuration.concurrency - running, Self.mostUnwritten - unwritten) }
    private var unwritten: Int { finisher.count + tradeFinisher.count }
    static let mostUnwritten = 2048
    /// Streams that could not be read (a key of another type), and when they are looked at again.
    var unreadable: [Kind: ContinuousClock.Instant] = [:]
    var hasGroups = false
    /// Whether the last read left jobs behind, as far as one can tell: then the next does not block.
    var isBusy = true
    /// What a person has stopped.
    var paused: Set<Kind> = []
    /// Why this Redis may not hold orders; nil: it may.
    var volatility: String?
    let events: Events
    var claimAt = ContinuousClock.now
    var claimCursors: [Kind: String] = [:]
    var measuredAt: ContinuousClock.Instant?
    /// When the loop last turned: the lane's sign of life.
    package internal(set) var turnedAt = ContinuousClock.now
    package var isReady: Bool { isConnected && hasGroups }

    package init(
        api: any ExchangeAPI, consumer: String, configuration: Configuration, http: HTTPClient, log: Logger,
        clock: FleetClock
    ) {
        exchange = api.exchange
        keys = Keys(api.exchange)
        self.consumer = consumer
        self.configuration = configuration
        self.clock = clock
        var log = log
        log[metadataKey: "exchange"] = "\(api.exchange.rawValue)"
        self.log = log
        metrics = LaneMetrics(api.exchange)
        let client = { [log, metrics] (role: String) in
            RedisClient(url: configuration.redis, loop: LaneActor.loop, name: "\(consumer)-\(role)") { loss in
                guard let loss else { return log.info("redis connected", metadata: ["role": "\(role)"]) }
                metrics.redisLosses.increment()
                log.warning("redis away, trying again", metadata: ["role": "\(role)", "error": "\(loss)"])
            }
        }
        reading = client("read")
        trading = client("trade")
        writing = client("write")
        let nonceKey = keys.nonce
        events = Events(keys: keys, consumer: consumer, log: log)
        let account = api.credentials.map { Signing.hex(Signing.sha256($0.key.utf8).prefix(6)) } ?? "none"
        limiter = Limiter(redis: trading, keys: keys, egress: configuration.egress, account: account, nowMs: clock.now)
        session = ExchangeSession(
            api: api, http: http, limiter: configuration.usesLimits ? limiter : nil, events: events,
            redis: trading, keys: keys, metrics: metrics, log: log, nowMs: clock.now
        ) { [trading] () async throws(RedisError) in
            let reply = try await FunctionLibrary.call("fleet_nonce", [nonceKey], on: trading)
            if let nonce = reply.text.flatMap(UInt64.init) { return nonce }
            throw RedisError(.malformedReply, "fleet_nonce: a number was expected")
        }
        cache = TickerCache(redis: writing, keys: keys, ttl: configuration.cacheTTL, nowMs: clock.now)
        tickers = Tickers(session: session, cache: cache, owner: consumer, redis: writing, nowMs: clock.now)
        orders = Orders(
            session: session, tickers: tickers, redis: trading, configuration: configuration, consumer: consumer,
            log: log, nowMs: clock.now)
    }

    /// Serves until the service group shuts down: then reads no more, finishes what runs, hands back what has not
    /// begun, and removes its consumer.
    package func run() async {
        await withTaskGroup { group in
            for client in [reading, trading, writing] { group.addTask { await client.run() } }
            for finisher in [finisher, tradeFinisher] { group.addTask { await finisher.run() } }
            group.addTask { await self.tickers.run() }
            group.addTask { await self.session.keepClock() }
            group.addTask { await self.keepLeases() }
            group.addTask { await self.promote() }
            await withDiscardingTaskGroup { jobs in
                var trouble: String?
                while !Task.isShuttingDownGracefully, !Task.isCancelled {
                    turnedAt = .now
                    metrics.inHand.record(inHandCount)
                    do {
                        try await turn(&jobs)
                        if trouble != nil, hasGroups { log.info("reading again") }
                        trouble = hasGroups ? nil : trouble
                    } catch {
                        if trouble != "\(error)", !Task.isCancelled {
                            log.warning("not reading", metadata: ["error": "\(error)"])
                        }
                        trouble = "\(error)"
                        hasGroups = false
                        try? await LaneActor.sleep(for: .milliseconds(200))
                    }
                }
                hasGroups = false
            }
            var slots = freed.stream.makeAsyncIterator()
            while inHandCount > 0, !Task.isCancelled { _ = await slots.next() }
            await leave()
            group.cancelAll()
        }
    }

    func start(_ job: Job, _ jobs: inout DiscardingTaskGroup) {
        running += 1
        let startedMs = clock.now()
        // Read while somebody paused it: it goes back, and what waits with it is not read.
        if paused.contains(job.kind) { return delay(job, Lease.heartbeat, .setAside) }
        if Task.isShuttingDownGracefully, job.deliveries == 1 { return delay(job, .zero, .handedBack) }
        if job.isFirst { metrics.waits[job.kind]?.recordMilliseconds(max(0, startedMs - job.enqueuedMs)) }
        // A ticker that memory can answer costs no task.
        if case .fetchTicker(let symbol, let maxAgeMs) = job.work, job.deadlineMs.map({ startedMs < $0 }) ?? true,
            let found = cache.get(symbol, maxAgeMs: maxAgeMs)
        {
            metrics.answers[.l1]?.increment()
            return finish(job, found.outcome, startedMs)
        }
        // Begun at once, in the order of the jobs, so that a cancel is ahead of its order; and no thread hop.
        jobs.addImmediateTask { await self.run(job, startedMs) }
    }

    private func run(_ job: Job, _ startedMs: Int64) async {
        do {
            let (outcome, reason) = try await conclusion(of: job)
            finish(job, outcome, startedMs, reason: reason ?? (outcome.status == .unknown ? "unknown" : "attempts"))
        } catch let pause as SetAside {
            delay(job, pause.wait, .setAside)
        } catch let error as ExchangeError {
            // A cancel is worth trying for as long as an exchange may be in trouble: 42 seconds in five attempts.
            let least: Duration = job.kind == .cancelOrder ? .milliseconds(500 << min(2 * job.attempt - 2, 6)) : .zero
            let wait = max(error.retryAfter ?? .zero, least) + Retry.delay(job.attempt - 1)
            delay(job, wait, .retried, line(job, error.description))
        } catch is RedisError {
            // Nothing was sent, or the journal knows: the job begins anew when Redis is well.
            delay(job, .seconds(1), .setAside)
        } catch {
            // The worker stops. One that is cut off leaves the job to the next owner.
            if !Task.isCancelled { delay(job, .zero, .handedBack) }
        }
    }

    /// Executes a job to its end, and says why it is buried if not for its outcome.
    /// - Throws: `SetAside`, `ExchangeError` for another attempt, `RedisError`, `CancellationError`.
    private func conclusion(of job: Job) async throws -> (Outcome, reason: String?) {
        var ended: (Outcome, reason: String?)
        do {
            // An order's journal comes before its deadline: it may have been sent already.
            if job.kind != .submitOrder, let deadline = job.deadlineMs, clock.now() >= deadline { throw JobExpired() }
            if job.deliveries <= Lease.maxDeliveries { return (try await outcome(of: job), nil) }
            // It may be what kills workers, so nothing of it is executed.
            let text = "delivered \(job.deliveries) times without an end: it may kill workers"
            if case .submitOrder(let order) = job.work, let known = try await orders.giveUp(order, job, text) {
                return (known, "poison")
            }
            ended = (.ended(.failed, code: "poison", text), "poison")
        } catch let error as Refusal {
            ended = (.ended(.rejected, code: error.code, error.message), nil)
        } catch is JobExpired {
            ended = (.ended(.expired, code: "deadline", "the deadline passed before the job was executed"), nil)
        } catch let error as ExchangeError {
            let isFinal = error.verdict == .permanent || error.verdict == .auth
            guard isFinal || job.attempt >= job.maxAttempts else { throw error }
            ended = (.ended(isFinal ? .rejected : .failed, error), nil)
        } catch let error as RedisError where error.code == .server("WRONGTYPE") {
            // A key of another type stays as it is.
            ended = (.ended(.failed, code: "redis", error.message), "redis")
        }
        // An order's id keeps its first outcome; what could not be understood was no order.
        guard job.kind == .submitOrder else { return ended }
        do {
            if case .malformed = job.work {
                let journal = try await orders.journals.read(job.id)
                // An order of that id is under way: what becomes of it is the answer.
                if let journal, journal.state == "sending", journal.outcome == nil { throw journal.step }
                return (journal?.outcome ?? ended.0, nil)
            }
            return (try await orders.journals.end(job, ended.0, of: nil), ended.reason)
        } catch let error as RedisError where error.code == .server("WRONGTYPE") {
            let text = "its journal was overwritten, so it may exist: \(error.message)"
            return (.ended(.unknown, code: "order_unknown", text), nil)
        }
    }

    private func line(_ job: Job, _ text: String) -> String {
        "\(clock.now()) \(consumer) attempt \(job.attempt): \(text.prefix(300).replacing("\n", with: " "))"
    }

    private func outcome(of job: Job) async throws -> Outcome {
        switch job.work {
        case .malformed(let sentence): throw Refusal(code: "malformed_job", sentence)
        case .fetchTicker(let symbol, let maxAgeMs):
            let (found, source) = try await tickers.fetch(symbol, maxAgeMs: maxAgeMs, for: job)
            metrics.answers[source]?.increment()
            return .ok(found.json, source: source)
        case .refreshCache(let symbols):
            let (refreshed, failed) = try await tickers.refresh(symbols, for: job)
            let reasons = failed.sorted { $0.key < $1.key }.map { "\(quoted($0)):\(quoted($1))" }
            return .ok(#"{"refreshed":\#(refreshed),"failed":{\#(reasons.joined(separator: ","))}}"#)
        case .submitOrder(let order): return try await orders.submit(order, job, volatility: volatility)
        case .cancelOrder(let orderId, let symbol): return try await orders.cancel(orderId, symbol, job)
        }
    }

    /// Ends a job; one that failed, or an order of unknown outcome, is kept in the dead stream.
    private func finish(_ job: Job, _ outcome: Outcome, _ startedMs: Int64, reason: String = "attempts") {
        let finishedMs = clock.now()
        metrics.jobs[job.kind]?[outcome.status]?.increment()
        metrics.durations[job.kind]?.recordMilliseconds(max(0, finishedMs - startedMs))
        if outcome.status != .ok || job.traceparent != nil {
            log.info("job ended", metadata: job.metadata.merging(["outcome": "\(outcome.json)"]) { $1 })
        }
        let ttl = job.resultTTL ?? (job.kind.isTrading ? configuration.orderResultTTL : configuration.tickerResultTTL)
        let result = outcome.result(of: job, worker: consumer, startedMs: startedMs, finishedMs: finishedMs)
        guard outcome.status == .failed || outcome.status == .unknown else {
            return end(job, .finished(result: result, ttl: ttl))
        }
        metrics.moves[.buried]?.increment()
        end(job, .dead(result: result, ttl: ttl, reason: reason, line: line(job, outcome.error)))
    }

    /// Puts a job off, but not beyond a deadline that is still to come. With a `line` for its history it is another
    /// attempt.
    private func delay(_ job: Job, _ wait: Duration, _ move: Move, _ line: String? = nil) {
        metrics.moves[move]?.increment()
        log.debug("job put off", metadata: job.metadata.merging(["why": "\(move)", "wait": "\(wait)"]) { $1 })
        let left = job.deadlineMs.map { Duration.milliseconds(min($0 - clock.now(), 1_000_000_000)) } ?? wait
        end(job, .delayed(wait: left > .zero ? min(wait, left) : wait, line: line))
    }

    private func end(_ job: Job, _ ending: Finisher.Ending) {
        running -= 1
        let leasedAt = inHand[job.kind]?[job.entryId] ?? .now - Lease.length
        (job.kind.isTrading ? tradeFinisher : finisher).end(job, ending, leasedAt: leasedAt)
    }

    private func finisher(over redis: RedisClient) -> Finisher {
        Finisher(redis: redis, keys: keys, consumer: consumer, log: log) { [unowned self] in release($0, $1) }
    }

    private func release(_ job: Job, _ wasOurs: Bool) {
        if !wasOurs {
            metrics.moves[.fenced]?.increment()
            log.warning("another worker has this job: what became of it here was dropped", metadata: job.metadata)
        }
        inHand[job.kind]?[job.entryId] = nil
        freed.continuation.yield()
    }

    /// Takes this worker's consumer out of the groups, where nothing is left pending for it.
    private func leave() async {
        for kind in configuration.kinds { await retire(kind, consumer) }
        await events.flush(to: writing)
    }
}

extension Job {
    /// What a log line says of a job.
    var metadata: Logger.Metadata {
        var metadata: Logger.Metadata = ["id": "\(id)", "kind": "\(kind.rawValue)"]
        if let traceparent { metadata["traceparent"] = "\(traceparent)" }
        return metadata
    }
}
