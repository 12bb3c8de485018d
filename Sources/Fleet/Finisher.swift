package import Logging
package import Redis

/// Writes results and takes jobs off their streams, many in one transaction. A job that was given to it stays in hand
/// until Redis has confirmed the write, however often the connection breaks.
@LaneActor
package final class Finisher {
    private struct Entry {
        let job: Job
        var commands: [RedisCommand]
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
        var commands: [RedisCommand] = []
        if ttl > 0 { commands.append(["SET", .text(keys.result(job.id)), .text(result), "EX", .int(ttl)]) }
        if let key = job.replyTo {
            commands.append(["RPUSH", .text(key), .text(result)])
            commands.append(["EXPIRE", .text(key), 60])
        }
        add(Entry(job: job, commands: commands))
    }

    /// Queues a job to go back to its stream for another worker, with the id and time it had.
    package func handBack(_ job: Job) {
        let own = ["id", "fleet_enqueued_ms"]
        var fields: [RedisArgument] = []
        for index in stride(from: 0, to: job.fields.count - 1, by: 2) {
            guard case .bytes(let name) = job.fields[index], case .bytes(let value) = job.fields[index + 1],
                !own.contains(String(decoding: name, as: UTF8.self))
            else { continue }
            fields += [.bytes(name), .bytes(value)]
        }
        fields += ["id", .text(job.id), "fleet_enqueued_ms", .int(Int(job.enqueuedMs))]
        add(Entry(job: job, commands: [RedisCommand(["XADD", .text(keys.jobs(job.kind)), "*"] + fields)]))
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
        let streams = Dictionary(grouping: entries, by: \.job.kind).map { kind, entries in
            (RedisArgument.text(keys.jobs(kind)), entries.map(\.job.entryId))
        }
        var commands: [RedisCommand] = [["MULTI"]]
        for entry in entries { commands += entry.commands }
        for (stream, ids) in streams {
            commands += [["XACK", stream, .text(Keys.group)] + ids, ["XDEL", stream] + ids]
        }
        commands.append(["EXEC"])
        for attempt in 0... {
            let replies = await redis.pipeline(commands)
            guard let error = replies.last?.error else {
                // A command that fails inside a transaction (a reply_to of another type) does not stop the others.
                for error in replies.last?.array?.compactMap(\.error) ?? [] {
                    log.warning("a result could not be delivered", metadata: ["error": "\(error)"])
                }
                return
            }
            // Written already or not: doing it again leaves the same result.
            if attempt == 0 {
                log.warning("results not written yet", metadata: ["error": "\(error)", "jobs": "\(entries.count)"])
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
