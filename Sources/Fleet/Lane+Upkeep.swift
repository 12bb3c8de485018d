internal import CoreMetrics
internal import Logging
internal import Redis
internal import ServiceLifecycle

/// What a lane does beside running jobs: keeping leases alive, promoting delayed jobs, and looking after the group.
extension Lane {
    /// The heartbeat, until cancelled: also while the worker drains.
    func keepLeases() async {
        var beats = 0
        var trouble: String?
        while !Task.isCancelled {
            metrics.ready.record(isReady ? 1 : 0)
            session.tellBreakers()
            // While it drains, this is the loop that shows it is alive.
            if Task.isShuttingDownGracefully { turnedAt = .now }
            if writing.isConnected {
                do throws(RedisError) {
                    // Also while there is nothing to read with: what is in hand runs on.
                    try await beat()
                    // A newer library may have been replaced by a worker that looked before it came.
                    try await FunctionLibrary.load(into: writing)
                    try await lookAround()
                    await cache.shareAsked()
                    if beats % 4 == 0, !Task.isShuttingDownGracefully {
                        // Redis 7.0 takes a consumer that finds nothing to read for a silent one: a look behind its
                        // last pending entry is a sign of life.
                        _ = await writing.pipeline(configuration.kinds.map { read([$0], "\(UInt64.max)-0", count: 1) })
                        for kind in configuration.kinds { await retire(kind, "") }
                    }
                    trouble = nil
                } catch {
                    if trouble != error.message { log.info("no heartbeat", metadata: ["error": "\(error)"]) }
                    trouble = error.message
                }
                beats += 1
            }
            try? await LaneActor.sleep(for: Lease.heartbeat)
        }
    }

    func beat() async throws(RedisError) {
        for (kind, entries) in inHand where !entries.isEmpty {
            let (ids, now) = (Array(entries.keys), ContinuousClock.now)
            for start in stride(from: 0, to: ids.count, by: 1000) {
                let page = ids[start..<min(start + 1000, ids.count)].map(RedisArgument.text)
                let reply = try await FunctionLibrary.call(
                    "fleet_beat", [keys.jobs(kind)], [.text(Keys.group), .text(consumer)] + page, on: writing)
                // Some are another worker's by now; which, the fence of each will tell.
                guard reply.int == 0 else { continue }
                for id in ids[start..<min(start + 1000, ids.count)] where inHand[kind]?[id] != nil {
                    inHand[kind]?[id] = now
                }
            }
        }
    }

    /// Reads what a person has paused, whether this Redis keeps what it has acknowledged, and what time it is.
    func lookAround() async throws(RedisError) {
        let asked = clock.now()
        let replies = await writing.pipeline([
            ["SMEMBERS", .text(keys.paused)], ["INFO", "memory", "persistence"], ["TIME"],
        ])
        let error = clock.follow(replies[2], asked: asked)
        if abs(error) > 1000 { events.tell("clock", "Redis' is \(error) ms ahead of this worker's, which follows it") }
        let stopped = Set((try replies[0].get().array ?? []).compactMap { $0.text.flatMap(Kind.init) })
        if stopped != paused {
            events.tell("paused", stopped.isEmpty ? "nothing" : stopped.map(\.rawValue).sorted().joined(separator: ","))
        }
        paused = stopped
        let found = configuration.allowsVolatileOrders ? nil : try Self.volatility(replies[1])
        if found != volatility {
            events.tell("orders", found.map { "refused: \($0)" } ?? "taken again")
        }
        volatility = found
    }

    /// Why a Redis may not hold orders: it evicts keys, or keeps no log on disk.
    nonisolated static func volatility(_ info: RedisValue) throws(RedisError) -> String? {
        // That a user may not ask is an answer; that a connection broke in between says nothing of this Redis.
        if let error = info.error, error.code != .server("NOPERM") { throw error }
        let lines = (info.text ?? "").split(whereSeparator: \.isNewline)
        let value = { (name: String) in lines.first { $0.hasPrefix(name + ":") }?.dropFirst(name.count + 1) }
        guard let policy = value("maxmemory_policy"), let log = value("aof_enabled") else {
            return "INFO memory persistence cannot be read, so nobody knows whether Redis keeps what it acknowledges"
        }
        if policy != "noeviction" { return "maxmemory-policy is \(policy); expected noeviction" }
        return log == "1" ? nil : "appendonly is off; expected on"
    }

    /// Removes a consumer, or with "" those that have been silent for half a minute; none that has jobs pending.
    func retire(_ kind: Kind, _ name: String) async {
        _ = try? await FunctionLibrary.call(
            "fleet_retire", [keys.jobs(kind)], [.text(Keys.group), .text(name), 30_000], on: writing)
    }

    /// Moves delayed jobs that are due to their streams, until the worker stops.
    func promote() async {
        let (names, limit) = (Kind.allCases.map { RedisArgument.text($0.rawValue) }, 100)
        while !Task.isCancelled, !Task.isShuttingDownGracefully {
            await events.flush(to: writing)
            var wait = Duration.milliseconds(90)
            if hasGroups,
                let reply = try? await FunctionLibrary.call(
                    "fleet_promote", [keys.delayed] + Kind.allCases.map(keys.jobs),
                    [.int(limit), .text(keys.markerPrefix)] + names, on: writing
                ).array, reply.count == 2
            {
                // Another worker may add one that is due before the next known one.
                if let next = reply[1].int, next >= 0 { wait = min(wait, .milliseconds(next)) }
                if reply[0].int == limit { continue }
            }
            try? await LaneActor.sleep(for: wait + .milliseconds(1))
        }
    }
}
