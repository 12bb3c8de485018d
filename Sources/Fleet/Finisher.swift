package import Logging
package import Redis

/// Writes results and takes jobs off their streams, many at once. A job that was given to it stays in hand until Redis
/// has confirmed the write, however often the connection breaks.
@LaneActor
package final class Finisher {
    private struct Entry {
        let job: Job
        /// What may be written twice without harm, in one transaction with other jobs.
        var result: RedisCommand?
        /// What must happen once: a function that looks whether the job is still ours.
        var function: (name: String, keys: [String], arguments: [RedisArgument])?
    }

    private let redis: RedisClient
    private let keys: Keys
    private let log: Logger
    private let isWritten: @LaneActor (Job) -> Void
    private var queue: [Entry] = []
    private let queued = AsyncStream.makeStream(of: Void.self, bufferingPolicy: .bufferingNewest(1))
    /// Jobs a transaction: beyond a hundred or so a larger one saves nothing.
    private let batch = 256

    /// `isWritten` is called for each job once it is off its stream.
    package init(redis: RedisClient, keys: Keys, log: Logger, isWritten: @escaping @LaneActor (Job) -> Void) {
        self.redis = redis
        self.keys = keys
        self.log = log
        self.isWritten = isWritten
    }

    /// Queues a job's result: stored for `ttl` seconds (0: not stored) and pushed to `reply_to` where one waits.
    package func finish(_ job: Job, result: String, ttl: Int) {
        let key = keys.result(job.id)
        guard let reply = job.replyTo else {
            let command: RedisCommand? = ttl > 0 ? ["SET", .text(key), .text(result), "EX", .int(ttl)] : nil
            return add(Entry(job: job, result: command))
        }
        let arguments: [RedisArgument] = [
            .text(Keys.group), .text(job.entryId), .text(result), .int(ttl), 60,
        ]
        add(Entry(job: job, function: ("fleet_finish", [keys.jobs(job.kind), key, reply], arguments)))
    }

    /// Queues a job to go back to its stream for another worker, with the id and time it had.
    package func handBack(_ job: Job) {
        var fields: [RedisArgument] = [.text(Keys.group), .text(job.entryId)]
        for index in stride(from: 0, to: job.fields.count - 1, by: 2) {
            guard case .bytes(let name) = job.fields[index], case .bytes(let value) = job.fields[index + 1],
                !["id", "fleet_enqueued_ms"].contains(String(decoding: name, as: UTF8.self))
            else { continue }
            fields += [.bytes(name), .bytes(value)]
        }
        fields += ["id", .text(job.id), "fleet_enqueued_ms", .int(Int(job.enqueuedMs))]
        add(Entry(job: job, function: ("fleet_hand_back", [keys.jobs(job.kind)], fields)))
    }

    private func add(_ entry: Entry) {
        queue.append(entry)
        queued.continuation.yield()
    }

    /// Writes what is queued until cancelled.
    package func run() async {
        for await _ in queued.stream {
            while !queue.isEmpty, !Task.isCancelled {
                let entries = Array(queue.prefix(batch))
                queue.removeFirst(entries.count)
                await write(entries)
                for entry in entries { isWritten(entry.job) }
            }
        }
    }

    private func write(_ entries: [Entry]) async {
        await untilWritten { [self] () async throws(RedisError) in
            let plain = entries.filter { $0.function == nil }
            guard !plain.isEmpty else { return }
            var commands: [RedisCommand] = [["MULTI"]] + plain.compactMap(\.result)
            for (kind, entries) in Dictionary(grouping: plain, by: \.job.kind) {
                let (stream, ids) = (RedisArgument.text(keys.jobs(kind)), entries.map(\.job.entryId))
                commands += [["XACK", stream, .text(Keys.group)] + ids, ["XDEL", stream] + ids]
            }
            let replies = await redis.pipeline(commands + [["EXEC"]])
            if let error = replies.last?.error { throw error }
        }
        for case let function? in entries.map(\.function) {
            await untilWritten { [self] () async throws(RedisError) in
                _ = try await FunctionLibrary.call(function.name, function.keys, function.arguments, on: redis)
            }
        }
    }

    private func untilWritten(_ write: @LaneActor () async throws(RedisError) -> Void) async {
        for attempt in 0... {
            do throws(RedisError) { return try await write() } catch {
                if attempt == 0 { log.warning("results not written yet", metadata: ["error": "\(error)"]) }
            }
            guard (try? await Task.sleep(for: Retry.delay(attempt))) != nil else { return }
            guard (try? await redis.connected()) != nil else { return }
        }
    }
}

/// Waits between tries: 0…200 ms, doubling to at most 0…10 s.
enum Retry {
    private static let backoff = Backoff(base: .milliseconds(200), cap: .seconds(10))

    static func delay(_ attempt: Int) -> Duration {
        var random = SystemRandomNumberGenerator()
        return backoff.delay(attempt: attempt, using: &random)
    }
}
