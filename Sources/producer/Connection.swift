internal import ArgumentParser
internal import Exchanges
internal import Fleet
internal import Foundation
internal import NIOPosix
internal import Redis

extension Exchange: ExpressibleByArgument {}
extension Kind: ExpressibleByArgument {}

/// Why a command did not do what it was told to; ends it with exit code 1.
struct Failure: Error, CustomStringConvertible {
    let description: String

    init(_ description: String) { self.description = description }
}

/// Says what is wrong where the command goes on.
func complain(_ text: String) { tell("producer: \(text)\n") }

/// Writes to the error output; where that cannot be written, the command goes on.
func tell(_ text: String) { try? FileHandle.standardError.write(contentsOf: Data(text.utf8)) }

extension RedisConnection {
    /// Asks about one key; of a key of another type it says so and goes on.
    func look(_ command: RedisArgument, _ key: String, _ more: RedisArgument...) async throws -> RedisValue {
        do throws(RedisError) {
            return try await send([command, .text(key)] + more, timeout: .seconds(30))
        } catch {
            guard error.code == .server("WRONGTYPE") else { throw error }
            complain("\(key): \(error.message)")
            return .null
        }
    }
}

/// The settings, which are the workers'. - Throws: exit code 64, with all their faults.
func settings() throws -> Configuration {
    do throws(Configuration.Invalid) {
        return try Configuration(ProcessInfo.processInfo.environment)
    } catch {
        throw ValidationError(error.description)
    }
}

/// The exchange that was named, else those of the settings.
func exchanges(_ named: Exchange?) throws -> [Exchange] { try named.map { [$0] } ?? settings().apis.map(\.exchange) }

/// Unix milliseconds, by Redis' clock once there is a connection.
let clock = FleetClock()

/// A connection to the Redis of `REDIS_URL`.
func openRedis() async throws -> RedisConnection {
    let redis = try await RedisConnection.connect(
        to: settings().redis, on: MultiThreadedEventLoopGroup.singleton.next(), name: "producer")
    let asked = clock.now()
    clock.follow(await redis.pipeline([["TIME"]])[0], asked: asked)
    return redis
}
