extension Duration {
    /// Exponential backoff with full jitter: a random wait between zero and a bound that doubles from `base` up to `cap`.
    /// The attempts are counted from 0.
    package static func backoff(attempt: Int, base: Duration, cap: Duration) -> Duration {
        min(base * (1 << min(attempt, 20)), cap) * Double.random(in: 0...1)
    }
}
