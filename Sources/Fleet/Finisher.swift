package import Logging
package import Redis

/// Ends deliveries: writes results, takes jobs off their streams, puts them aside or gives them up, many at once. A job
/// that was given to it stays in hand until Redis has confirmed the write, however often the connection breaks.
@LaneActor
package final class Finisher {
    /// What becomes of a delivered job. `line` is what its history shall say of this delivery.
    package enum Ending {
        /// The result is kept for `ttl` seconds (0: not stored) and pushed to `reply_to` where one waits.
        case finished(result: String, ttl: Int)
        /// The same, and the job goes to the dead stream.
        case dead(result: String, ttl: Int, reason: String, line: String)
        /// Back to the stream after `wait`: with `line` as another attempt, else as the same one.
        case delayed(wait: Duration, line: String?)
    }

    private struct Entry {
        let job: Job
        let ending: Ending
        /// When the lease was last known to run.
        let leasedAt: ContinuousClock.Instant
        var tries = 0

        /// Whether the result may be written without asking whose the job is: it can be no other worker's yet, and
        /// if it were (this process was stopped right here), a plain result written twice does no harm.
        func isPlain(at now: ContinuousClock.Instant) -> Bool {
            guard case .finished = ending, job.replyTo == nil, !job.kind.isTrading, tries == 0 else { return false }
            return now - leasedAt < Lease.length / 2
        }
    }

    private let redis: RedisClient
    private let keys: Keys
    private let consumer: String
    private let log: Logger
    private let isWritten: @LaneActor (Job, _ wasOurs: Bool) -> Void
    private var queue: [Entry] = []
    private var (underWay, failures) = (0, 0)
    private let queued = AsyncStream.makeStream(of: Void.self, bufferingPolicy: .bufferingNewest(1))
    /// Jobs a transaction: beyond a hundred or so a larger one saves nothing.
    private let batch = 256

    /// `isWritten` is called for each job once it is off its stream, or has been found to be another worker's.
    package init(
        redis: RedisClient, keys: Keys, consumer: String, log: Logger,
        isWritten: @escaping @LaneActor (Job, _ wasOurs: Bool) -> Void
    ) {
        (self.redis, self.keys, self.consumer, self.log) = (redis, keys, consumer, log)
        self.isWritten = isWritten
    }

    /// How many wait to be written, or for the answer to it.
    package private(set) var count = 0

    package func end(_ job: Job, _ ending: Ending, leasedAt: ContinuousClock.Instant) {
        count += 1
        queue.append(Entry(job: job, ending: ending, leasedAt: leasedAt))
        queued.continuation.yield()
    }

    /// Writes what is queued until cancelled.
    package func run() async {
        await withDiscardingTaskGroup { writes in
            for await _ in queued.stream {
                // Two at a time: Redis has one to work on while the answer of the other is taken up.
                while !queue.isEmpty, underWay < 2 {
                    let entries = Array(queue.prefix(batch))
                    queue.removeFirst(entries.count)
                    underWay += 1
                    writes.addImmediateTask { await self.write(entries) }
                }
            }
        }
    }

    /// Writes the entries, and puts those that Redis did not take back into the queue: after a wait of their own and
    /// behind the others, so that what it refuses (a dead stream that is no stream) does not hold them up.
    private func write(_ entries: [Entry]) async {
        let (left, error) = await written(entries)
        underWay -= 1
        queued.continuation.yield()
        if left.count == entries.count, let error {
            if failures == 0 { log.warning("results not written yet", metadata: ["error": "\(error)"]) }
            failures += 1
            try? await LaneActor.sleep(for: Retry.delay(min(failures, 4)))
            try? await redis.connected()
        } else {
            failures = 0
        }
        queue += left
        if !left.isEmpty { queued.continuation.yield() }
    }

    /// - Returns: what could not be written, and the last reason.
    private func written(_ entries: [Entry]) async -> (left: [Entry], error: RedisError?) {
        let now = ContinuousClock.now
        let plain = entries.filter { $0.isPlain(at: now) }
        let fenced = entries.filter { !$0.isPlain(at: now) }
        let replies = await redis.pipeline(transaction(plain) + fenced.map { call(for: $0) })
        var (left, last): ([Entry], RedisError?) = ([], nil)
        func settle(_ entry: Entry, _ reply: RedisValue) {
            if let error = reply.error {
                last = error
                var entry = entry
                entry.tries += 1
                left.append(entry)
            } else {
                count -= 1
                // After a try whose answer was lost, "not ours" says nothing.
                isWritten(entry.job, reply != .integer(0) || entry.tries > 0)
            }
        }
        if !plain.isEmpty { for entry in plain { settle(entry, replies[replies.count - fenced.count - 1]) } }
        for (entry, reply) in zip(fenced, replies.suffix(fenced.count)) { settle(entry, reply) }
        if let last, FunctionLibrary.isMissing(last) { _ = try? await FunctionLibrary.load(into: redis) }
        return (left, last)
    }

    private func transaction(_ entries: [Entry]) -> [RedisCommand] {
        guard !entries.isEmpty else { return [] }
        var commands: [RedisCommand] = [["MULTI"]]
        commands.reserveCapacity(entries.count + 8)
        var (ids, markers, places): ([Kind: [String]], [String], [RedisArgument]) = ([:], [], [])
        for entry in entries {
            let job = entry.job
            ids[job.kind, default: []].append(job.entryId)
            if job.id != job.entryId {
                markers.append(keys.marker(job.id))
                places.append(.text("\(keys.jobs(job.kind)) \(job.entryId)"))
            }
            guard case .finished(let result, let ttl) = entry.ending, ttl > 0 else { continue }
            commands.append(["SET", .text(keys.result(job.id)), .text(result), "EX", .int(ttl)])
        }
        for (kind, ids) in ids {
            let stream = RedisArgument.text(keys.jobs(kind))
            commands += [["XACK", stream, .text(Keys.group)] + ids, ["XDEL", stream] + ids]
        }
        if !markers.isEmpty { commands.append(FunctionLibrary.command("fleet_unmark", markers, places)) }
        return commands + [["EXEC"]]
    }

    private func call(for entry: Entry) -> RedisCommand {
        let job = entry.job
        let delivery: [RedisArgument] = [.text(Keys.group), .text(consumer), .text(job.entryId)]
        let reply = job.replyTo.map { [$0] } ?? []
        let first = [keys.jobs(job.kind), keys.result(job.id), keys.marker(job.id)]
        switch entry.ending {
        case .finished(let result, let ttl):
            return FunctionLibrary.command(
                "fleet_finish", first + reply, delivery + [.text(result), .int(ttl), .int(Self.replyTTL)])
        case .dead(let result, let ttl, let reason, let line):
            return FunctionLibrary.command(
                "fleet_bury", first + [keys.dead] + reply,
                delivery + [
                    .text(result), .int(ttl), .int(Self.replyTTL), .text(job.kind.rawValue), .text(job.id),
                    .text(reason), .text(line), .int(Int(job.enqueuedMs)), .int(job.attempt),
                ])
        case .delayed(let wait, let line):
            let retries = job.kind.isTrading ? keys.tradingRetries : keys.retries
            return FunctionLibrary.command(
                "fleet_retry", [keys.jobs(job.kind), keys.delayed, keys.marker(job.id), retries],
                delivery + [
                    .text(job.kind.rawValue), .text(job.id), .int(Int(wait / .milliseconds(1))),
                    .int(job.attempt + (line == nil ? 0 : 1)), .int(Int(job.enqueuedMs)), .text(line ?? ""),
                    line == nil ? "0" : "1",
                ])
        }
    }

    /// Seconds a reply that nobody fetches is kept.
    private static let replyTTL = 60
}

/// Waits between tries: 0…200 ms, doubling to at most 0…10 s.
enum Retry {
    static func delay(_ attempt: Int) -> Duration {
        .backoff(attempt: attempt, base: .milliseconds(200), cap: .seconds(10))
    }
}

/// How deliveries are kept alive and claimed.
enum Lease {
    /// How long a delivery may stay silent before another worker may claim it.
    static let length = Duration.seconds(10)
    static let heartbeat = Duration.seconds(3)
    /// A job delivered more often than this without an end is taken for one that kills workers.
    static let maxDeliveries = 3
}
