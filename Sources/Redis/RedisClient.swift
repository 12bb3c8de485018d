package import NIOCore
private import Synchronization

/// A connection that is rebuilt when it breaks, for a process that lives long. `run()` does the rebuilding; while there
/// is no connection, calls fail at once with `connectionLost` and `connected()` waits for the next one.
package final class RedisClient: RedisCalls {
    private let url: RedisURL
    private let loop: any EventLoop
    private let name: String
    private let onChange: @Sendable (RedisError?) -> Void
    private let connection = Mutex<RedisConnection?>(nil)

    /// `onChange` is told nil when there is a connection, and once a reason why there is none.
    package init(
        url: RedisURL, loop: any EventLoop, name: String, onChange: @escaping @Sendable (RedisError?) -> Void = { _ in }
    ) {
        (self.url, self.loop, self.name, self.onChange) = (url, loop, name, onChange)
    }

    /// Keeps a connection up until the task is cancelled: waits 0…100 ms before the first new try, at most 0…2 s.
    package func run() async {
        var attempt = 0
        var reported: RedisError.Code?
        while !Task.isCancelled {
            do throws(RedisError) {
                let next = try await RedisConnection.connect(to: url, on: loop, name: name)
                // Who may not ask finds out by writing.
                if (try? await next.send(["ROLE"]))?.array?.first?.text == "slave" {
                    next.close()
                    throw RedisError(.server("READONLY"), "\(url) is a replica")
                }
                (attempt, reported) = (0, nil)
                onChange(nil)
                connection.withLock { $0 = next }
                await withTaskCancellationHandler {
                    try? await next.closed.get()
                } onCancel: {
                    next.close()
                }
                connection.withLock { $0 = nil }
                throw RedisError(.connectionLost, "the connection to \(url) broke")
            } catch {
                // Once a reason: a password that was changed meanwhile is another than the loss.
                if reported != error.code, !Task.isCancelled { onChange(error) }
                reported = error.code
                attempt += 1
            }
            let wait = Duration.backoff(attempt: attempt, base: .milliseconds(50), cap: .seconds(2))
            try? await Task.sleep(for: wait)
        }
    }

    package var isConnected: Bool { connection.withLock { $0 != nil } }

    /// Returns once there is a connection. - Throws: `CancellationError`.
    package nonisolated(nonsending) func connected() async throws {
        while !isConnected { try await Task.sleep(for: .milliseconds(10)) }
    }

    /// As a connection's; while there is none every value is a `connectionLost` error.
    package nonisolated(nonsending) func pipeline(
        _ commands: [RedisCommand], timeout: Duration
    ) async -> [RedisValue] {
        if let connection = connection.withLock({ $0 }) {
            return await connection.pipeline(commands, timeout: timeout)
        }
        return commands.map { _ in .error(RedisError(.connectionLost, "no connection to Redis")) }
    }
}
