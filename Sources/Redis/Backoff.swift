/// Exponential backoff with full jitter: a random wait between zero and a bound that doubles up to `cap`.
package struct Backoff: Sendable {
    package let base: Duration
    package let cap: Duration

    package init(base: Duration, cap: Duration) { (self.base, self.cap) = (base, cap) }

    /// The wait before retry number `attempt`, counted from 0.
    package func delay(attempt: Int, using random: inout some RandomNumberGenerator) -> Duration {
        min(base * (1 << min(attempt, 20)), cap) * Double.random(in: 0...1, using: &random)
    }
}
