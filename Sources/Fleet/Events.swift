package import Logging
package import Redis

/// What happens to a lane (breakers, the gate, pauses), as log lines and as entries of a bounded stream that operators
/// and other programs can follow.
@LaneActor
package final class Events {
    private let keys: Keys
    private let consumer: String
    private let log: Logger
    private var pending: [RedisCommand] = []

    package init(keys: Keys, consumer: String, log: Logger) {
        (self.keys, self.consumer, self.log) = (keys, consumer, log)
    }

    /// Notes a change of state, e.g. `breaker`, `trading open`.
    package func tell(_ event: String, _ what: String) {
        log.warning("\(event)", metadata: ["what": "\(what)"])
        // While Redis is away the log alone has to do, beyond the last hundred.
        if pending.count >= 100 { pending.removeFirst() }
        pending.append([
            "XADD", .text(keys.events), "MAXLEN", "~", 1000, "*", "event", .text(event), "what", .text(what),
            "worker", .text(consumer),
        ])
    }

    /// Writes what was noted since.
    package func flush(to redis: RedisClient) async {
        guard !pending.isEmpty, redis.isConnected else { return }
        let commands = pending
        pending = []
        _ = await redis.pipeline(commands)
    }
}
