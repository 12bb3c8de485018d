/// Stops calls to an endpoint that fails: closed → open after `threshold` failures in a row → half-open after
/// `cooldown`, when one probe goes through. Business refusals, rate limits and our own waits are not failures.
package struct Breaker: Sendable {
    package enum State: Sendable, Equatable { case closed, open, halfOpen }

    /// Allows one call, and is given back with `record`. One of an earlier generation changes nothing.
    package struct Permit: Sendable {
        fileprivate let generation: Int
        /// Whether it is the one call of a half-open breaker.
        package let isProbe: Bool
    }

    package private(set) var state = State.closed
    private var failures = 0
    private var generation = 0
    /// When open: the end of the cooldown. When half-open: until when the probe's silence is waited for.
    private var until: ContinuousClock.Instant?
    private let threshold: Int
    private let cooldown: Duration

    package init(threshold: Int = 5, cooldown: Duration = .seconds(5)) {
        (self.threshold, self.cooldown) = (threshold, cooldown)
    }

    /// A permit, or nil while calls are stopped. A probe that never reports loses its permit after another cooldown.
    package mutating func permit(at now: ContinuousClock.Instant) -> Permit? {
        if state == .closed { return Permit(generation: generation, isProbe: false) }
        guard let until, now >= until else { return nil }
        move(to: .halfOpen, until: now + cooldown)
        return Permit(generation: generation, isProbe: true)
    }

    /// Whether a call would be stopped now.
    package func isStopping(at now: ContinuousClock.Instant) -> Bool { until.map { now < $0 } ?? false }

    /// Reports how the call of a permit went; nil: it says nothing of the endpoint's health (it was cancelled, or never
    /// sent), and the permit is free again, a probe's after `wait`. - Returns: the state, when it changed.
    package mutating func record(
        success: Bool?, _ permit: Permit, at now: ContinuousClock.Instant, wait: Duration = .zero
    ) -> State? {
        guard permit.generation == generation else { return nil }
        let before = state
        switch (success, state) {
        case (nil, .halfOpen): until = now + wait
        case (true?, .halfOpen): move(to: .closed, until: nil)
        case (true?, _): failures = 0
        case (false?, _):
            failures += 1
            if state == .halfOpen || failures >= threshold { move(to: .open, until: now + cooldown) }
        case (nil, _): break
        }
        return state == before ? nil : state
    }

    private mutating func move(to next: State, until: ContinuousClock.Instant?) {
        (state, self.until, failures) = (next, until, 0)
        generation += 1
    }
}
