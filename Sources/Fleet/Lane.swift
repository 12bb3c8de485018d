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
    private let nowMs: @Sendable () -> Int64
    /// One connection for the read that blocks, one for everything else.
    let reading, writing: RedisClient
    let session: ExchangeSession
    private let tickers: Tickers
    private let orders: Orders
    private lazy var finisher = Finisher(redis: writing, keys: keys, log: log) { [unowned self] in release($0) }
    private let freed = AsyncStream.makeStream(of: Void.self, bufferingPolicy: .bufferingNewest(1))
    /// The entries read and not yet off their stream.
    var inHand: [Kind: Set<String>] = [:]
    var inHandCount: Int { inHand.values.reduce(0) { $0 + $1.count } }
    /// Streams that could not be read (a key of another type), and when they are looked at again.
    var unreadable: [Kind: ContinuousClock.Instant] = [:]
    var hasGroups = false
    var measuredAt: ContinuousClock.Instant?
    /// When the loop last turned: the lane's sign of life.
    package private(set) var turnedAt = ContinuousClock.now
    package var isReady: Bool { reading.isConnected && writing.isConnected && hasGroups }

    package init(
        api: any ExchangeAPI, consumer: String, configuration: Configuration, http: HTTPClient, log: Logger,
        nowMs: @escaping @Sendable () -> Int64
    ) {
        exchange = api.exchange
        keys = Keys(api.exchange)
        self.consumer = consumer
        self.configuration = configuration
        self.nowMs = nowMs
        var log = log
        log[metadataKey: "exchange"] = "\(api.exchange.rawValue)"
        self.log = log
        metrics = LaneMetrics(api.exchange)
        let client = { [log, metrics] (role: String) in
            RedisClient(url: configuration.redis, loop: LaneActor.loop, name: "\(consumer)-\(role)") { change in
                switch change {
                case .connected: log.info("redis connected", metadata: ["role": "\(role)"])
                case .lost(let error):
                    metrics.redisLosses.increment()
                    log.warning("redis away, trying again", metadata: ["role": "\(role)", "error": "\(error)"])
                }
            }
        }
        reading = client("read")
        writing = client("write")
        let nonceKey = keys.nonce
        session = ExchangeSession(
            api: api, http: http, usesLimits: configuration.usesLimits, metrics: metrics, log: log, nowMs: nowMs
        ) { [writing] () async throws(ExchangeError) in
            let reply = try? await FunctionLibrary.call("fleet_nonce", [nonceKey], on: writing)
            if let nonce = reply?.text.flatMap(UInt64.init) { return nonce }
            throw ExchangeError(.wait, code: "no_nonce", "Redis gave no nonce")
        }
        tickers = Tickers(session: session, redis: writing, ttl: configuration.cacheTTL, nowMs: nowMs)
        orders = Orders(
            session: session, redis: writing, journalTTL: configuration.orderResultTTL,
            allowsOrders: configuration.allowsOrders, consumer: consumer, log: log, nowMs: nowMs)
    }

    /// Serves until the service group shuts down: then reads no more, finishes what runs, hands back what has not
    /// begun, and removes its consumer.
    package func run() async {
        await withTaskGroup { group in
            group.addTask { await self.reading.run() }
            group.addTask { await self.writing.run() }
            group.addTask { await self.finisher.run() }
            await withDiscardingTaskGroup { jobs in
                var trouble: String?
                while !Task.isShuttingDownGracefully, !Task.isCancelled {
                    turnedAt = .now
                    do {
                        try await turn(&jobs)
                        if trouble != nil, hasGroups { log.info("reading again") }
                        trouble = hasGroups ? nil : trouble
                    } catch {
                        if trouble != "\(error)" { log.warning("not reading", metadata: ["error": "\(error)"]) }
                        trouble = "\(error)"
                        hasGroups = false
                        try? await Task.sleep(for: .milliseconds(200))
                    }
                }
            }
            var slots = freed.stream.makeAsyncIterator()
            while inHandCount > 0, !Task.isCancelled { _ = await slots.next() }
            await leave()
            group.cancelAll()
        }
    }

    func start(_ job: Job, _ jobs: inout DiscardingTaskGroup) {
        metrics.inHand.record(inHandCount)
        let startedMs = nowMs()
        metrics.waits[job.kind]?.recordMilliseconds(max(0, startedMs - job.enqueuedMs))
        // A ticker that memory can answer costs no task.
        if case .fetchTicker(let symbol, let maxAgeMs) = job.work, job.deadlineMs.map({ startedMs < $0 }) ?? true,
            let found = tickers.cached(symbol, maxAgeMs: maxAgeMs)
        {
            metrics.answers[.l1]?.increment()
            return finish(job, .ok(found.json, source: .l1), attempt: 1, startedMs)
        }
        // Begun at once, in the order of the jobs, so that a cancel is ahead of its order; and no thread hop.
        jobs.addImmediateTask { await self.run(job, startedMs) }
    }

    private func run(_ job: Job, _ startedMs: Int64) async {
        for attempt in 1... {
            do {
                if let deadline = job.deadlineMs, nowMs() >= deadline { throw JobExpired() }
                return finish(job, try await outcome(of: job), attempt: attempt, startedMs)
            } catch let error as Refusal {
                return finish(job, .ended(.rejected, code: error.code, error.message), attempt: attempt, startedMs)
            } catch is JobExpired {
                let expired = Outcome.ended(
                    .expired, code: "deadline", "the deadline passed before the job was executed")
                return finish(job, expired, attempt: attempt, startedMs)
            } catch let error as ExchangeError {
                let isFinal = error.verdict == .permanent || error.verdict == .auth
                if isFinal || attempt >= job.maxAttempts {
                    return finish(job, .ended(isFinal ? .rejected : .failed, error), attempt: attempt, startedMs)
                }
                let wait = max(error.retryAfter ?? .zero, Retry.delay(attempt - 1))
                guard (try? await session.pause(for: wait, job)) != nil else { return handBack(job) }
            } catch let error as RedisError {
                // Nothing was sent, or the journal knows: the job begins anew when Redis is well. A key of another type
                // stays as it is, though.
                if error.code == .server("WRONGTYPE"), attempt >= job.maxAttempts {
                    return finish(job, .ended(.failed, code: "redis", error.message), attempt: attempt, startedMs)
                }
                guard (try? await session.pause(for: Retry.delay(attempt - 1), job)) != nil else {
                    return handBack(job)
                }
            } catch {
                return handBack(job)
            }
        }
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
        case .submitOrder(let order): return try await orders.submit(order, job)
        case .cancelOrder(let orderId, let symbol): return try await orders.cancel(orderId, symbol, job)
        }
    }

    private func finish(_ job: Job, _ outcome: Outcome, attempt: Int, _ startedMs: Int64) {
        let finishedMs = nowMs()
        metrics.jobs[job.kind]?[outcome.status]?.increment()
        metrics.durations[job.kind]?.recordMilliseconds(finishedMs - startedMs)
        if outcome.status != .ok {
            log.info("job ended", metadata: job.metadata.merging(["outcome": "\(outcome.json)"]) { $1 })
        }
        let ttl = job.resultTTL ?? (job.kind.isTrading ? configuration.orderResultTTL : configuration.tickerResultTTL)
        let result = outcome.result(
            of: job, attempt: attempt, worker: consumer, startedMs: startedMs, finishedMs: finishedMs)
        finisher.finish(job, result: result, ttl: ttl)
    }

    private func handBack(_ job: Job) {
        metrics.handedBack.increment()
        log.info("job handed back", metadata: job.metadata)
        finisher.handBack(job)
    }

    private func release(_ job: Job) {
        inHand[job.kind]?.remove(job.entryId)
        metrics.inHand.record(inHandCount)
        freed.continuation.yield()
    }

    /// Takes this worker's consumer out of the groups, where nothing is left pending for it: deleting one throws its
    /// pending jobs away.
    private func leave() async {
        for kind in configuration.kinds {
            let key = RedisArgument.text(keys.jobs(kind))
            let pending = try? await writing.send(["XPENDING", key, .text(Keys.group), "-", "+", 1, .text(consumer)])
            guard pending?.array?.isEmpty == true else { continue }
            _ = try? await writing.send(["XGROUP", "DELCONSUMER", key, .text(Keys.group), .text(consumer)])
        }
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
