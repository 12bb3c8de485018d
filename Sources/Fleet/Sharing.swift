// A task that waits for a continuation may come to its actor's thread anew before it is asked to keep it: what was looked
// at before may have changed. So whether there is something to wait for is looked at where the continuation is kept.

/// Lets those who ask for one thing at the same time share one answer, or one failure.
@LaneActor
final class SingleFlight<Key: Hashable & Sendable, Value: Sendable> {
    private var waiters: [Key: [CheckedContinuation<Result<Value, any Error>?, Never>]] = [:]

    /// Joins the call for the key that is under way, else makes it.
    func join(_ key: Key, _ call: @LaneActor () async throws -> Value) async throws -> Value {
        while waiters[key] != nil {
            let shared = await withCheckedContinuation { continuation in
                if waiters[key]?.append(continuation) == nil { continuation.resume(returning: nil) }
            }
            if let shared { return try shared.get() }
        }
        waiters[key] = []
        var result: Result<Value, any Error> = .failure(CancellationError())
        defer { for waiter in waiters.removeValue(forKey: key) ?? [] { waiter.resume(returning: result) } }
        do { result = .success(try await call()) } catch { result = .failure(error) }
        return try result.get()
    }
}

/// Lets one caller through at a time, in the order they came.
@LaneActor
final class Turnstile {
    private var isTaken = false
    private var waiters: [CheckedContinuation<Void, Never>] = []
    var waiting: Int { waiters.count }

    func enter() async {
        await withCheckedContinuation { continuation in
            if isTaken { return waiters.append(continuation) }
            isTaken = true
            continuation.resume()
        }
    }

    /// Hands on directly, so that a newcomer cannot slip in between.
    func leave() {
        if waiters.isEmpty { isTaken = false } else { waiters.removeFirst().resume() }
    }
}
