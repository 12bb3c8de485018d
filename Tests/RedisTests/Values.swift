import NIOPosix
import TestSupport

@testable import Redis

/// A connection to the server, made as the tests of this target make all of them.
func connect(
    to url: String, name: String = "test", timeout: Duration = .seconds(10)
) async throws -> RedisConnection {
    try await RedisConnection.connect(
        to: RedisURL(url), on: MultiThreadedEventLoopGroup.singleton.next(), name: name, timeout: timeout)
}

func client(
    to url: String, name: String = "test", onChange: @escaping @Sendable (RedisError?) -> Void = { _ in }
) throws -> RedisClient {
    RedisClient(
        url: try RedisURL(url), loop: MultiThreadedEventLoopGroup.singleton.next(), name: name, onChange: onChange)
}

/// The code of the error that the work throws, nil when it throws none.
func code(of work: () async throws -> Void) async -> RedisError.Code? {
    do {
        try await work()
        return nil
    } catch {
        return (error as? RedisError)?.code
    }
}
