package import NIOCore
private import Synchronization

/// A connection that is rebuilt when it breaks, for a process that lives long. `run()` does the rebuilding; while there
/// is no connection, calls fail at once with `connectionLost` and `connected()` waits for the next one.
package final class RedisClient: RedisCalls {
    /// What `onChange` is told, once a change or reason.
    package enum Change: Sendable {
        case connected
        case lost(RedisError)
    }

    private struct State {
        var connection: RedisConnection?
        var nextWaiter = 0
        var waiters: [Int: CheckedContinuation<Void, any Error>] = [:]
    }

    private let url: RedisURL
    private let loop: any EventLoop
    private let name: String
    private let onChange: @Sendable (Change) -> Void
    private let state = Mutex(State())

    package init(
        url: RedisURL, loop: any EventLoop, name: String, onChange: @escaping @Sendable (Change) -> Void = { _ in }
    ) {
        (self.url, self.loop, self.name, self.onChange) = (url, loop, name, onChange)
    }

    /// Keeps a connection up until the task is cancelled: waits 0…50 ms before the first new try, at most 0…2 s.
    package func run() async {
        let backoff = Backoff(base: .milliseconds(50), cap: .seconds(2))
        var random = SystemRandomNumberGenerator()
        var attempt = 0
        var reported: RedisError.Code?
        while !Task.isCancelled {
            do throws(RedisError) {
                let connection = try await RedisConnection.connect(to: url, on: loop, name: name)
                // Who may not ask finds out by writing.
                if (try? await connection.send(["ROLE"]))?.array?.first?.text == "slave" {
                    connection.close()
                    throw RedisError(.server("READONLY"), "\(url) is a replica")
                }
                attempt = 0
                reported = nil
                onChange(.connected)
                publish(connection)
                await withTaskCancellationHandler {
                    try? await connection.closed.get()
                } onCancel: {
                    connection.close()
                }
                state.withLock { $0.connection = nil }
                throw RedisError(.connectionLost, "the connection to \(url) broke")
            } catch {
                // Once a reason: a password that was changed meanwhile is another than the loss.
                if reported != error.code, !Task.isCancelled { onChange(.lost(error)) }
                reported = error.code
                attempt += 1
            }
            try? await Task.sleep(for: backoff.delay(attempt: attempt, using: &random))
        }
    }

    private func publish(_ connection: RedisConnection) {
        let waiters = state.withLock { state in
            state.connection = connection
            defer { state.waiters = [:] }
            return state.waiters.values
        }
        for waiter in waiters { waiter.resume() }
    }

    package var isConnected: Bool { state.withLock { $0.connection != nil } }

    /// Returns once there is a connection. - Throws: `CancellationError`.
    package nonisolated(nonsending) func connected() async throws {
        let id = state.withLock { state in
            state.nextWaiter += 1
            return state.nextWaiter
        }
        try await withTaskCancellationHandler {
            try await withCheckedThrowingContinuation { (waiter: CheckedContinuation<Void, any Error>) in
                let outcome: Result<Void, any Error>? = state.withLock { state in
                    if state.connection != nil { return .success(()) }
                    if Task.isCancelled { return .failure(CancellationError()) }
                    state.waiters[id] = waiter
                    return nil
                }
                if let outcome { waiter.resume(with: outcome) }
            }
        } onCancel: {
            state.withLock { $0.waiters.removeValue(forKey: id) }?.resume(throwing: CancellationError())
        }
    }

    /// As a connection's; while there is none every value is a `connectionLost` error.
    package nonisolated(nonsending) func pipeline(
        _ commands: [RedisCommand], timeout: Duration
    ) async -> [RedisValue] {
        if let connection = state.withLock({ $0.connection }) {
            return await connection.pipeline(commands, timeout: timeout)
        }
        return commands.map { _ in .error(RedisError(.connectionLost, "no connection to Redis")) }
    }
}
