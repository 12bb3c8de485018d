import Exchanges
import Foundation
import Redis
import TestSupport
import Testing

@testable import Fleet

extension Stack {
    /// Moves what is due to its stream. - Returns: how many jobs that were.
    @discardableResult
    func promote(_ exchange: Exchange) async throws -> Int? {
        let (keys, kinds) = (Keys(exchange), Kind.allCases)
        return try await call(
            "fleet_promote", [keys.delayed] + kinds.map(keys.jobs), ["100", keys.markerPrefix] + kinds.map(\.rawValue)
        ).array?.first?.int
    }

    /// Makes everything delayed due at once.
    func passTime(_ exchange: Exchange) async throws {
        let key = RedisArgument.text(Keys(exchange).delayed)
        for member in try await command(["ZRANGE", key, 0, -1]).array?.compactMap(\.text) ?? [] {
            try await command(["ZADD", key, 1, .text(member)])
        }
    }
}

@Suite("Delayed jobs", .serialized, .timeLimit(.minutes(2)))
struct DelayedJobTests {
    /// What `delayed list` says of the exchange.
    private func listed(_ stack: Stack, _ exchange: Exchange) async throws -> [JSONValue] {
        let finished = try await stack.producer(["delayed", "list", exchange.rawValue, "--json"])
        #expect(finished.status == 0, "\(finished.errors)")
        return try JSONValue(finished.output).list
    }

    @Test("--in and --at delay a job, which then comes to its stream as it was given")
    func delay() async throws {
        let stack = try await Stack()
        let order = [
            "submit-order", "binance", "BTC/USDT", "buy", "limit", "0.001", "--price", "32000", "--id", "o-1",
        ]
        let sent = try await stack.producer(order + ["--in", "2h"])
        #expect(sent.status == 0 && sent.output == "o-1\n", "\(sent.errors)")
        let at = try await stack.producer(
            ["fetch-ticker", "binance", "BTC/USDT", "--at", "2100-01-01T02:00:00.250+02:00", "--json"])
        let name = try #require(try JSONValue(at.output)["id"].text)
        #expect(UUID(uuidString: name) != nil)
        #expect(try JSONValue(at.output)["delayed"] == .bool(true))
        let jobs = try await listed(stack, .binance)
        try #require(jobs.map { $0["id"].text } == ["o-1", name])
        #expect(jobs.map { $0["kind"].text } == ["submit_order", "fetch_ticker"])
        #expect(jobs.allSatisfy { $0["every_ms"].isNull && $0["attempt"].int == 1 })
        let left = (jobs[0]["due_ms"].int ?? 0) - Int(wallClockMs())
        #expect((3_600_000...7_200_000).contains(left), "\(left)")
        #expect(jobs[1]["due_ms"].int == 4_102_444_800_250)
        let table = try await stack.producer(["delayed", "list"])
        #expect(table.output.contains(/binance +o-1 +submit_order +1h 5\dm +- +1\n/), "\(table.output)")
        #expect(try await stack.promote(.binance) == 0)
        #expect(try await stack.producer(order).status == 1)
        // A value that looks like a name.
        try await stack.enqueue(.kraken, .fetchTicker, ["id": "v", "note": "id"], due: wallClockMs() + 3_600_000)
        #expect(try await listed(stack, .kraken).map { $0["id"].text } == ["v"])

        try await stack.passTime(.binance)
        #expect(try await stack.promote(.binance) == 2)
        let entries = try await stack.command(["XRANGE", "fleet:{binance}:jobs:submit_order", "-", "+"]).array ?? []
        #expect(
            entries.first?.array?.last?.array?.compactMap(\.text) == [
                "symbol", "BTC/USDT", "side", "buy", "type", "limit", "amount", "0.001", "price", "32000", "id", "o-1",
            ])
        let again = try await stack.producer(order + ["--json"])
        #expect(try JSONValue(again.output)["duplicate"].text == "queued")
    }

    @Test("a time that has passed is due at once, in unix milliseconds too")
    func past() async throws {
        let stack = try await Stack()
        let ms = wallClockMs() - 30_000
        for time in [Date(timeIntervalSince1970: Double(ms) / 1000).formatted(.iso8601), "\(ms)"] {
            #expect(try await stack.producer(["fetch-ticker", "kraken", "BTC/USD", "--at", time]).status == 0)
        }
        try await eventually("both are due") { try await stack.promote(.kraken) == 2 }
    }

    @Test("--every repeats a job under its own name, each time a new job, until it is removed")
    func every() async throws {
        let stack = try await Stack()
        // Without symbols the job has no field of its own.
        let refresh = ["refresh-cache", "bybit", "--every", "30s", "--id", "every-1"]
        #expect(try await stack.producer(refresh).status == 0)
        let twice = try await stack.producer(refresh + ["--json"])
        #expect(twice.status == 1)
        #expect(try JSONValue(twice.output)["duplicate"].text == "delayed")
        let later = try await stack.producer(["fetch-ticker", "bybit", "BTC/USDT", "--every", "1d", "--in", "1h"])
        #expect(later.status == 0)

        #expect(try await listed(stack, .bybit).first?["id"].text == "every-1")
        #expect(try await stack.promote(.bybit) == 1)
        let refreshes = RedisArgument.text(Keys(.bybit).jobs(.refreshCache))
        #expect(try await stack.command(["XLEN", refreshes]).int == 1)
        try await stack.command(["XTRIM", refreshes, "MAXLEN", 0])
        try await stack.passTime(.bybit)
        #expect(try await stack.promote(.bybit) == 2)
        #expect(try await stack.command(["XLEN", refreshes]).int == 1)
        let tickers = try await stack.command(["XRANGE", "fleet:{bybit}:jobs:fetch_ticker", "-", "+"]).array ?? []
        #expect(tickers.first?.array?.last?.array?.compactMap(\.text) == ["symbol", "BTC/USDT"])
        #expect(try await listed(stack, .bybit).map { $0["every_ms"].int } == [30_000, 86_400_000])

        let removed = try await stack.producer(["delayed", "remove", "bybit", "every-1"])
        #expect(removed.status == 0 && removed.output.contains("every-1"))
        let none = try await stack.producer(["delayed", "remove", "bybit", "every-1"])
        #expect(none.status == 1 && none.errors.contains("every-1"))
        #expect(try await listed(stack, .bybit).count == 1)
        #expect(try await stack.producer(refresh).status == 0)
    }

    @Test("--wait with --in waits within its timeout and says where to look later")
    func wait() async throws {
        let stack = try await Stack()
        let late = try await stack.producer(
            ["fetch-ticker", "kraken", "BTC/USD", "--in", "1h", "--id", "w-1", "--wait", "--timeout", "0.2"])
        #expect(late.status == 2 && late.errors.contains("w-1"))
    }

    @Test("a job between two attempts is listed with the number of the next")
    func retried() async throws {
        let stack = try await Stack()
        #expect(try await stack.producer(["fetch-ticker", "kraken", "BTC/USD", "--id", "r-1"]).status == 0)
        let entry = try await stack.deliver(.kraken, .fetchTicker)
        let keys = Keys(.kraken)
        try await stack.call(
            "fleet_retry", [keys.jobs(.fetchTicker), keys.delayed, keys.marker("r-1"), keys.retries],
            ["workers", "w", entry, "fetch_ticker", "r-1", "600000", "2", "1", "a line", "1"])
        let jobs = try await listed(stack, .kraken)
        #expect(jobs.map { $0["id"].text } == ["r-1"] && jobs.first?["attempt"].int == 2)
        // An order between two attempts may have been sent.
        #expect(try await stack.producer(["delayed", "remove", "kraken", "r-1"]).status == 1)
        #expect(try await listed(stack, .kraken).count == 1)
    }
}
