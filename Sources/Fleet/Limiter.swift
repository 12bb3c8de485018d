package import Exchanges
package import Redis
internal import ServiceLifecycle

/// The budgets of one exchange, kept in Redis for the whole fleet, and the gate that a ban closes for all of it.
///
/// What several jobs of this worker want at one time is asked for in one call. Who would wait longer than `patience`
/// is set aside; without Redis nothing is granted.
@LaneActor
package final class Limiter {
    /// How much of each bucket a call may draw down: the rest stays for those before it.
    package enum Share: Double { case cancel = 1, order = 0.9, ticker = 0.75, refresh = 0.6 }

    private struct Ask: Hashable {
        let charges: [Charge]
        let share: Share
    }
    private typealias Waiter = (continuation: CheckedContinuation<Void, any Error>, deadlineMs: Int64?)

    private let redis: RedisClient
    private let keys: Keys
    private let egress, account: String
    private let nowMs: @Sendable () -> Int64
    private let patience = Duration.seconds(2)
    private var queues: [Ask: [Waiter]] = [:]
    private let queued = AsyncStream.makeStream(of: Void.self, bufferingPolicy: .bufferingNewest(1))
    private var isStopped = false
    private var closedUntil = ContinuousClock.now
    private var correctedAt: [String: ContinuousClock.Instant] = [:]

    /// `egress` is the address group, whose workers share what is counted by address; `account` tells the API key from
    /// others without showing it.
    package init(
        redis: RedisClient, keys: Keys, egress: String, account: String, nowMs: @escaping @Sendable () -> Int64
    ) {
        (self.redis, self.keys, self.egress, self.account, self.nowMs) = (redis, keys, egress, account, nowMs)
    }

    /// Whether the exchange wants nobody to call.
    package var isClosed: Bool { .now < closedUntil }

    /// Returns when the call may be made. - Throws: `SetAside`, `JobExpired`, `RedisError`, and in a stopping worker
    /// `CancellationError`.
    package func take(_ charges: [Charge], _ share: Share, deadlineMs: Int64?) async throws {
        let ask = Ask(charges: charges, share: share)
        let ahead = Double(queues[ask]?.count ?? 0)
        let wait = Duration.seconds(charges.map { ahead * $0.cost / $0.perSecond }.max() ?? 0)
        if wait > patience { throw SetAside(min(wait, .seconds(30))) }
        try await withCheckedThrowingContinuation { (continuation: CheckedContinuation<Void, any Error>) in
            if isStopped { return continuation.resume(throwing: CancellationError()) }
            // Who joins others waits for what they wait for.
            if queues[ask] == nil { queued.continuation.yield() }
            queues[ask, default: []].append((continuation, deadlineMs))
        }
    }

    /// Gives back what was taken for a call that was not made.
    package func giveBack(_ charges: [Charge]) async {
        _ = try? await FunctionLibrary.call(
            "fleet_limit_give", charges.map(key),
            [1] + charges.flatMap { [.text("\($0.cost)"), .text("\($0.perSecond)")] }, on: redis)
    }

    /// Whether this worker may find out if the exchange is back: one of the fleet at a time, and after a failure none for
    /// a breaker's cooldown. Without Redis each may, and is granted nothing.
    package func beginProbe(trading: Bool) async -> Bool {
        // For longer than any request takes.
        await redis.pipeline([["SET", .text(keys.probe(egress, trading: trading)), "1", "NX", "PX", 15_000]])[0]
            != .null
    }

    package func endProbe(trading: Bool, failed: Bool) async {
        let key = RedisArgument.text(keys.probe(egress, trading: trading))
        _ = await redis.pipeline([failed ? ["PEXPIRE", key, 5000] : ["DEL", key]])
    }

    /// Stops all calls of the fleet behind this address.
    package func close(for duration: Duration) async {
        closedUntil = max(closedUntil, .now + duration)
        let ms = max(1, Int(duration / .milliseconds(1)))
        _ = try? await FunctionLibrary.call("fleet_limit_close", [keys.gate(egress)], [.int(ms)], on: redis)
    }

    /// Takes up what the exchange says was used: by others too, who are not of this fleet. Once a second is enough: the
    /// budgets leave room for more than that.
    package func correct(_ usages: [Usage], _ charges: [Charge]) async {
        for usage in usages where correctedAt[usage.name].map({ .now - $0 > .seconds(1) }) ?? true {
            guard let charge = charges.first(where: { $0.name == usage.name }) else { continue }
            correctedAt[usage.name] = .now
            let arguments: [RedisArgument] = [
                .text("\(usage.used)"), .int(usage.windowMs), .text("\(charge.perSecond)"),
            ]
            _ = try? await FunctionLibrary.call("fleet_limit_correct", [key(charge)], arguments, on: redis)
        }
    }

    /// Serves those who wait, until cancelled; when the worker stops, only those who need not wait.
    package func run() async {
        var timer: Task<Void, Never>?
        for await _ in queued.stream {
            timer?.cancel()
            let wait = min(await serve(), .milliseconds(100))
            if Task.isShuttingDownGracefully { end(with: CancellationError()) }
            if queues.isEmpty { continue }
            // Not slept here: a cancel must not wait for the time when tickers may go.
            timer = Task {
                if (try? await LaneActor.sleep(for: wait)) != nil { queued.continuation.yield() }
            }
        }
        timer?.cancel()
        isStopped = true
        end(with: CancellationError())
    }

    /// One round. - Returns: how long until the next can bring something.
    private func serve() async -> Duration {
        let asks = queues.keys.sorted { $0.share.rawValue > $1.share.rawValue }
        let replies = await redis.pipeline(
            asks.map { ask in
                FunctionLibrary.command(
                    "fleet_limit_take", [keys.gate(egress)] + ask.charges.map(key),
                    [.int(queues[ask]?.count ?? 0), .text("\(ask.share.rawValue)")]
                        + ask.charges.flatMap { [$0.cost, $0.burst, $0.perSecond].map { .text("\($0)") } })
            })
        var least = patience
        for (ask, reply) in zip(asks, replies) {
            guard let values = reply.array, values.count == 3, let granted = values[0].int, let ms = values[1].int
            else {
                let error = reply.error ?? RedisError(.malformedReply, "fleet_limit_take: three numbers were expected")
                if FunctionLibrary.isMissing(error) { try? await FunctionLibrary.load(into: redis) }
                end(ask, with: error)
                continue
            }
            let waiters = queues[ask] ?? []
            for waiter in waiters.prefix(granted) { waiter.continuation.resume() }
            queues[ask] = waiters.count > granted ? Array(waiters.dropFirst(granted)) : nil
            if waiters.count <= granted { continue }
            let wait = Duration.milliseconds(ms)
            if values[2].int == 1 { closedUntil = max(closedUntil, .now + wait) }
            if wait > patience { end(ask, with: SetAside(min(wait, .seconds(30)))) }
            expire(ask)
            least = min(least, wait)
        }
        return queues.isEmpty ? .zero : least
    }

    private func expire(_ ask: Ask) {
        guard let waiters = queues[ask] else { return }
        let now = nowMs()
        let isLate = { (waiter: Waiter) in waiter.deadlineMs.map { $0 <= now } ?? false }
        for waiter in waiters where isLate(waiter) { waiter.continuation.resume(throwing: JobExpired()) }
        queues[ask] = waiters.filter { !isLate($0) }
        if queues[ask]?.isEmpty ?? true { queues[ask] = nil }
    }

    private func end(_ ask: Ask, with error: any Error) {
        for waiter in queues.removeValue(forKey: ask) ?? [] { waiter.continuation.resume(throwing: error) }
    }

    private func end(with error: any Error) { for ask in queues.keys { end(ask, with: error) } }

    private func key(_ charge: Charge) -> String {
        keys.limit(charge.name, charge.scope == .address ? egress : account)
    }
}
