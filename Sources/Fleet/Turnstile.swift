/// Lets one caller through at a time, in the order they came, and those in a hurry before the others.
@LaneActor
final class Turnstile {
    private var isTaken = false
    private var hurried: [CheckedContinuation<Void, Never>] = []
    private var waiters: [CheckedContinuation<Void, Never>] = []
    var waiting: Int { hurried.count + waiters.count }

    /// Asks inside the continuation whether there is something to wait for: a task may come to its actor's thread anew
    /// before it is asked to keep one, and what it looked at before may have changed.
    func enter(first: Bool = false) async {
        await withCheckedContinuation { continuation in
            if !isTaken {
                isTaken = true
                continuation.resume()
            } else if first {
                hurried.append(continuation)
            } else {
                waiters.append(continuation)
            }
        }
    }

    /// Hands on directly, so that a newcomer cannot slip in between.
    func leave() {
        if !hurried.isEmpty { return hurried.removeFirst().resume() }
        if waiters.isEmpty { isTaken = false } else { waiters.removeFirst().resume() }
    }
}

/// Lets those who want the same thing loaded wait for one loading, and share its failure.
@LaneActor
final class SharedLoad {
    private let turnstile = Turnstile()
    private var missed: (error: any Error, at: ContinuousClock.Instant)?

    /// Loads, unless another did meanwhile. - Throws: what this loading threw, or the one that was waited for.
    func run(unless isLoaded: () -> Bool, _ load: () async throws -> Void) async throws {
        let asked = ContinuousClock.now
        await turnstile.enter()
        defer { turnstile.leave() }
        if isLoaded() { return }
        if let missed, missed.at > asked { throw missed.error }
        do { try await load() } catch {
            // Whose deadline passed has learnt nothing for the others.
            if !(error is JobExpired) { missed = (error, .now) }
            throw error
        }
    }
}
