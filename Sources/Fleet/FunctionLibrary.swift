package import Redis

/// `fleet.lua` in Redis: one atomic call a change of state.
package enum FunctionLibrary {
    private static let version = 12

    /// Loads the library where it is missing or older than ours; a newer one is left alone.
    package nonisolated(nonsending) static func load(into redis: some RedisCalls) async throws(RedisError) {
        do throws(RedisError) {
            if let found = try await redis.send(["FCALL", "fleet_version", 0]).int, found >= version { return }
        } catch {
            guard case .server("ERR") = error.code else { throw error }
        }
        _ = try await redis.send(["FUNCTION", "LOAD", "REPLACE", .bytes(PackageResources.fleet_lua)])
    }

    package static func command(_ function: String, _ keys: [String], _ arguments: [RedisArgument]) -> RedisCommand {
        let head: RedisCommand = ["FCALL", .text(function), .int(keys.count)]
        return head + keys + arguments
    }

    /// Whether Redis has not got the function: it has lost the library, in a restart without its files.
    package static func isMissing(_ error: RedisError) -> Bool { error.message.contains("Function not found") }

    /// Calls a function; where Redis has lost the library (a restart without its files), loads it again.
    package nonisolated(nonsending) static func call(
        _ function: String, _ keys: [String], _ arguments: [RedisArgument] = [], on redis: some RedisCalls
    ) async throws(RedisError) -> RedisValue {
        let command = command(function, keys, arguments)
        do throws(RedisError) {
            return try await redis.send(command)
        } catch {
            guard isMissing(error) else { throw error }
            try await load(into: redis)
            return try await redis.send(command)
        }
    }
}
