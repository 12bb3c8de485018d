import Exchanges
import Logging
import Redis
import TestSupport
import Testing

@testable import Fleet

@Suite("The fleet's clock", .timeLimit(.minutes(1)))
@LaneActor
struct FleetClockTests {
    private func time(_ ms: Int64) -> RedisValue {
        .array(["\(ms / 1000)", "\(ms % 1000 * 1000)"].map { .bytes(Array($0.utf8)) })
    }

    @Test("it follows Redis where that is further away than the answer's way explains", arguments: [-1, 1])
    func follow(_ sign: Int64) {
        let clock = FleetClock()
        let start = clock.now()
        #expect(abs(start - wallClockMs()) < 1000)
        #expect(clock.follow(time(start + sign * 40), asked: start) == 0)
        for read in [start - 60_000, start - 30_000] {
            #expect(clock.follow(time(read), asked: start - 60_000) == 0, "a minute on its way")
        }
        let absurd = [[Int64.max / 1000, 0], [start / 1000, .max]].map { parts in
            RedisValue.array(parts.map { .bytes(Array("\($0)".utf8)) })
        }
        for answer in [.error(RedisError(.server("NOPERM"), "no")), .null, .array([.null, .null])] + absurd {
            #expect(clock.follow(answer, asked: start) == 0)
        }
        let wrong = clock.follow(time(start + sign * 600_000), asked: start)
        #expect(abs(wrong - sign * 600_000) < 10_000)
        #expect(abs(clock.now() - start - sign * 600_000) < 10_000)
        #expect(clock.follow(time(clock.now()), asked: start) == 0, "one that was asked before it was set")
    }

    @Test("a lane looks at Redis' clock with every heartbeat, and says when its own was wrong")
    func lane() async throws {
        let server = try await FunctionServer()
        let clock = FleetClock()
        let http = HTTPClient(now: clock.now)
        defer { http.close() }
        let configuration = try Configuration(["REDIS_URL": server.server.url, "FLEET_EXCHANGES": "kraken"])
        let lane = Lane(
            api: try kraken("http://127.0.0.1:1"), consumer: "w", configuration: configuration, http: http,
            log: Logger(label: "test") { _ in SwiftLogNoOpLogHandler() }, clock: clock)
        let connection = Task { await lane.writing.run() }
        defer { connection.cancel() }
        try await lane.writing.connected()
        clock.follow(time(clock.now() + 600_000), asked: clock.now())
        try await lane.lookAround()
        #expect(abs(clock.now() - wallClockMs()) < 100_000)
        await lane.events.flush(to: lane.writing)
        let events = try await server.redis("XRANGE", Keys(.kraken).events, "-", "+")
        #expect("\(events)".contains("\(Array("clock".utf8))"), "\(events)")
    }
}
