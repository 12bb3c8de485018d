import Exchanges
import Redis
import TestSupport
import Testing

@testable import Fleet

/// What somebody else put into Redis must not blind the operator.
@Suite("The producer beside foreign keys", .timeLimit(.minutes(1)))
struct ForeignKeyTests {
    @Test("a key of another type is named, and the rest is shown", arguments: ["paused", "delayed", "dead"])
    func wrongType(_ key: String) async throws {
        let stack = try await Stack()
        try await stack.command(["SET", Stack.key(.bybit, key), "x"])
        let stats = try await stack.producer(["stats"])
        #expect(stats.status == 0 && stats.errors.contains("fleet:{bybit}:\(key): WRONGTYPE"), "\(stats.errors)")
        #expect(stats.output.split(separator: "\n").count == 1 + Exchange.allCases.count * Kind.allCases.count)
        guard key != "paused" else { return }
        let list = try await stack.producer([key, "list"])
        #expect(list.status == 0 && list.errors.contains("fleet:{bybit}:\(key): WRONGTYPE"), "\(list.errors)")
    }

    @Test("a delayed member of an absurd time is listed", arguments: ["inf", "-inf", "1e19"])
    func absurdTime(_ score: String) async throws {
        let stack = try await Stack()
        let member = #"["fetch_ticker","z",0,["symbol","BTC/USDT","id","z"]]"#
        try await stack.command(["ZADD", Stack.key(.bybit, "delayed"), .text(score), .text(member)])
        let list = try await stack.producer(["delayed", "list"])
        #expect(list.status == 0 && list.output.contains(/bybit +z +fetch_ticker/), "\(list.output) \(list.errors)")
    }

    @Test("a dead job that cannot be replayed does not keep the others from it, and what it says is no command")
    func replayAll() async throws {
        let stack = try await Stack()
        try await stack.bury("o-1", .submitOrder, reason: "attempts\u{1B}[31m")
        try await stack.bury("t-1", .fetchTicker, reason: "attempts")
        try await stack.command(["SET", Stack.key(.kraken, "order:o-1"), "no journal"])
        let list = try await stack.producer(["dead", "list"])
        #expect(list.output.contains("attempts\u{FFFD}[31m") && !list.output.contains("\u{1B}"), "\(list.output)")
        let replay = try await stack.producer(["dead", "replay", "--all"])
        #expect(replay.status == 1 && replay.output == "1 replayed\n", "\(replay.errors)")
        #expect(replay.errors.contains("o-1 stays: WRONGTYPE"), "\(replay.errors)")
        #expect(try await stack.dead(.kraken).compactMap { $0["id"] } == ["o-1"], "it is where it was")
        #expect(try await stack.command(["XLEN", Stack.key(.kraken, "jobs:submit_order")]) == .integer(0))
    }
}
