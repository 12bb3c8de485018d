internal import Foundation
package import Redis
private import Synchronization

/// Unix milliseconds by Redis' clock, to a twentieth of a second: a clock that is wrong here must not send an order past
/// its deadline, nor mistake the age of what other workers have received. From one look at Redis to the next it goes by
/// the machine's uptime, which nobody sets.
package final class FleetClock: Sendable {
    /// Unix time less the uptime, in nanoseconds.
    private let offset = Atomic(nanoseconds(CLOCK_REALTIME) - nanoseconds(CLOCK_BOOTTIME))

    package init() {}

    @Sendable package func now() -> Int64 {
        (nanoseconds(CLOCK_BOOTTIME) + offset.load(ordering: .relaxed)) / 1_000_000
    }

    /// Takes up the answer to a TIME that was sent at `asked`. - Returns: by how many milliseconds this clock was behind,
    /// 0 where it was right.
    @discardableResult
    package func follow(_ time: RedisValue, asked: Int64) -> Int64 {
        let parts = time.array?.compactMap { $0.text.flatMap { Int64($0) } } ?? []
        guard parts.count == 2, 0..<4_000_000_000 ~= parts[0], 0..<1_000_000 ~= parts[1] else { return 0 }
        let (theirs, now) = (parts[0] * 1000 + parts[1] / 1000, now())
        // It was read at some time since then, in which another may have set this clock.
        if min(asked, now) - 50...max(asked, now) + 50 ~= theirs { return 0 }
        let error = theirs - (asked + now) / 2
        offset.add(error * 1_000_000, ordering: .relaxed)
        return error
    }
}

/// Unix milliseconds by this machine's clock.
@Sendable package func wallClockMs() -> Int64 { nanoseconds(CLOCK_REALTIME) / 1_000_000 }

private func nanoseconds(_ clock: clockid_t) -> Int64 {
    var time = timespec()
    clock_gettime(clock, &time)
    return Int64(time.tv_sec) * 1_000_000_000 + Int64(time.tv_nsec)
}
