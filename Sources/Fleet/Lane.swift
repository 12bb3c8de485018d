internal import CoreMetrics
package import Exchanges
package import Logging
internal import Redis
internal import ServiceLifecycle

/// All streams of one exchange, served by one reader: reads jobs, runs them, hands their results to the finisher.
@LaneActor
package final class Lane {
    package nonisolated let exchange: Exchange
    private let keys: Keys
    private let consumer: String
    private let configuration: Configuration
    private let log: Logger
    private let metrics: LaneMetrics
    private let nowMs: @Sendable () -> Int64
    /// One connection for the read that blocks, one for everything else.
    private let reading, writing: RedisClient
    private let session: ExchangeSession
    private let tickers: Tickers
    private let orders: Orders
    private lazy var finisher = Finisher(redis: writing, keys: keys, log: log) { [unowned self] in release($0) }
    private let freed = AsyncStream.makeStream(of: Void.self, bufferingPolicy: .bufferingNewest(1))
    private var inHand = 0
    /// Streams that could not be read (a key of another type), and when they are looked at again.
    private var unreadable: [Kind: ContinuousClock.Instant] = [:]
    /// When the loop last turned: the lane's sign of life.
    package private(set) var turnedAt = ContinuousClock.now
    package var isReady: Bool { reading.isConnected && writing.isConnected && hasGroups }
    private var hasGroups = false

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
            let reply = try? await FunctionLibrary.call("fleet_nonce", key: nonceKey, on: writing)
            if let nonce = reply?.text.flatMap(UInt64.init) { return nonce }
            throw ExchangeError(.wait, code: "no_nonce", "Redis gave no nonce")
        }
        tickers = Tickers(session: session, redis: writing, ttl: configuration.cacheTTL, nowMs: nowMs)
        orders = Orders(
            session: session, redis: writing, journalTTL: configuration.orderResultTTL,
            allowsOrders: configuration.allowsOrders, log: log, nowMs: nowMs)
    }

    /// Serves until the service group shuts down: then reads no more, finishes what runs, hands back what has not
    /// begun, and removes its consumer.
    package func run() async {
        await withTaskGroup { group in
            group.addTask { await self.reading.run() }
            group.addTask { await self.writing.run() }
            group.addTask { await self.finisher.run() }
            await withDiscardingTaskGroup { jobs in
                while !Task.isShuttingDownGracefully, !Task.isCancelled {
                    turnedAt = .now
                    do {
                        try await turn(&jobs)
                    } catch {
                        guard !(error is CancellationError) else { continue }
                        log.warning("not read", metadata: ["error": "\(error)"])
                        hasGroups = false
                        try? await Task.sleep(for: Retry.delay(0))
                    }
                }
            }
            var slots = freed.stream.makeAsyncIterator()
            while inHand > 0, !Task.isCancelled { _ = await slots.next() }
            await leave()
            group.cancelAll()
        }
    }

    // MARK: - Reading

    private func turn(_ jobs: inout DiscardingTaskGroup) async throws {
        guard reading.isConnected, writing.isConnected else {
            hasGroups = false
            return try await pause(.milliseconds(50))
        }
        if !hasGroups { try await createGroups() }
        let kinds = configuration.kinds.filter { kind in
            !session.isStopped(trading: kind.isTrading) && (unreadable[kind].map { $0 < .now } ?? true)
        }
        let free = configuration.concurrency - inHand
        guard !kinds.isEmpty, free >= kinds.count else { return try await pause(.milliseconds(20)) }
        let counts = shares(of: free, kinds)
        let replies = await reading.pipeline(zip(kinds, counts).map { read($0, count: $1, block: nil) })
        let hasRead = try take(zip(kinds, replies), &jobs)
        guard !hasRead else { return }
        // Nothing waits: the first job of any stream ends the next read.
        let idle = kinds.filter { unreadable[$0] == nil }
        guard !idle.isEmpty else { return try await pause(.milliseconds(200)) }
        let reply = await reading.pipeline([read(idle, count: 1, block: 1000)], timeout: .seconds(6))
        _ = try take(reply.map { (idle[0], $0) }, &jobs)
    }

    /// How many jobs of each kind to take when `free` slots are left: cancels and orders first, tickers the bulk.
    private func shares(of free: Int, _ kinds: [Kind]) -> [Int] {
        let share = max(1, free / 8)
        let others = kinds.count - (kinds.contains(.fetchTicker) ? 1 : 0)
        return kinds.map { $0 == .fetchTicker ? max(1, free - share * others) : share }
    }

    private func read(_ kind: Kind, count: Int, block: Int?) -> RedisCommand {
        read([kind], count: count, block: block)
    }

    private func read(_ kinds: [Kind], count: Int, block: Int?) -> RedisCommand {
        var arguments: [RedisArgument] = [
            "XREADGROUP", "GROUP", .text(Keys.group), .text(consumer), "COUNT", .int(count),
        ]
        if let block { arguments += ["BLOCK", .int(block)] }
        return RedisCommand(
            arguments + ["STREAMS"] + kinds.map { .text(keys.jobs($0)) } + kinds.map { _ in ">" })
    }

    /// Starts the jobs of the replies. - Returns: whether there were any.
    private func take(
        _ replies: some Sequence<(Kind, RedisValue)>, _ jobs: inout DiscardingTaskGroup
    ) throws(RedisError) -> Bool {
        let before = inHand
        for (kind, reply) in replies {
            if case .server(let word)? = reply.error?.code {
                if word == "NOGROUP" || word == "UNBLOCKED" {
                    hasGroups = false
                } else if word == "WRONGTYPE" {
                    if unreadable[kind] == nil {
                        log.error("not a stream", metadata: ["key": "\(keys.jobs(kind))", "expected": "stream"])
                    }
                    unreadable[kind] = .now + .seconds(5)
                } else {
                    _ = try reply.get()
                }
                continue
            }
            for stream in try reply.get().array ?? [] {
                guard let parts = stream.array, parts.count == 2, let key = parts[0].text,
                    let kind = Kind.allCases.first(where: { keys.jobs($0) == key })
                else { throw RedisError(.malformedReply, "XREADGROUP: a stream and its entries were expected") }
                unreadable[kind] = nil
                for entry in parts[1].array ?? [] {
                    guard let pair = entry.array, pair.count == 2, let id = pair[0].text else { continue }
                    start(Job(exchange: exchange, kind: kind, entryId: id, fields: pair[1].array ?? []), &jobs)
                }
            }
        }
        return inHand > before
    }

    private func createGroups() async throws(RedisError) {
        try await FunctionLibrary.load(into: writing)
        for kind in configuration.kinds {
            do throws(RedisError) {
                _ = try await writing.send([
                    "XGROUP", "CREATE", .text(keys.jobs(kind)), .text(Keys.group), 0, "MKSTREAM",
                ])
            } catch {
                guard error.code == .server("BUSYGROUP") || error.code == .server("WRONGTYPE") else { throw error }
            }
        }
        hasGroups = true
    }

    private func pause(_ duration: Duration) async throws { try await Task.sleep(for: duration) }

    // MARK: - Running

    private func start(_ job: Job, _ jobs: inout DiscardingTaskGroup) {
        inHand += 1
        metrics.inHand.record(inHand)
        let startedMs = nowMs()
        metrics.waits[job.kind]?.recordMilliseconds(max(0, startedMs - job.enqueuedMs))
        // A ticker that memory can answer costs no task.
        if case .fetchTicker(let symbol, let maxAgeMs) = job.work, job.deadlineMs.map({ startedMs < $0 }) ?? true,
            let found = tickers.cached(symbol, maxAgeMs: maxAgeMs)
        {
            metrics.answers[.l1]?.increment()
            return finish(job, .ok(found.json, source: "l1"), attempt: 1, startedMs)
        }
        jobs.addTask { await self.run(job, startedMs) }
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
                guard (try? await session.pause(for: wait)) != nil else { return handBack(job) }
            } catch is RedisError {
                // Nothing was sent, or the journal knows: the job begins anew when Redis is back.
                guard (try? await session.pause(for: Retry.delay(attempt - 1))) != nil else { return handBack(job) }
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
            return .ok(found.json, source: source.rawValue)
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
        inHand -= 1
        metrics.inHand.record(inHand)
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
