package import Exchanges
package import Redis
internal import ServiceLifecycle

/// The budgets of one exchange, kept in Redis for the whole fleet, and the gate that a ban closes for all of it.
///
/// Who would wait longer than `patience` is set aside; without Redis nothing is granted.
@LaneActor
package final class Limiter {
    /// How much of each bucket a call may draw down: the rest stays for those before it.
    package enum Share: Double { case cancel = 1, order = 0.9, ticker = 0.75, refresh = 0.6 }

    /// Calls that want the same stand in one line, and only the first of it asks Redis.
    private struct Ask: Hashable {
        let charges: [Charge]
        let share: Share
    }

    private let redis: RedisClient
    private let keys: Keys
    private let egress, account: String
    private let nowMs: @Sendable () -> Int64
    private let patience = Duration.seconds(2)
    private var lines: [Ask: Turnstile] = [:]
    /// Tokens that the first of a line took for those behind it.
    private var taken: [Ask: Int] = [:]
    /// Those whose first has to wait for tokens.
    private var waiting: Set<Ask> = []
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
    /// `CancellationError` instead of a wait.
    package func take(_ charges: [Charge], _ share: Share, ofAccount: Bool, deadlineMs: Int64?) async throws {
        let ask = Ask(charges: charges, share: share)
        let line = lines[ask] ?? Turnstile()
        lines[ask] = line
        let ahead = Duration.seconds(charges.map { Double(line.waiting) * $0.cost / $0.perSecond }.max() ?? 0)
        if waiting.contains(ask), ahead > patience { throw SetAside(min(ahead, .seconds(30))) }
        await line.enter()
        defer {
            waiting.remove(ask)
            line.leave()
        }
        while true {
            if let deadlineMs, nowMs() >= deadlineMs {
                if line.waiting == 0 { await giveBack(charges, taken.removeValue(forKey: ask) ?? 0) }
                throw JobExpired()
            }
            if let left = taken[ask], !isClosed {
                taken[ask] = left > 1 && line.waiting > 0 ? left - 1 : nil
                // Of those it was taken for some gave up.
                if line.waiting == 0 { await giveBack(charges, left - 1) }
                return
            }
            await giveBack(charges, taken.removeValue(forKey: ask) ?? 0)
            let reply = try await FunctionLibrary.call(
                "fleet_limit_take", [keys.gate(egress)] + charges.map(key) + (ofAccount ? [keys.gate(account)] : []),
                [.int(1 + min(line.waiting, 20)), .text("\(share.rawValue)")]
                    + charges.flatMap { [$0.cost, $0.burst, $0.perSecond].map { .text("\($0)") } }, on: redis)
            guard let values = reply.array?.compactMap(\.int), values.count == 3 else {
                throw RedisError(.malformedReply, "fleet_limit_take: three numbers were expected")
            }
            if values[0] > 1 { taken[ask] = values[0] - 1 }
            if values[0] > 0 { return }
            let wait = Duration.milliseconds(values[1])
            if values[2] == 1 { closedUntil = max(closedUntil, .now + wait) }
            if wait > patience { throw SetAside(min(wait, .seconds(30))) }
            if Task.isShuttingDownGracefully { throw CancellationError() }
            waiting.insert(ask)
            try await LaneActor.sleep(for: min(wait, .milliseconds(100)))
        }
    }

    /// Gives back what was taken for calls that were not made.
    package func giveBack(_ charges: [Charge], _ calls: Int = 1) async {
        guard calls > 0, !charges.isEmpty else { return }
        _ = try? await FunctionLibrary.call(
            "fleet_limit_give", charges.map(key),
            [.int(calls)] + charges.flatMap { [.text("\($0.cost)"), .text("\($0.perSecond)")] }, on: redis)
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

    /// Stops all calls of the fleet behind this address, and with `ofAccount` those with this key behind any.
    package func close(for duration: Duration, ofAccount: Bool) async {
        closedUntil = max(closedUntil, .now + duration)
        let ms = max(1, Int(duration / .milliseconds(1)))
        let gates = [keys.gate(egress)] + (ofAccount ? [keys.gate(account)] : [])
        _ = try? await FunctionLibrary.call("fleet_limit_close", gates, [.int(ms)], on: redis)
    }

    /// Takes up what the exchange says was used: by others too, who are not of this fleet. Once a second is enough: the
    /// budgets leave room for more than that, if not in a window that rolls. `duration` is how long the answer took.
    package func correct(_ usages: [Usage], _ charges: [Charge], after duration: Duration) async {
        for usage in usages where usage.rolls || correctedAt[usage.name].map({ .now - $0 > .seconds(1) }) ?? true {
            guard let charge = charges.first(where: { $0.name == usage.name }) else { continue }
            correctedAt[usage.name] = .now
            let arguments: [RedisArgument] = [
                .text("\(usage.used)"), .int(usage.windowMs), .text("\(charge.perSecond)"),
                // A second more, by which the exchange's clock and Redis' may differ.
                .int(Int((duration + (usage.rolls ? .zero : .seconds(1))) / .milliseconds(1))),
                .int(usage.rolls ? 1 : 0),
            ]
            _ = try? await FunctionLibrary.call("fleet_limit_correct", [key(charge)], arguments, on: redis)
        }
    }

    private func key(_ charge: Charge) -> String {
        keys.limit(charge.name, charge.scope == .address ? egress : account)
    }
}
