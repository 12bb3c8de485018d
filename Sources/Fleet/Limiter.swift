package import Exchanges

/// Token buckets of one exchange, all taken together or not at all. Counts this process alone.
package struct Limiter: Sendable {
    private var buckets: [(limit: Limit, tokens: Double)]
    private var filledAt: ContinuousClock.Instant
    /// Until when the exchange told us to stay away.
    private var closedUntil: ContinuousClock.Instant

    package init(_ limits: [Limit], at now: ContinuousClock.Instant) {
        buckets = limits.map { ($0, $0.capacity) }
        (filledAt, closedUntil) = (now, now)
    }

    /// Takes `cost` (one number a limit), or says how long until it can be had.
    package mutating func take(_ cost: [Double], at now: ContinuousClock.Instant) -> Duration? {
        if now < closedUntil { return closedUntil - now }
        let seconds = max(0, (now - filledAt) / .seconds(1))
        filledAt = max(filledAt, now)
        var wait = 0.0
        for index in buckets.indices where index < cost.count {
            let limit = buckets[index].limit
            buckets[index].tokens = min(limit.capacity, buckets[index].tokens + seconds * limit.perSecond)
            // A call that costs more than the bucket holds goes when the bucket is full, and leaves a debt.
            wait = max(wait, (min(cost[index], limit.capacity) - buckets[index].tokens) / limit.perSecond)
        }
        if wait > 0 { return .seconds(wait) }
        for index in buckets.indices where index < cost.count { buckets[index].tokens -= cost[index] }
        return nil
    }

    package func isClosed(at now: ContinuousClock.Instant) -> Bool { now < closedUntil }

    /// Lets nothing through for a while: what a 429, 418 or 403 asks for.
    package mutating func close(for duration: Duration, at now: ContinuousClock.Instant) {
        closedUntil = max(closedUntil, now + duration)
    }
}
